// Whether this process was asked to end: by SIGTERM, or by an interrupt that R hears.
#pragma once

#include <Rcpp.h>
#include <signal.h>

#include <atomic>

namespace mlb {

inline std::atomic<bool> terminated{false};

inline void hear_terminate() {
  terminated = false;
  signal(SIGTERM, [](int) { terminated = true; });
}

inline void look_for_interrupt(void*) { R_CheckUserInterrupt(); }

// Takes R's pending interrupt, if there is one.
inline bool interrupted() { return !R_ToplevelExec(look_for_interrupt, nullptr); }

}  // namespace mlb
