# The models the conversion is tested on: keep(id, package, fit, data, answer, options) for each.
# `answer(fit, newdata)` returns a list of outputs as R's own predict gives them, named as the converted model names them.

suppressMessages({
  library(MASS); library(rpart); library(nnet); library(splines); library(survival)
  library(randomForest); library(ranger); library(gbm); library(glmnet); library(e1071); library(caret)
})
options(warn = -1)
data(spam, income, package = "kernlab")
data(GermanCredit, Sacramento, mdrr, package = "caret")
Boston <- MASS::Boston
birthwt <- MASS::birthwt
birthwt$race <- factor(birthwt$race, labels = c("white", "black", "other"))
birthwt$smoke <- birthwt$smoke == 1
german <- GermanCredit[seq(1, 1000, 3), c("Duration", "Amount", "Age", "InstallmentRatePercentage", "Telephone", "ForeignWorker", "Class")]
Titanic2 <- as.data.frame(Titanic, stringsAsFactors = TRUE)
Titanic2 <- Titanic2[rep(seq_len(nrow(Titanic2)), pmin(Titanic2$Freq, 20)), 1:4]
income2 <- income[seq(1, 8993, 12), c("INCOME", "SEX", "AGE", "EDUCATION")]
income2[c("AGE", "EDUCATION")] <- lapply(income2[c("AGE", "EDUCATION")], factor, ordered = FALSE)  # randomForest forgets ordered levels
spam2 <- spam[seq(1, 4601, 8), c(1:12, 52:58)]
mtc <- mtcars
mtc$make <- sub(" .*", "", rownames(mtcars))
mtc$gearbox <- ifelse(mtcars$am == 1, "manual", "automatic")
mtc$am <- mtcars$am == 1
mtc$carb2 <- factor(ifelse(mtcars$carb > 2, "many", "few"))
airq <- airquality
airq$Month <- factor(airq$Month, labels = month.abb[5:9])
co2 <- data.frame(lapply(CO2, identity))  # plain: subsets of groupedData lose their levels
lung2 <- survival::lung
lung2$sex <- factor(lung2$sex, labels = c("male", "female"))
survey2 <- MASS::survey

response <- function(f, d) list(prediction = predict(f, d, type = "response"))
plain <- function(f, d) list(prediction = predict(f, d))
both <- function(f, d) list(label = predict(f, d, type = "class"), probabilities = predict(f, d, type = "prob"))
fit_linear <- function() {
  keep("lm-cars", lm(dist ~ speed, cars), cars, plain)
  keep("lm-mtcars-interaction", lm(mpg ~ wt * hp + qsec, mtcars), mtcars, plain)
  keep("lm-mtcars-factor-call", lm(mpg ~ wt + factor(cyl), mtcars), mtcars, plain)
  keep("lm-mtcars-factor-and-number", lm(mpg ~ cyl + factor(gear) + I(gear^2), mtcars), mtcars, plain)
  keep("lm-mtcars-character", lm(mpg ~ wt + gearbox, mtc), mtc, plain)
  keep("lm-mtcars-logical", lm(mpg ~ wt * am, mtc), mtc, plain)
  keep("lm-mtcars-dot", lm(mpg ~ ., mtcars), mtcars, plain)
  keep("lm-airquality-missing", lm(Ozone ~ Wind + Temp + Month, airq), airq, plain)
  keep("lm-airquality-poly", lm(Ozone ~ poly(Wind, 3) + log(Temp), airq[complete.cases(airq), ]), airq, plain)
  keep("lm-airquality-poly-raw", lm(Ozone ~ poly(Wind, 2, raw = TRUE) + sqrt(Temp), airq), airq, plain)
  keep("lm-boston-ns", lm(medv ~ ns(lstat, 4) + rm + factor(chas), Boston), Boston, plain)
  keep("lm-boston-bs", lm(medv ~ bs(lstat, df = 6) + bs(rm, knots = c(6, 6.5), degree = 2), Boston), Boston, plain)
  keep("lm-boston-scale", lm(medv ~ scale(lstat) + scale(rm, scale = FALSE) + I(rm^2) + exp(-dis), Boston), Boston, plain)
  keep("lm-boston-cut", lm(medv ~ cut(age, c(0, 40, 70, 90, 100)) + lstat, Boston), Boston, plain)
  keep("lm-toothgrowth-sum", lm(len ~ supp * factor(dose), ToothGrowth, contrasts = list(supp = "contr.sum")), ToothGrowth, plain)
  keep("lm-warpbreaks-helmert", lm(breaks ~ wool * tension, warpbreaks, contrasts = list(tension = "contr.helmert")), warpbreaks, plain)
  keep("lm-warpbreaks-matrix", lm(breaks ~ wool + tension, warpbreaks, contrasts = list(tension = cbind(low = c(-1, 0, 1), mid = c(-1, 2, -1)))), warpbreaks, plain)
  keep("lm-warpbreaks-function", lm(breaks ~ tension, warpbreaks, contrasts = list(tension = function(n, ...) contr.sum(n) * 2)), warpbreaks, plain)
  keep("lm-chickwts-sas", lm(weight ~ feed, chickwts, contrasts = list(feed = "contr.SAS")), chickwts, plain)
  keep("lm-esoph-ordered", lm(ncases ~ agegp + alcgp + tobgp, esoph), esoph, plain)
  keep("lm-iris-no-intercept", lm(Sepal.Length ~ Species:Petal.Width + Species - 1, iris), iris, plain)
  keep("lm-iris-many-responses", lm(cbind(Sepal.Length, Sepal.Width) ~ Petal.Length + Species, iris), iris, plain)
  keep("lm-quine-three-way", lm(log(Days + 1) ~ Eth * Sex * Age, quine), quine, plain)
  keep("lm-quine-aliased", lm(Days ~ Sex * Age * Lrn, quine), quine, plain)
  keep("lm-co2-weights", lm(uptake ~ Type + Treatment + conc, co2, weights = conc), co2, plain)
  keep("lm-stackloss-offset", lm(stack.loss ~ Air.Flow + offset(0.5 * Water.Temp), stackloss), stackloss, plain)
  keep("lm-cars93-missing", lm(Price ~ Horsepower + Luggage.room + Type + Origin, Cars93), Cars93[Cars93$Type != "Van", ], plain)
  keep("lm-swiss-comparisons", lm(Fertility ~ I(Agriculture > 50) + pmin(Education, 20) + ifelse(Catholic > 50, 1, 0), swiss), swiss, plain)
  keep("lm-women-relevel", lm(weight ~ height + I(height %/% 5) + I(height %% 3), women), women, plain)
  keep("lm-insurance-poly-contrasts", lm(Claims ~ District + Group + Age + log(Holders), Insurance), Insurance, plain)
  keep("glm-mtcars-logit", glm(am ~ wt, binomial, mtcars), mtcars, response)
  keep("glm-birthwt-logit", glm(low ~ age + lwt + race + smoke + ptl, binomial, birthwt), birthwt, response)
  keep("glm-birthwt-probit", glm(low ~ age * race + smoke, binomial("probit"), birthwt), birthwt, response)
  keep("glm-birthwt-cauchit", glm(low ~ age + lwt + smoke, binomial("cauchit"), birthwt), birthwt, response)
  keep("glm-birthwt-cloglog", glm(low ~ age + race + smoke, binomial("cloglog"), birthwt), birthwt, response)
  keep("glm-birthwt-log", glm(low ~ smoke + race, binomial("log"), birthwt, start = c(-1.5, 0, 0, 0)), birthwt, response)
  keep("glm-kyphosis-classifier", glm(Kyphosis ~ Age + Start, binomial, kyphosis), kyphosis,
       function(f, d) { p <- predict(f, d, type = "response"); list(label = factor(ifelse(p > 0.5, "present", "absent"), levels = levels(kyphosis$Kyphosis)), probabilities = cbind(1 - p, p)) },
       list(as = "classifier"))
  keep("glm-menarche-counts", glm(cbind(Menarche, Total - Menarche) ~ Age, binomial, menarche), menarche, response)
  keep("glm-german-logit", glm(Class ~ ., binomial, german), german, response)
  keep("glm-warpbreaks-poisson", glm(breaks ~ wool + tension, poisson, warpbreaks), warpbreaks, response)
  keep("glm-insurance-offset", glm(Claims ~ District + Group + Age + offset(log(Holders)), poisson, Insurance), Insurance, response)
  keep("glm-insurance-offset-argument", glm(Claims ~ District + Age, poisson, Insurance, offset = log(Holders)), Insurance, response)
  keep("glm-quakes-poisson-sqrt", glm(stations ~ mag + depth, poisson("sqrt"), quakes), quakes, response)
  keep("glm-insectsprays-quasipoisson", glm(count ~ spray, quasipoisson, InsectSprays), InsectSprays, response)
  keep("glm-esoph-quasibinomial", glm(cbind(ncases, ncontrols) ~ agegp + tobgp, quasibinomial, esoph), esoph, response)
  keep("glm-mtcars-gamma", glm(mpg ~ wt + hp, Gamma, mtcars), mtcars, response)
  keep("glm-mtcars-gamma-log", glm(mpg ~ wt + gearbox, Gamma("log"), mtc), mtc, response)
  keep("glm-cars93-inverse-gaussian", glm(Price ~ Horsepower + Origin, inverse.gaussian("1/mu^2"), Cars93, start = c(0.01, -1e-5, 1e-4)), Cars93, response)
  keep("glm-mtcars-power-link", glm(mpg ~ wt, quasi(link = power(1/3), variance = "mu"), mtcars), mtcars, response)
  keep("glm-swiss-gaussian-log", glm(Fertility ~ Education + Catholic, gaussian("log"), swiss, start = c(4, 0, 0)), swiss, response)
  keep("glm-mtcars-link-type", glm(am ~ wt, binomial, mtcars), mtcars, function(f, d) list(prediction = predict(f, d)), list(type = "link"))
  keep("negbin-quine", glm.nb(Days ~ Eth * Lrn + Age + Sex, quine), quine, response)
}

