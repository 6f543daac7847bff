// From R to the wire: R arrays as raw bytes or typed contents.
#include <cctype>
#include <cerrno>
#include <climits>
#include <cstdlib>
#include <limits>

#include "layout.h"
#include "numbers.h"
#include "tensors.h"

namespace mlb {
namespace {

constexpr double kExact = 9007199254740992.0;  // 2^53: larger whole numbers are text in R

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

}  // namespace mlb
