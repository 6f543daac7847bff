# Frames over a connection, in base R: what proto/FRAMES.md says. Numbers are little-endian; request ids stay raw bytes.
# Tensors are lists of values with dims; arrays leave column-major, as R holds them (flag bit 0).

.types <- c(HELLO = 1L, LOAD = 2L, RUN = 3L, RESULT = 4L, ERROR = 5L, CANCEL = 6L, CLOSE = 7L, PING = 8L, PONG = 9L)
.missing_length <- as.raw(c(255L, 255L, 255L, 255L))
.max_payload <- 2^31 - 1

.gone <- function() stop(structure(class = c("mlbridge_gone", "error", "condition"), list(message = "the connection ended", call = NULL)))

.take <- function(con, n) {
  got <- readBin(con, "raw", n)
  if (length(got) < n) .gone()
  got
}

.unsigned <- function(v) {  # R reads the bit pattern of -2**31 as NA
  v[is.na(v)] <- -2^31
  v + 2^32 * (v < 0)
}

.wide <- function(raws, signed = TRUE) {  # 8-byte integers as doubles: exact to 2^53, beyond which R has no number
  if (!length(raws)) return(double())
  halves <- readBin(raws, "integer", length(raws) / 4L, size = 4L, endian = "little")
  low <- .unsigned(as.double(halves[c(TRUE, FALSE)]))
  high <- as.double(halves[c(FALSE, TRUE)])
  high[is.na(high)] <- -2^31
  value <- low + 2^32 * (if (signed) high else .unsigned(high))
  if (any(abs(value) > 2^53)) stop("a 64-bit integer beyond 2^53 has no exact form in R")
  value
}

.strings <- function(raws, count) {
  out <- character(count)
  at <- 0L
  for (i in seq_len(count)) {
    head <- raws[at + 1:4]
    at <- at + 4L
    if (all(head == .missing_length)) {
      out[i] <- NA_character_
      next
    }
    size <- readBin(head, "integer", 1L, size = 4L, endian = "little")
    if (size > 0L) out[i] <- rawToChar(raws[at + seq_len(size)])
    at <- at + size
  }
  Encoding(out) <- "UTF-8"
  out
}

.values <- function(con, code, count, bytes) {
  number <- function(what, size, signed = TRUE) {
    v <- readBin(con, what, count, size = size, signed = signed, endian = "little")
    if (length(v) < count) .gone()
    v
  }
  switch(as.character(code),
    "1" = number("integer", 1L, FALSE) != 0L,
    "2" = number("integer", 1L), "3" = number("integer", 2L), "4" = number("integer", 4L),
    "5" = .wide(.take(con, bytes)), "6" = number("integer", 1L, FALSE), "7" = number("integer", 2L, FALSE),
    "8" = .unsigned(as.double(number("integer", 4L))), "9" = .wide(.take(con, bytes), FALSE),
    "12" = number("double", 4L), "13" = number("double", 8L),
    "14" = .strings(.take(con, bytes), count),
    { .take(con, bytes); stop("R has no number of 16 bits; send float32") })
}

# Reads one frame: list(type, id, tensors), each tensor list(value, dims, code); a value R cannot hold is a condition.
read_frame <- function(con) {
  head <- readBin(con, "raw", 16L)
  if (length(head) < 16L) .gone()
  if (!identical(head[1:4], charToRaw("MLB1"))) stop("not a frame")
  columns <- as.integer(head[6]) == 1L
  type <- names(.types)[as.integer(head[5])]
  if (type == "PING") return(list(type = type, head = head, payload = .take(con, readBin(head[9:12], "integer", 1L, size = 4L, endian = "little"))))
  u32 <- function() readBin(.take(con, 4L), "integer", 1L, size = 4L, endian = "little")
  count <- u32()
  u32()
  tensors <- list()
  for (i in seq_len(count)) {
    n <- u32()
    name <- rawToChar(.take(con, n))
    Encoding(name) <- "UTF-8"
    start <- .take(con, 4L)
    .take(con, (-(8L + n)) %% 8L)
    dims <- .wide(.take(con, 8L * as.integer(start[2])))
    bytes <- .wide(.take(con, 8L))
    size <- prod(dims)
    value <- tryCatch(.values(con, as.integer(start[1]), size, bytes), mlbridge_gone = function(e) stop(e), error = function(e) e)
    .take(con, (-bytes) %% 8L)
    if (length(dims) > 1L && !inherits(value, "error"))
      value <- if (columns) array(value, dims)
        else if (length(dims) == 2L) matrix(value, dims[1], dims[2], byrow = TRUE)
        else aperm(array(value, rev(dims)))
    tensors[[name]] <- list(value = value, dims = dims)
  }
  list(type = type, id = head[13:16], tensors = tensors)
}

.u32 <- function(v) writeBin(as.integer(v), raw(), size = 4L, endian = "little")

.u64 <- function(v) .u32(rbind(v, 0))  # sizes stay below 2**31

.encode_strings <- function(v) {
  v <- enc2utf8(as.vector(v))
  parts <- vector("list", length(v))
  for (i in seq_along(v)) {
    if (is.na(v[i])) parts[[i]] <- .missing_length
    else {
      bytes <- charToRaw(v[i])
      parts[[i]] <- c(.u32(length(bytes)), bytes)
    }
  }
  as.raw(unlist(parts))
}

scalar <- function(v) structure(list(v), class = "mlbridge_scalar")

.encode_tensor <- function(name, v) {
  dims <- if (inherits(v, "mlbridge_scalar")) integer() else if (is.null(dim(v))) length(v) else dim(v)
  whole <- inherits(v, "mlbridge_scalar") && is.integer(v[[1]])
  if (inherits(v, "mlbridge_scalar")) v <- v[[1]]
  code <- if (is.character(v)) 14L else if (is.logical(v)) 1L else if (is.integer(v)) 4L else if (is.double(v)) 13L
    else stop("output ", name, " is a ", class(v)[1], ", which has no form in a frame")
  if (is.logical(v) && anyNA(v)) {  # a byte is 0 or 1: a missing truth is a missing number
    v <- as.double(v)
    code <- 13L
  } else if (is.integer(v) && anyNA(v)) {
    v <- as.double(v)
    code <- 13L
  }
  if (whole) code <- 5L
  data <- if (whole) .u32(c(v, if (v < 0L) -1L else 0L)) else if (code == 14L) .encode_strings(v) else if (code == 1L) as.raw(as.vector(v))
    else writeBin(as.vector(v), raw(), endian = "little")
  label <- charToRaw(enc2utf8(name))
  c(.u32(length(label)), label, as.raw(c(code, length(dims), 0, 0)), raw((-(8L + length(label))) %% 8L),
    if (length(dims)) .u64(dims), .u64(length(data)), data, raw((-length(data)) %% 8L))
}

# Writes one frame of named values: vectors, matrices and arrays; `scalar(v)` for rank 0. Numbers are float64, codes int32.
write_frame <- function(con, type, tensors, id = raw(4L)) {
  parts <- lapply(names(tensors), function(n) .encode_tensor(n, tensors[[n]]))
  size <- 8 + sum(vapply(parts, length, 0L))
  if (size > .max_payload) return(FALSE)
  columns <- any(vapply(tensors, function(v) length(dim(v)) > 1L, NA))
  head <- c(charToRaw("MLB1"), as.raw(c(.types[[type]], columns, 0, 0)), .u32(size), id, .u32(length(parts)), raw(4L))
  writeBin(c(head, unlist(parts)), con)
  flush(con)
  TRUE
}
