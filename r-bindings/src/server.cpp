// The host's side. gRPC's threads answer what needs no R (health, metadata, refusals) and put inference calls into a
// bounded queue; R's main thread takes them one by one, evaluates, and answers. No R code runs on gRPC's threads.
#include <google/protobuf/arena.h>
#include <grpcpp/alarm.h>
#include <grpcpp/health_check_service_interface.h>
#ifdef MLB_REFLECTION
#include <grpcpp/ext/proto_server_reflection_plugin.h>
#include <grpcpp/impl/server_builder_option.h>
#endif

#include <pthread.h>
#include <signal.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <deque>
#include <map>
#include <memory>
#include <mutex>

#include "ending.h"
#include "exports.h"
// The generated classes end the process where a method that they replace is called. Nothing calls it, and R may not be ended:
// without that line it answers UNIMPLEMENTED.
#define abort() static_cast<void>(0)
#include "inference.grpc.pb.h"
#include "mlbridge.grpc.pb.h"
#undef abort
#include "statuses.h"
#include "tensors.h"

namespace mlb {
namespace {

using Clock = std::chrono::system_clock;
using grpc::ByteBuffer;
using grpc::CallbackServerContext;
using grpc::ServerUnaryReactor;
using grpc::StatusCode;

constexpr char kDraining[] = "the server is shutting down";
constexpr const char* kNotOffered[] = {"sequence_id", "sequence_start", "sequence_end"};
constexpr const char* kNotOfferedOfTensors[] = {"shared_memory_region", "shared_memory_byte_size", "shared_memory_offset", "classification"};

struct Reply {
  StatusCode code;
  std::string text;
  std::string kind;
};

// What the wire tells about one version of a model, made once.
struct Served {
  std::string name, version;
  inference::ModelMetadataResponse metadata;
  mlbridge::v1::DescribeResponse description;
};

struct Settings {
  std::string bearer;  // "Bearer …", or empty where no token is asked for
  std::size_t max_queue;
  std::string software;  // version of the server
};

ByteBuffer packed(const google::protobuf::Message& message) {
  std::string bytes;
  message.SerializeToString(&bytes);
  const grpc::Slice slice(bytes);
  return ByteBuffer(&slice, 1);
}

template <class M>
bool parsed(const ByteBuffer& buffer, M* message) {
  ByteBuffer copy(buffer);  // shares the bytes; parsing consumes its buffer
  return grpc::SerializationTraits<M>::Deserialize(&copy, message).ok();
}

bool same(const grpc::string_ref& shown, const std::string& wanted) {  // in constant time
  unsigned char differs = shown.size() != wanted.size();
  for (std::size_t i = 0; i < wanted.size(); ++i) differs |= static_cast<unsigned char>(i < shown.size() ? shown.data()[i] : 0) ^ static_cast<unsigned char>(wanted[i]);
  return !differs;
}

void finish(CallbackServerContext* context, ServerUnaryReactor* reactor, const Reply& reply) {
  context->AddTrailingMetadata(kErrorKey, reply.kind);
  reactor->Finish(grpc::Status(reply.code, reply.text));
}

class Host;

// One inference call, from its arrival until gRPC is done with it.
class Call final : public ServerUnaryReactor {
 public:
  Call(Host* host, CallbackServerContext* context, const ByteBuffer* bytes, ByteBuffer* answer)
      : host(host), context(context), bytes(bytes), answer(answer), request(*google::protobuf::Arena::CreateMessage<inference::ModelInferRequest>(&arena)) {}

  void OnCancel() override;
  void OnDone() override { self.reset(); }

  // Ends the call, once; later words are not heard.
  void end(const grpc::Status& status, const std::string& kind = "", const std::string& correlation = "") {
    if (ended.exchange(true)) return;
    if (!kind.empty()) context->AddTrailingMetadata(kErrorKey, kind);
    if (!correlation.empty()) context->AddTrailingMetadata("mlbridge-correlation-id", correlation);
    Finish(status);
  }
  void end(const Reply& reply) { end(grpc::Status(reply.code, reply.text), reply.kind); }
  bool late() const { return Clock::now() >= expires; }

