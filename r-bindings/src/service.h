// The protocol's calls on gRPC's threads: what needs no R is answered there, requests for inference go into the queue.
#pragma once

#include <grpcpp/grpcpp.h>

#include <memory>
#include <string>

// The generated classes end the process where a method that they replace is called. Nothing calls it, and R may not be ended:
// without that line it answers UNIMPLEMENTED.
#define abort() static_cast<void>(0)
#include "inference.grpc.pb.h"
#include "mlbridge.grpc.pb.h"
#undef abort
#include "queue.h"
#include "replies.h"
#include "served.h"

namespace mlb {

// Where requests for inference go, and who may send any.
class Door {
 public:
  Door(const Models& models, Queue& queue, const std::string& token) : models(models), queue(queue), bearer_(token.empty() ? "" : "Bearer " + token) {}

  // Whether the call may be answered; else with the reply.
  bool opens(const grpc::CallbackServerContext& context, Reply* reply) const;

  // Parses a request and puts it into the queue, or refuses it.
  void accept(const std::shared_ptr<Request>& request, const grpc::ByteBuffer& bytes);

  bool asks_for_token() const { return !bearer_.empty(); }

  const Models& models;
  Queue& queue;

 private:
  bool read_timeout(const std::shared_ptr<Request>& request, Reply* reply);

  const std::string bearer_;  // empty where no token is asked for
};

using Generated = inference::GRPCInferenceService;
template <class Base>
using AboutServer = Generated::WithRawCallbackMethod_ServerLive<Generated::WithRawCallbackMethod_ServerReady<Generated::WithRawCallbackMethod_ServerMetadata<Base>>>;
template <class Base>
using AboutModels = Generated::WithRawCallbackMethod_ModelReady<Generated::WithRawCallbackMethod_ModelMetadata<
    Generated::WithRawCallbackMethod_ModelConfig<Generated::WithRawCallbackMethod_ModelStatistics<Base>>>>;
template <class Base>
using Inference = Generated::WithRawCallbackMethod_ModelInfer<Generated::WithRawCallbackMethod_ModelStreamInfer<Base>>;

class Service final : public AboutServer<AboutModels<Inference<Generated::Service>>> {
 public:
  using Context = grpc::CallbackServerContext;
  using Buffer = grpc::ByteBuffer;
  using Unary = grpc::ServerUnaryReactor;

  Service(Door& door, std::string version) : door_(door), version_(std::move(version)) {}

  Unary* ServerLive(Context* context, const Buffer* bytes, Buffer* out) override;
  Unary* ServerReady(Context* context, const Buffer* bytes, Buffer* out) override;
  Unary* ServerMetadata(Context* context, const Buffer* bytes, Buffer* out) override;
  Unary* ModelReady(Context* context, const Buffer* bytes, Buffer* out) override;
  Unary* ModelMetadata(Context* context, const Buffer* bytes, Buffer* out) override;
  Unary* ModelConfig(Context* context, const Buffer* bytes, Buffer* out) override;
  Unary* ModelStatistics(Context* context, const Buffer* bytes, Buffer* out) override;
  Unary* ModelInfer(Context* context, const Buffer* bytes, Buffer* out) override;
  grpc::ServerBidiReactor<Buffer, Buffer>* ModelStreamInfer(Context* context) override;

 private:
  Door& door_;
  const std::string version_;
};

class BridgeService final : public mlbridge::v1::Bridge::WithRawCallbackMethod_Describe<mlbridge::v1::Bridge::Service> {
 public:
  explicit BridgeService(Door& door) : door_(door) {}
  grpc::ServerUnaryReactor* Describe(grpc::CallbackServerContext* context, const grpc::ByteBuffer* bytes, grpc::ByteBuffer* out) override;

 private:
  Door& door_;
};

}  // namespace mlb