fit_nls <- function() {
  keep("nls-puromycin", nls(rate ~ Vm * conc / (K + conc), Puromycin, start = c(Vm = 200, K = 0.05)), Puromycin, plain)
  keep("nls-faithful", nls(waiting ~ a + b * exp(-c * eruptions), faithful, start = c(a = 90, b = -80, c = 0.5)), faithful, plain)
}

fit_rpart <- function() {
  keep("rpart-kyphosis", rpart(Kyphosis ~ Age + Number + Start, kyphosis), kyphosis, both)
  keep("rpart-iris", rpart(Species ~ ., iris), iris, both)
  keep("rpart-car-mileage", rpart(Mileage ~ ., car.test.frame), car.test.frame, plain)
  keep("rpart-cu-summary-missing", rpart(Price ~ Country + Reliability + Mileage + Type, cu.summary, cp = 0.001, minsplit = 6), cu.summary, plain)
  keep("rpart-stagec-missing", rpart(factor(pgstat) ~ age + eet + g2 + grade + gleason + ploidy, stagec, cp = 0.001, minsplit = 5), stagec, both)
  keep("rpart-solder-poisson", rpart(skips ~ Opening + Solder + Mask + PadType + Panel, solder.balance, method = "poisson", cp = 0.001), solder.balance, plain)
  keep("rpart-airquality-surrogates", rpart(Ozone ~ Solar.R + Wind + Temp + Month, airq, cp = 0.001, minsplit = 5), airq, plain)
  keep("rpart-boston-log", rpart(medv ~ log(lstat) + rm + I(tax / 100), Boston), Boston, plain)
  keep("rpart-stop-at-missing", rpart(Ozone ~ Solar.R + Wind + Temp, airq, control = rpart.control(usesurrogate = 0, cp = 0.001)), airq, plain)
  keep("rpart-surrogate-one", rpart(Ozone ~ Solar.R + Wind + Temp, airq, control = rpart.control(usesurrogate = 1, cp = 0.001)), airq, plain)
  keep("rpart-german-loss", rpart(Class ~ ., german, parms = list(loss = matrix(c(0, 1, 5, 0), 2)), cp = 0.001), german, both)
  keep("rpart-one-split", rpart(Kyphosis ~ Start, kyphosis, maxdepth = 1), kyphosis, both)
  keep("rpart-titanic", rpart(Survived ~ Class + Sex + Age, Titanic2), Titanic2, both)
}

