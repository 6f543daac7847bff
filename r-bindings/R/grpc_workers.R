# mlb_serve(workers = n): this process starts n R processes that share a port (SO_REUSEPORT), restarts those that die, and
# ends them. It runs no model and no gRPC itself.

.serve_workers <- function(models, where, settings, how, workers, ready) {
  if (!identical(Sys.info()[["sysname"]], "Linux")) mlb_stop("UnsupportedError", "several processes share a port on Linux only", "start one server a port")
  held <- .Call(C_mlb_reserve, where$host, where$port)
  if (is.null(held)) mlb_stop("UnavailableError", paste("cannot listen on", settings$address), "is another server using the port?")
  on.exit(.Call(C_mlb_release, held$descriptor))
  folder <- tempfile("mlbridge-workers-")
  dir.create(folder, mode = "0700")
  on.exit(unlink(folder, recursive = TRUE), add = TRUE)
  settings$address <- paste0(sub(":[0-9]+$", ":", settings$address), held$port)
  settings$share_port <- TRUE
  packages <- unlist(lapply(models, function(m) if (is.object(m) && !inherits(m, "mlb_model")) unlist(.homes_of(m))), use.names = FALSE)
  task <- file.path(folder, "task.rds")
  saveRDS(list(models = lapply(models, .portable), where = where, settings = settings, how = how, packages = unique(packages), parent = Sys.getpid(), folder = folder), task)
  .supervise(task, folder, workers, settings$address, how$grace_s, ready)
}

# What a process can be handed: R models with all they hold, paths and URIs.
.portable <- function(model) {
  if (is.character(model)) return(model)
  if (is.list(model) && !is.object(model)) return(lapply(model, .portable))
  if (!inherits(model, "mlb_model")) return(mlb_wrap(model))
  if (model$session$describe()$runtime != "r")
    mlb_stop("InputError", paste("the model", sQuote(model$name, FALSE), "cannot be handed to another process"), "pass its path or address")
  model
}

.start_worker <- function(task) .Call(C_mlb_spawn, c(file.path(R.home("bin"), "Rscript"), "--vanilla", "-e",
  paste0(".libPaths(", paste(deparse(.libPaths()), collapse = ""), "); mlbridge:::.work(", deparse(task), ")")))

# A worker's whole life. It ends with its parent.
.work <- function(task) {
  task <- readRDS(task)
  for (package in task$packages) if (requireNamespace(package, quietly = TRUE)) attachNamespace(package)
  hosted <- .hosted_models(task$models, task$how$trust, task$how$always_raw)
  ready <- function(address) file.create(file.path(task$folder, paste0(Sys.getpid(), ".ready")))
  .serve_here(hosted, task$where, task$settings, task$how$grace_s, ready, idle = function() tools::pskill(task$parent, 0L))
  quit(save = "no", status = 0L, runLast = FALSE)
}

.supervise <- function(task, folder, workers, address, grace_s, ready) {
  pids <- vapply(seq_len(workers), function(i) .start_worker(task), 0L)
  on.exit(.end_workers(pids, grace_s))
  is_up <- function(pid) file.exists(file.path(folder, paste0(pid, ".ready")))
  crashes <- rep(0L, workers)
  again <- rep(0, workers)  # when to start a worker that died; they back off, from 0.1 s to 30 s
  told <- FALSE
  suspendInterrupts(repeat {
    if (!identical(allowInterrupts(.Call(C_mlb_wait, 100L)), "nothing")) break
    now <- proc.time()[["elapsed"]]
    for (i in seq_len(workers)) {
      if (pids[i] == 0L) {
        if (now >= again[i]) pids[i] <- .start_worker(task)
        next
      }
      state <- .Call(C_mlb_state, pids[i])
      if (is.na(state)) next
      crashes[i] <- if (is_up(pids[i])) 1L else crashes[i] + 1L
      message("mlbridge: worker ", pids[i], if (state < 0L) " was ended by signal " else " ended with code ", abs(state), "; starting another")
      if (crashes[i] >= 5L && !told) mlb_stop("WorkerDiedError", "the workers do not come up", "their messages say why")
      again[i] <- now + min(30, 0.05 * 2^crashes[i])
      pids[i] <- 0L
    }
    if (!told && all(vapply(pids, is_up, NA))) {
      told <- TRUE
      if (is.null(ready)) message("serving on ", address, " in ", workers, " processes") else ready(address)
    }
  })
  on.exit()
  invisible(.end_workers(pids, grace_s))
}

# SIGTERM drains them; what is left after the grace is killed. Whether all drained.
.end_workers <- function(pids, grace_s) {
  pids <- pids[pids > 0L]
  tools::pskill(pids, tools::SIGTERM)
  until <- proc.time()[["elapsed"]] + grace_s + 2
  clean <- TRUE
  while (length(pids) && proc.time()[["elapsed"]] < until) {
    states <- vapply(pids, function(p) .Call(C_mlb_state, p), 0L)
    clean <- clean && all(states %in% c(0L, NA))
    pids <- pids[is.na(states)]
    Sys.sleep(0.02)
  }
  tools::pskill(pids, tools::SIGKILL)
  for (pid in pids) while (is.na(.Call(C_mlb_state, pid))) Sys.sleep(0.01)
  clean && !length(pids)
}
