# Rscript answer.R OUT: R's own answers to the rows Python wrote for each model.
out <- commandArgs(TRUE)[1]
here <- dirname(sub("--file=", "", grep("--file=", commandArgs(), value = TRUE)))
source(file.path(here, "answers.R"))
options(warn = -1)
for (path in list.files(out, "[.]rows[.]bin$", full.names = TRUE)) {
  stem <- sub("[.]rows[.]bin$", "", path)
  kept <- readRDS(paste0(stem, ".answer.rds"))
  for (p in rev(kept$packages)) suppressMessages(library(p, character.only = TRUE))
  set.seed(0)
  tryCatch(write_answers(kept$answer(readRDS(paste0(stem, ".rds")), read_rows(stem, kept$columns)), paste0(stem, ".probe")),
           error = function(e) message(basename(stem), ": ", conditionMessage(e)))
}
