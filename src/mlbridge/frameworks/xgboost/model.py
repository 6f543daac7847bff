"""XgboostModel: what a saved XGBoost model says, read from JSON or UBJSON by our own reader.

The library is not needed and not used here. `conversion.py` writes it as a graph.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ...errors import ArtifactError, ConversionError
from ..trees import IN, LT, Tree
from . import ubj

__all__ = ["MAX_BYTES", "MAX_COLUMNS", "XgboostModel", "parse"]

MAX_BYTES = 1 << 30  # of a file; parsing takes about ten times as much memory
MAX_COLUMNS = 100_000  # of the table it was trained on; larger is an attack or needs another tool
_MAX_GROUPS = 10_000  # classes or targets
_NO_CODE = 1 << 24  # XGBoost's own limit of category codes


@dataclass(frozen=True, eq=False)
class XgboostModel:
    """A model as its file says it.

    Attributes
    ----------
    names : tuple of str or None
        Columns of the training table.
    kinds : tuple of str
        XGBoost's type of each column: `c` is categorical.
    levels : tuple
        For each column its categories in code order, or None.
    columns, groups : int
        Input columns; answers a row before the objective makes something of them.
    objective, booster : str
        XGBoost's names.
    base_score : float32 array, shape (groups,)
        In the answer's space, as stored.
    trees : tuple of Tree
        `<` goes left.
    drop : float32 array, shape (trees,)
        Dart's weight of each tree; ones otherwise.
    rounds : int array
        Index of the first tree of each boosting round, and the end.
    weights : float32 array, shape (columns + 1, groups), or None
        Of a linear booster; the last row is the bias.
    estimator : str or None
        `classifier`, `regressor` or `ranker` if the scikit-learn interface trained it.
    best_iteration : int or None
        Where early stopping stopped.
    missing : float
        The value that stands for a missing one, beside NaN.
    source : bytes
        The file.
    in_place : bool
        Whether `predict` goes through the library's in-place prediction, as live estimators do: it rounds dart's sums otherwise.
    """

    names: tuple[str, ...] | None
    kinds: tuple[str, ...]
    levels: tuple[tuple | None, ...]
    columns: int
    groups: int
    objective: str
    booster: str
    base_score: np.ndarray
    trees: tuple[Tree, ...]
    drop: np.ndarray
    rounds: np.ndarray
    weights: np.ndarray | None
    estimator: str | None
    best_iteration: int | None
    missing: float
    source: bytes
    in_place: bool = False

    def between(self, begin: int, end: int) -> XgboostModel:
        """Return the model of the boosting rounds begin..end-1; an end of 0 is the last."""
        last = len(self.rounds) - 1
        end = last if end == 0 else end
        if not 0 <= begin < end <= last and last:
            raise ConversionError(f"iteration_range {begin, end} lies outside the model's {last} rounds")
        first, stop = int(self.rounds[begin]), int(self.rounds[end])
        return replace(self, trees=self.trees[first:stop], drop=self.drop[first:stop], rounds=self.rounds[begin : end + 1] - first)


def parse(data: bytes, label: str = "<bytes>") -> XgboostModel:
    """Read a saved model.

    Parameters
    ----------
    data : bytes
        JSON or UBJSON, as `save_model` or `save_raw` write it.
    label : str
        What to call it in messages.

    Raises
    ------
    ArtifactError
        If it is malformed or larger than the stated limits.
    ConversionError
        If it holds something this reader knows no meaning of.
    """
    if len(data) > MAX_BYTES:
        raise ArtifactError(f"{label}: more than the limit of {MAX_BYTES} bytes")
    try:
        if data[:1] == b"{" and data[1:2] in (b"L", b"l", b"i", b"I", b"U", b"#", b"$"):
            tree = ubj.loads(data)
        else:
            tree = json.loads(data)
        return _model(tree, data)
    except ArtifactError as exc:
        raise ArtifactError(f"{label}: {exc.message}") from exc
    except (ValueError, KeyError, TypeError, IndexError, AttributeError, OverflowError, RecursionError) as exc:
        raise ArtifactError(f"{label}: not a well-formed XGBoost model: {type(exc).__name__}: {exc}") from exc


def _model(document: Any, source: bytes) -> XgboostModel:
    learner = document["learner"]
    parameters, booster = learner["learner_model_param"], learner["gradient_booster"]
    kind = str(booster["name"])
    if kind not in ("gbtree", "dart", "gblinear"):
        raise ConversionError(f"booster {kind!r} is none of gbtree, dart, gblinear")
    columns = _count(parameters["num_feature"], MAX_COLUMNS, "columns")
    groups = max(
        1, _count(parameters.get("num_class", 0), _MAX_GROUPS, "classes"), _count(parameters.get("num_target", 1), _MAX_GROUPS, "targets")
    )
    names = tuple(map(str, learner.get("feature_names") or ())) or None
    kinds = tuple(map(str, learner.get("feature_types") or ())) or ("float",) * columns
    if len(kinds) != columns or (names is not None and (len(names) != columns or len(set(names)) != columns)):
        raise ArtifactError(f"feature names or types do not name {columns} columns")
    inner = booster["gbtree"] if kind == "dart" else booster
    linear = kind == "gblinear"
    trees, drop, rounds = (
        ((), np.ones(0, np.float32), np.zeros(1, np.int64)) if linear else _trees(inner["model"], booster, columns, groups)
    )
    weights = _real(booster["model"]["weights"]).reshape(columns + 1, groups) if linear else None
    levels = (None,) * columns if linear else _levels(inner["model"].get("cats") or {}, kinds)
    attributes = learner.get("attributes") or {}
    return XgboostModel(
        names, kinds, levels, columns, groups, str(learner["objective"]["name"]), kind, _base_score(parameters["base_score"], groups),
        trees, drop, rounds, weights, _estimator(attributes), _best(attributes), float("nan"), source,
    )  # fmt: skip


def _count(value: Any, limit: int, what: str) -> int:
    number = int(value)
    if not 0 <= number <= limit:
        raise ArtifactError(f"{number} {what}; the limit is {limit}")
    return number


def _array(value: Any, dtype: Any) -> np.ndarray:
    array = np.asarray(value)
    if array.ndim != 1 or (array.size and array.dtype.kind not in "biuf"):
        raise ArtifactError("an array of numbers is not one")
    if array.dtype.kind == "f" and np.dtype(dtype).kind == "i" and not (np.abs(array) < 1 << 62).all():
        raise ArtifactError("an array of whole numbers is not one")
    return array.astype(dtype)


def _real(value: Any) -> np.ndarray:
    with np.errstate(over="ignore"):
        return _array(value, np.float64).astype(np.float32)


def _base_score(text: Any, groups: int) -> np.ndarray:
    values = json.loads(text) if isinstance(text, str) else text
    array = _real(np.atleast_1d(np.asarray(values, dtype=np.float64)))
    if array.size not in (1, groups):
        raise ArtifactError(f"{array.size} base scores for {groups} answers")
    return np.broadcast_to(array, (groups,)).copy()


def _estimator(attributes: Mapping[str, Any]) -> str | None:
    if "scikit_learn" not in attributes:
        return None
    kind = json.loads(attributes["scikit_learn"]).get("_estimator_type")
    return str(kind) if kind else None


def _best(attributes: Mapping[str, Any]) -> int | None:
    return int(attributes["best_iteration"]) if "best_iteration" in attributes else None


def _levels(cats: Mapping[str, Any], kinds: tuple[str, ...]) -> tuple[tuple | None, ...]:
    """Read the stored categories; None where the file holds none, or none that can be read."""
    stored = list(cats.get("enc") or ())
    out: list[tuple | None] = [None] * len(kinds)
    for i, one in enumerate(stored[: len(kinds)]):
        if kinds[i] != "c":
            continue
        values = _array(one["values"], np.int64)
        if "offsets" not in one:
            out[i] = tuple(values.tolist()) or None
            continue
        offsets = _array(one["offsets"], np.int64)
        raw = values.astype(np.uint8).tobytes()
        try:
            texts = tuple(raw[a:b].decode() for a, b in itertools.pairwise(offsets))
        except UnicodeDecodeError:
            continue  # XGBoost 3.2 cuts non-ASCII categories short when it saves them: ask the sample
        out[i] = texts if texts and len(set(texts)) == len(texts) else None
    return tuple(out)


# ---------------------------------------------------------------- trees


def _trees(
    model: Mapping[str, Any], booster: Mapping[str, Any], columns: int, groups: int
) -> tuple[tuple[Tree, ...], np.ndarray, np.ndarray]:
    group = _array(model["tree_info"], np.int64)
    stored = model["trees"]
    if len(group) != len(stored) or (group.size and not (group.min() >= 0 and group.max() < groups)):
        raise ArtifactError("tree_info does not fit the trees")
    weight = _real(booster["weight_drop"]) if "weight_drop" in booster else np.ones(len(stored), np.float32)
    if len(weight) != len(stored):
        raise ArtifactError("weight_drop does not fit the trees")
    trees = tuple(_tree(t, int(g), columns, groups) for t, g in zip(stored, group))
    if "iteration_indptr" in model:
        rounds = _array(model["iteration_indptr"], np.int64)
    else:
        step = max(1, groups * int(model["gbtree_model_param"].get("num_parallel_tree", 1)))
        rounds = np.arange(0, len(trees) + step, step)
    if not len(rounds) or rounds[0] != 0 or rounds[-1] != len(trees) or (np.diff(rounds) < 0).any():
        raise ArtifactError("iteration_indptr does not fit the trees")
    return trees, weight, rounds


def _tree(stored: Mapping[str, Any], group: int, columns: int, groups: int) -> Tree:
    left, right = _array(stored["left_children"], np.int64), _array(stored["right_children"], np.int64)
    split, condition = _array(stored["split_indices"], np.int64), _real(stored["split_conditions"])
    default, n = _array(stored["default_left"], bool), len(left)
    kind = _array(stored["split_type"], np.int64) if "split_type" in stored else np.zeros(n, np.int64)
    if n < 1 or any(len(a) != n for a in (right, split, condition, default, kind)):
        raise ArtifactError("a tree's arrays differ in length")
    inner = left >= 0
    if ((split[inner] < 0) | (split[inner] >= columns)).any():
        raise ArtifactError("a tree splits on a column there is not")
    if (left >= n).any() or (right[inner] < 0).any() or (right[inner] >= n).any():
        raise ArtifactError("a tree's children do not form a tree")
    value, target = _leaf_values(stored, left, right, condition, groups, group)
    keep = _reachable(left, right, inner)
    at = np.cumsum(keep) - 1
    inner = inner[keep]
    category = kind == 1
    members = _members(stored, category, default) if category.any() else {}
    left, right = np.where(category & (left >= 0), right, left), np.where(category & (left >= 0), left, right)
    mode = np.where(category[keep], IN, LT).astype(np.uint8)
    return Tree(
        np.where(inner, split[keep], -1), condition[keep].astype(np.float64), np.where(inner, at[left[keep]], 0),
        np.where(inner, at[np.where(inner, right[keep], 0)], 0), value[keep], mode, default[keep],
        {int(at[i]): m for i, m in members.items() if keep[i]}, target,
    )  # fmt: skip


def _leaf_values(stored, left, right, condition, groups: int, group: int) -> tuple[np.ndarray, int | None]:
    """Return each leaf's value, ("nodes", 1) for trees of one target, else ("nodes", targets)."""
    size = int(stored["tree_param"].get("size_leaf_vector", 1))
    if size <= 1:
        return condition.astype(np.float64)[:, None], group
    if size != groups:
        raise ArtifactError(f"leaves hold {size} values for {groups} answers")
    if len(stored.get("leaf_weights", ())):
        table, leaf = _real(stored["leaf_weights"]).reshape(-1, size), left < 0
        value = np.zeros((len(left), size))
        if (right[leaf] < 0).any() or (right[leaf] >= len(table)).any():
            raise ArtifactError("a leaf's values are not there")
        value[leaf] = table[right[leaf]]
        return value, None
    return _real(stored["base_weights"]).reshape(len(left), size).astype(np.float64), None


