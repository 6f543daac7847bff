# A fitted model without its training data. Each method drops what predict on new data does not read; what it saved is
# compared by mlb_save(), which keeps the whole model where an answer would change.

.strip <- function(model) UseMethod(".strip")

.strip.default <- function(model) model

.drop <- function(model, ...) {
  for (name in c(...)) model[[name]] <- NULL
  model
}

# The model frame without rows keeps the classes and levels of the columns; of the decomposition predict reads the rank,
# the pivot and the triangle.
.strip.lm <- function(model) {
  if (is.data.frame(model$model)) model$model <- model$model[0L, , drop = FALSE]
  if (!is.null(model$qr$qr)) model$qr$qr <- model$qr$qr[seq_len(min(dim(model$qr$qr))), , drop = FALSE]
  .drop(model, "x", "y", "data", "residuals", "fitted.values", "effects", "linear.predictors", "weights", "prior.weights", "na.action")
}
.strip.gam <- function(model) model
.strip.nls <- function(model) model  # its functions hold the data they were fitted on, and predict asks them
.strip.rpart <- function(model) .drop(model, "y", "x", "model", "where", "na.action")
.strip.randomForest <- function(model) .drop(model, "y", "predicted", "votes", "oob.times", "proximity", "localImportance", "test", "inbag", "na.action")
.strip.ranger <- function(model) .drop(model, "predictions", "inbag.counts")
.strip.gbm <- function(model) .drop(model, "data", "fit")
.strip.cv.glmnet <- function(model) .drop(model, "fit.preval", "foldid")
.strip.nnet <- function(model) .drop(model, "fitted.values", "residuals", "model", "weights", "na.action")
.strip.polr <- function(model) .drop(model, "model", "fitted.values", "lp", "na.action")
.strip.svm <- function(model) .drop(model, "fitted", "residuals", "decision.values", "na.action")
.strip.kmeans <- function(model) .drop(model, "cluster")
.strip.prcomp <- function(model) .drop(model, "x")
.strip.train <- function(model) {
  model$control[c("index", "indexOut", "indexFinal", "seeds")] <- list(NULL)
  .drop(model, "trainingData", "pred", "resample", "resampledCM")
}

# Formulas remember where they were written, and with it every object that was there: an environment of their own holds
# only what they name. `columns` are names that newdata holds.
.shed_environments <- function(x, columns, depth = 0L) {
  if (depth > 8L) return(x)  # no fitted model keeps a formula deeper
  if (inherits(x, "formula")) {
    env <- attr(x, ".Environment")
    if (is.environment(env) && !.lasts(env)) attr(x, ".Environment") <- .small_environment(x, env, columns)
  }
  held <- attributes(x)
  for (name in setdiff(names(held), c("names", "class", "dim", "dimnames", "row.names", "levels", ".Environment")))
    if (is.list(held[[name]]) || inherits(held[[name]], "formula")) attr(x, name) <- .shed_environments(held[[name]], columns, depth + 1L)
  if (is.list(x) && !is.data.frame(x)) {
    kept <- attributes(x)
    for (i in seq_along(x)) if (is.list(x[[i]]) || inherits(x[[i]], "formula") || is.data.frame(x[[i]])) {
      one <- .shed_environments(.subset2(x, i), columns, depth + 1L)
      x <- unclass(x)
      x[[i]] <- one
    }
    attributes(x) <- kept
  } else if (is.data.frame(x) && !is.null(attr(x, "terms"))) attr(x, "terms") <- .shed_environments(attr(x, "terms"), columns, depth + 1L)
  x
}

# The global environment, packages and namespaces are written by name.
.lasts <- function(env) identical(env, globalenv()) || identical(env, baseenv()) || identical(env, emptyenv()) || isNamespace(env) || !is.null(attr(env, "name"))

.small_environment <- function(formula, env, columns) {
  small <- new.env(parent = globalenv())
  for (name in setdiff(all.names(formula, unique = TRUE), columns)) {
    at <- env
    while (!.lasts(at) && !exists(name, envir = at, inherits = FALSE)) at <- parent.env(at)
    if (!.lasts(at)) assign(name, get(name, envir = at), envir = small)
  }
  small
}
