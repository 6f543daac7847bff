# What this installation can do, and how it gets what it lacks.

.grpc_packages <- "libgrpc++-dev libprotobuf-dev protobuf-compiler protobuf-compiler-grpc pkg-config"

#' Features of this installation
#'
#' Serving models and opening `grpc://` addresses need the C++ libraries of gRPC when the package is installed. Without
#' them it installs all the same, and both are off.
#'
#' @return A data frame with one row a feature: `feature`, `available`, `detail` (a version, or how to get it).
#' @examples
#' mlb_features()
#' @export
mlb_features <- function() {
  grpc <- .Call(C_mlb_grpc_version)
  python <- requireNamespace("reticulate", quietly = TRUE)
  data.frame(feature = c("grpc", "python"), available = c(!is.null(grpc), python), detail = c(
    if (is.null(grpc)) paste0("apt-get install ", .grpc_packages, "; then install mlbridge again") else paste("gRPC", grpc),
    if (python) paste("reticulate", utils::packageVersion("reticulate")) else "install.packages(\"reticulate\")"))
}

.need_grpc <- function() {
  if (is.null(.Call(C_mlb_grpc_version))) mlb_stop("MissingDependencyError", "this mlbridge was installed without gRPC",
    paste0("apt-get install ", .grpc_packages, "; then install mlbridge again"))
}
