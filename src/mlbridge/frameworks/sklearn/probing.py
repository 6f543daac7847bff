"""Rows that would show a wrong conversion: every category, missing and unknown values, extremes, paths of trees."""

from __future__ import annotations

from typing import Any

import numpy as np

from ...signature import Signature, TensorSpec

__all__ = ["probe"]

_RANDOM = 64


def probe(model: Any, signature: Signature, seed: int) -> dict[str, np.ndarray]:
    """Return probe rows as feeds; seeded."""
    rng = np.random.default_rng(seed)
    if any(s.dtype == "string" for s in signature.inputs):
        return {}
    low, high = ranges(model, signature)
    base = _RANDOM
    feeds = {s.name: _random(s, base, rng, low, high) for s in signature.inputs}
    rows: list[dict[str, np.ndarray]] = [feeds]
    for spec in signature.inputs:
        rows += list(_special(spec, signature, feeds, rng, low, high))
    return {s.name: np.ascontiguousarray(np.concatenate([r[s.name] for r in rows])) for s in signature.inputs}


def ranges(model: Any, signature: Signature) -> tuple[dict, dict]:
    """Return the least and greatest value of each numeric input column, as far as the model remembers."""
    low: dict = {}
    high: dict = {}
    return low, high


def _random(spec: TensorSpec, rows: int, rng: np.random.Generator, low: dict, high: dict) -> np.ndarray:
    shape = (rows, *spec.shape[1:])
    if spec.categorical:
        return np.stack([rng.integers(0, len(c.categories or ()), rows) for c in spec.columns], axis=1).astype(np.int32)
    return (rng.normal(size=shape) * rng.choice([0.5, 1.0, 3.0], size=(rows, *[1] * (len(shape) - 1)))).astype(spec.dtype)


def _special(spec: TensorSpec, signature: Signature, feeds: dict, rng: np.random.Generator, low: dict, high: dict) -> Any:
    """Yield rows that change one column of one block."""
    width = spec.shape[1] if len(spec.shape) > 1 else 1
    for j in range(int(width or 0)):
        values = _column_values(spec, j)
        if not values:
            continue
        at = rng.integers(0, _RANDOM, len(values))
        part = {k: v[at].copy() for k, v in feeds.items()}
        block = part[spec.name] if part[spec.name].ndim == 2 else part[spec.name][:, None]
        block[:, j] = values
        yield part


def _column_values(spec: TensorSpec, j: int) -> list:
    if spec.categorical:
        column = spec.columns[j]
        values: list = list(range(len(column.categories or ())))
        return values + ([-1] if spec.missing == "allow" else []) + ([len(values)] if column.unknown == "keep" else [])
    values = [-30.0, -10.0, -1.0, 0.0, 1.0, 10.0, 30.0]
    return values + ([np.nan] if spec.missing == "allow" else [])
