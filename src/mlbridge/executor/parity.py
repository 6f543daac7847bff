"""Parity of two plans on one sample: a provider that changes numbers must not win a race."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from ..interfaces import Array

__all__ = ["differs"]

_TOLERANCE = {"float64": 1e-9, "float32": 1e-4, "float16": 1e-2}  # summation order alone stays an order below these


def differs(got: Mapping[str, Array], want: Mapping[str, Array]) -> str | None:
    """Return in words where answers differ beyond the tolerance of their dtype, or None.

    The error of a value is |a-b| / max(|b|, 1e-3 max|b| of its column); not-a-number and infinities must coincide.

    Examples
    --------
    >>> differs({"y": np.array([1.0, 2.0])}, {"y": np.array([1.0, 2.0])}) is None
    True
    """
    for name, b in want.items():
        a = got.get(name)
        if a is None or a.shape != b.shape or a.dtype != b.dtype:
            return f"output {name!r} is {None if a is None else (str(a.dtype), a.shape)}, on the processor {(str(b.dtype), b.shape)}"
        if b.dtype.kind != "f":
            changed = int(np.count_nonzero(a != b))
            if changed:
                return f"{changed} values of {name!r} differ from the processor's"
            continue
        error = _error(a.astype("f8"), b.astype("f8"))
        limit = _TOLERANCE[b.dtype.name]
        if not error <= limit:
            return f"output {name!r} differs from the processor's by {error:.1e}, more than {limit:.0e}"
    return None


def _error(a: Array, b: Array) -> float:
    if not b.size:
        return 0.0
    finite = np.isfinite(b)
    if not np.array_equal(a[~finite], b[~finite], equal_nan=True) or not np.isfinite(a[finite]).all():
        return float("inf")
    a, b = np.where(finite, a, 0.0), np.where(finite, b, 0.0)
    columns = np.abs(b).max(axis=0, keepdims=True) if b.ndim else np.abs(b)
    scale = np.maximum(np.abs(b), 1e-3 * columns)
    return float(np.max(np.abs(a - b) / np.where(scale > 0, scale, 1.0)))
