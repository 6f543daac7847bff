# R's server of the matrix: the models of the vectors, on mlb_serve(). See docs/interop.md.
library(mlbridge)

given <- commandArgs(TRUE)
option <- function(name, otherwise = NULL) if (name %in% given) given[match(name, given) + 1L] else otherwise

does <- list(
  echo = function(feeds) feeds,
  sleep = function(feeds) {
    Sys.sleep(feeds$x[1])
    feeds
  },
  fail = function(feeds) stop("a secret of /srv/models"))

vectors <- jsonlite::fromJSON(option("--vectors"), simplifyVector = FALSE)
models <- lapply(vectors$models, function(m) {
  signature <- as.character(jsonlite::toJSON(m$signature, auto_unbox = TRUE, null = "null", digits = I(17)))
  mlb_wrap(does[[m$does]], signature = signature, name = m$name)
})
names(models) <- vapply(vectors$models, `[[`, "", "name")

tls <- if (!is.null(option("--key"))) list(key = option("--key"), certificate = option("--certificate"))
mlb_serve(models, paste0("127.0.0.1:", option("--port", "0")), token = option("--token"), tls = tls, ready = function(address) {
  cat("ready ", address, "\n", sep = "")
  flush(stdout())
})
