# One hosted model's requests and answers: tensors as a client sent them to feeds that satisfy the signature, and outputs
# to tensors. What is usual C++ reads and writes itself (src/exchange.cpp); what comes here may be anything, and all its
# problems are named at once.

# What answering needs besides the model, worked out once.
.hosted <- function(name, version, model, always_raw) {
  signature <- model$signature
  named <- function(specs) stats::setNames(specs, vapply(specs, `[[`, "", "name"))
  inputs <- named(signature$inputs)
  outputs <- named(signature$outputs)
  columns <- unlist(lapply(inputs, function(s) lapply(s$columns, function(c) list(spec = s, column = c))), recursive = FALSE, use.names = FALSE)
  rows <- vapply(inputs, function(s) length(s$shape) > 0L && identical(s$shape[[1]], "rows"), NA)
  plan <- .plan(outputs, vapply(outputs, .wire_datatype, ""))
  plan$rounds[] <- TRUE  # the signature says that the answer is a float32
  ask <- model$session$answer  # without the time limit and the error that an R user gets
  list(name = name, version = version, model = model, signature = signature, inputs = inputs, outputs = outputs, always_raw = always_raw,
    ask = if (is.null(ask)) function(feeds, wanted) model$session$run(feeds, wanted, NULL) else ask,
    columns = stats::setNames(columns, vapply(columns, function(c) c$column$name, "")),
    straight = vapply(inputs, .own_datatype, "", USE.NAMES = FALSE),
    all = list(wanted = names(outputs), codes = stats::setNames(rep(FALSE, length(outputs)), names(outputs))),
    labels = names(outputs)[vapply(outputs, function(s) .is_label(s) && !identical(s$missing, "allow"), NA)],
    plain = vapply(outputs, function(s) !.is_categorical(s) && s$dtype != "string", NA),
    plan = plan, by_rows = names(inputs)[rows], batched = .batched(signature))
}

# -------------------------------------------------- in

# list(feeds, wanted, codes) for a request as C++ read it.
.decode <- function(held, request) {
  if (length(request$problems)) {
    if (request$unsupported) mlb_stop("UnsupportedError", request$problems[1])
    mlb_stop_if_any(request$problems)
  }
  asked <- .asked(held, request$outputs, request$encoding)
  c(list(feeds = .request_feeds(held, request)), asked)
}

.asked <- function(held, names, encodings) {
  if (!length(names)) return(held$all)
  at <- match(names, names(held$outputs))
  twice <- names[duplicated(names) & !is.na(at)]
  problems <- c(if (anyNA(at)) paste("there is no output", .quoted(names[is.na(at)])), if (length(twice)) paste("output", .quoted(twice), "is asked for twice"))
  mlb_stop_if_any(utils::head(problems, 20L), paste("the outputs are", .listed(names(held$outputs))))
  codes <- encodings == "codes"
  coded <- vapply(held$outputs[at], .is_categorical, NA)
  odd <- !encodings %in% c("", "values", "codes") | (codes & !coded)
  if (any(odd)) mlb_stop("InputError", paste0("output ", .quoted(names[odd][1]), ": encoding ", .quoted(encodings[odd][1]),
    "; 'codes' is for categorical outputs, 'values' for all"))
  list(wanted = names, codes = stats::setNames(codes, names))
}

