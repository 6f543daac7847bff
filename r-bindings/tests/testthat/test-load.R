fit <- lm(Sepal.Length ~ Petal.Length + Species, iris)

# A package as a folder, with one file changed.
changed <- function(name, change, env = parent.frame()) {
  path <- temporary(".mlb", env)
  mlb_save(fit, path, sample = iris, form = "folder")
  change(file.path(path, name))
  path
}

test_that("a changed byte, a stray file, a missing file, a newer format are refused", {
  longer <- function(file) cat("x", file = file, append = TRUE)
  for (path in list(changed("README.md", longer), changed("model/native/model.rds", longer), changed("stray.txt", longer), changed("README.md", unlink)))
    expect_error(mlb_load(path, trust = "code"), class = "mlbridge_data_loss")
  newer <- function(file) writeLines(sub('"format_version": 1', '"format_version": 2', readLines(file)), file)
  said <- expect_error(mlb_load(changed("mlbridge.json", newer), trust = "code"), class = "mlbridge_data_loss")
  expect_match(conditionMessage(said), "reads up to 1")
})

test_that("a link and a path that leads out are refused", {
  skip_on_os("windows")
  elsewhere <- tempfile()
  writeLines("x", elsewhere)
  expect_error(mlb_load(changed("link", function(file) file.symlink(elsewhere, file)), trust = "code"), class = "mlbridge_data_loss")
  odd <- function(...) stop(...)
  expect_error(mlbridge:::.check_names(c("a", "../b"), odd), "unsafe")
  expect_error(mlbridge:::.check_names("/etc/passwd", odd), "unsafe")
  expect_error(mlbridge:::.check_names(c("a", "A"), odd), "one name")
})

test_that("a file that only ends like a package is refused", {
  path <- temporary(".mlb")
  writeBin(c(as.raw(c(0x50, 0x4b, 3, 4)), raw(100)), path)
  expect_error(mlb_load(path, trust = "code"), class = "mlbridge_data_loss")
})

test_that("trust has four words", {
  path <- saved(fit, iris)
  for (word in list("CODE", "", NA, c("data", "code"), 1, "sha256:12"))
    expect_error(mlb_load(path, trust = word), class = "mlbridge_invalid_argument")
})

test_that("a pin allows the one package it names", {
  path <- temporary(".mlb")
  mlb_save(fit, path, sample = iris, form = "folder")
  hash <- digest::digest(file = file.path(path, "mlbridge.json"), algo = "sha256")
  expect_identical(predict(mlb_load(path, trust = paste0("sha256:", hash)), iris)$prediction, unname(predict(fit, iris)))
  said <- expect_error(mlb_load(path, trust = paste0("sha256:", strrep("0", 64))), class = "mlbridge_permission_denied")
  expect_match(conditionMessage(said), hash)
})

test_that("conditions carry code, class and hint", {
  said <- tryCatch(mlb_load(saved(fit, iris), trust = "none"), mlbridge_error = identity)
  expect_s3_class(said, c("mlbridge_invalid_argument", "mlbridge_error", "error", "condition"), exact = TRUE)
  expect_identical(said$code, "INVALID_ARGUMENT")
  expect_identical(said$class_name, "InputError")
  expect_match(said$hint, "sha256")
})
