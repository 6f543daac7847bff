# A model as R holds it: a signature, and a session that turns named arrays into named arrays. Where the session runs (this
# R, Python, a server) is its own business: each is a list of functions run(feeds, wanted, timeout_s), close(), describe().

.new_model <- function(name, signature, session) {
  state <- new.env(parent = emptyenv())
  state$closed <- FALSE
  reg.finalizer(state, function(s) if (!s$closed) try(session$close(), silent = TRUE), onexit = FALSE)
  structure(list(name = name, signature = signature, session = session, state = state), class = "mlb_model")
}

#' Ask a model
#'
#' @param object A model of [mlb_load()].
#' @param newdata A data frame with the model's columns, in any order; more columns are ignored. Also a matrix for a model
#'   with one input, or a named list of columns or inputs.
#' @param outputs Names of the outputs wanted. One name gives that vector or matrix alone.
#' @param timeout_s Seconds after which the call ends with a condition `mlbridge_deadline_exceeded`.
#' @param ... Not used.
#' @return A data frame for a data frame, with its row names: labels are factors, a matrix is spread as
#'   `<output>_<column>`. For anything else a list of vectors and matrices.
#' @examples
#' path <- tempfile(fileext = ".mlb")
#' mlb_save(lm(dist ~ speed, cars), path, sample = cars)
#' model <- mlb_load(path, trust = "code")
#' predict(model, data.frame(speed = c(10, NA, 20)))
#' predict(model, cars[1:2, ], outputs = "prediction")
#' @export
predict.mlb_model <- function(object, newdata, outputs = NULL, timeout_s = NULL, ...) {
  if (missing(newdata)) mlb_stop("InputError", "newdata is missing", "a model of mlb_load() holds no training data")
  if (object$state$closed) mlb_stop("ClosedError", paste(object$name, "is closed"), "load it again")
  names <- vapply(object$signature$outputs, `[[`, "", "name")
  odd <- setdiff(outputs, names)
  mlb_stop_if_any(if (length(odd)) paste0("there is no output ", sQuote(odd, FALSE)), paste("the model has", paste(names, collapse = ", ")))
  feeds <- feeds_of(newdata, object$signature)
  answer <- object$session$run(feeds, if (is.null(outputs)) names else unlist(outputs), timeout_s)
  answer_of(answer, object$signature, newdata, outputs)
}

#' Free what a model owns
#'
#' Harmless when repeated. Models that R no longer reaches are closed by themselves.
#' @param con A model of [mlb_load()].
#' @param ... Not used.
#' @examples
#' path <- tempfile(fileext = ".mlb")
#' mlb_save(lm(dist ~ speed, cars), path, sample = cars)
#' close(mlb_load(path, trust = "code"))
#' @export
close.mlb_model <- function(con, ...) {
  if (!con$state$closed) con$session$close()
  con$state$closed <- TRUE
  invisible()
}

#' @export
print.mlb_model <- function(x, ...) {
  about <- x$session$describe()
  cat("<mlb_model ", sQuote(x$name, FALSE), if (x$state$closed) " (closed)", ": ", about$runtime, " on ", about$device, ">\n", sep = "")
  print(x$signature)
  invisible(x)
}

#' What is known about a model
#'
#' @param object A model of [mlb_load()].
#' @param ... Not used.
#' @return A list with `name`, `signature`, `runtime`, `device`, `route` (which implementation runs, and why), `trust` and
#'   `parity` (how far a conversion is from its source).
#' @examples
#' path <- tempfile(fileext = ".mlb")
#' mlb_save(lm(dist ~ speed, cars), path, sample = cars)
#' summary(mlb_load(path, trust = "code"))
#' @export
summary.mlb_model <- function(object, ...) {
  structure(c(list(name = object$name, signature = object$signature), object$session$describe()), class = "summary.mlb_model")
}

#' @export
print.summary.mlb_model <- function(x, ...) {
  for (field in setdiff(names(x), "signature")) cat(sprintf("%-10s%s\n", paste0(field, ":"), paste(x[[field]], collapse = "\n          ")))
  print(x$signature)
  invisible(x)
}
