#include "service.h"

namespace mlb {
namespace {

using grpc::ByteBuffer;
using grpc::CallbackServerContext;
using grpc::ServerUnaryReactor;

bool same(const grpc::string_ref& shown, const std::string& wanted) {  // in constant time
  unsigned char differs = shown.size() != wanted.size();
  for (std::size_t i = 0; i < wanted.size(); ++i) differs |= static_cast<unsigned char>(i < shown.size() ? shown.data()[i] : 0) ^ static_cast<unsigned char>(wanted[i]);
  return !differs;
}

bool is_true(const Parameters& parameters, const char* name) {
  const auto found = parameters.find(name);
  return found != parameters.end() && found->second.bool_param();
}

// Answers a call that needs no R: asks at the door, parses, writes. `write(request, answer, reply)` says whether it could.
enum class Asking { kAnyone, kCallers };
template <class Question, class Answer, class Write>
ServerUnaryReactor* at_once(const Door& door, Asking asking, CallbackServerContext* context, const ByteBuffer* bytes, ByteBuffer* out, Write write) {
  auto* reactor = context->DefaultReactor();
  Question question;
  Answer answer;
  Reply reply = malformed();
  const bool may = asking == Asking::kAnyone || door.opens(*context, &reply);
  if (may && parsed(*bytes, &question) && write(question, &answer, &reply)) {
    *out = packed(answer);
    reactor->Finish(grpc::Status::OK);
  } else {
    reply.write(context);
    reactor->Finish(reply.status());
  }
  return reactor;
}

// -------------------------------------------------- one request, one answer

class Single final : public ServerUnaryReactor, public Request {
 public:
  Single(Door& door, CallbackServerContext* context, ByteBuffer* out) : door_(door), context_(context), out_(out) {}

  void OnCancel() override { door_.queue.give_up(this, cancelled()); }
  void OnDone() override { self.reset(); }
  bool gone() const override { return context_->IsCancelled(); }

  std::shared_ptr<Single> self;

 private:
  void send(const inference::ModelInferResponse& response) override {
    *out_ = packed(response);
    Finish(grpc::Status::OK);
  }
  void fail(const Reply& reply) override {
    reply.write(context_);
    Finish(reply.status());
  }

  Door& door_;
  CallbackServerContext* context_;
  ByteBuffer* out_;
};

// -------------------------------------------------- a stream of them

// One message after another: the next is read when the last was answered, so a stream never holds more than one request.
class Stream final : public grpc::ServerBidiReactor<ByteBuffer, ByteBuffer> {
 public:
  Stream(Door& door, CallbackServerContext* context) : door_(door), context_(context) {
    const auto asked = context->client_metadata().find("triton_grpc_error");
    ends_at_errors_ = asked != context->client_metadata().end() && asked->second == "true";
  }

  void begin() {
    Reply reply;
    if (door_.opens(*context_, &reply)) StartRead(&in_);
    else end(reply);
  }

  void OnReadDone(bool read) override {
    if (!read) return Finish(grpc::Status::OK);  // the client has said all, or left
    const auto request = std::make_shared<Part>(self);
    {
      std::lock_guard<std::mutex> hold(lock_);
      current_ = request;
    }
    door_.accept(request, in_);
  }
  void OnWriteDone(bool written) override {
    if (written) StartRead(&in_);
    else end(cancelled());
  }
  void OnCancel() override {
    std::shared_ptr<Request> request;
    {
      std::lock_guard<std::mutex> hold(lock_);
      request = current_.lock();
    }
    if (request) door_.queue.give_up(request.get(), cancelled());
  }
  void OnDone() override { self.reset(); }

  std::shared_ptr<Stream> self;

 private:
  class Part final : public Request {
   public:
    explicit Part(std::shared_ptr<Stream> stream) : stream_(std::move(stream)) {}
    bool gone() const override { return stream_->context_->IsCancelled(); }

