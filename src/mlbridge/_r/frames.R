# Frames over a connection, in base R: what proto/FRAMES.md says. Numbers are little-endian.
# A frame costs two reads and one write: R's calls are what a round trip is made of. A frame laid out like one that came
# before is not parsed again. Arrays leave column-major, as R holds them (flag bit 0).

.types <- c(HELLO = 1L, LOAD = 2L, RUN = 3L, RESULT = 4L, ERROR = 5L, CANCEL = 6L, CLOSE = 7L, PING = 8L, PONG = 9L)
.codes <- c(bool = 1L, int8 = 2L, int16 = 3L, int32 = 4L, int64 = 5L, uint8 = 6L, uint16 = 7L, uint32 = 8L, uint64 = 9L,
  float16 = 10L, bfloat16 = 11L, float32 = 12L, float64 = 13L, string = 14L)
.widths <- c(1, 1, 2, 4, 8, 1, 2, 4, 8, 2, 2, 4, 8)  # bytes of one element, by code; a string's vary
.magic <- readBin(charToRaw("MLB1"), "integer", endian = "little")
.missing_length <- as.raw(c(255L, 255L, 255L, 255L))
.max_payload <- 2^31 - 1
.max_elements <- 2^31
.whole_below <- 2^16  # bytes: a larger payload is read tensor by tensor, without a copy
.layouts <- new.env()  # of payloads that came, by their size: where what lies
.most_layouts <- 64L

.stop_as <- function(class, message) stop(structure(class = c(class, "error", "condition"), list(message = message, call = NULL)))
.gone <- function() .stop_as("mlbridge_gone", "the connection ended")
.malformed <- function(...) .stop_as("mlbridge_malformed", paste0("a malformed frame: ", ...))

# Where R's reading and writing is asked; the worker asks without what R's own functions look at first.
.read <- function(from, what, n) readBin(from, what, n, endian = "little")
.write <- function(v, to) writeBin(v, to, endian = "little")
.bytes <- function(v) writeBin(v, raw(), endian = "little")

.take <- function(con, n) {
  got <- .read(con, "raw", n)
  if (length(got) < n) .gone()
  got
}

# ---- reading

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
  at <- 0
  nul <- FALSE
  for (i in seq_len(count)) {
    if (at + 4 > length(raws)) .malformed("the data ends inside a string")
    head <- raws[at + 1:4]
    at <- at + 4
    if (identical(head, .missing_length)) {
      out[i] <- NA_character_
      next
    }
    size <- .unsigned(as.double(readBin(head, "integer", 1L, size = 4L, endian = "little")))
    if (at + size > length(raws)) .malformed("the data ends inside a string")
    if (size > 0) {
      text <- raws[at + seq_len(size)]
      if (any(text == 0L)) nul <- TRUE
      else out[i] <- rawToChar(text)
    }
    at <- at + size
  }
  if (at != length(raws)) .malformed("bytes follow the last string")
  if (!all(validUTF8(out))) .malformed("a text is not UTF-8")
  if (nul) stop("a text with a zero character has no form in R")
  Encoding(out) <- "UTF-8"
  out
}

# The elements of one tensor, from a connection or from its raw bytes. What R cannot hold is an error of its own.
.values <- function(from, code, count, bytes) {
  number <- function(what, size, signed = TRUE) {
    v <- readBin(from, what, count, size = size, signed = signed, endian = "little")
    if (length(v) < count) .gone()
    v
  }
  raws <- function() if (is.raw(from)) from else .take(from, bytes)
  if (code == 13L) return(number("double", 8L))
  switch(code,
    {
      v <- number("integer", 1L, FALSE)
      if (any(v > 1L)) .malformed("a bool is neither 0 nor 1")
      v != 0L
    },
    number("integer", 1L), number("integer", 2L), number("integer", 4L), .wide(raws()),
    number("integer", 1L, FALSE), number("integer", 2L, FALSE), .unsigned(as.double(number("integer", 4L))), .wide(raws(), FALSE),
    { raws(); stop("R has no number of 16 bits; send float32") },
    { raws(); stop("R has no number of 16 bits; send float32") },
    number("double", 4L), NULL, .strings(raws(), count))
}

.shaped <- function(value, dims, columns) {
  if (length(dims) < 2L || is.list(value)) return(value)  # a list is a condition
  if (columns || max(dims) == length(value)) dim(value) <- dims
  else if (length(dims) == 2L) value <- matrix(value, dims[1L], dims[2L], byrow = TRUE)
  else value <- aperm(array(value, rev(dims)))
  value
}