forest_x <- function(f, d) list(label = predict(f, d), probabilities = predict(f, d, type = "prob"))
fit_forest <- function() {
  keep("randomforest-boston", randomForest(medv ~ ., Boston, ntree = 15), Boston, plain)
  keep("randomforest-iris", randomForest(Species ~ ., iris, ntree = 15), iris, forest_x)
  keep("randomforest-airquality", randomForest(Ozone ~ Wind + Temp + Month, airq, ntree = 15, na.action = na.omit), airq, plain)
  keep("randomforest-income", randomForest(INCOME ~ ., income2, ntree = 9, na.action = na.omit), income2, forest_x)
  keep("randomforest-titanic", randomForest(Survived ~ ., Titanic2, ntree = 25), Titanic2, forest_x)
  keep("randomforest-xy", randomForest(iris[1:4], iris$Species, ntree = 11), iris[1:4], forest_x)
  keep("randomforest-chickwts", randomForest(weight ~ feed, chickwts, ntree = 15), chickwts, plain)
  keep("randomforest-bias", randomForest(medv ~ rm + lstat, Boston, ntree = 15, corr.bias = TRUE), Boston, plain)
  keep("randomforest-spam", randomForest(type ~ ., spam2, ntree = 9), spam2, forest_x)
}

ranger_value <- function(f, d) list(prediction = predict(f, d, num.threads = 1)$predictions)
ranger_label <- function(f, d) {  # .votes tells ties: ranger breaks them at random
  votes <- predict(f, d, num.threads = 1, predict.all = TRUE)$predictions
  list(label = predict(f, d, num.threads = 1)$predictions, .votes = t(apply(votes, 1, tabulate, length(f$forest$levels))) / f$num.trees)
}
ranger_probability <- function(f, d) list(probabilities = predict(f, d, num.threads = 1)$predictions)
fit_ranger <- function() {
  keep("ranger-boston", ranger(medv ~ ., Boston, num.trees = 15, num.threads = 1, seed = 1), Boston, ranger_value)
  keep("ranger-iris-label", ranger(Species ~ ., iris, num.trees = 15, num.threads = 1, seed = 1), iris, ranger_label)
  keep("ranger-iris-probability", ranger(Species ~ ., iris, num.trees = 15, probability = TRUE, num.threads = 1, seed = 1), iris, ranger_probability)
  keep("ranger-german-order", ranger(Class ~ ., german, num.trees = 15, probability = TRUE, respect.unordered.factors = "order", num.threads = 1, seed = 1), german, ranger_probability)
  keep("ranger-chickwts-order", ranger(weight ~ feed, chickwts, num.trees = 15, respect.unordered.factors = "order", num.threads = 1, seed = 1), chickwts, ranger_value)
  keep("ranger-titanic-order", ranger(Survived ~ ., Titanic2, num.trees = 25, respect.unordered.factors = "order", num.threads = 1, seed = 1), Titanic2, ranger_label)
  keep("ranger-chickwts-ignore", ranger(weight ~ feed, chickwts, num.trees = 15, num.threads = 1, seed = 1), chickwts, ranger_value)
  keep("ranger-german-partition", ranger(Class ~ ., transform(german, Band = cut(Age, c(0, 25, 30, 35, 40, 50, 99))), num.trees = 15, probability = TRUE, respect.unordered.factors = "partition", num.threads = 1, seed = 1), transform(german, Band = cut(Age, c(0, 25, 30, 35, 40, 50, 99))), ranger_probability)
  keep("ranger-chickwts-partition", ranger(weight ~ feed, chickwts, num.trees = 15, respect.unordered.factors = "partition", num.threads = 1, seed = 1), chickwts, ranger_value)
  keep("ranger-quakes-extratrees", ranger(mag ~ ., quakes, num.trees = 9, splitrule = "extratrees", num.threads = 1, seed = 1), quakes, ranger_value)
}

gbm_response <- function(f, d) list(prediction = as.vector(predict(f, d, n.trees = f$n.trees, type = "response")))
gbm_classes <- function(f, d) list(probabilities = predict(f, d, n.trees = f$n.trees, type = "response")[, , 1])
fit_gbm <- function() {
  keep("gbm-boston", gbm(medv ~ ., "gaussian", Boston, n.trees = 60, interaction.depth = 3), Boston, gbm_response)
  keep("gbm-airquality-missing", gbm(Ozone ~ Solar.R + Wind + Temp + Month, "gaussian", airq[!is.na(airq$Ozone), ], n.trees = 50, interaction.depth = 2, bag.fraction = 0.8), airq, gbm_response)
  keep("gbm-birthwt", gbm(low ~ age + lwt + race + ptl + ftv, "bernoulli", birthwt, n.trees = 50, interaction.depth = 2), birthwt, gbm_response)
  keep("gbm-quine-poisson", gbm(Days ~ Eth + Sex + Age + Lrn, "poisson", quine, n.trees = 50, interaction.depth = 2), quine, gbm_response)
  keep("gbm-iris-multinomial", gbm(Species ~ ., "multinomial", iris, n.trees = 20, interaction.depth = 2), iris, gbm_classes)
  keep("gbm-titanic-some-trees", gbm(as.integer(Survived) - 1 ~ Class + Sex + Age, "bernoulli", Titanic2, n.trees = 40), Titanic2,
       function(f, d) list(prediction = predict(f, d, n.trees = 25, type = "link")), list(n.trees = 25L, type = "link"))
}

net_class <- function(f, d) { p <- predict(f, d); list(label = factor(predict(f, d, type = "class"), levels = f$lev), probabilities = if (ncol(as.matrix(p)) == 1) cbind(1 - p, p) else p) }
multi <- function(f, d) { p <- predict(f, d, type = "probs"); list(label = predict(f, d), probabilities = if (is.matrix(p)) p else cbind(1 - p, p)) }
fit_nnet <- function() {
  keep("nnet-iris", nnet(Species ~ ., iris, size = 4, trace = FALSE, maxit = 60), iris, net_class)
  keep("nnet-boston-linear", nnet(medv / 50 ~ lstat + rm + factor(chas), Boston, size = 3, linout = TRUE, trace = FALSE, maxit = 60), Boston, function(f, d) list(prediction = predict(f, d)[, 1]))
  keep("nnet-birthwt", nnet(factor(low) ~ age + lwt + race, birthwt, size = 3, trace = FALSE, maxit = 60), birthwt, function(f, d) { p <- predict(f, d)[, 1]; list(label = factor(ifelse(p > 0.5, "1", "0"), levels = c("0", "1")), probabilities = cbind(1 - p, p)) })
  keep("nnet-cpus-skip", nnet(log10(perf) ~ syct + mmin + cach, cpus, size = 2, skip = TRUE, linout = TRUE, trace = FALSE, maxit = 60), cpus, function(f, d) list(prediction = predict(f, d)[, 1]))
  keep("multinom-iris", multinom(Species ~ Sepal.Length + Petal.Width, iris, trace = FALSE, maxit = 30), iris, multi)
  keep("multinom-birthwt", multinom(low ~ age + race + smoke, transform(birthwt, low = factor(low)), trace = FALSE), birthwt, multi)
  keep("multinom-housing", multinom(Sat ~ Infl + Type + Cont, housing, weights = Freq, trace = FALSE), housing, multi)
  keep("multinom-counts", multinom(cbind(few, some, many) ~ wool + tension, transform(warpbreaks, few = breaks, some = 30, many = 70 - breaks), trace = FALSE), warpbreaks, multi)
}

