# A model served elsewhere on the Open Inference Protocol, opened by mlb_load("grpc://host:port/model[@version]").

# RESOURCE_EXHAUSTED is refused before any work; gRPC itself repeats what never left, and nothing else is safe to repeat.
.retry <- paste0('{"methodConfig":[{"name":[{"service":"inference.GRPCInferenceService"},{"service":"mlbridge.v1.Bridge"}],',
  '"retryPolicy":{"maxAttempts":4,"initialBackoff":"0.02s","maxBackoff":"1s","backoffMultiplier":2,',
  '"retryableStatusCodes":["RESOURCE_EXHAUSTED"]}}]}')

.is_served <- function(source) grepl("^grpcs?://", source)

.place_of <- function(source) {
  form <- "^grpc(s?)://(\\[[0-9A-Fa-f:.]+\\]|[A-Za-z0-9_.-]+):([0-9]{1,5})/([^/@?#[:space:]]+)(@([0-9]{1,18}))?$"
  found <- regmatches(source, regexec(form, source))[[1]]
  if (!length(found) || as.integer(found[4]) > 65535L)
    mlb_stop("InputError", "a served model is written grpc://host:port/model or grpc://host:port/model@version",
      "tokens go into options = list(grpc = list(token = ...)) or the environment variable MLBRIDGE_TOKEN")
  list(secure = nzchar(found[2]), target = paste0(found[3], ":", found[4]), host = gsub("[][]", "", found[3]), model = found[5], version = found[7])
}

.client_options <- function(given) {
  known <- list(token = Sys.getenv("MLBRIDGE_TOKEN"), root_certificates = Sys.getenv("MLBRIDGE_ROOT_CERTIFICATES"), client_key = "",
    client_certificate = "", server_name = "", timeout_s = 60, connect_timeout_s = 10, max_message_mib = 16)
  odd <- setdiff(names(given), names(known))
  mlb_stop_if_any(if (length(odd)) paste0("there is no option ", sQuote(odd, FALSE), " of grpc"), paste("there are", paste(names(known), collapse = ", ")))
  odd <- names(given)[!mapply(function(value, usual) typeof(value) == typeof(usual) || (is.numeric(value) && is.numeric(usual)), given, known[names(given)])]
  mlb_stop_if_any(if (length(odd)) paste0("the option ", sQuote(odd, FALSE), " of grpc is not ", ifelse(vapply(known[odd], is.numeric, NA), "a number", "a text")))
  utils::modifyList(known, given)
}

.load_served <- function(source, options = list(), signature = NULL) {
  .need_grpc()
  place <- .place_of(source)
  options <- .client_options(as.list(options))
  if (nzchar(options$token) && !place$secure && !.is_local(place$host))
    mlb_stop("InputError", "a token would cross the network in the clear", "use grpcs://")
  tls <- if (place$secure) list(roots = .pem(options$root_certificates, "root_certificates"), key = .pem(options$client_key, "client_key"),
    certificate = .pem(options$client_certificate, "client_certificate"), server_name = options$server_name)
  connection <- .Call(C_mlb_connect, place$target, options$token, tls, .retry)
  device <- paste0("grpc://", place$target)
  told <- .told_signature(connection, place, device, options$connect_timeout_s)
  .new_model(place$model, told$signature, .served_session(connection, place, device, told, options))
}

# The signature from Describe, else from the metadata's properties, else made of plain metadata (Triton, MLServer, KServe).
.told_signature <- function(connection, place, device, timeout_s) {
  where <- paste0(device, "/", place$model)
  got <- .Call(C_mlb_describe, connection, place$model, place$version, timeout_s)
  if (!inherits(got, "mlbridge_refusal"))
    return(list(signature = .signature_of_json(got$signature), codes = TRUE, about = got[c("version", "route", "device")]))
  if (.statuses[got$code] != "UNIMPLEMENTED") .checked_call(got, where)
  told <- .checked_call(.Call(C_mlb_metadata, connection, place$model, place$version, timeout_s), where)
  about <- list(version = utils::tail(c("", told$versions), 1L), route = told$platform, device = device)
  if (nzchar(told$signature)) return(list(signature = .signature_of_json(told$signature), codes = TRUE, about = about))
  list(signature = .plain_signature(told), codes = FALSE, about = about)
}

