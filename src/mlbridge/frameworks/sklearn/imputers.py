"""Imputers and the indicator of missing values."""

from __future__ import annotations

from typing import Any

import numpy as np

from ...errors import ConversionError
from .emitter import Col, Emitter, Frame, emits


def _is_nan(value: Any) -> bool:
    return isinstance(value, float | np.floating) and np.isnan(value)


def missing_mask(e: Emitter, x: str, missing_values: Any) -> str:
    """Return where a numeric block holds the missing value."""
    if missing_values is None or _is_nan(missing_values) or type(missing_values).__name__ == "NAType":
        return e.op("IsNaN", x)
    return e.op("Equal", x, float(missing_values))


@emits("transform", "SimpleImputer")
def simple(e: Emitter, est: Any, frame: Frame) -> Frame:
    """Emit fills column by column; categories become codes of the levels and the fill."""
    if all(c.kind == "number" for c in frame.cols):
        out = _fill_numbers(e, est, frame)
    else:
        kept = [i for i, s in enumerate(est.statistics_.tolist()) if not _empty(s) or est.keep_empty_features]
        out = Frame(tuple(_fill_column(e, est, frame, i) for i in kept))
    if est.add_indicator:
        out = Frame.join([out, e.transform(est.indicator_, frame)])
    return out


def _empty(statistic: Any) -> bool:
    return statistic is None or _is_nan(statistic)


def _fill_numbers(e: Emitter, est: Any, frame: Frame) -> Frame:
    statistics = np.asarray(est.statistics_, dtype=np.float64)
    kept = [i for i in range(frame.width) if est.keep_empty_features or not np.isnan(statistics[i])]
    if est.strategy == "constant":
        kept = list(range(frame.width))
    if not kept:
        raise ConversionError("an imputer drops every column")
    names = [c.name for c in frame.cols]
    frame = frame.select(kept)
    x = e.matrix(frame)
    fills = np.where(np.isnan(statistics), 0.0, statistics)[kept]
    value = e.op("Where", missing_mask(e, x, est.missing_values), fills, x)
    return Frame.of(value, len(kept)).renamed([names[i] for i in kept])


def _fill_column(e: Emitter, est: Any, frame: Frame, i: int) -> Col:
    col, fill = frame.cols[i], est.statistics_.tolist()[i]
    if col.kind == "text":
        raise ConversionError(f"column {col.name!r}: text has no missing value in ONNX", hint="train with categories")
    if col.kind == "number":
        x = e.column(frame, i)
        value = e.op("Where", missing_mask(e, x, est.missing_values), float(fill), x)
        return Col(value, 0, 1, name=col.name)
    levels = list(col.levels or ())
    missing = est.missing_values
    if not (missing is None or _is_nan(missing) or type(missing).__name__ == "NAType"):
        raise ConversionError(f"column {col.name!r}: missing_values={missing!r} on categories has no ONNX form here")
    if fill not in levels:
        levels.append(fill)
    table = np.array([levels.index(fill), *range(len(col.levels or ())), len(levels)], dtype=np.int32)
    return Col(e.lookup(col, table[:, None]), 0, 1, "int32", col.name, tuple(levels))


@emits("transform", "MissingIndicator")
def indicator(e: Emitter, est: Any, frame: Frame) -> tuple[str, int]:
    """Emit 1 where a value is missing, for the columns that had any in training."""
    parts = []
    for i in est.features_.tolist():
        col = frame.cols[i]
        if col.kind == "category":
            table = np.zeros((len(col.levels or ()) + 2, 1))
            table[0] = 1.0
            parts.append(e.lookup(col, table))
        elif col.kind == "number":
            parts.append(e.graph.cast(missing_mask(e, e.column(frame, i), est.missing_values), "float64"))
        else:
            raise ConversionError(f"column {col.name!r}: text has no missing value in ONNX")
    if not parts:
        return e.op("Slice", e.matrix(frame), np.array([0]), np.array([0]), np.array([1])), 0
    return e.graph.concat(parts), len(parts)


@emits("transform", "KNNImputer")
def knn(e: Emitter, est: Any, frame: Frame) -> tuple[str, int]:
    """Emit the mean of the nearest donors by NaN-aware Euclidean distance."""
    if est.metric != "nan_euclidean" or est.weights not in ("uniform", "distance") or not _is_nan(est.missing_values):
        raise ConversionError("KNNImputer: only nan_euclidean with uniform or distance weights has an ONNX form here")
    x, fit = e.matrix(frame), np.asarray(est._fit_X, dtype=np.float64)
    absent = np.isnan(fit)
    hole = e.op("IsNaN", x)
    filled = e.op("Where", hole, 0.0, x)
    there = e.op("Sub", 1.0, e.graph.cast(hole, "float64"))
    both = e.op("Mul", e.op("Unsqueeze", there, np.array([1])), (~absent).astype(np.float64)[None])
    diff = e.op("Mul", e.op("Sub", e.op("Unsqueeze", filled, np.array([1])), np.where(absent, 0.0, fit)[None]), both)
    shared = e.reduce("Sum", both, 2, keep=False)
    square = e.op(
        "Mul",
        e.op("Div", e.reduce("SumSquare", diff, 2, keep=False), e.op("Where", e.op("Equal", shared, 0.0), np.nan, shared)),
        float(fit.shape[1]),
    )
    distance = e.op("Where", e.op("Equal", shared, 0.0), 1e300, e.op("Sqrt", square))  # no shared feature: never chosen while others are
    kept = np.asarray(est._valid_mask) if not getattr(est, "keep_empty_features", False) else np.ones(fit.shape[1], dtype=bool)
    columns = [_knn_column(e, est, Frame.of(x, frame.width), hole, distance, fit[:, j], int(j)) for j in np.flatnonzero(kept)]
    out = Frame.of(e.graph.concat(columns), len(columns))
    if est.add_indicator:
        out = Frame.join([out, e.transform(est.indicator_, frame)])
    return e.matrix(out), out.width


def _knn_column(e: Emitter, est: Any, frame: Frame, hole: str, distance: str, fit: np.ndarray, j: int) -> str:
    x = e.column(frame, j)
    donors = np.flatnonzero(~np.isnan(fit))
    if len(donors) == 0:
        return e.op("Where", e.op("IsNaN", x), 0.0, x)
    mean, k = float(fit[donors].mean()), min(est.n_neighbors, len(donors))
    d = e.op("Gather", distance, donors, axis=1)
    nearest, index = e.graph.add("TopK", d, e.graph.const([k], "int64"), axis=1, largest=0, sorted=1, outputs=2)
    values = e.op("Gather", fit[donors], index)
    usable = e.op("Less", nearest, 1e299)
    weight = e.graph.cast(usable, "float64")
    if est.weights == "distance":
        zero = e.op("Equal", nearest, 0.0)
        any_zero = e.op("Greater", e.reduce("Sum", e.graph.cast(zero, "float64")), 0.0)
        weight = e.op(
            "Where", any_zero, e.graph.cast(zero, "float64"), e.op("Mul", weight, e.op("Div", 1.0, e.op("Where", zero, 1.0, nearest)))
        )
    total = e.reduce("Sum", weight)
    some = e.op("Greater", total, 0.0)
    value = e.op("Div", e.reduce("Sum", e.op("Mul", values, weight)), e.op("Where", some, total, 1.0))
    alone = e.op("GreaterOrEqual", e.reduce("Min", d), 1e299)
    return e.op("Where", e.op("IsNaN", x), e.op("Where", alone, mean, value), x)
