# R inside another process: the same methods as the worker's, asked without frames; and no way for a model to end the host.
# Evaluated after the other files, in their environment, before it is attached.

.left <- list2env(list(moved = FALSE))  # by the last call: why it did not answer, where the process was before it moved

.no_quit <- function(save = "default", status = 0, runLast = TRUE)
  stop("the model asked R to quit, which would end the whole process", call. = FALSE)

.setwd <- function(dir) {
  .left$moved <- TRUE
  if (is.null(.left$folder)) .left$folder <- getwd()
  .Internal(setwd(dir))
}

.setlocale <- function(category = "LC_ALL", locale = "") {
  .left$moved <- TRUE
  if (is.null(.left$locale)) .left$locale <- Sys.getlocale()
  .left$set_locale(category, locale)
}

# `q()` and `quit()` are masked where base code and packages find them too; a direct .Internal(quit()) meets the host's own
# guard. What moves the whole process, `setwd()` and `Sys.setlocale()`, notes where it was.
guard_host <- function() {
  base <- baseenv()
  .left$set_locale <- Sys.setlocale
  guards <- list(q = .no_quit, quit = .no_quit, setwd = .setwd, Sys.setlocale = .setlocale)
  for (name in names(guards)) {
    unlockBinding(name, base)
    assign(name, guards[[name]], base)
    lockBinding(name, base)
  }
}

.put_place_back <- function() {
  if (!.left$moved) return()
  if (!is.null(.left$folder)) setwd(.left$folder)
  if (!is.null(.left$locale)) for (part in strsplit(strsplit(.left$locale, ";")[[1L]], "="))
    if (part[1L] %in% .LC.categories) suppressWarnings(.left$set_locale(part[1L], part[2L]))
  .left$folder <- .left$locale <- NULL
  .left$moved <- FALSE
}

.texts <- function(refusal) {
  text <- function(v) if (length(v)) paste(v, collapse = "\n") else NA_character_
  list(text(refusal$class), text(refusal$message), text(refusal$hint), as.character(refusal$condition), text(refusal$trace),
    text(refusal$code))
}

# The outputs as plain vectors, and what each is in the words of a frame.
.for_host <- function(out) {
  codes <- integer(length(out))
  for (i in seq_along(out)) {
    v <- frame_value(names(out)[i], out[[i]])
    codes[i] <- if (is.double(v)) 13L else if (is.integer(v)) 4L else if (is.logical(v)) 1L else 14L
    out[[i]] <- if (is.character(v)) enc2utf8(v) else v
  }
  list(codes, out)
}

.remember <- function(e) {
  calls <- utils::head(sys.calls(), -2L)  # without this handler
  .left$refusal <- .refusal_of(e, tryCatch(.trace(calls), error = function(e) character()))
}

.remember_interrupt <- function(e) .left$refusal <- .refusal(class = "CancelledError", message = "the call was interrupted")

# As those of `guarded`, but errors and interrupts leave by R's jump to the host, who asks for `embedded_refusal()`:
# catching them here would cost a small call as much again.
.handlers <- list(warning = .log_warning, message = .log_message, error = .remember, interrupt = .remember_interrupt)
.heard <- names(.handlers)

embedded_refusal <- function() {
  .put_place_back()
  refusal <- .left$refusal
  .left$refusal <- NULL
  said <- geterrmessage()  # of errors that leave no room for handlers: the end of the stack
  .Internal(seterrmessage(""))
  .texts(if (!is.null(refusal)) refusal
    else if (nzchar(said)) .refusal(class = "InferenceError", message = trimws(said), condition = c("error", "condition"))
    else .refusal(class = "BridgeError", message = "the model asked R to quit, which would end the whole process",
      hint = "r: keeps such a model in a process of its own"))
}

# Loads a model, to be held by the host, or finds its signature; as an answer of code 0 or 14.
embedded_load <- function(tensors) {
  .watch(.heard, .handlers)
  held <- load_model(tensors)
  .put_place_back()
  if (!is.null(held$signature)) return(list(14L, list(held$signature)))
  held$short <- held$script && held$one && length(held$inputs) == 1L && !length(held$layout$col.name)
  held$gaps <- any(held$layout$in.gaps)
  list(0L, held)
}

# Asks a model: the answers for the host, one vector of numbers as it is. Where a script takes one block and answers one
# vector, most of a small call is what stands between: no function of ours is called then.
embedded_ask <- function(feeds, wanted, held) {
  .watch(.heard, .handlers)
  if (!held$short || !is.null(wanted) || !length(block <- feeds[[1L]])) got <- run_model(held, feeds, wanted)
  else {
    newdata <- feeds
    if (held$gaps && anyNA(block)) newdata[[1L]] <- .without_nan(block)
    rows <- if (is.null(d <- dim(block))) length(block) else d[1L]
    attr(newdata, "row.names") <- c(NA_integer_, -rows)
    oldClass(newdata) <- "data.frame"
    same_start()
    got <- held$model(newdata)
    value <- if (is.list(got)) got[[held$outputs]]
    got <- if (.fits(value, rows)) value else .outputs_from(held, got, newdata, rows, 1L)
    oldClass(newdata) <- NULL
    newdata[1L] <- list(NULL)  # the host fills the same vector anew where nobody holds it, and a list that nobody needs does
  }
  if (.left$moved) .put_place_back()
  if (is.double(got)) got else .for_host(got)
}