def _reachable(left: np.ndarray, right: np.ndarray, inner: np.ndarray) -> np.ndarray:
    """Mark what a path from the root reaches: pruning leaves dead nodes in the arrays."""
    seen = np.zeros(len(left), dtype=bool)
    front = np.array([0])
    while len(front):
        if seen[front].any():
            raise ArtifactError("a tree's children do not form a tree")
        seen[front] = True
        grown = front[inner[front]]
        front = np.concatenate((left[grown], right[grown]))
        if len(np.unique(front)) != len(front):
            raise ArtifactError("a tree's children do not form a tree")
    return seen


def _members(stored: Mapping[str, Any], category: np.ndarray, default: np.ndarray) -> dict[int, tuple[int, ...]]:
    """Return the stored codes of each category node: they go right, so its branches are swapped; all others go left."""
    codes = _array(stored["categories"], np.int64)
    nodes, begin, size = (_array(stored[k], np.int64) for k in ("categories_nodes", "categories_segments", "categories_sizes"))
    if not len(nodes) == len(begin) == len(size) or (codes.size and not 0 <= codes.min() <= codes.max() < _NO_CODE):
        raise ArtifactError("a tree's categories are malformed")
    if ((begin < 0) | (size < 0) | (begin + size > len(codes))).any() or int(size.sum()) > len(codes):
        raise ArtifactError("a tree's categories are malformed")
    if sorted(nodes.tolist()) != np.flatnonzero(category).tolist():
        raise ArtifactError("categories do not fit the nodes that split on them")
    missing = {int(node): () if default[node] else (-1,) for node in nodes}
    return {int(node): missing[int(node)] + tuple(codes[b : b + s].tolist()) for node, b, s in zip(nodes, begin, size)}
