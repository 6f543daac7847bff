// Between gRPC's threads and R's main thread: requests wait here in their order, and R takes them one by one.
#pragma once

#include <pthread.h>

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <deque>
#include <memory>
#include <mutex>

#include "request.h"

namespace mlb {

class Queue {
 public:
  enum class Event { kRequest, kNothing, kInterrupt, kStop };

  explicit Queue(std::size_t most) : most_(most), main_(pthread_self()) {}

  // -------------------------------------------------- on gRPC's threads

  // Whether there is room; else with the reply.
  bool push(const std::shared_ptr<Request>& request, Reply* reply);

  // The caller of a request gave up: what waits is not run, what runs is interrupted.
  void give_up(Request* request, const Reply& reply);

  bool draining() const { return draining_; }

  // -------------------------------------------------- on R's main thread

  // Waits for the next request, which is then the current one.
  Event take(std::chrono::milliseconds patience);

  // Null where none was taken.
  std::shared_ptr<Request> current();

  // Whether the current request was interrupted because its caller gave up.
  bool interrupting();

  // Takes no more.
  void drain();

  // Refuses what was not answered.
  void end();

 private:
  void release_current();
  void await_busily() const;

  const std::size_t most_;
  const pthread_t main_;
  std::atomic<bool> draining_{false};
  std::atomic<bool> filled_{false};  // told without the lock, for the busy wait
  bool brief_ = false;               // whether the last request came soon after the one before; of R's thread alone
  std::mutex lock_;
  std::condition_variable wake_;
  std::deque<std::shared_ptr<Request>> waiting_;  // guarded by lock_, as are the three below
  std::shared_ptr<Request> current_;
  bool interrupting_ = false;
  bool asleep_ = false;
};

}  // namespace mlb
