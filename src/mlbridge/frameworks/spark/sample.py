"""What a sample says about raw columns: number, text or vector, and a vector's width.

A sample is a Spark DataFrame, a table (pandas, polars, Arrow), a dict of arrays, or a list of records.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

__all__ = ["column_kinds"]

Kinds = dict[str, tuple[str, int | None]]


def column_kinds(sample: object) -> Kinds:
    """Return each column's kind and width; empty where the sample says nothing."""
    if sample is None:
        return {}
    if type(sample).__module__.startswith("pyspark."):
        return _spark(sample)
    if isinstance(sample, Mapping):
        return {str(k): _of(np.asarray(v)) for k, v in sample.items()}
    if isinstance(sample, list) and sample and isinstance(sample[0], Mapping):
        return {str(k): _of(np.asarray([row.get(k) for row in sample])) for k in sample[0]}
    if hasattr(sample, "columns") or hasattr(sample, "column_names"):
        return _table(sample)
    return {}


def _of(array: np.ndarray) -> tuple[str, int | None]:
    if array.ndim > 1:
        return "vector", int(array.shape[-1])
    if array.dtype.kind in "OUST" and not all(v is None or isinstance(v, (int, float, np.number)) for v in array.tolist()[:100]):
        first = next((v for v in array.tolist() if v is not None), None)
        if isinstance(first, (list, tuple, np.ndarray)):
            return "vector", len(first)
        return "text", None
    return "number", None


def _table(sample: Any) -> Kinds:
    import narwhals as nw

    frame = nw.from_native(sample, eager_only=True)
    out: Kinds = {}
    for name in frame.columns:
        dtype = frame[name].dtype
        if dtype.is_numeric() or dtype == nw.Boolean:
            out[name] = ("number", None)
        elif dtype in (nw.String, nw.Categorical) or isinstance(dtype, nw.Enum):
            out[name] = ("text", None)
        else:
            out[name] = _of(np.asarray(frame[name].to_list(), dtype=object))
    return out


def _spark(sample: Any) -> Kinds:
    out: Kinds = {}
    vectors = []
    for name, kind in sample.dtypes:
        if kind == "vector":
            vectors.append(name)
        elif kind in ("string", "char", "varchar"):
            out[name] = ("text", None)
        elif kind.split("(")[0] in ("tinyint", "smallint", "int", "bigint", "float", "double", "decimal", "boolean"):
            out[name] = ("number", None)
    row = sample.select(*vectors).first() if vectors else None
    for name in vectors:
        out[name] = ("vector", None if row is None or row[name] is None else len(row[name]))
    return out
