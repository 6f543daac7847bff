"""Rows that would show a wrong conversion: path rows of trees, every category, unknown and missing values.

Rows are made in raw columns; what a tree tests is carried back to them through the stages in between, where it can be.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ...interfaces import Array
from ...signature import Signature, TensorSpec
from ..trees import path_rows
from .flow import Attr, Flow

__all__ = ["probe_rows"]

_BASE_ROWS = 32
_MAX_NODES = 20_000


def probe_rows(flow: Flow, signature: Signature, seed: int) -> dict[str, Array]:
    """Make probe rows; none where rows could make Spark raise for reasons that do not lead back to raw columns."""
    if flow.unsafe or any(s.dtype == "string" or not isinstance(s.shape[-1], int) for s in signature.inputs):
        return {}
    rng = np.random.default_rng(seed)
    centres = _centres(flow)
    tables = {s.name: _base(flow, s, centres, rng) for s in signature.inputs}
    base = {name: table.copy() for name, table in tables.items()}
    for trees, attrs, levels in flow.forests:
        rows = _path_rows(flow, signature, base, trees, attrs, levels, seed)
        if rows is not None:
            tables = {name: np.concatenate([tables[name], rows[name]]) for name in tables}
    return {name: np.ascontiguousarray(table) for name, table in tables.items()}


def _centres(flow: Flow) -> dict[tuple[str, int | None], tuple[float, float]]:
    """Return what scalers and trees tell about a raw number: a centre and a spread."""
    out: dict[tuple[str, int | None], tuple[float, float]] = {}
    for col in flow.columns.values():
        for attr in col.attrs or ():
            origin = attr.origin
            if origin is not None and origin.how == "value" and (origin.shift or origin.scale != 1.0):
                out[origin.column, origin.within] = (origin.shift, abs(origin.scale) or 1.0)
    for trees, attrs, _ in flow.forests:
        for f, attr in enumerate(attrs):
            origin = attr.origin
            if origin is None or origin.how != "value":
                continue
            cuts = np.concatenate([t.threshold[(t.feature == f)] for t in trees])
            if len(cuts):
                cuts = cuts * origin.scale + origin.shift
                out[origin.column, origin.within] = (float(np.median(cuts)), float(cuts.std()) or 1.0)
    return out


def _base(flow: Flow, spec: TensorSpec, centres: dict, rng: np.random.Generator) -> np.ndarray:
    """Random rows in range; then one row a category, unknown level and missing value."""
    names = [c.name for c in spec.columns]
    width = 1 if len(spec.shape) == 1 else int(spec.shape[1])  # type: ignore[arg-type]
    out = np.zeros((_BASE_ROWS, width), np.int32 if spec.categorical else spec.dtype)
    for i in range(width):
        if spec.categorical:
            column = spec.columns[i]
            k = len(column.categories or ())
            codes = [*range(k), *([k] if column.unknown == "keep" else []), *([-1] if spec.missing == "allow" else [])]
            picks = rng.integers(max(k, 1), size=_BASE_ROWS)
            picks[: min(len(codes), _BASE_ROWS // 2)] = codes[-(_BASE_ROWS // 2) :]
            out[:, i] = rng.permutation(picks)
        else:
            key = (names[i], None) if names else (spec.name, i)
            out[:, i] = _numbers(flow, key, centres, spec, rng)
    return out.reshape(-1) if len(spec.shape) == 1 else out


def _numbers(flow: Flow, key: tuple[str, int | None], centres: dict, spec: TensorSpec, rng: np.random.Generator) -> np.ndarray:
    low, high = flow.limits.get(key, (-np.inf, np.inf))
    if key in flow.only:
        return rng.choice(np.array(flow.only[key]), _BASE_ROWS)
    centre, spread = centres.get(key, (0.0, 1.0))
    values = centre + spread * rng.normal(size=_BASE_ROWS)
    values[0], values[1] = centre + 10 * spread, centre - 10 * spread
    if np.isfinite(low) and np.isfinite(high):
        values = rng.uniform(low, high, _BASE_ROWS)
    values = np.clip(values, low, high)
    if spec.missing == "allow" and key not in flow.whole:
        values[rng.integers(_BASE_ROWS)] = np.nan
    return values


def _places(signature: Signature) -> dict[str, tuple[TensorSpec, int]]:
    where = {c.name: (s, i) for s in signature.inputs for i, c in enumerate(s.columns)}
    where.update({s.name: (s, 0) for s in signature.inputs if not s.columns})
    return where


def _forward(signature: Signature, feeds, attrs: Sequence[Attr]) -> np.ndarray:
    """Carry raw rows to the trees' input, as far as elements lead back to raw columns; 0 elsewhere."""
    where = _places(signature)
    n = len(next(iter(feeds.values())))
    out = np.zeros((n, len(attrs)))
    for f, attr in enumerate(attrs):
        o = attr.origin
        if o is None:
            continue
        spec, i = where[o.column]
        raw = feeds[spec.name].reshape(n, -1)[:, o.within if o.within is not None else i].astype(float)
        if o.how == "value":
            out[:, f] = (raw - o.shift) / o.scale
        elif o.how == "level":
            out[:, f] = raw == o.codes[0]
        else:
            out[:, f] = [o.codes.index(v) if v in o.codes else len(o.codes) for v in raw]
    return out


def _path_rows(flow: Flow, signature: Signature, base, trees, attrs: Sequence[Attr], levels, seed: int) -> dict[str, np.ndarray] | None:
    start = _forward(signature, base, attrs)
    missing = np.zeros(len(attrs), bool)
    where = _places(signature)
    for f, attr in enumerate(attrs):
        o = attr.origin
        if o is not None and o.how == "value":
            missing[f] = where[o.column][0].missing == "allow" and (o.column, o.within) not in flow.whole
    rows = path_rows(trees, columns=len(attrs), base_rows=start, seed=seed, max_nodes=_MAX_NODES, missing=missing, levels=levels)
    if not len(rows):
        return None
    rng = np.random.default_rng(seed)
    pick = rng.integers(_BASE_ROWS, size=len(rows))
    out = {name: table[pick].copy() for name, table in base.items()}
    for f, attr in enumerate(attrs):
        o = attr.origin
        if o is None:
            continue
        spec, i = where[o.column]
        at = o.within if o.within is not None else i
        column = out[spec.name].reshape(len(rows), -1)
        column[:, at] = _back(rows[:, f], column[:, at], o, flow.limits.get((o.column, o.within)))
    return out


def _back(element: np.ndarray, raw: np.ndarray, origin, limits) -> np.ndarray:
    """Carry elements of the trees' input back to a raw column."""
    if origin.how == "value":
        value = element * origin.scale + origin.shift if (origin.scale, origin.shift) != (1.0, 0.0) else element
        return value if limits is None else np.clip(value, *limits)
    if origin.how == "level":
        return np.where(element > 0.5, origin.codes[0], raw)
    codes = np.asarray(origin.codes)
    place = np.floor(np.nan_to_num(element, nan=0.0))
    return np.where((place >= 0) & (place < len(codes)), codes[np.clip(place, 0, len(codes) - 1).astype(int)], raw)
