"""Tree: one library's decision tree as arrays; Forest: many of them in one set of arrays.

Frameworks make `Tree`s and know no more of this file; `writer.py` and `rows.py` stand on `stack`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from ...errors import ConversionError

__all__ = ["GE", "GT", "IN", "LE", "LT", "Forest", "Tree", "stack"]

_MAX_TABLE = 1 << 28  # bytes of a column's look-up table of category sets

LE, LT, GE, GT, IN = 0, 1, 2, 3, 6  # the codes of TreeEnsemble's nodes_modes


@dataclass(frozen=True, eq=False)
class Tree:
    """One decision tree as arrays over its nodes; node 0 is the root.

    Parameters
    ----------
    feature : int array, shape (nodes,)
        Index into the columns of the tree's input; -1 at leaves.
    threshold : float64 array, shape (nodes,)
        Compared with the column; unused at leaves and at IN nodes.
    left, right : int array, shape (nodes,)
        The node taken where the condition holds, and where it does not.
    value : float64 array, shape (nodes, targets) or (nodes, 1)
        What a leaf adds; read at leaves only. One column with `target` set adds to that target alone.
    mode : uint8 array, shape (nodes,), optional
        LE (the default), LT, GE, GT or IN.
    missing_left : bool array, shape (nodes,), optional
        Whether NaN goes left; by default it goes right, as the condition does not hold. Not read at IN nodes.
    members : mapping of int to tuple of int
        For each IN node, the codes that go left: 0..k-1 for levels, -1 if a missing value (code -1, NaN) goes left, k if unknown levels do.
    target : int, optional
        Which target a one-column `value` belongs to.
    """

    feature: np.ndarray
    threshold: np.ndarray
    left: np.ndarray
    right: np.ndarray
    value: np.ndarray
    mode: np.ndarray | None = None
    missing_left: np.ndarray | None = None
    members: Mapping[int, tuple[int, ...]] = field(default_factory=dict)
    target: int | None = None


class Forest(NamedTuple):
    """All trees in one set of arrays; children are global indices, leaves point at themselves."""

    feature: np.ndarray  # 0 at leaves
    threshold: np.ndarray
    left: np.ndarray
    right: np.ndarray
    mode: np.ndarray
    missing_left: np.ndarray
    leaf: np.ndarray
    roots: np.ndarray
    sets: np.ndarray  # row of `tables[feature]` at IN nodes, else -1
    tables: Mapping[int, np.ndarray]  # column -> bool (sets, k + 2): does code c - 1 go left


def stack(trees: Sequence[Tree], levels: Mapping[int, int]) -> Forest:
    sizes = np.array([len(t.feature) for t in trees], dtype=np.int64)
    roots = np.concatenate(([0], np.cumsum(sizes)[:-1])).astype(np.int64)
    shift = np.repeat(roots, sizes)
    feature = np.concatenate([t.feature for t in trees]).astype(np.int64)
    leaf = feature < 0
    here = np.arange(len(feature))
    mode = np.concatenate([np.zeros(len(t.feature), np.uint8) if t.mode is None else t.mode for t in trees]).astype(np.uint8)
    missing = np.concatenate([np.zeros(len(t.feature), bool) if t.missing_left is None else t.missing_left for t in trees]).astype(bool)
    left = np.where(leaf, here, np.concatenate([t.left for t in trees]).astype(np.int64) + shift)
    right = np.where(leaf, here, np.concatenate([t.right for t in trees]).astype(np.int64) + shift)
    _check(sizes, leaf, left, right, here, shift)
    threshold = np.concatenate([t.threshold for t in trees]).astype(np.float64)
    sets, tables = _member_tables(trees, roots, feature, mode, levels)
    return Forest(np.where(leaf, 0, feature), threshold, left, right, mode, missing, leaf, roots, sets, tables)


def _check(sizes, leaf, left, right, here, shift) -> None:
    """Refuse what would not be a tree: children outside their tree, or a node with two parents."""
    inner = ~leaf
    children = np.concatenate((left[inner], right[inner]))
    first = np.concatenate((shift[inner], shift[inner]))
    size = np.concatenate((np.repeat(sizes, sizes)[inner],) * 2)
    if (
        (sizes < 1).any()
        or (children <= first).any()
        or (children >= first + size).any()
        or np.bincount(children, minlength=1).max(initial=0) > 1
    ):
        raise ConversionError("a tree's children do not form a tree")
    if len(children) != len(here) - len(sizes):
        raise ConversionError("a tree has nodes that no path reaches", hint="drop unreachable nodes before writing")


def _member_tables(trees, roots, feature, mode, levels) -> tuple[np.ndarray, dict[int, np.ndarray]]:
    sets = np.full(len(feature), -1, dtype=np.int64)
    found: dict[int, dict[tuple[int, ...], int]] = {}
    for root, tree in zip(roots, trees):
        for node, members in tree.members.items():
            if mode[root + node] == IN and feature[root + node] >= 0:
                known = found.setdefault(int(feature[root + node]), {})
                sets[root + node] = known.setdefault(tuple(sorted(set(members))), len(known))
    if ((mode == IN) & (feature >= 0) & (sets < 0)).any():
        raise ConversionError("an IN node has no entry in members")
    tables = {}
    for f, known in found.items():
        k = levels.get(f, 1 + max((c for s in known for c in s), default=-1))
        if len(known) * (k + 2) > _MAX_TABLE:
            raise ConversionError(f"column {f}: {len(known)} category sets over {k} levels; the limit of their product is {_MAX_TABLE}")
        if any(s and (s[0] < -1 or s[-1] > k) for s in known):
            raise ConversionError(f"members of column {f} lie outside -1..{k}")
        table = np.zeros((len(known), k + 2), dtype=bool)
        for s, row in known.items():
            table[row, np.array(s, dtype=np.int64) + 1] = True
        tables[f] = table
    return sets, tables
