# Rscript fit.R OUT [pattern]: fit the catalogue; write each model, its training rows and R's own answers to them.
arguments <- commandArgs(TRUE)
out <- arguments[1]
here <- dirname(sub("--file=", "", grep("--file=", commandArgs(), value = TRUE)))
source(file.path(here, "answers.R"))
pattern <- if (length(arguments) > 1) arguments[2] else "."
index <- character()
keep <- function(id, fit, data, answer, options = list()) {
  if (!grepl(pattern, id)) return(invisible())
  set.seed(1)
  fit <- tryCatch(force(fit), error = function(e) { message(id, ": ", conditionMessage(e)); NULL })
  if (is.null(fit)) return(invisible())
  saveRDS(fit, file.path(out, paste0(id, ".rds")))
  rows <- if (nrow(data) > 300) data[round(seq(1, nrow(data), length.out = 300)), , drop = FALSE] else data
  saveRDS(list(rows = rows, options = options), file.path(out, paste0(id, ".data.rds")))
  saveRDS(list(answer = answer, columns = data[0, , drop = FALSE], packages = .packages()), file.path(out, paste0(id, ".answer.rds")))
  set.seed(0)
  tryCatch(write_answers(answer(fit, rows), file.path(out, paste0(id, ".train"))), error = function(e) message(id, ": predict: ", conditionMessage(e)))
}
source(file.path(here, "catalogue.R"))
for (f in grep("^fit_", ls(), value = TRUE)) {
  started <- proc.time()[["elapsed"]]
  get(f)()
  message(f, " ", round(proc.time()[["elapsed"]] - started, 1), " s")
}
