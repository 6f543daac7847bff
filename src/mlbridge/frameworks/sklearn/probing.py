"""Rows that would show a wrong conversion: every category, missing and unknown values, extremes, paths of trees."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from ...signature import Signature, TensorSpec
from ..trees import node_coverage, path_rows
from .answers import quiet
from .emitter import class_name
from .native import TableMaker, column_names
from .other_steps import other_steps
from .pipeline_paths import behind_steps, other_feeds, paths_behind_steps, steps_output
from .text_probing import TEXTS, random_texts
from .tracing import trace
from .tree_models import Ensemble, forest_of

__all__ = ["coverage", "own_trees", "probe", "tolerance"]

_RANDOM = 48


def probe(model: Any, signature: Signature, seed: int) -> dict[str, np.ndarray]:
    """Return probe rows as feeds, seeded."""
    rng = np.random.default_rng(seed)
    if not signature.batched:  # images: no row of which stands for another
        return {
            s.name: rng.normal(
                size=[d if isinstance(d, int) else n for d, n in zip(s.shape, (3, 11, 14))] + [d for d in s.shape[3:] if isinstance(d, int)]
            )
            for s in signature.inputs
        }
    bounds = _bounds(model, signature)
    feeds = {s.name: _texts(s, model, rng) if s.dtype == "string" else _random(s, rng, bounds[s.name]) for s in signature.inputs}
    rows = [feeds]
    for spec in signature.inputs:
        rows += list(_one_column_changed(spec, feeds, rng, bounds[spec.name]))
    rows += _paths(model, signature, feeds, seed)
    return {s.name: np.ascontiguousarray(np.concatenate([r[s.name] for r in rows])) for s in signature.inputs}


class Bounds(NamedTuple):
    """What one column held in training: least, greatest, or the few numbers an encoder knows."""

    low: float
    high: float
    known: np.ndarray | None = None
    closed: bool = False  # the source refuses other numbers


# ---------------------------------------------------------------- ranges


def _bounds(model: Any, signature: Signature) -> dict[str, list[Bounds]]:
    """Return the bounds of each column of each block, as far as the model remembers."""
    names = column_names(model)
    width = len(names) if names is not None else _width(signature.inputs[0])
    found: dict[int, tuple[float, float]] = {}
    _remember(model, list(range(width)), found, 0)
    known = _known(model, width)
    out = {}
    for spec in signature.inputs:
        count = _width(spec)
        positions = [names.index(c.name) for c in spec.columns] if names is not None else list(range(count))
        out[spec.name] = [Bounds(*found.get(p, (-3.0, 3.0)), *known.get(p, (None, False))) for p in positions]
    return out


def _width(spec: TensorSpec) -> int:
    """Return how many columns a block has; one where that is open."""
    return int(spec.shape[1]) if len(spec.shape) > 1 and isinstance(spec.shape[1], int) else 1


def _remember(est: Any, columns: list[int], found: dict[int, tuple[float, float]], depth: int) -> None:
    """Walk to the first steps that read input columns and ask them for the values they saw."""
    if depth > 6 or est is None or isinstance(est, str):
        return None
    name = class_name(est)
    if name == "Pipeline":
        return _remember(est.steps[0][1], columns, found, depth + 1) if est.steps else None
    if name == "ColumnTransformer":
        for key, part, _ in est.transformers_:
            at = est._transformer_to_input_indices.get(key, [])
            _remember(part, [columns[int(i)] for i in at if int(i) < len(columns)], found, depth + 1)
        return None
    if name == "FeatureUnion":
        for _, part in est.transformer_list:
            _remember(part, columns, found, depth + 1)
        return None
    bounds = _own_range(est, len(columns))
    if bounds is not None:
        for c, lo, hi in zip(columns, *bounds, strict=True):
            if np.isfinite(lo) and np.isfinite(hi):
                found[c] = (float(min(lo, hi)), float(max(lo, hi)))
        return None
    for attribute in ("best_estimator_", "estimator_", "regressor_"):
        if hasattr(est, attribute):
            return _remember(getattr(est, attribute), columns, found, depth + 1)
    return None


def _known(model: Any, width: int) -> dict[int, tuple[np.ndarray, bool]]:
    """Return the numbers encoders know for each input column, and whether they refuse others."""
    if class_name(model) in ("LabelEncoder", "LabelBinarizer"):
        return {0: (np.asarray(model.classes_, dtype=np.float64), True)}
    out = {}
    for i, use in enumerate(trace(model, width)):
        for encoder, at in use.encoders:
            values = encoder.categories_[at]
            if values.dtype.kind in "iuf":
                closed = getattr(encoder, "handle_unknown", "ignore") == "error"
                out[i] = np.array([v for v in values.tolist() if v == v], dtype=np.float64), closed
    return out


def _own_range(est: Any, width: int) -> tuple[np.ndarray, np.ndarray] | None:
    if all(hasattr(est, a) for a in ("data_min_", "data_max_")):
        return est.data_min_, est.data_max_
    if getattr(est, "mean_", None) is not None and getattr(est, "scale_", None) is not None and np.shape(est.mean_) == (width,):
        return est.mean_ - 3 * est.scale_, est.mean_ + 3 * est.scale_
    if getattr(est, "center_", None) is not None and getattr(est, "scale_", None) is not None and np.shape(est.center_) == (width,):
        return est.center_ - 3 * est.scale_, est.center_ + 3 * est.scale_
    for attribute in ("_fit_X", "X_fit_", "X_train_", "support_vectors_", "cluster_centers_", "quantiles_", "theta_", "means_", "X_"):
        points = getattr(est, attribute, None)
        if isinstance(points, np.ndarray) and points.ndim == 2 and points.shape[1] == width and len(points) and points.dtype.kind == "f":
            return np.nanmin(points, axis=0), np.nanmax(points, axis=0)
    mean = getattr(est, "statistics_", getattr(est, "mean_", None))
    if isinstance(mean, np.ndarray) and mean.shape == (width,) and mean.dtype.kind == "f":
        spread = np.maximum(np.abs(mean), 1.0)
        return mean - 3 * spread, mean + 3 * spread
    name = class_name(est)
    if name in ("CategoricalNB",):
        return np.zeros(width), np.asarray(est.n_categories_, dtype=float) - 1
    if name in ("MultinomialNB", "ComplementNB", "NMF", "MiniBatchNMF", "LatentDirichletAllocation", "AdditiveChi2Sampler"):
        return np.zeros(width), np.full(width, 3.0)
    return None


# ---------------------------------------------------------------- random rows and single columns


def _whole(spec: TensorSpec) -> bool:
    return len(spec.shape) > 1


def _random(spec: TensorSpec, rng: np.random.Generator, bounds: list[Bounds]) -> np.ndarray:
    if spec.categorical:
        return np.stack([rng.integers(0, len(c.categories or ()), _RANDOM) for c in spec.columns], axis=1).astype(np.int32)
    columns = [b.low + (b.high - b.low) * rng.random(_RANDOM) if b.known is None else rng.choice(b.known, _RANDOM) for b in bounds]
    values = np.stack(columns, axis=1).astype(spec.dtype)
    return values if _whole(spec) else values[:, 0]


def _texts(spec: TensorSpec, model: Any, rng: np.random.Generator) -> np.ndarray:
    return random_texts(model, rng, _RANDOM * _width(spec)).reshape((_RANDOM, _width(spec))[: len(spec.shape)])


def _one_column_changed(spec: TensorSpec, feeds: dict, rng: np.random.Generator, bounds: list[Bounds]) -> Iterator[dict]:
    """Yield rows that hold a column's special values: all levels, or least, greatest, 10x beyond, zero, missing."""
    for j, b in enumerate(bounds):
        values = _specials(spec, j, b)
        if not values:
            continue
        part = {k: v[rng.integers(0, _RANDOM, len(values))] for k, v in feeds.items()}
        if _whole(spec):
            part[spec.name][:, j] = values
        else:
            part[spec.name][:] = values
        yield part


