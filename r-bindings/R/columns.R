# The raw columns of a fitted model: which columns of a sample it reads, in training order, and the levels it stores.
# One method of `.raw_columns` a way of fitting; `.fields` turns them into a signature's blocks.

# list(names, levels, plain, compared): `plain` models see a logical column as the number 0 or 1; `compared` are the texts
# that a formula compares a column with, where it does nothing else with it.
.raw_columns <- function(model, sample) UseMethod(".raw_columns")

.known_columns <- function(names, levels = list(), plain = FALSE, made = list(), compared = list()) {
  levels <- c(Filter(is.character, as.list(levels)), made)  # a model may store numbers for a number's levels
  list(names = names, levels = levels, plain = plain, compared = compared)
}

.raw_columns.default <- function(model, sample) {
  terms <- tryCatch(stats::terms(model), error = function(e) NULL)
  levels <- if (is.list(model)) model[["xlevels"]]
  if (is.null(terms)) return(.known_columns(names(sample), levels))
  .known_columns(.formula_columns(stats::delete.response(terms), sample, if (is.list(model)) model[["call"]]), levels, made = .made_levels(terms, levels),
    compared = .compared_texts(stats::delete.response(terms)))
}

# Columns the formula makes factors of, as in factor(cyl): their levels, as the whole numbers they were, else as text.
.made_levels <- function(terms, xlevels) {
  bare <- vapply(Filter(is.name, as.list(attr(terms, "variables"))), as.character, "")
  made <- list()
  for (label in setdiff(names(xlevels), bare)) {
    call <- tryCatch(str2lang(label), error = function(e) NULL)
    if (!is.call(call) || length(call) < 2L || !is.name(call[[2L]]) || !is.name(call[[1L]])) next
    name <- as.character(call[[2L]])
    if (name %in% bare || !as.character(call[[1L]]) %in% c("factor", "as.factor", "ordered", "as.ordered", "C", "relevel", "as.character", "droplevels")) next
    numbers <- suppressWarnings(as.numeric(xlevels[[label]]))
    if (anyNA(numbers)) made[[name]] <- xlevels[[label]]
    else if (all(numbers == round(numbers) & abs(numbers) < 2^53)) made[[name]] <- sort(numbers)
  }
  made
}

# Texts by column, of columns that are only compared with texts, as in I(make == "Fiat"): any other text is one more level.
.compared_texts <- function(terms) {
  found <- list()
  other <- character()
  walk <- function(e) {
    if (is.name(e)) other <<- c(other, as.character(e))
    if (!is.call(e)) return()
    parts <- as.list(e[-1L])
    texts <- if (length(parts) == 2L && is.name(e[[1L]]) && as.character(e[[1L]]) %in% c("==", "!=", "%in%")) lapply(parts, .texts_of)
    at <- if (length(texts)) which(vapply(parts, is.name, NA) & rev(lengths(texts) > 0L))
    if (length(at) != 1L) return(for (part in parts) if (!missing(part)) walk(part))
    name <- as.character(parts[[at]])
    found[[name]] <<- unique(c(found[[name]], texts[[3L - at]]))
  }
  for (variable in as.list(attr(terms, "variables"))[-1L]) walk(variable)
  found[setdiff(names(found), other)]
}

.texts_of <- function(e) {
  if (is.character(e)) return(e)
  if (is.call(e) && identical(e[[1L]], quote(c)) && all(vapply(as.list(e[-1L]), is.character, NA))) unlist(as.list(e[-1L]))
}

# What a formula names is a column of the sample, or a variable beside the formula; an offset may stand in the call alone.
.formula_columns <- function(formula, sample, call = NULL) {
  names <- unique(c(all.vars(formula), if (is.call(call)) all.vars(call$offset)))
  absent <- setdiff(names, names(sample))
  env <- environment(formula)
  if (is.null(env)) env <- baseenv()
  lost <- absent[!vapply(absent, exists, NA, envir = env)]
  if (length(lost)) mlb_stop("InputError", paste("the sample has no column", paste(sQuote(lost, FALSE), collapse = ", ")),
    "pass rows of the training data, with every column the formula names")
  intersect(names, names(sample))
}

