// How a host ends a call, and messages as bytes. gRPC's own parsing is not used: it answers a malformed message with the
// wrong code.
#pragma once

#include <grpcpp/grpcpp.h>

#include <string>

#include "statuses.h"

namespace mlb {

struct Reply {
  grpc::StatusCode code;
  std::string text;
  std::string kind;
  std::string correlation = "";  // of a failure that only the log explains

  grpc::Status status() const { return grpc::Status(code, text); }
  void write(grpc::ServerContextBase* context) const {
    context->AddTrailingMetadata(kErrorKey, kind);
    if (!correlation.empty()) context->AddTrailingMetadata("mlbridge-correlation-id", correlation);
  }
};

inline Reply cancelled() { return {grpc::StatusCode::CANCELLED, "the call was cancelled", "CancelledError"}; }
inline Reply deadline_passed() { return {grpc::StatusCode::DEADLINE_EXCEEDED, "the deadline passed", "BridgeTimeoutError"}; }
inline Reply shutting_down() { return {grpc::StatusCode::UNAVAILABLE, "the server is shutting down", "UnavailableError"}; }
inline Reply queue_full() { return {grpc::StatusCode::RESOURCE_EXHAUSTED, "the queue is full; try again later", "OverloadedError"}; }
inline Reply no_token() { return {grpc::StatusCode::UNAUTHENTICATED, "no token, or a wrong one", "AccessError"}; }
inline Reply model_failed() { return {grpc::StatusCode::INTERNAL, "the model failed", "InferenceError"}; }
inline Reply wrong_input(const std::string& text) { return {grpc::StatusCode::INVALID_ARGUMENT, text, "InputError"}; }
inline Reply not_found(const std::string& text) { return {grpc::StatusCode::NOT_FOUND, text, "NotFoundError"}; }
inline Reply malformed() { return wrong_input("the message is not a well-formed protobuf message of this call"); }

inline grpc::ByteBuffer packed(const google::protobuf::Message& message) {
  std::string bytes;
  message.SerializeToString(&bytes);
  const grpc::Slice slice(bytes);
  return grpc::ByteBuffer(&slice, 1);
}

template <class M>
bool parsed(const grpc::ByteBuffer& buffer, M* message) {
  grpc::ByteBuffer copy(buffer);  // shares the bytes; parsing consumes its buffer
  return grpc::SerializationTraits<M>::Deserialize(&copy, message).ok();
}

}  // namespace mlb
