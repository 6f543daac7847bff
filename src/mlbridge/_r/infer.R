# The signature of a fitted model as R itself knows it: for models that no reader outside R understands.

.json_text <- function(v) {
  v <- gsub("\\", "\\\\", enc2utf8(v), fixed = TRUE)
  v <- gsub('"', '\\"', v, fixed = TRUE)
  for (i in 1:31) v <- gsub(intToUtf8(i), sprintf("\\u%04x", i), v, fixed = TRUE)
  paste0('"', v, '"')
}

.json_column <- function(name, levels, ordered = FALSE, unit = NULL) {
  values <- if (is.logical(levels)) tolower(levels) else if (is.character(levels)) .json_text(levels)
  paste0('{"name":', .json_text(name), if (!is.null(levels)) paste0(',"categories":[', paste(values, collapse = ","), "]"),
    if (ordered) ',"ordered":true', if (!is.null(unit)) paste0(',"unit":"', unit, '"'), "}")
}

.json_block <- function(name, dtype, columns) {
  if (!length(columns)) return(NULL)
  sprintf('{"name":"%s","dtype":"%s","shape":["rows",%d],"columns":[%s],"missing":"allow"}', name, dtype, length(columns), paste(columns, collapse = ","))
}

# JSON of the signature, or an error that says what is not known.
infer_signature <- function(model) {
  known <- if (is.list(model)) model[["var.summary"]]  # mgcv keeps typical values of the raw columns
  terms <- tryCatch(stats::terms(model), error = function(e) NULL)
  classes <- column_classes(model)
  frame <- tryCatch(stats::model.frame(model), error = function(e) NULL)
  xlevels <- if (is.list(model)) model[["xlevels"]]
  names <- if (!is.null(known)) base::names(known) else if (!is.null(terms)) all.vars(stats::delete.response(terms))
  names <- names[names %in% c(base::names(classes), base::names(known)) | !vapply(names, exists, NA, envir = baseenv())]
  if (!length(names)) stop("a model of class ", paste(class(model), collapse = "/"), " does not tell its columns")
  features <- categorical <- text <- character()
  for (name in names) {
    value <- if (!is.null(known)) known[[name]] else frame[[name]]
    class <- if (name %in% base::names(classes)) classes[[name]] else if (!is.null(value)) class(value)[1] else "numeric"
    levels <- if (is.factor(value)) base::levels(value) else xlevels[[name]]
    if (class == "logical") categorical <- c(categorical, .json_column(name, c(FALSE, TRUE)))
    else if (class %in% c("factor", "ordered")) {
      if (!length(levels)) stop("the model does not hold the levels of ", name)
      categorical <- c(categorical, .json_column(name, levels, class == "ordered"))
    } else if (class == "character") {
      if (length(levels)) categorical <- c(categorical, .json_column(name, levels)) else text <- c(text, .json_column(name, NULL))
    } else if (inherits(value, "Date")) features <- c(features, .json_column(name, NULL, unit = "date"))
    else if (inherits(value, "POSIXct")) features <- c(features, .json_column(name, NULL, unit = "timestamp"))
    else if (class %in% c("numeric", "integer", "other")) features <- c(features, .json_column(name, NULL))
    else stop("the column ", name, " is a ", class)
  }
  response <- if (!is.null(terms) && attr(terms, "response") == 1L) classes[attr(terms, "response")] else "numeric"
  target <- if (length(response) && response %in% c("factor", "ordered", "character") && !inherits(model, "glm"))
    levels(factor(stats::model.response(stats::model.frame(model))))
  output <- if (length(target)) sprintf('{"name":"label","dtype":"int32","shape":["rows"],"columns":[%s],"missing":"allow"}', .json_column("label", target))
    else '{"name":"prediction","dtype":"float64","shape":["rows"],"missing":"allow"}'
  blocks <- c(.json_block("features", "float64", features), .json_block("categorical", "int32", categorical), .json_block("text", "string", text))
  sprintf('{"version":1,"inputs":[%s],"outputs":[%s]}', paste(blocks, collapse = ","), output)
}