  Host* host;
  CallbackServerContext* context;
  const ByteBuffer* bytes;
  ByteBuffer* answer;
  google::protobuf::Arena arena;
  inference::ModelInferRequest& request;
  const Served* served = nullptr;
  Clock::time_point expires = Clock::time_point::max();  // by the parameter `timeout`; the call's own deadline cancels
  std::unique_ptr<grpc::Alarm> alarm;
  std::atomic<bool> ended{false};
  std::shared_ptr<Call> self;
};

using Base = inference::GRPCInferenceService;
using Models = Base::WithRawCallbackMethod_ServerLive<Base::WithRawCallbackMethod_ServerReady<Base::WithRawCallbackMethod_ModelReady<
    Base::WithRawCallbackMethod_ServerMetadata<Base::WithRawCallbackMethod_ModelMetadata<Base::WithRawCallbackMethod_ModelInfer<Base::Service>>>>>>;

class Host {
 public:
  Host(std::vector<std::unique_ptr<Served>> models, Settings settings, std::map<std::string, const Served*> defaults)
      : settings(std::move(settings)), models_(std::move(models)), defaults_(std::move(defaults)), service_(*this), bridge_(*this), main_(pthread_self()) {}

  bool start(const std::string& address, const std::shared_ptr<grpc::ServerCredentials>& credentials, const Rcpp::List& limits) {
    grpc::EnableDefaultHealthCheckService(true);
    grpc::ServerBuilder builder;
    builder.AddListeningPort(address, credentials, &port);
    builder.RegisterService(&service_);
    builder.RegisterService(&bridge_);
    builder.SetMaxReceiveMessageSize(Rcpp::as<int>(limits["max_message_mib"]) << 20);
    builder.SetMaxSendMessageSize(-1);
    builder.AddChannelArgument(GRPC_ARG_ALLOW_REUSEPORT, Rcpp::as<bool>(limits["share_port"]) ? 1 : 0);
    builder.AddChannelArgument(GRPC_ARG_MAX_CONCURRENT_STREAMS, 256);
    builder.AddChannelArgument(GRPC_ARG_MAX_METADATA_SIZE, 16 << 10);
    builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_TIME_MS, 60000);
    builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_TIMEOUT_MS, 20000);
    builder.AddChannelArgument(GRPC_ARG_HTTP2_MIN_RECV_PING_INTERVAL_WITHOUT_DATA_MS, 10000);
#ifdef MLB_REFLECTION
    grpc::reflection::InitProtoReflectionServerBuilderPlugin();  // of this process, once; without the call the linker drops the library
    if (!settings.bearer.empty()) builder.SetOption(std::make_unique<NoReflection>());
#endif
    server_ = builder.BuildAndStart();
    if (server_) serving(true);
    return server_ != nullptr;
  }

  // -------------------------------------------------- on gRPC's threads

  bool allowed(CallbackServerContext* context, ServerUnaryReactor* reactor) {
    if (!settings.bearer.empty()) {
      const auto& metadata = context->client_metadata();
      const auto shown = metadata.find("authorization");
      if (shown == metadata.end() || !same(shown->second, settings.bearer)) {
        finish(context, reactor, {StatusCode::UNAUTHENTICATED, "no token, or a wrong one", "AccessError"});
        return false;
      }
    }
    if (draining) {
      finish(context, reactor, {StatusCode::UNAVAILABLE, kDraining, "UnavailableError"});
      return false;
    }
    return true;
  }

