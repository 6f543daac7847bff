# The worker's loop: LOAD, RUN, CLOSE and PING answered one by one; what goes wrong is an ERROR frame.

# Which package a class's predict method lives in; what is not here is tried as it is.
.homes <- c(rpart = "rpart", randomForest = "randomForest", ranger = "ranger", gbm = "gbm", nnet = "nnet", multinom = "nnet", lda = "MASS",
  qda = "MASS", polr = "MASS", negbin = "MASS", rlm = "MASS", lqs = "MASS", svm = "e1071", naiveBayes = "e1071", glmnet = "glmnet",
  cv.glmnet = "glmnet", coxph = "survival", survreg = "survival", gam = "mgcv", bam = "mgcv", train = "caret", ksvm = "kernlab",
  kmeans = "stats", lme = "nlme", gls = "nlme", earth = "earth", cforest = "party", xgb.Booster = "xgboost")
.formula_homes <- c(ns = "splines", bs = "splines", Surv = "survival", strata = "survival", pspline = "survival")

.fail <- function(class, message, hint = NULL) stop(structure(class = c("mlbridge_failure", "error", "condition"),
  list(message = message, call = NULL, class = class, hint = hint)))

.attach <- function(packages) for (p in packages) {
  if (!suppressPackageStartupMessages(require(p, character.only = TRUE, quietly = TRUE, warn.conflicts = FALSE)))
    .fail("MissingDependencyError", paste0("the R package ", p, " is not installed"), paste0('Rscript -e \'install.packages("', p, '")\''))
}

.load_model <- function(tensors) {
  get <- function(name) tensors[[name]]$value
  options <- list()
  for (n in grep("^option[.]predict[.]", names(tensors), value = TRUE)) options[[sub("^option[.]predict[.]", "", n)]] <- get(n)
  path <- get("path")
  .attach(get("option.packages"))
  if (identical(get("format"), "r-script")) {
    room <- new.env(parent = globalenv())
    tryCatch(sys.source(path, room), error = function(e) .fail("ArtifactError", paste0("the script fails: ", conditionMessage(e))))
    if (!is.function(room$run)) .fail("ArtifactError", "the script defines no function run(newdata)", "define run <- function(newdata) list(name = values)")
    model <- room$run
  } else {
    model <- tryCatch(readRDS(path), error = function(e) .fail("ArtifactError", paste0("not a readable RDS file: ", conditionMessage(e))))
    .attach(unique(.homes[intersect(class(model), names(.homes))]))
    called <- tryCatch(all.names(stats::terms(model)), error = function(e) character())
    .attach(unique(.formula_homes[intersect(called, names(.formula_homes))]))
  }
  signature <- NULL
  if (is.null(tensors[["option.layout.in.name"]])) {
    if (is.function(model)) .fail("SignatureError", "a script does not tell its signature", "pass signature=...")
    signature <- tryCatch(infer_signature(model), error = function(e) .fail("SignatureError", conditionMessage(e), "pass signature=..."))
    return(list(signature = signature))
  }
  layout <- list(script = is.function(model))
  for (n in grep("^option[.]layout[.]", names(tensors), value = TRUE)) layout[[sub("^option[.]layout[.]", "", n)]] <- get(n)
  # levels travel as one list of texts with a count each
  part <- function(texts, counts) unname(split(texts, factor(rep(seq_along(counts), counts), levels = seq_along(counts))))
  layout$col.levels <- part(layout$col.levels, layout$col.nlevels)
  layout$out.levels <- part(layout$out.levels, layout$out.nlevels)
  layout$out.columns <- part(layout$out.columns, layout$out.ncolumns)
  list(model = model, options = options, layout = layout, classes = if (is.function(model)) character() else column_classes(model))
}

.empty <- function(held, i) {
  layout <- held$layout
  type <- if (layout$out.dtype[i] == "string") character() else if (length(layout$out.levels[[i]])) integer() else double()
  if (layout$out.rank[i] < 2L) type else matrix(type, 0L, max(layout$out.width[i], 0L))
}

.run_model <- function(held, tensors) {
  layout <- held$layout
  wanted <- if (is.null(tensors[["@outputs"]])) layout$out.name else tensors[["@outputs"]]$value
  places <- match(wanted, layout$out.name)
  if (anyNA(places)) .fail("InputError", paste("there is no output", wanted[is.na(places)][1]))
  feeds <- lapply(tensors[layout$in.name], `[[`, "value")
  for (f in feeds) if (inherits(f, "error")) .fail("InputError", conditionMessage(f))
  newdata <- newdata_of(feeds, layout, held$classes)
  if (identical(nrow(newdata), 0L)) return(stats::setNames(lapply(places, function(i) .empty(held, i)), wanted))
  levels <- unlist(c(layout$out.levels, layout$out.columns[layout$out.name == "probabilities"])[1])
  labelled <- which(lengths(layout$out.levels) > 0L)
  chances <- which(layout$out.name == "probabilities")
  levels <- if (length(labelled)) layout$out.levels[[labelled[1]]] else if (length(chances)) layout$out.columns[[chances[1]]]
  if (layout$script) {
    set.seed(0)
    answer <- held$model(newdata)
    if (!is.list(answer)) answer <- stats::setNames(list(answer), layout$out.name[1])
  } else answer <- mlb_answers(held$model, newdata, wanted, held$options, levels)
  absent <- setdiff(wanted, names(answer))
  if (length(absent)) stop("the model gives no output ", paste(absent, collapse = ", "), "; it gives ", paste(names(answer), collapse = ", "))
  out <- lapply(places, function(i) output_of(answer[[layout$out.name[i]]], layout$out.levels[[i]], newdata,
    if (layout$out.rank[i] == 2L) max(layout$out.width[i], 1L) else NA))
  stats::setNames(out, wanted)
}

