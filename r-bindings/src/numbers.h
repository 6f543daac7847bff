// Single numbers between the wire's types and double, bit by bit where it matters: the payload of a NaN is kept.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>

namespace mlb {

template <class To, class From>
To bits(From value) {
  static_assert(sizeof(To) == sizeof(From), "same size");
  To out;
  std::memcpy(&out, &value, sizeof out);
  return out;
}

// The processor quiets signalling NaNs when it converts, so NaNs are moved as bits.
inline double widen(float value) {
  if (!std::isnan(value)) return value;
  const auto b = bits<std::uint32_t>(value);
  return bits<double>((std::uint64_t(b >> 31) << 63) | (0x7FFULL << 52) | (std::uint64_t(b & 0x7FFFFF) << 29));
}

inline float narrow(double value) {
  if (!std::isnan(value)) return static_cast<float>(value);
  const auto b = bits<std::uint64_t>(value);
  auto payload = static_cast<std::uint32_t>((b >> 29) & 0x7FFFFF);
  if (payload == 0) payload = 0x400000;  // a payload that sits in the low bits only (R's NA) must stay a NaN
  return bits<float>((static_cast<std::uint32_t>(b >> 63) << 31) | 0x7F800000u | payload);
}

inline double half_to_double(std::uint16_t h) {
  const int exponent = (h >> 10) & 31;
  const unsigned fraction = h & 1023;
  if (exponent == 31 && fraction)
    return bits<double>((std::uint64_t(h >> 15) << 63) | (0x7FFULL << 52) | (std::uint64_t(fraction) << 42));
  const double size = exponent == 31 ? HUGE_VAL : exponent ? std::ldexp(1024.0 + fraction, exponent - 25) : std::ldexp(double(fraction), -24);
  return h >> 15 ? -size : size;
}

// Rounds to nearest, ties to even.
inline std::uint16_t double_to_half(double value) {
  const auto b = bits<std::uint64_t>(value);
  const auto sign = static_cast<std::uint16_t>((b >> 63) << 15);
  if (std::isnan(value)) {
    auto payload = static_cast<std::uint16_t>((b >> 42) & 1023);
    return sign | 0x7C00 | (payload ? payload : 0x200);
  }
  const double size = std::fabs(value);
  if (size >= 65520.0) return sign | 0x7C00;
  if (size == 0) return sign;
  int exponent;
  std::frexp(size, &exponent);  // size = f * 2^exponent, f in [0.5, 1)
  const int unit = exponent - 11 < -24 ? -24 : exponent - 11;
  const auto steps = static_cast<std::uint32_t>(std::nearbyint(std::ldexp(size, -unit)));
  // a carry out of the fraction lands in the exponent, as it should
  return sign | static_cast<std::uint16_t>(unit == -24 && steps < 1024 ? steps : ((unit + 24) << 10) + steps);
}

}  // namespace mlb