  // Null, with the reply, where there is no such model or version.
  const Served* find(const std::string& name, const std::string& version, Reply* reply) const {
    const auto known = defaults_.find(name);
    if (known == defaults_.end()) {
      *reply = {StatusCode::NOT_FOUND, "there is no model " + quoted(name), "NotFoundError"};
      return nullptr;
    }
    if (version.empty()) return known->second;
    for (const auto& served : models_)
      if (served->name == name && served->version == version) return served.get();
    *reply = {StatusCode::NOT_FOUND, "the model " + quoted(name) + " has no version " + quoted(version), "NotFoundError"};
    return nullptr;
  }

  ServerUnaryReactor* infer(CallbackServerContext* context, const ByteBuffer* bytes, ByteBuffer* answer) {
    auto call = std::make_shared<Call>(this, context, bytes, answer);
    call->self = call;
    if (!allowed(context, call.get())) return call.get();
    if (!parsed(*bytes, &call->request)) {
      call->end(malformed());
      return call.get();
    }
    Reply reply;
    call->served = find(call->request.model_name(), call->request.model_version(), &reply);
    if (!call->served) {
      call->end(reply);
      return call.get();
    }
    if (!expiry(*call, &reply)) {
      call->end(reply);
      return call.get();
    }
    {
      std::lock_guard<std::mutex> hold(lock_);
      if (queue_.size() < settings.max_queue && !draining) {
        queue_.push_back(call);
        wake_.notify_one();
        return call.get();
      }
    }
    if (draining) call->end(Reply{StatusCode::UNAVAILABLE, kDraining, "UnavailableError"});
    else call->end(Reply{StatusCode::RESOURCE_EXHAUSTED, "the queue is full; try again later", "OverloadedError"});
    return call.get();
  }

  // The caller gave up: what waits is not run, what runs is interrupted.
  void given_up(Call* call, const Reply& reply) {
    std::shared_ptr<Call> waiting;
    {
      std::lock_guard<std::mutex> hold(lock_);
      for (auto at = queue_.begin(); at != queue_.end(); ++at) {
        if (at->get() != call) continue;
        waiting = *at;
        queue_.erase(at);
        break;
      }
      if (!waiting && current_.get() == call && !interrupting_) {
        interrupting_ = true;
        pthread_kill(main_, SIGINT);  // R's own handler notes it; allowInterrupts() in R decides when it is heard
      }
    }
    if (waiting) waiting->end(reply);
  }

  static Reply malformed() { return {StatusCode::INVALID_ARGUMENT, "the message is not a well-formed protobuf message of this call", "InputError"}; }

  // -------------------------------------------------- on R's main thread

  enum class Event { kCall, kNothing, kInterrupt, kStop };

  Event take(std::chrono::milliseconds patience) {
    release_current();
    const auto until = std::chrono::steady_clock::now() + patience;
    for (;;) {
      {
        std::unique_lock<std::mutex> hold(lock_);
        const auto slice = std::min(until, std::chrono::steady_clock::now() + std::chrono::milliseconds(50));
        wake_.wait_until(hold, slice, [&] { return !queue_.empty(); });
        while (!queue_.empty()) {
          current_ = queue_.front();
          queue_.pop_front();
          if (!current_->context->IsCancelled() && !current_->late()) return Event::kCall;
          auto gone = std::move(current_);
          hold.unlock();
          gone->end(gone->late() ? deadline() : cancelled());
          hold.lock();
        }
      }
      if (interrupted()) return Event::kInterrupt;
      if (terminated) return Event::kStop;
      if (std::chrono::steady_clock::now() >= until) return Event::kNothing;
    }
  }

  std::shared_ptr<Call> current() {
    std::lock_guard<std::mutex> hold(lock_);
    return current_;
  }

  // Whether the running call was interrupted because its caller gave up.
  bool interrupting() {
    std::lock_guard<std::mutex> hold(lock_);
    return interrupting_;
  }

