"""A signature in parallel vectors of texts and numbers: base R has no reader of JSON, and needs none for this."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from ...signature import Column, Signature, TensorSpec

__all__ = ["layout"]


def layout(signature: Signature) -> dict[str, np.ndarray]:
    """Return the tensors that tell an R worker how to rebuild a data frame and what to answer.

    Parameters
    ----------
    signature : Signature
        The model's.

    Returns
    -------
    dict of str to ndarray
        `in.name` the blocks (`in.gaps` whether values may be missing); `col.*` one entry a column of them (`col.input` counts from 1; `col.kind` is number, text,
        codes, ordered, bools or whole), levels one after the other with a count each; `out.*` the outputs.

    Examples
    --------
    >>> from mlbridge.signature import Column, TensorSpec
    >>> x = TensorSpec("x", "int32", ("rows", 1), (Column("sex", categories=("f", "m")),))
    >>> layout(Signature([x], [TensorSpec("y", "float64", ("rows",))]))["col.kind"].tolist()
    ['codes']
    """
    columns = [(i, c, spec) for i, spec in enumerate(signature.inputs, 1) for c in spec.columns]
    out_levels = [_levels(spec.columns[0]) if _is_label(spec) else [] for spec in signature.outputs]
    out_columns = [[] if _is_label(spec) else [c.name for c in spec.columns] for spec in signature.outputs]
    levels = [_levels(c) for _, c, _ in columns]
    return {
        "in.name": _texts(s.name for s in signature.inputs),
        "in.gaps": np.array([s.missing == "allow" for s in signature.inputs], bool),
        "col.input": _numbers(i for i, _, _ in columns),
        "col.name": _texts(c.name for _, c, _ in columns),
        "col.kind": _texts(_kind(c, spec) for _, c, spec in columns),
        "col.unit": _texts(c.unit or "" for _, c, _ in columns),
        "col.nlevels": _numbers(map(len, levels)),
        "col.levels": _texts(v for some in levels for v in some),
        "out.name": _texts(s.name for s in signature.outputs),
        "out.dtype": _texts(s.dtype for s in signature.outputs),
        "out.rank": _numbers(len(s.shape) for s in signature.outputs),
        "out.width": _numbers(s.shape[1] if len(s.shape) > 1 and isinstance(s.shape[1], int) else 0 for s in signature.outputs),
        "out.nlevels": _numbers(map(len, out_levels)),
        "out.levels": _texts(v for some in out_levels for v in some),
        "out.ncolumns": _numbers(map(len, out_columns)),
        "out.columns": _texts(v for some in out_columns for v in some),
    }


def _is_label(spec: TensorSpec) -> bool:
    return len(spec.shape) == 1 and bool(spec.columns) and spec.columns[0].categories is not None


def _levels(column: Column) -> list[str]:
    return [("TRUE" if v else "FALSE") if isinstance(v, bool) else str(v) for v in column.categories or ()]


def _kind(column: Column, spec: TensorSpec) -> str:
    if column.categories is None:
        return "text" if spec.dtype == "string" else "number"
    if column.level_type == "bool":
        return "bools"
    if column.ordered:
        return "ordered"
    return "whole" if column.level_type == "int64" else "codes"


def _texts(values: Iterable[Any]) -> np.ndarray:
    return np.array(list(values), object)


def _numbers(values: Iterable[int]) -> np.ndarray:
    return np.array(list(values), np.int32)