.raw_columns.nls <- function(model, sample) .known_columns(intersect(all.vars(stats::formula(model)[[3L]]), names(sample)))
.raw_columns.gam <- function(model, sample) .known_columns(names(model$var.summary), model$xlevels)
.raw_columns.rpart <- function(model, sample) .with_levels(model, sample, attr(model, "xlevels"))
.raw_columns.randomForest <- function(model, sample) {
  levels <- model$forest$xlevels
  names <- if (is.null(names(levels))) rownames(model$importance) else names(levels)
  if (is.null(model$terms)) .known_columns(names, stats::setNames(levels, names), plain = TRUE) else .with_levels(model, sample, levels)
}
.raw_columns.ranger <- function(model, sample) .known_columns(model$forest$independent.variable.names, model$forest$covariate.levels, plain = TRUE)
.raw_columns.gbm <- function(model, sample) {
  levels <- stats::setNames(model$var.levels, model$var.names)
  levels <- levels[model$var.type > 0 | vapply(levels, is.character, NA)]
  names <- if (is.null(model$Terms)) model$var.names else .formula_columns(stats::delete.response(model$Terms), sample)
  .known_columns(names, levels, plain = TRUE)
}
.raw_columns.glmnet <- function(model, sample) {
  beta <- if (is.list(model$beta)) model$beta[[1]] else model$beta
  .matrix_columns(rownames(beta), nrow(beta))
}
.raw_columns.cv.glmnet <- function(model, sample) .raw_columns(model$glmnet.fit, sample)
.raw_columns.kmeans <- function(model, sample) .matrix_columns(colnames(model$centers), ncol(model$centers))
.raw_columns.prcomp <- function(model, sample) .matrix_columns(rownames(model$rotation), nrow(model$rotation))
.raw_columns.lda <- function(model, sample) {
  if (is.null(model$terms)) .matrix_columns(colnames(model$means), ncol(model$means)) else .raw_columns.default(model, sample)
}
.raw_columns.qda <- .raw_columns.lda
.raw_columns.svm <- function(model, sample) {
  if (is.null(model$terms)) .matrix_columns(colnames(model$SV), ncol(model$SV)) else .raw_columns.default(model, sample)
}
.raw_columns.nnet <- function(model, sample) {
  if (is.null(model$terms)) .matrix_columns(model$coefnames, model$n[1]) else .raw_columns.default(model, sample)
}
.raw_columns.naiveBayes <- function(model, sample) {
  factors <- vapply(model$tables, function(t) !is.null(colnames(t)), NA)
  .known_columns(names(model$tables), lapply(model$tables[factors], colnames), plain = TRUE)
}
.raw_columns.train <- function(model, sample) {
  if (inherits(model, "train.formula")) return(.with_levels(model, sample, model$xlevels))
  .known_columns(names(model$ptype), Filter(Negate(is.null), lapply(model$ptype, levels)))
}

.with_levels <- function(model, sample, levels) {
  .known_columns(.formula_columns(stats::delete.response(model$terms), sample, model$call), levels, made = .made_levels(model$terms, levels))
}

# Models fitted on a matrix: its column names, else x1, x2, ...
.matrix_columns <- function(names, count) .known_columns(if (is.null(names)) paste0("x", seq_len(count)) else names, plain = TRUE)

# -------------------------------------------------- fields of a signature

# A field: the column, its dtype, its missing rule. Levels are the model's, else those of the sample's factor.
.fields <- function(model, sample) {
  known <- .raw_columns(model, sample)
  absent <- setdiff(known$names, names(sample))
  mlb_stop_if_any(if (length(absent)) paste0("the sample has no column ", paste(sQuote(absent, FALSE), collapse = ", ")),
    "pass rows of the training data, with every column the model reads")
  lapply(known$names, function(name) .field(name, sample[[name]], known$levels[[name]], known$plain, known$compared[[name]]))
}

.field <- function(name, values, levels, plain, compared = NULL) {
  categorical <- function(levels) list(column = .new_column(name, .level_values(levels), is.ordered(values)), dtype = "int32")
  number <- function(unit = NULL) list(column = .new_column(name, unit = unit), dtype = "float64")
  if (length(levels) && (is.numeric(values) || !is.numeric(levels))) return(categorical(levels))
  if (is.factor(values)) return(categorical(base::levels(values)))
  if (is.logical(values) && !plain) return(categorical(c("FALSE", "TRUE")))
  if (is.character(values) && length(compared)) return(list(column = .new_column(name, compared, unknown = "keep"), dtype = "int32"))
  if (is.character(values)) return(list(column = .new_column(name), dtype = "string"))
  if (inherits(values, "Date")) return(number("date"))
  if (inherits(values, "POSIXct")) return(number("timestamp"))
  if ((is.numeric(values) || is.logical(values)) && is.null(dim(values))) return(number())
  mlb_stop("InputError", paste0("column ", sQuote(name, FALSE), " of the sample is a ", class(values)[1]), "pass vectors and factors")
}

# Fields gathered into a few blocks: features, categorical, text; one more of a kind where the missing rule differs.
.blocks <- function(fields, missing) {
  kinds <- vapply(fields, function(f) if (f$dtype == "int32") "categorical" else if (f$dtype == "string") "text" else "features", "")
  specs <- list()
  for (kind in c("features", "categorical", "text")) {
    rules <- unique(missing[kinds == kind])
    for (i in seq_along(rules)) {
      some <- fields[kinds == kind & missing == rules[i]]
      specs <- c(specs, list(.spec(if (i == 1L) kind else paste0(kind, "_", i), some[[1]]$dtype, list("rows", length(some)),
        lapply(some, `[[`, "column"), rules[i])))
    }
  }
  specs
}
