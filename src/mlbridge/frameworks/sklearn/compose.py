"""Estimators made of estimators, step after step or side by side: pipelines, column transformers, unions, searches."""

from __future__ import annotations

from typing import Any

import numpy as np

from ...errors import ConversionError
from .emitter import Emitter, Frame, emits

_METHODS = ("predict", "predict_proba", "decision_function", "transform", "score_samples")


def _pipeline(method: str) -> Any:
    def emit(e: Emitter, est: Any, frame: Frame) -> Any:
        for _, step in est.steps[:-1]:
            frame = e.transform(step, frame)
        last = est.steps[-1][1]
        if method == "transform":
            return e.transform(last, frame)
        return e.call(last, method, frame)

    return emit


def _inner(method: str, attribute: str) -> Any:
    def emit(e: Emitter, est: Any, frame: Frame) -> Any:
        return e.call(getattr(est, attribute), method, frame)

    return emit


for _method in _METHODS:
    emits(_method, "Pipeline")(_pipeline(_method))
    emits(_method, "GridSearchCV", "RandomizedSearchCV", "HalvingGridSearchCV", "HalvingRandomSearchCV")(_inner(_method, "best_estimator_"))


for _method in _METHODS:
    emits(_method, "FrozenEstimator")(_inner(_method, "estimator"))


@emits("transform", "FeatureUnion")
def union(e: Emitter, est: Any, frame: Frame) -> Frame:
    """Emit every part on the same frame, side by side, weighted."""
    weights = est.transformer_weights or {}
    parts = []
    for name, part in est.transformer_list:
        if isinstance(part, str) and part == "drop":
            continue
        out = e.transform(part, frame)
        if weights.get(name) is not None:
            out = Frame.of(e.op("Mul", e.matrix(out), float(weights[name])), out.width)
        parts.append(out)
    return Frame.join(parts)


@emits("transform", "ColumnTransformer")
def columns(e: Emitter, est: Any, frame: Frame) -> Frame:
    """Emit every branch on its columns, side by side, weighted."""
    weights = est.transformer_weights or {}
    parts = []
    for name, part, _ in est.transformers_:
        indices = est._transformer_to_input_indices.get(name, [])
        if (isinstance(part, str) and part == "drop") or len(indices) == 0:
            continue
        out = e.transform(part, frame.select(_positions(est, frame, indices)))
        if weights.get(name) is not None:
            out = Frame.of(e.op("Mul", e.matrix(out), float(weights[name])), out.width)
        parts.append(out)
    if not parts:
        raise ConversionError("the column transformer keeps no column")
    return Frame.join(parts)


def _positions(est: Any, frame: Frame, indices: Any) -> list[int]:
    """Return positions in the frame, which may lack columns the transformer drops."""
    names = getattr(est, "feature_names_in_", None)
    present = [c.name for c in frame.cols]
    if names is None or frame.width == len(names) or not set(present) <= set(names):
        return [int(i) for i in indices]
    return [present.index(names[i]) for i in indices]


@emits("transform", "FunctionTransformer")
def function(e: Emitter, est: Any, frame: Frame) -> Frame:
    """Emit the identity and numpy functions that ONNX has in double."""
    if est.func is None:
        return frame
    if getattr(getattr(est.func, "func", None), "__module__", "") == "sklearn.utils.validation":  # a histogram booster's own check
        return Frame.of(e.matrix(frame), frame.width)
    if est.kw_args:
        raise ConversionError("FunctionTransformer with kw_args has no ONNX form here")
    from .scalers import expm1, log1p

    simple = {
        np.exp: "Exp",
        np.log: "Log",
        np.sqrt: "Sqrt",
        np.abs: "Abs",
        np.tanh: "Tanh",
        np.floor: "Floor",
        np.ceil: "Ceil",
        np.sign: "Sign",
        np.negative: "Neg",
        np.reciprocal: "Reciprocal",
    }
    x = e.matrix(frame)
    if est.func in simple:
        value = e.op(simple[est.func], x)
    elif est.func is np.log1p:
        value = log1p(e, x)
    elif est.func is np.expm1:
        value = expm1(e, x)
    elif est.func is np.square:
        value = e.op("Mul", x, x)
    else:
        raise ConversionError(
            f"FunctionTransformer calls {getattr(est.func, '__name__', est.func)!r}, which is Python code",
            hint="use via='native', or a numpy function such as np.log1p",
        )
    return Frame.of(value, frame.width)
