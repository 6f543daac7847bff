# Writes german.csv: the Statlog (German Credit Data) set, its dummy columns in caret folded back into factors.
# Source: Hofmann, H. (1994), Statlog (German Credit Data), UCI Machine Learning Repository, doi:10.24432/C5NC77, CC BY 4.0;
# taken from the R package caret (`GermanCredit`).
suppressPackageStartupMessages(library(caret))
data(GermanCredit)
fold <- function(prefix) {
  columns <- grep(paste0("^", prefix, "\\."), names(GermanCredit), value = TRUE)
  hit <- as.matrix(GermanCredit[columns]) == 1
  stopifnot(all(rowSums(hit) <= 1))
  level <- ifelse(rowSums(hit) == 1, sub(paste0("^", prefix, "\\."), "", columns)[max.col(hit, "first")], NA)
  level
}
out <- data.frame(
  duration = GermanCredit$Duration, amount = GermanCredit$Amount,
  installment_rate = GermanCredit$InstallmentRatePercentage, residence_years = GermanCredit$ResidenceDuration,
  age = GermanCredit$Age, existing_credits = GermanCredit$NumberExistingCredits,
  dependents = GermanCredit$NumberPeopleMaintenance, telephone = GermanCredit$Telephone == 1,
  foreign_worker = GermanCredit$ForeignWorker == 1,
  checking = fold("CheckingAccountStatus"), history = fold("CreditHistory"), purpose = fold("Purpose"),
  savings = fold("SavingsAccountBonds"), employment = fold("EmploymentDuration"), personal = fold("Personal"),
  other_debtors = fold("OtherDebtorsGuarantors"), property = fold("Property"),
  other_plans = fold("OtherInstallmentPlans"), housing = fold("Housing"), job = fold("Job"),
  risk = tolower(as.character(GermanCredit$Class))
)
write.csv(out, "german.csv", row.names = FALSE, na = "")
