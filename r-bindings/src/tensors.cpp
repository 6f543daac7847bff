#include "tensors.h"

#include <algorithm>
#include <cctype>
#include <cerrno>
#include <climits>
#include <cstdlib>
#include <limits>

#include "numbers.h"

namespace mlb {
namespace {

constexpr std::size_t kMaxRank = 32;
constexpr std::int64_t kMaxElements = std::int64_t(1) << 48;  // beyond is an attack
constexpr double kExact = 9007199254740992.0;                 // 2^53: larger whole numbers are text in R
constexpr std::size_t kMaxName = 128;                         // longer names break HTTP/2 trailers when echoed
constexpr std::size_t kTile = 256;                            // rows at a time, so that a transposition stays in the cache

// Calls f(column-major index, row-major index) for every element.
template <class F>
void each(const Shape& shape, F f) {
  if (shape.size() < 2) {
    const std::size_t n = shape.empty() ? 1 : shape[0];
    for (std::size_t i = 0; i < n; ++i) f(i, i);
    return;
  }
  const std::size_t rows = shape[0], rank = shape.size();
  std::size_t stride = 1;  // of a row, row-major
  for (std::size_t a = 1; a < rank; ++a) stride *= shape[a];
  if (!rows || !stride) return;
  std::vector<std::size_t> steps(rank, 1);
  for (std::size_t a = rank - 1; a > 1; --a) steps[a - 1] = steps[a] * shape[a];
  for (std::size_t top = 0; top < rows; top += kTile) {
    const std::size_t end = std::min(rows, top + kTile);
    std::vector<std::int64_t> at(rank, 0);
    for (std::size_t column = 0, offset = 0; column < stride; ++column) {
      for (std::size_t r = top; r < end; ++r) f(column * rows + r, r * stride + offset);
      for (std::size_t a = 1; a < rank; ++a) {
        offset += steps[a];
        if (++at[a] < shape[a]) break;
        offset -= steps[a] * shape[a];
        at[a] = 0;
      }
    }
  }
}

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

std::string element(const std::string& where, std::size_t i) { return where + ": element " + std::to_string(i); }

std::string written(const Shape& shape) {
  std::string out = "[";
  for (std::size_t a = 0; a < std::min(shape.size(), kMaxRank); ++a) out += (a ? ", " : "") + std::to_string(shape[a]);
  return out + "]";
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

// ---------------------------------------------------------------- reading

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
  Rcpp::NumericVector out(Rcpp::no_init(from.size / sizeof(T)));
  double* to = out.begin();
  if (std::is_same<T, double>::value && shape.size() < 2) std::memcpy(to, from.data, from.size);
  else each(shape, [&](std::size_t i, std::size_t j) { to[i] = convert(load<T>(from.data, j)); });
  if (!missing.empty()) {
    std::vector<bool> gone(out.size());
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

struct Kind {
  const char* name;
  std::size_t width;
  const char* field;  // of typed contents; null where there is none
};

constexpr Kind kKinds[] = {
    {"BOOL", 1, "bool_contents"},    {"INT8", 1, "int_contents"},       {"INT16", 2, "int_contents"},
    {"INT32", 4, "int_contents"},    {"INT64", 8, "int64_contents"},    {"UINT8", 1, "uint_contents"},
    {"UINT16", 2, "uint_contents"},  {"UINT32", 4, "uint_contents"},    {"UINT64", 8, "uint64_contents"},
    {"FP16", 2, nullptr},            {"FP32", 4, "fp32_contents"},      {"FP64", 8, "fp64_contents"},
    {"BYTES", 0, "bytes_contents"},
};

const Kind& kind_of(const std::string& datatype, const std::string& where) {
  for (const Kind& kind : kKinds)
    if (datatype == kind.name) return kind;
  if (datatype == "BF16") throw Refused(where + ": BF16 is not supported; send FP32", true);
  throw Refused(where + ": there is no datatype " + quoted(datatype));
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

// ---------------------------------------------------------------- writing

[[noreturn]] void cannot(const Target& target, std::size_t j, const std::string& value) {
  throw Refused(element(quoted(target.name), j) + ": " + value + " has no form in " + target.datatype);
}

// Whole numbers of R: logical, integer, double or decimal text.
template <class T>
T whole(SEXP values, std::size_t i, std::size_t j, const Target& target) {
  double value;
  switch (TYPEOF(values)) {
    case LGLSXP:
    case INTSXP: {
      const int v = INTEGER(values)[i];
      if (v == NA_INTEGER) cannot(target, j, "a missing value");
      value = v;
      break;
    }
    case REALSXP:
      value = REAL(values)[i];
      if (std::isnan(value)) cannot(target, j, "a missing value");
      if (std::fabs(value) > kExact) cannot(target, j, "a number beyond 2^53 (write it as text)");
      break;
    case STRSXP: {
      if (STRING_ELT(values, i) == NA_STRING) cannot(target, j, "a missing value");
      const char* text = CHAR(STRING_ELT(values, i));
      char* end = nullptr;
      errno = 0;
      const bool digits = *text == '-' ? std::isdigit(static_cast<unsigned char>(text[1])) : std::isdigit(static_cast<unsigned char>(text[0]));
      if (digits && std::is_signed<T>::value) {
        const long long v = std::strtoll(text, &end, 10);
        if (!*end && !errno && v >= static_cast<long long>(std::numeric_limits<T>::min()) &&
            v <= static_cast<long long>(std::numeric_limits<T>::max()))
          return static_cast<T>(v);
      } else if (digits && *text != '-') {
        const unsigned long long v = std::strtoull(text, &end, 10);
        if (!*end && !errno && v <= static_cast<unsigned long long>(std::numeric_limits<T>::max())) return static_cast<T>(v);
      }
      cannot(target, j, quoted(text));
    }
    default: throw Refused(quoted(target.name) + ": a " + Rf_type2char(TYPEOF(values)) + " has no form in " + target.datatype);
  }
  if (value != std::floor(value) || value < static_cast<double>(std::numeric_limits<T>::min()) ||
      value > static_cast<double>(std::numeric_limits<T>::max()))
    cannot(target, j, std::to_string(value));
  return static_cast<T>(value);
}

double number(SEXP values, std::size_t i, const Target& target) {
  switch (TYPEOF(values)) {
    case REALSXP: return REAL(values)[i];
    case LGLSXP:
    case INTSXP: return INTEGER(values)[i] == NA_INTEGER ? NA_REAL : INTEGER(values)[i];
    default: throw Refused(quoted(target.name) + ": a " + Rf_type2char(TYPEOF(values)) + " has no form in " + target.datatype);
  }
}

float rounded(double value, const Target& target, std::size_t j) {
  const float out = narrow(value);
  if (!target.rounds && !std::isnan(value) && static_cast<double>(out) != value) cannot(target, j, std::to_string(value) + ", unrounded,");
  return out;
}

std::uint16_t halved(double value, const Target& target, std::size_t j) {
  const std::uint16_t out = double_to_half(value);
  if (!target.rounds && !std::isnan(value) && half_to_double(out) != value) cannot(target, j, std::to_string(value) + ", unrounded,");
  return out;
}

template <class T, class Get>
void put_raw(std::string* raw, const Shape& shape, std::size_t count, Get get) {
  raw->resize(count * sizeof(T));
  char* to = &(*raw)[0];
  each(shape, [&](std::size_t i, std::size_t j) {
    const T value = get(i, j);
    std::memcpy(to + j * sizeof(T), &value, sizeof(T));
  });
}

template <class T, class Field, class Get>
void put(std::string* raw, Field* field, const Shape& shape, std::size_t count, Get get) {
  if (raw) return put_raw<T>(raw, shape, count, get);
  field->Resize(static_cast<int>(count), 0);
  each(shape, [&](std::size_t i, std::size_t j) { field->Set(static_cast<int>(j), get(i, j)); });
}

void put_texts(SEXP values, const Target& target, const Shape& shape, std::size_t count, std::string* raw, Contents* contents,
               std::vector<std::size_t>* missing) {
  if (TYPEOF(values) != STRSXP) throw Refused(quoted(target.name) + ": a " + Rf_type2char(TYPEOF(values)) + " has no form in BYTES");
  std::vector<std::size_t> from(count);  // row-major order decides where each element lies
  each(shape, [&](std::size_t i, std::size_t j) { from[j] = i; });
  for (std::size_t j = 0; j < count; ++j) {
    const SEXP text = STRING_ELT(values, from[j]);
    if (text == NA_STRING && missing) missing->push_back(j);
    const char* bytes = text == NA_STRING ? "" : CHAR(text);  // the R side has made it UTF-8
    const std::uint32_t size = text == NA_STRING ? 0 : static_cast<std::uint32_t>(LENGTH(text));
    if (raw) {
      raw->append(reinterpret_cast<const char*>(&size), 4);
      raw->append(bytes, size);
    } else {
      contents->add_bytes_contents(bytes, size);
    }
  }
}

}  // namespace

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

Shape write_tensor(SEXP values, const Target& target, std::string* raw, Contents* contents, std::vector<std::size_t>* missing) {
  Shape shape;
  const SEXP dim = Rf_getAttrib(values, R_DimSymbol);
  const std::size_t count = Rf_xlength(values);
  if (target.rank == 1) shape.push_back(count);
  else if (target.rank != 0) {
    if (Rf_length(dim) != target.rank)
      throw Refused(quoted(target.name) + ": " + std::to_string(Rf_isNull(dim) ? 1 : Rf_length(dim)) + " axes, expected " + std::to_string(target.rank));
    for (int a = 0; a < target.rank; ++a) shape.push_back(INTEGER(dim)[a]);
  } else if (count != 1) {
    throw Refused(quoted(target.name) + ": " + std::to_string(count) + " values for a scalar");
  }
  const std::string& type = target.datatype;
  const Kind& kind = kind_of(type, quoted(target.name));
  if (!raw && !kind.field) throw Refused(quoted(target.name) + ": " + type + " has no typed contents");
  if (!raw && count > INT_MAX) throw Refused(quoted(target.name) + ": too many elements for typed contents");
  if (!kind.width) put_texts(values, target, shape, count, raw, contents, missing);
  else if (type == "FP64") {
    if (raw && TYPEOF(values) == REALSXP && shape.size() < 2) raw->assign(reinterpret_cast<const char*>(REAL(values)), count * 8);
    else put<double>(raw, contents ? contents->mutable_fp64_contents() : nullptr, shape, count, [&](std::size_t i, std::size_t) { return number(values, i, target); });
  } else if (type == "FP32") {
    put<float>(raw, contents ? contents->mutable_fp32_contents() : nullptr, shape, count, [&](std::size_t i, std::size_t j) { return rounded(number(values, i, target), target, j); });
  } else if (type == "FP16") {
    put_raw<std::uint16_t>(raw, shape, count, [&](std::size_t i, std::size_t j) { return halved(number(values, i, target), target, j); });
  } else if (type == "BOOL") {
    put<bool>(raw, contents ? contents->mutable_bool_contents() : nullptr, shape, count, [&](std::size_t i, std::size_t j) {
      const auto v = whole<std::int32_t>(values, i, j, target);
      if (v != 0 && v != 1) cannot(target, j, std::to_string(v));
      return v == 1;
    });
  } else {
    auto* ints = contents ? contents->mutable_int_contents() : nullptr;
    auto* uints = contents ? contents->mutable_uint_contents() : nullptr;
    const auto get = [&](auto zero) { return [&](std::size_t i, std::size_t j) { return whole<decltype(zero)>(values, i, j, target); }; };
    if (type == "INT8") put<std::int8_t>(raw, ints, shape, count, get(std::int8_t()));
    else if (type == "INT16") put<std::int16_t>(raw, ints, shape, count, get(std::int16_t()));
    else if (type == "INT32") put<std::int32_t>(raw, ints, shape, count, get(std::int32_t()));
    else if (type == "UINT8") put<std::uint8_t>(raw, uints, shape, count, get(std::uint8_t()));
    else if (type == "UINT16") put<std::uint16_t>(raw, uints, shape, count, get(std::uint16_t()));
    else if (type == "UINT32") put<std::uint32_t>(raw, uints, shape, count, get(std::uint32_t()));
    else if (type == "INT64") put<std::int64_t>(raw, contents ? contents->mutable_int64_contents() : nullptr, shape, count, get(std::int64_t()));
    else put<std::uint64_t>(raw, contents ? contents->mutable_uint64_contents() : nullptr, shape, count, get(std::uint64_t()));
  }
  return shape;
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
