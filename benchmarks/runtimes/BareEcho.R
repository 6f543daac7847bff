# The reference of bench_r.py: what base R needs for the same bytes over a socket, without reading or computing anything.
# Arguments: port, bytes of a question, bytes of an answer, and "double" where the bytes are read as numbers.

arguments <- commandArgs(TRUE)
con <- socketConnection("127.0.0.1", as.integer(arguments[1]), blocking = TRUE, open = "r+b", timeout = 3600, options = "no-delay")
type <- if (length(arguments) > 3) "double" else "raw"
asked <- as.integer(arguments[2]) / if (type == "double") 8 else 1
answer <- raw(as.integer(arguments[3]))
repeat {
  if (length(readBin(con, type, asked)) < asked) break
  writeBin(answer, con)
}
