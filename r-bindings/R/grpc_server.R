# R models hosted on the Open Inference Protocol v2. gRPC's threads (src/service.cpp) only queue: one request after another
# is evaluated here, on R's main thread.

#' Serve models to other languages
#'
#' Serves models on the Open Inference Protocol v2 over gRPC: Python's `mlbridge.load("grpc://...")`, [mlb_load()], the JVM
#' and stock clients such as Triton's reach them. Blocks until it is interrupted or gets SIGTERM; then it drains: health
#' says NOT_SERVING, what was accepted is finished, and it returns.
#'
#' @param models A named list. Each is a fitted model, a model of [mlb_load()] or [mlb_wrap()], a path or URI, or a list of
#'   those named by version (digits; the highest is the default).
#' @param address `host:port`; port 0 takes a free one. An address that other machines reach needs `tls` and `token`.
#' @param token What callers show as `authorization: Bearer ...`; at least 8 characters.
#' @param tls `list(key = , certificate = , client_authority = )`: paths of PEM files; the last asks for clients' certificates.
#' @param insecure Listen beyond this machine without TLS and token.
#' @param trust For paths, as in [mlb_load()].
#' @param workers How many R processes answer, each with its own copy of the models. See the details.
#' @param max_queue Requests that may wait; more are refused as RESOURCE_EXHAUSTED.
#' @param max_message_mib Size of a request, in MiB.
#' @param always_raw Answer raw also where the request was typed.
#' @param grace_s Seconds that accepted requests have when it stops.
#' @param ready A function called with the address once requests are answered.
#' @return Whether everything accepted was answered, invisibly.
#' @details
#' R evaluates one request at a time. With `workers = n` this process starts n R processes that listen on the same port,
#' restarts those that die, and passes the end on; the system shares connections among them, not single calls, so clients
#' should hold several connections. The models must then survive [saveRDS()].
#'
#' A request whose caller gave up is not run, or is interrupted if it runs. A request with an unknown level, a wrong shape
#' or a missing value that the model does not take is refused by name before the model sees it. What goes wrong inside a
#' model is logged to standard error under a correlation id, which is all that the caller gets.
#' @examples
#' \dontrun{
#' fit <- glm(am ~ wt + factor(cyl), binomial, mtcars)
#' mlb_serve(list(gearbox = fit), "127.0.0.1:8001")
#' }
#' @export
mlb_serve <- function(models, address = "127.0.0.1:8001", token = NULL, tls = NULL, insecure = FALSE, trust = "data", workers = 1L,
                      max_queue = 128L, max_message_mib = 16L, always_raw = FALSE, grace_s = 30, ready = NULL) {
  .need_grpc()
  where <- .checked_address(address, token, tls, insecure)
  settings <- list(address = address, token = if (is.null(token)) "" else token, tls = .server_keys(tls), share_port = FALSE,
    max_queue = as.integer(max_queue), max_message_mib = as.integer(max_message_mib), software = as.character(utils::packageVersion("mlbridge")))
  if (workers > 1L) return(.serve_workers(models, where, settings, list(trust = trust, always_raw = always_raw, grace_s = grace_s), workers, ready))
  hosted <- .hosted_models(models, trust, always_raw)
  .serve_here(hosted, where, settings, grace_s, ready)
}

.checked_address <- function(address, token, tls, insecure) {
  where <- .split_address(address)
  if (!is.null(token) && (nchar(token) < 8L || !grepl("^[\\x21-\\x7e]+$", token, perl = TRUE)))
    mlb_stop("InputError", "a token needs at least 8 printable ASCII characters")
  known <- !is.null(token) || !is.null(tls$client_authority)
  if (!insecure && !.is_local(where$host) && (is.null(tls) || !known))
    mlb_stop("InputError", paste(address, "can be reached from other machines: that needs TLS and a token, or TLS and client certificates"),
      "pass tls = and token =, listen on 127.0.0.1, or say insecure = TRUE")
  where
}

.server_keys <- function(tls) {
  if (is.null(tls)) return(NULL)
  if (!all(c("key", "certificate") %in% names(tls))) mlb_stop("InputError", "tls is list(key = , certificate = ) or also client_authority: paths of PEM files")
  list(key = .pem(tls$key, "tls key"), certificate = .pem(tls$certificate, "tls certificate"), client_authority = .pem(tls$client_authority, "tls client_authority"))
}

# -------------------------------------------------- models

