# Models held, asked and guarded (used in-process too), then the worker's loop: LOAD, RUN, CLOSE and PING answered one by
# one; what goes wrong is an ERROR frame.

# Which package a class's predict method lives in; what is not here is tried as it is.
.homes <- c(rpart = "rpart", randomForest = "randomForest", ranger = "ranger", gbm = "gbm", nnet = "nnet", multinom = "nnet", lda = "MASS",
  qda = "MASS", polr = "MASS", negbin = "MASS", rlm = "MASS", lqs = "MASS", svm = "e1071", naiveBayes = "e1071", glmnet = "glmnet",
  cv.glmnet = "glmnet", coxph = "survival", survreg = "survival", gam = "mgcv", bam = "mgcv", train = "caret", ksvm = "kernlab",
  kmeans = "stats", lme = "nlme", gls = "nlme", earth = "earth", cforest = "party", xgb.Booster = "xgboost")
.formula_homes <- c(ns = "splines", bs = "splines", Surv = "survival", strata = "survival", pspline = "survival",
  contr.sdif = "MASS")

.fail <- function(class, message, hint = NULL, code = NULL) stop(structure(class = c("mlbridge_failure", "error", "condition"),
  list(message = message, call = NULL, class = class, hint = hint, code = code)))
mlb_stop <- function(class_name, message, hint = NULL) .fail(class_name, message, hint)  # the package's word in shared files

.attach <- function(packages) for (p in packages) {
  if (!suppressPackageStartupMessages(require(p, character.only = TRUE, quietly = TRUE, warn.conflicts = FALSE)))
    .fail("MissingDependencyError", paste0("the R package ", p, " is not installed"), paste0('Rscript -e \'install.packages("', p, '")\''))
}

load_model <- function(tensors) {
  get <- function(name) tensors[[name]]
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
    if (is.list(model)) called <- c(called, unlist(Filter(is.character, as.list(model[["contrasts"]]))))
    .attach(unique(.formula_homes[intersect(called, names(.formula_homes))]))
  }
  signature <- NULL
  if (is.null(tensors[["option.layout.in.name"]])) {
    if (is.function(model)) .fail("SignatureError", "a script does not tell its signature", "pass signature=...")
    signature <- tryCatch(infer_signature(model, options), error = function(e) .fail("SignatureError", conditionMessage(e), "pass signature=..."))
    return(list(signature = signature))
  }
  layout <- list(script = is.function(model))
  for (n in grep("^option[.]layout[.]", names(tensors), value = TRUE)) layout[[sub("^option[.]layout[.]", "", n)]] <- get(n)
  .held_model(model, options, layout)
}

# A model with all that is known of its signature before any feed comes.
.held_model <- function(model, options, layout) {
  # levels travel as one list of texts with a count each
  part <- function(texts, counts) unname(split(texts, factor(rep(seq_along(counts), counts), levels = seq_along(counts))))
  layout$col.levels <- part(layout$col.levels, layout$col.nlevels)
  layout$out.levels <- part(layout$out.levels, layout$out.nlevels)
  layout$out.columns <- part(layout$out.columns, layout$out.ncolumns)
  classes <- if (is.function(model)) character() else column_classes(model)
  layout$blocks <- input_blocks(layout, classes)
  labelled <- which(lengths(layout$out.levels) > 0L)
  chances <- which(layout$out.name == "probabilities")
  plain <- if (length(layout$blocks) == 1L && layout$blocks[[1L]]$numbers) layout$blocks[[1L]]$labels  # one block of plain numbers
  levels <- if (length(labelled)) layout$out.levels[[labelled[1]]] else if (length(chances)) layout$out.columns[[chances[1]]]
  widths <- ifelse(layout$out.rank == 2L, pmax(layout$out.width, 1L), NA)
  numbers <- layout$out.rank == 1L & layout$out.nlevels == 0L
  answers <- stats::setNames(vector("list", length(numbers)), layout$out.name)
  held <- list(model = model, plain = plain, inputs = layout$in.name, outputs = layout$out.name, places = seq_along(layout$out.name),
    script = layout$script, layout = layout, classes = classes, options = options, levels = levels, widths = widths, numbers = numbers,
    one = length(numbers) == 1L && numbers, answers = answers)
  list2env(held, parent = emptyenv())  # where names are found at once
}

.empty <- function(held, i) {
  layout <- held$layout
  type <- if (layout$out.dtype[i] == "string") character() else if (length(layout$out.levels[[i]])) integer() else double()
  if (layout$out.rank[i] < 2L) type else matrix(type, 0L, max(layout$out.width[i], 0L))
}

.asked_for <- function(held, wanted) {
  places <- match(wanted, held$outputs)
  if (anyNA(places)) .fail("InputError", paste("there is no output", wanted[is.na(places)][1]))
  places
}

