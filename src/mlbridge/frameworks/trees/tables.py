"""Between a signature's blocks and the one matrix trees read: columns side by side, block after block."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from ...errors import ConversionError
from ...signature import Signature, TensorSpec

if TYPE_CHECKING:
    from ...conversion.graph import Graph

__all__ = ["blocks_of", "join", "matrix", "positions", "width"]


def width(signature: Signature) -> int:
    """Return how many columns all inputs have together."""
    return sum(_size(s) for s in signature.inputs)


def _size(spec: TensorSpec) -> int:
    size = spec.shape[1] if len(spec.shape) > 1 else 1
    if not isinstance(size, int):
        raise ConversionError(f"input {spec.name!r} has no fixed number of columns")
    return size


def positions(signature: Signature, names: Sequence[str] | None) -> np.ndarray:
    """Return where each trained column stands in the matrix; as trained, if the inputs name no columns.

    Raises
    ------
    ConversionError
        If the signature lacks a column.
    """
    order = {c.name: i for i, c in enumerate(signature.columns)}
    if names is None or not order:
        return np.arange(width(signature))
    absent = [n for n in names if n not in order]
    if absent:
        raise ConversionError(f"the signature has no column {', '.join(map(repr, absent[:5]))}")
    return np.array([order[n] for n in names], dtype=np.int64)


def join(graph: Graph) -> str:
    """Write all inputs as one float64 matrix, ("rows", columns)."""
    parts = []
    for spec in graph.signature.inputs:
        one = spec.name if len(spec.shape) > 1 else graph.add("Unsqueeze", spec.name, graph.const([1], "int64"))
        parts.append(one if spec.dtype == "float64" else graph.cast(one, "float64"))
    return graph.concat(parts)


def matrix(feeds: Mapping[str, np.ndarray], signature: Signature) -> np.ndarray:
    """Return the feeds as one matrix; codes of categories stay codes."""
    parts = [np.asarray(feeds[s.name]).reshape(len(feeds[s.name]), -1) for s in signature.inputs]
    return parts[0] if len(parts) == 1 else np.concatenate(parts, axis=1)


def blocks_of(rows: np.ndarray, signature: Signature) -> dict[str, np.ndarray]:
    """Cut a matrix into the signature's inputs, each in its dtype."""
    feeds, at = {}, 0
    for spec in signature.inputs:
        size = _size(spec)
        part = rows[:, at : at + size]
        if np.dtype(spec.dtype).kind == "i":
            part = np.nan_to_num(part, nan=-1)
        part = np.ascontiguousarray(part, dtype=spec.dtype)
        feeds[spec.name] = part if len(spec.shape) > 1 else part[:, 0].copy()
        at += size
    return feeds
