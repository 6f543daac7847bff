# What a fitted model answers, as the outputs of a signature: one method of `.outputs_of` a class. The names are the same
# in every language: prediction; label and probabilities; cluster; score; transformed. The worker and the R package
# `mlbridge` share this file.

# -------------------------------------------------- a column and a tensor of a signature, as nested lists

.new_column <- function(name, categories = NULL, ordered = FALSE, unit = NULL, unknown = NULL) {
  column <- list(name = name)
  if (!is.null(categories)) column$categories <- as.list(unname(categories))
  if (ordered) column$ordered <- TRUE
  if (!is.null(unknown)) column$unknown <- unknown
  if (!is.null(unit)) column$unit <- unit
  column
}

.spec <- function(name, dtype, shape, columns = list(), missing = "refuse") {
  spec <- list(name = name, dtype = dtype, shape = as.list(shape))
  if (length(columns)) spec$columns <- unname(columns)
  if (missing != "refuse") spec$missing <- missing
  spec
}

.levels_of <- function(column) {
  if (is.null(column$categories)) return(NULL)
  unlist(column$categories)
}

.level_texts <- function(column) {
  levels <- .levels_of(column)
  if (is.numeric(levels)) format(levels, scientific = FALSE, trim = TRUE, digits = 15) else as.character(levels)
}

.level_values <- function(levels) if (setequal(levels, c("FALSE", "TRUE"))) levels == "TRUE" else levels

# -------------------------------------------------- by class

.outputs_of <- function(model, ask, options) UseMethod(".outputs_of")

.prediction <- function(columns = NULL, name = "prediction", dtype = "float64") {
  if (is.null(columns)) return(list(.spec(name, dtype, list("rows"))))
  list(.spec(name, dtype, list("rows", length(columns)), lapply(columns, .new_column)))
}

# The label's classes are text, or whole numbers, or FALSE and TRUE; the columns of probabilities are those as text.
.classifier <- function(classes, outputs = c("label", "probabilities")) {
  classes <- if (is.character(classes)) .level_values(classes) else classes
  text <- if (is.logical(classes)) tolower(classes) else .level_texts(.new_column("label", classes))
  both <- list(label = .spec("label", "int32", list("rows"), list(.new_column("label", classes))),
    probabilities = .spec("probabilities", "float64", list("rows", length(classes)), lapply(text, .new_column)))
  unname(both[outputs])
}

.as_classifier <- function(options) identical(options[["as"]], "classifier")

# A class not listed here is asked once: a factor is a label, a number or a matrix of them a prediction.
.outputs_of.default <- function(model, ask, options) {
  value <- ask("prediction")[["prediction"]]
  if (is.factor(value)) return(.classifier(levels(value), "label"))
  if (is.logical(value)) return(.classifier(c(FALSE, TRUE), "label"))
  if (is.numeric(value) && length(dim(value)) < 2L) return(.prediction())
  if (is.numeric(value)) return(if (is.null(colnames(value))) list(.spec("prediction", "float64", list("rows", ncol(value)))) else .prediction(colnames(value)))
  mlb_stop("SignatureError", paste0("predict of a ", paste(class(model), collapse = "/"), " answers a ", class(value)[1]),
    "write a method of mlb_answers for the class, or pass signature =")
}

.outputs_of.lm <- function(model, ask, options) {
  if (!is.matrix(model$coefficients)) return(.prediction())
  names <- colnames(model$coefficients)
  nameless <- which(!nzchar(names))
  names[nameless] <- paste0("response_", nameless)
  .prediction(names)
}

.outputs_of.glm <- function(model, ask, options) {
  if (!.as_classifier(options)) return(.prediction())
  response <- if (is.data.frame(model$model)) model$model[[1]]
  if (!model$family$family %in% c("binomial", "quasibinomial"))
    mlb_stop("InputError", paste("a", model$family$family, "model is no classifier"), "leave out as = \"classifier\"")
  if (is.factor(response) && nlevels(response) == 2L) return(.classifier(levels(response)))
  if (is.logical(response)) return(.classifier(c(FALSE, TRUE)))
  if (is.numeric(response) && is.null(dim(response)) && all(response %in% 0:1)) return(.classifier(0:1))
  mlb_stop("InputError", "the model does not hold the two classes of its response", "fit it with model = TRUE, on a factor")
}

.outputs_of.rpart <- function(model, ask, options) {
  if (model$method == "class") .classifier(attr(model, "ylevels")) else .prediction(name = if (model$method == "exp") "score" else "prediction")
}

.outputs_of.randomForest <- function(model, ask, options) if (model$type == "classification") .classifier(model$classes) else .prediction()

.outputs_of.ranger <- function(model, ask, options) {
  forest <- model$forest
  present <- sort(forest$class.values)
  switch(model$treetype,
    Classification = .classifier(if (is.null(forest$levels)) present else forest$levels, "label"),
    `Probability estimation` = .classifier(if (is.null(forest$levels)) present else forest$levels[present], "probabilities"),
    .prediction())
}

.outputs_of.gbm <- function(model, ask, options) {
  kind <- model$distribution$name
  if (kind == "multinomial") return(if (identical(options[["type"]], "link")) .prediction(model$classes) else .classifier(model$classes, "probabilities"))
  if (.as_classifier(options)) .classifier(0:1) else .prediction(name = if (kind == "coxph") "score" else "prediction")
}

.outputs_of.glmnet <- function(model, ask, options) if (inherits(model, "multnet") || .as_classifier(options)) .classifier(model$classnames) else .prediction()
.outputs_of.cv.glmnet <- function(model, ask, options) .outputs_of(model$glmnet.fit, ask, options)

.outputs_of.nnet <- function(model, ask, options) {
  if (!is.null(model$lev)) return(.classifier(model$lev))
  if (model$n[3] == 1L) .prediction() else list(.spec("prediction", "float64", list("rows", as.integer(model$n[3]))))
}
.outputs_of.multinom <- function(model, ask, options) .classifier(if (is.null(model$lev)) model$lab else model$lev)  # counts have labels alone
.outputs_of.lda <- function(model, ask, options) .classifier(model$lev)
.outputs_of.qda <- .outputs_of.lda
.outputs_of.polr <- .outputs_of.lda
.outputs_of.naiveBayes <- function(model, ask, options) .classifier(model$levels)

.outputs_of.svm <- function(model, ask, options) {
  if (model$type < 2) .classifier(model$levels, c("label", if (isTRUE(model$compprob)) "probabilities")) else if (model$type == 2) .classifier(c(FALSE, TRUE), "label") else .prediction()
}

.outputs_of.coxph <- function(model, ask, options) .prediction(name = "score")
.outputs_of.kmeans <- function(model, ask, options) .prediction(name = "cluster", dtype = "int64")
.outputs_of.prcomp <- function(model, ask, options) .prediction(colnames(model$rotation), name = "transformed")

.outputs_of.train <- function(model, ask, options) {
  if (model$modelType == "Regression") return(.prediction())
  chances <- tryCatch(ask(c("label", "probabilities"), model$levels), error = function(e) NULL)
  .classifier(model$levels, if (is.null(chances)) "label" else c("label", "probabilities"))
}