# Every version of every model, as `.hosted` makes them; names are model@version.
.hosted_models <- function(models, trust, always_raw) {
  if (!is.list(models) || is.null(names(models)) || any(!nzchar(names(models))) || anyDuplicated(names(models)))
    mlb_stop("InputError", "models must be a list with one name a model")
  held <- list()
  for (name in names(models)) {
    versions <- .versions_of(models[[name]])
    for (version in names(versions)) held[[paste0(name, "@", version)]] <- .hosted(name, version, .as_model(versions[[version]], name, trust), always_raw)
  }
  held
}

.versions_of <- function(model) {
  plain <- is.list(model) && !is.object(model) && length(model) && !is.null(names(model)) && all(grepl("^[0-9]{1,18}$", names(model)))
  if (plain) model[order(as.numeric(names(model)))] else list("1" = model)
}

.as_model <- function(model, name, trust) {
  if (inherits(model, "mlb_model")) return(model)
  if (is.character(model) && length(model) == 1L) return(mlb_load(model, trust = trust))
  mlb_wrap(model, name = name)
}

# What C++ tells of a model without asking R.
.told_models <- function(hosted) lapply(hosted, function(held) {
  versions <- vapply(Filter(function(h) h$name == held$name, hosted), `[[`, "", "version", USE.NAMES = FALSE)
  about <- held$model$session$describe()
  list(name = held$name, version = held$version, versions = versions, platform = paste0("mlbridge_", about$runtime),
    inputs = unname(lapply(held$inputs, .told_input)), outputs = unname(lapply(held$outputs, .told_output)), batched = held$batched,
    always_raw = held$always_raw, signature = as.character(.signature_json(held$signature)), route = about$runtime, why = about$route,
    device = if (about$runtime == "r") "r" else about$device, is_default = held$version == utils::tail(versions, 1L))
})

.told_tensor <- function(spec) list(name = spec$name, datatype = .wire_datatype(spec), shape = .wire_shape(spec), allow = identical(spec$missing, "allow"))

# `own` and `tops`: the datatype of a usual request, and the greatest code of each column.
.told_input <- function(spec) c(.told_tensor(spec), list(own = .own_datatype(spec), by_rows = length(spec$shape) > 0L && identical(spec$shape[[1]], "rows"),
  tops = if (.is_categorical(spec)) vapply(spec$columns, .top_code, 0L) else integer()))

.told_output <- function(spec) c(.told_tensor(spec), list(text = spec$dtype == "string" && !.is_categorical(spec), categorical = .is_categorical(spec),
  levels = if (.is_label(spec) && is.character(.levels_of(spec$columns[[1]]))) enc2utf8(.wire_levels(spec$columns[[1]])) else character()))

# -------------------------------------------------- the loop

.serve_here <- function(hosted, where, settings, grace_s, ready, idle = function() TRUE) {
  host <- .Call(C_mlb_listen, unname(.told_models(hosted)), settings)
  if (is.null(host)) mlb_stop("UnavailableError", paste("cannot listen on", settings$address), "is another server using the port?")
  on.exit(.Call(C_mlb_close, host))
  at <- paste0(sub(":[0-9]+$", ":", settings$address), .Call(C_mlb_port, host))
  room <- list2env(list(host = host, hosted = hosted, held = NULL, inside = FALSE))
  suspendInterrupts({
    if (is.null(ready)) message("serving ", paste(unique(vapply(hosted, `[[`, "", "name")), collapse = ", "), " on ", at) else ready(at)
    .handled(room, function() .answer_requests(room, 1000L, idle))
    drained <- .drain(room, grace_s)
  })
  invisible(drained)
}

# NOT_SERVING first, then no new work, then the end of what was accepted. A second interrupt ends it at once.
.drain <- function(room, grace_s) {
  .Call(C_mlb_drain, room$host)
  until <- proc.time()[["elapsed"]] + grace_s
  end <- .handled(room, function() .answer_requests(room, 0L, function() FALSE, until))
  if (end %in% c("interrupt", "late")) return(FALSE)
  Sys.sleep(0.2)  # late callers read UNAVAILABLE and not a torn stream
  TRUE
}

# Answers requests until something else comes, and says what: "interrupt", "stop", "nothing" once nothing is to be waited
# for, "late".
.answer_requests <- function(room, patience_ms, wait, until = Inf) repeat {
  got <- allowInterrupts(.Call(C_mlb_take, room$host, patience_ms))
  if (is.character(got)) {
    if (got != "nothing" || !wait()) return(got)
  } else if (is.finite(until) && proc.time()[["elapsed"]] > until) return("late")
  else .answer_request(room, got)
}

