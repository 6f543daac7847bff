# A worker in base R: one connection to the parent, one request at a time. Started by Rscript with MLBRIDGE_ADDRESS set.
# What user code prints is a log; nothing of the protocol uses standard output or standard error.

local({
  file <- sub("^--file=", "", grep("^--file=", commandArgs(FALSE), value = TRUE)[1])
  here <- dirname(gsub("~+~", " ", file, fixed = TRUE))  # as Rscript writes a space
  part <- new.env(parent = globalenv())
  for (f in c("frames.R", "answers.R", "frame_of.R", "outputs.R", "infer.R", "serving.R", "internals.R")) sys.source(file.path(here, f), part)
  if (startsWith(Sys.getenv("MLBRIDGE_ADDRESS"), "fifo:")) part$write_out(part, c("read_frame", ".write_one", "run_model", ".answer_requests"))
  attach(part, name = "mlbridge")  # so that methods of users' classes are found beside ours
})
serve()
