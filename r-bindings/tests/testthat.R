library(testthat)
library(mlbridge)

test_check("mlbridge")