   private:
    void send(const inference::ModelInferResponse& response) override {
      inference::ModelStreamInferResponse out;
      *out.mutable_infer_response() = response;
      if (is_true(message.parameters(), "triton_enable_empty_final_response"))
        (*out.mutable_infer_response()->mutable_parameters())["triton_final_response"].set_bool_param(true);
      stream_->write(out);
    }
    void fail(const Reply& reply) override {
      if (gone() || stream_->ends_at_errors_ || stream_->door_.queue.draining()) return stream_->end(reply);
      inference::ModelStreamInferResponse out;
      out.set_error_message(reply.text);
      out.mutable_infer_response()->set_id(message.id());
      stream_->write(out);
    }

    const std::shared_ptr<Stream> stream_;
  };

  void write(const inference::ModelStreamInferResponse& response) {
    out_ = packed(response);
    StartWrite(&out_);
  }
  void end(const Reply& reply) {
    reply.write(context_);
    Finish(reply.status());
  }

  Door& door_;
  CallbackServerContext* context_;
  bool ends_at_errors_;
  ByteBuffer in_, out_;
  std::mutex lock_;
  std::weak_ptr<Request> current_;  // guarded by lock_
};

}  // namespace

// -------------------------------------------------- the door

bool Door::opens(const CallbackServerContext& context, Reply* reply) const {
  if (!bearer_.empty()) {
    const auto& metadata = context.client_metadata();
    const auto shown = metadata.find("authorization");
    if (shown == metadata.end() || !same(shown->second, bearer_)) {
      *reply = no_token();
      return false;
    }
  }
  if (queue.draining()) *reply = shutting_down();
  return !queue.draining();
}

void Door::accept(const std::shared_ptr<Request>& request, const ByteBuffer& bytes) {
  Reply reply;
  if (!parsed(bytes, &request->message)) return request->refuse(malformed());
  request->served = models.find(request->message.model_name(), request->message.model_version(), &reply);
  if (!request->served || !read_timeout(request, &reply) || !queue.push(request, &reply)) request->refuse(reply);
}

bool Door::read_timeout(const std::shared_ptr<Request>& request, Reply* reply) {
  const auto& parameters = request->message.parameters();
  const auto found = parameters.find("timeout");
  if (found == parameters.end()) return true;
  const auto& value = found->second;
  const bool whole = value.parameter_choice_case() == inference::InferParameter::kInt64Param || value.parameter_choice_case() == inference::InferParameter::kUint64Param;
  const std::int64_t us = value.parameter_choice_case() == inference::InferParameter::kInt64Param ? value.int64_param() : static_cast<std::int64_t>(value.uint64_param());
  if (!whole || us < 0) {
    *reply = wrong_input("the parameter 'timeout' must be a whole number of microseconds");
    return false;
  }
  if (us == 0 || us > std::int64_t(1) << 50) return true;
  request->expires = Request::Clock::now() + std::chrono::microseconds(us);
  request->alarm = std::make_unique<grpc::Alarm>();
  std::weak_ptr<Request> weak = request;
  request->alarm->Set(request->expires, [this, weak](bool ran) {
    if (const auto late = ran ? weak.lock() : nullptr) queue.give_up(late.get(), deadline_passed());
  });
  return true;
}

// -------------------------------------------------- the calls

namespace pb = inference;

ServerUnaryReactor* Service::ServerLive(Context* context, const Buffer* bytes, Buffer* out) {
  return at_once<pb::ServerLiveRequest, pb::ServerLiveResponse>(door_, Asking::kAnyone, context, bytes, out, [](const auto&, auto* answer, Reply*) {
    answer->set_live(true);
    return true;
  });
}

ServerUnaryReactor* Service::ServerReady(Context* context, const Buffer* bytes, Buffer* out) {
  return at_once<pb::ServerReadyRequest, pb::ServerReadyResponse>(door_, Asking::kAnyone, context, bytes, out, [this](const auto&, auto* answer, Reply*) {
    answer->set_ready(!door_.queue.draining());
    return true;
  });
}

ServerUnaryReactor* Service::ServerMetadata(Context* context, const Buffer* bytes, Buffer* out) {
  return at_once<pb::ServerMetadataRequest, pb::ServerMetadataResponse>(door_, Asking::kCallers, context, bytes, out, [this](const auto&, auto* answer, Reply*) {
    answer->set_name("mlbridge");
    answer->set_version(version_);
    for (const char* extension : {"binary_tensor_data", "parameters", "model_configuration", "statistics", "mlbridge.describe"}) answer->add_extensions(extension);
    return true;
  });
}

ServerUnaryReactor* Service::ModelReady(Context* context, const Buffer* bytes, Buffer* out) {
  return at_once<pb::ModelReadyRequest, pb::ModelReadyResponse>(door_, Asking::kCallers, context, bytes, out, [this](const auto& request, auto* answer, Reply* reply) {
    answer->set_ready(door_.models.find(request.name(), request.version(), reply) != nullptr);
    return true;
  });
}

ServerUnaryReactor* Service::ModelMetadata(Context* context, const Buffer* bytes, Buffer* out) {
  return at_once<pb::ModelMetadataRequest, pb::ModelMetadataResponse>(door_, Asking::kCallers, context, bytes, out, [this](const auto& request, auto* answer, Reply* reply) {
    const Served* served = door_.models.find(request.name(), request.version(), reply);
    if (served) *answer = served->metadata;
    return served != nullptr;
  });
}

ServerUnaryReactor* Service::ModelConfig(Context* context, const Buffer* bytes, Buffer* out) {
  return at_once<pb::ModelConfigRequest, pb::ModelConfigResponse>(door_, Asking::kCallers, context, bytes, out, [this](const auto& request, auto* answer, Reply* reply) {
    const Served* served = door_.models.find(request.name(), request.version(), reply);
    if (served) *answer = served->config;
    return served != nullptr;
  });
}

ServerUnaryReactor* Service::ModelStatistics(Context* context, const Buffer* bytes, Buffer* out) {
  return at_once<pb::ModelStatisticsRequest, pb::ModelStatisticsResponse>(door_, Asking::kCallers, context, bytes, out, [this](const auto& request, auto* answer, Reply* reply) {
    if (!request.name().empty() && !door_.models.find(request.name(), request.version(), reply)) return false;
    for (const auto& served : door_.models.all()) {
      if ((!request.name().empty() && request.name() != served->name) || (!request.version().empty() && request.version() != served->version)) continue;
      auto* told = answer->add_model_stats();
      told->set_name(served->name);
      told->set_version(served->version);
      served->statistics.write(told);
    }
    return true;
  });
}

ServerUnaryReactor* Service::ModelInfer(Context* context, const Buffer* bytes, Buffer* out) {
  const auto call = std::make_shared<Single>(door_, context, out);
  call->self = call;
  Reply reply;
  if (door_.opens(*context, &reply)) door_.accept(call, *bytes);
  else call->refuse(reply);
  return call.get();
}

grpc::ServerBidiReactor<ByteBuffer, ByteBuffer>* Service::ModelStreamInfer(Context* context) {
  const auto stream = std::make_shared<Stream>(door_, context);
  stream->self = stream;
  stream->begin();
  return stream.get();
}

ServerUnaryReactor* BridgeService::Describe(CallbackServerContext* context, const ByteBuffer* bytes, ByteBuffer* out) {
  using Question = mlbridge::v1::DescribeRequest;
  using Answer = mlbridge::v1::DescribeResponse;
  return at_once<Question, Answer>(door_, Asking::kCallers, context, bytes, out, [this](const auto& request, auto* answer, Reply* reply) {
    const Served* served = door_.models.find(request.name(), request.version(), reply);
    if (served) *answer = served->description;
    return served != nullptr;
  });
}

}  // namespace mlb
