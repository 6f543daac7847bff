// The client's side: a connection, and calls that R can interrupt. What the answers mean is decided in R.
#include <google/protobuf/arena.h>
#include <unistd.h>

#include <chrono>
#include <memory>

#include "ending.h"
#include "exports.h"
#include "inference.grpc.pb.h"
#include "mlbridge.grpc.pb.h"
#include "statuses.h"
#include "tensors.h"

namespace mlb {
namespace {

constexpr auto kPatience = std::chrono::milliseconds(50);  // between looks for an interrupt

struct Connection {
  std::shared_ptr<grpc::Channel> channel;
  std::unique_ptr<inference::GRPCInferenceService::Stub> models;
  std::unique_ptr<mlbridge::v1::Bridge::Stub> bridge;
  std::string authorization;
  pid_t pid = getpid();
};

Connection& connection_of(SEXP handle) {
  Rcpp::XPtr<Connection> connection(handle);
  if (!connection.get()) throw Refused("the connection is closed");
  if (connection->pid != getpid()) throw Refused("the connection does not survive a fork");
  return *connection;
}

// Runs one asynchronous call on this thread; an interrupt cancels it and goes on to R.
template <class Response, class Prepare>
grpc::Status wait_for(grpc::ClientContext& context, Response* response, Prepare prepare) {
  grpc::CompletionQueue queue;
  grpc::Status status;
  auto reader = prepare(&context, &queue);
  reader->StartCall();
  reader->Finish(response, &status, &queue);
  void* tag = nullptr;
  bool ok = false;
  bool given_up = false;
  while (queue.AsyncNext(&tag, &ok, std::chrono::system_clock::now() + kPatience) == grpc::CompletionQueue::TIMEOUT) {
    if (given_up || !interrupted()) continue;
    given_up = true;
    context.TryCancel();
  }
  queue.Shutdown();
  while (queue.Next(&tag, &ok)) {}
  if (given_up) throw Rcpp::internal::InterruptedException();
  return status;
}

void prepare_context(grpc::ClientContext& context, const Connection& connection, double timeout_s) {
  if (timeout_s < 1e9) context.set_deadline(std::chrono::system_clock::now() + std::chrono::microseconds(static_cast<std::int64_t>(timeout_s * 1e6)));
  if (!connection.authorization.empty()) context.AddMetadata("authorization", connection.authorization);
}

Rcpp::List tensor_metadata(const google::protobuf::RepeatedPtrField<inference::ModelMetadataResponse::TensorMetadata>& tensors) {
  Rcpp::List out(tensors.size());
  for (int i = 0; i < tensors.size(); ++i) {
    Rcpp::NumericVector shape(tensors[i].shape().begin(), tensors[i].shape().end());
    out[i] = Rcpp::List::create(Rcpp::_["name"] = tensors[i].name(), Rcpp::_["datatype"] = tensors[i].datatype(), Rcpp::_["shape"] = shape);
  }
  return out;
}

SEXP malformed_answer(const std::string& what) { return failure(grpc::StatusCode::INTERNAL, "the answer is malformed: " + what, "InferenceError"); }

int place_of(const inference::ModelInferResponse& answer, const std::string& name, int first) {
  for (int i = 0; i < answer.outputs_size(); ++i) {
    const int at = (first + i) % answer.outputs_size();
    if (answer.outputs(at).name() == name) return at;
  }
  return -1;
}

// The wanted outputs in their order, or a failure. `names`, `datatypes`, `ranks`: what they must be.
SEXP answer_of(const inference::ModelInferResponse& answer, SEXP names, SEXP datatypes, SEXP ranks) {
  const bool raw = answer.raw_output_contents_size() > 0;
  if (raw && answer.raw_output_contents_size() != answer.outputs_size())
    return malformed_answer(std::to_string(answer.raw_output_contents_size()) + " raw outputs for " + std::to_string(answer.outputs_size()) + " tensors");
  const int n = Rf_length(names);
  Rcpp::Shield<SEXP> values(Rf_allocVector(VECSXP, n));
  for (int i = 0; i < n; ++i) {
    const std::string name = CHAR(STRING_ELT(names, i)), datatype = CHAR(STRING_ELT(datatypes, i));
    const int at = place_of(answer, name, i);
    if (at < 0) return failure(grpc::StatusCode::INTERNAL, "the answer lacks " + quoted(name), "InferenceError");
    const auto& tensor = answer.outputs(at);
    if (tensor.datatype() != datatype || tensor.shape_size() != INTEGER(ranks)[i])
      return failure(grpc::StatusCode::INTERNAL, "output " + quoted(name) + " is " + tensor.datatype() + " of rank " + std::to_string(tensor.shape_size()) +
                     ", expected " + datatype + " of rank " + std::to_string(INTEGER(ranks)[i]), "InferenceError");
    const std::string where = "output " + quoted(name);
    try {
      const Shape shape(tensor.shape().begin(), tensor.shape().end());
      const auto missing = tensor.parameters().empty() ? std::vector<std::size_t>() : read_missing(tensor.parameters(), count_of(shape, where), where);
      SET_VECTOR_ELT(values, i, read_tensor(datatype, shape, raw ? &answer.raw_output_contents(at) : nullptr, tensor.contents(), missing, where));
    } catch (const Refused& wrong) {
      return malformed_answer(wrong.what());
    }
  }
  Rf_setAttrib(values, R_NamesSymbol, names);
  return values;
}

}  // namespace
}  // namespace mlb

