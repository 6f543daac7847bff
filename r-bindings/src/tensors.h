// Tensors of the Open Inference Protocol as R arrays, and back. Row-major on the wire, column-major in R.
// R holds BOOL as logical, INT8..INT32, UINT8 and UINT16 as integer, wider integers as double while they are exact there
// and as decimal text beyond 2^53, floats as double, BYTES as character. What does not fit throws Refused.
#pragma once

#include <Rcpp.h>

#include <cstdint>
#include <stdexcept>
#include <string>
#include <vector>

#include "inference.pb.h"

namespace mlb {

using Shape = std::vector<std::int64_t>;
using Contents = inference::InferTensorContents;
using Parameters = google::protobuf::Map<std::string, inference::InferParameter>;

// The caller's tensor is wrong (InputError) or not offered (UnsupportedError).
struct Refused : std::runtime_error {
  explicit Refused(const std::string& text, bool unsupported = false) : std::runtime_error(text), unsupported(unsupported) {}
  bool unsupported;
};

// A caller's name for a message: quoted, cut at 128 characters, without control characters.
std::string quoted(const std::string& name);

// How R values become one tensor.
struct Target {
  std::string name;
  std::string datatype;
  int rank;      // 0 for a scalar, 1 for a vector; else R's dim decides
  bool rounds;   // whether a double may be rounded to FP32 or FP16
};

// Reads a tensor: raw where `raw` is given, else typed. Elements listed in `missing` (flat, row-major) become NA.
SEXP read_tensor(const std::string& datatype, const Shape& shape, const std::string* raw, const Contents& contents,
                 const std::vector<std::size_t>& missing, const std::string& where);

// Writes R values raw into `raw`, or into `contents` where `raw` is null. Returns the shape; NA in text is listed in `missing`.
Shape write_tensor(SEXP values, const Target& target, std::string* raw, Contents* contents, std::vector<std::size_t>* missing);

// The tensor parameter `missing`: decimal indices joined by commas.
std::vector<std::size_t> read_missing(const Parameters& parameters, std::size_t size, const std::string& where);
std::string write_missing(const std::vector<std::size_t>& indices);

// Number of elements; throws for negative sizes and absurd products.
std::size_t count_of(const Shape& shape, const std::string& where);

}  // namespace mlb
