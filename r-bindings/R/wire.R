# The Open Inference Protocol as a signature sees it: datatypes, what levels look like on the wire, statuses as conditions.
# Messages themselves are made and read in C++ (src/).

.oip <- c(bool = "BOOL", int8 = "INT8", int16 = "INT16", int32 = "INT32", int64 = "INT64", uint8 = "UINT8", uint16 = "UINT16",
  uint32 = "UINT32", uint64 = "UINT64", float16 = "FP16", float32 = "FP32", float64 = "FP64", string = "BYTES")

# Least and largest value of the integer types; beyond 2^53 text is compared by C++.
.integer_range <- list(int8 = c(-128, 127), int16 = c(-32768, 32767), int32 = c(-2^31, 2^31 - 1), int64 = c(-2^63, 2^63),
  uint8 = c(0, 255), uint16 = c(0, 65535), uint32 = c(0, 2^32 - 1), uint64 = c(0, 2^64))

.statuses <- c("CANCELLED", "UNKNOWN", "INVALID_ARGUMENT", "DEADLINE_EXCEEDED", "NOT_FOUND", "ALREADY_EXISTS", "PERMISSION_DENIED",
  "RESOURCE_EXHAUSTED", "FAILED_PRECONDITION", "ABORTED", "OUT_OF_RANGE", "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE", "DATA_LOSS",
  "UNAUTHENTICATED")

# The class of a status that came without one.
.class_of_status <- c(CANCELLED = "CancelledError", INVALID_ARGUMENT = "InputError", DEADLINE_EXCEEDED = "BridgeTimeoutError",
  NOT_FOUND = "NotFoundError", PERMISSION_DENIED = "AccessError", RESOURCE_EXHAUSTED = "OverloadedError",
  UNIMPLEMENTED = "UnsupportedError", UNAVAILABLE = "BridgeError", UNAUTHENTICATED = "AccessError")

# Raises a failed call as its condition; returns what did not fail.
.checked_call <- function(got, where) {
  if (!inherits(got, "mlbridge_refusal")) return(got)
  status <- .statuses[got$code]
  # a server's word for a damaged or untrusted file is about its own files, not the caller's
  named <- got$kind %in% setdiff(names(.status_codes), c("ArtifactError", "UntrustedArtifactError"))
  class <- if (named) got$kind else if (status %in% names(.class_of_status)) .class_of_status[[status]] else "InferenceError"
  text <- if (nzchar(got$message)) got$message else status
  mlb_stop(class, paste0(where, ": ", text), code = status)
}

.is_categorical <- function(spec) length(spec$columns) > 0L && !is.null(spec$columns[[1]]$categories)

# Levels as the wire writes them: decimal numbers, true and false.
.wire_levels <- function(column) {
  texts <- .level_texts(column)
  if (is.logical(.levels_of(column))) tolower(texts) else texts
}

# The datatype in which an input's values need no translation: codes for levels.
.own_datatype <- function(spec) if (.is_categorical(spec)) "INT32" else .oip[[spec$dtype]]

# How a tensor looks to clients: levels as BYTES in a block, by their own type in a single column.
.wire_datatype <- function(spec) {
  if (!.is_categorical(spec)) return(.oip[[spec$dtype]])
  levels <- .levels_of(spec$columns[[1]])
  if (length(spec$shape) > 1L || is.character(levels)) "BYTES" else if (is.logical(levels)) "BOOL" else "INT64"
}

.wire_shape <- function(spec) vapply(spec$shape, function(d) if (is.numeric(d)) as.double(d) else -1, 0)

# Parallel vectors that tell C++ how values become tensors; their order is what it reads.
.plan <- function(specs, datatypes) {
  list(name = enc2utf8(vapply(specs, `[[`, "", "name")), datatype = datatypes, rank = vapply(specs, function(s) length(s$shape), 0L),
    rounds = vapply(specs, function(s) identical(s$rounding, "nearest"), NA))
}

.split_address <- function(address) {
  parts <- regmatches(address, regexec("^(\\[[0-9A-Fa-f:.]+\\]|[^:/@?#[:space:]]+):([0-9]{1,5})$", address))[[1]]
  if (length(parts) != 3L || as.integer(parts[3]) > 65535L)
    mlb_stop("InputError", paste0("address ", sQuote(address, FALSE), ": expected host:port"), "127.0.0.1:8001; port 0 takes any free one")
  list(host = gsub("[][]", "", parts[2]), port = as.integer(parts[3]))
}

.is_local <- function(host) host %in% c("localhost", "::1") || grepl("^127\\.[0-9.]+$", host)

.pem <- function(path, what) {
  if (is.null(path) || !nzchar(path)) return("")
  if (!file.exists(path)) mlb_stop("InputError", paste0(what, ": there is no file ", path))
  paste(readLines(path, warn = FALSE), collapse = "\n")
}
