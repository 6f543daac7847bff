# How a fitted R model is asked, and what of its answer is which output: one S3 method a calling convention.
# `mlb_answers(model, newdata, wanted, options, levels)` returns a list with at least the wanted outputs. A class of your
# own joins with one method. The worker and the R package `mlbridge` share this file.

mlb_answers <- function(model, newdata, wanted = "prediction", options = list(), levels = NULL) UseMethod("mlb_answers")

# Some packages break ties at random: each question starts from the state of `set.seed(0)` in a fresh process, whatever
# generator a model chose before. Putting `.Random.seed` back would not do: randomForest's C code never reads it.
same_start <- function() {
  kind <- globalenv()$.Random.seed[1L]
  # R's own generators; naming them costs seven times as much
  if (is.null(kind) || kind != 10403L) set.seed(0, "default", "default", "default") else set.seed(0)
}

.ask <- function(...) {
  same_start()
  predict(...)
}

.matrix_of <- function(newdata, names) {
  x <- if (is.matrix(newdata)) newdata else as.matrix(newdata)
  if (is.null(names)) dimnames(x) <- NULL
  x
}

.plain <- function(v) {  # data frames, one-column matrices and n x k x 1 arrays as vectors or matrices
  if (is.data.frame(v)) v <- if (length(v) == 1L) v[[1]] else as.matrix(v)
  d <- dim(v)
  if (length(d) == 3L && d[3] == 1L) v <- array(v, d[1:2], dimnames(v)[1:2])
  if (length(dim(v)) == 1L || (length(dim(v)) == 2L && ncol(v) == 1L)) v <- as.vector(v)
  v
}

# Probabilities as rows x classes, in level order, whatever shape one row or two classes gave them.
.chances <- function(p, n, levels) {
  p <- .plain(p)
  k <- length(levels)
  if (is.null(dim(p))) {
    if (length(p) == n && k == 2L) p <- cbind(1 - as.vector(p), as.vector(p))
    else if (k && length(p) %% k == 0) p <- matrix(p, ncol = k, dimnames = list(NULL, if (length(p) == k) names(p)))
    else p <- as.matrix(p)
  }
  given <- tolower(colnames(p))
  if (length(given) && setequal(given, tolower(levels))) p <- p[, match(tolower(levels), given), drop = FALSE]
  p
}

.two <- function(p, wanted, levels) {
  p <- as.vector(.plain(p))
  list(label = levels[1L + (p > 0.5)], probabilities = cbind(1 - p, p))
}

.one <- function(value, wanted) stats::setNames(list(.plain(value)), setdiff(wanted, c("label", "probabilities"))[1])

.classes <- function(model, newdata, wanted, levels, label, chances) {
  out <- list()
  if ("label" %in% wanted) out$label <- .plain(label())
  if ("probabilities" %in% wanted) out$probabilities <- .chances(chances(), nrow(newdata), levels)
  out
}

.classifies <- function(wanted) any(c("label", "probabilities") %in% wanted)

mlb_answers.default <- function(model, newdata, wanted = "prediction", options = list(), levels = NULL) {
  type <- options[["type"]]
  first <- if (is.null(type)) .ask(model, newdata) else .ask(model, newdata, type = type)
  if (!.classifies(wanted)) {
    if (is.list(first) && !is.data.frame(first)) first <- first[[intersect(c(wanted, "predictions", "fit"), names(first))[1]]]
    return(.one(first, wanted))
  }
  try_types <- function(types) {
    for (t in types) {
      got <- tryCatch(.ask(model, newdata, type = t), error = function(e) NULL)
      if (!is.null(got)) return(got)
    }
    stop("predict of a ", class(model)[1], " gives no ", paste(wanted, collapse = " and "), "; the signature asks for it")
  }
  .classes(model, newdata, wanted, levels,
    function() if (is.factor(first) || is.character(first) || is.logical(first)) first
      else if (is.list(first) && !is.null(first$class)) first$class else try_types("class"),
    function() if (is.list(first) && !is.null(first$posterior)) first$posterior
      else if (is.matrix(first) && is.numeric(first)) first else try_types(c("prob", "probs", "probabilities", "probability", "posterior", "raw", "response")))
}

mlb_answers.lm <- function(model, newdata, wanted = "prediction", options = list(), levels = NULL) .one(.ask(model, newdata), wanted)

mlb_answers.glm <- function(model, newdata, wanted = "prediction", options = list(), levels = NULL) {
  type <- if (is.null(options[["type"]])) "response" else options[["type"]]
  p <- .ask(model, newdata, type = type)
  if (.classifies(wanted)) .two(p, wanted, levels) else .one(p, wanted)
}

mlb_answers.rpart <- function(model, newdata, wanted = "prediction", options = list(), levels = NULL) {
  if (!.classifies(wanted)) .one(.ask(model, newdata), wanted)
  else .classes(model, newdata, wanted, levels, function() .ask(model, newdata, type = "class"), function() .ask(model, newdata, type = "prob"))
}

mlb_answers.randomForest <- function(model, newdata, wanted = "prediction", options = list(), levels = NULL) {
  if (!.classifies(wanted)) .one(.ask(model, newdata), wanted)
  else .classes(model, newdata, wanted, levels, function() .ask(model, newdata), function() .ask(model, newdata, type = "prob"))
}

