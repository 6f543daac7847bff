# Rscript make.R: the small RDS files that tests/test_rds.py reads and damages; committed, so that the tests need no R.
out <- dirname(sub("--file=", "", grep("--file=", commandArgs(), value = TRUE)))
latin <- "caf\xe9"; Encoding(latin) <- "latin1"
raw_text <- "\xff\x01"; Encoding(raw_text) <- "bytes"
env <- new.env(); assign("me", env, env); assign("x", 1:2, env)
setClass("Point", representation(x = "numeric", label = "character"))
objects <- list(
  missing = list(NA, NA_integer_, NA_real_, NA_character_, NaN, Inf, -Inf, complex(real = NA, imaginary = 1)),
  text = c("plain", "caf\u00e9", latin, raw_text, NA, "", "tab\tnewline\n\"\\\u20ac"),
  sequences = list(1:10, seq(5, 1), as.character(1:3), as.character(c(0.5, 1e5, NA, NaN)), as.numeric(1:4)),
  code = list(quote(a + b(c, d = 2)), function(x, ...) x + 1, compiler::cmpfun(function(n) { for (i in seq_len(n)) if (i > 3) break; i }), y ~ log(x), expression(a, b)),
  environments = list(env, env, globalenv(), baseenv(), emptyenv(), asNamespace("stats"), topenv()),
  s4 = new("Point", x = c(1, 2), label = "p"),
  frame = data.frame(n = c(1.5, NA), f = factor(c("b", "a"), levels = c("a", "b")), t = c("u", NA), stringsAsFactors = FALSE),
  matrix = matrix(1:6, 2, dimnames = list(NULL, c("a", "b", "c"))),
  raw = as.raw(0:255),
  builtin = list(sum, `if`, TRUE, NULL, 2i),
  lm = { m <- lm(dist ~ speed, cars[1:6, ]); m$qr <- NULL; m }
)
compressions <- list(gz = "gzip", bz2 = "bzip2", xz = "xz", plain = FALSE)
for (name in names(objects)) {
  saveRDS(objects[[name]], file.path(out, paste0(name, ".3.gz.rds")))
  saveRDS(objects[[name]], file.path(out, paste0(name, ".2.plain.rds")), version = 2, compress = FALSE)
  saveRDS(objects[[name]], file.path(out, paste0(name, ".3.ascii.rds")), ascii = TRUE, compress = FALSE)
}
for (way in names(compressions)) saveRDS(objects$frame, file.path(out, paste0("frame.3.", way, ".rds")), compress = compressions[[way]])
saveRDS(objects$missing, file.path(out, "missing.3.hex.rds"), ascii = NA, compress = FALSE)
