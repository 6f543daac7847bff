# The raw columns of a fitted model: which columns of a sample it reads, in training order, and the levels it stores.
# One method of `.columns_of` a way of fitting; `.fields` turns them into a signature's blocks.

# list(names, levels, plain): `plain` models see a logical column as the number 0 or 1.
.columns_of <- function(model, sample) UseMethod(".columns_of")

.known_columns <- function(names, levels = list(), plain = FALSE) {
  list(names = names, levels = Filter(is.character, as.list(levels)), plain = plain)
}

.columns_of.default <- function(model, sample) {
  terms <- tryCatch(stats::terms(model), error = function(e) NULL)
  levels <- if (is.list(model)) model[["xlevels"]]
  if (is.null(terms)) return(.known_columns(names(sample), levels))
  .known_columns(.formula_columns(stats::delete.response(terms), sample, if (is.list(model)) model[["call"]]), levels)
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

.columns_of.nls <- function(model, sample) .known_columns(intersect(all.vars(stats::formula(model)[[3L]]), names(sample)))
.columns_of.gam <- function(model, sample) .known_columns(names(model$var.summary), model$xlevels)
.columns_of.rpart <- function(model, sample) .with_levels(model, sample, attr(model, "xlevels"))
.columns_of.randomForest <- function(model, sample) {
  levels <- model$forest$xlevels
  names <- if (is.null(names(levels))) rownames(model$importance) else names(levels)
  if (is.null(model$terms)) .known_columns(names, stats::setNames(levels, names), plain = TRUE) else .with_levels(model, sample, levels)
}
.columns_of.ranger <- function(model, sample) .known_columns(model$forest$independent.variable.names, model$forest$covariate.levels, plain = TRUE)
.columns_of.gbm <- function(model, sample) {
  levels <- stats::setNames(model$var.levels, model$var.names)
  levels <- levels[model$var.type > 0 | vapply(levels, is.character, NA)]
  names <- if (is.null(model$Terms)) model$var.names else .formula_columns(stats::delete.response(model$Terms), sample)
  .known_columns(names, levels, plain = TRUE)
}
.columns_of.glmnet <- function(model, sample) {
  beta <- if (is.list(model$beta)) model$beta[[1]] else model$beta
  .matrix_columns(rownames(beta), nrow(beta))
}
.columns_of.cv.glmnet <- function(model, sample) .columns_of(model$glmnet.fit, sample)
.columns_of.kmeans <- function(model, sample) .matrix_columns(colnames(model$centers), ncol(model$centers))
.columns_of.prcomp <- function(model, sample) .matrix_columns(rownames(model$rotation), nrow(model$rotation))
.columns_of.lda <- function(model, sample) {
  if (is.null(model$terms)) .matrix_columns(colnames(model$means), ncol(model$means)) else .columns_of.default(model, sample)
}
.columns_of.qda <- .columns_of.lda
.columns_of.svm <- function(model, sample) {
  if (is.null(model$terms)) .matrix_columns(colnames(model$SV), ncol(model$SV)) else .columns_of.default(model, sample)
}
.columns_of.nnet <- function(model, sample) {
  if (is.null(model$terms)) .matrix_columns(model$coefnames, model$n[1]) else .columns_of.default(model, sample)
}
.columns_of.naiveBayes <- function(model, sample) {
  factors <- vapply(model$tables, function(t) !is.null(colnames(t)), NA)
  .known_columns(names(model$tables), lapply(model$tables[factors], colnames), plain = TRUE)
}
.columns_of.train <- function(model, sample) {
  if (inherits(model, "train.formula")) return(.with_levels(model, sample, model$xlevels))
  .known_columns(names(model$ptype), Filter(Negate(is.null), lapply(model$ptype, levels)))
}

.with_levels <- function(model, sample, levels) {
  .known_columns(.formula_columns(stats::delete.response(model$terms), sample, model$call), levels)
}

# Models fitted on a matrix: its column names, else x1, x2, ...
.matrix_columns <- function(names, count) .known_columns(if (is.null(names)) paste0("x", seq_len(count)) else names, plain = TRUE)

# -------------------------------------------------- fields of a signature

# A field: the column, its dtype, its missing rule. Levels are the model's, else those of the sample's factor.
.fields <- function(model, sample) {
  known <- .columns_of(model, sample)
  absent <- setdiff(known$names, names(sample))
  mlb_stop_if_any(if (length(absent)) paste0("the sample has no column ", paste(sQuote(absent, FALSE), collapse = ", ")),
    "pass rows of the training data, with every column the model reads")
  lapply(known$names, function(name) .field(name, sample[[name]], known$levels[[name]], known$plain))
}

.field <- function(name, values, levels, plain) {
  categorical <- function(levels) list(column = .column(name, .level_values(levels), is.ordered(values)), dtype = "int32")
  number <- function(unit = NULL) list(column = .column(name, unit = unit), dtype = "float64")
  if (length(levels)) return(categorical(levels))
  if (is.factor(values)) return(categorical(base::levels(values)))
  if (is.logical(values) && !plain) return(categorical(c("FALSE", "TRUE")))
  if (is.character(values)) return(list(column = .column(name), dtype = "string"))
  if (inherits(values, "Date")) return(number("date"))
  if (inherits(values, "POSIXct")) return(number("timestamp"))
  if ((is.numeric(values) || is.logical(values)) && is.null(dim(values))) return(number())
  mlb_stop("InputError", paste0("column ", sQuote(name, FALSE), " of the sample is a ", class(values)[1]), "pass vectors and factors")
}

.level_values <- function(levels) if (setequal(levels, c("FALSE", "TRUE"))) levels == "TRUE" else levels

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