.held <- function(from, spec)
  tryCatch(.values(from, spec$code, spec$count, spec$bytes),
    error = function(e) if (inherits(e, c("mlbridge_gone", "mlbridge_malformed"))) stop(e) else e)

# Walks over the heads of a payload's tensors: `take(n)` gives the next n bytes, `data(spec)` consumes a tensor's elements.
.walk <- function(size, take, data) {
  at <- 0
  bytes <- function(n) {
    if (at + n > size) .malformed("it ends inside a tensor")
    at <<- at + n
    take(n)
  }
  numbers <- function(n) .unsigned(as.double(readBin(bytes(4 * n), "integer", n, size = 4L, endian = "little")))
  sizes <- function(n) {
    halves <- matrix(numbers(2 * n), 2L)
    if (any(halves[2L, ] != 0)) .malformed("a size is too large")
    halves[1L, ]
  }
  padding <- function() if (at %% 8 && any(bytes(8 - at %% 8) != 0L)) .malformed("padding is not zero")
  start <- numbers(2)
  if (start[2] != 0 || start[1] > 65536) .malformed("its count of tensors")
  specs <- list()
  for (i in seq_len(start[1])) {
    n <- numbers(1)
    if (n < 1 || n > 65536) .malformed("the length of a name")
    name <- bytes(n)
    name <- if (any(name == 0L)) .malformed("a name with a zero character") else rawToChar(name)
    if (!validUTF8(name)) .malformed("a name is not UTF-8")
    Encoding(name) <- "UTF-8"
    kind <- as.integer(bytes(4))
    if (any(kind[3:4] != 0L) || kind[2] > 32L) .malformed("a tensor's rank or reserved bits")
    if (!kind[1] %in% .codes) .malformed("a dtype is unknown")
    padding()
    dims <- sizes(kind[2])
    spec <- list(name = name, code = kind[1], dims = dims, count = prod(dims), bytes = sizes(1))
    if (prod(pmax(dims, 1)) > .max_elements) .malformed("a shape is too large")
    if (if (kind[1] == 14L) spec$bytes < 4 * spec$count else spec$bytes != spec$count * .widths[kind[1]]) .malformed("a shape does not fit its data")
    if (at + spec$bytes > size) .malformed("it ends inside a tensor")
    if (name %in% names(specs)) .malformed("two tensors share a name")
    at <- at + spec$bytes
    data(spec)
    padding()
    specs[[name]] <- spec
  }
  if (at != size) .malformed("bytes follow the last tensor")
  specs
}

.learn <- function(payload) {
  raws <- .bytes(payload)
  at <- 0
  places <- list()
  specs <- .walk(length(raws),
    function(n) {
      at <<- at + n
      raws[at - n + seq_len(n)]
    },
    function(spec) {
      n <- ceiling(spec$bytes / 8)
      places[[spec$name]] <<- at / 8 + seq_len(n)
      at <<- at + spec$bytes
    })
  fixed <- setdiff(seq_along(payload), unlist(places))
  list(specs = specs, places = places, fixed = fixed, marks = payload[fixed])
}

# All parts of a frame are multiples of 8 bytes: a payload read as doubles needs no further reading where it holds doubles.
.whole <- function(payload, size, columns) {
  key <- as.character(size)
  known <- .layouts[[key]]
  if (is.null(known) || !identical(payload[known$fixed], known$marks, FALSE, FALSE)) {
    known <- .learn(payload)
    if (length(.layouts) >= .most_layouts) rm(list = ls(.layouts), envir = .layouts)
    assign(key, known, .layouts)
  }
  tensors <- known$places
  for (i in seq_along(tensors)) {
    spec <- known$specs[[i]]
    value <- payload[tensors[[i]]]
    if (spec$code != 13L) {
      raws <- .bytes(value)
      data <- seq_len(spec$bytes)
      if (length(raws) > spec$bytes && any(raws[-data] != 0L)) .malformed("padding is not zero")
      value <- .held(raws[data], spec)
    }
    if (length(spec$dims) > 1L) {
      if (columns && !is.list(value)) dim(value) <- spec$dims else value <- .shaped(value, spec$dims, columns)
    }
    tensors[[i]] <- value
  }
  .last$one <- .one_of(known, columns)
  list(tensors = tensors, specs = known$specs)
}