# Runs the loop again after each error, which is the answer to the request at hand. The handlers stand around the loop:
# setting them up for each request costs as much as a small model.
.handled <- function(room, work) repeat {
  end <- tryCatch(
    withCallingHandlers(work(), warning = function(w) if (!is.null(room$held)) {
      .server_log(room$held, "warning", conditionMessage(w))
      tryInvokeRestart("muffleWarning")
    }),
    interrupt = function(e) {
      ours <- is.null(room$held) || !isTRUE(.Call(C_mlb_refuse, room$host, 14L, "the server is shutting down", "UnavailableError", ""))
      if (ours) "interrupt"  # no caller caused it
    },
    error = function(e) .refuse(room, e))
  room$held <- NULL
  if (!is.null(end)) return(end)
}

.answer_request <- function(room, request) {
  room$inside <- FALSE
  room$held <- held <- room$hosted[[request$place]]
  if (is.null(request$feeds)) .answer_unusual(room, held)
  else {
    room$inside <- TRUE
    outputs <- .evaluated(held, request)
    if (!.Call(C_mlb_answer_usual, room$host, outputs)) {
      given <- .Call(C_mlb_request, room$host)
      .answer_outputs(room$host, held, outputs, .asked(held, given$outputs, given$encoding), given$typed)
    }
  }
  room$held <- NULL
}

.answer_unusual <- function(room, held) {
  given <- .Call(C_mlb_request, room$host)
  asked <- .decode(held, given)
  .Call(C_mlb_mark, room$host, "decoded")
  room$inside <- TRUE
  outputs <- .evaluated(held, asked)
  .Call(C_mlb_mark, room$host, "evaluated")
  .answer_outputs(room$host, held, outputs, asked, given$typed)
}

# The only place where interrupts are heard: Ctrl-C, or a caller who gave up.
.evaluated <- function(held, asked) allowInterrupts(held$ask(asked$feeds, asked$wanted))

# Says what is wrong with an answer, or sends it.
.answer_outputs <- function(host, held, outputs, asked, typed) {
  absent <- asked$wanted[!asked$wanted %in% names(outputs)]
  if (length(absent)) stop("it gives no output ", paste(absent, collapse = ", "))
  for (name in held$labels) if (name %in% asked$wanted && any(outputs[[name]] < 0L))
    stop("output ", name, ": a code outside its levels, and the signature says none is missing")
  made <- .encode(held, outputs, asked, typed)
  wrong <- .Call(C_mlb_answer, host, made$plan, made$values, made$missing, made$typed)
  if (!is.null(wrong)) stop("its answer does not fit its signature: ", wrong)
}

# The answer to a request that failed: by name where the request is at fault.
.refuse <- function(room, e) {
  if (is.null(room$held)) stop(e)  # of no request
  if (room$inside || !inherits(e, "mlbridge_error")) return(.refuse_inside(room$host, room$held, e))
  text <- if (nchar(conditionMessage(e), "bytes") > 2000L) paste(substr(conditionMessage(e), 1L, 1000L), "...") else conditionMessage(e)
  .Call(C_mlb_refuse, room$host, match(e$code, .statuses), enc2utf8(text), e$class_name, "")
  NULL
}

# What may cross the wire of a failure inside a model; the cause goes to the log, under an id that the caller gets.
.refuse_inside <- function(host, held, cause) {
  known <- c(BridgeTimeoutError = "the deadline passed", CancelledError = "the call was cancelled", OverloadedError = "the model is overloaded; try again later")
  class <- if (is.null(cause$class_name)) "InferenceError" else cause$class_name
  if (class %in% names(known)) {
    .Call(C_mlb_refuse, host, match(toupper(.status_codes[[class]]), .statuses), known[[class]], class, "")
    return(NULL)
  }
  id <- basename(tempfile(""))  # random, and without a step of the model's stream of random numbers
  .server_log(held, paste0("failed (correlation id ", id, ")"), conditionMessage(cause))
  away <- class %in% c("BridgeError", "WorkerDiedError", "UnavailableError", "MissingDependencyError")
  text <- paste0(if (away) "the model is not available" else "the model failed", " (correlation id ", id, ")")
  .Call(C_mlb_refuse, host, if (away) 14L else 13L, text, if (away) class else "InferenceError", id)
  NULL
}

.server_log <- function(held, what, text) message("mlbridge: ", held$name, "@", held$version, " ", what, ": ", text)
