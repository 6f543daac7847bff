// One request for inference, from its arrival on a gRPC thread until it is answered; what carries it is in service.cpp.
#pragma once

#include <google/protobuf/arena.h>
#include <grpcpp/alarm.h>

#include <atomic>
#include <chrono>
#include <memory>
#include <vector>

#include "inference.pb.h"
#include "replies.h"
#include "served.h"

namespace mlb {

class Request {
 public:
  using Clock = std::chrono::system_clock;

  // An output of the model that was asked for.
  struct Asked {
    std::size_t output;
    bool codes;
  };

  Request() : message(*google::protobuf::Arena::CreateMessage<inference::ModelInferRequest>(&arena_)) { course.arrived = Statistics::Clock::now(); }
  virtual ~Request() = default;

  // Whether the caller has left.
  virtual bool gone() const = 0;
  bool late() const { return expires != Clock::time_point::max() && Clock::now() >= expires; }

  // These end it, once; later words are not heard.
  void answer(const inference::ModelInferResponse& response) {
    if (ended_.exchange(true)) return;
    served->statistics.answered(rows(), course);
    send(response);
  }
  void refuse(const Reply& reply) {
    if (ended_.exchange(true)) return;
    if (served) served->statistics.failed(course.arrived);
    fail(reply);
  }

  // The rows of a call of the model.
  std::uint64_t rows() const {
    const bool told = served->batched && message.inputs_size() && message.inputs(0).shape_size();
    return told ? std::max<std::int64_t>(1, message.inputs(0).shape(0)) : 1;
  }

  // Whether tensors came as typed contents.
  bool typed() const { return message.inputs_size() && !message.raw_input_contents_size(); }

 private:
  google::protobuf::Arena arena_;
  std::atomic<bool> ended_{false};

  virtual void send(const inference::ModelInferResponse& response) = 0;
  virtual void fail(const Reply& reply) = 0;

 public:
  inference::ModelInferRequest& message;
  const Served* served = nullptr;
  std::vector<Asked> asked;  // in a usual request
  Statistics::Course course;
  Clock::time_point expires = Clock::time_point::max();  // by the parameter `timeout`; the call's own deadline cancels
  std::unique_ptr<grpc::Alarm> alarm;
};

}  // namespace mlb