.request_feeds <- function(held, request) {
  names <- names(request$values)
  problems <- character()
  feeds <- given <- stats::setNames(list(), character())
  twice <- names[duplicated(names)]
  if (length(twice)) problems <- paste0("input ", .quoted(unique(twice)), ": is sent twice")
  for (i in seq_along(names)) {
    spec <- held$inputs[[names[i]]]
    value <- request$values[[i]]
    if (!is.null(spec) && request$datatype[i] == held$straight[match(names[i], names(held$inputs))]) {
      made <- .straight(value, spec, request$rank[i], request$missing[i])
      problems <- c(problems, made$problems)
      feeds[[names[i]]] <- made$value
    } else {
      made <- .roundabout(value, names[i], request$datatype[i], request$rank[i], spec, held)
      problems <- c(problems, made$problems)
      if (is.null(made$problems)) given[[names[i]]] <- made$value
    }
    if (length(problems) > 20L) break
  }
  rest <- setdiff(names(held$inputs), c(names(feeds), if (length(problems)) names(held$inputs)))
  if (length(rest)) {
    left <- held$signature
    left$inputs <- unname(held$inputs[rest])
    made <- tryCatch(feeds_of(given, left), mlbridge_invalid_argument = function(e) list(e$problems))
    if (is.null(names(made)) && length(made)) problems <- c(problems, made[[1]])
    else feeds[names(made)] <- lapply(stats::setNames(nm = names(made)), function(n) .fitting(made[[n]], held$inputs[[n]]))
  }
  mlb_stop_if_any(utils::head(problems, 20L))
  feeds <- feeds[names(held$inputs)]
  rows <- unique(vapply(feeds[held$by_rows], NROW, 0L))
  if (length(rows) > 1L) mlb_stop("InputError", paste("the inputs have different numbers of rows:", paste(rows, collapse = ", ")))
  feeds
}

# An input in its own datatype: codes for levels. Only its shape and its missing values are looked at.
.straight <- function(value, spec, rank, marked) {
  wrong <- function(...) list(problems = paste0("input ", .quoted(spec$name), ": ", ...))
  if (rank == 2L && length(spec$shape) == 1L && ncol(value) == 1L) value <- as.vector(value)
  else if (rank == 1L && length(spec$shape) == 2L && identical(as.integer(spec$shape[[2]]), 1L)) value <- matrix(value, ncol = 1L)
  else if (rank != length(spec$shape)) return(wrong("an array of rank ", rank, ", expected ", length(spec$shape)))
  sizes <- if (length(spec$shape) > 1L) dim(value) else length(value)
  for (a in seq_along(spec$shape)) if (is.numeric(spec$shape[[a]]) && sizes[a] != spec$shape[[a]])
    return(wrong("shape ", paste(sizes, collapse = " x "), ", expected ", paste(vapply(spec$shape, format, ""), collapse = " x ")))
  allow <- identical(spec$missing, "allow")
  if (.is_categorical(spec)) {
    if (marked) return(wrong("codes write a missing value as -1, not by the parameter 'missing'"))
    return(.checked_codes(value, spec, allow, wrong))
  }
  if (!allow && anyNA(value)) {
    at <- which(is.na(value))[1]
    name <- if (length(spec$columns)) .quoted(spec$columns[[(at - 1L) %/% NROW(value) + 1L]]$name) else .quoted(spec$name)
    return(wrong("a missing value in ", name, ", row ", (at - 1L) %% NROW(value) + 1L, ", which this model does not take"))
  }
  list(value = value)
}

.checked_codes <- function(codes, spec, allow, wrong) {
  width <- length(spec$columns)
  for (j in seq_len(width)) {
    column <- spec$columns[[j]]
    of <- if (is.null(dim(codes))) codes else codes[, j]
    top <- .top_code(column)
    odd <- of < (if (allow) -1L else 0L) | of > top
    if (any(odd)) return(wrong("column ", .quoted(column$name), ": the code ", of[odd][1], " in row ", which(odd)[1], "; ",
      if (allow) "-1 is missing, " else "none may be missing, ", "0 to ", length(column$categories) - 1L, " are its levels"))
  }
  list(value = codes)
}

# The greatest code of a column: one beyond its levels where an unknown one is kept.
.top_code <- function(column) length(column$categories) - !identical(column$unknown, "keep")

