"""Path rows for trees behind other steps: from the trees' columns back to the signature's, by trying the steps.

Nothing here knows a step's class. Each input column is moved on its own and the steps are watched: an output column
that follows one number in a straight line, or one category by a table, can be led back; others keep their base value.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from ...signature import Signature
from ..trees import path_rows
from .answers import quiet
from .emitter import class_name
from .native import TableMaker
from .other_steps import OtherStep, other_step
from .tree_models import Ensemble, forest_of

__all__ = ["Behind", "behind_steps", "other_feeds", "paths_behind_steps", "steps_output"]

_MAX_COLUMNS = 2000  # wider tables would need as many trials
_MAX_NODES = 5000
_TRIALS = np.array([0.0, 0.37, 1.0])  # where in a column's range it is tried; three points show a straight line


class _Line(NamedTuple):
    """A tree column that is scale * input + shift."""

    scale: float
    shift: float


class Behind(NamedTuple):
    """Trees behind steps: the steps (None where there are none), the estimator, and who knows its trees."""

    steps: Any
    last: Any
    forest: Ensemble | None = None
    other: OtherStep | None = None

    @property
    def dtype(self) -> str:
        """In which dtype the trees read their input."""
        return self.forest.dtype if self.forest is not None else self.other.signature.inputs[0].dtype  # type: ignore[union-attr]


def behind_steps(model: Any) -> Behind | None:
    """Return the trees a pipeline ends in, scikit-learn's or another library's; for the latter steps are optional."""
    while hasattr(model, "best_estimator_"):
        model = model.best_estimator_
    steps, last = None, model
    if class_name(model) == "Pipeline":
        steps, last = model[:-1] if len(model.steps) > 1 else None, model.steps[-1][1]
    while hasattr(last, "best_estimator_"):
        last = last.best_estimator_
    if getattr(last, "_preprocessor", None) is not None:
        return None
    if (forest := forest_of(last)) is not None:
        return None if steps is None else Behind(steps, last, forest)
    other = other_step(last)
    return None if other is None or any(s.categorical for s in other.signature.inputs) else Behind(steps, last, other=other)


def steps_output(model: Any, steps: Any, signature: Signature, feeds: dict[str, np.ndarray], *, absent: float = 0.0) -> np.ndarray:
    """Return what the trees read, asked of the library; `absent` is what sparse answers do not hold."""
    x = TableMaker(model, signature)(feeds)
    with quiet():
        out = x if steps is None else steps.transform(x)
    if not hasattr(out, "toarray"):
        return np.asarray(out, dtype=np.float64)
    dense = np.asarray(out.toarray(), dtype=np.float64)
    return np.where(dense == 0, absent, dense)


def other_feeds(other: OtherStep, x: np.ndarray) -> dict[str, np.ndarray]:
    """Return what the trees read as the feeds of their own framework."""
    at = {s.name: [other.position(c.name) for c in s.columns] or slice(None) for s in other.signature.inputs}
    return {s.name: np.ascontiguousarray(x[:, at[s.name]], dtype=s.dtype) for s in other.signature.inputs}


def _wanted_rows(found: Behind, start: np.ndarray, can_miss: np.ndarray, seed: int) -> np.ndarray:
    """Return rows of the trees' own columns that take both branches of their nodes."""
    if found.other is None:
        forest = found.forest
        return path_rows(
            forest.trees,  # type: ignore[union-attr]
            columns=len(start), dtype=found.dtype, base_rows=start[None], seed=seed, max_nodes=_MAX_NODES, missing=can_miss,
        )  # fmt: skip
    other = found.other
    feeds = other.framework.probe(other.model, signature=other.signature, seed=seed)
    count = len(next(iter(feeds.values())))
    rows = np.empty((count, len(start)), dtype=found.dtype)
    for s in other.signature.inputs:
        rows[:, [other.position(c.name) for c in s.columns] or slice(None)] = feeds[s.name]
    if count > 2 * _MAX_NODES:
        rows = rows[np.random.default_rng(seed).choice(count, 2 * _MAX_NODES, replace=False)]
    return np.where(np.isnan(rows) & ~can_miss, start.astype(rows.dtype), rows)


def _columns(signature: Signature) -> list[tuple[str, int]]:
    return [(s.name, j) for s in signature.inputs for j in range(int(s.shape[1] or 0))]  # type: ignore[arg-type]


def paths_behind_steps(model: Any, signature: Signature, feeds: dict[str, np.ndarray], seed: int) -> list[dict[str, np.ndarray]]:
    """Return rows that lead to both branches of the trees' nodes, as far as columns can be led back."""
    if (found := behind_steps(model)) is None:
        return []
    columns = _columns(signature)
    if len(columns) > _MAX_COLUMNS or any(len(s.shape) < 2 for s in signature.inputs):
        return []
    origins, start = _watch(model, found.steps, signature, feeds, columns)
    can_miss = np.array([_misses(o, signature, columns) for o in origins])
    rows = _wanted_rows(found, start, can_miss, seed)
    parts = [_back(rows, start, origins, columns, signature, feeds, 0.0)]
    if found.dtype == "float64":  # going back and forth may lose the last bit that a threshold asks for
        parts += [_back(rows, start, origins, columns, signature, feeds, nudge) for nudge in (-1e-12, 1e-12)]
    return parts


