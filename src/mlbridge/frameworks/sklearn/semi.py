"""Semi-supervised models, isotonic regression and the dummies."""

from __future__ import annotations

from typing import Any

import numpy as np

from ...errors import ConversionError
from .emitter import Emitter, Frame, emits
from .neighbors import nearest
from .scalers import clip, interpolate


@emits("predict_proba", "LabelPropagation", "LabelSpreading")
def proba_spread(e: Emitter, est: Any, frame: Frame) -> str:
    """Emit the kernel-weighted mean of the training rows' distributions."""
    table = np.asarray(est.label_distributions_, dtype=np.float64)
    if est.kernel == "rbf":
        weight = e.op("Exp", e.op("Mul", e.distances(e.matrix(frame), est.X_, "sqeuclidean"), -float(est.gamma)))
        return e.normalized(e.op("MatMul", weight, table))
    if est.kernel == "knn":
        _, index = nearest(e, est.nn_fit, frame, est.n_neighbors)
        return e.normalized(e.reduce("Sum", e.op("Gather", table, index, axis=0), keep=False))
    raise ConversionError(f"{type(est).__name__}: a kernel that is Python code has no ONNX form")


@emits("predict", "LabelPropagation", "LabelSpreading")
def label_spread(e: Emitter, est: Any, frame: Frame) -> str:
    """Emit the greatest probability's code."""
    return e.argmax(e.proba(est, frame))


def _self_trained(method: str) -> Any:
    def emit(e: Emitter, est: Any, frame: Frame) -> Any:
        return e.call(est.estimator_, method, frame)

    return emit


for _method in ("predict", "predict_proba", "decision_function"):
    emits(_method, "SelfTrainingClassifier")(_self_trained(_method))


def isotonic(e: Emitter, est: Any, x: str) -> str:
    """Emit the interpolation of x ("rows", 1); outside, clipped or NaN as the model says."""
    knots, values = np.asarray(est.X_thresholds_, dtype=np.float64), np.asarray(est.y_thresholds_, dtype=np.float64)
    single = est.X_thresholds_.dtype == np.float32 and len(knots) > 1
    if single:  # trained on another library's float32 scores, it computes in float32 too
        x = e.graph.cast(e.graph.cast(x, "float32"), "float64")
    clipped = clip(e, x, float(est.X_min_), float(est.X_max_)) if est.out_of_bounds == "clip" else x
    value = _interpolate_single(e, clipped, est) if single else interpolate(e, clipped, knots, values)
    if est.out_of_bounds == "clip":
        return value
    inside = e.op("And", e.op("GreaterOrEqual", x, knots[0]), e.op("LessOrEqual", x, knots[-1]))
    return e.op("Where", inside, value, np.nan)


def _interpolate_single(e: Emitter, x: str, est: Any) -> str:
    """Interpolate in float32, step by step as scipy's interp1d does there."""
    knots, values = est.X_thresholds_, est.y_thresholds_.astype(np.float32)
    below = e.reduce("Sum", e.graph.cast(e.op("Less", knots.astype(np.float64)[None], x), "int64"), keep=False)
    lo = e.op("Sub", e.op("Clip", below, np.int64(1), np.int64(len(knots) - 1)), np.int64(1))
    slope = np.diff(values) / np.diff(knots)
    left, base, rate = (e.tall(e.op("Gather", np.ascontiguousarray(v), lo)) for v in (knots[:-1], values[:-1], slope))
    rise = e.op("Mul", rate, e.op("Sub", e.graph.cast(x, "float32"), left))
    return e.graph.cast(e.op("Add", rise, base), "float64")


@emits("predict", "IsotonicRegression")
def predict_isotonic(e: Emitter, est: Any, frame: Frame) -> str:
    """Emit the interpolation."""
    return e.flat(isotonic(e, est, e.matrix(frame)))


@emits("transform", "IsotonicRegression")
def transform_isotonic(e: Emitter, est: Any, frame: Frame) -> tuple[str, int]:
    """Emit the interpolation as a column."""
    return isotonic(e, est, e.matrix(frame)), 1


def _rows_of(e: Emitter, frame: Frame) -> str:
    """Return any input block: only its number of rows is used."""
    return frame.cols[0].block


@emits("predict", "DummyRegressor")
def predict_dummy(e: Emitter, est: Any, frame: Frame) -> str:
    """Emit the constant."""
    out = e.per_row(_rows_of(e, frame), est.constant_)
    return e.flat(out) if est.n_outputs_ == 1 else out


@emits("predict_proba", "DummyClassifier")
def proba_dummy(e: Emitter, est: Any, frame: Frame) -> Any:
    """Emit the prior or a certainty; random strategies are refused."""
    if est._strategy in ("stratified", "uniform"):
        raise ConversionError(f"DummyClassifier(strategy={est._strategy!r}) answers at random")
    out = est.predict_proba(np.zeros((1, 1)))
    rows = _rows_of(e, frame)
    return [e.per_row(rows, p) for p in out] if isinstance(out, list) else e.per_row(rows, out)


@emits("predict", "DummyClassifier")
def label_dummy(e: Emitter, est: Any, frame: Frame) -> Any:
    """Emit the constant's code."""
    p = e.proba(est, frame)
    return [e.argmax(v) for v in p] if isinstance(p, list) else e.argmax(p)
