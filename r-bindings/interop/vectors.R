# Values of the vectors (proto/interop.json) as R's own, and back to bytes: what docs/interop.md says of a tensor.

.widths <- c(bool = 1, int8 = 1, int16 = 2, int32 = 4, int64 = 8, uint8 = 1, uint16 = 2, uint32 = 4, uint64 = 8, float16 = 2, float32 = 4, float64 = 8)

from_hex <- function(hex) if (nzchar(hex)) as.raw(strtoi(substring(hex, seq(1, nchar(hex), 2), seq(2, nchar(hex), 2)), 16L)) else raw()
to_hex <- function(bytes) paste(as.character(bytes), collapse = "")

# Whole numbers of any width by their bytes, least first: decimal text beyond 2^53, as mlbridge holds them.
.whole_of <- function(bytes, signed) {
  negative <- signed && bytes[length(bytes)] >= 128
  if (negative) {
    bytes <- 255 - bytes
    bytes[1] <- bytes[1] + 1
  }
  digits <- 0
  for (byte in rev(bytes)) {  # decimal digits, least first
    digits <- digits * 256
    digits[1] <- digits[1] + byte
    i <- 1
    while (i <= length(digits)) {
      if (digits[i] > 9) {
        if (i == length(digits)) digits <- c(digits, 0)
        digits[i + 1] <- digits[i + 1] + digits[i] %/% 10
        digits[i] <- digits[i] %% 10
      }
      i <- i + 1
    }
  }
  paste0(if (negative) "-", paste(rev(digits), collapse = ""))
}

.bytes_of <- function(text, width) {
  negative <- startsWith(text, "-")
  digits <- as.integer(strsplit(sub("^-", "", text), "")[[1]])
  bytes <- numeric(width)
  for (k in seq_len(width)) {
    rest <- 0
    for (i in seq_along(digits)) {
      value <- rest * 10 + digits[i]
      digits[i] <- value %/% 256
      rest <- value %% 256
    }
    bytes[k] <- rest
  }
  if (!negative) return(as.raw(bytes))
  bytes <- 255 - bytes
  for (k in seq_len(width)) {
    bytes[k] <- bytes[k] + 1
    if (bytes[k] < 256) break
    bytes[k] <- 0
  }
  as.raw(bytes)
}

.half_of <- function(bits) {
  exponent <- (bits %/% 1024) %% 32
  fraction <- bits %% 1024
  size <- if (exponent == 31) (if (fraction) NaN else Inf) else if (exponent) (1024 + fraction) * 2^(exponent - 25) else fraction * 2^-24
  if (bits >= 32768) -size else size
}

.bits_of_half <- function(value) {
  sign <- if (value < 0 || (value == 0 && 1 / value < 0)) 32768 else 0
  size <- abs(value)
  if (is.nan(size)) return(32256)
  if (is.infinite(size)) return(sign + 31744)
  exponent <- if (size < 2^-14) -24 else floor(log2(size)) - 10
  steps <- size / 2^exponent
  sign + if (size < 2^-14) steps else (exponent + 24) * 1024 + steps
}

.numbers_of <- function(bytes, dtype) {
  width <- .widths[[dtype]]
  n <- length(bytes) / width
  if (dtype == "bool") return(bytes != 0)
  if (dtype == "float16") return(vapply(readBin(bytes, "integer", n, size = 2L, signed = FALSE, endian = "little"), .half_of, 0))
  if (startsWith(dtype, "float")) return(readBin(bytes, "double", n, size = width, endian = "little"))
  if (n == 0) return(double())
  texts <- apply(matrix(as.integer(bytes), width), 2L, .whole_of, signed = !startsWith(dtype, "u"))
  if (any(abs(as.double(texts)) >= 2^53)) texts else as.double(texts)
}

.bytes_of_numbers <- function(values, dtype) {
  if (dtype == "bool") return(as.raw(values))
  if (dtype == "float16") return(writeBin(as.integer(ifelse((b <- vapply(values, .bits_of_half, 0)) > 32767, b - 65536, b)), raw(), size = 2L, endian = "little"))
  if (startsWith(dtype, "float")) return(writeBin(as.double(values), raw(), size = .widths[[dtype]], endian = "little"))
  texts <- if (is.character(values)) values else format(values, scientific = FALSE, trim = TRUE, digits = 15)
  as.raw(unlist(lapply(texts, function(t) as.integer(.bytes_of(t, .widths[[dtype]])))))
}

# Row-major to R's arrays and back.
.from_rows <- function(values, shape) if (length(shape) < 2L) values else aperm(array(values, rev(shape)))
.to_rows <- function(values) if (length(dim(values)) < 2L) as.vector(values) else as.vector(aperm(values))

.scalars <- function(values, like) {  # nulls are NA of the others' type
  some <- unlist(values)
  gone <- vapply(values, is.null, NA)
  out <- rep(if (is.null(some)) like else some[NA_integer_], length(values))
  out[!gone] <- some
  out
}

# A tensor of the vectors as R's value.
value_of <- function(tensor) {
  shape <- unlist(tensor$shape)
  if (!is.null(tensor$levels)) return(.from_rows(.scalars(tensor$levels, NA_character_), shape))
  if (!is.null(tensor$strings)) return(.from_rows(.scalars(tensor$strings, character()), shape))
  if (identical(tensor$fill, "index")) return(.from_rows(seq_len(prod(shape)) - 1, shape))
  .from_rows(.numbers_of(from_hex(tensor$hex), tensor$dtype), shape)
}

# R's value as a line says it.
written <- function(name, dtype, value) {
  shape <- as.list(if (length(dim(value)) < 2L) length(value) else dim(value))
  out <- list(name = name, dtype = dtype, shape = shape)
  texts <- if (is.factor(value)) as.character(value) else .to_rows(value)
  if (dtype == "level") return(c(out, list(levels = lapply(texts, function(v) if (is.na(v)) NULL else v))))
  if (dtype == "string") return(c(out, list(strings = lapply(texts, function(v) if (is.na(v)) NULL else v))))
  bytes <- .bytes_of_numbers(texts, dtype)
  c(out, if (length(bytes) <= 65536L) list(hex = to_hex(bytes)) else list(sha256 = digest::digest(bytes, algo = "sha256", serialize = FALSE)))
}