fit_discriminant <- function() {
  lda_answer <- function(f, d) { p <- predict(f, d); list(label = p$class, probabilities = p$posterior) }
  keep("lda-iris", lda(Species ~ ., iris), iris, lda_answer)
  keep("lda-crabs", lda(sp ~ FL + RW + CL + CW + BD, crabs), crabs, lda_answer)
  keep("lda-german-factor", lda(Class ~ Duration + Age + factor(Telephone), german), german, lda_answer)
  keep("lda-matrix", lda(as.matrix(iris[1:4]), iris$Species), as.matrix(iris[1:4]), lda_answer)
  keep("qda-iris", qda(Species ~ ., iris), iris, lda_answer)
  keep("qda-crabs", qda(sex ~ FL + RW + CL, crabs), crabs, lda_answer)
  polr_answer <- function(f, d) list(label = predict(f, d), probabilities = predict(f, d, type = "probs"))
  keep("polr-housing", polr(Sat ~ Infl + Type + Cont, housing, weights = Freq, Hess = TRUE), housing, polr_answer)
  keep("polr-housing-loglog", polr(Sat ~ Infl + Type, housing, weights = Freq, method = "loglog"), housing, polr_answer)
  keep("polr-esoph-probit", polr(agegp ~ alcgp + ncases, esoph, method = "probit"), esoph, polr_answer)
  keep("polr-housing-cloglog", polr(Sat ~ Infl + Type, housing, weights = Freq, method = "cloglog"), housing, polr_answer)
  keep("polr-housing-cauchit", polr(Sat ~ Infl + Cont, housing, weights = Freq, method = "cauchit", start = c(-1, 1, 1, -1, 0.4, -0.6, 0.7)[c(2, 3, 4, 6, 7)]), housing, polr_answer)
}

fit_cluster <- function() {
  nearest <- function(f, d) list(cluster = apply(as.matrix(d), 1, function(r) if (anyNA(r)) NA else which.min(colSums((t(f$centers) - r)^2))))
  keep("kmeans-iris", kmeans(iris[1:4], 3), iris[1:4], nearest)
  keep("kmeans-faithful", kmeans(faithful, 2), faithful, nearest)
  scores <- function(f, d) list(transformed = predict(f, d))
  keep("prcomp-usarrests", prcomp(USArrests, scale. = TRUE), USArrests, scores)
  keep("prcomp-iris", prcomp(iris[1:4], rank. = 2), iris[1:4], scores)
  keep("prcomp-formula", prcomp(~ Sepal.Length + Petal.Width, iris, scale. = TRUE), iris, scores)
}

fit_survival <- function() {
  score <- function(f, d) list(score = as.vector(predict(f, d)))
  keep("coxph-lung", coxph(Surv(time, status) ~ age + sex + ph.ecog, lung2), lung2, score)
  keep("coxph-veteran", coxph(Surv(time, status) ~ celltype + karno + trt, veteran), veteran, score)
  keep("coxph-ovarian-risk", coxph(Surv(futime, fustat) ~ age + rx, ovarian), ovarian, function(f, d) list(score = as.vector(predict(f, d, type = "risk"))), list(type = "risk"))
  keep("coxph-lung-ns", coxph(Surv(time, status) ~ ns(age, 3) * sex, lung2), lung2, score)
}

fit_svm <- function() {
  svm_value <- function(f, d) dropped(function(d) list(prediction = predict(f, d)), d)
  keep("svm-cars", svm(dist ~ speed, cars), cars, svm_value)
  keep("svm-boston-linear", svm(medv ~ lstat + rm + tax, Boston[seq(1, 506, 4), ], kernel = "linear"), Boston, svm_value)
  keep("svm-boston-nu", svm(medv ~ lstat + rm, Boston[seq(1, 506, 4), ], type = "nu-regression", kernel = "polynomial"), Boston, svm_value)
  svm_label <- function(f, d) dropped(function(d) list(label = predict(f, d)), d)
  keep("svm-iris", svm(Species ~ ., iris), iris, svm_label)
  keep("svm-iris-sigmoid", svm(Species ~ ., iris, kernel = "sigmoid", gamma = 0.05), iris, svm_label)
  keep("svm-kyphosis-polynomial", svm(Kyphosis ~ ., kyphosis, kernel = "polynomial", coef0 = 1), kyphosis, svm_label)
  keep("svm-insectsprays-factor", svm(count ~ spray, InsectSprays), InsectSprays, svm_value)
  keep("svm-warpbreaks-factors", svm(breaks ~ wool + tension, warpbreaks, kernel = "linear"), warpbreaks, svm_value)
  keep("svm-one-class", svm(iris[1:50, 1:4], type = "one-classification", nu = 0.2), iris[1:4], function(f, d) dropped(function(d) list(label = factor(predict(f, d), levels = c(FALSE, TRUE))), d))
  bayes <- function(f, d) list(label = predict(f, d), probabilities = predict(f, d, type = "raw"))
  keep("naivebayes-iris", naiveBayes(Species ~ ., iris), iris, bayes)
  keep("naivebayes-titanic", naiveBayes(Survived ~ ., Titanic2), Titanic2, bayes)
  keep("naivebayes-german-laplace", naiveBayes(Class ~ ., german, laplace = 1), german, bayes)
}

