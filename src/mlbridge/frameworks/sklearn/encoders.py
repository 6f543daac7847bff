"""Encoders of categories: one-hot, ordinal, target, and the binarizers of labels.

They treat columns apart, so each column's encoding is a table: the library itself encodes every level, the missing one
and an unknown one, and the graph looks rows up. A value the library refuses becomes NaN, never a plausible row.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ...errors import ConversionError
from .answers import quiet
from .emitter import Col, Emitter, Frame, emits
from .tracing import level_values


@emits("transform", "OneHotEncoder", "OrdinalEncoder", "TargetEncoder")
def encode(e: Emitter, est: Any, frame: Frame) -> tuple[str, int]:
    """Emit one table lookup per column, put together in the encoder's order."""
    spans = _spans(est)
    parts: list[tuple[list[int], str]] = []
    for i, col in enumerate(frame.cols):
        values, null = _values(est, i, col)
        table = _table(est, i, values)[:, spans[i]]
        if table.shape[1] == 0:
            continue
        if col.kind == "category":
            parts.append((spans[i], e.lookup(col, table)))
        else:
            parts.append((spans[i], _lookup_number(e, e.column(frame, i), values, null, table)))
    if not parts:
        raise ConversionError(f"{type(est).__name__} encodes to no columns")
    out = e.graph.concat([p for _, p in parts])
    order = [j for span, _ in parts for j in span]
    if order != sorted(order):
        out = e.op("Gather", out, np.argsort(order), axis=1)
    return out, len(order)


def _spans(est: Any) -> list[list[int]]:
    """Return which output columns each input column makes."""
    n = len(est.categories_)
    if type(est).__name__ == "OneHotEncoder":
        ends = np.cumsum([0, *est._n_features_outs])
        return [list(range(ends[i], ends[i + 1])) for i in range(n)]
    if type(est).__name__ == "TargetEncoder" and est.target_type_ == "multiclass":
        k = len(est.classes_)
        return [list(range(i * k, (i + 1) * k)) for i in range(n)]
    return [[i] for i in range(n)]


def _values(est: Any, i: int, col: Col) -> tuple[list, Any]:
    """Return the values of the table's rows: missing, levels, unknown; and what marks a missing one."""
    categories = est.categories_[i]
    null: Any = None if any(v is None for v in categories.tolist()) else np.nan
    if col.kind == "category":
        spelt = level_values(col.levels or (), np.arange(-1, len(col.levels or ()) + 1), null)
        return spelt.tolist(), null
    if col.kind == "text" or categories.dtype.kind not in "iufb":
        raise ConversionError(
            f"column {col.name!r} is not categories of the signature", hint="train on a table, and wrap with a sample that has its dtypes"
        )
    numbers = [float(v) for v in categories.tolist() if v == v]
    return [np.nan, *numbers, (max(numbers) if numbers else 0.0) + 1.0], np.nan


def _table(est: Any, i: int, values: list) -> np.ndarray:
    """Encode each value of column `i` with the library; NaN rows where it refuses."""
    known = {repr(v) for v in est.categories_[i].tolist()}
    try:
        return _encode_all(est, i, values)
    except (ValueError, TypeError):
        rows: list[np.ndarray | None] = []
        for v in values:
            try:
                rows.append(_encode_all(est, i, [v])[0])
            except (ValueError, TypeError):
                rows.append(None)
        width = next((len(r) for r in rows if r is not None), None)
        if width is None:
            raise ConversionError(f"{type(est).__name__} refuses every level of its column {i}: it knows {sorted(known)[:5]}") from None
        return np.array([np.full(width, np.nan) if r is None else r for r in rows])


def _encode_all(est: Any, i: int, values: list) -> np.ndarray:
    columns = []
    for j, categories in enumerate(est.categories_):
        column: Any = values if j == i else [categories[0]] * len(values)
        numeric = categories.dtype.kind in "iuf" and all(isinstance(v, int | float | np.number) for v in column)
        array = np.empty(len(values), dtype=np.float64 if numeric else object)
        array[:] = column
        columns.append(array)
    if all(c.dtype == np.float64 for c in columns):
        x: Any = np.stack(columns, axis=1)
    elif all(c.dtype == object for c in columns):
        x = np.stack(columns, axis=1)
    else:
        import pandas as pd

        names = getattr(est, "feature_names_in_", range(len(columns)))
        x = pd.DataFrame(dict(zip(names, columns, strict=True)))
    names = est.__dict__.pop("feature_names_in_", None) if isinstance(x, np.ndarray) else None
    try:
        with quiet():
            out = type(est).transform(est, x)
    finally:
        if names is not None:
            est.feature_names_in_ = names
    return np.asarray(out.toarray() if hasattr(out, "toarray") else out, dtype=np.float64)


def _lookup_number(e: Emitter, x: str, values: list, null: Any, table: np.ndarray) -> str:
    """Find a number among the categories by equality; NaN is missing, anything else unknown."""
    known = np.array(values[1:-1], dtype=np.float64)
    hits = [e.op("Equal", x, known[None])] if len(known) else []
    tests = [e.graph.cast(h, "float64") for h in hits] + [
        e.graph.cast(e.op("IsNaN", x), "float64"),
        e.op("Add", e.op("Mul", e.graph.cast(e.op("IsNaN", x), "float64"), 0.0), 0.5),
    ]
    index = e.argmax(e.graph.concat(tests))  # the first that is one; 0.5 stands last for unknown
    rows = np.concatenate([table[1:-1], table[:1], table[-1:]])
    return e.op("Gather", rows, index, axis=0)


@emits("transform", "LabelBinarizer")
def label_binarizer(e: Emitter, est: Any, frame: Frame) -> tuple[str, int]:
    """Emit one column a class, or one column for two classes."""
    hits = e.op("Equal", e.matrix(frame), np.asarray(est.classes_, dtype=np.float64)[None])
    value = e.op("Where", hits, float(est.pos_label), float(est.neg_label))
    if len(est.classes_) == 2:
        return e.column(Frame.of(value, 2), 1), 1
    return value, len(est.classes_)


@emits("transform", "LabelEncoder")
def label_encoder(e: Emitter, est: Any, frame: Frame) -> tuple[str, int]:
    """Emit the class's number; NaN for a value the library refuses."""
    known = [float(c) for c in est.classes_]
    table = np.array([[np.nan], *[[float(i)] for i in range(len(known))], [np.nan]])
    return _lookup_number(e, e.matrix(frame), [np.nan, *known, max(known) + 1], np.nan, table), 1
