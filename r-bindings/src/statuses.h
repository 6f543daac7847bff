// How a call ended, as both sides of the wire say it: a status code, a text, and the class of the error in the trailing
// metadata `mlbridge-error`.
#pragma once

#include <Rcpp.h>
#include <grpcpp/grpcpp.h>

#include <string>

namespace mlb {

constexpr char kErrorKey[] = "mlbridge-error";
constexpr char kService[] = "inference.GRPCInferenceService";

// What R raises as a condition: list(code, message, kind), of class mlbridge_refusal.
inline SEXP failure(int code, const std::string& message, const std::string& kind) {
  Rcpp::List out = Rcpp::List::create(Rcpp::_["code"] = code, Rcpp::_["message"] = message, Rcpp::_["kind"] = kind);
  out.attr("class") = "mlbridge_refusal";
  return out;
}

inline SEXP failure(const grpc::Status& status, const grpc::ClientContext& context) {
  const auto& trailing = context.GetServerTrailingMetadata();
  const auto found = trailing.find(kErrorKey);
  const std::string kind = found == trailing.end() ? "" : std::string(found->second.data(), found->second.size());
  return failure(status.error_code(), status.error_message(), kind);
}

}  // namespace mlb
