// What R calls, registered in exports.cpp.
#pragma once

#ifndef R_NO_REMAP
#define R_NO_REMAP
#endif
#include <Rinternals.h>

extern "C" {
SEXP mlb_connect(SEXP target, SEXP token, SEXP tls, SEXP service_config);
SEXP mlb_disconnect(SEXP handle);
SEXP mlb_describe(SEXP handle, SEXP model, SEXP version, SEXP timeout_s);
SEXP mlb_metadata(SEXP handle, SEXP model, SEXP version, SEXP timeout_s);
SEXP mlb_ready(SEXP handle, SEXP model, SEXP version, SEXP timeout_s);
SEXP mlb_infer(SEXP handle, SEXP model, SEXP version, SEXP plan, SEXP values, SEXP asking, SEXP timeout_s);

SEXP mlb_listen(SEXP models, SEXP settings);
SEXP mlb_port(SEXP host);
SEXP mlb_take(SEXP host, SEXP patience_ms);
SEXP mlb_request(SEXP host);
SEXP mlb_mark(SEXP host, SEXP what);
SEXP mlb_answer_usual(SEXP host, SEXP outputs);
SEXP mlb_answer(SEXP host, SEXP plan, SEXP values, SEXP missing, SEXP typed);
SEXP mlb_refuse(SEXP host, SEXP code, SEXP text, SEXP kind, SEXP correlation);
SEXP mlb_drain(SEXP host);
SEXP mlb_close(SEXP host);

SEXP mlb_spawn(SEXP command);
SEXP mlb_state(SEXP pid);
SEXP mlb_reserve(SEXP address, SEXP port);
SEXP mlb_release(SEXP descriptor);
SEXP mlb_wait(SEXP milliseconds);
}
