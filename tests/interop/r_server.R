# A host of R models for the interoperability tests: Rscript r_server.R --port N [--token T] [--key K --certificate C
# [--authority A]] [--max-queue N] [--workers N] [--always-raw]. Says "ready host:port" once it answers; SIGTERM drains it.
library(mlbridge)

given <- commandArgs(TRUE)
option <- function(name, otherwise = NULL) if (name %in% given) given[match(name, given) + 1L] else otherwise

dtypes <- c("bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64", "float16", "float32", "float64", "string")

# JSON of a signature whose tensors are (name, dtype, shape), one text each.
tensor <- function(name, dtype, shape = '["rows",null]', more = "")
  sprintf('{"name":"%s","dtype":"%s","shape":%s%s}', name, dtype, shape, more)
signature <- function(inputs, outputs = inputs)
  sprintf('{"version":1,"inputs":[%s],"outputs":[%s]}', paste(inputs, collapse = ","), paste(outputs, collapse = ","))

allow <- ',"missing":"allow"'
identity_of <- function(specs) mlb_wrap(function(feeds) feeds, signature = signature(specs))
specs <- tensor(dtypes, dtypes, more = ifelse(startsWith(dtypes, "float") | dtypes == "string", allow, ""))
echoes <- stats::setNames(lapply(specs, identity_of), dtypes)

# every kind of column: numbers, levels of each type, text
columns <- paste0(
  ',"columns":[{"name":"plan","categories":["basic","gr\u00f6\u00dfer",""]},{"name":"grade","categories":[3,1,-2]},{"name":"member","categories":[false,true]}]', allow)
blocks <- c(tensor("features", "float64", '["rows",2]', paste0(',"columns":[{"name":"age"},{"name":"calls"}]', allow)),
  tensor("categorical", "int32", '["rows",3]', columns), tensor("text", "string", '["rows",1]', paste0(',"columns":[{"name":"note"}]', allow)))
single <- function(name, levels) tensor(name, "int32", '["rows"]', sprintf(',"columns":[{"name":"%s","categories":[%s]}]%s', name, levels, allow))
labels <- c(single("plan_label", '"basic","gr\u00f6\u00dfer",""'), single("grade_label", "3,1,-2"), single("member_label", "false,true"))
table <- mlb_wrap(function(feeds) c(feeds, list(plan_label = feeds$categorical[, 1], grade_label = feeds$categorical[, 2],
  member_label = feeds$categorical[, 3])), signature = signature(blocks, c(blocks, labels)))

# fitted models: a logistic regression and a tree over numbers and factors, with missing values
set.seed(7)
customers <- data.frame(age = round(runif(300, 18, 80)), calls = rpois(300, 3), plan = factor(sample(c("basic", "plus", "gr\u00f6\u00dfer"), 300, TRUE)),
  member = sample(c(TRUE, FALSE), 300, TRUE))
customers$leaves <- factor(ifelse(plogis(-2 + 0.6 * customers$calls - 0.02 * customers$age + (customers$plan == "basic")) > runif(300), "leaves", "stays"))
churn <- glm(leaves ~ age + calls + plan + member, binomial, customers)
tree <- rpart::rpart(leaves ~ age + calls + plan, customers)

vector <- function(more = "") tensor("x", "float64", '["rows"]', more)
slow <- mlb_wrap(function(feeds) { Sys.sleep(feeds$x[1]); feeds }, signature = signature(vector()))
busy <- mlb_wrap(function(feeds) { until <- proc.time()[[3]] + feeds$x[1]; while (proc.time()[[3]] < until) sqrt(2); feeds }, signature = signature(vector()))
ran <- tempfile()
marks <- mlb_wrap(function(feeds) { cat(feeds$x[1], "\n", file = ran, append = TRUE); list(x = as.double(length(readLines(ran)))) }, signature = signature(vector()))
bad <- mlb_wrap(function(feeds) switch(as.character(feeds$x[1]), "1" = stop("secret /home/path"), "2" = list(y = 1), "3" = list(x = "text"),
  "4" = { warning("careful"); feeds }, "5" = { print("chatter"); feeds }, feeds), signature = signature(vector(allow)))

pair <- function(dtype) list(tensor(c("INPUT0", "INPUT1"), dtype, '["rows",16]'), tensor(c("OUTPUT0", "OUTPUT1"), dtype, '["rows",16]'))
simple <- mlb_wrap(function(feeds) list(OUTPUT0 = feeds$INPUT0 + feeds$INPUT1, OUTPUT1 = feeds$INPUT0 - feeds$INPUT1),
  signature = do.call(signature, pair("int32")))
simple_string <- mlb_wrap(function(feeds) {
  a <- array(as.integer(feeds$INPUT0), dim(feeds$INPUT0))
  b <- array(as.integer(feeds$INPUT1), dim(feeds$INPUT1))
  list(OUTPUT0 = array(as.character(a + b), dim(a)), OUTPUT1 = array(as.character(a - b), dim(a)))
}, signature = do.call(signature, pair("string")))
simple_identity <- mlb_wrap(function(feeds) list(OUTPUT0 = feeds$INPUT0), signature = signature(tensor("INPUT0", "string", '["rows",16]'), tensor("OUTPUT0", "string", '["rows",16]')))

models <- c(list(echo = identity_of(specs), table = table, churn = list("1" = churn, "7" = churn), tree = tree, slow = slow, busy = busy, marks = marks,
  bad = bad, simple = simple, simple_string = simple_string, simple_identity = simple_identity), echoes)
tls <- if (!is.null(option("--key"))) list(key = option("--key"), certificate = option("--certificate"), client_authority = option("--authority"))
mlb_serve(models, paste0(option("--host", "127.0.0.1"), ":", option("--port", "0")), token = option("--token"), tls = tls,
  workers = as.integer(option("--workers", "1")), max_queue = as.integer(option("--max-queue", "128")), always_raw = "--always-raw" %in% given,
  ready = function(address) {
    cat("ready ", address, "\n", sep = "")
    flush(stdout())
  })