def _watch(model: Any, steps: Any, signature: Signature, feeds: dict, columns: list[tuple[str, int]]) -> tuple[list, np.ndarray]:
    """Move each input column on its own; return each tree column's (input, line or table), and the base row's values."""
    trials: list[tuple[int, Any]] = []
    for c, (block, j) in enumerate(columns):
        spec = signature.input(block)
        if spec.dtype == "string":  # what follows a text is no line and no table
            continue
        if spec.categorical:
            count = len(spec.columns[j].categories or ())
            codes = list(range(count)) + ([-1] if spec.missing == "allow" else [])
            trials += [(c, v) for v in codes + ([count] if spec.columns[j].unknown == "keep" else [])]
        else:
            low, high = float(np.nanmin(feeds[block][:, j])), float(np.nanmax(feeds[block][:, j]))
            trials += [(c, v) for v in low + (high - low) * _TRIALS]
    moved = {k: np.repeat(v[:1], len(trials) + 1, axis=0) for k, v in feeds.items()}
    for i, (c, v) in enumerate(trials):
        moved[columns[c][0]][i + 1, columns[c][1]] = v
    out = steps_output(model, steps, signature, moved)
    start, out = out[0], out[1:]
    origins: list[Any] = [None] * len(start)
    blurred = np.zeros(len(start), dtype=bool)
    owner = np.array([c for c, _ in trials])
    for c, (block, _) in enumerate(columns):
        own = out[owner == c]
        values = np.array([v for d, v in trials if d == c], dtype=np.float64)
        for k in np.flatnonzero((own != start).any(axis=0)):
            blurred[k] |= origins[k] is not None
            origin = _table(values, own[:, k]) if signature.input(block).categorical else _line(values, own[:, k])
            origins[k] = None if origin is None else (c, origin)
            blurred[k] |= origin is None
    return [None if b else o for o, b in zip(origins, blurred, strict=True)], start


def _table(values: np.ndarray, seen: np.ndarray) -> dict[int, float]:
    return {int(v): float(s) for v, s in zip(values, seen, strict=True)}


def _line(x: np.ndarray, y: np.ndarray) -> _Line | None:
    if x[-1] == x[0] or y[-1] == y[0] or not np.isfinite(y).all():
        return None
    scale = (y[-1] - y[0]) / (x[-1] - x[0])
    shift = y[0] - scale * x[0]
    straight = np.allclose(scale * x + shift, y, rtol=1e-9, atol=1e-9 * (np.abs(y).max() + 1e-300))
    return _Line(scale, shift) if straight else None


def _misses(origin: Any, signature: Signature, columns: list[tuple[str, int]]) -> bool:
    """Whether a missing input reaches the trees as one; imputers are not told apart, a filled row is a fair row too."""
    return origin is not None and isinstance(origin[1], _Line) and signature.input(columns[origin[0]][0]).missing == "allow"


def _back(
    rows: np.ndarray,
    start: np.ndarray,
    origins: list,
    columns: list[tuple[str, int]],
    signature: Signature,
    feeds: dict[str, np.ndarray],
    nudge: float,
) -> dict[str, np.ndarray]:
    """Lead rows of the trees' columns back to the signature's blocks."""
    part = {k: np.repeat(v[:1], len(rows), axis=0) for k, v in feeds.items()}
    base = start.astype(rows.dtype)
    changed = ~((rows == base) | (np.isnan(rows) & np.isnan(base)))
    tables: dict[int, list[tuple[int, dict[int, float]]]] = {}
    for k, origin in enumerate(origins):
        if origin is None:
            continue
        c, how = origin
        if isinstance(how, dict):
            tables.setdefault(c, []).append((k, how))
            continue
        block, j = columns[c]
        raw = (rows[:, k].astype(np.float64) - how.shift) / how.scale
        part[block][:, j] = np.where(changed[:, k], raw * (1 + nudge), part[block][:, j])
    for c, group in tables.items():
        block, j = columns[c]
        part[block][:, j] = _choose(rows, base, changed, group, part[block][:, j])
    return part


def _choose(
    rows: np.ndarray, base: np.ndarray, changed: np.ndarray, group: list[tuple[int, dict[int, float]]], now: np.ndarray
) -> np.ndarray:
    """Choose the code whose encoding breaks the fewest demands of a row, and changes least beside them."""
    codes = np.array(list(group[0][1]))
    cost = np.zeros((len(rows), len(codes)))
    for k, table in group:
        encoded = np.array([table[int(c)] for c in codes], dtype=rows.dtype)[None]
        v, b = rows[:, k, None], base[k]
        broken = np.where(v > b, encoded < v, encoded > v)
        cost += np.where(changed[:, k, None], 1000.0 * broken, encoded != b)
    return np.where(changed[:, [k for k, _ in group]].any(axis=1), codes[cost.argmin(axis=1)], now)
