"""Estimators made of estimators, step after step or side by side: pipelines, column transformers, unions, searches."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from ...errors import ConversionError
from .emitter import Emitter, Frame, class_name, emits

_METHODS = ("predict", "predict_proba", "decision_function", "transform", "score_samples")
_SPARSE = {  # attributes, and their values, that make a transformer answer a sparse matrix
    "ColumnTransformer": ("sparse_output_", True), "OneHotEncoder": ("sparse_output", True), "LabelBinarizer": ("sparse_output", True),
    "MultiLabelBinarizer": ("sparse_output", True), "SplineTransformer": ("sparse_output", True), "KBinsDiscretizer": ("encode", "onehot"),
    "RandomTreesEmbedding": ("sparse_output", True), "DictVectorizer": ("sparse", True), "CountVectorizer": ("binary", None),
    "TfidfVectorizer": ("binary", None), "HashingVectorizer": ("binary", None), "FeatureHasher": ("dtype", None),
    "TfidfTransformer": ("norm", None),
}  # fmt: skip
_SPARSE_STAYS = frozenset(
    """StandardScaler MaxAbsScaler RobustScaler Normalizer Binarizer QuantileTransformer PolynomialFeatures SimpleImputer
    AdditiveChi2Sampler FunctionTransformer GenericUnivariateSelect RFE RFECV SelectFdr SelectFpr SelectFromModel SelectFwe
    SelectKBest SelectPercentile SequentialFeatureSelector VarianceThreshold SparseRandomProjection GaussianRandomProjection""".split()  # noqa: SIM905
)


def _pipeline(method: str) -> Any:
    def emit(e: Emitter, est: Any, frame: Frame) -> Any:
        for _, step in est.steps[:-1]:
            frame = replace(e.transform(step, frame), sparse=gives_sparse(step, frame.sparse))
        last = est.steps[-1][1]
        if method == "transform":
            return e.transform(last, frame)
        return e.call(last, method, frame)

    return emit


def gives_sparse(est: Any, given: bool) -> bool:
    """Whether a transformer answers a sparse matrix, `given` one or not."""
    if est is None or isinstance(est, str):
        return given
    name = class_name(est)
    if name == "Pipeline":
        for _, step in est.steps:
            given = gives_sparse(step, given)
        return given
    if name == "FeatureUnion":
        return any(gives_sparse(part, given) for _, part in est.transformer_list)
    if name in _SPARSE:
        attribute, value = _SPARSE[name]
        return value is None or getattr(est, attribute, None) == value
    return given and name in _SPARSE_STAYS


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
