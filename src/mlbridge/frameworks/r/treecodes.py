"""Factors before trees: one look-up turns a row's codes into what splits compare, 0 or 1 a set of levels, a number a code.

Called by `treeframe.py` where every factor is a raw column; what a formula makes of one is asked of the writer of trees.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from ..trees import IN, LE, Tree
from .arithmetic import Arithmetic
from .values import Factor, Numeric

__all__ = ["looked_up"]

_MAX_GATHERED = 4096  # numbers looked up a row; more are looked up column by column


def looked_up(
    ar: Arithmetic, columns: Sequence[Numeric | Factor], numbers: Mapping[int, int], trees: Sequence[Tree], *, missing: float
) -> tuple[str, list[Tree]] | None:
    """Return the matrix trees read, and the trees over it, None where the columns are not the signature's own.

    Parameters
    ----------
    ar : Arithmetic
        Writes the nodes.
    columns : sequence of Numeric or Factor
        The variables, as the trees count them.
    numbers : mapping of int to int
        Factors compared as numbers: the number of their first level.
    trees : sequence of Tree
        IN nodes split other factors by sets of levels.
    missing : float
        What a missing code is where a set is asked: 1 if it is in none, NaN if the caller must see it.
    """
    factors = [i for i, c in enumerate(columns) if isinstance(c, Factor)]
    names = [c.codes if isinstance(c, Factor) else c.name for c in columns]
    places = [ar.origins.get(n) for n in names]
    blocks = {places[i][0] if places[i] else None for i in factors}  # type: ignore[index]
    if None in places or len(blocks) != 1:
        return None
    sets = _sets(trees, [i for i in factors if i not in numbers])
    tables = {i: _table(columns[i], numbers.get(i), sets.get(i, {}), missing) for i in factors}  # type: ignore[arg-type]
    first = dict(zip(factors, np.cumsum([0, *(tables[i].shape[1] for i in factors)])))
    width = sum(t.shape[1] for t in tables.values())
    at = {i: places[i][1] for i in factors}  # type: ignore[index]
    block, size = blocks.pop(), places[factors[0]][2]  # type: ignore[index]
    codes = _gathered(ar, str(block), size, at, tables) if len(factors) * width <= _MAX_GATHERED else _one_by_one(ar, names, tables)
    numeric = sorted((i for i in range(len(columns)) if i not in tables), key=lambda i: places[i] or ())  # whole blocks need no Gather
    position = {i: width + j for j, i in enumerate(numeric)} | {i: first[i] for i in numbers}
    x = ar.graph.concat([codes, *([ar.columns([names[i] for i in numeric])] if numeric else [])])
    ar.widths[x] = width + len(numeric)
    return x, [_moved(t, position, first, sets) for t in trees]


def _sets(trees: Sequence[Tree], factors: Sequence[int]) -> dict[int, dict[tuple[int, ...], int]]:
    """Return the distinct sets each factor is split by, numbered."""
    out: dict[int, dict[tuple[int, ...], int]] = {i: {} for i in factors}
    for tree in trees:
        for node, members in tree.members.items():
            seen = out[int(tree.feature[node])]
            seen.setdefault(tuple(members), len(seen))
    return out


def _table(factor: Factor, number: int | None, sets: Mapping[tuple[int, ...], int], missing: float) -> np.ndarray:
    """Return what each level is compared as, the missing one last: (levels + 1, columns)."""
    count = len(factor.levels)
    if number is not None:
        return np.append(np.arange(number, number + count, dtype=np.float64), np.nan)[:, None]
    out = np.ones((count + 1, max(len(sets), 1)))
    out[count] = missing
    for members, j in sets.items():
        out[[m for m in members if 0 <= m < count], j] = 0.0
        if -1 in members:
            out[count, j] = 0.0
    return out


def _gathered(ar: Arithmetic, block: str, size: int, at: Mapping[int, int], tables: Mapping[int, np.ndarray]) -> str:
    """Look all codes of a block up in one table: each column's levels fill columns of their own, zero in all other rows."""
    graph = ar.graph
    if size == 1:
        (table,) = tables.values()
        return graph.add("Squeeze", graph.add("Gather", graph.const(table), block, axis=0), graph.const([1], "int64"))
    width = sum(t.shape[1] for t in tables.values())
    rows = {at[i]: len(t) for i, t in tables.items()}
    starts = np.cumsum([0, *(rows.get(c, 1) for c in range(size))])
    whole, column = np.zeros((starts[-1], width)), 0
    for i, table in tables.items():
        whole[starts[at[i]] : starts[at[i]] + len(table), column : column + table.shape[1]] = np.roll(table, 1, axis=0)
        column += table.shape[1]
    offsets = np.array([starts[c] + (c in rows) for c in range(size)], dtype=np.int32)
    found = graph.add("Gather", graph.const(whole), graph.add("Add", block, graph.const(offsets)), axis=0)
    return graph.add("ReduceSum", found, graph.const([1], "int64"), keepdims=0)


def _one_by_one(ar: Arithmetic, names: Sequence[str], tables: Mapping[int, np.ndarray]) -> str:
    graph, parts = ar.graph, []
    for i, table in tables.items():
        code = graph.add("Squeeze", names[i], graph.const([1], "int64"))
        parts.append(
            graph.add("Gather", graph.const(table.astype(np.float32)), code, axis=0)
        )  # codes and flags are exact in half the memory
    return graph.cast(graph.concat(parts), "float64")


def _moved(tree: Tree, position: Mapping[int, int], first: Mapping[int, int], sets: Mapping[int, Mapping[tuple[int, ...], int]]) -> Tree:
    """Return a tree over the looked-up matrix."""
    move = np.zeros(max(position.keys() | first.keys(), default=0) + 2, dtype=np.int64)
    for i, p in position.items():
        move[i] = p
    move[-1] = -1
    feature = move[tree.feature]
    threshold, mode = tree.threshold, tree.mode
    if tree.members:
        threshold, mode = threshold.copy(), np.array(mode)
        for node, members in tree.members.items():
            f = int(tree.feature[node])
            feature[node], threshold[node], mode[node] = first[f] + sets[f][tuple(members)], 0.5, LE
    assert mode is None or not (mode == IN).any()
    return replace(tree, feature=feature, threshold=threshold, mode=mode, members={})
