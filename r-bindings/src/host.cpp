// A host as R sees it: it listens, gives one request after another, and takes the answers.
#include <signal.h>

#include "ending.h"
#include "exchange.h"
#include "exports.h"
#include "listener.h"
#include "queue.h"

namespace mlb {
namespace {

struct Host {
  Host(const Rcpp::List& told, const Rcpp::List& settings)
      : models(told), queue(Rcpp::as<std::size_t>(settings["max_queue"])), door(models, queue, Rcpp::as<std::string>(settings["token"])),
        listener(door, Rcpp::as<std::string>(settings["software"])) {}
  ~Host() { close(); }

  void drain() {
    listener.serving(false);
    queue.drain();
  }
  void close() {
    drain();
    queue.end();
    listener.close();
  }

  Models models;
  Queue queue;
  Door door;
  Listener listener;
};

Host& host_of(SEXP handle) {
  auto* host = static_cast<Host*>(R_ExternalPtrAddr(handle));
  if (!host) Rcpp::stop("the server was stopped");
  return *host;
}

std::shared_ptr<Request> taken(Host& host) {
  auto request = host.queue.current();
  if (!request) Rcpp::stop("no request was taken");
  return request;
}

// Sends what `write` has made of the answer, unless it comes too late.
template <class Write>
void respond(Host& host, Write write) {
  const auto request = taken(host);
  auto& evaluated = request->course.evaluated;
  if (evaluated == Statistics::Moment()) evaluated = Statistics::Clock::now();
  if (request->late()) return request->refuse(deadline_passed());
  google::protobuf::Arena arena;
  auto& answer = *google::protobuf::Arena::CreateMessage<inference::ModelInferResponse>(&arena);
  if (write(*request, &answer)) request->answer(answer);
}

}  // namespace
}  // namespace mlb

using mlb::Host;
using mlb::Queue;

// `models`: what `.told_models` makes in R.
SEXP mlb_listen(SEXP models, SEXP settings) {
  BEGIN_RCPP
  auto host = std::make_unique<Host>(Rcpp::List(models), Rcpp::List(settings));
  if (!host->listener.start(Rcpp::List(settings))) return R_NilValue;
  mlb::hear_terminate();
  return Rcpp::XPtr<Host>(host.release(), true);
  END_RCPP
}

SEXP mlb_port(SEXP host) {
  BEGIN_RCPP
  return Rcpp::wrap(mlb::host_of(host).listener.port());
  END_RCPP
}

// The next request: list(place, feeds, wanted), the last two NULL where it is not a usual one; or "nothing", "interrupt" or "stop".
SEXP mlb_take(SEXP handle, SEXP patience_ms) {
  BEGIN_RCPP
  auto& queue = mlb::host_of(handle).queue;
  switch (queue.take(std::chrono::milliseconds(Rf_asInteger(patience_ms)))) {
    case Queue::Event::kRequest: break;
    case Queue::Event::kInterrupt: return Rf_mkString("interrupt");
    case Queue::Event::kStop: return Rf_mkString("stop");
    default: return Rf_mkString("nothing");
  }
  const auto request = queue.current();
  const SEXP out = mlb::taken_request(*request);
  request->course.decoded = mlb::Statistics::Clock::now();
  return out;
  END_RCPP
}

// The taken request, whatever it is like.
SEXP mlb_request(SEXP handle) {
  BEGIN_RCPP
  return mlb::request_as_list(*mlb::taken(mlb::host_of(handle)));
  END_RCPP
}

// Tells where R is with an unusual request: "decoded", "evaluated".
SEXP mlb_mark(SEXP handle, SEXP what) {
  BEGIN_RCPP
  auto& course = mlb::taken(mlb::host_of(handle))->course;
  const bool evaluated = Rcpp::as<std::string>(what) == "evaluated";
  (evaluated ? course.evaluated : course.decoded) = mlb::Statistics::Clock::now();
  return R_NilValue;
  END_RCPP
}

// Answers the taken request, a usual one; FALSE where the answer is not as usual.
SEXP mlb_answer_usual(SEXP handle, SEXP outputs) {
  BEGIN_RCPP
  bool usual = true;
  mlb::respond(mlb::host_of(handle), [&](const mlb::Request& request, auto* answer) { return usual = mlb::write_usual_answer(request, outputs, answer); });
  return Rf_ScalarLogical(usual);
  END_RCPP
}

// Answers the taken request as `plan` says. A text comes back where the values do not fit the plan.
SEXP mlb_answer(SEXP handle, SEXP plan, SEXP values, SEXP missing, SEXP typed) {
  BEGIN_RCPP
  try {
    mlb::respond(mlb::host_of(handle), [&](const mlb::Request& request, auto* answer) {
      mlb::write_answer(request, plan, values, missing, Rf_asLogical(typed) == TRUE, answer);
      return true;
    });
  } catch (const mlb::Refused& wrong) {
    return Rf_mkString(wrong.what());
  }
  return R_NilValue;
  END_RCPP
}

// Refuses the taken request. Whether it had been interrupted because its caller gave up.
SEXP mlb_refuse(SEXP handle, SEXP code, SEXP text, SEXP kind, SEXP correlation) {
  BEGIN_RCPP
  auto& host = mlb::host_of(handle);
  const auto request = mlb::taken(host);
  const bool gone = host.queue.interrupting();
  if (gone) request->refuse(request->late() ? mlb::deadline_passed() : mlb::cancelled());
  else
    request->refuse({static_cast<grpc::StatusCode>(Rf_asInteger(code)), Rcpp::as<std::string>(text), Rcpp::as<std::string>(kind),
                     Rcpp::as<std::string>(correlation)});
  return Rcpp::wrap(gone);
  END_RCPP
}

SEXP mlb_drain(SEXP handle) {
  BEGIN_RCPP
  mlb::host_of(handle).drain();
  return R_NilValue;
  END_RCPP
}

SEXP mlb_close(SEXP handle) {
  BEGIN_RCPP
  Rcpp::XPtr<Host> host(handle);
  if (host.get()) {
    host->close();
    host.release();
    signal(SIGTERM, SIG_DFL);
  }
  return R_NilValue;
  END_RCPP
}
