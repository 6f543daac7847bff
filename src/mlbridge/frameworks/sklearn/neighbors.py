"""Neighbours: classifiers, regressors, graphs and the local outlier factor, by exact distances to every stored row."""

from __future__ import annotations

from typing import Any

import numpy as np

from ...errors import ConversionError
from .emitter import Emitter, Frame, emits


def points_of(est: Any) -> np.ndarray:
    """Return the stored rows, dense."""
    points = est._fit_X
    return np.asarray(points.toarray() if hasattr(points, "toarray") else points, dtype=np.float64)


def distances(e: Emitter, est: Any, frame: Frame) -> str:
    """Emit distances to the stored rows in the estimator's own metric."""
    params = getattr(est, "effective_metric_params_", None) or {}
    return e.distances(e.matrix(frame), points_of(est), est.effective_metric_, params.get("p"))


def nearest(e: Emitter, est: Any, frame: Frame, k: int) -> tuple[str, str]:
    """Emit the k least distances and the stored rows' numbers, both ("rows", k)."""
    d = distances(e, est, frame)
    return e.graph.add("TopK", d, e.graph.const([k], "int64"), axis=1, largest=0, sorted=1, outputs=2)


def weights(e: Emitter, est: Any, d: str, inside: str | None = None) -> str | None:
    """Emit neighbours' weights from their distances; None for uniform ones."""
    if est.weights in (None, "uniform"):
        return None if inside is None else e.graph.cast(inside, "float64")
    if est.weights != "distance":
        raise ConversionError(f"{type(est).__name__}: weights={est.weights!r} is Python code", hint="use 'uniform' or 'distance'")
    zero = e.op("Equal", d, 0.0)
    if inside is not None:
        zero = e.op("And", zero, inside)
    some = e.op("Greater", e.reduce("Sum", e.graph.cast(zero, "float64")), 0.0)
    inverse = e.op("Div", 1.0, e.op("Where", e.op("Equal", d, 0.0), 1.0, d))
    if inside is not None:
        inverse = e.op("Where", inside, inverse, 0.0)
    return e.op("Where", some, e.graph.cast(zero, "float64"), inverse)


def _vote(e: Emitter, w: str | None, table: np.ndarray, index: str) -> str:
    """Emit the weighted sum of neighbours' rows of `table`."""
    rows = e.op("Gather", table, index, axis=0)
    if w is not None:
        rows = e.op("Mul", rows, e.op("Unsqueeze", w, np.array([2])))
    return e.reduce("Sum", rows, keep=False)


def _class_tables(est: Any) -> list[np.ndarray]:
    y = np.asarray(est._y)
    y = y.reshape(len(y), -1)
    classes = est.classes_ if est.outputs_2d_ else [est.classes_]
    return [np.eye(len(c))[y[:, i]] for i, c in enumerate(classes)]


@emits("predict_proba", "KNeighborsClassifier")
def proba_knn(e: Emitter, est: Any, frame: Frame) -> Any:
    """Emit the share of votes."""
    d, index = nearest(e, est, frame, est.n_neighbors)
    w = weights(e, est, d)
    out = [e.normalized(_vote(e, w, table, index)) for table in _class_tables(est)]
    return out if est.outputs_2d_ else out[0]


@emits("predict", "KNeighborsClassifier")
def label_knn(e: Emitter, est: Any, frame: Frame) -> Any:
    """Emit the first class with most votes."""
    p = e.proba(est, frame)
    return [e.argmax(v) for v in p] if isinstance(p, list) else e.argmax(p)


@emits("predict", "KNeighborsRegressor")
def predict_knn(e: Emitter, est: Any, frame: Frame) -> str:
    """Emit the weighted mean of the neighbours' targets."""
    d, index = nearest(e, est, frame, est.n_neighbors)
    y = np.asarray(est._y, dtype=np.float64)
    w = weights(e, est, d)
    total = _vote(e, w, y.reshape(len(y), -1), index)
    out = e.op("Div", total, float(est.n_neighbors) if w is None else e.reduce("Sum", w))
    return e.flat(out) if y.ndim == 1 else out


def _inside(e: Emitter, est: Any, frame: Frame) -> tuple[str, str]:
    d = distances(e, est, frame)
    return d, e.op("LessOrEqual", d, float(est.radius))