  void release_current() {
    std::shared_ptr<Call> last;
    bool swallow;
    {
      std::lock_guard<std::mutex> hold(lock_);
      last = std::move(current_);
      current_.reset();
      swallow = interrupting_;
      interrupting_ = false;
    }
    if (swallow) interrupted();  // it may have come too late for its call
    if (last) last->end(Reply{StatusCode::INTERNAL, "the model failed", "InferenceError"});
  }

  void drain() {
    serving(false);
    std::lock_guard<std::mutex> hold(lock_);
    draining = true;
  }

  void close() {
    if (!server_) return;
    drain();
    release_current();
    std::deque<std::shared_ptr<Call>> left;
    {
      std::lock_guard<std::mutex> hold(lock_);
      left.swap(queue_);
    }
    for (auto& call : left) call->end(Reply{StatusCode::UNAVAILABLE, kDraining, "UnavailableError"});
    server_->Shutdown(Clock::now() + std::chrono::milliseconds(300));
    server_->Wait();
    server_.reset();
  }

  ~Host() { close(); }

  static Reply cancelled() { return {StatusCode::CANCELLED, "the call was cancelled", "CancelledError"}; }
  static Reply deadline() { return {StatusCode::DEADLINE_EXCEEDED, "the deadline passed", "BridgeTimeoutError"}; }

  const Settings settings;
  std::atomic<bool> draining{false};
  int port = 0;

 private:
#ifdef MLB_REFLECTION
  // The library adds reflection to every server of the process, and has no place for a token: with one it is off.
  struct NoReflection final : grpc::ServerBuilderOption {
    void UpdateArguments(grpc::ChannelArguments*) override {}
    void UpdatePlugins(std::vector<std::unique_ptr<grpc::ServerBuilderPlugin>>* plugins) override {
      const auto reflects = [](const auto& plugin) { return plugin->name() == "proto_server_reflection"; };
      plugins->erase(std::remove_if(plugins->begin(), plugins->end(), reflects), plugins->end());
    }
  };
#endif

  bool expiry(Call& call, Reply* reply) {
    const auto found = call.request.parameters().find("timeout");
    if (found == call.request.parameters().end()) return true;
    const auto& value = found->second;
    const bool whole = value.parameter_choice_case() == inference::InferParameter::kInt64Param || value.parameter_choice_case() == inference::InferParameter::kUint64Param;
    const std::int64_t us = value.parameter_choice_case() == inference::InferParameter::kInt64Param ? value.int64_param() : static_cast<std::int64_t>(value.uint64_param());
    if (!whole || us < 0) {
      *reply = {StatusCode::INVALID_ARGUMENT, "the parameter 'timeout' must be a whole number of microseconds", "InputError"};
      return false;
    }
    if (us == 0 || us > std::int64_t(1) << 50) return true;
    call.expires = Clock::now() + std::chrono::microseconds(us);
    call.alarm = std::make_unique<grpc::Alarm>();
    std::weak_ptr<Call> weak = call.self;
    call.alarm->Set(call.expires, [this, weak](bool ran) {
      if (const auto late = ran ? weak.lock() : nullptr) given_up(late.get(), deadline());
    });
    return true;
  }

  void serving(bool yes) {
    auto* health = server_ ? server_->GetHealthCheckService() : nullptr;
    if (!health) return;
    health->SetServingStatus(yes);
    health->SetServingStatus(kService, yes);
  }

  // Answers a call that needs no R: parse, look at the gate, write.
  template <class Request, class Write>
  ServerUnaryReactor* at_once(CallbackServerContext* context, const ByteBuffer* bytes, ByteBuffer* answer, bool open, Write write) {
    auto* reactor = context->DefaultReactor();
    if (!open && !allowed(context, reactor)) return reactor;
    Request request;
    Reply reply = malformed();
    if (parsed(*bytes, &request) && write(request, answer, &reply)) reactor->Finish(grpc::Status::OK);
    else finish(context, reactor, reply);
    return reactor;
  }

