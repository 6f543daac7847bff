# Times calls in R for bench_r_grpc.py. `bare LIBRARY PORT` asks by gRPC C++ alone, `ours URI` by mlbridge: a process each,
# for protobuf refuses the same messages twice in one. Reads lines "doubles calls", answers each by seconds a call.
given <- commandArgs(TRUE)
if (given[1] == "bare") {
  loadNamespace("Rcpp")
  dll <- dyn.load(given[2])
  ask <- getNativeSymbolInfo("bare_ask", dll)
  handle <- .Call(getNativeSymbolInfo("bare_open", dll), paste0("127.0.0.1:", given[3]))
  way <- function(x) .Call(ask, handle, x)
} else {
  model <- mlbridge::mlb_load(given[2])  # held: what R no longer reaches is closed
  run <- model$session$run
  way <- function(x) run(list(x = x), "x", 60)$x
}
input <- file("stdin", "r")
while (length(line <- readLines(input, 1L))) {
  asked <- as.integer(strsplit(line, " ")[[1]])
  x <- as.double(seq_len(asked[1]))
  stopifnot(identical(way(x), x))
  began <- Sys.time()
  for (i in seq_len(asked[2])) way(x)
  cat(format(as.double(difftime(Sys.time(), began, units = "secs")) / asked[2], digits = 12), "\n", sep = "")
  flush(stdout())
}
