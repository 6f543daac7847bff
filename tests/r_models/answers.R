# Answers and rows at full precision: doubles, column by column, with a line of text that says what they are.
write_answers <- function(answers, stem) {
  lines <- character()
  for (name in names(answers)) {
    value <- answers[[name]]
    if (is.character(value)) stop("answer ", name, " is text")
    if (is.factor(value)) value <- ifelse(is.na(value), -1L, as.integer(value) - 1L)
    value <- as.matrix(value)
    storage.mode(value) <- "double"
    connection <- file(paste0(stem, ".", name, ".bin"), "wb")
    writeBin(as.vector(value), connection)
    close(connection)
    lines <- c(lines, paste(name, nrow(value), ncol(value), sep = "\t"))
  }
  writeLines(lines, paste0(stem, ".txt"))
}

# The rows Python wrote: doubles column by column; levels as text, so that each column gets the type it had in training.
read_rows <- function(stem, columns) {
  described <- strsplit(readLines(paste0(stem, ".columns.txt"), encoding = "UTF-8"), "\t", fixed = TRUE)
  count <- file.size(paste0(stem, ".rows.bin")) / 8
  values <- matrix(readBin(paste0(stem, ".rows.bin"), "double", count), ncol = length(described))
  values[is.nan(values)] <- NA  # factor(NaN) has a level "NaN"; a missing value is NA
  if (is.matrix(columns)) return(matrix(values, ncol = ncol(values), dimnames = list(NULL, colnames(columns))))
  rows <- list()
  for (j in seq_along(described)) {
    name <- described[[j]][1]
    value <- values[, j]
    trained <- columns[[name]]
    if (length(described[[j]]) > 1) {
      levels <- described[[j]][-1]
      text <- levels[ifelse(value < 0, NA, value) + 1]
      value <- if (is.factor(trained)) factor(text, levels = levels(trained), ordered = is.ordered(trained))
        else if (is.logical(trained)) as.logical(text) else if (is.numeric(trained)) as.numeric(text) else text
    } else if (is.logical(trained)) value <- value != 0
    rows[[name]] <- value
  }
  rows <- as.data.frame(rows, optional = TRUE, stringsAsFactors = FALSE)
  names(rows) <- vapply(described, `[`, "", 1)
  rows
}

dropped <- function(answer, d) {  # predict methods that drop rows with NA: put the missing answers back
  full <- complete.cases(d)
  out <- answer(d[full, , drop = FALSE])
  lapply(out, function(v) {
    if (is.matrix(v)) { r <- matrix(NA_real_, nrow(d), ncol(v)); r[full, ] <- v; r }
    else if (is.factor(v)) { r <- factor(rep(NA, nrow(d)), levels = levels(v)); r[full] <- v; r }
    else { r <- rep(NA_real_, nrow(d)); r[full] <- as.numeric(v); r }
  })
}
