# The signature of a fitted model: its columns (columns.R), its outputs (shared-outputs.R), and the rules for missing values,
# found by trying one missing value in each column.

#' @rdname mlb_signature
#' @export
mlb_signature.default <- function(model, sample = NULL, options = list(), ...) {
  sample <- .checked_sample(sample, model)
  fields <- .fields(model, sample)
  allowed <- rep("allow", length(fields))
  draft <- function(outputs, missing = allowed) .new_signature(.blocks(fields, missing), outputs)
  nothing <- draft(.prediction())
  few <- sample[.whole_rows(sample, fields), , drop = FALSE]
  ask <- function(wanted, levels = NULL) {
    feeds <- feeds_of(few, nothing)
    suppressWarnings(.ask_model(model, newdata_of(feeds, .layout(nothing), column_classes(model)), wanted, options, levels))
  }
  outputs <- .outputs_of(model, ask, options)
  tried <- .try_missing(model, few, fields, draft(outputs), options)
  missing <- ifelse(tried$allow, "allow", "refuse")
  outputs <- lapply(outputs, function(s) if (tried$answers) utils::modifyList(s, list(missing = "allow")) else s)
  draft(outputs, missing)
}

.checked_sample <- function(sample, model) {
  if (is.null(sample)) mlb_stop("InputError", "there is no sample", "pass sample = some rows of the training data; the levels of factors and the golden rows come from it")
  if (is.matrix(sample)) {
    if (is.null(colnames(sample))) colnames(sample) <- paste0("x", seq_len(ncol(sample)))
    sample <- as.data.frame(sample, optional = TRUE)
  }
  if (!is.data.frame(sample)) mlb_stop("InputError", paste("the sample is a", class(sample)[1]), "pass a data frame")
  if (!nrow(sample)) mlb_stop("InputError", "the sample has no rows")
  as.data.frame(sample)
}

# The first three rows without a missing value: enough to ask with.
.whole_rows <- function(sample, fields) {
  names <- vapply(fields, function(f) f$column$name, "")
  whole <- which(stats::complete.cases(sample[names]))
  if (!length(whole)) mlb_stop("InputError", "every row of the sample has a missing value", "pass some whole rows too")
  utils::head(whole, 3L)
}

# Which columns may be missing: those where the model does not stop, and answers as many rows as it was asked.
.try_missing <- function(model, few, fields, signature, options) {
  held <- .hold(model, signature, options)
  feeds <- feeds_of(few, signature)
  suppressWarnings(answer_feeds(held, feeds))  # a model that does not answer its own sample stops here, with its own words
  answers <- FALSE
  allow <- vapply(fields, function(field) {
    got <- tryCatch(suppressWarnings(answer_feeds(held, .without(feeds, signature, field$column$name))), error = function(e) NULL)
    if (is.null(got)) return(FALSE)
    gone <- vapply(signature$outputs, function(s) .any_missing(got[[s$name]], s), NA)
    if (any(gone & vapply(signature$outputs, function(s) s$dtype == "int64", NA))) return(FALSE)  # whole numbers have no missing value
    answers <<- answers || any(gone)
    TRUE
  }, NA)
  list(allow = allow, answers = answers)
}

.any_missing <- function(value, spec) if (.is_label(spec)) any(value < 0L) else anyNA(value)

# Feeds whose first row lacks one column.
.without <- function(feeds, signature, name) {
  for (spec in signature$inputs) {
    at <- match(name, vapply(spec$columns, `[[`, "", "name"))
    if (!is.na(at)) feeds[[spec$name]][1L, at] <- if (length(spec$columns[[at]]$categories)) -1L else NA
  }
  feeds
}
