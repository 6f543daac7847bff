# Rscript save.R OUT [pattern]: fit the catalogue and save every model with the R package `mlbridge` (on R_LIBS); write the
# rows and what R's own predict answers to them, and what the package answers when it is loaded in R.
suppressPackageStartupMessages(library(mlbridge))
arguments <- commandArgs(TRUE)
out <- arguments[1]
here <- dirname(sub("--file=", "", grep("--file=", commandArgs(), value = TRUE)))
source(file.path(here, "answers.R"))
pattern <- if (length(arguments) > 1) arguments[2] else "."

# An answer of `predict` on a package as the catalogue writes its own: a list by output, matrices whole.
by_output <- function(model, answer) {
  columns <- function(name) grep(paste0("^", name, "_"), names(answer), value = TRUE)
  outputs <- vapply(mlb_signature(model)$outputs, `[[`, "", "name")
  lapply(stats::setNames(nm = outputs), function(n) if (n %in% names(answer)) answer[[n]] else as.matrix(answer[columns(n)]))
}

keep <- function(id, fit, data, answer, options = list()) {
  if (!grepl(pattern, id)) return(invisible())
  set.seed(1)
  fit <- tryCatch(force(fit), error = function(e) NULL)
  if (is.null(fit)) return(invisible())
  rows <- if (nrow(data) > 300) data[round(seq(1, nrow(data), length.out = 300)), , drop = FALSE] else data
  path <- file.path(out, paste0(id, ".mlb"))
  tryCatch({
    mlb_save(fit, path, sample = rows, options = options)
    saveRDS(list(rows = rows, options = options), file.path(out, paste0(id, ".data.rds")))
    set.seed(0)
    write_answers(answer(fit, rows), file.path(out, paste0(id, ".train")))
    model <- mlb_load(path, trust = "code")
    asked <- if (is.matrix(rows) && is.null(colnames(rows))) rows else as.data.frame(rows, optional = TRUE)
    native <- by_output(model, predict(model, asked))
    native <- lapply(native, function(v) if (is.logical(v)) factor(v) else if (is.character(v)) factor(v) else v)
    write_answers(native, file.path(out, paste0(id, ".native")))
  }, error = function(e) writeLines(conditionMessage(e), file.path(out, paste0(id, ".refused.txt"))))
}
source(file.path(here, "catalogue.R"))
for (f in grep("^fit_", ls(), value = TRUE)) get(f)()