fit_glmnet <- function() {
  x <- as.matrix(Boston[1:13]); y <- Boston$medv
  matrix_response <- function(s) function(f, d) list(prediction = as.vector(predict(f, as.matrix(d), s = s, type = "response")))
  keep("glmnet-boston", glmnet(x, y), x, matrix_response(0.1), list(s = 0.1))
  keep("cv-glmnet-boston", cv.glmnet(x, y, nfolds = 5), x, matrix_response("lambda.1se"))
  keep("cv-glmnet-boston-min", cv.glmnet(x, y, nfolds = 5), x, matrix_response("lambda.min"), list(s = "lambda.min"))
  p <- as.matrix(MASS::Pima.tr[1:7])
  keep("glmnet-pima-binomial", glmnet(p, MASS::Pima.tr$type, "binomial"), p, matrix_response(0.02), list(s = 0.02))
  keep("glmnet-pima-classifier", glmnet(p, MASS::Pima.tr$type, "binomial"), p, function(f, d) { q <- as.vector(predict(f, d, s = 0.02, type = "response")); list(label = factor(predict(f, d, s = 0.02, type = "class"), levels = f$classnames), probabilities = cbind(1 - q, q)) }, list(s = 0.02, as = "classifier"))
  w <- model.matrix(breaks ~ wool * tension, warpbreaks)[, -1]
  keep("glmnet-warpbreaks-poisson", glmnet(w, warpbreaks$breaks, "poisson"), w, matrix_response(0.05), list(s = 0.05))
  i <- as.matrix(iris[1:4])
  multi_glmnet <- function(f, d) list(label = factor(predict(f, d, s = 0.01, type = "class"), levels = f$classnames), probabilities = predict(f, d, s = 0.01, type = "response")[, , 1])
  keep("glmnet-iris-multinomial", glmnet(i, iris$Species, "multinomial"), i, multi_glmnet, list(s = 0.01))
}

# one table with every type of column, some missing: each family meets each of them
mixed <- local({
  set.seed(7)
  n <- 160
  d <- data.frame(num = rnorm(n), int = rpois(n, 4), fac = factor(sample(c("low", "mid", "top"), n, TRUE)), ord = factor(sample(c("s", "m", "l"), n, TRUE), levels = c("s", "m", "l"), ordered = TRUE),
                  chr = sample(c("red", "green", "blue"), n, TRUE), flag = sample(c(TRUE, FALSE), n, TRUE), stringsAsFactors = FALSE)
  d$y <- d$num + 0.3 * d$int + (d$fac == "mid") + as.integer(d$ord) * 0.5 + (d$chr == "red") * d$flag + rnorm(n, sd = 0.4)
  d$class <- factor(cut(d$y, quantile(d$y, c(0, 0.4, 0.75, 1)), include.lowest = TRUE, labels = c("a", "b", "c")))
  d$two <- factor(ifelse(d$y > 2, "yes", "no"))
  d$time <- rexp(n, exp(d$num / 2)); d$status <- rbinom(n, 1, 0.7)
  for (v in c("num", "int", "fac", "ord", "chr", "flag")) d[sample(n, 6), v] <- NA
  d
})
whole <- mixed[complete.cases(mixed), ]
fit_mixed <- function() {
  keep("lm-mixed", lm(y ~ num * fac + ord + chr:flag + poly(int, 2), whole), mixed, plain)
  keep("lm-mixed-no-intercept", lm(y ~ 0 + flag + ord * num, whole), mixed, plain)
  keep("glm-mixed", glm(two ~ num + int + fac + ord + chr + flag, binomial, mixed), mixed, response)
  keep("rpart-mixed", rpart(class ~ num + int + fac + ord + chr + flag, mixed, cp = 0.001, minsplit = 8), mixed, both)
  keep("multinom-mixed", multinom(class ~ num + fac + ord + chr + flag, whole, trace = FALSE), mixed, multi)
  keep("nnet-mixed", nnet(class ~ num + fac + ord + chr + flag, whole, size = 3, trace = FALSE, maxit = 50), mixed, net_class)
  keep("lda-mixed", lda(class ~ num + fac + ord + chr + flag, whole), mixed, function(f, d) { p <- predict(f, d); list(label = p$class, probabilities = p$posterior) })
  keep("qda-mixed", qda(two ~ num + int + flag, whole), mixed, function(f, d) { p <- predict(f, d); list(label = p$class, probabilities = p$posterior) })
  keep("polr-mixed", polr(class ~ num + fac + ord + chr + flag, whole), mixed, function(f, d) list(label = predict(f, d), probabilities = predict(f, d, type = "probs")))
  keep("coxph-mixed", coxph(Surv(time, status) ~ num + fac + ord + chr + flag, whole), mixed, function(f, d) list(score = as.vector(predict(f, d))))
  keep("naivebayes-mixed", naiveBayes(class ~ num + int + fac + ord, whole), mixed, function(f, d) list(label = predict(f, d), probabilities = predict(f, d, type = "raw")))
  keep("randomforest-mixed", randomForest(class ~ num + int + fac + flag, whole, ntree = 15), mixed, forest_x)
  keep("gbm-mixed", gbm(y ~ num + int + fac + ord, "gaussian", whole, n.trees = 30, interaction.depth = 3), mixed, gbm_response)
  keep("ranger-mixed", ranger(y ~ num + int + fac + ord + chr, whole, num.trees = 15, respect.unordered.factors = "order", num.threads = 1, seed = 1), whole, ranger_value)
  keep("caret-rpart-mixed", train(class ~ num + int + fac + ord + chr + flag, whole, "rpart", tuneGrid = data.frame(cp = 0.01), trControl = trainControl(method = "none")), mixed[c("num", "int", "fac", "ord", "chr", "flag")], function(f, d) dropped(function(d) list(label = predict(f, d), probabilities = as.matrix(predict(f, d, type = "prob"))), d))
}