  struct Service final : Models {
    explicit Service(Host& host) : host(host) {}
    using Context = CallbackServerContext;

    ServerUnaryReactor* ServerLive(Context* context, const ByteBuffer* bytes, ByteBuffer* out) override {
      return host.at_once<inference::ServerLiveRequest>(context, bytes, out, true, [](const auto&, ByteBuffer* to, Reply*) {
        inference::ServerLiveResponse answer;
        answer.set_live(true);
        *to = packed(answer);
        return true;
      });
    }
    ServerUnaryReactor* ServerReady(Context* context, const ByteBuffer* bytes, ByteBuffer* out) override {
      return host.at_once<inference::ServerReadyRequest>(context, bytes, out, true, [this](const auto&, ByteBuffer* to, Reply*) {
        inference::ServerReadyResponse answer;
        answer.set_ready(!host.draining);
        *to = packed(answer);
        return true;
      });
    }
    ServerUnaryReactor* ModelReady(Context* context, const ByteBuffer* bytes, ByteBuffer* out) override {
      return host.at_once<inference::ModelReadyRequest>(context, bytes, out, false, [this](const auto& request, ByteBuffer* to, Reply* reply) {
        inference::ModelReadyResponse answer;
        answer.set_ready(host.find(request.name(), request.version(), reply) != nullptr);
        *to = packed(answer);
        return true;
      });
    }
    ServerUnaryReactor* ServerMetadata(Context* context, const ByteBuffer* bytes, ByteBuffer* out) override {
      return host.at_once<inference::ServerMetadataRequest>(context, bytes, out, false, [this](const auto&, ByteBuffer* to, Reply*) {
        inference::ServerMetadataResponse answer;
        answer.set_name("mlbridge");
        answer.set_version(host.settings.software);
        for (const char* extension : {"binary_tensor_data", "parameters", "mlbridge.describe"}) answer.add_extensions(extension);
        *to = packed(answer);
        return true;
      });
    }
    ServerUnaryReactor* ModelMetadata(Context* context, const ByteBuffer* bytes, ByteBuffer* out) override {
      return host.at_once<inference::ModelMetadataRequest>(context, bytes, out, false, [this](const auto& request, ByteBuffer* to, Reply* reply) {
        const Served* served = host.find(request.name(), request.version(), reply);
        if (served) *to = packed(served->metadata);
        return served != nullptr;
      });
    }
    ServerUnaryReactor* ModelInfer(Context* context, const ByteBuffer* bytes, ByteBuffer* out) override { return host.infer(context, bytes, out); }

    Host& host;
  };

  struct BridgeService final : mlbridge::v1::Bridge::WithRawCallbackMethod_Describe<mlbridge::v1::Bridge::Service> {
    explicit BridgeService(Host& host) : host(host) {}
    ServerUnaryReactor* Describe(CallbackServerContext* context, const ByteBuffer* bytes, ByteBuffer* out) override {
      return host.at_once<mlbridge::v1::DescribeRequest>(context, bytes, out, false, [this](const auto& request, ByteBuffer* to, Reply* reply) {
        const Served* served = host.find(request.name(), request.version(), reply);
        if (served) *to = packed(served->description);
        return served != nullptr;
      });
    }
    Host& host;
  };

  const std::vector<std::unique_ptr<Served>> models_;
  const std::map<std::string, const Served*> defaults_;
  Service service_;
  BridgeService bridge_;
  std::unique_ptr<grpc::Server> server_;
  const pthread_t main_;
  std::mutex lock_;
  std::condition_variable wake_;
  std::deque<std::shared_ptr<Call>> queue_;  // guarded by lock_, as are the two below
  std::shared_ptr<Call> current_;
  bool interrupting_ = false;
};

void Call::OnCancel() { host->given_up(this, Host::cancelled()); }

Host& host_of(SEXP handle) {
  Rcpp::XPtr<Host> host(handle);
  if (!host.get()) Rcpp::stop("the server was stopped");
  return *host;
}

