#' Save a fitted model as a package
#'
#' Writes a `.mlb`: the model without its training data, its signature with the levels of its factors, and golden rows
#' with the answers R gives. Python and the JVM read it without R: they convert the model and verify the conversion
#' against those answers. What does not convert is run in R, and that needs `trust = "code"` when it is loaded.
#'
#' @param model A fitted model with a `predict` method.
#' @param path The file or folder to make; without its ending it is the package's name.
#' @param sample A data frame of rows as in training, factors with their training levels; up to `samples` of them are kept.
#' @param ... Not used.
#' @param options What predict is asked with: some of `type`, `s`, `n.trees`, and `as = "classifier"` for binomial
#'   models that shall answer labels and probabilities.
#' @param signature An `mlb_signature`, where the one [mlb_signature()] finds is not right.
#' @param packages R packages the model needs besides those that can be seen from it.
#' @param description,version Texts for the manifest.
#' @param samples How many golden rows to keep, at most 64; 0 keeps none.
#' @param strip Whether to drop the training data.
#' @param form `"file"` (one zip) or `"folder"`.
#' @param overwrite Whether an existing package may be replaced.
#' @return The number of golden rows, invisibly.
#' @details
#' The model is saved whole, with a warning, where it would answer its sample differently without its training data.
#' Some golden rows are rows of the sample with one value taken out, where the model takes missing values: a conversion
#' must answer those too.
#' @examples
#' fit <- glm(am ~ wt + factor(cyl), binomial, mtcars)
#' path <- tempfile(fileext = ".mlb")
#' mlb_save(fit, path, sample = mtcars)
#'
#' model <- mlb_load(path, trust = "code")
#' predict(model, mtcars[1:3, ])
#' @export
mlb_save <- function(model, path, sample = NULL, ..., options = list(), signature = NULL, packages = character(),
                     description = "", version = "1", samples = 64L, strip = TRUE, form = c("file", "folder"), overwrite = FALSE) {
  if (...length()) mlb_stop("InputError", "mlb_save has no more arguments than it documents", "see ?mlb_save")
  form <- match.arg(form)
  .check_options(options)
  sample <- .checked_sample(sample, model)
  if (is.null(signature)) signature <- mlb_signature(model, sample = sample, options = options)
  feeds <- feeds_of(sample, signature)
  kept <- if (strip) .stripped(model, signature, feeds, options) else model
  rows <- .golden_rows(feeds, signature, samples)
  outputs <- if (is.null(rows)) NULL else suppressWarnings(answer_feeds(.hold(kept, signature, options), rows))
  name <- tools::file_path_sans_ext(basename(path))
  homes <- .homes_of(model)
  .write_package(path, form = form, overwrite = overwrite, fill = function(tree) {
    folder <- file.path(tree, "model", "native")
    dir.create(folder, recursive = TRUE)
    saveRDS(kept, file.path(folder, "model.rds"))
    if (!is.null(rows)) .write_golden(tree, rows, outputs, signature)
    writeLines(enc2utf8(.card(name, description, model, signature)), file.path(tree, "README.md"), useBytes = TRUE)
    .manifest(name, version, description, signature, model, options, union(packages, homes$attach), homes$packages)
  })
  invisible(if (is.null(rows)) 0L else NROW(rows[[1]]))
}

.check_options <- function(options) {
  odd <- setdiff(names(options), c("type", "s", "n.trees", "as"))
  if (!is.list(options) || (length(options) && is.null(names(options)))) odd <- "without a name"
  mlb_stop_if_any(if (length(odd)) paste("there is no option", paste(sQuote(odd, FALSE), collapse = ", ")), "options are a list of some of type, s, n.trees, as")
}

# The model without its training data, if that changes no answer.
.stripped <- function(model, signature, feeds, options) {
  columns <- unlist(lapply(signature$inputs, function(s) lapply(s$columns, `[[`, "name")))
  less <- tryCatch(.shed_environments(.strip(model), columns), error = function(e) model)
  before <- answer_feeds(.hold(model, signature, options), feeds)
  after <- tryCatch(suppressWarnings(answer_feeds(.hold(less, signature, options), feeds)), error = function(e) NULL)
  if (identical(before, after)) return(less)
  warning("the model is saved with its training data: without it, it answers differently", call. = FALSE)
  model
}