def _specials(spec: TensorSpec, j: int, b: Bounds) -> list:
    if spec.dtype == "string":
        return list(TEXTS)
    missing = [np.nan] if spec.missing == "allow" else []
    if spec.categorical:
        column = spec.columns[j]
        levels: list = list(range(len(column.categories or ())))
        return levels + ([-1] if missing else []) + ([len(levels)] if column.unknown == "keep" else [])
    if b.known is not None:
        return b.known.tolist() + ([] if b.closed or not len(b.known) else [float(b.known.max()) + 1.5]) + missing
    span = b.high - b.low
    beyond = [0.0, b.high + 9 * span] if b.low >= 0 else [0.0, b.low - 9 * span, b.high + 9 * span]
    return [b.low, b.high, *beyond, *missing]


# ---------------------------------------------------------------- trees


def own_trees(model: Any) -> tuple[Any, Ensemble] | None:
    """Return the trees that read the model's own input, if it is made of them."""
    while hasattr(model, "best_estimator_"):
        model = model.best_estimator_
    forest = forest_of(model)
    return None if forest is None else (model, forest)


def _paths(model: Any, signature: Signature, feeds: dict, seed: int) -> list[dict]:
    """Return rows that take every branch of every node, where trees read the input itself."""
    if (found := own_trees(model)) is None:
        return paths_behind_steps(model, signature, feeds, seed)
    est, forest = found
    if getattr(est, "_preprocessor", None) is not None:
        from .tree_inputs import encoded_paths

        return encoded_paths(model, est, forest, signature, feeds, seed)
    names = column_names(model)
    places = _places(signature, names)
    if places is None:
        return []
    base = np.stack([feeds[block][:, i] for block, i in places], axis=1)
    missing = np.array([signature.input(block).missing == "allow" for block, _ in places])
    dtype = signature.input(places[0][0]).dtype
    rows = path_rows(forest.trees, columns=len(places), dtype=dtype, base_rows=base, seed=seed, missing=missing)
    part = {s.name: np.empty((len(rows), int(s.shape[1] or 0)), dtype=s.dtype) for s in signature.inputs}  # type: ignore[arg-type]
    for j, (block, i) in enumerate(places):
        part[block][:, i] = rows[:, j]
    return [part]