std::string text(const Rcpp::List& from, const char* name) { return Rcpp::as<std::string>(from[name]); }

std::unique_ptr<Served> served_of(const Rcpp::List& model) {
  auto served = std::make_unique<Served>();
  served->name = text(model, "name");
  served->version = text(model, "version");
  auto& metadata = served->metadata;
  metadata.set_name(served->name);
  metadata.set_platform(text(model, "platform"));
  for (const auto& version : Rcpp::as<std::vector<std::string>>(model["versions"])) metadata.add_versions(version);
  const auto fill = [&](const char* side, auto add) {
    for (const auto& one : Rcpp::as<Rcpp::List>(model[side])) {
      const Rcpp::List tensor(one);
      auto* to = add();
      to->set_name(text(tensor, "name"));
      to->set_datatype(text(tensor, "datatype"));
      for (const double size : Rcpp::as<std::vector<double>>(tensor["shape"])) to->add_shape(static_cast<std::int64_t>(size));
    }
  };
  fill("inputs", [&] { return metadata.add_inputs(); });
  fill("outputs", [&] { return metadata.add_outputs(); });
  auto& description = served->description;
  description.set_name(served->name);
  description.set_version(served->version);
  description.set_signature(text(model, "signature"));
  description.set_route(text(model, "route"));
  description.set_why(text(model, "why"));
  description.set_device(text(model, "device"));
  return served;
}

// Collects what is wrong with a request; R says it all at once.
struct Problems {
  std::vector<std::string> texts;
  bool unsupported = false;
  void add(const Refused& wrong) {
    unsupported = unsupported || wrong.unsupported;
    if (texts.size() < 20) texts.push_back(wrong.what());
  }
};

template <std::size_t N>
void refuse_parameters(const Parameters& parameters, const char* const (&names)[N], bool always) {
  for (const char* name : names) {
    const auto found = parameters.find(name);
    if (found == parameters.end()) continue;
    const auto& v = found->second;  // clients write zeros where they mean nothing
    if (always || v.bool_param() || v.int64_param() || v.uint64_param() || v.double_param() || !v.string_param().empty())
      throw Refused(std::string("the parameter '") + name + "' is not supported", true);
  }
}

SEXP request_of(const Call& call) {
  const auto& request = call.request;
  const int n = request.inputs_size(), raws = request.raw_input_contents_size();
  Problems problems;
  Rcpp::CharacterVector names(n), datatypes(n);
  Rcpp::List values(n);
  Rcpp::LogicalVector missing(n);
  Rcpp::IntegerVector ranks(n);
  try {
    refuse_parameters(request.parameters(), kNotOffered, false);
    if (raws && raws != n)
      throw Refused(std::to_string(raws) + " raw_input_contents for " + std::to_string(n) + " inputs; there must be one per input, in their order");
  } catch (const Refused& wrong) {
    problems.add(wrong);
  }
  for (int i = 0; i < n && problems.texts.empty(); ++i) {
    const auto& tensor = request.inputs(i);
    const std::string where = "input " + quoted(tensor.name());
    names[i] = Rf_mkCharLenCE(tensor.name().data(), static_cast<int>(tensor.name().size()), CE_UTF8);
    datatypes[i] = tensor.datatype();
    ranks[i] = tensor.shape_size();
    try {
      refuse_parameters(tensor.parameters(), kNotOfferedOfTensors, true);
      if (raws && tensor.has_contents()) throw Refused(where + ": has contents beside raw_input_contents; send one of them");
      const Shape shape(tensor.shape().begin(), tensor.shape().end());
      std::vector<std::size_t> gone;
      if (!tensor.parameters().empty()) gone = read_missing(tensor.parameters(), count_of(shape, where), where);
      missing[i] = !gone.empty();
      values[i] = Rcpp::Shield<SEXP>(read_tensor(tensor.datatype(), shape, raws ? &request.raw_input_contents(i) : nullptr, tensor.contents(), gone, where));
    } catch (const Refused& wrong) {
      problems.add(wrong);
    }
  }
  const int asked = request.outputs_size();
  Rcpp::CharacterVector outputs(asked), encodings(asked);
  for (int i = 0; i < asked; ++i) {
    outputs[i] = Rf_mkCharLenCE(request.outputs(i).name().data(), static_cast<int>(request.outputs(i).name().size()), CE_UTF8);
    const auto& parameters = request.outputs(i).parameters();
    const auto encoding = parameters.find("encoding");
    encodings[i] = encoding == parameters.end() ? "" : encoding->second.string_param().empty() ? "?" : encoding->second.string_param();
    try {
      refuse_parameters(parameters, kNotOfferedOfTensors, true);
    } catch (const Refused& wrong) {
      problems.add(wrong);
    }
  }
  values.names() = names;
  return Rcpp::List::create(Rcpp::_["model"] = call.served->name, Rcpp::_["version"] = call.served->version, Rcpp::_["values"] = values,
                            Rcpp::_["datatype"] = datatypes, Rcpp::_["rank"] = ranks, Rcpp::_["missing"] = missing, Rcpp::_["outputs"] = outputs,
                            Rcpp::_["encoding"] = encodings, Rcpp::_["typed"] = n > 0 && !raws, Rcpp::_["problems"] = problems.texts,
                            Rcpp::_["unsupported"] = problems.unsupported);
}

}  // namespace
}  // namespace mlb

