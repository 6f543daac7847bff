# Opens models: R's own packages in this R, where that is allowed; everything else in Python's mlbridge (python.R).

#' Open a model
#'
#' @param source A package (`.mlb`), any model file mlbridge reads, or a URI such as `grpc://host:port/model`.
#' @param trust `"data"` (nothing in a file is executed), `"audited"`, `"code"` (you trust where the file comes from), or
#'   `"sha256:..."`, which is `"code"` for the one file of that hash; a package's is the hash of its `mlbridge.json`.
#' @param via `"auto"`, `"onnx"` (a converted model) or `"native"` (the model itself).
#' @param verify `"auto"`, `"require"` or `"never"`: whether a conversion is compared with its golden rows.
#' @param device `"auto"`, `"cpu"`, `"cuda"`.
#' @param options A list of lists, by runtime or framework: `list(r = list(as = "classifier"))`. Of `grpc`: `token` (else the
#'   environment's `MLBRIDGE_TOKEN`), `root_certificates`, `client_key`, `client_certificate` (paths of PEM files),
#'   `server_name` (the name in the certificate), `timeout_s` (of a call without one, 60), `connect_timeout_s` (10),
#'   `max_message_mib` (16: larger tables are sent in parts).
#' @return A model: ask it with [predict()][predict.mlb_model].
#' @details
#' At trust `"code"` a fitted R model is run in this R, exactly as it was saved, and Python is not needed. Everything else,
#' and an R model below that trust, is opened by Python's mlbridge through the package reticulate: R models are converted
#' there without R, and verified. Which Python: the option `mlbridge.python`, else the environment variable
#' `MLBRIDGE_PYTHON`, else what reticulate finds. A served model (`grpc://host:port/model[@version]`, `grpcs://` with TLS)
#' is asked from this R directly.
#' @examples
#' path <- tempfile(fileext = ".mlb")
#' mlb_save(lm(Sepal.Length ~ Species, iris), path, sample = iris)
#' model <- mlb_load(path, trust = "code")
#' model
#' predict(model, iris[c(1, 51, 101), ])
#' \dontrun{
#' model <- mlb_load("churn.mlb")  # made by Python, or by R and converted
#' }
#' @export
mlb_load <- function(source, trust = "data", via = c("auto", "onnx", "native"), verify = c("auto", "require", "never"),
                     device = "auto", options = list()) {
  via <- match.arg(via)
  verify <- match.arg(verify)
  pinned <- .check_trust(trust)
  if (!is.character(source) || length(source) != 1L) mlb_stop("InputError", "source is not one path or URI")
  if (.is_served(source)) return(.load_served(source, options$grpc))
  if (.is_package(source) && via != "onnx" && (trust == "code" || !is.null(pinned))) {
    package <- .read_package(source)
    if (!is.null(pinned) && pinned != package$sha256)
      mlb_stop("UntrustedArtifactError", paste0(source, ": its sha256 is ", package$sha256, ", not the pinned one"), "ask where it comes from")
    one <- Filter(function(i) i$runtime == "r" && i$format == "rds", package$manifest$implementations)
    if (length(one)) return(.load_here(package, one[[1]], trust))
    unlink(package$folder, recursive = TRUE)
  }
  .load_in_python(source, trust, via, verify, device, options)
}

.check_trust <- function(trust) {
  if (!is.character(trust) || length(trust) != 1L || !grepl("^(data|audited|code|sha256:[0-9a-f]{64})$", trust))
    mlb_stop("InputError", paste("trust is", paste(format(trust), collapse = " ")), "use \"data\", \"audited\", \"code\" or \"sha256:...\"")
  if (startsWith(trust, "sha256:")) sub("^sha256:", "", trust)
}

.is_package <- function(source) {
  if (dir.exists(source)) return(file.exists(file.path(source, .manifest_name)))
  file.exists(source) && identical(readBin(source, "raw", 4L), as.raw(c(0x50, 0x4b, 3, 4))) && endsWith(tolower(source), ".mlb")
}

# The model itself in this R; its packages are loaded, those its formula names attached.
.load_here <- function(package, implementation, trust) {
  for (name in names(implementation$requires)) if (name != "R") .need(name)
  for (name in unlist(implementation$options$packages)) if (!paste0("package:", name) %in% search()) {
    .need(name)
    attachNamespace(name)
  }
  model <- tryCatch(readRDS(file.path(package$folder, implementation$path)),
    error = function(e) mlb_stop("ArtifactError", paste("not a readable RDS file:", conditionMessage(e))))
  unlink(package$folder, recursive = TRUE)
  held <- .hold(model, package$signature, implementation$options[setdiff(names(implementation$options), "packages")])
  .new_model(package$manifest$name, package$signature, list(
    answer = function(feeds, wanted) answer_feeds(held, feeds, wanted),
    run = function(feeds, wanted, timeout_s) .within(timeout_s, answer_feeds(held, feeds, wanted)),
    close = function() held <<- NULL,
    describe = function() list(runtime = "r", device = "this R", route = "the model itself, in this R", trust = trust, parity = "the native model itself")))
}

.need <- function(name) {
  if (!requireNamespace(name, quietly = TRUE))
    mlb_stop("MissingDependencyError", paste("the R package", name, "is not installed"), paste0("install.packages(\"", name, "\")"))
}

# Runs work in this R; what it raises is a condition of ours, its own condition as parent.
.within <- function(timeout_s, work) {
  if (!is.null(timeout_s)) {
    setTimeLimit(elapsed = timeout_s, transient = TRUE)
    on.exit(setTimeLimit(elapsed = Inf))
  }
  tryCatch(force(work), mlbridge_error = function(e) stop(e), error = function(e) {
    late <- !is.null(timeout_s) && grepl(gettext("reached elapsed time limit", domain = "R"), conditionMessage(e), fixed = TRUE)
    if (late) mlb_stop("BridgeTimeoutError", paste("no answer within", timeout_s, "s"))
    mlb_stop("InferenceError", paste("the model failed:", conditionMessage(e)))
  })
}