using mlb::Connection;

// `tls`: NULL, or a list of PEM texts roots, key, certificate ("" where absent) and the name expected in the certificate.
SEXP mlb_connect(SEXP target, SEXP token, SEXP tls, SEXP service_config) {
  BEGIN_RCPP
  grpc::ChannelArguments arguments;
  arguments.SetMaxReceiveMessageSize(-1);
  arguments.SetMaxSendMessageSize(-1);
  arguments.SetServiceConfigJSON(Rcpp::as<std::string>(service_config));
  arguments.SetInt(GRPC_ARG_ENABLE_RETRIES, 1);
  arguments.SetInt(GRPC_ARG_KEEPALIVE_TIME_MS, 30000);
  arguments.SetInt(GRPC_ARG_KEEPALIVE_TIMEOUT_MS, 10000);
  arguments.SetInt(GRPC_ARG_INITIAL_RECONNECT_BACKOFF_MS, 100);
  arguments.SetInt(GRPC_ARG_MIN_RECONNECT_BACKOFF_MS, 1000);
  arguments.SetInt(GRPC_ARG_MAX_RECONNECT_BACKOFF_MS, 1000);
  arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);  // connections are as separate as their credentials
  std::shared_ptr<grpc::ChannelCredentials> credentials = grpc::InsecureChannelCredentials();
  if (!Rf_isNull(tls)) {
    const Rcpp::List given(tls);
    grpc::SslCredentialsOptions options;
    options.pem_root_certs = Rcpp::as<std::string>(given["roots"]);
    options.pem_private_key = Rcpp::as<std::string>(given["key"]);
    options.pem_cert_chain = Rcpp::as<std::string>(given["certificate"]);
    credentials = grpc::SslCredentials(options);
    const auto name = Rcpp::as<std::string>(given["server_name"]);
    if (!name.empty()) arguments.SetSslTargetNameOverride(name);
  }
  auto connection = std::make_unique<Connection>();
  connection->channel = grpc::CreateCustomChannel(Rcpp::as<std::string>(target), credentials, arguments);
  connection->models = inference::GRPCInferenceService::NewStub(connection->channel);
  connection->bridge = mlbridge::v1::Bridge::NewStub(connection->channel);
  const auto shown = Rcpp::as<std::string>(token);
  if (!shown.empty()) connection->authorization = "Bearer " + shown;
  return Rcpp::XPtr<Connection>(connection.release(), true);
  END_RCPP
}