using mlb::Host;

// `models`: lists of name, version, versions, platform, inputs, outputs, signature, route, why, device, is_default.
SEXP mlb_listen(SEXP models, SEXP settings) {
  BEGIN_RCPP
  std::vector<std::unique_ptr<mlb::Served>> all;
  std::map<std::string, const mlb::Served*> defaults;
  for (const auto& one : Rcpp::List(models)) {
    const Rcpp::List model(one);
    all.push_back(mlb::served_of(model));
    if (Rcpp::as<bool>(model["is_default"])) defaults[all.back()->name] = all.back().get();
  }
  const Rcpp::List given(settings);
  const auto token = mlb::text(given, "token");
  auto host = std::make_unique<Host>(std::move(all),
                                     mlb::Settings{token.empty() ? "" : "Bearer " + token, Rcpp::as<std::size_t>(given["max_queue"]), mlb::text(given, "software")},
                                     std::move(defaults));
  std::shared_ptr<grpc::ServerCredentials> credentials = grpc::InsecureServerCredentials();
  if (!Rf_isNull(given["tls"])) {
    const Rcpp::List tls = given["tls"];
    const auto authority = mlb::text(tls, "client_authority");
    grpc::SslServerCredentialsOptions options(authority.empty() ? GRPC_SSL_DONT_REQUEST_CLIENT_CERTIFICATE
                                                                : GRPC_SSL_REQUEST_AND_REQUIRE_CLIENT_CERTIFICATE_AND_VERIFY);
    options.pem_root_certs = authority;
    options.pem_key_cert_pairs.push_back({mlb::text(tls, "key"), mlb::text(tls, "certificate")});
    credentials = grpc::SslServerCredentials(options);
  }
  if (!host->start(mlb::text(given, "address"), credentials, given)) return R_NilValue;
  mlb::hear_terminate();
  return Rcpp::XPtr<Host>(host.release(), true);
  END_RCPP
}

SEXP mlb_port(SEXP host) {
  BEGIN_RCPP
  return Rcpp::wrap(mlb::host_of(host).port);
  END_RCPP
}

