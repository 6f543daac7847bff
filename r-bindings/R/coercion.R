# The only coercion: a data frame (or a list, or a matrix) to the arrays a signature takes, and its answers back.
# `feeds_of` and `answer_of` are used by every way a model can run: in this R, in Python, behind a server.

# Arrays by input name: doubles, int32 codes (-1 missing, k unknown), text. All problems of one newdata are one condition.
feeds_of <- function(newdata, signature) {
  given <- .given(newdata, signature)
  feeds <- list()
  problems <- character()
  for (spec in signature$inputs) {
    made <- if (length(spec$columns)) .block(given, spec) else .plain_input(given, spec)
    feeds[[spec$name]] <- made$value
    problems <- c(problems, made$problems)
  }
  known <- c(vapply(signature$inputs, `[[`, "", "name"), unlist(lapply(signature$inputs, function(s) lapply(s$columns, `[[`, "name"))))
  if (!is.data.frame(newdata)) {
    odd <- setdiff(names(given), known)
    if (length(odd)) problems <- c(problems, paste0("there is no input ", paste(sQuote(odd, FALSE), collapse = ", ")))
  }
  rows <- unique(vapply(feeds, NROW, 0L))
  if (!length(problems) && length(rows) > 1L) problems <- paste("the inputs have different numbers of rows:", paste(rows, collapse = ", "))
  mlb_stop_if_any(problems)
  feeds
}

# Newdata as a named list of columns or inputs.
.given <- function(newdata, signature) {
  if (is.data.frame(newdata)) return(as.list(newdata))
  if (is.array(newdata) || is.atomic(newdata)) {
    if (length(signature$inputs) != 1L)
      mlb_stop("InputError", "a matrix is one input, and the model has several", "pass a data frame or a named list")
    spec <- signature$inputs[[1]]
    if (length(spec$columns) && !is.null(colnames(newdata))) return(as.list(as.data.frame(newdata, optional = TRUE)))
    return(stats::setNames(list(newdata), spec$name))
  }
  if (is.list(newdata) && !is.null(names(newdata))) return(newdata)
  mlb_stop("InputError", paste("newdata is a", class(newdata)[1]), "pass a data frame, a matrix or a named list")
}

.block <- function(given, spec) {
  names <- vapply(spec$columns, `[[`, "", "name")
  whole <- given[[spec$name]]
  if (!is.null(whole) && !any(names %in% names(given))) {  # the block itself, as a matrix of its columns
    if (NCOL(whole) != length(names))
      return(list(problems = paste0(spec$name, ": ", NCOL(whole), " columns, expected ", length(names))))
    given <- stats::setNames(lapply(seq_along(names), function(j) if (length(dim(whole)) == 2L) whole[, j] else whole), names)
  }
  absent <- setdiff(names, names(given))
  problems <- if (length(absent)) paste0("the column ", sQuote(absent, FALSE), " is absent")
  columns <- list()
  for (column in spec$columns) {
    if (column$name %in% absent) next
    made <- .coerced(given[[column$name]], column, spec)
    problems <- c(problems, made$problems)
    columns[[column$name]] <- made$value
  }
  if (length(problems)) return(list(problems = problems))
  if (length(unique(lengths(columns))) > 1L)
    return(list(problems = paste0(spec$name, ": its columns have different lengths: ", paste(unique(lengths(columns)), collapse = ", "))))
  if (length(spec$shape) < 2L) return(list(value = columns[[1]]))
  list(value = matrix(unlist(columns, use.names = FALSE), ncol = length(columns)))
}

.plain_input <- function(given, spec) {
  value <- given[[spec$name]]
  if (is.null(value) && length(spec$shape) == 2L && length(given)) {  # a data frame for a model trained on a bare matrix
    numbers <- vapply(given, function(v) is.numeric(v) || is.logical(v), NA)
    if (all(numbers) && length(unique(lengths(given))) == 1L) value <- do.call(cbind, unname(given))
  }
  if (is.null(value)) return(list(problems = paste0("the input ", sQuote(spec$name, FALSE), " is absent")))
  if (is.data.frame(value)) value <- as.matrix(value)
  rank <- if (is.null(dim(value))) 1L else length(dim(value))
  if (rank == 1L && length(spec$shape) == 2L && identical(spec$shape[[2]], 1L)) value <- matrix(value, ncol = 1L)
  else if (rank != length(spec$shape)) return(list(problems = paste0(spec$name, ": an array of rank ", rank, ", expected ", length(spec$shape))))
  wanted <- spec$shape
  if (length(wanted) > 1L) for (i in seq_along(wanted)) {
    if (is.numeric(wanted[[i]]) && dim(value)[i] != wanted[[i]])
      return(list(problems = paste0(spec$name, ": shape ", paste(dim(value), collapse = " x "), ", expected ", paste(unlist(wanted), collapse = " x "))))
  }
  made <- .coerced(as.vector(value), list(name = spec$name), spec)
  if (!is.null(made$value) && !is.null(dim(value))) made$value <- array(made$value, dim(value))
  made
}