# A column, level values, or another datatype: as `feeds_of` takes them from an R user.
.roundabout <- function(value, name, datatype, rank, spec, held) {
  wrong <- function(...) list(problems = paste0("input ", .quoted(name), ": ", ...))
  column <- NULL
  if (is.null(spec)) {
    found <- held$columns[[name]]
    if (is.null(found)) return(wrong("there is no such input or column; the inputs are ", .listed(names(held$inputs))))
    if (rank != 1L && !(rank == 2L && ncol(value) == 1L)) return(wrong("an array of rank ", rank, ", expected [-1] or [-1,1] for one column"))
    spec <- found$spec
    column <- found$column
    value <- as.vector(value)
  } else if (length(spec$columns) == 1L) column <- spec$columns[[1]]
  if (!.is_categorical(spec)) {
    if ((datatype == "BYTES") != (spec$dtype == "string")) return(wrong(datatype, ", expected ", .oip[[spec$dtype]]))
    if (is.character(value) && spec$dtype != "string") return(wrong("a number beyond 2^53, which ", spec$dtype, " does not hold exactly"))
    return(list(value = value))
  }
  levels <- if (is.null(column)) NULL else .levels_of(column)
  own <- if (is.numeric(levels)) "INT64" else if (is.logical(levels)) "BOOL"
  if (datatype != "BYTES" && !identical(datatype, own)) return(wrong(datatype, ", expected BYTES (levels)", if (is.null(held$columns[[name]])) " or INT32 (codes)"))
  if (datatype == "BYTES") for (j in seq_along(spec$columns)) if (is.null(column) || spec$columns[[j]]$name == column$name) {
    if (!is.logical(.levels_of(spec$columns[[j]]))) next
    if (is.null(dim(value))) value <- .truth_text(value) else value[, j] <- .truth_text(value[, j])
  }
  list(value = value)
}

.truth_text <- function(text) {
  text[text == "true"] <- "TRUE"
  text[text == "false"] <- "FALSE"
  text
}

# What came in another datatype must lie in the range of the input's own, and round only where that is said.
.fitting <- function(value, spec) {
  range <- .integer_range[[spec$dtype]]
  if (!is.null(range) && is.numeric(value) && !.is_categorical(spec) && any(value < range[1] | value > range[2], na.rm = TRUE))
    mlb_stop("InputError", paste0("input ", .quoted(spec$name), ": a number is out of the range of ", spec$dtype))
  if (spec$dtype == "float32" && is.double(value)) {
    narrow <- readBin(writeBin(as.vector(value), raw(), size = 4L), "double", length(value), size = 4L)
    if (!identical(spec$rounding, "nearest") && any(narrow != value, na.rm = TRUE))
      mlb_stop("InputError", paste0("input ", .quoted(spec$name), ": a number would be rounded to float32"))
    value[] <- narrow
  }
  value
}

.quoted <- function(names) {
  long <- nchar(names) > 128L
  names <- gsub("[[:cntrl:]]", "?", substr(names, 1L, 128L))
  paste0("'", names, ifelse(long, "\u2026", ""), "'")
}

.listed <- function(names) paste0(paste(.quoted(utils::head(names, 10L)), collapse = ", "), if (length(names) > 10L) paste(" and", length(names) - 10L, "more"))

# -------------------------------------------------- out

# list(plan, values, missing, typed): what C++ writes.
.encode <- function(held, outputs, asked, typed) {
  plan <- held$plan
  if (!identical(asked$wanted, held$all$wanted)) plan <- lapply(plan, `[`, match(asked$wanted, held$all$wanted))
  values <- outputs[asked$wanted]
  missing <- rep(list(integer()), length(values))
  for (i in which(!held$plain[asked$wanted])) {
    spec <- held$outputs[[asked$wanted[i]]]
    if (spec$dtype == "string" && !.is_categorical(spec)) values[[i]] <- enc2utf8(values[[i]])
    else if (asked$codes[[i]]) plan$datatype[i] <- "INT32"
    else {
      shown <- .levels_out(values[[i]], spec, plan$datatype[i])
      values[[i]] <- shown$values
      missing[[i]] <- shown$missing
    }
  }
  list(plan = plan, values = values, missing = missing, typed = typed && !held$always_raw && !any(plan$datatype == "FP16"))
}

# Levels instead of codes; text says by NA what is missing, numbers and truths by their indices.
.levels_out <- function(codes, spec, datatype) {
  columns <- spec$columns
  codes[codes < 0L] <- NA
  if (datatype != "BYTES") {
    value <- .levels_of(columns[[1]])[as.vector(codes) + 1L]
    gone <- which(is.na(value)) - 1L
    value[gone + 1L] <- 0
    return(list(values = value, missing = gone))
  }
  if (is.null(dim(codes))) return(list(values = .wire_levels(columns[[1]])[codes + 1L], missing = integer()))
  for (j in seq_along(columns)) codes[, j] <- .wire_levels(columns[[j]])[as.integer(codes[, j]) + 1L]
  list(values = codes, missing = integer())
}
