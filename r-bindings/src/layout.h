// What reading and writing tensors share: the order of elements on the wire and in R, and the datatypes.
#pragma once

#include <algorithm>
#include <string>
#include <vector>

#include "tensors.h"

namespace mlb {

constexpr std::size_t kTile = 256;  // rows at a time, so that a transposition stays in the cache

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

struct Kind {
  const char* name;
  std::size_t width;
  const char* field;  // of typed contents; null where there is none
};

// Throws Refused where there is no such datatype.
const Kind& kind_of(const std::string& datatype, const std::string& where);

inline std::string element(const std::string& where, std::size_t i) { return where + ": element " + std::to_string(i); }

// A shape for a message.
std::string written(const Shape& shape);

}  // namespace mlb
