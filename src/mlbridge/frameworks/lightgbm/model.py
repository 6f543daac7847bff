"""LightgbmModel: what a LightGBM text model says, read by our own reader.

The library is not needed and not used here. `conversion.py` writes it as a graph.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from ...errors import ArtifactError
from ..trees import IN, LE, Tree

__all__ = ["MAX_BYTES", "ZERO", "LightgbmModel", "parse"]

MAX_BYTES = 1 << 30  # of a file; parsing takes about ten times as much memory
_MAX_COLUMNS = 100_000  # of the table it was trained on; larger is an attack or needs another tool
_MAX_GROUPS = 10_000  # classes
ZERO = float(np.float32(1e-35))  # LightGBM's kZeroThreshold
_NONE, _ZERO, _NAN = 0, 1, 2  # missing types in a node's decision_type


@dataclass(frozen=True, eq=False)
class LightgbmModel:
    """A model as its file says it.

    Attributes
    ----------
    names : tuple of str
        The columns; spaces in them became underscores.
    coded : tuple of bool
        Which columns are split by category sets.
    levels : tuple of tuple
        Categories of the training table's categorical columns, in their order; which columns they are, the file does not say.
    groups : int
        Answers a row before the objective makes something of them.
    objective : str
        Its first word; empty for one of the user's own.
    parameters : dict
        The rest of the objective: `sigmoid`, and `sqrt` as '1'.
    average : bool
        Whether answers are divided by the number of rounds (random forests).
    trees : tuple of Tree
        In order, `groups` a round. Codes of category columns that no node names go right, as missing values do.
    zero : bool array, shape (columns,)
        Where zero counts as missing.
    source : str
        The text.
    refusal : str or None
        Why it has no exact graph; it can run natively all the same.
    """

    names: tuple[str, ...]
    coded: tuple[bool, ...]
    levels: tuple[tuple, ...]
    groups: int
    objective: str
    parameters: Mapping[str, str]
    average: bool
    trees: tuple[Tree, ...]
    zero: np.ndarray
    source: str
    refusal: str | None = None

    def between(self, start: int, count: int | None) -> LightgbmModel:
        """Return the model of `count` rounds from `start` on; all the rest if `count` is None or not positive."""
        first = max(0, start) * self.groups
        stop = len(self.trees) if count is None or count <= 0 else first + count * self.groups
        return self if (first, stop) == (0, len(self.trees)) else replace(self, trees=self.trees[first:stop])


def parse(text: str, label: str = "<text>") -> LightgbmModel:
    """Read a saved model.

    Parameters
    ----------
    text : str
        As `save_model` or `model_to_string` writes it.
    label : str
        What to call it in messages.

    Raises
    ------
    ArtifactError
        If it is malformed or larger than the stated limits.
    """
    try:
        return _model(text)
    except ArtifactError as exc:
        raise ArtifactError(f"{label}: {exc.message}") from exc
    except (ValueError, KeyError, TypeError, IndexError, OverflowError, RecursionError) as exc:
        raise ArtifactError(f"{label}: not a well-formed LightGBM model: {type(exc).__name__}: {exc}") from exc


def _model(text: str) -> LightgbmModel:
    text = text.replace("\r\n", "\n")
    body, end, tail = text.partition("\nend of trees")
    if not end:
        raise ArtifactError("it has no 'end of trees'")
    head, *stored = ("\n" + body).split("\nTree=")
    said = _fields(head)
    columns = int(said["max_feature_idx"]) + 1
    if not 1 <= columns <= _MAX_COLUMNS:
        raise ArtifactError(f"{columns} columns; the limit is {_MAX_COLUMNS}")
    names = tuple(said["feature_names"].split())
    infos = said.get("feature_infos", "").split()
    if len(names) != columns or len(set(names)) != columns or len(infos) not in (0, columns):
        raise ArtifactError(f"feature_names does not name {columns} columns")
    groups = int(said.get("num_tree_per_iteration", said.get("num_class", "1")))
    if not 1 <= groups <= _MAX_GROUPS or len(stored) % groups:
        raise ArtifactError(f"{len(stored)} trees for {groups} answers")
    words = said.get("objective", "").split()
    parameters = dict(w.partition(":")[::2] if ":" in w else (w, "1") for w in words[1:])
    kinds = np.zeros((columns, 3), dtype=bool)
    trees = tuple(_tree(_fields(t), i % groups, columns, kinds) for i, t in enumerate(stored))
    refusal = None
    if any("\nis_linear=1" in t for t in stored):
        refusal = "trees with linear models in their leaves (linear_tree) are not converted"
    elif (kinds[:, _ZERO] & (kinds[:, _NONE] | kinds[:, _NAN])).any():
        refusal = "zero counts as missing in some nodes of a column and not in others"
    coded = np.array([bool(i) and i != "none" and i[0] != "[" for i in infos] or [False] * columns)
    for tree in trees:
        coded[tree.feature[list(tree.members)]] = True
    objective = words[0] if words and words[0] not in ("none", "null", "custom", "na") else ""
    return LightgbmModel(
        names, tuple(coded.tolist()), _levels(tail), groups, objective, parameters, "\naverage_output" in head, trees, kinds[:, _ZERO], text, refusal
    )  # fmt: skip


def _fields(block: str) -> dict[str, str]:
    return dict(line.partition("=")[::2] for line in block.split("\n") if "=" in line)


def _levels(tail: str) -> tuple[tuple, ...]:
    _, found, rest = tail.rpartition("pandas_categorical:")
    lists = json.loads(rest.strip().split("\n")[0]) if found and rest.strip() else None
    if lists is None:
        return ()
    if not isinstance(lists, list) or not all(isinstance(one, list) for one in lists):
        raise ArtifactError("pandas_categorical is not a list of lists")
    return tuple(tuple(one) for one in lists)


def _numbers(said: Mapping[str, str], key: str, dtype: type, count: int) -> np.ndarray:
    values = said.get(key, "").split()
    if len(values) != count:
        raise ArtifactError(f"a tree's {key} has {len(values)} values, expected {count}")
    return np.array(values, dtype=np.float64).astype(dtype) if dtype is float else np.array([int(v) for v in values], dtype=np.int64)


def _tree(said: Mapping[str, str], group: int, columns: int, kinds: np.ndarray) -> Tree:
    """Turn one block of text into a tree: nodes first, then leaves."""
    leaves = int(said["num_leaves"])
    if not 1 <= leaves <= len(said.get("leaf_value", "")):  # a value takes a character at least
        raise ArtifactError(f"{leaves} leaves, and not as many values")
    value, inner = _numbers(said, "leaf_value", float, leaves), leaves - 1
    if inner == 0:
        return Tree(np.array([-1]), np.zeros(1), np.zeros(1, int), np.zeros(1, int), value[:, None], target=group)
    feature, decision = _numbers(said, "split_feature", int, inner), _numbers(said, "decision_type", int, inner)
    left, right = _numbers(said, "left_child", int, inner), _numbers(said, "right_child", int, inner)
    threshold = _numbers(said, "threshold", float, inner)
    if feature.min() < 0 or feature.max() >= columns:
        raise ArtifactError("a tree splits on a column there is not")
    if min(left.min(), right.min()) < -leaves or max(left.max(), right.max()) >= inner or np.isnan(threshold).any():
        raise ArtifactError("a tree's children do not form a tree")
    left, right = (np.where(c < 0, inner + ~c, c) for c in (left, right))
    _one_root(left, right)
    # the library reads anything within ZERO as 0: thresholds inside move to the edge that says the same of all other numbers
    edge = np.where(threshold >= 0, ZERO, np.nextafter(-ZERO, -np.inf))
    category, missing = (decision & 1) > 0, (decision >> 2) & 3
    if missing.max() > _NAN:
        raise ArtifactError("a node has an unknown missing type")
    members = _members(said, np.flatnonzero(category), threshold) if category.any() else {}
    kinds[feature[~category], missing[~category]] = True
    # NaN counts as zero where the column had no missing values, else it takes the default branch
    goes_left = np.where(missing == _NONE, threshold >= 0, (decision & 2) > 0)
    empty = np.zeros(leaves, dtype=np.int64)
    return Tree(
        np.concatenate((feature, empty - 1)), np.concatenate((np.where(category, 0, np.where(np.abs(threshold) <= ZERO, edge, threshold)), empty)),
        np.concatenate((left, empty)), np.concatenate((right, empty)), np.concatenate((np.zeros(inner), value))[:, None],
        np.concatenate((np.where(category, IN, LE), empty)).astype(np.uint8), np.concatenate((goes_left, empty > 0)), members, group,
    )  # fmt: skip


def _one_root(left: np.ndarray, right: np.ndarray) -> None:
    """Refuse what is no tree: children are as many as nodes but the root, each once, and later nodes have larger numbers."""
    children = np.concatenate((left, right))
    here = np.tile(np.arange(len(left)), 2)
    if len(np.unique(children)) != len(children) or (children <= here).any():
        raise ArtifactError("a tree's children do not form a tree")


def _members(said: Mapping[str, str], nodes: np.ndarray, threshold: np.ndarray) -> dict[int, tuple[int, ...]]:
    """Read the bit sets of category nodes: bit c of 32-bit words says that code c goes left."""
    count = int(said["num_cat"])
    if not 1 <= count <= len(said["cat_boundaries"]):
        raise ArtifactError("a tree's categories are malformed")
    bounds = _numbers(said, "cat_boundaries", int, count + 1)
    words = np.array([int(w) for w in said["cat_threshold"].split()], dtype=np.uint32)
    if bounds[0] != 0 or (np.diff(bounds) < 0).any() or bounds[-1] > len(words):
        raise ArtifactError("a tree's categories are malformed")
    out = {}
    for node in nodes.tolist():
        at = threshold[node]
        if not (0 <= at < count and at == int(at)):
            raise ArtifactError("a tree's categories are malformed")
        bits = np.unpackbits(words[bounds[int(at)] : bounds[int(at) + 1]].astype("<u4").view(np.uint8), bitorder="little")
        out[node] = tuple(np.flatnonzero(bits).tolist())
    return out
