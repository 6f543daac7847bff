# What a model takes and gives: the signature, its JSON form, how it prints. The object is that JSON as nested lists,
# so that there is one form to know. How one is found for a fitted model is in infer.R.

.new_signature <- function(inputs, outputs) {
  structure(list(version = 1L, inputs = unname(inputs), outputs = unname(outputs)), class = "mlb_signature")
}

.signature_json <- function(signature) {
  # sizes and levels are whole numbers below 2^53: as text of 17 digits they are exact
  jsonlite::toJSON(unclass(signature), auto_unbox = TRUE, digits = I(17), null = "null")
}

.signature_of_json <- function(text) {
  data <- tryCatch(jsonlite::fromJSON(text, simplifyVector = FALSE), error = function(e) NULL)
  .checked_signature(data)
}

.checked_signature <- function(data) {
  odd <- function(why, hint = NULL) mlb_stop("ArtifactError", paste("the signature", why), hint)
  if (!is.list(data) || !setequal(names(data), c("version", "inputs", "outputs"))) odd("is malformed")
  if (!is.numeric(data$version) || length(data$version) != 1L || data$version < 1) odd("has no version")
  if (data$version > 1) odd(paste("has version", data$version, "and this mlbridge reads up to 1"), "update the R package mlbridge")
  for (spec in c(data$inputs, data$outputs)) {
    strange <- setdiff(names(spec), c("name", "dtype", "shape", "columns", "missing", "rounding"))
    strange <- c(strange, unlist(lapply(spec$columns, function(c) setdiff(names(c), c("name", "categories", "ordered", "unknown", "unit")))))
    if (length(strange)) odd(paste("has unknown keys:", paste(unique(strange), collapse = ", ")), "it may need a newer mlbridge")
    if (!is.character(spec$name) || !is.character(spec$dtype) || !is.list(spec$shape)) odd("is malformed")
  }
  structure(data, class = "mlb_signature")
}

#' What a model takes and gives
#'
#' For a model of [mlb_load()], its signature. For a fitted model, the one [mlb_save()] would write: the raw columns in
#' training order with their levels, whether each may be missing, and the outputs. Levels come from the model where it
#' stores them, else from the factors of `sample`: some models (ranger, svm) forget theirs.
#'
#' @param model A fitted model, or a model of [mlb_load()].
#' @param sample A data frame of rows as in training, with factors as they were in training.
#' @param options What predict is asked with: a list with some of `type`, `s`, `n.trees`, and `as = "classifier"` for
#'   binomial models that shall answer labels and probabilities.
#' @param ... For methods.
#' @return An `mlb_signature`: a list with `inputs` and `outputs`, each a list of tensors.
#' @details
#' A class of your own needs no method where `predict(model, newdata)` answers a number or a factor a row. Where it is
#' asked in another way, write [mlb_answers()] for it; where its columns cannot be seen from `sample`, write
#' `mlb_signature` for it.
#' @examples
#' fit <- lm(Sepal.Length ~ Petal.Length + Species, iris)
#' mlb_signature(fit, sample = iris)
#' @export
mlb_signature <- function(model, ...) UseMethod("mlb_signature")

#' @rdname mlb_signature
#' @export
mlb_signature.mlb_model <- function(model, ...) model$signature

#' @export
format.mlb_signature <- function(x, ...) {
  side <- function(word, specs) c(word, unlist(lapply(specs, function(s) paste0("  ", .format_spec(s)))))
  c(side("inputs:", x$inputs), side("outputs:", x$outputs))
}

#' @export
print.mlb_signature <- function(x, ...) {
  cat(format(x), sep = "\n")
  invisible(x)
}

.format_spec <- function(spec) {
  dims <- vapply(spec$shape, function(d) if (is.null(d)) "?" else as.character(d), "")
  head <- paste0(spec$name, ": ", spec$dtype, "[", paste(dims, collapse = ", "), "]", if (identical(spec$missing, "allow")) ", may be missing")
  columns <- vapply(spec$columns, .format_column, "")
  if (length(columns) > 12L) columns <- c(columns[1:12], paste("and", length(columns) - 12L, "more"))
  columns <- columns[nzchar(columns)]
  c(head, if (length(columns)) paste0("  ", columns))
}

.format_column <- function(column) {
  levels <- vapply(column$categories, as.character, "")
  some <- if (length(levels) > 8L) c(levels[1:8], "...") else levels
  paste0(column$name, if (length(levels)) paste0(" {", paste(some, collapse = if (isTRUE(column$ordered)) " < " else ", "), "}"),
    if (!is.null(column$unit)) paste0(" (", column$unit, ")"))
}

# -------------------------------------------------- reading a signature

.batched <- function(signature) {
  first <- function(spec) length(spec$shape) > 0L && identical(spec$shape[[1]], "rows")
  length(signature$inputs) > 0L && all(vapply(c(signature$inputs, signature$outputs), first, NA))
}

# One vector of codes of a factor: a label is one column with categories, of rank 1.
.is_label <- function(spec) length(spec$shape) == 1L && length(spec$columns) > 0L && !is.null(spec$columns[[1]]$categories)

# The flat form that the shared functions `newdata_of` and `output_of` read: parallel vectors, one entry a column.
.layout <- function(signature) {
  columns <- unlist(lapply(signature$inputs, `[[`, "columns"), recursive = FALSE)
  specs <- rep(signature$inputs, vapply(signature$inputs, function(s) length(s$columns), 0L))
  text <- function(things, f, ...) vapply(things, f, "", ...)
  kind <- function(column, spec) {
    levels <- .levels_of(column)
    if (is.null(levels)) return(if (spec$dtype == "string") "text" else "number")
    if (is.logical(levels)) "bools" else if (isTRUE(column$ordered)) "ordered" else if (is.numeric(levels)) "whole" else "codes"
  }
  list(script = FALSE, in.name = text(signature$inputs, `[[`, "name"),
    col.input = rep(seq_along(signature$inputs), vapply(signature$inputs, function(s) length(s$columns), 0L)),
    col.name = text(columns, `[[`, "name"), col.kind = as.character(mapply(kind, columns, specs)),
    col.unit = text(columns, function(c) if (is.null(c$unit)) "" else c$unit), col.levels = lapply(columns, .level_texts),
    out.name = text(signature$outputs, `[[`, "name"), out.dtype = text(signature$outputs, `[[`, "dtype"),
    out.rank = vapply(signature$outputs, function(s) length(s$shape), 0L),
    out.width = vapply(signature$outputs, function(s) if (length(s$shape) > 1L && is.numeric(s$shape[[2]])) as.integer(s$shape[[2]]) else 0L, 0L),
    out.levels = lapply(signature$outputs, function(s) if (.is_label(s)) .level_texts(s$columns[[1]]) else character()),
    out.columns = lapply(signature$outputs, function(s) if (.is_label(s)) character() else text(s$columns, `[[`, "name")))
}
