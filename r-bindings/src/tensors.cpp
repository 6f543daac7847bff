// What reading and writing tensors share: names, shapes and missing elements.
#include "tensors.h"

#include <algorithm>

#include "layout.h"

namespace mlb {
namespace {

constexpr std::size_t kMaxRank = 32;
constexpr std::int64_t kMaxElements = std::int64_t(1) << 48;  // beyond is an attack
constexpr std::size_t kMaxName = 128;                         // longer names break HTTP/2 trailers when echoed

constexpr Kind kKinds[] = {
    {"BOOL", 1, "bool_contents"},    {"INT8", 1, "int_contents"},       {"INT16", 2, "int_contents"},
    {"INT32", 4, "int_contents"},    {"INT64", 8, "int64_contents"},    {"UINT8", 1, "uint_contents"},
    {"UINT16", 2, "uint_contents"},  {"UINT32", 4, "uint_contents"},    {"UINT64", 8, "uint64_contents"},
    {"FP16", 2, nullptr},            {"FP32", 4, "fp32_contents"},      {"FP64", 8, "fp64_contents"},
    {"BYTES", 0, "bytes_contents"},
};

}  // namespace

const Kind& kind_of(const std::string& datatype, const std::string& where) {
  for (const Kind& kind : kKinds)
    if (datatype == kind.name) return kind;
  if (datatype == "BF16") throw Refused(where + ": BF16 is not supported; send FP32", true);
  throw Refused(where + ": there is no datatype " + quoted(datatype));
}

std::string written(const Shape& shape) {
  std::string out = "[";
  for (std::size_t a = 0; a < std::min(shape.size(), kMaxRank); ++a) out += (a ? ", " : "") + std::to_string(shape[a]);
  return out + "]";
}

std::string quoted(const std::string& name) {
  std::string out = "'";
  std::size_t characters = 0;
  for (const char c : name) {
    if ((c & 0xC0) != 0x80 && ++characters > kMaxName) return out + "…'";
    out += static_cast<unsigned char>(c) < 32 || c == 127 ? '?' : c;
  }
  return out + "'";
}

std::size_t count_of(const Shape& shape, const std::string& where) {
  if (shape.size() > kMaxRank) throw Refused(where + ": " + std::to_string(shape.size()) + " axes, at most 32 are accepted");
  std::int64_t total = 1, largest = 1;
  for (const auto size : shape) {
    if (size < 0) throw Refused(where + ": shape " + written(shape) + " has a negative size");
    if (size && largest > kMaxElements / size) throw Refused(where + ": shape " + written(shape) + " is too large");
    largest *= size ? size : 1;
    total *= size;
  }
  return static_cast<std::size_t>(total);
}

std::vector<std::size_t> read_missing(const Parameters& parameters, std::size_t size, const std::string& where) {
  std::vector<std::size_t> out;
  const auto found = parameters.find("missing");
  if (found == parameters.end()) return out;
  const std::string& text = found->second.string_param();
  if (found->second.parameter_choice_case() != inference::InferParameter::kStringParam || text.size() > 20 * std::max<std::size_t>(size, 1))
    throw Refused(where + ": the parameter 'missing' must be a string of indices within the tensor");
  for (std::size_t at = 0; at < text.size();) {
    std::size_t value = 0, digits = 0;
    for (; at < text.size() && text[at] >= '0' && text[at] <= '9' && digits < 19; ++at, ++digits) value = value * 10 + (text[at] - '0');
    const bool last = at == text.size();
    if (!digits || digits > 18 || (!last && (text[at] != ',' || at + 1 == text.size())))
      throw Refused(where + ": the parameter 'missing' must be decimal indices joined by commas");
    if (value >= size) throw Refused(where + ": the parameter 'missing' names element " + std::to_string(value) + " of " + std::to_string(size));
    out.push_back(value);
    if (!last) ++at;
  }
  return out;
}

std::string write_missing(const std::vector<std::size_t>& indices) {
  std::string out;
  for (const auto i : indices) out += (out.empty() ? "" : ",") + std::to_string(i);
  return out;
}

}  // namespace mlb
