# R's own entries in place of the functions in front of them: what those look at first costs as much as a small call.
# For the worker and the embedded R, evaluated after frames.R and answers.R, whose words these are; a package may not ask so.

.swap <- .Platform$endian != "little"
.read <- function(from, what, n) .Internal(readBin(from, what, n, NA_integer_, TRUE, .swap))
.write <- function(v, to) .Internal(writeBin(v, to, NA_integer_, .swap, FALSE))
.bytes <- function(v) .Internal(writeBin(v, raw(), NA_integer_, .swap, FALSE))
.flush <- function(con) .Internal(flush(con))
same_start <- function() {
  kind <- globalenv()$.Random.seed[1L]
  if (is.null(kind) || kind != 10403L) set.seed(0, "default", "default", "default") else .Internal(set.seed(0, NULL, NULL, NULL))
}