# Real rows; behind them, where columns may be missing, real rows that lack one value.
.golden_rows <- function(feeds, signature, samples) {
  n <- min(NROW(feeds[[1]]), 64L, as.integer(samples))
  if (n < 1L || !.batched(signature)) return(NULL)
  take <- function(rows) lapply(feeds, function(f) if (is.null(dim(f))) f[rows] else f[rows, , drop = FALSE])
  whole <- take(seq_len(n))
  may <- Filter(function(s) identical(s$missing, "allow"), signature$inputs)
  names <- unlist(lapply(may, function(s) lapply(s$columns, `[[`, "name")))
  names <- utils::head(names, max(min(16L, 64L - n), if (samples >= 32L) 16L else 0L))
  if (!length(names)) return(whole)
  whole <- take(seq_len(min(n, 64L - length(names))))
  lacking <- lapply(seq_along(names), function(i) .without(take((i - 1L) %% n + 1L), signature, names[[i]]))
  stats::setNames(lapply(names(feeds), function(k) do.call(if (is.null(dim(feeds[[k]]))) c else rbind, lapply(c(list(whole), lacking), `[[`, k))), names(feeds))
}

.write_golden <- function(tree, feeds, outputs, signature) {
  folder <- file.path(tree, "samples")
  dir.create(folder)
  put <- function(name, type, tensors) {
    con <- file(file.path(folder, name), "wb")
    on.exit(close(con))
    if (!write_frame(con, type, tensors)) mlb_stop("InputError", "the golden rows are larger than a frame", "pass fewer samples")
  }
  put("inputs.mlbf", "RUN", .declared(feeds, signature$inputs))
  put("outputs.mlbf", "RESULT", .declared(outputs, signature$outputs))
}

# Values in the dtype their spec declares, where it is not R's own.
.declared <- function(values, specs) {
  for (spec in specs) if (!spec$dtype %in% c("float64", "int32", "string", "bool")) values[[spec$name]] <- typed(values[[spec$name]], spec$dtype)
  values
}

.manifest <- function(name, version, description, signature, model, options, attach, packages) {
  versions <- stats::setNames(lapply(packages, function(p) as.character(utils::packageVersion(p))), packages)
  keywords <- c(options, if (length(attach)) list(packages = as.list(attach)))
  object <- function(values) if (length(values)) values else stats::setNames(list(), character())
  list(format_version = .format_version, name = name, version = version,
    created = format(Sys.time(), "%Y-%m-%dT%H:%M:%S+00:00", tz = "UTC"), description = description, signature = unclass(signature),
    implementations = list(list(runtime = "r", path = "model/native/model.rds", format = "rds", options = object(keywords),
      requires = c(list(R = as.character(getRversion())), versions))),
    provenance = list(framework = "r", class = as.list(class(model)), language = R.version.string,
      writer = paste("mlbridge for R", utils::packageVersion("mlbridge"))))
}

# Packages whose predict methods the model's classes have, and those whose functions its formula names (to be attached).
.homes_of <- function(model) {
  home <- function(f) if (is.function(f)) environmentName(topenv(environment(f)))
  asked <- unlist(lapply(class(model), function(c) home(utils::getS3method("predict", c, optional = TRUE))))
  formula <- tryCatch(stats::formula(model), error = function(e) NULL)
  called <- setdiff(all.names(formula), all.vars(formula))
  named <- unlist(lapply(called, function(n) home(get0(n, envir = if (is.null(environment(formula))) globalenv() else environment(formula), mode = "function"))))
  inner <- if (inherits(model, "train")) .homes_of(model$finalModel)$packages
  ours <- c("", "base", "R_GlobalEnv", "mlbridge")
  list(attach = unique(setdiff(named, c(ours, "stats", "methods"))), packages = unique(setdiff(c(asked, named, inner), c(ours, "stats"))))
}

.card <- function(name, description, model, signature) {
  c(paste("#", name), "", description, "", paste0("A fitted R model of class ", paste(class(model), collapse = "/"), "."), "", "```", format(signature), "```", "",
    paste0("Python: `mlbridge.load(\"", name, ".mlb\")`. R: `mlbridge::mlb_load(\"", name, ".mlb\")`."))
}
