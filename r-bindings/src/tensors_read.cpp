// From the wire to R: raw bytes and typed contents as R arrays.
#include <climits>
#include <cstring>
#include <limits>

#include "layout.h"
#include "numbers.h"
#include "tensors.h"

namespace mlb {
namespace {

template <class T>
T load(const char* data, std::size_t i) {
  T out;
  std::memcpy(&out, data + i * sizeof(T), sizeof(T));
  return out;
}

bool is_utf8(const char* text, std::size_t size) {
  const auto* p = reinterpret_cast<const unsigned char*>(text);
  const auto* end = p + size;
  while (p < end) {
    if (*p < 0x80) {
      ++p;
      continue;
    }
    const int more = *p >= 0xF0 && *p < 0xF5 ? 3 : *p >= 0xE0 && *p < 0xF0 ? 2 : *p >= 0xC2 && *p < 0xE0 ? 1 : 0;
    if (!more || end - p <= more) return false;
    std::uint32_t code = *p & (0x3F >> more);
    for (int i = 1; i <= more; ++i) {
      if ((p[i] & 0xC0) != 0x80) return false;
      code = (code << 6) | (p[i] & 0x3F);
    }
    const bool overlong = (more == 2 && code < 0x800) || (more == 3 && code < 0x10000);
    if (overlong || code > 0x10FFFF || (code >= 0xD800 && code < 0xE000)) return false;
    p += more + 1;
  }
  return true;
}

void set_dim(SEXP values, const Shape& shape) {
  if (shape.size() < 2) return;
  Rcpp::IntegerVector dim(shape.size());
  for (std::size_t a = 0; a < shape.size(); ++a) {
    if (shape[a] > INT_MAX) throw Refused("an axis of " + std::to_string(shape[a]) + " is longer than R's arrays can be");
    dim[a] = static_cast<int>(shape[a]);
  }
  Rf_setAttrib(values, R_DimSymbol, dim);
}

// The elements of one tensor, wherever they lie: raw bytes, or a typed field of the same layout.
struct Source {
  const char* data;
  std::size_t size;   // bytes
  std::size_t width;  // of an element; 0 for BYTES
};

template <class T, class Stored>
SEXP small_integers(const Source& from, const Shape& shape, const std::vector<std::size_t>& missing, const std::string& where) {
  Rcpp::IntegerVector out(Rcpp::no_init(from.size / sizeof(Stored)));
  int* to = out.begin();
  bool least = false;
  each(shape, [&](std::size_t i, std::size_t j) {
    const auto value = static_cast<std::int64_t>(load<Stored>(from.data, j));
    if (value < std::numeric_limits<T>::min() || value > std::numeric_limits<T>::max())
      throw Refused(element(where, j) + ": " + std::to_string(value) + " is out of the range of its datatype");
    to[i] = static_cast<int>(value);
    least = least || to[i] == NA_INTEGER;
  });
  if (least) {  // R reads the least 32-bit integer as NA
    Rcpp::NumericVector wide(Rcpp::no_init(out.size()));
    std::copy(out.begin(), out.end(), wide.begin());
    set_dim(wide, shape);
    return wide;
  }
  if (!missing.empty()) {
    std::vector<bool> gone(out.size());
    for (const auto m : missing) gone[m] = true;
    each(shape, [&](std::size_t i, std::size_t j) { if (gone[j]) to[i] = NA_INTEGER; });
  }
  set_dim(out, shape);
  return out;
}

template <class T>
SEXP wide_integers(const Source& from, const Shape& shape, const std::vector<std::size_t>& missing) {
  const std::size_t n = from.size / sizeof(T);
  std::vector<bool> gone(n);
  for (const auto m : missing) gone[m] = true;
  bool exact = true;
  for (std::size_t j = 0; j < n && exact; ++j) {
    const T value = load<T>(from.data, j);
    exact = sizeof(T) < 8 || (value <= T(1LL << 53) && (!std::is_signed<T>::value || value >= T(-(1LL << 53))));
  }
  if (exact) {
    Rcpp::NumericVector out(Rcpp::no_init(n));
    double* to = out.begin();
    each(shape, [&](std::size_t i, std::size_t j) { to[i] = gone[j] ? NA_REAL : static_cast<double>(load<T>(from.data, j)); });
    set_dim(out, shape);
    return out;
  }
  Rcpp::CharacterVector out(n);
  each(shape, [&](std::size_t i, std::size_t j) {
    SET_STRING_ELT(out, i, gone[j] ? NA_STRING : Rf_mkChar(std::to_string(load<T>(from.data, j)).c_str()));
  });
  set_dim(out, shape);
  return out;
}

template <class T, class Convert>
SEXP floats(const Source& from, const Shape& shape, const std::vector<std::size_t>& missing, Convert convert) {
  const std::size_t n = from.size / sizeof(T);
  Rcpp::Shield<SEXP> out(Rf_allocVector(REALSXP, n));
  double* to = REAL(out);
  if (std::is_same<T, double>::value && shape.size() < 2) std::copy(from.data, from.data + from.size, reinterpret_cast<char*>(to));
  else each(shape, [&](std::size_t i, std::size_t j) { to[i] = convert(load<T>(from.data, j)); });
  if (!missing.empty()) {
    std::vector<bool> gone(n);
    for (const auto m : missing) gone[m] = true;
    each(shape, [&](std::size_t i, std::size_t j) { if (gone[j]) to[i] = NA_REAL; });
  }
  set_dim(out, shape);
  return out;
}

SEXP truths(const Source& from, const Shape& shape, const std::vector<std::size_t>& missing, const std::string& where) {
  Rcpp::LogicalVector out(Rcpp::no_init(from.size));
  std::vector<bool> gone(out.size());
  for (const auto m : missing) gone[m] = true;
  int* to = out.begin();
  each(shape, [&](std::size_t i, std::size_t j) {
    const auto octet = static_cast<unsigned char>(from.data[j]);
    if (octet > 1) throw Refused(element(where, j) + ": a BOOL is a byte 0 or 1, not " + std::to_string(octet));
    to[i] = gone[j] ? NA_LOGICAL : octet;
  });
  set_dim(out, shape);
  return out;
}

struct Piece {
  const char* data;
  std::size_t size;
};

std::vector<Piece> split(const std::string& raw, std::size_t count, const std::string& where) {
  if (count > raw.size() / 4)  // before anything is built: a short message cannot claim many elements
    throw Refused(where + ": " + std::to_string(raw.size()) + " bytes cannot hold " + std::to_string(count) +
                  " BYTES elements; each takes 4 bytes and its content");
  std::vector<Piece> out;
  out.reserve(count);
  std::size_t at = 0;
  while (at < raw.size() && out.size() <= count) {
    if (raw.size() - at < 4) throw Refused(where + ": the length of element " + std::to_string(out.size()) + " is cut short");
    const auto size = load<std::uint32_t>(raw.data() + at, 0);
    at += 4;
    if (size > raw.size() - at)
      throw Refused(element(where, out.size()) + " has " + std::to_string(size) + " bytes, " + std::to_string(raw.size() - at) + " are left");
    out.push_back({raw.data() + at, size});
    at += size;
  }
  if (out.size() != count || at != raw.size())
    throw Refused(where + ": " + std::to_string(out.size()) + " BYTES elements or more, expected " + std::to_string(count));
  return out;
}

SEXP texts(const std::vector<Piece>& pieces, const Shape& shape, const std::vector<std::size_t>& missing, const std::string& where) {
  Rcpp::CharacterVector out(pieces.size());
  std::vector<bool> gone(pieces.size());
  for (const auto m : missing) gone[m] = true;
  each(shape, [&](std::size_t i, std::size_t j) {
    const Piece& p = pieces[j];
    if (p.size > INT_MAX || std::memchr(p.data, 0, p.size)) throw Refused(element(where, j) + " holds a zero byte, which R's text cannot");
    if (!is_utf8(p.data, p.size)) throw Refused(element(where, j) + " is not UTF-8 text");
    SET_STRING_ELT(out, i, gone[j] ? NA_STRING : Rf_mkCharLenCE(p.data, static_cast<int>(p.size), CE_UTF8));
  });
  set_dim(out, shape);
  return out;
}

// The field of the datatype; every other field must be empty.
Source typed_source(const Contents& contents, const Kind& kind, const std::string& where) {
  if (!kind.field) throw Refused(where + ": " + kind.name + " has no typed contents; send it raw");
  Source out{nullptr, 0, 0};
  const auto take = [&](const char* field, const auto& values) {
    if (std::strcmp(field, kind.field) == 0) {
      using Value = typename std::decay<decltype(values.Get(0))>::type;
      out = {reinterpret_cast<const char*>(values.data()), values.size() * sizeof(Value), sizeof(Value)};
    } else if (values.size()) {
      throw Refused(where + ": " + kind.name + " belongs into " + kind.field + ", and " + field + " is filled");
    }
  };
  take("bool_contents", contents.bool_contents());
  take("int_contents", contents.int_contents());
  take("int64_contents", contents.int64_contents());
  take("uint_contents", contents.uint_contents());
  take("uint64_contents", contents.uint64_contents());
  take("fp32_contents", contents.fp32_contents());
  take("fp64_contents", contents.fp64_contents());
  if (std::strcmp("bytes_contents", kind.field) && contents.bytes_contents_size())
    throw Refused(where + ": " + kind.name + " belongs into " + kind.field + ", and bytes_contents is filled");
  return out;
}

template <class Small>
SEXP narrow_integers(const Source& from, bool typed, bool sign, const Shape& shape, const std::vector<std::size_t>& missing, const std::string& where) {
  if (!typed) return small_integers<Small, Small>(from, shape, missing, where);
  if (sign) return small_integers<Small, std::int32_t>(from, shape, missing, where);
  return small_integers<Small, std::uint32_t>(from, shape, missing, where);
}

}  // namespace

SEXP read_tensor(const std::string& datatype, const Shape& shape, const std::string* raw, const Contents& contents,
                 const std::vector<std::size_t>& missing, const std::string& where) {
  const std::size_t count = count_of(shape, where);
  const Kind& kind = kind_of(datatype, where);
  const bool typed = raw == nullptr;
  if (!kind.width) {
    if (typed) typed_source(contents, kind, where);
    std::vector<Piece> pieces;
    if (typed) for (const auto& t : contents.bytes_contents()) pieces.push_back({t.data(), t.size()});
    else pieces = split(*raw, count, where);
    if (pieces.size() != count)
      throw Refused(where + ": " + std::to_string(pieces.size()) + " elements, expected " + std::to_string(count) + " for BYTES" + written(shape));
    return texts(pieces, shape, missing, where);
  }
  const Source from = typed ? typed_source(contents, kind, where) : Source{raw->data(), raw->size(), kind.width};
  if (from.size != count * from.width)
    throw Refused(where + ": " + std::to_string(typed ? from.size / from.width : from.size) + (typed ? " elements" : " bytes") + ", expected " +
                  std::to_string(typed ? count : count * from.width) + " for " + datatype + written(shape));
  if (datatype == "FP64") return floats<double>(from, shape, missing, [](double v) { return v; });
  if (datatype == "FP32") return floats<float>(from, shape, missing, widen);
  if (datatype == "FP16") return floats<std::uint16_t>(from, shape, missing, half_to_double);
  if (datatype == "BOOL") return truths(from, shape, missing, where);
  if (datatype == "INT32") return small_integers<std::int32_t, std::int32_t>(from, shape, missing, where);
  if (datatype == "INT8") return narrow_integers<std::int8_t>(from, typed, true, shape, missing, where);
  if (datatype == "INT16") return narrow_integers<std::int16_t>(from, typed, true, shape, missing, where);
  if (datatype == "UINT8") return narrow_integers<std::uint8_t>(from, typed, false, shape, missing, where);
  if (datatype == "UINT16") return narrow_integers<std::uint16_t>(from, typed, false, shape, missing, where);
  if (datatype == "UINT32") return wide_integers<std::uint32_t>(from, shape, missing);
  if (datatype == "INT64") return wide_integers<std::int64_t>(from, shape, missing);
  return wide_integers<std::uint64_t>(from, shape, missing);
}

}  // namespace mlb
