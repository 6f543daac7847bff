# Rscript time.R OUT: how long R's own predict takes for one row of each model; seconds a call, one value a round.
out <- commandArgs(TRUE)[1]
here <- dirname(sub("--file=", "", grep("--file=", commandArgs(), value = TRUE)))
source(file.path(here, "answers.R"))
options(warn = -1)
rounds <- 15
for (path in list.files(out, "[.]answer[.]rds$", full.names = TRUE)) {
  stem <- sub("[.]answer[.]rds$", "", path)
  kept <- readRDS(path)
  for (p in rev(kept$packages)) suppressMessages(library(p, character.only = TRUE))
  fit <- readRDS(paste0(stem, ".rds"))
  rows <- readRDS(paste0(stem, ".data.rds"))$rows
  full <- which(complete.cases(rows))[1]
  one <- rows[full, , drop = FALSE]
  # one call of predict, though a classifier's label and probabilities take R two; kmeans has no predict
  ask <- if (inherits(fit, "cv.glmnet")) function(f, d) predict(f, d)
    else if (inherits(fit, "glmnet")) function(f, d) predict(f, d, s = 0.05)
    else if (inherits(fit, "gbm")) function(f, d) predict(f, d, n.trees = f$n.trees)
    else if (inherits(fit, "ranger")) function(f, d) predict(f, d, num.threads = 1)
    else if (inherits(fit, "kmeans")) kept$answer
    else function(f, d) predict(f, d)
  for (i in 1:3) ask(fit, one)
  spent <- vapply(seq_len(rounds), function(i) { a <- Sys.time(); for (k in 1:3) ask(fit, one); as.numeric(Sys.time() - a, units = "secs") / 3 }, 0)
  connection <- file(paste0(stem, ".seconds.bin"), "wb")
  writeBin(spent, connection)
  close(connection)
}
