# Frames over a connection, in base R: what proto/FRAMES.md says. Numbers are little-endian.
# R's calls are what a round trip is made of: the header and the count are read at once, a frame laid out like one that came
# before is not parsed again, and what is written waits in the connection until it is flushed. Arrays leave column-major,
# as R holds them (flag bit 0).

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
.flush <- function(con) flush(con)

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

# Walks over the heads of so many tensors: `take(n)` gives the next n bytes, `data(spec)` consumes a tensor's elements.
.walk <- function(count, size, take, data) {
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
  specs <- list()
  for (i in seq_len(count)) {
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

.learn <- function(count, payload) {
  raws <- .bytes(payload)
  at <- 0
  places <- list()
  specs <- .walk(count, length(raws),
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

# All parts of a frame are multiples of 8 bytes: tensors read as doubles need no further reading where they hold doubles.
.whole <- function(body) {
  last <- .last
  key <- paste(last$count, length(body))
  known <- .layouts[[key]]
  if (is.null(known) || !identical(body[known$fixed], known$marks, FALSE, FALSE)) {
    known <- .learn(last$count, body)
    if (length(.layouts) >= .most_layouts) rm(list = ls(.layouts), envir = .layouts)
    assign(key, known, .layouts)
  }
  tensors <- known$places
  for (i in seq_along(tensors)) {
    spec <- known$specs[[i]]
    value <- body[tensors[[i]]]
    if (spec$code != 13L) {
      raws <- .bytes(value)
      data <- seq_len(spec$bytes)
      if (length(raws) > spec$bytes && any(raws[-data] != 0L)) .malformed("padding is not zero")
      value <- .held(raws[data], spec)
    }
    if (length(spec$dims) > 1L) {
      if (last$columns && !is.list(value)) dim(value) <- spec$dims else value <- .shaped(value, spec$dims, last$columns)
    }
    tensors[[i]] <- value
  }
  last$one <- .one_of(known, last$columns)
  list(tensors = tensors, specs = known$specs)
}

# Of a frame that is one tensor of numbers as R holds them: what stands before the numbers. The next one is likely alike.
.one_of <- function(known, columns) {
  if (length(known$specs) != 1L) return(NULL)
  spec <- known$specs[[1L]]
  deep <- length(spec$dims) > 1L
  if (spec$code != 13L || spec$count == 0 || (deep && !columns && max(spec$dims) != spec$count)) return(NULL)
  mark <- .read(.bytes(known$marks), "integer", 2L * length(known$marks))
  list(mark = mark, length = length(mark), count = spec$count, dims = if (deep) spec$dims, specs = known$specs,
    tensors = stats::setNames(list(NULL), spec$name))
}

.read_pieces <- function(con) {
  columns <- .last$columns
  tensors <- list()
  specs <- .walk(.last$count, .last$size, function(n) .take(con, n),
    function(spec) tensors[[spec$name]] <<- .shaped(.held(con, spec), spec$dims, columns))
  list(tensors = tensors, specs = specs)
}

# What the last frame began with, its id as 0; and what of its tensor if it was `.one_of`. The next frame is likely alike.
.last <- list2env(list(start = NULL, one = NULL))

.header <- function(start) {
  kind <- start[2L]
  if (!identical(start[1L], .magic)) .malformed("it does not start with MLB1")
  if (is.na(kind) || !(kind %% 256L) %in% .types || !(kind %/% 256L) %in% 0:1) .malformed("its type, flags or reserved bits")
  if (is.na(start[3L]) || start[3L] < 8L || start[3L] %% 8L) .malformed("its length")
  if (!identical(start[6L], 0L) || !start[5L] %in% 0:65536) .malformed("its count of tensors")
  .last$type <- names(.types)[kind %% 256L]
  .last$columns <- kind >= 256L
  .last$size <- start[3L] - 8L  # without the count
  .last$count <- start[5L]
  .last$one <- NULL
  .last$start <- start
}

# Reads one frame: type, id, the tensors' values by name (one that R cannot hold is a condition) and what the frame said of
# each (code, dims). Of PING the rest, unread.
read_frame <- function(con) {
  start <- .read(con, "integer", 6L)  # the header and the count: no frame is shorter
  if (length(start) < 6L) .gone()
  id <- start[4L]
  start[4L] <- 0L
  last <- .last
  if (!identical(start, last$start)) .header(start)
  else if (!is.null(one <- last$one)) {
    mark <- .read(con, "integer", one$length)
    if (!identical(mark, one$mark)) return(.read_rest(con, id, mark))
    value <- .read(con, "double", one$count)
    if (length(value) < one$count) .gone()
    if (!is.null(one$dims)) dim(value) <- one$dims
    tensors <- one$tensors
    tensors[[1L]] <- value
    return(list(type = last$type, id = id, tensors = tensors, specs = one$specs))
  }
  if (last$type == "PING") return(list(type = "PING", id = id, start = start, rest = .take(con, last$size)))
  if (last$size >= .whole_below) got <- .read_pieces(con)
  else {
    body <- .read(con, "double", last$size / 8)
    if (length(body) < last$size / 8) .gone()
    got <- .whole(body)
  }
  list(type = last$type, id = id, tensors = got$tensors, specs = got$specs)
}

# A frame that begins like the last and whose tensor is another.
.read_rest <- function(con, id, mark) {
  size <- .last$size
  .last$one <- NULL
  got <- .whole(.read(c(.bytes(mark), .take(con, size - 4L * length(mark))), "double", size / 8))
  list(type = .last$type, id = id, tensors = got$tensors, specs = got$specs)
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

.start <- function(type, columns, size, id, count) c(.magic, .types[[type]] + 256L * columns, as.integer(size), id, count, 0L)

# Writes one frame of named values: vectors, matrices, arrays, scalar(), typed(). FALSE where it would not fit a frame.
write_frame <- function(con, type, tensors, id = 0L) {
  labels <- names(tensors)
  if (length(tensors) == 1L && is.double(v <- tensors[[1L]]) && is.null(attributes(v)) && length(v) < .max_payload / 16)
    return(.write_one(con, type, labels, v, id))
  parts <- vector("list", length(tensors))
  columns <- FALSE
  for (i in seq_along(parts)) {
    v <- tensors[[i]]
    if (length(dim(if (inherits(v, "mlbridge_value")) v[[1L]] else v)) > 1L) columns <- TRUE
    parts[[i]] <- .encode_tensor(labels[i], v)
  }
  size <- 8 + sum(lengths(parts))
  if (size > .max_payload) return(FALSE)
  .write(.start(type, columns, size, id, length(parts)), con)
  for (part in parts) .write(part, con)
  .flush(con)
  TRUE
}

.sent <- list2env(list(label = "", type = "", n = 0L))  # of the last frame that was one vector of numbers: what stood before them

.write_one <- function(con, type, label, v, id) {
  sent <- .sent
  if (sent$label != label || sent$type != type || sent$n != length(v)) {
    head <- .head_of(label, 13L, length(v), 8 * length(v))$bytes
    sent$start <- .start(type, FALSE, 8 + length(head) + 8 * length(v), 0L, 1L)
    sent$head <- head
    sent$label <- label
    sent$type <- type
    sent$n <- length(v)
  }
  start <- sent$start
  start[4L] <- id
  .write(start, con)
  .write(sent$head, con)
  .write(v, con)
  .flush(con)
  TRUE
}
