# A saved package, deleted with the test that made it.
saved <- function(model, sample, ..., env = parent.frame()) {
  path <- temporary(".mlb", env)
  mlb_save(model, path, sample = sample, ...)
  path
}

temporary <- function(ending, env = parent.frame()) {
  path <- tempfile(fileext = ending)
  do.call("on.exit", list(bquote(unlink(.(path), recursive = TRUE)), add = TRUE), envir = env)
  path
}

here <- function(model, sample, ..., env = parent.frame()) mlb_load(saved(model, sample, ..., env = env), trust = "code")

columns <- function(signature) unlist(lapply(signature$inputs, function(s) lapply(s$columns, `[[`, "name")))

column <- function(signature, name) {
  for (spec in signature$inputs) for (c in spec$columns) if (c$name == name) return(c)
}

rule <- function(signature, name) {
  for (spec in signature$inputs) for (c in spec$columns) if (c$name == name) return(if (is.null(spec$missing)) "refuse" else spec$missing)
}

skip_without <- function(...) for (package in c(...)) skip_if_not_installed(package)

# Python with mlbridge, as a user's session finds it.
skip_without_python <- function() {
  skip_if_not_installed("reticulate")
  python <- getOption("mlbridge.python", Sys.getenv("MLBRIDGE_PYTHON", Sys.which("python3")))
  found <- nzchar(python) && suppressWarnings(system2(python, c("-c", shQuote("import mlbridge, onnxruntime")), stdout = FALSE, stderr = FALSE)) == 0L
  skip_if_not(found, "a Python with mlbridge (set MLBRIDGE_PYTHON)")
  options(mlbridge.python = python)
}
