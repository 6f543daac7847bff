#include "queue.h"

#include <signal.h>

#include <algorithm>
#include <thread>

#include "ending.h"

namespace mlb {
namespace {

using Steady = std::chrono::steady_clock;

// A client that asks again and again takes up to so long between an answer and its next question. Sleeping instead costs
// a small request a quarter of its time, until the system has woken R; the wait yields to whoever else would run.
constexpr auto kBrief = std::chrono::microseconds(500);
constexpr auto kSlice = std::chrono::milliseconds(50);  // between looks for an interrupt

}  // namespace

bool Queue::push(const std::shared_ptr<Request>& request, Reply* reply) {
  std::unique_lock<std::mutex> hold(lock_);
  if (draining_ || waiting_.size() >= most_) {
    *reply = draining_ ? shutting_down() : queue_full();
    return false;
  }
  waiting_.push_back(request);
  filled_ = true;
  if (!asleep_) return true;
  hold.unlock();
  wake_.notify_one();
  return true;
}

void Queue::give_up(Request* request, const Reply& reply) {
  std::shared_ptr<Request> waited;
  {
    std::lock_guard<std::mutex> hold(lock_);
    const auto at = std::find_if(waiting_.begin(), waiting_.end(), [&](const auto& one) { return one.get() == request; });
    if (at != waiting_.end()) {
      waited = *at;
      waiting_.erase(at);
    } else if (current_.get() == request && !interrupting_) {
      interrupting_ = true;
      pthread_kill(main_, SIGINT);  // R's own handler notes it; allowInterrupts() in R decides when it is heard
    }
  }
  if (waited) waited->refuse(reply);
}

void Queue::await_busily() const {
  const auto until = Steady::now() + kBrief;
  while (!filled_ && Steady::now() < until) std::this_thread::yield();
}

Queue::Event Queue::take(std::chrono::milliseconds patience) {
  release_current();
  const auto began = Steady::now(), until = began + patience;
  if (brief_ && patience.count()) await_busily();
  for (;;) {
    {
      std::unique_lock<std::mutex> hold(lock_);
      asleep_ = true;
      wake_.wait_until(hold, std::min(until, Steady::now() + kSlice), [&] { return !waiting_.empty(); });
      asleep_ = false;
      brief_ = Steady::now() - began < kBrief;
      while (!waiting_.empty()) {
        current_ = waiting_.front();
        waiting_.pop_front();
        filled_ = !waiting_.empty();
        if (!current_->gone() && !current_->late()) {
          current_->course.taken = Statistics::Clock::now();
          return Event::kRequest;
        }
        const auto left = std::move(current_);
        hold.unlock();
        left->refuse(left->late() ? deadline_passed() : cancelled());
        hold.lock();
      }
    }
    if (interrupted()) return Event::kInterrupt;
    if (terminated) return Event::kStop;
    if (Steady::now() >= until) return Event::kNothing;
  }
}

std::shared_ptr<Request> Queue::current() {
  std::lock_guard<std::mutex> hold(lock_);
  return current_;
}

bool Queue::interrupting() {
  std::lock_guard<std::mutex> hold(lock_);
  return interrupting_;
}

void Queue::release_current() {
  std::shared_ptr<Request> last;
  bool swallow;
  {
    std::lock_guard<std::mutex> hold(lock_);
    last = std::move(current_);
    current_.reset();
    swallow = interrupting_;
    interrupting_ = false;
  }
  if (swallow) interrupted();  // it may have come too late for its request
  if (last) last->refuse(model_failed());  // where nobody said more
}

void Queue::drain() {
  std::lock_guard<std::mutex> hold(lock_);
  draining_ = true;
}

void Queue::end() {
  drain();
  release_current();
  std::deque<std::shared_ptr<Request>> left;
  {
    std::lock_guard<std::mutex> hold(lock_);
    left.swap(waiting_);
  }
  for (const auto& request : left) request->refuse(shutting_down());
}

}  // namespace mlb
