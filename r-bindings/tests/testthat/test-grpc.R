ns <- asNamespace("mlbridge")
skip_off <- function() skip_if_not(mlb_features()$available[1], "gRPC is not built in")

# Runs code that calls mlb_serve(..., ready = ready) in another R; gives its address. It ends with this test.
served <- function(code, env = parent.frame()) {
  said <- tempfile()
  script <- tempfile(fileext = ".R")
  writeLines(c(sprintf(".libPaths(%s)", paste(deparse(.libPaths()), collapse = "")), "library(mlbridge)",
    sprintf("ready <- function(address) { writeLines(address, %s); file.rename(%s, %s) }", deparse(paste0(said, ".part")), deparse(paste0(said, ".part")), deparse(said)), code), script)
  pid <- .Call(ns$C_mlb_spawn, c(file.path(R.home("bin"), "Rscript"), "--vanilla", script))
  end <- bquote({
    tools::pskill(.(pid), tools::SIGKILL)
    while (is.na(.Call(ns$C_mlb_state, .(pid)))) Sys.sleep(0.01)
  })
  do.call("on.exit", list(end, add = TRUE), envir = env)
  for (i in 1:1200) if (file.exists(said)) return(list(address = readLines(said), pid = pid)) else Sys.sleep(0.05)
  stop("the server did not come up")
}
code_of <- function(expr) tryCatch({ expr; "OK" }, mlbridge_error = function(e) e$code)

test_that("features are told, with the way to get what is off", {
  features <- mlb_features()
  expect_named(features, c("feature", "available", "detail"))
  expect_equal(features$feature, c("grpc", "python"))
  if (!features$available[1]) {
    expect_match(features$detail[1], "apt-get install")
    expect_equal(code_of(mlb_load("grpc://127.0.0.1:1/m")), "UNAVAILABLE")
    expect_equal(code_of(mlb_serve(list(m = lm(dist ~ speed, cars)))), "UNAVAILABLE")
  }
})

test_that("a wrapped model predicts, and a fitted one finds its training data", {
  fit <- lm(dist ~ speed, cars)
  expect_equal(predict(mlb_wrap(fit), cars)$prediction, unname(predict(fit, cars)), tolerance = 0)
  expect_equal(code_of(mlb_wrap(function(feeds) feeds)), "INVALID_ARGUMENT")
  gone <- local({
    d <- cars
    lm(dist ~ speed, d)
  })
  gone$call$data <- quote(nowhere)
  expect_error(mlb_wrap(gone), class = "mlbridge_invalid_argument", regexp = "mlb_wrap")
})

test_that("addresses of served models are checked", {
  skip_off()
  for (odd in c("grpc://host/m", "grpc://host:1/", "grpc://u:p@host:1/m", "grpc://host:99999/m", "grpc://host:1/m@x", "grpc://host:1/m?t=1"))
    expect_equal(code_of(mlb_load(odd)), "INVALID_ARGUMENT", info = odd)
  expect_equal(code_of(mlb_load("grpc://example.org:1/m", options = list(grpc = list(token = "secret")))), "INVALID_ARGUMENT")
  expect_equal(code_of(mlb_load("grpc://127.0.0.1:1/m", options = list(grpc = list(tokn = "x")))), "INVALID_ARGUMENT")
  expect_equal(code_of(mlb_load("grpc://127.0.0.1:1/m", options = list(grpc = list(timeout_s = "x")))), "INVALID_ARGUMENT")
  expect_equal(code_of(mlb_load("grpc://127.0.0.1:1/m")), "UNAVAILABLE")
})

test_that("a server that others reach needs TLS and a token, and models need names", {
  skip_off()
  fit <- lm(dist ~ speed, cars)
  expect_equal(code_of(mlb_serve(list(m = fit), "0.0.0.0:0")), "INVALID_ARGUMENT")
  expect_equal(code_of(mlb_serve(list(m = fit), "0.0.0.0:0", token = "long-enough")), "INVALID_ARGUMENT")
  expect_equal(code_of(mlb_serve(list(m = fit), "127.0.0.1:0", token = "short")), "INVALID_ARGUMENT")
  expect_equal(code_of(mlb_serve(list(fit), "127.0.0.1:0")), "INVALID_ARGUMENT")
})

test_that("a served model answers data frames with factors and missing values as the model itself", {
  skip_off()
  host <- served(c("d <- transform(iris, Wide = Sepal.Width > 3)", "fit <- lm(Sepal.Length ~ Petal.Length + Species + Wide, d)",
    "slow <- mlb_wrap(function(feeds) { Sys.sleep(feeds$x[1]); feeds }, signature = '{\"version\":1,\"inputs\":[{\"name\":\"x\",\"dtype\":\"float64\",\"shape\":[\"rows\"]}],\"outputs\":[{\"name\":\"x\",\"dtype\":\"float64\",\"shape\":[\"rows\"]}]}')",
    "mlb_serve(list(fit = fit, slow = slow), '127.0.0.1:0', ready = ready)"))
  d <- transform(iris, Wide = Sepal.Width > 3)
  fit <- lm(Sepal.Length ~ Petal.Length + Species + Wide, d)
  model <- mlb_load(paste0("grpc://", host$address, "/fit"))
  expect_equal(mlb_signature(model), mlb_signature(fit, sample = d), ignore_attr = TRUE)
  d$Species[3] <- NA
  d$Petal.Length[4] <- NA
  rownames(d) <- paste0("row", seq_len(nrow(d)))
  got <- predict(model, d)
  expect_identical(rownames(got), rownames(d))
  expect_identical(got$prediction, unname(predict(fit, d)))
  expect_equal(nrow(predict(model, d[0, ])), 0L)
  expect_error(predict(model, transform(d, Species = "rose")), class = "mlbridge_invalid_argument", regexp = "rose")
  expect_output(print(model), "grpc")
  slow <- mlb_load(paste0("grpc://", host$address, "/slow"))
  expect_error(predict(slow, list(x = 60), timeout_s = 0.3), class = "mlbridge_deadline_exceeded")
  expect_equal(predict(slow, list(x = 0))$x, 0)
  expect_error(mlb_load(paste0("grpc://", host$address, "/none")), class = "mlbridge_not_found")
  close(model)
  expect_error(predict(model, d), class = "mlbridge_failed_precondition")
  tools::pskill(host$pid, tools::SIGKILL)
  while (is.na(.Call(ns$C_mlb_state, host$pid))) Sys.sleep(0.01)
  expect_error(predict(slow, list(x = 0), timeout_s = 5), class = "mlbridge_unavailable")
})
