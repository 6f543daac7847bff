// Counts and durations of one model version since it was served: what ModelStatistics answers.
#pragma once

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <map>
#include <mutex>

#include "inference.pb.h"

namespace mlb {

class Statistics {
 public:
  using Clock = std::chrono::steady_clock;
  using Moment = Clock::time_point;

  // The moments of an answered request, in their order.
  struct Course {
    Moment arrived, taken, decoded, evaluated;
  };

  void answered(std::uint64_t rows, const Course& course) {
    const auto ended = Clock::now();
    std::lock_guard<std::mutex> hold(lock_);
    success_.add(ended - course.arrived);
    queue_.add(course.taken - course.arrived);
    input_.add(course.decoded - course.taken);
    infer_.add(course.evaluated - course.decoded);
    output_.add(ended - course.evaluated);
    rows_ += rows;
    if (batches_.size() >= kMaxSizes && !batches_.count(rows)) {
      std::uint64_t size = 1;
      while (size < rows) size *= 2;
      rows = size;
    }
    batches_[rows].add(course.evaluated - course.decoded);
    last_ = std::chrono::system_clock::now();
  }

  // Refused input among them.
  void failed(Moment arrived) {
    std::lock_guard<std::mutex> hold(lock_);
    fail_.add(Clock::now() - arrived);
  }

  void write(inference::ModelStatistics* out) const {
    std::lock_guard<std::mutex> hold(lock_);
    out->set_last_inference(std::chrono::duration_cast<std::chrono::milliseconds>(last_.time_since_epoch()).count());
    out->set_inference_count(rows_);
    out->set_execution_count(success_.count);  // R answers one request at a time
    auto* totals = out->mutable_inference_stats();
    success_.write(totals->mutable_success());
    fail_.write(totals->mutable_fail());
    queue_.write(totals->mutable_queue());
    input_.write(totals->mutable_compute_input());
    infer_.write(totals->mutable_compute_infer());
    output_.write(totals->mutable_compute_output());
    for (const auto& batch : batches_) {
      auto* size = out->add_batch_stats();
      size->set_batch_size(batch.first);
      batch.second.write(size->mutable_compute_infer());
    }
  }

 private:
  static constexpr std::size_t kMaxSizes = 256;  // different batch sizes kept one by one; beyond, powers of two

  struct Total {
    std::uint64_t count = 0, ns = 0;
    void add(Clock::duration took) {
      ++count;
      ns += std::max<std::int64_t>(0, std::chrono::duration_cast<std::chrono::nanoseconds>(took).count());
    }
    void write(inference::StatisticDuration* out) const {
      out->set_count(count);
      out->set_ns(ns);
    }
  };

  mutable std::mutex lock_;
  Total success_, fail_, queue_, input_, infer_, output_;
  std::uint64_t rows_ = 0;
  std::map<std::uint64_t, Total> batches_;
  std::chrono::system_clock::time_point last_;
};

}  // namespace mlb
