# R's client of the matrix: mlb_load("grpc://...") and predict(). See docs/interop.md.
library(mlbridge)
local(source(file.path(dirname(sub("^--file=", "", grep("^--file=", commandArgs(), value = TRUE)[1])), "vectors.R"), globalenv()))

given <- commandArgs(TRUE)
option <- function(name, otherwise = NULL) if (name %in% given) given[match(name, given) + 1L] else otherwise
cases <- jsonlite::fromJSON(option("--vectors"), simplifyVector = FALSE)$cases
names(cases) <- vapply(cases, `[[`, "", "name")

line <- function(...) {
  cat(jsonlite::toJSON(list(...), auto_unbox = TRUE, null = "null", digits = I(17)), "\n", sep = "")
  flush(stdout())
}

# As an R user cancels: by an interrupt.
interrupt_after <- function(seconds) system2("sh", c("-c", shQuote(sprintf("sleep %s; kill -INT %d", seconds, Sys.getpid()))), wait = FALSE)

ask <- function(case) {
  options <- Filter(Negate(is.null), list(token = option("--token"), root_certificates = option("--authority")))
  scheme <- if (is.null(option("--authority"))) "grpc://" else "grpcs://"
  model <- mlb_load(paste0(scheme, option("--target"), "/", case$model), options = list(grpc = options))
  on.exit(close(model))
  feeds <- lapply(case$feeds, value_of)
  names(feeds) <- vapply(case$feeds, `[[`, "", "name")
  if (!is.null(case$cancel_after_s)) interrupt_after(case$cancel_after_s)
  answers <- predict(model, feeds, timeout_s = case$timeout_s)
  lapply(mlb_signature(model)$outputs, function(spec) {
    levels <- length(spec$columns) && !is.null(spec$columns[[1]]$categories)
    written(spec$name, if (levels) "level" else spec$dtype, answers[[spec$name]])
  })
}

for (name in given[which(given == "--case") + 1L]) {
  case <- cases[[name]]
  if (identical(case$encoding, "typed")) line(case = name, skipped = "this client always sends raw")
  else tryCatch(line(case = name, code = "OK", answers = ask(case)),
    interrupt = function(e) line(case = name, code = "CANCELLED", class = "CancelledError", message = "interrupted"),
    mlbridge_error = function(e) line(case = name, code = e$code, class = e$class_name, message = conditionMessage(e)))
}
