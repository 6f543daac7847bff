# R inside another process: the same methods as the worker's, asked without frames; and no way for a model to end the host.
# Evaluated after the other files, in their environment, before it is attached.

.no_quit <- function(save = "default", status = 0, runLast = TRUE)
  stop("the model asked R to quit, which would end the whole process", call. = FALSE)

# `q()` and `quit()` are masked where base code and packages find them; a direct .Internal(quit()) meets the host's own guard.
guard_quit <- function() {
  base <- baseenv()
  for (name in c("q", "quit")) {
    unlockBinding(name, base)
    assign(name, .no_quit, base)
    lockBinding(name, base)
  }
}

.texts <- function(refusal) {
  text <- function(v) if (length(v)) paste(v, collapse = "\n") else NA_character_
  list(text(refusal$class), text(refusal$message), text(refusal$hint), as.character(refusal$condition), text(refusal$trace),
    text(refusal$code))
}

# The outputs as plain vectors, and what each is in the words of a frame.
.for_host <- function(out) {
  names <- names(out)
  codes <- integer(length(out))
  for (i in seq_along(out)) {
    v <- out[[i]]
    if (is.double(v)) codes[i] <- 13L
    else {
      v <- frame_value(names[i], v)
      codes[i] <- if (is.double(v)) 13L else if (is.integer(v)) 4L else if (is.logical(v)) 1L else 14L
      out[[i]] <- if (is.character(v)) enc2utf8(v) else v
    }
  }
  list(codes, out)
}

# What a model changes that belongs to the whole process is put back: the working directory and the locale.
.put_place_back <- function(folder, locale) {
  if (!is.null(folder) && !identical(getwd(), folder)) setwd(folder)
  if (!identical(Sys.getlocale(), locale))
    for (part in strsplit(strsplit(locale, ";")[[1L]], "="))
      if (part[1L] %in% .LC.categories) suppressWarnings(Sys.setlocale(part[1L], part[2L]))
}

.shielded <- function(work) {
  folder <- getwd()
  locale <- Sys.getlocale()
  on.exit(.put_place_back(folder, locale))
  got <- suspendInterrupts(guarded(function() allowInterrupts(work())))
  if (inherits(got, "mlbridge_refusal")) list(NULL, .texts(got)) else got
}

# Loads a model: a function from feeds and wanted outputs to (codes, values), or the signature that R found, or (NULL, what
# went wrong).
embedded_load <- function(tensors) .shielded(function() {
  held <- load_model(tensors)
  if (!is.null(held$signature)) return(list(14L, list(held$signature)))
  list(0L, function(feeds, wanted) .shielded(function() .for_host(run_model(held, feeds, wanted))))
})