.fail_of <- function(condition) .fail("InputError", conditionMessage(condition))  # a value that R cannot hold

# Asks a model: feeds and answers are lists of vectors and matrices by name, as frames and the in-process runtime bring them.
run_model <- function(held, feeds, wanted = NULL) {
  places <- if (is.null(wanted)) held$places else .asked_for(held, wanted)
  if (is.null(held$plain)) {
    feeds <- feeds[held$inputs]
    for (f in feeds) if (is.list(f)) .fail_of(f)
    newdata <- newdata_of(feeds, held$layout, held$classes)
    rows <- if (is.list(newdata)) .row_names_info(newdata, 2L) else dim(newdata)[1L]
  } else {
    block <- feeds[[held$inputs]]
    if (is.list(block)) .fail_of(block)
    newdata <- .numbers_as_frame(block, held$plain)
    rows <- if (is.null(d <- dim(block))) length(block) else d[1L]
  }
  if (rows == 0L) return(stats::setNames(lapply(places, function(i) .empty(held, i)), held$outputs[places]))
  if (held$script) {
    same_start()
    answer <- held$model(newdata)
  } else answer <- mlb_answers(held$model, newdata, held$outputs[places], held$options, held$levels)
  if (held$one && is.list(answer)) {
    value <- answer[[held$outputs]]
    if (.fits(value, rows)) {
      out <- held$answers
      out[[1L]] <- value
      return(out)
    }
  }
  .outputs_from(held, answer, newdata, rows, places)
}

.fits <- function(value, rows) is.double(value) && length(value) == rows && is.null(attributes(value))

# The outputs at these places of a signature, each in its form.
.outputs_from <- function(held, answer, newdata, rows, places) {
  if (!is.list(answer)) answer <- stats::setNames(list(answer), held$outputs[1])
  out <- held$answers[places]
  for (i in seq_along(places)) {
    at <- places[i]
    value <- answer[[held$outputs[at]]]
    if (is.null(value)) stop("the model gives no output ", held$outputs[at], "; it gives ", paste(names(answer), collapse = ", "))
    out[[i]] <- if (held$numbers[at] && .fits(value, rows)) value else output_of(value, held$layout$out.levels[[at]], newdata, held$widths[at])
  }
  out
}

.log <- function(level, text) {
  text <- gsub("[\r\n]+", paste0("\n", level), sub("\n+$", "", text))
  cat(level, text, "\n", sep = "", file = stderr())
}

# The calls of a failure, from where the model is asked: what lies before is ours.
.trace <- function(calls) {
  ours <- which(vapply(calls, function(c) is.name(c[[1L]]) && as.character(c[[1L]]) %in% c("run_model", "load_model", "embedded_ask"), NA))
  if (length(ours)) calls <- utils::tail(calls, -max(ours))
  vapply(utils::tail(calls, 30L), function(c) paste(deparse(c, nlines = 1L, width.cutoff = 120L), collapse = ""), "")
}

.refusal <- function(...) structure(list(...), class = "mlbridge_refusal")

.refusal_of <- function(e, trace) {
  if (inherits(e, "mlbridge_gone")) return(NULL)
  if (inherits(e, "mlbridge_failure")) return(.refusal(class = e$class, message = conditionMessage(e), hint = e$hint, code = e$code))
  call <- if (!is.null(conditionCall(e))) paste0(" (in ", deparse(conditionCall(e), nlines = 1L)[1], ")") else ""
  .refusal(class = "InferenceError", message = paste0(conditionMessage(e), call), condition = class(e), trace = paste(trace, collapse = "\n"))
}

.log_warning <- function(w) {
  .log("<4>", conditionMessage(w))
  tryInvokeRestart("muffleWarning")
}

.log_message <- function(m) {
  .log("<6>", conditionMessage(m))
  tryInvokeRestart("muffleMessage")
}

# `.hear_interrupts`: interrupts are heard while a model is asked, and nowhere else. `allowInterrupts()` costs ten times as much.

# Evaluates with warnings and messages logged; an error comes back as a refusal with R's classes, call and trace, the end
# of the connection as NULL.
guarded <- function(work) {
  trace <- character()
  tryCatch(
    withCallingHandlers(work(), warning = .log_warning, message = .log_message,
      interrupt = function(e) .hear_interrupts(FALSE),
      error = function(e) {
        .hear_interrupts(FALSE)  # before the call is left: none may end the loop
        calls <- utils::head(sys.calls(), -2L)  # without this handler
        trace <<- tryCatch(.trace(calls), error = function(e) character())
      }
    ),
    interrupt = function(e) .refusal(class = "CancelledError", message = "the call was interrupted"),
    error = function(e) .refusal_of(e, trace)
  )
}