def _places(signature: Signature, names: list[str] | None) -> list[tuple[str, int]] | None:
    """Return the block and position of each tree column; None where a column is no plain number."""
    if names is None:
        spec = signature.inputs[0]
        return [(spec.name, i) for i in range(int(spec.shape[1] or 0))]  # type: ignore[arg-type]
    at = {c.name: (s.name, i) for s in signature.inputs for i, c in enumerate(s.columns) if not s.categorical}
    return [at[n] for n in names] if all(n in at for n in names) else None


def tolerance(model: Any, signature: Signature) -> float:
    """Return the largest relative error of a right conversion.

    1e-12 per hundred trees, else 1e-9; 1e-4 where answers are float32; what another library's steps need, where it is more.
    """
    others = [getattr(s.framework, "tolerance", lambda *_, **__: 1e-9)(s.model, signature=s.signature) for s in other_steps(model)]
    if others:
        return max(1e-9, *others)
    if any(s.dtype == "float32" for s in signature.outputs):
        return 1e-4
    found = own_trees(model)
    if found is None or class_name(found[0]) == "IsolationForest":  # an isolation score is a power of the sum, less an offset
        return 1e-9
    return 1e-12 * max(1.0, len(found[1].trees) / 100)


def coverage(model: Any, rows: dict[str, np.ndarray], signature: Signature) -> float | None:
    """Return the share of reachable tree nodes whose branches the rows take; None without trees of its own."""
    if (found := own_trees(model)) is None:
        return _coverage_behind_steps(model, rows, signature)
    est, forest = found
    names = column_names(model)
    if getattr(est, "_preprocessor", None) is not None:
        with quiet():
            x = np.asarray(est._preprocessor.transform(TableMaker(model, signature)(rows)), dtype=np.float64)
        return node_coverage(forest.trees, x, missing=np.asarray(np.isnan(x).any(axis=0)))
    places = _places(signature, names)
    if places is None:
        return None
    x = np.stack([rows[block][:, i] for block, i in places], axis=1)
    missing = np.array([signature.input(block).missing == "allow" for block, _ in places])
    return node_coverage(forest.trees, x, dtype=signature.input(places[0][0]).dtype, missing=missing)


def _coverage_behind_steps(model: Any, rows: dict[str, np.ndarray], signature: Signature) -> float | None:
    """Return the share for trees behind steps; combinations the steps can never make count as reachable, so it is a lower bound."""
    if (behind := behind_steps(model)) is None:
        return None
    absent = getattr(behind.other.framework, "absent", 0.0) if behind.other is not None else 0.0
    x = steps_output(model, behind.steps, signature, rows, absent=absent)
    if behind.other is not None:
        covered = getattr(behind.other.framework, "coverage", None)
        return None if covered is None else covered(behind.last, other_feeds(behind.other, x), signature=behind.other.signature)
    trees, dtype = behind.forest.trees, behind.dtype  # type: ignore[union-attr]
    return node_coverage(trees, x.astype(dtype), dtype=dtype, missing=np.asarray(np.isnan(x).any(axis=0)))
