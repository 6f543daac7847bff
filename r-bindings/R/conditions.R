# The error tree, as R conditions: what Python's `errors.py` draws, by status code. A condition has the classes
# mlbridge_<code> and mlbridge_error, so that `tryCatch(mlbridge_error = )` catches all and nothing else.

# Which status code Python's classes carry, and so which condition their errors become here.
.status_codes <- c(InputError = "invalid_argument", SignatureError = "invalid_argument", ArtifactError = "data_loss",
  UntrustedArtifactError = "permission_denied", ConversionError = "unimplemented", UnsupportedError = "unimplemented",
  NotFoundError = "not_found", AccessError = "permission_denied", UnavailableError = "unavailable",
  MissingDependencyError = "unavailable", InferenceError = "internal", BridgeError = "unavailable",
  WorkerDiedError = "unavailable", BridgeTimeoutError = "deadline_exceeded", CancelledError = "cancelled",
  OverloadedError = "resource_exhausted", ClosedError = "failed_precondition")

#' Conditions of mlbridge
#'
#' Every error of this package is a condition of class `mlbridge_error`, and of one that names gRPC's status code:
#' `mlbridge_invalid_argument` (your values), `mlbridge_data_loss` (a damaged file), `mlbridge_permission_denied`
#' (a file that would run code, or a server that does not know you), `mlbridge_unimplemented`, `mlbridge_not_found`,
#' `mlbridge_unavailable` (something is not installed, or a server does not answer), `mlbridge_internal` (the model
#' failed), `mlbridge_deadline_exceeded`, `mlbridge_cancelled`, `mlbridge_resource_exhausted`,
#' `mlbridge_failed_precondition` (a closed model).
#'
#' A condition holds `message`, `code` (the status code in capitals), `class_name` (the class the error has in Python),
#' `hint` (what to do), and `problems` (all that is wrong with one input).
#'
#' @name mlb_conditions
#' @examples
#' fit <- lm(dist ~ speed, cars)
#' said <- tryCatch(mlb_save(fit, tempfile(fileext = ".mlb")), mlbridge_invalid_argument = function(e) e)
#' said$code
#' conditionMessage(said)
NULL

# Raises the condition of one of Python's error classes.
mlb_stop <- function(class_name, message, hint = NULL, problems = message, code = .status_codes[[class_name]]) {
  text <- if (length(hint) && nzchar(hint)) paste0(message, "\n  hint: ", hint) else message
  stop(structure(class = c(paste0("mlbridge_", tolower(code)), "mlbridge_error", "error", "condition"),
    list(message = text, call = NULL, code = toupper(code), class_name = class_name, hint = hint, problems = problems)))
}

# Raises one condition that lists every problem; returns where there is none.
mlb_stop_if_any <- function(problems, hint = NULL, class_name = "InputError") {
  if (length(problems)) mlb_stop(class_name, paste(problems, collapse = "\n"), hint, problems)
}