.log <- function(level, text) {
  text <- gsub("[\r\n]+", paste0("\n", level), sub("\n+$", "", text))
  cat(level, text, "\n", sep = "", file = stderr())
}

# Evaluates with warnings and messages logged; an error comes back with R's trace.
.guarded <- function(work) {
  trace <- character()
  tryCatch(
    withCallingHandlers(
      allowInterrupts(work()),
      warning = function(w) {
        .log("<4>", conditionMessage(w))
        tryInvokeRestart("muffleWarning")
      },
      message = function(m) {
        .log("<6>", conditionMessage(m))
        tryInvokeRestart("muffleMessage")
      },
      error = function(e) {
        calls <- tryCatch(utils::head(sys.calls(), -2L), error = function(e) list())
        trace <<- vapply(utils::tail(calls, 30L), function(c) paste(deparse(c, nlines = 1L, width.cutoff = 120L), collapse = ""), "")
      }
    ),
    interrupt = function(e) structure(list(class = "CancelledError", message = "the call was interrupted"), class = "mlbridge_refusal"),
    error = function(e) {
      failure <- inherits(e, "mlbridge_failure")
      call <- if (!failure && !is.null(conditionCall(e))) paste0(" (in ", deparse(conditionCall(e), nlines = 1L)[1], ")") else ""
      structure(list(class = if (failure) e$class else "InferenceError", message = paste0(conditionMessage(e), call), hint = e$hint,
        condition = if (failure) character() else class(e), trace = paste(trace, collapse = "\n")), class = "mlbridge_refusal")
    }
  )
}

.answer <- function(con, id, got) {
  if (!inherits(got, "mlbridge_refusal")) {
    sent <- tryCatch(write_frame(con, "RESULT", got, id), mlbridge_gone = function(e) stop(e),
      error = function(e) structure(list(class = "InferenceError", message = conditionMessage(e)), class = "mlbridge_refusal"))
    if (isTRUE(sent)) return(invisible())
    got <- if (identical(sent, FALSE)) list(class = "BridgeError", message = "the answer is too large for a frame", code = 11L) else sent
  }
  text <- function(v) scalar(if (length(v)) paste(v, collapse = "\n") else "")
  error <- list(class = text(got$class), message = text(got$message))
  if (length(got$hint)) error$hint <- text(got$hint)
  if (length(got$condition)) error$condition <- as.character(got$condition)
  if (length(got$trace)) error$trace <- text(got$trace)
  if (length(got$code)) error$code <- scalar(as.integer(got$code))
  write_frame(con, "ERROR", error, id)
}

.connect <- function() {
  token <- readLines(input <- file("stdin"), 1L)
  close(input)
  port <- as.integer(sub(".*:", "", Sys.getenv("MLBRIDGE_ADDRESS")))
  con <- socketConnection("127.0.0.1", port, server = FALSE, blocking = TRUE, open = "r+b", timeout = 2592000L, options = "no-delay")
  writeBin(charToRaw(token), con)
  write_frame(con, "HELLO", list(protocol = scalar(1L), runtime = scalar("r"), device = scalar("r"),
    language_version = scalar(paste(R.version$major, R.version$minor, sep = ".")), pid = scalar(Sys.getpid())))
  con
}

serve <- function() {
  if (!isTRUE(l10n_info()[["UTF-8"]])) Sys.setlocale("LC_CTYPE", "C.UTF-8")
  options(warn = 1, keep.source = FALSE, error = NULL)
  suspendInterrupts({
    con <- .connect()
    models <- list()
    repeat {
      frame <- tryCatch(read_frame(con), mlbridge_gone = function(e) NULL)
      if (is.null(frame)) break
      if (frame$type == "PING") {
        # an interrupt that came too late for its call is forgotten here: the parent sends PING behind it
        tryCatch(allowInterrupts(Sys.sleep(0)), interrupt = function(e) NULL)
        frame$head[5] <- as.raw(.types[["PONG"]])
        writeBin(c(frame$head, frame$payload), con)
        flush(con)
        next
      }
      number <- function(name) as.character(if (is.null(frame$tensors[[name]])) 0 else frame$tensors[[name]]$value)
      if (frame$type == "CLOSE") {
        if (!length(frame$tensors)) break
        models[[number("model")]] <- NULL
        .answer(con, frame$id, list())
      } else if (frame$type == "LOAD") {
        held <- .guarded(function() .load_model(frame$tensors))
        if (inherits(held, "mlbridge_refusal")) .answer(con, frame$id, held)
        else {
          models[[number("model")]] <- held
          .answer(con, frame$id, if (is.null(held$signature)) list() else list(signature = scalar(held$signature)))
        }
      } else if (frame$type == "RUN") {
        held <- models[[number("@model")]]
        .answer(con, frame$id, .guarded(function() .run_model(held, frame$tensors)))
      } else stop("a frame of type ", frame$type, " was not expected")
    }
  })
  quit(save = "no", status = 0L, runLast = FALSE)
}
