// Registers what R calls. Without gRPC (see configure) only its absence is told.
#define R_NO_REMAP
#include <R_ext/Rdynload.h>
#include <Rinternals.h>

#ifdef MLB_GRPC
#include <grpcpp/grpcpp.h>

#include "exports.h"
#endif

extern "C" {

// The version of gRPC this package was built with, or NULL.
SEXP mlb_grpc_version() {
#ifdef MLB_GRPC
  return Rf_mkString(grpc::Version().c_str());
#else
  return R_NilValue;
#endif
}

#define ROUTINE(name, arguments) {#name, reinterpret_cast<DL_FUNC>(&name), arguments}

static const R_CallMethodDef kRoutines[] = {
    ROUTINE(mlb_grpc_version, 0),
#ifdef MLB_GRPC
    ROUTINE(mlb_connect, 4),
    ROUTINE(mlb_disconnect, 1),
    ROUTINE(mlb_describe, 4),
    ROUTINE(mlb_metadata, 4),
    ROUTINE(mlb_ready, 4),
    ROUTINE(mlb_infer, 7),
    ROUTINE(mlb_listen, 2),
    ROUTINE(mlb_port, 1),
    ROUTINE(mlb_take, 2),
    ROUTINE(mlb_request, 1),
    ROUTINE(mlb_mark, 2),
    ROUTINE(mlb_answer_usual, 2),
    ROUTINE(mlb_answer, 5),
    ROUTINE(mlb_refuse, 5),
    ROUTINE(mlb_drain, 1),
    ROUTINE(mlb_close, 1),
    ROUTINE(mlb_spawn, 1),
    ROUTINE(mlb_state, 1),
    ROUTINE(mlb_reserve, 2),
    ROUTINE(mlb_release, 1),
    ROUTINE(mlb_wait, 1),
#endif
    {nullptr, nullptr, 0}};

void R_init_mlbridge(DllInfo* dll) {
  R_registerRoutines(dll, nullptr, kRoutines, nullptr, nullptr);
  R_useDynamicSymbols(dll, FALSE);
  R_forceSymbols(dll, FALSE);
}
}