# No columns, no promise about rows; missing values are the model's affair.
.plain_signature <- function(told) {
  specs <- function(tensors, takes) lapply(tensors, function(t) {
    dtype <- names(.oip)[match(t$datatype, .oip)]
    if (is.na(dtype)) mlb_stop("UnsupportedError", paste0("the served model's tensor ", sQuote(t$name, FALSE), " is ", t$datatype, ", which R cannot carry"))
    spec <- .spec(t$name, dtype, lapply(t$shape, function(d) if (d >= 0) d), missing = "allow")
    if (takes && dtype %in% c("float32", "float16")) spec$rounding <- "nearest"
    spec
  })
  .new_signature(specs(told$inputs, TRUE), specs(told$outputs, FALSE))
}

.served_session <- function(connection, place, device, told, options) {
  signature <- told$signature
  outputs <- stats::setNames(signature$outputs, vapply(signature$outputs, `[[`, "", "name"))
  call <- list(connection = connection, model = place$model, version = place$version, where = paste0(device, "/", place$model),
    plan = .plan(signature$inputs, vapply(signature$inputs, .own_datatype, "")), texts = which(vapply(signature$inputs, function(s) s$dtype == "string", NA)),
    outputs = outputs, codes = told$codes, all = .asking(outputs, told$codes))
  limit <- options$max_message_mib * 2^20
  usual_s <- options$timeout_s
  list(
    run = function(feeds, wanted, timeout_s) {
      if (is.null(timeout_s)) timeout_s <- usual_s
      small <- !length(call$texts) && 8 * sum(lengths(feeds, FALSE)) < 0.9 * limit
      parts <- if (!small) .parts_of(feeds, signature, limit)
      if (is.null(parts)) return(.infer(call, feeds, wanted, timeout_s))
      until <- proc.time()[["elapsed"]] + timeout_s
      answers <- lapply(parts, function(part) .infer(call, part, wanted, max(until - proc.time()[["elapsed"]], 0)))
      join <- function(n) do.call(if (is.null(dim(answers[[1]][[n]]))) c else rbind, lapply(answers, `[[`, n))
      stats::setNames(lapply(wanted, join), wanted)
    },
    close = function() .Call(C_mlb_disconnect, connection),
    describe = function() list(runtime = "grpc", device = device, route = paste0("served by ", told$about$route, ", version ", told$about$version),
      trust = "not asked: it runs where it is served", parity = "the served model itself"))
}

# What C++ asks for, and what must come back: labels as codes where the server knows them. Levels are named in the request;
# all outputs without any are not.
.asking <- function(outputs, codes, wanted = names(outputs)) {
  specs <- outputs[wanted]
  coded <- vapply(specs, function(s) codes && .is_categorical(s), NA)
  list(wanted = wanted, datatypes = vapply(specs, .own_datatype, ""), ranks = vapply(specs, function(s) length(s$shape), 0L), codes = coded,
    named = any(coded) || !identical(wanted, names(outputs)))
}

# Feeds in parts that fit a message, where rows are independent; NULL where they fit as they are.
.parts_of <- function(feeds, signature, limit) {
  bytes <- sum(vapply(feeds, function(f) if (is.character(f)) sum(nchar(f, "bytes") + 4, na.rm = TRUE) else 8 * length(f), 0))
  if (bytes < 0.9 * limit || !.batched(signature)) return(NULL)
  rows <- NROW(feeds[[1]])
  step <- max(1, floor(rows * 0.8 * limit / bytes))
  take <- function(f, at) {
    if (is.null(dim(f))) return(f[at])
    do.call(`[`, c(list(f, at), rep(list(TRUE), length(dim(f)) - 1L), list(drop = FALSE)))
  }
  lapply(seq(1, rows, step), function(from) lapply(feeds, take, seq(from, min(rows, from + step - 1))))
}

.infer <- function(call, feeds, wanted, timeout_s) {
  if (length(call$texts)) feeds[call$texts] <- lapply(feeds[call$texts], enc2utf8)
  asking <- if (identical(wanted, call$all$wanted)) call$all else .asking(call$outputs, call$codes, wanted)
  got <- .Call(C_mlb_infer, call$connection, call$model, call$version, call$plan, feeds, asking, timeout_s)
  if (is.object(got)) .checked_call(got, call$where) else got
}
