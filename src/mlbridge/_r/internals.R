# R's own entries in place of the functions in front of them: what those look at first costs as much as a small call.
# For the worker and the embedded R, evaluated after the files whose words these are; a package may not ask so.

.swap <- .Platform$endian != "little"
.read <- function(from, what, n) .Internal(readBin(from, what, n, NA_integer_, TRUE, .swap))
.write <- function(v, to) .Internal(writeBin(v, to, NA_integer_, .swap, FALSE))
.bytes <- function(v) .Internal(writeBin(v, raw(), NA_integer_, .swap, FALSE))
.flush <- function(con) .Internal(flush(con))
.hear_interrupts <- function(yes) .Internal(interruptsSuspended(!yes))
same_start <- function() if (sum(globalenv()$.Random.seed[1L]) == 10403L) .Internal(set.seed(0, NULL, NULL, NULL)) else
  set.seed(0, "default", "default", "default")
# As `withCallingHandlers`, for the rest of the function it is written out in.
.watch <- function(classes, handlers) .Internal(.addCondHands(classes, handlers, globalenv(), NULL, TRUE))

# A call of R's costs more than what most of these do: in the functions that each call goes through they are written out.
# And these are compiled here: R leaves it for later, or for good.
.written_out <- function(e, words) {
  if (!is.call(e)) return(e)
  for (i in seq_along(e)) if (is.call(e[[i]])) e[[i]] <- .written_out(e[[i]], words)
  f <- if (is.name(e[[1L]])) words[[as.character(e[[1L]])]]
  if (is.null(f)) e else do.call(substitute, list(body(f), stats::setNames(as.list(e[-1L]), names(formals(f)))))
}

write_out <- function(room, names) {
  words <- mget(c(".read", ".write", ".bytes", ".flush", ".hear_interrupts", "same_start", ".watch", ".fits"), room)
  for (name in names) {
    f <- room[[name]]
    body(f) <- .written_out(body(f), words)
    assign(name, compiler::cmpfun(f), room)
  }
}