mlb_answers.ranger <- function(model, newdata, wanted = "prediction", options = list(), levels = NULL) {
  got <- .ask(model, data = newdata, num.threads = 1)$predictions
  if (!.classifies(wanted)) return(.one(got, wanted))
  .classes(model, newdata, wanted, levels,
    function() if (is.matrix(got)) levels[max.col(.chances(got, nrow(newdata), levels), "first")] else got, function() got)
}

mlb_answers.gbm <- function(model, newdata, wanted = "prediction", options = list(), levels = NULL) {
  type <- if (is.null(options[["type"]])) "response" else options[["type"]]
  trees <- options[["n.trees"]]
  p <- if (is.null(trees)) .ask(model, newdata, type = type) else .ask(model, newdata, n.trees = trees, type = type)
  if (!.classifies(wanted)) return(.one(p, wanted))
  if (length(dim(p)) < 2L) return(.two(p, wanted, levels))
  chances <- .chances(p, nrow(newdata), levels)
  list(label = levels[max.col(chances, "first")], probabilities = chances)
}

.glmnet <- function(model, newdata, wanted, options, levels) {
  x <- data.matrix(newdata)
  s <- options[["s"]]
  ask <- function(type) if (is.null(s)) .ask(model, x, type = type) else .ask(model, x, s = s, type = type)
  type <- if (is.null(options[["type"]])) "response" else options[["type"]]
  if (!.classifies(wanted)) return(.one(ask(type), wanted))
  p <- ask("response")
  if (length(dim(p)) < 3L) return(c(.two(p, wanted, levels)["probabilities"], list(label = as.vector(ask("class")))))
  .classes(model, newdata, wanted, levels, function() as.vector(ask("class")), function() p)
}
mlb_answers.glmnet <- function(model, newdata, wanted = "prediction", options = list(), levels = NULL) .glmnet(model, newdata, wanted, options, levels)
mlb_answers.cv.glmnet <- mlb_answers.glmnet

mlb_answers.nnet <- function(model, newdata, wanted = "prediction", options = list(), levels = NULL) {
  if (is.null(model$terms)) newdata <- .matrix_of(newdata, model$coefnames)
  if (!.classifies(wanted)) return(.one(.ask(model, newdata), wanted))
  if (is.null(model$lev)) return(.two(.ask(model, newdata), wanted, levels))
  .classes(model, newdata, wanted, levels, function() .ask(model, newdata, type = "class"), function() .ask(model, newdata, type = "raw"))
}
mlb_answers.multinom <- function(model, newdata, wanted = c("label", "probabilities"), options = list(), levels = model$lev)
  .classes(model, newdata, wanted, levels, function() .ask(model, newdata, type = "class"), function() .ask(model, newdata, type = "probs"))
mlb_answers.polr <- mlb_answers.multinom

mlb_answers.lda <- function(model, newdata, wanted = c("label", "probabilities"), options = list(), levels = model$lev) {
  if (is.null(model$terms)) newdata <- .matrix_of(newdata, colnames(model$means))
  got <- .ask(model, newdata)
  .classes(model, newdata, wanted, levels, function() got$class, function() got$posterior)
}
mlb_answers.qda <- mlb_answers.lda

mlb_answers.svm <- function(model, newdata, wanted = "prediction", options = list(), levels = NULL) {
  if (is.null(model$terms)) newdata <- .matrix_of(newdata, colnames(model$SV))
  if (!.classifies(wanted)) return(.one(.ask(model, newdata), wanted))
  .classes(model, newdata, wanted, levels, function() .ask(model, newdata),
    function() attr(.ask(model, newdata, probability = TRUE), "probabilities"))
}

mlb_answers.naiveBayes <- function(model, newdata, wanted = c("label", "probabilities"), options = list(), levels = model$levels)
  .classes(model, newdata, wanted, levels, function() .ask(model, newdata, type = "class"), function() .ask(model, newdata, type = "raw"))

mlb_answers.train <- function(model, newdata, wanted = "prediction", options = list(), levels = NULL) {
  ask <- function(...) if (inherits(model, "train.formula")) .ask(model, newdata, ...) else .ask(model, newdata, na.action = stats::na.pass, ...)
  if (!.classifies(wanted)) return(.one(ask(), wanted))
  .classes(model, newdata, wanted, levels, function() ask(), function() as.matrix(ask(type = "prob")))
}

mlb_answers.coxph <- function(model, newdata, wanted = "score", options = list(), levels = NULL)
  .one(.ask(model, newdata, type = if (is.null(options[["type"]])) "lp" else options[["type"]]), wanted)

mlb_answers.kmeans <- function(model, newdata, wanted = "cluster", options = list(), levels = NULL) {
  x <- data.matrix(newdata)
  apart <- vapply(seq_len(nrow(model$centers)), function(k) rowSums(sweep(x, 2L, model$centers[k, ])^2), numeric(nrow(x)))
  .one(max.col(-matrix(apart, nrow(x)), "first"), wanted)
}

mlb_answers.prcomp <- function(model, newdata, wanted = "transformed", options = list(), levels = NULL)
  stats::setNames(list(.ask(model, .matrix_of(newdata, rownames(model$rotation)))), wanted[1])
