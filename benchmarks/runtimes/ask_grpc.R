# Times calls in R for bench_r_grpc.py: interleaved rounds of the bare client and of mlbridge's, at sizes given in doubles.
# Arguments: the bare client's library, the bare echo's port, the address of R's host, rounds, sizes. Prints JSON.
given <- commandArgs(TRUE)
loadNamespace("Rcpp")
dll <- dyn.load(given[1])
bare_open <- getNativeSymbolInfo("bare_open", dll)
bare_ask <- getNativeSymbolInfo("bare_ask", dll)
bare <- .Call(bare_open, paste0("127.0.0.1:", given[2]))
near <- mlbridge::mlb_load(paste0("grpc://127.0.0.1:", given[2], "/echo"))$session$run
far <- mlbridge::mlb_load(paste0("grpc://", given[3], "/echo"))$session$run
rounds <- as.integer(given[4])
out <- list()
for (size in as.integer(given[-(1:4)])) {
  x <- as.double(seq_len(size))
  feeds <- list(x = x)
  ways <- list(bare = function() .Call(bare_ask, bare, x), client = function() near(feeds, "x", 60)$x, host = function() far(feeds, "x", 60)$x)
  for (way in ways) for (i in 1:50) stopifnot(identical(way(), x))
  calls <- if (size > 1e5) 3L else if (size > 1e4) 20L else 100L
  times <- lapply(ways, function(way) double(rounds))
  for (r in seq_len(rounds)) for (n in sample(names(ways))) {
    way <- ways[[n]]
    t0 <- Sys.time()
    for (i in seq_len(calls)) way()
    times[[n]][r] <- as.double(difftime(Sys.time(), t0, units = "secs")) / calls
  }
  out[[as.character(size)]] <- times
}
cat(jsonlite::toJSON(out, digits = I(17)))
