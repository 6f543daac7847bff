"""Linear models: regressors, classifiers and generalised linear models, from their coefficients."""

from __future__ import annotations

from typing import Any

import numpy as np

from ...errors import ConversionError
from .emitter import Emitter, Frame, emits

# ruff: noqa: SIM905

_REGRESSORS = """ARDRegression BayesianRidge ElasticNet ElasticNetCV HuberRegressor Lars LarsCV Lasso LassoCV LassoLars LassoLarsCV
    LassoLarsIC LinearRegression LinearSVR MultiTaskElasticNet MultiTaskElasticNetCV MultiTaskLasso MultiTaskLassoCV
    OrthogonalMatchingPursuit OrthogonalMatchingPursuitCV PassiveAggressiveRegressor QuantileRegressor Ridge RidgeCV
    SGDRegressor TheilSenRegressor""".split()
_CLASSIFIERS = """LinearSVC LogisticRegression LogisticRegressionCV PassiveAggressiveClassifier Perceptron RidgeClassifier
    RidgeClassifierCV SGDClassifier""".split()


@emits("predict", *_REGRESSORS)
def predict_linear(e: Emitter, est: Any, frame: Frame) -> str:
    """Emit x @ coef + intercept, ("rows",) for one target."""
    coef = np.asarray(est.coef_.toarray() if hasattr(est.coef_, "toarray") else est.coef_, dtype=np.float64)
    out = e.linear(e.matrix(frame), np.atleast_2d(coef), est.intercept_)
    return e.flat(out) if len(np.atleast_2d(coef)) == 1 else out


@emits("decision_function", *_CLASSIFIERS)
def decide_linear(e: Emitter, est: Any, frame: Frame) -> str:
    """Emit the decision: ("rows",) for two classes."""
    coef = est.coef_.toarray() if hasattr(est.coef_, "toarray") else est.coef_
    out = e.linear(e.matrix(frame), coef, est.intercept_)
    return e.flat(out) if len(coef) == 1 else out


@emits("predict", *_CLASSIFIERS)
def label_linear(e: Emitter, est: Any, frame: Frame) -> Any:
    """Emit the class of the greatest decision; one code a label for several labels."""
    decision = e.decision(est, frame)
    if str(getattr(getattr(est, "_label_binarizer", None), "y_type_", "")).startswith("multilabel"):
        hits = Frame.of(e.graph.cast(e.op("Greater", decision, 0.0), "float64"), len(est.coef_))
        return [e.graph.cast(e.flat(e.column(hits, i)), "int64") for i in range(hits.width)]
    return label_of_decision(e, decision, len(est.classes_))


def label_of_decision(e: Emitter, decision: str, classes: int) -> str:
    """Return codes from a decision: its sign for two classes, else the first greatest."""
    if classes > 2:
        return e.argmax(decision)
    return e.graph.cast(e.op("Greater", decision, 0.0), "int64")


@emits("predict_proba", "LogisticRegression", "LogisticRegressionCV", "SGDClassifier")
def proba_linear(e: Emitter, est: Any, frame: Frame) -> str:
    """Emit probabilities: logistic for two classes, softmax or normalised logistics for more."""
    decision = e.decision(est, frame)
    binary = len(est.classes_) <= 2
    loss = getattr(est, "loss", "log_loss")
    if loss == "modified_huber":
        p = e.op("Div", e.op("Add", e.op("Max", e.op("Min", decision, 1.0), -1.0), 1.0), 2.0)
        return e.two_columns(e.tall(p)) if binary else uniform_if_zero(e, p, len(est.classes_))
    if loss != "log_loss":
        raise ConversionError(f"{type(est).__name__}(loss={loss!r}) has no probabilities")
    if binary:
        return e.two_columns(e.logistic(e.tall(decision)))
    softmax = type(est).__name__ != "SGDClassifier" and getattr(est, "solver", "") != "liblinear"
    return e.softmax(decision) if softmax else uniform_if_zero(e, e.logistic(decision), len(est.classes_))


def uniform_if_zero(e: Emitter, p: str, classes: int) -> str:
    """Divide each row by its sum; a row of zeros becomes uniform."""
    total = e.reduce("Sum", p)
    zero = e.op("Equal", total, 0.0)
    return e.op("Where", zero, 1.0 / classes, e.op("Div", p, e.op("Where", zero, 1.0, total)))


@emits("predict", "GammaRegressor", "PoissonRegressor", "TweedieRegressor")
def predict_glm(e: Emitter, est: Any, frame: Frame) -> str:
    """Emit the inverse link of the linear predictor."""
    eta = e.flat(e.linear(e.matrix(frame), np.atleast_2d(est.coef_), est.intercept_))
    link = type(est._base_loss.link).__name__
    if link == "LogLink":
        return e.op("Exp", eta)
    if link == "IdentityLink":
        return eta
    raise ConversionError(f"{type(est).__name__}: link {link} has no ONNX form here")


@emits("predict", "RANSACRegressor")
def predict_ransac(e: Emitter, est: Any, frame: Frame) -> str:
    """Emit the regressor fitted on the inliers."""
    return e.predict(est.estimator_, frame)


@emits("decision_function", "SGDOneClassSVM")
def decide_sgd_one_class(e: Emitter, est: Any, frame: Frame) -> str:
    """Emit coef . x - offset."""
    return e.flat(e.linear(e.matrix(frame), np.atleast_2d(est.coef_), -np.asarray(est.offset_)))


@emits("predict", "SGDOneClassSVM")
def label_sgd_one_class(e: Emitter, est: Any, frame: Frame) -> str:
    """Emit 1 for inliers: decision >= 0."""
    return e.graph.cast(e.op("GreaterOrEqual", e.decision(est, frame), 0.0), "int64")


@emits("predict", "PLSRegression", "PLSCanonical", "CCA")
def predict_pls(e: Emitter, est: Any, frame: Frame) -> str:
    """Emit (x - mean) @ coef + intercept, in that order as the library does."""
    centred = e.op("Sub", e.matrix(frame), np.asarray(est._x_mean))
    out = e.linear(centred, est.coef_, est.intercept_)
    return e.flat(out) if len(est.coef_) == 1 else out


@emits("transform", "PLSRegression", "PLSCanonical", "CCA")
def transform_pls(e: Emitter, est: Any, frame: Frame) -> tuple[str, int]:
    """Emit the x scores."""
    scaled = e.op("Div", e.op("Sub", e.matrix(frame), np.asarray(est._x_mean)), np.asarray(est._x_std))
    return e.linear(scaled, est.x_rotations_.T), est.x_rotations_.shape[1]


@emits("transform", "PLSSVD")
def transform_pls_svd(e: Emitter, est: Any, frame: Frame) -> tuple[str, int]:
    """Emit the x scores."""
    scaled = e.op("Div", e.op("Sub", e.matrix(frame), np.asarray(est._x_mean)), np.asarray(est._x_std))
    return e.linear(scaled, est.x_weights_.T), est.x_weights_.shape[1]
