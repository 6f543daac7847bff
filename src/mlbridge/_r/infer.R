# The signature of a fitted model as R itself knows it: for models that no reader outside R understands.

.json_text <- function(v) {
  v <- gsub("\\", "\\\\", enc2utf8(v), fixed = TRUE)
  v <- gsub('"', '\\"', v, fixed = TRUE)
  for (i in 1:31) v <- gsub(intToUtf8(i), sprintf("\\u%04x", i), v, fixed = TRUE)
  paste0('"', v, '"')
}

.json <- function(v) {
  if (is.null(v)) return("null")
  if (is.character(v)) return(.json_text(v))
  if (is.logical(v)) return(tolower(v))
  if (!is.list(v)) return(format(v, scientific = FALSE, trim = TRUE, digits = 15))
  parts <- vapply(v, .json, "")
  if (is.null(names(v))) return(paste0("[", paste(parts, collapse = ","), "]"))
  paste0("{", paste0(.json_text(names(v)), ":", parts, collapse = ","), "}")
}

.block_of <- function(name, dtype, columns) if (length(columns)) list(.spec(name, dtype, list("rows", length(columns)), columns, "allow"))

# JSON of the signature, or an error that says what is not known.
infer_signature <- function(model, options = list()) {
  known <- if (is.list(model)) model[["var.summary"]]  # mgcv keeps typical values of the raw columns
  terms <- tryCatch(stats::terms(model), error = function(e) NULL)
  classes <- column_classes(model)
  frame <- tryCatch(stats::model.frame(model), error = function(e) NULL)
  if (is.null(frame) && is.list(model)) frame <- model[["trainingData"]]  # caret's
  xlevels <- if (is.list(model)) model[["xlevels"]]
  names <- if (!is.null(known)) base::names(known) else if (!is.null(terms)) all.vars(stats::delete.response(terms))
  names <- names[names %in% c(base::names(classes), base::names(known)) | !vapply(names, exists, NA, envir = baseenv())]
  if (!length(names)) stop("a model of class ", paste(class(model), collapse = "/"), " does not tell its columns")
  features <- categorical <- text <- list()
  for (name in names) {
    value <- if (!is.null(known)) known[[name]] else frame[[name]]
    class <- if (name %in% base::names(classes)) classes[[name]] else if (!is.null(value)) class(value)[1] else "numeric"
    levels <- if (is.factor(value)) base::levels(value) else xlevels[[name]]
    if (class == "logical") categorical <- c(categorical, list(.new_column(name, c(FALSE, TRUE))))
    else if (class %in% c("factor", "ordered")) {
      if (!length(levels)) stop("the model does not hold the levels of ", name)
      categorical <- c(categorical, list(.new_column(name, levels, class == "ordered")))
    } else if (class == "character") {
      if (length(levels)) categorical <- c(categorical, list(.new_column(name, levels))) else text <- c(text, list(.new_column(name)))
    } else if (inherits(value, "Date")) features <- c(features, list(.new_column(name, unit = "date")))
    else if (inherits(value, "POSIXct")) features <- c(features, list(.new_column(name, unit = "timestamp")))
    else if (class %in% c("numeric", "integer", "other")) features <- c(features, list(.new_column(name)))
    else stop("the column ", name, " is a ", class)
  }
  rows <- if (!is.null(known)) as.data.frame(lapply(known, function(v) v[1L]), optional = TRUE)
    else if (all(names %in% base::names(frame))) utils::head(frame[names], 3L)
  ask <- function(wanted, levels = NULL) {
    if (is.null(rows)) stop("the model holds no rows to ask it with")
    suppressWarnings(mlb_answers(model, rows, wanted, options, levels))
  }
  outputs <- tryCatch(.outputs_of(model, ask, options), mlbridge_failure = stop, error = function(e) .response_of(terms, classes, frame))
  outputs <- lapply(outputs, function(s) if (s$dtype == "int64") s else utils::modifyList(s, list(missing = "allow")))
  inputs <- c(.block_of("features", "float64", features), .block_of("categorical", "int32", categorical), .block_of("text", "string", text))
  .json(list(version = 1, inputs = inputs, outputs = outputs))
}

# Of a model that cannot be asked here: a label where the response is one, else a number.
.response_of <- function(terms, classes, frame) {
  response <- if (!is.null(terms) && attr(terms, "response") == 1L) classes[attr(terms, "response")] else "numeric"
  if (!length(response) || !response %in% c("factor", "ordered", "character")) return(.prediction())
  .classifier(levels(factor(stats::model.response(frame))), "label")
}
