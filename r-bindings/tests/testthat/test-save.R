fit <- lm(Sepal.Length ~ Petal.Length + Species, iris)

golden <- function(path, name) {
  con <- file(file.path(inside(path), "samples", name), "rb")
  on.exit(close(con))
  mlbridge:::read_frame(con)$tensors
}

inside <- function(path) {
  folder <- tempfile()
  utils::unzip(path, exdir = folder)
  folder
}

test_that("the training data is gone, and predict answers the same", {
  path <- saved(glm(am ~ wt + hp, binomial, mtcars, y = TRUE), mtcars)
  kept <- readRDS(file.path(inside(path), "model", "native", "model.rds"))
  expect_null(kept$data)
  expect_null(kept$y)
  expect_identical(nrow(kept$model), 0L)
  expect_identical(predict(kept, mtcars), predict(glm(am ~ wt + hp, binomial, mtcars), mtcars))
})

test_that("what lay beside the formula is not saved, what it names is", {
  make <- function() {
    secret <- rnorm(1e5)
    power <- 2
    lm(mpg ~ I(wt^power), mtcars)
  }
  fit <- make()
  path <- saved(fit, mtcars)
  expect_lt(file.size(path), 20000)
  kept <- readRDS(file.path(inside(path), "model", "native", "model.rds"))
  expect_identical(ls(environment(formula(kept))), "power")
  expect_identical(predict(mlb_load(path, trust = "code"), mtcars)$prediction, unname(predict(fit, mtcars)))
})

test_that("a model that needs its data keeps it, with a warning", {
  hungry <- structure(list(residuals = 1:3), class = c("hungry", "lm"))
  registerS3method("predict", "hungry", function(object, newdata, ...) newdata$x + sum(object$residuals))
  path <- temporary(".mlb")
  expect_warning(mlb_save(hungry, path, sample = data.frame(x = 1:3)), "training data")
  expect_identical(predict(mlb_load(path, trust = "code"), data.frame(x = 1))$prediction, 7)
})

test_that("golden rows are R's own answers, some with a value taken out", {
  path <- saved(fit, iris)
  inputs <- golden(path, "inputs.mlbf")
  expect_lte(nrow(inputs$features), 64L)
  expect_true(anyNA(inputs$features))
  expect_true(any(inputs$categorical == -1L))
  codes <- inputs$categorical[, 1]
  kinds <- factor(levels(iris$Species)[ifelse(codes < 0, NA, codes) + 1L], levels(iris$Species))
  rows <- data.frame(Petal.Length = inputs$features[, 1], Species = kinds)
  expect_identical(golden(path, "outputs.mlbf")$prediction, unname(predict(fit, rows)))
})

test_that("numbers are exact to the last bit", {
  x <- c(0.1 + 0.2, 1e-300, 2^53 - 1, pi)
  same <- structure(list(), class = "same")
  registerS3method("predict", "same", function(object, newdata, ...) newdata$x)
  path <- saved(same, data.frame(x = x))
  expect_identical(golden(path, "outputs.mlbf")$prediction[1:4], x)
})

test_that("an existing package is replaced only in words, and survives a save that fails", {
  path <- saved(fit, iris)
  before <- tools::md5sum(path)
  expect_error(mlb_save(fit, path, sample = iris), class = "mlbridge_invalid_argument")
  broken <- structure(list(), class = "breaks_late")
  expect_error(mlb_save(broken, path, sample = iris, overwrite = TRUE))
  expect_identical(tools::md5sum(path), before)
  mlb_save(lm(Sepal.Length ~ Species, iris), path, sample = iris, overwrite = TRUE)
  expect_identical(columns(mlb_signature(mlb_load(path, trust = "code"))), "Species")
  expect_identical(list.files(dirname(path), pattern = paste0("^[.]", basename(path)), all.files = TRUE), character())
})

test_that("a folder is a package too", {
  path <- temporary(".mlb")
  mlb_save(fit, path, sample = iris, form = "folder")
  mlb_save(fit, path, sample = iris, form = "folder", overwrite = TRUE)
  expect_true(file.exists(file.path(path, "mlbridge.json")))
  expect_identical(predict(mlb_load(path, trust = "code"), iris)$prediction, unname(predict(fit, iris)))
  other <- tempfile()
  dir.create(other)
  expect_error(mlb_save(fit, other, sample = iris, form = "folder", overwrite = TRUE), class = "mlbridge_invalid_argument")
})

test_that("options are saved, and refused where they are not known", {
  model <- here(glm(am ~ wt, binomial, mtcars), mtcars, options = list(type = "link"))
  expect_identical(predict(model, mtcars)$prediction, unname(predict(glm(am ~ wt, binomial, mtcars), mtcars)))
  expect_error(mlb_save(fit, tempfile(), sample = iris, options = list(tpye = "link")), class = "mlbridge_invalid_argument")
  expect_error(mlb_save(fit, tempfile(), iris, TRUE), class = "mlbridge_invalid_argument")
})

test_that("a formula's functions are attached where the package is loaded", {
  fit <- lm(mpg ~ splines::ns(wt, 3), mtcars)
  expect_identical(predict(here(fit, mtcars), mtcars)$prediction, unname(predict(fit, mtcars)))
})
