# A package (`.mlb`) as a file: one zip of stored entries, or the same tree as a folder. Written so that an interrupted
# save leaves the old one as it was; read so that nothing is believed before its hash was seen.

.manifest_name <- "mlbridge.json"
.format_version <- 1L
.largest_zip <- 2^31 - 1  # offsets beyond it need another form of zip, and R has no integer for them

.sha256 <- function(path) digest::digest(file = path, algo = "sha256")

# -------------------------------------------------- writing

# `fill(folder)` writes the tree but for the manifest and returns the manifest's own fields.
.write_package <- function(path, fill, form = "file", overwrite = FALSE) {
  if (file.exists(path) && !overwrite) mlb_stop("InputError", paste(path, "exists"), "pass overwrite = TRUE to replace it")
  if (dir.exists(path) && !file.exists(file.path(path, .manifest_name)))
    mlb_stop("InputError", paste(path, "is a folder that is not a package"), "choose another path")
  parent <- dirname(path)
  dir.create(parent, showWarnings = FALSE, recursive = TRUE)
  work <- tempfile(paste0(".", basename(path), "."), tmpdir = parent)
  if (!dir.create(file.path(work, "tree"), recursive = TRUE, showWarnings = FALSE))
    mlb_stop("ArtifactError", paste(path, "cannot be written"), "what was there before is intact")
  on.exit(unlink(work, recursive = TRUE))
  tree <- file.path(work, "tree")
  manifest <- fill(tree)
  manifest$files <- .file_entries(tree)
  text <- jsonlite::toJSON(manifest, auto_unbox = TRUE, digits = I(17), null = "null", pretty = 1)
  writeLines(enc2utf8(text), file.path(tree, .manifest_name), sep = "", useBytes = TRUE)
  made <- if (form == "file") .zip(tree, file.path(work, "package")) else tree
  .place(made, path, work)
}

.file_entries <- function(tree) {
  names <- sort(list.files(tree, recursive = TRUE, all.files = TRUE), method = "radix")
  stats::setNames(lapply(names, function(n) list(sha256 = .sha256(file.path(tree, n)), size = file.size(file.path(tree, n)))), names)
}

# R has no fsync: the program of that name does it where there is one.
.place <- function(made, path, work) {
  if (nzchar(Sys.which("sync"))) suppressWarnings(system2("sync", shQuote(if (dir.exists(made)) list.files(made, recursive = TRUE, full.names = TRUE) else made)))
  old <- file.path(work, "old")
  if (dir.exists(path)) file.rename(path, old)  # a folder is not renamed over a folder that holds files
  if (!suppressWarnings(file.rename(made, path))) {
    if (file.exists(old)) file.rename(old, path)
    mlb_stop("ArtifactError", paste(path, "cannot be written"), "what was there before is intact")
  }
  invisible(path)
}

# A zip of stored entries, manifest first.
.zip <- function(tree, target) {
  names <- unique(c(.manifest_name, sort(list.files(tree, recursive = TRUE, all.files = TRUE), method = "radix")))
  sizes <- file.size(file.path(tree, names))
  if (sum(sizes) + 300 * length(names) > .largest_zip)
    mlb_stop("InputError", "the package is larger than 2 GiB", "pass form = \"folder\"")
  con <- file(target, "wb")
  on.exit(close(con))
  u16 <- function(v) writeBin(as.integer(v), raw(), size = 2L, endian = "little")
  u32 <- function(v) writeBin(as.integer(v), raw(), size = 4L, endian = "little")
  at <- 0
  directory <- raw()
  for (i in seq_along(names)) {
    data <- readBin(file.path(tree, names[i]), "raw", sizes[i])
    name <- charToRaw(enc2utf8(names[i]))
    # flag 2048: names are UTF-8; method 0: stored; a date of 1980, so that equal trees make equal files
    common <- c(u16(c(20, 2048, 0, 0, 33)), .crc32(data), u32(c(sizes[i], sizes[i])), u16(c(length(name), 0)))
    writeBin(c(u32(0x04034b50), common, name), con)
    writeBin(data, con)
    directory <- c(directory, u32(0x02014b50), u16(20), common, u16(c(0, 0, 0)), u32(c(0, at)), name)
    at <- at + 30 + length(name) + sizes[i]
  }
  writeBin(c(directory, u32(0x06054b50), u16(c(0, 0, length(names), length(names))), u32(c(length(directory), at)), u16(0)), con)
  target
}

