"""The table from a full class vector to the family that knows it; a class vector not listed is not ours."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from typing import Any

__all__ = ["CLASSES", "family_of"]

CLASSES: Mapping[tuple[str, ...], tuple[str, str]] = {
    ("lm",): ("linear", "Lm"),
    ("mlm", "lm"): ("linear", "Lm"),
    ("glm", "lm"): ("linear", "Glm"),
    ("negbin", "glm", "lm"): ("linear", "Glm"),
    ("rpart",): ("rpart", "Rpart"),
    ("randomForest.formula", "randomForest"): ("forest", "RandomForest"),
    ("randomForest",): ("forest", "RandomForest"),
    ("ranger",): ("ranger", "Ranger"),
    ("gbm",): ("gbm", "Gbm"),
    ("nnet.formula", "nnet"): ("network", "Nnet"),
    ("nnet",): ("network", "Nnet"),
    ("multinom", "nnet"): ("network", "Nnet"),
    ("lda",): ("discriminant", "Lda"),
    ("qda",): ("discriminant", "Qda"),
    ("polr",): ("discriminant", "Polr"),
    ("kmeans",): ("cluster", "Kmeans"),
    ("prcomp",): ("cluster", "Prcomp"),
    ("coxph",): ("survival", "Coxph"),
    ("nls",): ("nls", "Nls"),
    ("svm.formula", "svm"): ("svm", "Svm"),
    ("svm",): ("svm", "Svm"),
    ("naiveBayes",): ("bayes", "NaiveBayes"),
    ("train", "train.formula"): ("caret", "Train"),
    ("train",): ("caret", "Train"),
    ("cv.glmnet",): ("glmnet", "Glmnet"),
    **{(c, "glmnet"): ("glmnet", "Glmnet") for c in ("elnet", "lognet", "fishnet", "multnet")},
}


def family_of(classes: tuple[str, ...]) -> Callable[..., Any] | None:
    """Return the family of a class vector, None if it is not known in full."""
    found = CLASSES.get(tuple(classes))
    return None if found is None else getattr(importlib.import_module(f".{found[0]}", __package__), found[1])