fit_caret <- function() {
  none <- trainControl(method = "none")
  caret_class <- function(f, d) dropped(function(d) list(label = predict(f, d), probabilities = as.matrix(predict(f, d, type = "prob"))), d)
  caret_value <- function(f, d) dropped(function(d) list(prediction = as.vector(predict(f, d))), d)
  keep("caret-lm-scaled", train(medv ~ lstat + rm + factor(chas), Boston, "lm", preProcess = c("center", "scale"), trControl = none), Boston[c("lstat", "rm", "chas")], caret_value)
  keep("caret-rf", train(Species ~ ., iris, "rf", ntree = 11, tuneGrid = data.frame(mtry = 2), trControl = none), iris[1:4], caret_class)
  keep("caret-glmnet", train(medv ~ lstat + rm + tax, Boston, "glmnet", tuneGrid = data.frame(alpha = 0.5, lambda = 0.1), trControl = none), Boston[c("lstat", "rm", "tax")], caret_value)
  keep("caret-rpart", train(Class ~ ., german, "rpart", tuneGrid = data.frame(cp = 0.01), trControl = none), german[names(german) != "Class"], caret_class)
  keep("caret-nnet-range", train(Species ~ ., iris, "nnet", preProcess = "range", trace = FALSE, tuneGrid = data.frame(size = 3, decay = 0.1), trControl = none), iris[1:4], caret_class)
  keep("caret-lda-pca", train(Species ~ ., iris, "lda", preProcess = c("center", "scale", "pca"), trControl = none), iris[1:4], caret_class)
  keep("caret-lm-boxcox", train(medv ~ lstat + rm, Boston, "lm", preProcess = "BoxCox", trControl = none), Boston[c("lstat", "rm")], caret_value)
  keep("caret-gbm", train(medv ~ lstat + rm, Boston, "gbm", verbose = FALSE, trControl = none, tuneGrid = data.frame(n.trees = 30, interaction.depth = 2, shrinkage = 0.1, n.minobsinnode = 10)), Boston[c("lstat", "rm")], caret_value)
  keep("caret-glm", train(Class ~ Duration + Age, german, "glm", family = "binomial", trControl = none), german[c("Duration", "Age")], caret_class)
  keep("caret-spatial-sign", train(Species ~ ., iris, "qda", preProcess = c("center", "scale", "spatialSign"), trControl = none), iris[1:4], caret_class)
  keep("caret-gbm-classes", train(Class ~ Duration + Age + Amount, german, "gbm", verbose = FALSE, trControl = none, tuneGrid = data.frame(n.trees = 30, interaction.depth = 2, shrinkage = 0.1, n.minobsinnode = 10)), german[c("Duration", "Age", "Amount")], caret_class)
  keep("caret-ranger", train(Class ~ Duration + Age + Amount, german, "ranger", num.threads = 1, num.trees = 11, tuneGrid = data.frame(mtry = 2, splitrule = "gini", min.node.size = 5), trControl = trainControl(method = "none", classProbs = TRUE)), german[c("Duration", "Age", "Amount")], caret_class)
  keep("caret-glmnet-classes", train(Class ~ ., german, "glmnet", tuneGrid = data.frame(alpha = 0.5, lambda = 0.01), trControl = none), german[names(german) != "Class"], caret_class)
  keep("caret-xy-median", train(airq[c("Solar.R", "Wind", "Temp")], ifelse(is.na(airq$Ozone), 30, airq$Ozone), "lm", preProcess = c("medianImpute", "center"), trControl = none), airq[c("Solar.R", "Wind", "Temp")], function(f, d) list(prediction = as.vector(predict(f, d, na.action = na.pass))))
  keep("caret-multinom-missing", train(Sex ~ Height + Pulse, MASS::survey[complete.cases(MASS::survey), ], "multinom", trace = FALSE, tuneGrid = data.frame(decay = 0), trControl = none), MASS::survey[c("Height", "Pulse")], caret_class)
}

# every family with every link that stats gives it
fit_links <- function() {
  m <- transform(mtcars, small = mpg / 10)
  keep("glm-link-binomial-logit", glm(am ~ wt, binomial("logit"), m), m, response)
  keep("glm-link-binomial-probit", glm(am ~ wt, binomial("probit"), m), m, response)
  keep("glm-link-binomial-cauchit", glm(am ~ wt, binomial("cauchit"), m), m, response)
  keep("glm-link-binomial-log", glm(am ~ wt, binomial("log"), m, start = c(-0.5, -0.1)), m, response)
  keep("glm-link-binomial-cloglog", glm(am ~ wt, binomial("cloglog"), m), m, response)
  keep("glm-link-quasibinomial-logit", glm(am ~ wt, quasibinomial("logit"), m), m, response)
  keep("glm-link-quasibinomial-probit", glm(am ~ wt, quasibinomial("probit"), m), m, response)
  keep("glm-link-quasibinomial-cauchit", glm(am ~ wt, quasibinomial("cauchit"), m), m, response)
  keep("glm-link-quasibinomial-log", glm(am ~ wt, quasibinomial("log"), m, start = c(-0.5, -0.1)), m, response)
  keep("glm-link-quasibinomial-cloglog", glm(am ~ wt, quasibinomial("cloglog"), m), m, response)
  keep("glm-link-gaussian-identity", glm(small ~ wt + hp, gaussian("identity"), m), m, response)
  keep("glm-link-gaussian-log", glm(small ~ wt + hp, gaussian("log"), m), m, response)
  keep("glm-link-gaussian-inverse", glm(small ~ wt + hp, gaussian("inverse"), m), m, response)
  keep("glm-link-gamma-identity", glm(small ~ wt + hp, Gamma("identity"), m), m, response)
  keep("glm-link-gamma-log", glm(small ~ wt + hp, Gamma("log"), m), m, response)
  keep("glm-link-gamma-inverse", glm(small ~ wt + hp, Gamma("inverse"), m), m, response)
  keep("glm-link-inverse-gaussian-identity", glm(small ~ wt + hp, inverse.gaussian("identity"), m), m, response)
  keep("glm-link-inverse-gaussian-log", glm(small ~ wt + hp, inverse.gaussian("log"), m), m, response)
  keep("glm-link-inverse-gaussian-inverse", glm(small ~ wt + hp, inverse.gaussian("inverse"), m), m, response)
  keep("glm-link-poisson-log", glm(carb ~ wt, poisson("log"), m), m, response)
  keep("glm-link-poisson-identity", glm(carb ~ wt, poisson("identity"), m, start = c(2, 0.2)), m, response)
  keep("glm-link-poisson-sqrt", glm(carb ~ wt, poisson("sqrt"), m), m, response)
  keep("glm-link-quasipoisson-log", glm(carb ~ wt, quasipoisson("log"), m), m, response)
  keep("glm-link-quasipoisson-identity", glm(carb ~ wt, quasipoisson("identity"), m, start = c(2, 0.2)), m, response)
  keep("glm-link-quasipoisson-sqrt", glm(carb ~ wt, quasipoisson("sqrt"), m), m, response)
  keep("glm-link-quasi-logit", glm(am ~ wt, quasi("logit", "mu(1-mu)"), m), m, response)
  keep("glm-link-quasi-probit", glm(am ~ wt, quasi("probit", "mu(1-mu)"), m), m, response)
  keep("glm-link-quasi-cloglog", glm(am ~ wt, quasi("cloglog", "mu(1-mu)"), m), m, response)
  keep("glm-link-quasi-identity", glm(small ~ wt, quasi("identity", "constant"), m), m, response)
  keep("glm-link-quasi-inverse", glm(small ~ wt, quasi("inverse", "constant"), m), m, response)
  keep("glm-link-quasi-log", glm(small ~ wt, quasi("log", "constant"), m), m, response)
  keep("glm-link-quasi-sqrt", glm(small ~ wt, quasi("sqrt", "constant"), m), m, response)
  keep("glm-link-quasi-inverse-square", glm(small ~ wt, quasi("1/mu^2", "constant"), m), m, response)
  keep("glm-link-quasi-power-negative", glm(small ~ wt, quasi(power(-0.5), "mu"), m), m, response)
  keep("glm-link-quasi-power-zero", glm(small ~ wt, quasi(power(0), "mu"), m), m, response)
  keep("glm-link-quasi-power-half", glm(small ~ wt, quasi(power(0.5), "mu"), m), m, response)
  keep("glm-link-quasi-power-one", glm(small ~ wt, quasi(power(1), "mu"), m), m, response)
  keep("glm-link-negative-binomial", glm(carb ~ wt, negative.binomial(2), m), m, response)
  keep("negbin-quine-sqrt", glm.nb(Days ~ Sex, quine, link = sqrt), quine, response)
}

