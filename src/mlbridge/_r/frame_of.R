# The data frame a model was trained on, rebuilt from a signature's blocks; and its answers as a signature's outputs.
# `layout` describes the signature in parallel vectors (see `runtimes/r/layout.py`): no JSON reader is needed here.

# The classes of a model's raw columns as its formula remembers them; named, possibly empty.
column_classes <- function(model) {
  terms <- tryCatch(stats::terms(model), error = function(e) NULL)
  known <- attr(terms, "dataClasses")
  if (is.null(known) && is.list(model)) known <- unlist(lapply(model[["var.summary"]], function(v) class(v)[1]))
  if (is.null(known)) character() else c(known, .wanted_as_factors(known))
}

# Columns that a formula takes as factors and nothing else, as in C(rad, contr.sum), though their levels may be numbers.
.wanted_as_factors <- function(known) {
  made <- character()
  for (label in grep("^(C|relevel|droplevels)\\(", names(known), value = TRUE)) {
    call <- tryCatch(str2lang(label), error = function(e) NULL)
    if (is.call(call) && is.name(call[[2L]])) made[[as.character(call[[2L]])]] <- known[[label]]
  }
  made[setdiff(names(made), names(known))]
}

.column <- function(values, kind, unit, levels, class) {
  if (kind == "codes") {
    k <- length(levels)
    if (any(values >= k & !is.na(values))) levels <- c(levels, "(unknown)")
    values[values < 0L] <- NA
    values <- pmin(values, k)
    if (class %in% c("character", "Date", "other")) return(levels[values + 1L])
    return(structure(as.integer(values) + 1L, levels = levels, class = "factor"))
  }
  if (kind == "ordered") {
    values[values < 0L] <- NA
    return(structure(as.integer(values) + 1L, levels = levels, class = c("ordered", "factor")))
  }
  if (kind == "bools") {
    values[values < 0L] <- NA
    if (identical(class, "factor")) return(structure(as.integer(values) + 1L, levels = levels, class = "factor"))
    return(as.logical(levels)[values + 1L])
  }
  if (kind == "whole") {
    values[values < 0L] <- NA
    if (class %in% c("factor", "ordered")) return(factor(levels[values + 1L], levels = levels, ordered = class == "ordered"))
    return(as.numeric(levels)[values + 1L])
  }
  values <- .without_nan(values)
  if (unit == "date") return(structure(values, class = "Date"))
  if (unit == "timestamp") return(structure(values, class = c("POSIXct", "POSIXt"), tzone = "UTC"))
  if (identical(class, "logical") && is.numeric(values)) return(values != 0)
  values
}

# What is known of each input before any feed comes: which columns it holds, and whether they are one matrix of plain numbers.
input_blocks <- function(layout, classes) lapply(seq_along(layout$in.name), function(i) {
  at <- which(layout$col.input == i)
  known <- unname(classes[layout$col.name[at]])
  list(name = layout$in.name[i], at = at, labels = layout$col.name[at], classes = ifelse(is.na(known), "", known),
    numbers = length(at) > 0L && all(layout$col.kind[at] == "number" & layout$col.unit[at] == "") && !any(known %in% "logical"))
})

.without_nan <- function(v) {  # missing is NA to R: factor(NaN) would be a level
  if (is.double(v) && anyNA(v)) v[is.nan(v)] <- NA
  v
}

.columns_of <- function(block, labels) {
  d <- dim(block)
  if (length(d) == 2L && d[1L] != 1L && d[2L] != 1L) out <- lapply(seq_len(d[2L]), function(j) block[, j])
  else {
    dim(block) <- NULL
    out <- if (length(d) == 2L && d[1L] == 1L && d[2L] != 1L) as.list(block) else list(block)
  }
  names(out) <- labels
  out
}

# A block of plain numbers as a data frame: the way that small calls go.
.numbers_as_frame <- function(block, labels) {
  d <- dim(block)
  if (length(d) != 2L) d <- c(length(block), 1L)
  if (anyNA(block)) block <- .without_nan(block)
  if (d[2L] == 1L) {
    dim(block) <- NULL
    columns <- list(block)
  } else if (d[1L] == 1L) {
    dim(block) <- NULL
    columns <- as.vector(block, "list")
  } else columns <- lapply(seq_len(d[2L]), function(j) block[, j])
  names(columns) <- labels
  attr(columns, "row.names") <- c(NA_integer_, -d[1L])  # the short form
  oldClass(columns) <- "data.frame"
  columns
}

.as_frame <- function(columns) {
  rows <- if (length(columns)) .rows(columns[[1L]]) else 0L
  attr(columns, "row.names") <- c(NA_integer_, -rows)  # the short form
  oldClass(columns) <- "data.frame"
  columns
}

# Feeds to the model's newdata: a data frame of the columns by name; a plain matrix where the one input has no columns.
newdata_of <- function(feeds, layout, classes) {
  blocks <- if (is.null(layout$blocks)) input_blocks(layout, classes) else layout$blocks
  first <- blocks[[1L]]
  if (length(blocks) == 1L) {
    if (first$numbers) return(.numbers_as_frame(feeds[[1L]], first$labels))
    if (!length(first$at) && !layout$script && length(dim(feeds[[1L]])) == 2L) return(.without_nan(feeds[[1L]]))
  }
  out <- list()
  for (i in seq_along(blocks)) {
    block <- blocks[[i]]
    values <- feeds[[i]]
    if (!length(block$at)) out[[block$name]] <- if (anyNA(values)) .without_nan(values) else values
    else if (block$numbers) out <- c(out, .columns_of(.without_nan(values), block$labels))
    else {
      values <- .columns_of(values, block$labels)
      for (j in seq_along(values)) {
        c <- block$at[j]
        values[[j]] <- .column(values[[j]], layout$col.kind[c], layout$col.unit[c], layout$col.levels[[c]], block$classes[j])
      }
      out <- c(out, values)
    }
  }
  .as_frame(out)
}

.rows <- function(v) if (is.null(dim(v))) length(v) else dim(v)[1]

# Predict methods that drop rows with NA: the missing answers are put back.
.put_back <- function(value, newdata) {
  n <- nrow(newdata)
  if (is.null(n) || .rows(value) == n) return(value)
  full <- stats::complete.cases(newdata)
  if (sum(full) != .rows(value)) return(value)
  where <- rep(NA_integer_, n)
  where[full] <- seq_len(sum(full))
  if (is.null(dim(value))) value[where] else value[where, , drop = FALSE]
}

# One answer as the output's array: codes of the levels, numbers, text.
output_of <- function(value, levels, newdata, width) {
  value <- .put_back(value, newdata)
  if (length(levels)) {
    if (is.numeric(value) && is.null(dim(value))) value <- format(value, digits = 15, trim = TRUE)
    code <- match(as.character(value), levels) - 1L
    odd <- is.na(code) & !is.na(value)
    if (any(odd)) stop("the model answered the level '", as.character(value)[odd][1], "', which its signature does not hold")
    code[is.na(code)] <- -1L
    return(code)
  }
  if (is.factor(value)) value <- as.character(value)
  if (is.data.frame(value)) value <- as.matrix(value)
  if (inherits(value, "Date") || inherits(value, "POSIXct")) value <- as.double(value)
  names(value) <- NULL
  if (!is.null(dim(value))) value <- array(as.vector(value), dim(value))
  if (!is.na(width) && is.null(dim(value))) value <- matrix(value, ncol = max(width, 1L))
  value
}
