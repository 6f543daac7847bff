# Rscript time.R OUT: R's own predict of one row, timed on request, so that the caller can take turns with it.
# Lines in: "model STEM" loads a model; "ask N" calls predict N times and answers the seconds of each call.
out <- commandArgs(TRUE)[1]
options(warn = -1)
input <- file("stdin", "r")
say <- function(...) { cat(..., "\n", sep = ""); flush(stdout()) }
fit <- one <- ask <- NULL
while (length(line <- readLines(input, 1))) {
  words <- strsplit(line, " ", fixed = TRUE)[[1]]
  if (words[1] == "model") {
    stem <- file.path(out, words[2])
    kept <- readRDS(paste0(stem, ".answer.rds"))
    for (p in rev(kept$packages)) suppressMessages(library(p, character.only = TRUE))
    fit <- readRDS(paste0(stem, ".rds"))
    rows <- readRDS(paste0(stem, ".data.rds"))$rows
    one <- rows[which(complete.cases(rows))[1], , drop = FALSE]
    # one call of predict, though a classifier's label and probabilities take R two; kmeans has no predict
    ask <- if (inherits(fit, "cv.glmnet")) function(f, d) predict(f, d)
      else if (inherits(fit, "glmnet")) function(f, d) predict(f, d, s = 0.05)
      else if (inherits(fit, "gbm")) function(f, d) predict(f, d, n.trees = f$n.trees)
      else if (inherits(fit, "ranger")) function(f, d) predict(f, d, num.threads = 1)
      else if (inherits(fit, "kmeans")) kept$answer
      else if (inherits(fit, "svm") && isTRUE(fit$compprob)) function(f, d) predict(f, d, probability = TRUE)
      else function(f, d) predict(f, d)
    say(tryCatch({ for (i in 1:5) ask(fit, one); "ready" }, error = function(e) "fails"))  # predict of poly(a, b) fails on one row
  } else {
    spent <- vapply(seq_len(as.integer(words[2])), function(i) { a <- Sys.time(); ask(fit, one); as.numeric(Sys.time() - a, units = "secs") }, 0)
    say(paste(format(spent, digits = 9), collapse = " "))
  }
}