fit_formulas <- function() {
  ages <- c(0, 40, 70, 100)
  boston <- transform(Boston, band = cut(age, ages), rad = factor(rad))
  keep("formula-logs-and-powers", lm(medv ~ log2(lstat) + log(dis, 2) + log10(tax) + log1p(crim) + I(rm^3) + I(1 / dis) + I(2^rm), Boston), Boston, plain)
  keep("formula-nested", lm(medv ~ band / lstat + (rm + dis)^2, boston), boston, plain)
  keep("formula-dot-minus", lm(medv ~ . - crim - band - rad, boston), boston, plain)
  keep("formula-poly-of-two", lm(mpg ~ poly(wt, hp, degree = 2), mtcars), mtcars, plain)
  keep("formula-polym-raw", lm(mpg ~ polym(wt, hp, degree = 2, raw = TRUE), mtcars), mtcars, plain)
  keep("formula-poly-by-factor", lm(medv ~ poly(x = lstat, degree = 3):band, boston), boston, plain)
  keep("formula-degree-of-environment", local({ n <- 4; lm(medv ~ ns(lstat, df = n) + poly(rm, n - 2), Boston) }), Boston, plain)
  keep("formula-ns-boundary", lm(medv ~ ns(lstat, df = 3, Boundary.knots = c(3, 30)), Boston), Boston, plain)
  keep("formula-ns-intercept", lm(medv ~ ns(log(lstat), df = 4, intercept = TRUE) - 1, Boston), Boston, plain)
  keep("formula-bs-boundary", lm(medv ~ bs(lstat, df = 5, Boundary.knots = c(0, 50)) + splines::bs(rm, degree = 1, knots = 6), Boston), Boston, plain)
  keep("formula-cut-infinite", lm(medv ~ cut(age, c(-Inf, 40.5, 70.25, Inf)), Boston), Boston, plain)
  keep("formula-cut-left", lm(medv ~ cut(age, seq(0, 101, length.out = 4), right = FALSE), Boston), Boston, plain)
  keep("formula-cut-lowest", lm(medv ~ cut(age, breaks = c(2.9, 40, 70, 100), include.lowest = TRUE, ordered_result = TRUE), Boston), Boston, plain)
  keep("formula-find-interval", lm(medv ~ findInterval(age, c(40, 70)) + factor(findInterval(dis, c(3, 5))), Boston), Boston, plain)
  keep("formula-contrasts-of-the-column", lm(breaks ~ tension * wool, local({ w <- warpbreaks; contrasts(w$tension, 1) <- contr.helmert(3)[, 1]; w })), warpbreaks, plain)
  keep("formula-contrasts-C", lm(medv ~ C(rad, contr.sum) + lstat, boston), boston, plain)
  keep("formula-contrasts-base", lm(medv ~ rad, boston, contrasts = list(rad = contr.treatment(9, base = 3))), boston, plain)
  keep("formula-contrasts-sdif", lm(breaks ~ tension, warpbreaks, contrasts = list(tension = "contr.sdif")), warpbreaks, plain)
  keep("formula-text-compared", lm(mpg ~ I(make == "Merc") + I(gearbox != "manual"):wt + I(make %in% c("Fiat", "Toyota")), mtc), mtc, plain)
  keep("formula-factor-compared", lm(breaks ~ I(tension %in% c("L", "M")) + (wool == "A"), warpbreaks), warpbreaks, plain)
  keep("formula-numbers-compared", lm(mpg ~ I(cyl %in% c(4, 6)) + I(!(wt > 3)) + xor(hp > 120, qsec > 18), mtcars), mtcars, plain)
  keep("formula-smallest-of-three", lm(medv ~ pmin(age, lstat, 5) + pmax(0, age - 50) + round(age / 10) + trunc(dis), Boston), Boston, plain)
  keep("formula-circular", lm(medv ~ sin(2 * pi * age / 100) + atan(lstat) + asin(age / 101) + acos(age / 101) + asinh(lstat) + acosh(tax), Boston), Boston, plain)
  keep("formula-offset-only", lm(mpg ~ offset(wt), mtcars), mtcars, plain)
  keep("formula-unnamed-response", lm(cbind(log(mpg), qsec) ~ wt + factor(cyl), mtcars), mtcars, plain)
  keep("formula-other-names", lm(`my y` ~ `my x` + `größe`, setNames(data.frame(mtcars$mpg, mtcars$wt, ifelse(mtcars$am == 1, "groß", "klein")), c("my y", "my x", "größe"))),
       setNames(data.frame(mtcars$mpg, mtcars$wt, ifelse(mtcars$am == 1, "groß", "klein")), c("my y", "my x", "größe")), plain)
  keep("formula-no-intercept-two-factors", lm(breaks ~ 0 + wool:tension + wool, warpbreaks), warpbreaks, plain)
}