// The next request as a list; or "nothing", "interrupt" or "stop".
SEXP mlb_take(SEXP handle, SEXP patience_ms) {
  BEGIN_RCPP
  auto& host = mlb::host_of(handle);
  switch (host.take(std::chrono::milliseconds(Rf_asInteger(patience_ms)))) {
    case Host::Event::kCall: return mlb::request_of(*host.current());
    case Host::Event::kInterrupt: return Rf_mkString("interrupt");
    case Host::Event::kStop: return Rf_mkString("stop");
    default: return Rf_mkString("nothing");
  }
  END_RCPP
}

// Answers the taken request: `plan` as for a client's tensors, `missing` a list of indices (from 0) of each output's missing
// elements beyond NA in text. A text comes back where the values do not fit the plan.
SEXP mlb_answer(SEXP handle, SEXP plan, SEXP values, SEXP missing_of, SEXP typed) {
  BEGIN_RCPP
  auto& host = mlb::host_of(handle);
  const auto call = host.current();
  if (!call) Rcpp::stop("no request was taken");
  if (call->late()) {
    call->end(Host::deadline());
    return R_NilValue;
  }
  const bool in_fields = Rf_asLogical(typed) == TRUE;
  google::protobuf::Arena arena;
  auto& answer = *google::protobuf::Arena::CreateMessage<inference::ModelInferResponse>(&arena);
  answer.set_model_name(call->served->name);
  answer.set_model_version(call->served->version);
  answer.set_id(call->request.id());
  const SEXP name = VECTOR_ELT(plan, 0), datatype = VECTOR_ELT(plan, 1), rank = VECTOR_ELT(plan, 2), rounds = VECTOR_ELT(plan, 3);
  try {
    for (R_xlen_t i = 0; i < Rf_xlength(values); ++i) {
      const mlb::Target target{CHAR(STRING_ELT(name, i)), CHAR(STRING_ELT(datatype, i)), INTEGER(rank)[i], LOGICAL(rounds)[i] == TRUE};
      auto* tensor = answer.add_outputs();
      tensor->set_name(target.name);
      tensor->set_datatype(target.datatype);
      const SEXP listed = VECTOR_ELT(missing_of, i);
      std::vector<std::size_t> missing(INTEGER(listed), INTEGER(listed) + Rf_xlength(listed));
      const auto shape = mlb::write_tensor(VECTOR_ELT(values, i), target, in_fields ? nullptr : answer.add_raw_output_contents(),
                                           in_fields ? tensor->mutable_contents() : nullptr, &missing);
      tensor->mutable_shape()->Add(shape.begin(), shape.end());
      if (!missing.empty()) (*tensor->mutable_parameters())["missing"].set_string_param(mlb::write_missing(missing));
    }
  } catch (const mlb::Refused& wrong) {
    return Rf_mkString(wrong.what());
  }
  *call->answer = mlb::packed(answer);
  call->end(grpc::Status::OK);
  return R_NilValue;
  END_RCPP
}

SEXP mlb_refuse(SEXP handle, SEXP code, SEXP text, SEXP kind, SEXP correlation) {
  BEGIN_RCPP
  auto& host = mlb::host_of(handle);
  const auto call = host.current();
  if (!call) Rcpp::stop("no request was taken");
  if (host.interrupting() && call->late()) call->end(Host::deadline());
  else if (host.interrupting()) call->end(Host::cancelled());
  else
    call->end(grpc::Status(static_cast<grpc::StatusCode>(Rf_asInteger(code)), Rcpp::as<std::string>(text)), Rcpp::as<std::string>(kind),
              Rcpp::as<std::string>(correlation));
  return Rcpp::wrap(host.interrupting());
  END_RCPP
}

SEXP mlb_drain(SEXP handle) {
  BEGIN_RCPP
  mlb::host_of(handle).drain();
  return R_NilValue;
  END_RCPP
}

SEXP mlb_close(SEXP handle) {
  BEGIN_RCPP
  Rcpp::XPtr<Host> host(handle);
  if (host.get()) {
    host->close();
    host.release();
    signal(SIGTERM, SIG_DFL);
  }
  return R_NilValue;
  END_RCPP
}