.too_large <- function() .fail("BridgeError", "the answer is too large for a frame", code = 11L)

.refuse <- function(con, id, refusal) {
  text <- function(v) scalar(if (length(v)) paste(v, collapse = "\n") else "")
  error <- list(class = text(refusal$class), message = text(refusal$message))
  if (length(refusal$hint)) error$hint <- text(refusal$hint)
  if (length(refusal$condition)) error$condition <- as.character(refusal$condition)
  if (length(refusal$trace)) error$trace <- text(refusal$trace)
  if (length(refusal$code)) error$code <- scalar(as.integer(refusal$code))
  write_frame(con, "ERROR", error, id)
}

# Where frames are read from and written to. The "e" in a mode keeps the pipe from programs that a model starts: they
# would hold it open when the worker is gone.
.open <- function(address) {
  place <- sub("^[a-z]+:", "", address)
  if (startsWith(address, "fifo:"))
    return(list(to = file(file.path(place, "answers"), "web", raw = TRUE), from = file(file.path(place, "requests"), "reb", raw = TRUE)))
  con <- socketConnection("127.0.0.1", as.integer(sub(".*:", "", place)), blocking = TRUE, open = "r+b", timeout = 2592000L, options = "no-delay")
  .write_at_once()
  list(to = con, from = con)
}

# A socket sends what it is given: a frame must be given to it whole.
.write_at_once <- function() {
  waiting <- list()
  write <- .write
  .write <<- function(v, to) waiting <<- c(waiting, list(.bytes(v)))
  .flush <<- function(con) {
    write(unlist(waiting), con)
    waiting <<- list()
  }
}

.connect <- function() {
  token <- readLines(input <- file("stdin"), 1L)
  close(input)
  con <- .open(Sys.getenv("MLBRIDGE_ADDRESS"))
  .write(charToRaw(token), con$to)
  write_frame(con$to, "HELLO", list(protocol = scalar(1L), runtime = scalar("r"), device = scalar("r"),
    language_version = scalar(paste(R.version$major, R.version$minor, sep = ".")), pid = scalar(Sys.getpid())))
  con
}

.number <- function(tensors, name) as.character(if (is.null(tensors[[name]])) 0 else tensors[[name]])

.load <- function(room, frame) {
  held <- allowInterrupts(load_model(frame$tensors))
  room$models[[.number(frame$tensors, "model")]] <- held
  write_frame(room$to, "RESULT", if (is.null(held$signature)) list() else list(signature = scalar(held$signature)), frame$id)
}

.pong <- function(con, frame) {
  # an interrupt that came too late for its call is forgotten here: the parent sends PING behind it
  tryCatch(allowInterrupts(Sys.sleep(0)), interrupt = function(e) NULL)
  frame$start[2L] <- frame$start[2L] - .types[["PING"]] + .types[["PONG"]]
  frame$start[4L] <- frame$id
  .write(frame$start, con)
  .write(frame$rest, con)
  .flush(con)
}

# Answers requests until one fails (an error) or there is no more to do (NULL).
.answer_requests <- function(room) {
  from <- room$from
  to <- room$to
  repeat {
    frame <- read_frame(from)
    room$id <- frame$id
    tensors <- frame$tensors
    if (frame$type == "RUN") {
      held <- room$models[[if (is.null(tensors[["@model"]])) "0" else .number(tensors, "@model")]]
      .hear_interrupts(TRUE)
      values <- run_model(held, tensors, tensors[["@outputs"]])
      .hear_interrupts(FALSE)
      if (!write_frame(to, "RESULT", values, frame$id)) .too_large()
    } else if (frame$type == "PING") .pong(to, frame)
    else if (frame$type == "LOAD") .load(room, frame)
    else if (frame$type != "CLOSE") .malformed("one of type ", frame$type, " was not expected")
    else if (!length(tensors)) return(NULL)
    else {
      room$models[[.number(tensors, "model")]] <- NULL
      write_frame(to, "RESULT", list(), frame$id)
    }
  }
}

serve <- function() {
  if (!isTRUE(l10n_info()[["UTF-8"]])) Sys.setlocale("LC_CTYPE", "C.UTF-8")
  options(warn = 1, keep.source = FALSE, error = NULL)
  suspendInterrupts({
    .answer_requests <- compiler::cmpfun(.answer_requests)  # R compiles what is called again, and this is called once
    room <- list2env(c(.connect(), list(models = list(), id = 0L)))
    # the handlers stand around the loop, not around each call: setting them up costs as much as a small call
    while (!is.null(refusal <- guarded(function() .answer_requests(room)))) {
      if ("mlbridge_malformed" %in% refusal$condition) stop(refusal$message)
      .refuse(room$to, room$id, refusal)
    }
  })
  quit(save = "no", status = 0L, runLast = FALSE)
}
