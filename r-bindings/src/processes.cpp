// Child processes of a host with several workers: start, look after, and the port they share.
#include <Rcpp.h>
#include <netdb.h>
#include <spawn.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <cstring>
#include <thread>

#include "ending.h"
#include "exports.h"

extern char** environ;

// Starts a program by its path and arguments; its process id.
SEXP mlb_spawn(SEXP command) {
  BEGIN_RCPP
  auto words = Rcpp::as<std::vector<std::string>>(command);
  std::vector<char*> arguments;
  for (auto& word : words) arguments.push_back(&word[0]);
  arguments.push_back(nullptr);
  pid_t pid = 0;
  const int wrong = posix_spawn(&pid, arguments[0], nullptr, nullptr, arguments.data(), environ);
  if (wrong) Rcpp::stop("cannot start %s: %s", words[0], std::strerror(wrong));
  return Rcpp::wrap(static_cast<int>(pid));
  END_RCPP
}

// NA while it runs; else its exit code, or minus the signal that ended it.
SEXP mlb_state(SEXP pid) {
  BEGIN_RCPP
  int status = 0;
  const pid_t found = waitpid(Rf_asInteger(pid), &status, WNOHANG);
  if (found == 0) return Rcpp::wrap(NA_INTEGER);
  if (found < 0) return Rcpp::wrap(errno == ECHILD ? 0 : NA_INTEGER);
  return Rcpp::wrap(WIFSIGNALED(status) ? -WTERMSIG(status) : WEXITSTATUS(status));
  END_RCPP
}

// Binds a port that several processes may listen on, without listening: list(port, descriptor). SIGTERM is heard from then on.
SEXP mlb_reserve(SEXP address, SEXP port) {
  BEGIN_RCPP
  addrinfo wanted{};
  wanted.ai_socktype = SOCK_STREAM;
  wanted.ai_flags = AI_NUMERICSERV | AI_PASSIVE;
  addrinfo* found = nullptr;
  const auto host = Rcpp::as<std::string>(address), number = std::to_string(Rf_asInteger(port));
  if (getaddrinfo(host.c_str(), number.c_str(), &wanted, &found)) Rcpp::stop("there is no address %s", host);
  const int descriptor = socket(found->ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
  const int on = 1;
  setsockopt(descriptor, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
  setsockopt(descriptor, SOL_SOCKET, SO_REUSEPORT, &on, sizeof on);
  const int wrong = bind(descriptor, found->ai_addr, found->ai_addrlen) ? errno : 0;
  freeaddrinfo(found);
  sockaddr_storage bound{};
  socklen_t size = sizeof bound;
  mlb::hear_terminate();
  if (wrong || getsockname(descriptor, reinterpret_cast<sockaddr*>(&bound), &size)) {
    close(descriptor);
    return R_NilValue;
  }
  char text[NI_MAXSERV];
  getnameinfo(reinterpret_cast<sockaddr*>(&bound), size, nullptr, 0, text, sizeof text, NI_NUMERICSERV);
  return Rcpp::List::create(Rcpp::_["port"] = std::atoi(text), Rcpp::_["descriptor"] = descriptor);
  END_RCPP
}

// Gives a reserved port back.
SEXP mlb_release(SEXP descriptor) {
  close(Rf_asInteger(descriptor));
  signal(SIGTERM, SIG_DFL);
  return R_NilValue;
}

// Waits some milliseconds; "interrupt" or "stop" where one of them ended the wait, else "nothing".
SEXP mlb_wait(SEXP milliseconds) {
  BEGIN_RCPP
  const auto until = std::chrono::steady_clock::now() + std::chrono::milliseconds(Rf_asInteger(milliseconds));
  do {
    if (mlb::interrupted()) return Rf_mkString("interrupt");
    if (mlb::terminated) return Rf_mkString("stop");
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
  } while (std::chrono::steady_clock::now() < until);
  return Rf_mkString("nothing");
  END_RCPP
}
