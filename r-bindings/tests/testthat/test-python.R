# Models that run in Python, through reticulate.

test_that("below trust code an R model is converted, verified, and answers the same", {
  skip_without_python()
  fit <- glm(am ~ wt + factor(cyl), binomial, mtcars)
  path <- saved(fit, mtcars)
  model <- mlb_load(path)
  about <- summary(model)
  expect_identical(about$runtime, "onnx")
  expect_match(about$parity, "^verified")
  expect_equal(predict(model, mtcars)$prediction, unname(predict(fit, mtcars, type = "response")), tolerance = 1e-12)
  expect_identical(rownames(predict(model, mtcars)), rownames(mtcars))
  close(model)
})

test_that("factors, labels and missing values cross", {
  skip_without_python()
  skip_without("rpart")
  tree <- rpart::rpart(Species ~ ., iris)
  model <- mlb_load(saved(tree, iris))
  rows <- iris[c(1, 60, 120), ]
  rows$Petal.Length[2] <- NA
  got <- predict(model, rows)
  expect_identical(got$label, unname(predict(tree, rows, type = "class")))
  expect_equal(unname(as.matrix(got[-1])), unname(predict(tree, rows, type = "prob")), tolerance = 1e-12)
})

test_that("whole numbers of 64 bits and matrices cross", {
  skip_without_python()
  set.seed(1)
  groups <- kmeans(iris[1:4], 3)
  rows <- iris[1:150 %% 7 == 0, 1:4]
  expect_equal(predict(mlb_load(saved(groups, iris[1:4])), rows)$cluster, as.numeric(groups$cluster[1:150 %% 7 == 0]))
  turned <- prcomp(iris[1:4])
  got <- predict(mlb_load(saved(turned, iris[1:4])), rows)
  expect_named(got, paste0("transformed_PC", 1:4))
  expect_equal(unname(as.matrix(got)), unname(predict(turned, rows)), tolerance = 1e-12)
})

test_that("what does not convert needs trust, and then is R's own", {
  skip_without_python()
  fit <- loess(dist ~ speed, cars)
  path <- saved(fit, cars)
  said <- expect_error(mlb_load(path), class = "mlbridge_permission_denied")
  expect_match(said$hint, "trust='code'")
  expect_identical(predict(mlb_load(path, trust = "code"), cars)$prediction, unname(predict(fit, cars)))
})

test_that("errors of Python are conditions here", {
  skip_without_python()
  expect_error(mlb_load(tempfile(fileext = ".mlb")), class = "mlbridge_error")
  garbage <- temporary(".mlb")
  writeBin(readBin(saved(lm(dist ~ speed, cars), cars), "raw", 300), garbage)
  expect_error(mlb_load(garbage), class = "mlbridge_data_loss")
  model <- mlb_load(saved(lm(dist ~ speed, cars), cars))
  expect_error(predict(model, data.frame(speed = "fast")), class = "mlbridge_invalid_argument")
  expect_error(mlb_load(saved(lm(dist ~ speed, cars), cars), options = list(r = list(tpye = 1))), class = "mlbridge_invalid_argument")
})