SEXP mlb_disconnect(SEXP handle) {
  BEGIN_RCPP
  Rcpp::XPtr<Connection> connection(handle);
  if (connection.get() && connection->pid == getpid()) connection.release();
  return R_NilValue;
  END_RCPP
}

// Describe: list(version, signature, provenance, route, device), or a failure.
SEXP mlb_describe(SEXP handle, SEXP model, SEXP version, SEXP timeout_s) {
  BEGIN_RCPP
  auto& connection = mlb::connection_of(handle);
  mlbridge::v1::DescribeRequest request;
  request.set_name(Rcpp::as<std::string>(model));
  request.set_version(Rcpp::as<std::string>(version));
  mlbridge::v1::DescribeResponse answer;
  grpc::ClientContext context;
  mlb::prepare_context(context, connection, Rcpp::as<double>(timeout_s));
  const auto status = mlb::wait_for(context, &answer, [&](auto* c, auto* q) { return connection.bridge->PrepareAsyncDescribe(c, request, q); });
  if (!status.ok()) return mlb::failure(status, context);
  Rcpp::CharacterVector provenance;
  for (const auto& known : answer.provenance()) provenance.push_back(known.second, known.first);
  Rcpp::String signature(answer.signature(), CE_UTF8);
  return Rcpp::List::create(Rcpp::_["version"] = answer.version(), Rcpp::_["signature"] = signature, Rcpp::_["provenance"] = provenance,
                            Rcpp::_["route"] = answer.route(), Rcpp::_["device"] = answer.device());
  END_RCPP
}

// ModelMetadata: list(versions, platform, inputs, outputs, signature), or a failure.
SEXP mlb_metadata(SEXP handle, SEXP model, SEXP version, SEXP timeout_s) {
  BEGIN_RCPP
  auto& connection = mlb::connection_of(handle);
  inference::ModelMetadataRequest request;
  request.set_name(Rcpp::as<std::string>(model));
  request.set_version(Rcpp::as<std::string>(version));
  inference::ModelMetadataResponse answer;
  grpc::ClientContext context;
  mlb::prepare_context(context, connection, Rcpp::as<double>(timeout_s));
  const auto status = mlb::wait_for(context, &answer, [&](auto* c, auto* q) { return connection.models->PrepareAsyncModelMetadata(c, request, q); });
  if (!status.ok()) return mlb::failure(status, context);
  const auto written = answer.properties().find("mlbridge.signature");
  Rcpp::String signature(written == answer.properties().end() ? std::string() : written->second, CE_UTF8);
  return Rcpp::List::create(Rcpp::_["versions"] = Rcpp::CharacterVector(answer.versions().begin(), answer.versions().end()),
                            Rcpp::_["platform"] = answer.platform(), Rcpp::_["inputs"] = mlb::tensor_metadata(answer.inputs()),
                            Rcpp::_["outputs"] = mlb::tensor_metadata(answer.outputs()), Rcpp::_["signature"] = signature);
  END_RCPP
}

// ServerLive, ServerReady, ModelReady (with a model): a truth, or a failure.
SEXP mlb_ready(SEXP handle, SEXP model, SEXP version, SEXP timeout_s) {
  BEGIN_RCPP
  auto& connection = mlb::connection_of(handle);
  grpc::ClientContext context;
  mlb::prepare_context(context, connection, Rcpp::as<double>(timeout_s));
  grpc::Status status;
  bool ready = false;
  if (Rf_isNull(model)) {
    inference::ServerReadyRequest request;
    inference::ServerReadyResponse answer;
    status = mlb::wait_for(context, &answer, [&](auto* c, auto* q) { return connection.models->PrepareAsyncServerReady(c, request, q); });
    ready = answer.ready();
  } else {
    inference::ModelReadyRequest request;
    request.set_name(Rcpp::as<std::string>(model));
    request.set_version(Rcpp::as<std::string>(version));
    inference::ModelReadyResponse answer;
    status = mlb::wait_for(context, &answer, [&](auto* c, auto* q) { return connection.models->PrepareAsyncModelReady(c, request, q); });
    ready = answer.ready();
  }
  if (!status.ok()) return mlb::failure(status, context);
  return Rcpp::wrap(ready);
  END_RCPP
}

