#' mlbridge: models from R, Python and Scala behind one signature
#'
#' [mlb_save()] writes a fitted model as a package (`.mlb`) that Python and the JVM load without R;
#' [mlb_load()] opens any package, whichever language made it, as a model that [predict()] asks.
#'
#' How R models are asked is in the files `shared-*.R`. They are the files of the R worker, copied from
#' `src/mlbridge/_r` when the package is built.
#'
#' @keywords internal
#' @importFrom stats predict setNames
#' @importFrom Rcpp evalCpp
#' @useDynLib mlbridge, .registration = TRUE, .fixes = "C_"
#' @evalNamespace .shared_methods()
"_PACKAGE"

# NAMESPACE entries for every method of the shared generic, so that a new one needs no second list.
.shared_methods <- function() {
  methods <- grep("^mlb_answers[.]", ls(topenv()), value = TRUE)
  c("export(mlb_answers)", sprintf("S3method(mlb_answers,%s)", sub("^mlb_answers[.]", "", methods)))
}
