test_that("raw columns come in the formula's order, what only looks like one does not", {
  days <- 7
  d <- transform(mtcars, pi = qsec)
  fit <- lm(mpg ~ log(wt) + I(hp / days) + factor(cyl) + pi, d)
  expect_setequal(columns(mlb_signature(fit, sample = d)), c("wt", "hp", "cyl", "pi"))
  circle <- lm(mpg ~ I(pi * wt^2), mtcars)
  expect_identical(columns(mlb_signature(circle, sample = mtcars)), "wt")
})

test_that("an offset beside the formula is a column", {
  fit <- glm(ncases ~ agegp, poisson, esoph, offset = log(ncontrols + 1))
  expect_setequal(columns(mlb_signature(fit, sample = esoph)), c("agegp", "ncontrols"))
})

test_that("levels are the model's, in order, not those of the sample", {
  fit <- lm(Sepal.Length ~ Species, iris)
  signature <- mlb_signature(fit, sample = droplevels(iris[1:10, ]))
  expect_identical(unlist(column(signature, "Species")$categories), levels(iris$Species))
  ordered <- column(mlb_signature(lm(ncases ~ agegp, esoph), sample = esoph), "agegp")
  expect_true(ordered$ordered)
  expect_identical(unlist(ordered$categories), levels(esoph$agegp))
})

test_that("a number the formula makes a factor of is one of the numbers training saw", {
  fit <- lm(mpg ~ wt + factor(cyl), mtcars)
  expect_identical(unlist(column(mlb_signature(fit, sample = mtcars), "cyl")$categories), c(4, 6, 8))
  model <- here(fit, mtcars)
  expect_identical(predict(model, mtcars)$prediction, unname(predict(fit, mtcars)))
  expect_error(predict(model, transform(mtcars, cyl = 5)), "'5'", class = "mlbridge_invalid_argument")
  both <- lm(mpg ~ cyl + factor(cyl), mtcars)
  expect_null(column(mlb_signature(both, sample = mtcars), "cyl")$categories)
})

test_that("levels that ranger and svm forget are captured", {
  skip_without("ranger", "e1071")
  forest <- ranger::ranger(Petal.Length ~ Species + Sepal.Length, iris, num.trees = 5)
  expect_null(forest$forest$covariate.levels)
  expect_identical(unlist(column(mlb_signature(forest, sample = iris), "Species")$categories), levels(iris$Species))
  machine <- e1071::svm(Petal.Length ~ Species + Sepal.Length, iris)
  expect_identical(unlist(column(mlb_signature(machine, sample = iris), "Species")$categories), levels(iris$Species))
})

test_that("the rule for missing values is tried, column by column", {
  skip_without("ranger", "rpart")
  forest <- ranger::ranger(Petal.Length ~ Species + Sepal.Length, iris, num.trees = 5)
  expect_identical(rule(mlb_signature(forest, sample = iris), "Sepal.Length"), "refuse")
  expect_identical(rule(mlb_signature(rpart::rpart(Petal.Length ~ ., iris), sample = iris), "Sepal.Length"), "allow")
})

test_that("a column whose rule differs is a block of its own", {
  picky <- structure(list(), class = "picky")
  registerS3method("predict", "picky", function(object, newdata, ...) {
    if (anyNA(newdata$a)) stop("a is missing")
    newdata$a + ifelse(is.na(newdata$b), 0, newdata$b)
  })
  signature <- mlb_signature(picky, sample = data.frame(a = c(1, 2), b = c(3, 4)))
  expect_identical(vapply(signature$inputs, `[[`, "", "name"), c("features", "features_2"))
  expect_identical(rule(signature, "a"), "refuse")
  expect_identical(rule(signature, "b"), "allow")
})

test_that("a class of one's own needs no method, or one", {
  mine <- structure(list(by = 2), class = "doubler")
  registerS3method("predict", "doubler", function(object, newdata, ...) object$by * newdata$x)
  expect_identical(mlb_signature(mine, sample = data.frame(x = 1:3))$outputs[[1]]$name, "prediction")
  odd <- structure(list(cut = 2), class = "oddly_asked")
  registerS3method("mlb_answers", "oddly_asked", function(model, newdata, wanted, options, levels) list(prediction = as.numeric(newdata$x > model$cut)), asNamespace("mlbridge"))
  expect_identical(predict(here(odd, data.frame(x = 1:3)), data.frame(x = 1:3))$prediction, c(0, 0, 1))
})

test_that("logical columns and responses are FALSE and TRUE", {
  d <- transform(mtcars, am = am == 1)
  signature <- mlb_signature(lm(mpg ~ am, d), sample = d)
  expect_identical(unlist(column(signature, "am")$categories), c(FALSE, TRUE))
  model <- here(glm(am ~ wt, binomial, d), d, options = list(as = "classifier"))
  expect_type(predict(model, d)$label, "logical")
})

test_that("a signature survives its JSON", {
  signature <- mlb_signature(lm(Sepal.Length ~ Petal.Length + Species, iris), sample = iris)
  expect_equal(mlbridge:::.signature_of_json(mlbridge:::.signature_json(signature)), signature)
  newer <- sub('"version":1', '"version":2', mlbridge:::.signature_json(signature))
  expect_error(mlbridge:::.signature_of_json(newer), class = "mlbridge_data_loss")
  strange <- sub('"dtype"', '"colour":1,"dtype"', mlbridge:::.signature_json(signature))
  expect_error(mlbridge:::.signature_of_json(strange), class = "mlbridge_data_loss")
})

test_that("a sample that lacks a column, or is none, is refused by name", {
  fit <- lm(mpg ~ wt + hp, mtcars)
  expect_match(conditionMessage(expect_error(mlb_signature(fit, sample = mtcars["wt"]), class = "mlbridge_invalid_argument")), "hp")
  expect_error(mlb_signature(fit), class = "mlbridge_invalid_argument")
  expect_error(mlb_signature(fit, sample = mtcars[0, ]), class = "mlbridge_invalid_argument")
})