# Of a payload that is one tensor of numbers as R holds them: what stands before the numbers. The next one is likely alike.
.one_of <- function(known, columns) {
  if (length(known$specs) != 1L) return(NULL)
  spec <- known$specs[[1L]]
  deep <- length(spec$dims) > 1L
  if (spec$code != 13L || spec$count == 0 || (deep && !columns && max(spec$dims) != spec$count)) return(NULL)
  mark <- .bytes(known$marks)
  list(mark = mark, bytes = length(mark), count = spec$count, dims = if (deep) spec$dims, specs = known$specs,
    tensors = stats::setNames(list(NULL), spec$name))
}

.read_pieces <- function(con, size, columns) {
  tensors <- list()
  specs <- .walk(size, function(n) .take(con, n), function(spec) tensors[[spec$name]] <<- .shaped(.held(con, spec), spec$dims, columns))
  list(tensors = tensors, specs = specs)
}

# The header of the last frame without its id, and its layout where it was `.one_of`: the next one is likely alike.
.last <- list2env(list(start = NULL, one = NULL))

.header <- function(start) {
  numbers <- readBin(start, "integer", 3L, endian = "little")
  kind <- numbers[2L]
  if (!identical(numbers[1L], .magic)) .malformed("it does not start with MLB1")
  if (is.na(kind) || !(kind %% 256L) %in% .types || !(kind %/% 256L) %in% 0:1) .malformed("its type, flags or reserved bits")
  if (is.na(numbers[3L]) || numbers[3L] < 8L || numbers[3L] %% 8L) .malformed("its length")
  .last$type <- names(.types)[kind %% 256L]
  .last$columns <- kind >= 256L
  .last$size <- numbers[3L]
  .last$one <- NULL
  .last$start <- start
}

# Reads one frame: type, id, the tensors' values by name (one that R cannot hold is a condition) and what the frame said of
# each (code, dims). Of PING the payload, unread.
read_frame <- function(con) {
  head <- .read(con, "raw", 16L)
  if (length(head) < 16L) .gone()
  start <- head[1:12]
  last <- .last
  if (!identical(start, last$start)) .header(start)
  else if (!is.null(one <- last$one)) {
    mark <- .read(con, "raw", one$bytes)
    if (!identical(mark, one$mark)) return(.read_rest(con, head, mark))
    value <- .read(con, "double", one$count)
    if (length(value) < one$count) .gone()
    if (!is.null(one$dims)) dim(value) <- one$dims
    tensors <- one$tensors
    tensors[[1L]] <- value
    return(list(type = last$type, id = head[13:16], tensors = tensors, specs = one$specs))
  }
  size <- last$size
  if (last$type == "PING") return(list(type = "PING", head = head, payload = .take(con, size)))
  if (size >= .whole_below) got <- .read_pieces(con, size, last$columns)
  else {
    payload <- .read(con, "double", size / 8)
    if (length(payload) < size / 8) .gone()
    got <- .whole(payload, size, last$columns)
  }
  list(type = last$type, id = head[13:16], tensors = got$tensors, specs = got$specs)
}

# A frame that is as long as the last and not alike.
.read_rest <- function(con, head, begun) {
  last <- .last
  last$one <- NULL
  payload <- .read(c(begun, .take(con, last$size - length(begun))), "double", last$size / 8)
  got <- .whole(payload, last$size, last$columns)
  list(type = last$type, id = head[13:16], tensors = got$tensors, specs = got$specs)
}

# ---- writing

# A value of rank 0, or of a dtype that R has no type for: `scalar("r")`, `scalar(3L)` (int64), `typed(x, "float32")`.
scalar <- function(v, dtype = if (is.integer(v)) "int64") structure(list(v, dtype, TRUE), class = "mlbridge_value")
typed <- function(v, dtype) structure(list(v, dtype, FALSE), class = "mlbridge_value")

# A plain value as a frame can hold it: a missing truth or whole number is a missing number.
frame_value <- function(name, v) {
  if (is.double(v) || is.character(v)) return(v)
  if (is.integer(v) || is.logical(v)) {
    if (anyNA(v)) storage.mode(v) <- "double"
    return(v)
  }
  stop("output ", name, " is a ", class(v)[1], ", which has no form in a frame")
}

.integers <- function(v) writeBin(as.integer(v), raw(), endian = "little")

.encode_strings <- function(v) {
  v <- enc2utf8(as.vector(v))
  parts <- vector("list", length(v))
  for (i in seq_along(v)) {
    if (is.na(v[i])) parts[[i]] <- .missing_length
    else {
      bytes <- charToRaw(v[i])
      parts[[i]] <- c(.integers(length(bytes)), bytes)
    }
  }
  as.raw(unlist(parts))
}

.bits <- function(v) {  # unsigned 32-bit numbers as the integers of the same bits
  v <- v - 2^32 * (v >= 2^31)
  out <- rep(NA_integer_, length(v))  # NA has the bits of -2**31
  out[v > -2^31] <- as.integer(v[v > -2^31])
  out
}