@emits("predict_proba", "RadiusNeighborsClassifier")
def proba_radius(e: Emitter, est: Any, frame: Frame) -> Any:
    """Emit the share of votes within the radius; a row without neighbours gets the outlier label, or NaN."""
    d, inside = _inside(e, est, frame)
    w = weights(e, est, d, inside)
    alone = e.op("Equal", e.reduce("Sum", e.graph.cast(inside, "float64")), 0.0)
    out = []
    classes = est.classes_ if est.outputs_2d_ else [est.classes_]
    for i, table in enumerate(_class_tables(est)):
        votes = e.op("MatMul", w, table)
        if est.outlier_label_ is None:
            lonely: Any = np.full((1, table.shape[1]), np.nan)  # the library refuses such a row
        else:
            lonely = (np.asarray(classes[i]) == est.outlier_label_[i]).astype(np.float64)[None]
        out.append(e.normalized(e.op("Where", alone, lonely, votes), guard=True))
    return out if est.outputs_2d_ else out[0]


@emits("predict", "RadiusNeighborsClassifier")
def label_radius(e: Emitter, est: Any, frame: Frame) -> Any:
    """Emit the first class with most votes."""
    classes = est.classes_ if est.outputs_2d_ else [est.classes_]
    if est.outlier_label_ is not None and any(label not in c for label, c in zip(est.outlier_label_, classes, strict=True)):
        raise ConversionError(
            "RadiusNeighborsClassifier: the outlier label is none of the classes", hint="use outlier_label='most_frequent'"
        )
    p = e.proba(est, frame)
    return [e.argmax(v) for v in p] if isinstance(p, list) else e.argmax(p)


@emits("predict", "RadiusNeighborsRegressor")
def predict_radius(e: Emitter, est: Any, frame: Frame) -> str:
    """Emit the weighted mean within the radius; NaN without neighbours, as the library does."""
    d, inside = _inside(e, est, frame)
    w = str(weights(e, est, d, inside))
    y = np.asarray(est._y, dtype=np.float64)
    total = e.op("MatMul", w, y.reshape(len(y), -1))
    out = e.op("Div", total, e.reduce("Sum", w))
    return e.flat(out) if y.ndim == 1 else out


@emits("transform", "KNeighborsTransformer")
def graph_knn(e: Emitter, est: Any, frame: Frame) -> tuple[str, int]:
    """Emit the neighbours' distances or ones, zero elsewhere."""
    k = est.n_neighbors + (est.mode == "distance")
    _, index = nearest(e, est, frame, k)
    n = len(points_of(est))
    hits = e.reduce("Sum", e.op("Gather", np.eye(n), index, axis=0), keep=False)
    return (hits if est.mode != "distance" else e.op("Mul", hits, distances(e, est, frame))), n


@emits("transform", "RadiusNeighborsTransformer")
def graph_radius(e: Emitter, est: Any, frame: Frame) -> tuple[str, int]:
    """Emit distances or ones within the radius, zero elsewhere."""
    d, inside = _inside(e, est, frame)
    return (e.op("Where", inside, d, 0.0) if est.mode == "distance" else e.graph.cast(inside, "float64")), len(points_of(est))


@emits("score_samples", "LocalOutlierFactor")
def score_lof(e: Emitter, est: Any, frame: Frame) -> str:
    """Emit the negated mean ratio of reachability densities."""
    k = int(est.n_neighbors_)
    d, index = nearest(e, est, frame, k)
    reach = e.op("Max", d, e.op("Gather", np.asarray(est._distances_fit_X_[:, k - 1], dtype=np.float64), index))
    density = e.op("Div", 1.0, e.op("Add", e.reduce("Mean", reach), 1e-10))
    ratios = e.op("Div", e.op("Gather", np.asarray(est._lrd, dtype=np.float64), index), density)
    return e.op("Neg", e.reduce("Mean", ratios, keep=False))


@emits("decision_function", "LocalOutlierFactor", "EllipticEnvelope")
def decide_offset(e: Emitter, est: Any, frame: Frame) -> str:
    """Emit score - offset."""
    return e.op("Sub", e.call(est, "score_samples", frame), float(est.offset_))


@emits("predict", "LocalOutlierFactor", "EllipticEnvelope")
def label_offset(e: Emitter, est: Any, frame: Frame) -> str:
    """Emit 1 for inliers: decision >= 0."""
    return e.graph.cast(e.op("GreaterOrEqual", e.decision(est, frame), 0.0), "int64")


@emits("score_samples", "EllipticEnvelope")
def score_elliptic(e: Emitter, est: Any, frame: Frame) -> str:
    """Emit the negated squared Mahalanobis distance."""
    diff = e.op("Sub", e.matrix(frame), np.asarray(est.location_))
    return e.op("Neg", e.reduce("Sum", e.op("Mul", e.op("MatMul", diff, np.asarray(est.get_precision())), diff), keep=False))
