// The reference for R on the wire: gRPC C++ alone, without checks. `serve PORT` answers ModelInfer with the tensors it got;
// as a library of R it asks such a server with one double vector and hands the answer back.
#include <Rcpp.h>
#include <grpcpp/grpcpp.h>

#include <cstring>
#include <iostream>

#include "inference.grpc.pb.h"

using inference::GRPCInferenceService;

#ifdef SERVER
struct Echo final : GRPCInferenceService::CallbackService {
  grpc::ServerUnaryReactor* ModelInfer(grpc::CallbackServerContext* context, const inference::ModelInferRequest* request,
                                       inference::ModelInferResponse* answer) override {
    for (const auto& input : request->inputs()) {
      auto* output = answer->add_outputs();
      output->set_name(input.name());
      output->set_datatype(input.datatype());
      *output->mutable_shape() = input.shape();
    }
    *answer->mutable_raw_output_contents() = request->raw_input_contents();
    auto* reactor = context->DefaultReactor();
    reactor->Finish(grpc::Status::OK);
    return reactor;
  }
  // one fixed signature, so that mlbridge's client opens it by its metadata
  grpc::ServerUnaryReactor* ModelMetadata(grpc::CallbackServerContext* context, const inference::ModelMetadataRequest* request,
                                          inference::ModelMetadataResponse* answer) override {
    answer->set_name(request->name());
    for (auto* tensor : {answer->add_inputs(), answer->add_outputs()}) {
      tensor->set_name("x");
      tensor->set_datatype("FP64");
      tensor->add_shape(-1);
    }
    auto* reactor = context->DefaultReactor();
    reactor->Finish(grpc::Status::OK);
    return reactor;
  }
};

int main() {
  Echo echo;
  int port = 0;
  grpc::ServerBuilder builder;
  builder.AddListeningPort("127.0.0.1:0", grpc::InsecureServerCredentials(), &port);
  builder.SetMaxReceiveMessageSize(-1);
  builder.RegisterService(&echo);
  auto server = builder.BuildAndStart();
  std::cout << port << std::endl;
  server->Wait();
}
#else
using Stub = GRPCInferenceService::Stub;

extern "C" SEXP bare_open(SEXP target) {
  grpc::ChannelArguments arguments;
  arguments.SetMaxReceiveMessageSize(-1);
  auto channel = grpc::CreateCustomChannel(CHAR(STRING_ELT(target, 0)), grpc::InsecureChannelCredentials(), arguments);
  return Rcpp::XPtr<Stub>(GRPCInferenceService::NewStub(channel).release(), true);
}

extern "C" SEXP bare_ask(SEXP handle, SEXP values) {
  Rcpp::XPtr<Stub> stub(handle);
  inference::ModelInferRequest request;
  request.set_model_name("echo");
  auto* input = request.add_inputs();
  input->set_name("x");
  input->set_datatype("FP64");
  input->add_shape(Rf_xlength(values));
  request.add_raw_input_contents(reinterpret_cast<const char*>(REAL(values)), 8 * Rf_xlength(values));
  inference::ModelInferResponse answer;
  grpc::ClientContext context;
  if (!stub->ModelInfer(&context, request, &answer).ok()) Rf_error("the echo failed");
  const auto& raw = answer.raw_output_contents(0);
  Rcpp::NumericVector out(Rcpp::no_init(raw.size() / 8));
  std::memcpy(out.begin(), raw.data(), raw.size());
  return out;
}
#endif
