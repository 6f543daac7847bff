# Team R: a logistic regression and a random forest on the same table; writes each as a package (.mlb, by the R package in
# r-bindings) and as R's own file (.rds), and what R itself answers for every row.
suppressPackageStartupMessages({library(randomForest); library(mlbridge)})
table <- read.csv("german.csv", stringsAsFactors = TRUE)
table$telephone <- NULL
table$foreign_worker <- NULL
for (n in c("duration", "amount", "installment_rate", "residence_years", "age", "existing_credits", "dependents")) table[[n]] <- as.numeric(table[[n]])
set.seed(7)
logit <- glm(risk ~ duration + log(amount) + age + checking + history + savings + employment, binomial, table)
forest <- randomForest(risk ~ ., table, ntree = 60, nodesize = 10)
answers <- data.frame(logit = predict(logit, table, type = "response"), forest = predict(forest, table, type = "prob")[, "good"])
write.csv(format(answers, digits = 17), "r/answers.csv", row.names = FALSE, quote = FALSE)

mlb_save(logit, "r/logit.mlb", sample = table, options = list(as = "classifier"), description = "The risk of a loan", overwrite = TRUE)
mlb_save(forest, "r/forest.mlb", sample = table, description = "The risk of a loan", overwrite = TRUE)

logit$data <- logit$y <- logit$residuals <- logit$weights <- logit$effects <- logit$fitted.values <- NULL
logit$linear.predictors <- logit$prior.weights <- logit$qr$qr <- NULL
forest$votes <- forest$oob.times <- forest$y <- forest$predicted <- NULL
saveRDS(logit, "r/logit.rds")
saveRDS(forest, "r/forest.rds")
