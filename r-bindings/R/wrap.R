#' Make a model of an object that is already here
#'
#' @param model A fitted model with a `predict` method, or a function from a named list of arrays to a named list of arrays.
#' @param sample A data frame of rows as in training, factors with their training levels. Where it is left out, the data
#'   the model was fitted on is used, if the model still knows it.
#' @param signature An `mlb_signature` or its JSON text; a function needs one.
#' @param options What predict is asked with, as in [mlb_save()].
#' @param name The model's name.
#' @return A model, as [mlb_load()] gives one: ask it with [predict()][predict.mlb_model], serve it with [mlb_serve()].
#' @details
#' A function is called with doubles, integer codes (-1 missing) and text, in the shapes of the signature, and answers the
#' same. Whole numbers beyond 2^53 are decimal text.
#' @examples
#' model <- mlb_wrap(lm(dist ~ speed, cars), sample = cars)
#' predict(model, data.frame(speed = 10))
#'
#' twice <- mlb_wrap(function(feeds) list(y = 2 * feeds$x), signature = paste0('{"version":1,',
#'   '"inputs":[{"name":"x","dtype":"float64","shape":["rows"]}],"outputs":[{"name":"y","dtype":"float64","shape":["rows"]}]}'))
#' predict(twice, list(x = 1:3))
#' @export
mlb_wrap <- function(model, sample = NULL, signature = NULL, options = list(), name = "model") {
  if (is.character(signature)) signature <- .signature_of_json(signature)
  if (is.function(model)) {
    if (is.null(signature)) mlb_stop("SignatureError", "a function does not tell its signature", "pass signature =")
    return(.new_model(name, signature, .local_session(function(feeds, wanted) model(feeds)[wanted], "the function itself")))
  }
  .check_options(options)
  if (is.null(signature)) signature <- mlb_signature(model, sample = if (is.null(sample)) .training_data(model) else sample, options = options)
  held <- .hold(model, signature, options)
  .new_model(name, signature, .local_session(function(feeds, wanted) answer_feeds(held, feeds, wanted), "the model itself, in this R"))
}

.local_session <- function(answer, route) list(
  answer = answer,
  run = function(feeds, wanted, timeout_s) .within(timeout_s, answer(feeds, wanted)),
  close = function() NULL,
  describe = function() list(runtime = "r", device = "this R", route = route, trust = "a live object", parity = "the native model itself"))

# The data a model was fitted on, as its call names it.
.training_data <- function(model) {
  kept <- if (is.list(model)) model[["trainingData"]]
  if (is.data.frame(kept)) return(kept)
  call <- if (is.list(model)) model[["call"]]
  data <- if (is.call(call)) call[["data"]]
  where <- tryCatch(environment(stats::formula(model)), error = function(e) NULL)
  found <- if (!is.null(data)) tryCatch(eval(data, if (is.null(where)) globalenv() else where), error = function(e) NULL)
  if (!is.data.frame(found)) mlb_stop("InputError", paste0("the data this ", class(model)[1], " was fitted on is not known"),
    "wrap it first: mlb_wrap(model, sample = some rows of the training data)")
  found
}