# One column as doubles, codes or text, or what is wrong with it.
.coerced <- function(values, column, spec) {
  wrong <- function(...) list(problems = paste0("column ", sQuote(column$name, FALSE), ": ", ...))
  if (length(column$categories)) made <- .coded(values, column)
  else if (spec$dtype == "string") {
    if (!is.character(values) && !is.factor(values) && !all(is.na(values))) return(wrong("a ", class(values)[1], ", expected text"))
    made <- list(value = as.character(values))
  } else made <- .number(values, column, spec)
  if (!is.null(made$problems)) return(wrong(made$problems))
  missing <- if (length(column$categories)) made$value < 0L else is.na(made$value)
  if (any(missing) && !identical(spec$missing, "allow"))
    return(wrong("a missing value in row ", which(missing)[1], ", which this model does not take"))
  made
}

.number <- function(values, column, spec) {
  if (inherits(values, "Date")) {
    if (!identical(column$unit, "date")) return(list(problems = "a Date, expected a number"))
  } else if (inherits(values, "POSIXct")) {
    if (!identical(column$unit, "timestamp")) return(list(problems = "a POSIXct, expected a number"))
  } else if (is.character(values) && spec$dtype %in% c("int64", "uint64") && all(grepl("^-?[0-9]{1,20}$", values)))
    return(list(value = values))  # whole numbers beyond 2^53 are decimal text
  else if (is.factor(values) || !(is.numeric(values) || is.logical(values)) || inherits(values, "difftime"))
    return(list(problems = paste0("a ", class(values)[1], ", expected a number")))
  value <- as.double(values)
  if (!startsWith(spec$dtype, "float") && any(value != trunc(value), na.rm = TRUE))
    return(list(problems = paste("a fraction where", spec$dtype, "is expected")))
  if (spec$dtype == "bool") value <- value != 0
  list(value = value)
}

# Codes of the training levels. Factors are matched by their text: another order of levels changes nothing.
.coded <- function(values, column) {
  levels <- .levels_of(column)
  texts <- .level_texts(column)
  code <- if (is.factor(values)) match(levels(values), texts)[as.integer(values)]
    else if (is.numeric(levels) && is.numeric(values)) match(values, levels)
    else if (is.numeric(values) && !is.logical(levels)) match(format(values, digits = 15, trim = TRUE), texts)
    else if (is.logical(levels) && is.numeric(values)) match(values != 0, levels)
    else if (is.character(values) || is.logical(values)) match(as.character(values), texts)
    else return(list(problems = paste0("a ", class(values)[1], ", expected one of its levels")))
  code <- code - 1L
  odd <- is.na(code) & !is.na(values)
  if (any(odd)) {
    if (!identical(column$unknown, "keep"))
      return(list(problems = paste0("the level ", sQuote(as.character(values)[odd][1], FALSE), " in row ", which(odd)[1],
        " was not in training; known are ", paste(sQuote(utils::head(texts, 10L), FALSE), collapse = ", "), if (length(texts) > 10L) ", ...")))
    code[odd] <- length(levels)
  }
  code[is.na(code)] <- -1L
  list(value = as.integer(code))
}

# -------------------------------------------------- answers

# Outputs as R values: a label as a factor of its classes (or numbers, or logicals), matrices with their columns named.
.decoded <- function(value, spec) {
  if (.is_label(spec)) {
    levels <- .levels_of(spec$columns[[1]])
    value <- as.integer(value)
    value[value < 0L | value >= length(levels)] <- NA  # a level the model keeps without knowing it has no value here
    if (!is.character(levels)) return(levels[value + 1L])
    return(structure(value + 1L, levels = levels, class = "factor"))
  }
  if (length(dim(value)) == 1L) value <- as.vector(value)
  if (length(dim(value)) == 2L && .is_categorical(spec)) value <- .decoded_block(value, spec)
  if (length(dim(value)) == 2L && length(spec$columns)) colnames(value) <- vapply(spec$columns, `[[`, "", "name")
  value
}

# A block of codes as the values of its levels; as text where they are not of one type.
.decoded_block <- function(codes, spec) {
  levels <- lapply(spec$columns, .levels_of)
  if (length(unique(vapply(levels, typeof, ""))) > 1L) levels <- lapply(spec$columns, .level_texts)
  values <- unlist(lapply(seq_along(levels), function(j) levels[[j]][ifelse(codes[, j] < 0L, NA_integer_, as.integer(codes[, j]) + 1L)]))
  matrix(values, nrow(codes), ncol(codes))
}

# A data frame for a data frame, its row names kept and matrices spread as <output>_<column>; else a list of arrays.
answer_of <- function(outputs, signature, newdata, wanted = NULL) {
  specs <- stats::setNames(signature$outputs, vapply(signature$outputs, `[[`, "", "name"))
  values <- lapply(stats::setNames(nm = names(outputs)), function(n) .decoded(outputs[[n]], specs[[n]]))
  if (length(wanted) == 1L && !is.list(wanted)) return(values[[wanted]])
  rows <- if (is.data.frame(newdata)) nrow(newdata) else -1L
  if (any(vapply(values, function(v) NROW(v) != rows || length(dim(v)) > 2L, NA))) return(values)
  out <- list()
  for (name in names(values)) {
    value <- values[[name]]
    if (is.null(dim(value))) out[[name]] <- value
    else for (j in seq_len(ncol(value))) out[[paste0(name, "_", if (is.null(colnames(value))) j - 1L else colnames(value)[j])]] <- value[, j]
  }
  structure(out, class = "data.frame", row.names = attr(newdata, "row.names"))
}
