flowers <- iris[c(1, 30, 51, 90, 101, 140), ]
fit <- lm(Sepal.Length ~ Petal.Length + Species, iris)

test_that("a data frame comes back as a data frame with its row names", {
  model <- here(fit, iris)
  got <- predict(model, flowers)
  expect_s3_class(got, "data.frame")
  expect_identical(rownames(got), rownames(flowers))
  expect_identical(got$prediction, unname(predict(fit, flowers)))
})

test_that("columns match by name, and more of them are ignored", {
  model <- here(fit, iris)
  expect_identical(predict(model, flowers[5:1]), predict(model, flowers))
})

test_that("factors match by their text, whatever order their levels have; characters are levels too", {
  model <- here(fit, iris)
  turned <- transform(flowers, Species = factor(Species, levels = rev(levels(Species))))
  expect_identical(predict(model, turned), predict(model, flowers))
  expect_identical(predict(model, transform(flowers, Species = as.character(Species))), predict(model, flowers))
  one <- droplevels(flowers[5, ])
  expect_identical(predict(model, one)$prediction, unname(predict(fit, flowers)[5]))
})

test_that("missing values go in and come out", {
  model <- here(fit, iris)
  flowers$Petal.Length[2] <- NA
  flowers$Species[3] <- NA
  expect_identical(is.na(predict(model, flowers)$prediction), c(FALSE, TRUE, TRUE, FALSE, FALSE, FALSE))
})

test_that("all problems of one input are one condition", {
  model <- here(fit, iris)
  bad <- data.frame(Petal.Length = "long", Species = "tulip")
  said <- expect_error(predict(model, bad), class = "mlbridge_invalid_argument")
  expect_length(said$problems, 2L)
  expect_match(conditionMessage(said), "tulip")
  expect_match(conditionMessage(said), "Petal.Length")
  expect_match(conditionMessage(expect_error(predict(model, bad["Species"]), class = "mlbridge_error")), "absent")
})

test_that("a matrix of probabilities is spread, and one output comes alone", {
  skip_without("rpart")
  tree <- rpart::rpart(Species ~ ., iris)
  model <- here(tree, iris)
  got <- predict(model, flowers)
  expect_named(got, c("label", paste0("probabilities_", levels(iris$Species))))
  expect_identical(got$label, unname(predict(tree, flowers, type = "class")))
  alone <- predict(model, flowers, outputs = "probabilities")
  expect_identical(unname(alone), unname(predict(tree, flowers, type = "prob")))
  expect_identical(colnames(alone), levels(iris$Species))
  expect_error(predict(model, flowers, outputs = "chances"), class = "mlbridge_invalid_argument")
})

test_that("a list gives a list, and a stranger in it is refused", {
  model <- here(fit, iris)
  got <- predict(model, list(Species = "setosa", Petal.Length = 1.4))
  expect_identical(got, list(prediction = unname(predict(fit, flowers[1, ]))))
  expect_error(predict(model, list(Species = "setosa", Petal.Length = 1.4, x = 1)), class = "mlbridge_invalid_argument")
})

test_that("a matrix with names is columns", {
  model <- here(prcomp(iris[1:4]), iris[1:4])
  x <- as.matrix(flowers[1:4])
  expect_identical(unname(predict(model, x)$transformed), unname(predict(prcomp(iris[1:4]), x)))
})

test_that("zero rows give zero rows", {
  got <- predict(here(fit, iris), flowers[0, ])
  expect_identical(dim(got), c(0L, 1L))
})

test_that("dates and times are days and seconds", {
  d <- data.frame(day = as.Date("2024-02-27") + 0:9, at = as.POSIXct("2024-02-27 12:00", tz = "UTC") + 3600 * (0:9)^2, y = (1:10)^1.5)
  dated <- lm(y ~ day + at, d)
  model <- here(dated, d)
  expect_identical(column(mlb_signature(model), "day")$unit, "date")
  expect_identical(column(mlb_signature(model), "at")$unit, "timestamp")
  expect_identical(predict(model, d)$prediction, unname(predict(dated, d)))
  expect_error(predict(model, transform(d, day = "2024-02-27")), class = "mlbridge_invalid_argument")
})

test_that("the caller's stream of random numbers stays as it was", {
  model <- here(fit, iris)
  set.seed(3)
  first <- runif(1)
  set.seed(3)
  predict(model, flowers)
  expect_identical(runif(1), first)
})

test_that("a closed model says so", {
  model <- here(fit, iris)
  close(model)
  close(model)
  expect_error(predict(model, flowers), class = "mlbridge_failed_precondition")
})

test_that("print and summary tell what it is", {
  model <- here(fit, iris)
  expect_output(print(model), "Species \\{setosa, versicolor, virginica\\}")
  about <- summary(model)
  expect_identical(about$runtime, "r")
  expect_output(print(about), "trust: +code")
})

test_that("what the model itself raises is an inference error", {
  broken <- structure(list(), class = "broken")
  registerS3method("predict", "broken", function(object, newdata, ...) if (any(newdata$x > 10)) stop("too far") else newdata$x)
  model <- here(broken, data.frame(x = 1:3))
  expect_identical(predict(model, data.frame(x = 2))$prediction, 2)
  said <- expect_error(predict(model, data.frame(x = 11)), class = "mlbridge_internal")
  expect_match(conditionMessage(said), "too far")
})

test_that("a deadline ends a call", {
  slow <- structure(list(), class = "slow")
  registerS3method("predict", "slow", function(object, newdata, ...) {
    if (any(newdata$x > 10)) for (i in 1:1000) Sys.sleep(0.01)
    newdata$x
  })
  model <- here(slow, data.frame(x = 1:3))
  expect_error(predict(model, data.frame(x = 11), timeout_s = 0.1), class = "mlbridge_deadline_exceeded")
  expect_identical(predict(model, data.frame(x = 2))$prediction, 2)
})

test_that("ties that a forest breaks at random are broken the same way every time", {
  skip_without("randomForest")
  set.seed(1)
  d <- data.frame(x = runif(300), y = factor(sample(c("a", "b"), 300, TRUE)))
  forest <- randomForest::randomForest(y ~ x, d, ntree = 10)
  model <- here(forest, d)
  set.seed(0)
  own <- unname(predict(forest, d))
  runif(5)
  expect_identical(predict(model, d)$label, own)
  RNGkind("Wichmann-Hill")
  on.exit(RNGkind("default"), add = TRUE)
  expect_identical(predict(model, d)$label, own)
})
