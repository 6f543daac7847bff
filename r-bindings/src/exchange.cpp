#include "exchange.h"

#include <cmath>
#include <cstring>

namespace mlb {
namespace {

constexpr const char* kNotOffered[] = {"sequence_id", "sequence_start", "sequence_end"};
constexpr const char* kNotOfferedOfTensors[] = {"shared_memory_region", "shared_memory_byte_size", "shared_memory_offset", "classification"};

// Collects what is wrong with a request; R says it all at once.
struct Problems {
  std::vector<std::string> texts;
  bool unsupported = false;
  void add(const Refused& wrong) {
    unsupported = unsupported || wrong.unsupported;
    if (texts.size() < 20) texts.push_back(wrong.what());
  }
};

template <std::size_t N>
void refuse_parameters(const Parameters& parameters, const char* const (&names)[N], bool always) {
  for (const char* name : names) {
    const auto found = parameters.find(name);
    if (found == parameters.end()) continue;
    const auto& v = found->second;  // clients write zeros where they mean nothing
    if (always || v.bool_param() || v.int64_param() || v.uint64_param() || v.double_param() || !v.string_param().empty())
      throw Refused(std::string("the parameter '") + name + "' is not supported", true);
  }
}

SEXP utf8(const std::string& text) { return Rf_mkCharLenCE(text.data(), static_cast<int>(text.size()), CE_UTF8); }

// -------------------------------------------------- what is usual

bool has_shape(const google::protobuf::RepeatedField<std::int64_t>& shape, const Shape& wanted) {
  if (shape.size() != static_cast<int>(wanted.size())) return false;
  for (std::size_t a = 0; a < wanted.size(); ++a)
    if (wanted[a] >= 0 && shape.Get(static_cast<int>(a)) != wanted[a]) return false;
  return true;
}

bool has_codes(SEXP values, const Input& input) {
  if (TYPEOF(values) != INTSXP) return false;  // -2^31 is among them
  const R_xlen_t rows = Rf_xlength(values) / static_cast<R_xlen_t>(input.tops.size());
  const int least = input.allows_missing ? -1 : 0, *codes = INTEGER(values);
  for (const int top : input.tops)
    for (R_xlen_t i = 0; i < rows; ++i, ++codes)
      if (*codes < least || *codes > top) return false;
  return true;
}

bool has_missing(SEXP values) {
  if (TYPEOF(values) != REALSXP) return false;  // a usual request marks none in text, and integers have none
  const double* numbers = REAL(values);
  for (R_xlen_t i = 0; i < Rf_xlength(values); ++i)
    if (std::isnan(numbers[i])) return true;
  return false;
}

bool asks_as_usual(Request& request) {
  const auto& served = *request.served;
  request.asked.clear();
  if (!request.message.outputs_size())
    for (std::size_t i = 0; i < served.outputs.size(); ++i) request.asked.push_back({i, false});
  for (const auto& wanted : request.message.outputs()) {
    bool codes = false;
    for (const auto& parameter : wanted.parameters()) {
      codes = parameter.second.string_param() == "codes";
      if (parameter.first != "encoding" || !codes) return false;
    }
    std::size_t at = 0;
    while (at < served.outputs.size() && served.outputs[at].target.name != wanted.name()) ++at;
    if (at == served.outputs.size() || (codes && !served.outputs[at].categorical)) return false;
    for (const auto& before : request.asked)
      if (before.output == at) return false;
    request.asked.push_back({at, codes});
  }
  return true;
}

bool all_in_order(const std::vector<Request::Asked>& asked, std::size_t outputs) {
  for (std::size_t i = 0; i < asked.size(); ++i)
    if (asked[i].output != i) return false;
  return asked.size() == outputs;
}

bool is_utf8(SEXP texts) {
  for (R_xlen_t i = 0; i < Rf_xlength(texts); ++i) {
    const SEXP text = STRING_ELT(texts, i);
    if (text == NA_STRING || Rf_getCharCE(text) == CE_UTF8) continue;
    for (const char* c = CHAR(text); *c; ++c)
      if (*c & 0x80) return false;
  }
  return true;
}

SEXP output_named(SEXP outputs, const std::string& name, std::size_t first) {
  const SEXP names = TYPEOF(outputs) == VECSXP ? Rf_getAttrib(outputs, R_NamesSymbol) : R_NilValue;
  const std::size_t n = Rf_xlength(names);
  for (std::size_t i = 0; i < n; ++i) {
    const std::size_t at = (first + i) % n;
    if (name == CHAR(STRING_ELT(names, at))) return VECTOR_ELT(outputs, at);
  }
  return R_NilValue;
}

// The levels of a label's codes, whose missing ones are listed; false where that is not usual.
bool write_levels(SEXP codes, const Output& output, bool typed, std::string* raw, Contents* contents, std::vector<std::size_t>* missing) {
  if (output.levels.empty() || TYPEOF(codes) != INTSXP || Rf_xlength(Rf_getAttrib(codes, R_DimSymbol)) > 1) return false;
  const std::string nothing;
  for (R_xlen_t i = 0; i < Rf_xlength(codes); ++i) {
    const int code = INTEGER(codes)[i];
    const bool known = code >= 0 && code < static_cast<int>(output.levels.size());
    if (!known) missing->push_back(i);
    const std::string& level = known ? output.levels[code] : nothing;
    const auto size = static_cast<std::uint32_t>(level.size());
    if (typed) contents->add_bytes_contents(level);
    else raw->append(reinterpret_cast<const char*>(&size), 4).append(level);
  }
  return true;
}

bool has_negative(SEXP codes) {
  for (R_xlen_t i = 0; i < Rf_xlength(codes); ++i)
    if (INTEGER(codes)[i] < 0) return true;
  return false;
}

bool write_output(SEXP values, const Output& output, bool codes, bool typed, inference::ModelInferResponse* answer) {
  const bool label = output.categorical && output.target.rank == 1;
  if (output.categorical && (TYPEOF(values) != INTSXP || !(codes || label) || (label && !output.allows_missing && has_negative(values)))) return false;
  if (output.text && (TYPEOF(values) != STRSXP || !is_utf8(values))) return false;
  auto* tensor = answer->add_outputs();
  Target target = output.target;
  if (codes) target.datatype = "INT32";
  tensor->set_name(target.name);
  tensor->set_datatype(target.datatype);
  std::string* raw = typed ? nullptr : answer->add_raw_output_contents();
  Contents* contents = typed ? tensor->mutable_contents() : nullptr;
  std::vector<std::size_t> missing;
  if (label && !codes) {
    if (!write_levels(values, output, typed, raw, contents, &missing)) return false;
    tensor->add_shape(Rf_xlength(values));
  } else {
    const auto shape = write_tensor(values, target, raw, contents, &missing);
    tensor->mutable_shape()->Add(shape.begin(), shape.end());
  }
  if (!missing.empty()) (*tensor->mutable_parameters())["missing"].set_string_param(write_missing(missing));
  return true;
}

// The feeds of a usual request, else NULL.
SEXP usual_feeds(Request& request) {
  const auto& message = request.message;
  const auto& served = *request.served;
  const int n = message.inputs_size(), raws = message.raw_input_contents_size();
  if (n != static_cast<int>(served.inputs.size()) || (raws && raws != n) || !message.parameters().empty() || !asks_as_usual(request)) return R_NilValue;
  Rcpp::Shield<SEXP> feeds(Rf_allocVector(VECSXP, n));
  std::int64_t rows = -1;
  for (int i = 0; i < n; ++i) {
    const auto& tensor = message.inputs(i);
    const auto& input = served.inputs[i];
    if (tensor.name() != input.name || tensor.datatype() != input.datatype || !tensor.parameters().empty() || (raws && tensor.has_contents()) ||
        !has_shape(tensor.shape(), input.shape))
      return R_NilValue;
    if (input.by_rows && rows >= 0 && tensor.shape(0) != rows) return R_NilValue;
    if (input.by_rows) rows = tensor.shape(0);
    try {
      const Shape shape(tensor.shape().begin(), tensor.shape().end());
      SET_VECTOR_ELT(feeds, i, read_tensor(tensor.datatype(), shape, raws ? &message.raw_input_contents(i) : nullptr, tensor.contents(), {}, input.name));
    } catch (const Refused&) {
      return R_NilValue;
    }
    const SEXP values = VECTOR_ELT(feeds, i);
    if (input.tops.empty() ? !input.allows_missing && has_missing(values) : !has_codes(values, input)) return R_NilValue;
  }
  Rf_setAttrib(feeds, R_NamesSymbol, served.input_names);
  return feeds;
}

SEXP wanted_of(const Request& request) {
  const auto& served = *request.served;
  if (all_in_order(request.asked, served.outputs.size())) return served.output_names;
  Rcpp::Shield<SEXP> out(Rf_allocVector(STRSXP, request.asked.size()));
  for (std::size_t i = 0; i < request.asked.size(); ++i) SET_STRING_ELT(out, i, STRING_ELT(served.output_names, request.asked[i].output));
  return out;
}

void head(const Request& request, inference::ModelInferResponse* answer) {
  answer->set_model_name(request.served->name);
  answer->set_model_version(request.served->version);
  answer->set_id(request.message.id());
}

}  // namespace

SEXP taken_request(Request& request) {
  static const char* names[] = {"place", "feeds", "wanted", ""};
  Rcpp::Shield<SEXP> out(Rf_mkNamed(VECSXP, names));
  SET_VECTOR_ELT(out, 0, Rf_ScalarInteger(request.served->place));
  SET_VECTOR_ELT(out, 1, usual_feeds(request));
  if (!Rf_isNull(VECTOR_ELT(out, 1))) SET_VECTOR_ELT(out, 2, wanted_of(request));
  return out;
}

bool write_usual_answer(const Request& request, SEXP outputs, inference::ModelInferResponse* answer) {
  const auto& served = *request.served;
  bool typed = request.typed() && !served.always_raw;
  for (const auto& asked : request.asked) typed = typed && served.outputs[asked.output].target.datatype != "FP16";
  head(request, answer);
  for (std::size_t i = 0; i < request.asked.size(); ++i) {
    const auto& output = served.outputs[request.asked[i].output];
    const SEXP values = output_named(outputs, output.target.name, i);
    try {
      if (Rf_isNull(values) || !write_output(values, output, request.asked[i].codes, typed, answer)) return false;
    } catch (const Refused&) {
      return false;
    }
  }
  return true;
}

// -------------------------------------------------- what is not

SEXP request_as_list(const Request& from) {
  const auto& request = from.message;
  const int n = request.inputs_size(), raws = request.raw_input_contents_size();
  Problems problems;
  Rcpp::CharacterVector names(n), datatypes(n);
  Rcpp::List values(n);
  Rcpp::LogicalVector missing(n);
  Rcpp::IntegerVector ranks(n);
  try {
    refuse_parameters(request.parameters(), kNotOffered, false);
    if (raws && raws != n)
      throw Refused(std::to_string(raws) + " raw_input_contents for " + std::to_string(n) + " inputs; there must be one per input, in their order");
  } catch (const Refused& wrong) {
    problems.add(wrong);
  }
  for (int i = 0; i < n && problems.texts.empty(); ++i) {
    const auto& tensor = request.inputs(i);
    const std::string where = "input " + quoted(tensor.name());
    names[i] = utf8(tensor.name());
    datatypes[i] = tensor.datatype();
    ranks[i] = tensor.shape_size();
    try {
      refuse_parameters(tensor.parameters(), kNotOfferedOfTensors, true);
      if (raws && tensor.has_contents()) throw Refused(where + ": has contents beside raw_input_contents; send one of them");
      const Shape shape(tensor.shape().begin(), tensor.shape().end());
      std::vector<std::size_t> gone;
      if (!tensor.parameters().empty()) gone = read_missing(tensor.parameters(), count_of(shape, where), where);
      missing[i] = !gone.empty();
      values[i] = Rcpp::Shield<SEXP>(read_tensor(tensor.datatype(), shape, raws ? &request.raw_input_contents(i) : nullptr, tensor.contents(), gone, where));
    } catch (const Refused& wrong) {
      problems.add(wrong);
    }
  }
  const int asked = request.outputs_size();
  Rcpp::CharacterVector outputs(asked), encodings(asked);
  for (int i = 0; i < asked; ++i) {
    outputs[i] = utf8(request.outputs(i).name());
    const auto& parameters = request.outputs(i).parameters();
    const auto encoding = parameters.find("encoding");
    encodings[i] = encoding == parameters.end() ? "" : encoding->second.string_param().empty() ? "?" : encoding->second.string_param();
    try {
      refuse_parameters(parameters, kNotOfferedOfTensors, true);
    } catch (const Refused& wrong) {
      problems.add(wrong);
    }
  }
  values.names() = names;
  return Rcpp::List::create(Rcpp::_["values"] = values, Rcpp::_["datatype"] = datatypes, Rcpp::_["rank"] = ranks,
                            Rcpp::_["missing"] = missing, Rcpp::_["outputs"] = outputs, Rcpp::_["encoding"] = encodings, Rcpp::_["typed"] = from.typed(),
                            Rcpp::_["problems"] = problems.texts, Rcpp::_["unsupported"] = problems.unsupported);
}

void write_answer(const Request& request, SEXP plan, SEXP values, SEXP missing_of, bool typed, inference::ModelInferResponse* answer) {
  head(request, answer);
  const SEXP name = VECTOR_ELT(plan, 0), datatype = VECTOR_ELT(plan, 1), rank = VECTOR_ELT(plan, 2), rounds = VECTOR_ELT(plan, 3);
  for (R_xlen_t i = 0; i < Rf_xlength(values); ++i) {
    const Target target{CHAR(STRING_ELT(name, i)), CHAR(STRING_ELT(datatype, i)), INTEGER(rank)[i], LOGICAL(rounds)[i] == TRUE};
    auto* tensor = answer->add_outputs();
    tensor->set_name(target.name);
    tensor->set_datatype(target.datatype);
    const SEXP listed = VECTOR_ELT(missing_of, i);
    std::vector<std::size_t> missing(INTEGER(listed), INTEGER(listed) + Rf_xlength(listed));
    const auto shape = write_tensor(VECTOR_ELT(values, i), target, typed ? nullptr : answer->add_raw_output_contents(),
                                    typed ? tensor->mutable_contents() : nullptr, &missing);
    tensor->mutable_shape()->Add(shape.begin(), shape.end());
    if (!missing.empty()) (*tensor->mutable_parameters())["missing"].set_string_param(write_missing(missing));
  }
}

}  // namespace mlb