// One ModelInfer, raw. `plan`: parallel vectors name, datatype, rank, rounds of `values`. `asking`: list(wanted, datatypes,
// ranks, codes, named): the outputs' names, what they must be, whether as codes; the request names them only where `named`.
SEXP mlb_infer(SEXP handle, SEXP model, SEXP version, SEXP plan, SEXP values, SEXP asking, SEXP timeout_s) {
  BEGIN_RCPP
  auto* held = static_cast<Connection*>(R_ExternalPtrAddr(handle));
  if (held && held->pid != getpid())
    return mlb::failure(grpc::StatusCode::FAILED_PRECONDITION, "the connection does not survive a fork; load the model again in this process", "ClosedError");
  auto& connection = mlb::connection_of(handle);
  google::protobuf::Arena arena;
  auto* request = google::protobuf::Arena::CreateMessage<inference::ModelInferRequest>(&arena);
  request->set_model_name(CHAR(STRING_ELT(model, 0)));
  request->set_model_version(CHAR(STRING_ELT(version, 0)));
  grpc::ClientContext context;
  const SEXP name = VECTOR_ELT(plan, 0), datatype = VECTOR_ELT(plan, 1), rank = VECTOR_ELT(plan, 2), rounds = VECTOR_ELT(plan, 3);
  try {
    for (R_xlen_t i = 0; i < Rf_xlength(values); ++i) {
      const mlb::Target target{CHAR(STRING_ELT(name, i)), CHAR(STRING_ELT(datatype, i)), INTEGER(rank)[i], LOGICAL(rounds)[i] == TRUE};
      auto* tensor = request->add_inputs();
      tensor->set_name(target.name);
      tensor->set_datatype(target.datatype);
      std::vector<std::size_t> missing;
      const auto shape = mlb::write_tensor(VECTOR_ELT(values, i), target, request->add_raw_input_contents(), nullptr, &missing);
      tensor->mutable_shape()->Add(shape.begin(), shape.end());
      if (!missing.empty()) (*tensor->mutable_parameters())["missing"].set_string_param(mlb::write_missing(missing));
    }
  } catch (const mlb::Refused& wrong) {
    return mlb::failure(grpc::StatusCode::INVALID_ARGUMENT, wrong.what(), "InputError");
  }
  const SEXP wanted = VECTOR_ELT(asking, 0), codes = VECTOR_ELT(asking, 3);
  const bool named = Rf_asLogical(VECTOR_ELT(asking, 4)) == TRUE;
  for (R_xlen_t i = 0; named && i < Rf_xlength(wanted); ++i) {
    auto* output = request->add_outputs();
    output->set_name(CHAR(STRING_ELT(wanted, i)));
    if (LOGICAL(codes)[i] == TRUE) (*output->mutable_parameters())["encoding"].set_string_param("codes");
  }
  auto* answer = google::protobuf::Arena::CreateMessage<inference::ModelInferResponse>(&arena);
  mlb::prepare_context(context, connection, Rf_asReal(timeout_s));
  const auto status = mlb::wait_for(context, answer, [&](auto* c, auto* q) { return connection.models->PrepareAsyncModelInfer(c, *request, q); });
  if (!status.ok()) return mlb::failure(status, context);
  return mlb::answer_of(*answer, wanted, VECTOR_ELT(asking, 1), VECTOR_ELT(asking, 2));
  END_RCPP
}
