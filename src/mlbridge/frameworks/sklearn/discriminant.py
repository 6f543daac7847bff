"""Discriminant analysis and nearest centroids."""

from __future__ import annotations

from typing import Any

import numpy as np

from ...errors import ConversionError
from .emitter import Emitter, Frame, class_name, emits
from .linear import label_of_decision


@emits("decision_function", "LinearDiscriminantAnalysis")
def decide_lda(e: Emitter, est: Any, frame: Frame) -> str:
    """Emit the linear decision; ("rows",) for two classes."""
    out = e.linear(e.matrix(frame), est.coef_, est.intercept_)
    return e.flat(out) if len(est.coef_) == 1 else out


@emits("predict", "LinearDiscriminantAnalysis")
def label_lda(e: Emitter, est: Any, frame: Frame) -> str:
    """Emit the greatest decision's code."""
    return label_of_decision(e, e.decision(est, frame), len(est.classes_))


@emits("predict_proba", "LinearDiscriminantAnalysis")
def proba_lda(e: Emitter, est: Any, frame: Frame) -> str:
    """Emit logistic or softmax of the decision."""
    decision = e.decision(est, frame)
    return e.two_columns(e.logistic(e.tall(decision))) if len(est.classes_) == 2 else e.softmax(decision)


@emits("transform", "LinearDiscriminantAnalysis")
def transform_lda(e: Emitter, est: Any, frame: Frame) -> tuple[str, int]:
    """Emit the projection."""
    x = e.matrix(frame)
    if est.solver == "svd":
        x = e.op("Sub", x, est.xbar_)
    scalings = est.scalings_[:, : est._max_components]
    return e.linear(x, scalings.T), scalings.shape[1]


def _scores(e: Emitter, est: Any, frame: Frame) -> str:
    """Emit one score a class."""
    x = e.matrix(frame)
    if class_name(est) == "NearestCentroid":
        if est.metric != "euclidean":
            raise ConversionError(f"NearestCentroid(metric={est.metric!r}) has no ONNX form here")
        scale = np.where(est.within_class_std_dev_ != 0, est.within_class_std_dev_, 1.0)
        distances = e.square_distances(e.op("Div", x, scale), est.centroids_ / scale)
        return e.op("Add", e.op("Neg", distances), 2.0 * np.log(est.class_prior_))
    columns = []
    for k in range(len(est.classes_)):
        rotated = e.op("MatMul", e.op("Sub", x, est.means_[k]), est.rotations_[k] * est.scalings_[k] ** -0.5)
        constant = -0.5 * np.sum(np.log(est.scalings_[k])) + np.log(est.priors_[k])
        columns.append(e.op("Add", e.op("Mul", -0.5, e.reduce("SumSquare", rotated)), constant))
    return e.graph.concat(columns)


@emits("decision_function", "QuadraticDiscriminantAnalysis", "NearestCentroid")
def decide(e: Emitter, est: Any, frame: Frame) -> str:
    """Emit the scores; their difference for two classes."""
    scores = _scores(e, est, frame)
    if len(est.classes_) != 2:
        return scores
    both = Frame.of(scores, 2)
    return e.flat(e.op("Sub", e.column(both, 1), e.column(both, 0)))


@emits("predict_proba", "QuadraticDiscriminantAnalysis", "NearestCentroid")
def proba(e: Emitter, est: Any, frame: Frame) -> str:
    """Emit the scores' softmax."""
    return e.softmax(_scores(e, est, frame))


@emits("predict", "QuadraticDiscriminantAnalysis", "NearestCentroid")
def label(e: Emitter, est: Any, frame: Frame) -> str:
    """Emit the greatest score's code; with equal priors a centroid model takes the nearest, unscaled."""
    if class_name(est) == "NearestCentroid" and np.isclose(est.class_prior_, 1 / len(est.classes_)).all():
        if est.metric == "manhattan":
            return e.argmax(e.distances(e.matrix(frame), est.centroids_, "manhattan"), least=True)
        return e.argmax(e.distances(e.matrix(frame), est.centroids_, "sqeuclidean"), least=True)
    return e.argmax(_scores(e, est, frame))
