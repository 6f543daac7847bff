# Models that run in Python's mlbridge, through reticulate. Only texts and frames cross: no array of one language is ever
# an object of the other, so numbers stay what they are, bit by bit, with NA of each type.

.python <- new.env(parent = emptyenv())

# The Python side (inst/python), imported once.
.bridge <- function() {
  if (!is.null(.python$bridge)) return(.python$bridge)
  if (!requireNamespace("reticulate", quietly = TRUE))
    mlb_stop("MissingDependencyError", "this model runs in Python, and the R package reticulate is not installed",
      "install.packages(\"reticulate\"); or, for a model of R you trust, trust = \"code\"")
  wanted <- getOption("mlbridge.python", Sys.getenv("MLBRIDGE_PYTHON"))
  if (nzchar(wanted) && !reticulate::py_available()) reticulate::use_python(wanted, required = TRUE)
  folder <- system.file("python", package = "mlbridge")
  .python$bridge <- tryCatch(reticulate::import_from_path("mlbridge_from_r", path = folder), error = function(e) {
    mlb_stop("MissingDependencyError", paste("Python's mlbridge is not there:", conditionMessage(e)),
      "pip install 'mlbridge[onnx]'; then options(mlbridge.python = \"/path/to/python\") before the first model")
  })
}

# Calls one function of the Python side; what it raised there is raised here by its own name, its warnings are warnings.
.ask_python <- function(f, ...) {
  got <- .bridge()[[f]](...)
  if (is.raw(got)) return(got)
  said <- jsonlite::fromJSON(got, simplifyVector = FALSE)
  for (text in said$warnings) warning(text, call. = FALSE)
  if (!is.null(said$error)) {
    e <- said$error
    mlb_stop(e$class, e$message, e$hint, unlist(e$problems), code = if (is.null(e$code)) .status_codes[[e$class]] else e$code)
  }
  said
}

.json <- function(...) as.character(jsonlite::toJSON(list(...), auto_unbox = TRUE, digits = I(17), null = "null"))

.load_in_python <- function(source, trust, via, verify, device, options) {
  if (!length(options)) options <- stats::setNames(list(), character())
  said <- .ask_python("open_model", .json(source = source, trust = trust, via = via, verify = verify, device = device, options = options))
  number <- said$number
  .new_model(said$name, .checked_signature(said$signature), list(
    run = function(feeds, wanted, timeout_s) .run_in_python(number, feeds, wanted, timeout_s),
    close = function() .ask_python("close_model", number),
    describe = function() said$about))
}

.run_in_python <- function(number, feeds, wanted, timeout_s) {
  con <- rawConnection(raw(), "wb")
  on.exit(close(con))
  if (!write_frame(con, "RUN", feeds)) mlb_stop("InputError", "the rows are larger than a frame of 2 GiB", "ask for fewer rows at once")
  answer <- .ask_python("run_model", number, rawConnectionValue(con), .json(outputs = as.list(wanted), timeout_s = timeout_s))
  back <- rawConnection(answer, "rb")
  on.exit(close(back), add = TRUE)
  values <- read_frame(back)$tensors
  for (v in values) if (inherits(v, "error")) mlb_stop("InferenceError", conditionMessage(v))
  values[wanted]
}
