# A fitted model run in this R: feeds in, outputs out, as the worker does it with the same functions.

# What answering needs besides the model, worked out once.
.hold <- function(model, signature, options = list()) {
  layout <- .layout(signature)
  classes <- column_classes(model)
  layout$blocks <- input_blocks(layout, classes)
  list(model = model, signature = signature, options = options, layout = layout, classes = classes)
}

# Outputs by name for arrays that satisfy the signature.
answer_feeds <- function(held, feeds, wanted = held$layout$out.name) {
  layout <- held$layout
  places <- match(wanted, layout$out.name)
  if (anyNA(places)) mlb_stop("InputError", paste("there is no output", wanted[is.na(places)][1]))
  newdata <- newdata_of(feeds[layout$in.name], layout, held$classes)
  if (identical(nrow(newdata), 0L)) return(stats::setNames(lapply(places, function(i) .no_rows(layout, i)), wanted))
  labels <- Filter(length, c(layout$out.levels, layout$out.columns[layout$out.name == "probabilities"]))
  answer <- .ask_model(held$model, newdata, wanted, held$options, if (length(labels)) labels[[1]])
  absent <- setdiff(wanted, names(answer))
  if (length(absent)) mlb_stop("InferenceError", paste0("the model gives no output ", paste(absent, collapse = ", "), "; it gives ", paste(names(answer), collapse = ", ")))
  out <- lapply(places, function(i) output_of(answer[[layout$out.name[i]]], layout$out.levels[[i]], newdata,
    if (layout$out.rank[i] == 2L) max(layout$out.width[i], 1L) else NA))
  stats::setNames(out, wanted)
}

# The methods set the seed, for packages that break ties at random: the caller's own stream of numbers stays as it was.
.ask_model <- function(model, newdata, wanted, options, levels) {
  seed <- get0(".Random.seed", envir = globalenv(), inherits = FALSE)
  on.exit(if (is.null(seed)) suppressWarnings(rm(".Random.seed", envir = globalenv())) else assign(".Random.seed", seed, envir = globalenv()))
  mlb_answers(model, newdata, wanted, options, levels)
}

.no_rows <- function(layout, i) {
  type <- if (layout$out.dtype[i] == "string") character() else if (length(layout$out.levels[[i]])) integer() else double()
  if (layout$out.rank[i] < 2L) type else matrix(type, 0L, max(layout$out.width[i], 0L))
}

#' How a class of models is asked
#'
#' The generic behind every answer of an R model, here and in the R workers that Python starts. A class of your own whose
#' `predict(model, newdata)` answers a number or a factor a row needs no method. Any other joins with one: a method in
#' your package (named in `mlb_save(packages = )`), registered as `S3method(mlbridge::mlb_answers, yourclass)`.
#'
#' @param model A fitted model.
#' @param newdata A data frame with the training columns, or a matrix for a model trained on a bare one.
#' @param wanted Names of outputs: some of `prediction`, `label`, `probabilities`, `cluster`, `score`, `transformed`, or your own.
#' @param options What the caller asked for: a list with some of `type`, `s`, `n.trees`, `as`.
#' @param levels The classes of the label, in order.
#' @return A list with at least the wanted outputs, one value or one row of a matrix for each row of `newdata`.
#' @name mlb_answers
#' @usage mlb_answers(model, newdata, wanted = "prediction", options = list(), levels = NULL)
#' @examples
#' fit <- structure(list(mean = 3), class = "constant")
#' mlb_answers.constant <- function(model, newdata, ...) list(prediction = rep(model$mean, nrow(newdata)))
#' mlb_answers(fit, data.frame(x = 1:2))
NULL
