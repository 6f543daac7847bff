// Requests as R values, and R's answers as messages. What is usual is checked and written here; everything else R looks at
// itself (R/grpc_requests.R), and names what is wrong.
#pragma once

#include <Rcpp.h>

#include "request.h"

namespace mlb {

// list(place, feeds, wanted): the model's place in R's list; and for a usual request (every input in order, in its own datatype
// and shape, nothing missing where nothing may be, outputs that are there) what to ask, else NULL. Sets `request.asked`.
SEXP taken_request(Request& request);

// Any request for R to look at: list(values, datatype, rank, missing, outputs, encoding, typed, problems, unsupported).
SEXP request_as_list(const Request& request);

// Writes the answer to a usual request. False where it is not as usual.
bool write_usual_answer(const Request& request, SEXP outputs, inference::ModelInferResponse* answer);

// Writes an answer by `plan` (see `.plan` in R). `missing`: a list of the indices (from 0) of each output's missing elements
// beyond NA in text. Throws Refused where values do not fit.
void write_answer(const Request& request, SEXP plan, SEXP values, SEXP missing, bool typed, inference::ModelInferResponse* answer);

}  // namespace mlb