.encode_wide <- function(v) {
  high <- floor(v / 2^32)
  .integers(rbind(.bits(v - 2^32 * high), .bits(high %% 2^32)))
}

.encode_values <- function(v, code) switch(code,
  as.raw(v), writeBin(as.integer(v), raw(), size = 1L), writeBin(as.integer(v), raw(), size = 2L, endian = "little"),
  .integers(v), .encode_wide(v), as.raw(v), writeBin(as.integer(v), raw(), size = 2L, endian = "little"), .integers(.bits(v)),
  .encode_wide(v), stop("R has no number of 16 bits"), stop("R has no number of 16 bits"),
  writeBin(as.double(v), raw(), size = 4L, endian = "little"), writeBin(as.double(v), raw(), endian = "little"), .encode_strings(v))

.heads <- new.env()  # by name: the head of the last tensor called so

# The head and the padding of a tensor whose data takes so many bytes.
.head_of <- function(name, code, dims, bytes) {
  known <- .heads[[name]]
  if (!is.null(known) && known$code == code && identical(known$dims, dims) && known$size == bytes) return(known)
  label <- charToRaw(enc2utf8(name))
  head <- c(.integers(length(label)), label, as.raw(c(code, length(dims), 0L, 0L)), raw((-(8L + length(label))) %% 8L),
    .integers(rbind(c(dims, bytes), 0L)))
  known <- list(code = code, dims = dims, size = bytes, bytes = head, padding = raw(-bytes %% 8L))
  assign(name, known, .heads)
  known
}

.encode_tensor <- function(name, v) {
  code <- NULL
  dims <- dim(v)
  if (inherits(v, "mlbridge_value")) {
    if (!is.null(v[[2L]])) code <- .codes[[v[[2L]]]]
    dims <- if (v[[3L]]) integer() else dim(v[[1L]])
    v <- v[[1L]]
  }
  if (is.null(dims)) dims <- length(v)
  if (is.null(code)) {
    v <- frame_value(name, v)
    code <- if (is.double(v)) 13L else if (is.integer(v)) 4L else if (is.character(v)) 14L else 1L
  }
  data <- if (code == 13L && is.double(v)) .bytes(as.vector(v)) else .encode_values(as.vector(v), code)
  head <- .head_of(name, code, dims, length(data))
  c(head$bytes, data, head$padding)
}

# Writes one frame of named values: vectors, matrices, arrays, scalar(), typed(). FALSE where it would not fit a frame.
write_frame <- function(con, type, tensors, id = raw(4L)) {
  labels <- names(tensors)
  if (length(tensors) == 1L && is.double(v <- tensors[[1L]]) && is.null(attributes(v)) && length(v) < .whole_below)
    return(.write_one(con, type, labels, v, id))
  parts <- vector("list", length(tensors))
  columns <- 0L
  for (i in seq_along(parts)) {
    v <- tensors[[i]]
    if (length(dim(if (inherits(v, "mlbridge_value")) v[[1L]] else v)) > 1L) columns <- 256L
    parts[[i]] <- .encode_tensor(labels[i], v)
  }
  size <- 8 + sum(lengths(parts))
  if (size > .max_payload) return(FALSE)
  start <- .start_of(.types[[type]] + columns, size, length(parts))
  .write(if (length(parts) == 1L) c(start[1:12], id, start[13:20], parts[[1L]]) else c(start[1:12], id, start[13:20], unlist(parts)), con)
  TRUE
}

.sent <- list2env(list(label = "", type = "", n = 0L))  # what the last frame of one vector of numbers had around its id and its numbers

.write_one <- function(con, type, label, v, id) {
  sent <- .sent
  if (sent$label != label || sent$type != type || sent$n != length(v)) {
    n <- 8 * length(v)
    head <- .head_of(label, 13L, length(v), n)$bytes
    start <- .start_of(.types[[type]], 8 + length(head) + n, 1L)
    list2env(list(label = label, type = type, n = length(v), before = start[1:12], behind = c(start[13:20], head)), sent)
  }
  .write(c(sent$before, id, sent$behind, .bytes(v)), con)
  TRUE
}

.starts <- list2env(list(key = NULL))

.start_of <- function(kind, size, count) {  # the header without its id, and the payload's count
  key <- c(kind, size, count)
  if (!identical(key, .starts$key)) {
    .starts$bytes <- .integers(c(.magic, key, 0L))
    .starts$key <- key
  }
  .starts$bytes
}