fit_more <- function() {
  score <- function(f, d) list(score = as.vector(predict(f, d)))
  lung3 <- transform(lung2, old = age > 60, code = as.integer(sex), inst = ifelse(is.na(inst), 1, inst))
  keep("coxph-strata-factor", coxph(Surv(time, status) ~ age + ph.karno + strata(sex), lung3, x = TRUE), lung3, score)
  keep("coxph-strata-number", coxph(Surv(time, status) ~ age + strata(code), lung3, x = TRUE), lung3, score)
  keep("coxph-strata-logical", coxph(Surv(time, status) ~ age * ph.karno + strata(old), lung3, x = TRUE), lung3, function(f, d) list(score = as.vector(predict(f, d, type = "risk"))), list(type = "risk"))
  keep("coxph-strata-weights", coxph(Surv(time, status) ~ age + strata(sex), lung3, x = TRUE, weights = inst, model = TRUE), lung3, score)
  keep("coxph-offset", coxph(Surv(time, status) ~ ph.karno + offset(age / 10), lung3), lung3, score)
  chances <- function(f, d) dropped(function(d) list(label = predict(f, d), probabilities = attr(predict(f, d, probability = TRUE), "probabilities")[, f$levels, drop = FALSE]), d)
  keep("svm-probability-two", svm(factor(am, levels = c(1, 0)) ~ wt + hp, mtcars, probability = TRUE), mtcars, chances)
  keep("svm-probability-iris", svm(Species ~ ., iris[c(120:150, 1:119), ], probability = TRUE), iris, chances)
  keep("svm-probability-nu", svm(Species ~ ., iris, type = "nu-classification", nu = 0.2, probability = TRUE), iris, chances)
  keep("svm-probability-glass", svm(type ~ ., MASS::fgl, probability = TRUE), MASS::fgl, chances)
  keep("svm-expressions", svm(medv ~ I(lstat^2) + poly(rm, 2), Boston[1:200, ]), Boston, function(f, d) dropped(function(d) list(prediction = predict(f, d)), d))
  keep("nnet-matrix", nnet(as.matrix(iris[1:4]), class.ind(iris$Species), size = 3, softmax = TRUE, trace = FALSE, maxit = 40), unname(as.matrix(iris[1:4])), net_class)
  keep("multinom-no-intercept", multinom(class ~ fac - 1, whole, trace = FALSE), mixed, multi)
  bayes <- function(f, d) list(label = predict(f, d), probabilities = predict(f, d, type = "raw"))
  keep("naivebayes-logical-and-text", naiveBayes(class ~ num + flag + chr, whole), mixed, bayes)
  none <- trainControl(method = "none")
  value <- function(f, d) dropped(function(d) list(prediction = as.vector(predict(f, d))), d)
  keep("caret-lm-yeojohnson", train(medv ~ lstat + rm, Boston, "lm", preProcess = c("YeoJohnson", "center"), trControl = none), Boston[c("lstat", "rm")], value)
  keep("caret-lm-expotrans", train(medv ~ lstat + rm, Boston, "lm", preProcess = c("expoTrans", "center"), trControl = none), Boston[c("lstat", "rm")], value)
  keep("caret-lm-invhyperbolicsine", train(medv ~ lstat + rm, Boston, "lm", preProcess = c("invHyperbolicSine", "center"), trControl = none), Boston[c("lstat", "rm")], value)
  keep("caret-rpart2", train(medv ~ lstat + rm, Boston, "rpart2", tuneGrid = data.frame(maxdepth = 3), trControl = none), Boston[c("lstat", "rm")], value)
  keep("caret-step-lm", train(medv ~ lstat + rm + dis, Boston, "lmStepAIC", trace = 0, trControl = none), Boston[c("lstat", "rm", "dis")], value)
  label <- function(f, d) dropped(function(d) list(label = predict(f, d)), d)
  chances <- function(f, d) dropped(function(d) list(label = predict(f, d), probabilities = as.matrix(predict(f, d, type = "prob"))), d)
  keep("caret-one-component", train(medv ~ lstat + rm + dis, Boston, "lm", preProcess = "pca", trControl = trainControl(method = "none", preProcOptions = list(pcaComp = 1))), Boston[c("lstat", "rm", "dis")], value)
  keep("caret-svm", train(medv ~ lstat + rm, Boston[seq(1, 506, 4), ], "svmLinear2", tuneGrid = data.frame(cost = 1), trControl = none), Boston[c("lstat", "rm")], value)
  keep("caret-svm-labels", train(Species ~ ., iris, "svmLinear2", tuneGrid = data.frame(cost = 1), trControl = none), iris[1:4], label)
  keep("caret-svm-classes", train(Species ~ ., iris, "svmLinear2", tuneGrid = data.frame(cost = 1), trControl = trainControl(method = "none", classProbs = TRUE)), iris[1:4], chances)
  keep("caret-svm-weights", train(Class ~ Duration + Age, german, "svmLinearWeights", tuneGrid = data.frame(cost = 1, weight = 2), trControl = none), german[c("Duration", "Age")], label)
  keep("caret-negbin", train(Days ~ Sex + Age, quine, "glm.nb", tuneGrid = data.frame(link = "log"), trControl = none), quine[c("Sex", "Age")], value)
  keep("caret-xy-factors", train(whole[c("num", "fac", "ord")], whole$class, "ranger", num.threads = 1, num.trees = 15, tuneGrid = data.frame(mtry = 2, splitrule = "gini", min.node.size = 5), trControl = trainControl(method = "none", classProbs = TRUE)), whole[c("num", "fac", "ord")], function(f, d) list(label = predict(f, d), probabilities = as.matrix(predict(f, d, type = "prob"))))
  keep("caret-xy-rpart-scaled", train(birthwt[c("age", "lwt", "race")], factor(birthwt$low, labels = c("no", "yes")), "rpart", preProcess = c("center", "scale"), tuneGrid = data.frame(cp = 0.02), trControl = none), birthwt[c("age", "lwt", "race")], function(f, d) list(label = predict(f, d, na.action = na.pass), probabilities = as.matrix(predict(f, d, type = "prob", na.action = na.pass))))
}