.crc32 <- function(data) {
  hex <- digest::digest(data, algo = "crc32", serialize = FALSE)
  hex <- paste0(strrep("0", 8L - nchar(hex)), hex)
  rev(as.raw(strtoi(substring(hex, c(1, 3, 5, 7), c(2, 4, 6, 8)), 16L)))
}

# -------------------------------------------------- reading

# list(manifest, signature, folder, sha256): a private folder whose files are those the manifest lists.
.read_package <- function(path) {
  odd <- function(..., hint = "the package was damaged or changed") mlb_stop("ArtifactError", paste0(path, ": ", ...), hint)
  folder <- tempfile("mlbridge-")
  dir.create(folder)
  if (dir.exists(path)) {
    names <- list.files(path, recursive = TRUE, all.files = TRUE)
    if (any(nzchar(Sys.readlink(file.path(path, names))))) odd("holds a link")
    .check_names(names, odd)
    for (d in unique(dirname(names))) dir.create(file.path(folder, d), showWarnings = FALSE, recursive = TRUE)
    file.copy(file.path(path, names), file.path(folder, names))
  } else {
    listed <- tryCatch(utils::unzip(path, list = TRUE), error = function(e) odd("not a package: ", conditionMessage(e)), warning = function(w) odd("not a package: ", conditionMessage(w)))
    names <- listed$Name[!endsWith(listed$Name, "/")]
    .check_names(names, odd)
    if (sum(listed$Length) > 64 * max(file.size(path), 2^20)) odd("unpacks to far more than its own size", hint = NULL)
    utils::unzip(path, exdir = folder)
  }
  if (!.manifest_name %in% names) odd("has no ", .manifest_name)
  manifest <- .read_manifest(file.path(folder, .manifest_name), odd)
  .check_files(manifest, setdiff(names, .manifest_name), folder, odd)
  list(manifest = manifest, signature = .checked_signature(manifest$signature), folder = folder, sha256 = .sha256(file.path(folder, .manifest_name)))
}

.check_names <- function(names, odd) {
  parts <- strsplit(names, "/", fixed = TRUE)
  bad <- !nzchar(names) | startsWith(names, "/") | grepl("[\\\\:]", names) | vapply(parts, function(p) any(p %in% c("", ".", "..")), NA)
  if (any(bad)) odd("holds a file with an unsafe name: ", names[bad][1], hint = "packages hold relative paths with forward slashes")
  if (anyDuplicated(tolower(names))) odd("holds two files of one name: ", names[duplicated(tolower(names))][1])
}

.read_manifest <- function(file, odd) {
  if (file.size(file) > 64 * 2^20) odd(.manifest_name, " is larger than 64 MiB", hint = NULL)
  manifest <- tryCatch(jsonlite::fromJSON(file, simplifyVector = FALSE), error = function(e) odd(.manifest_name, " is not JSON"))
  version <- manifest$format_version
  if (!is.numeric(version) || length(version) != 1L || version < 1) odd("its manifest has no format_version")
  if (version > .format_version) odd("format version ", version, "; this mlbridge reads up to ", .format_version, hint = "update the R package mlbridge")
  if (!length(manifest$implementations) || is.null(names(manifest$files))) odd("its manifest lists no implementation or no files")
  manifest
}

.check_files <- function(manifest, names, folder, odd) {
  if (!setequal(names, names(manifest$files))) {
    wrong <- c(setdiff(names, names(manifest$files)), setdiff(names(manifest$files), names))
    odd("its files are not those its manifest lists: ", wrong[1])
  }
  for (name in names) {
    file <- file.path(folder, name)
    if (file.size(file) != manifest$files[[name]]$size || .sha256(file) != manifest$files[[name]]$sha256) odd(name, " is not what was saved: its hash differs")
  }
  for (one in manifest$implementations) {
    if (!is.character(one$runtime) || !is.character(one$path) || !any(one$path == names | startsWith(names, paste0(one$path, "/"))))
      odd("an implementation is malformed")
  }
}
