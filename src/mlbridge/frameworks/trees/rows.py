"""path_rows: rows that take every branch of every node; node_coverage: which share of the branches some rows take."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from .forest import GE, LE, LT, Forest, Tree, stack

__all__ = ["node_coverage", "path_rows"]

_ROWS_AT_ONCE = 8192  # bounds the memory of a walk
_CELLS = 30_000_000  # of the answer: on wide tables fewer nodes are tried
_DRAWS = 4  # of a row that would not show a wrong turn
_WALKS = 4_000_000  # rows x trees that node_coverage walks
_CELLS_AT_ONCE = 4_000_000  # bounds the memory of path rows: nodes x (columns + category codes)


def path_rows(
    trees: Sequence[Tree],
    *,
    columns: int,
    dtype: str = "float64",
    base_rows: np.ndarray | None = None,
    seed: int = 0,
    max_nodes: int = 20_000,
    missing: np.ndarray | bool = False,
    codes: Mapping[int, Sequence[int]] | None = None,
    levels: Mapping[int, int] | None = None,
) -> np.ndarray:
    """Make rows that take both branches of every node, one row a branch.

    A row satisfies every condition on the path to its node. At the node it holds the largest value that goes one way, or that
    value's successor in `dtype`; where a missing value may reach the node, a further row holds NaN (a code of -1). Where the
    tree would answer the same had the row turned the other way, the row's other columns are drawn again a few times.

    Parameters
    ----------
    trees : sequence of Tree
        As for `add_trees`.
    columns : int
        Width of the trees' input.
    dtype : {'float64', 'float32'}
        In which the input can hold values.
    base_rows : array, shape (n, columns), optional
        Rows to start from, in turn; only what a path demands is changed. Zeros without it.
    seed : int
        Of the choice of nodes, base rows and category codes.
    max_nodes : int
        A seeded sample of this many, if there are more.
    missing : bool or bool array, shape (columns,)
        Where a value may be missing.
    codes : mapping of int to sequence of int, optional
        For columns of IN nodes, the codes an input may hold; by default the levels 0..k-1. Add k to try unknown levels.
    levels : mapping of int to int, optional
        As for `add_trees`.

    Returns
    -------
    array, shape (rows, columns)
        In `dtype`, finite or NaN; without duplicates being removed. Zero rows where no tree has a node.
    """
    real = np.dtype(dtype)
    none = np.zeros((0, columns), dtype=real)
    trees = [t for t in trees if len(t.feature) > 1]
    if not trees:
        return none
    forest = stack(trees, levels or {})
    rng = np.random.default_rng(seed)
    nodes = np.flatnonzero(~forest.leaf)
    max_nodes = min(max_nodes, max(1, _CELLS // (3 * columns)))
    if len(nodes) > max_nodes:
        nodes = np.sort(rng.choice(nodes, max_nodes, replace=False))
    base = np.zeros((1, columns)) if base_rows is None or not len(base_rows) else np.asarray(base_rows)
    can_miss = np.broadcast_to(np.asarray(missing, dtype=bool), (columns,))
    answers, values = _answers(trees), _boundaries(forest, real)
    parts = []
    for domain in _domains(forest, nodes, columns, real, can_miss, codes or {}):
        start = base[rng.integers(len(base), size=len(domain.nodes))].astype(real)
        parts += domain.rows(start, rng, answers, values)
    return np.concatenate(parts) if parts else none


class _Domain:
    """What each column may hold at each of some nodes, so that a row gets there.

    Attributes
    ----------
    low, high : array, shape (nodes, columns)
        The smallest and the largest number.
    nan : bool array, shape (nodes, columns)
        Whether a missing value gets there too.
    open : mapping of int to bool array, shape (nodes, k + 2)
        For columns of category sets, the codes from -1 that get there; -1 is missing.
    bound : bool array, shape (nodes, columns)
        Whether the path says anything about the column.
    """

    def __init__(self, forest: Forest, nodes: np.ndarray, columns: int, real: np.dtype, can_miss, codes) -> None:
        n, limits = len(nodes), np.finfo(real)
        self.forest, self.nodes, self.real = forest, nodes, real
        self.low, self.high = np.full((n, columns), limits.min, real), np.full((n, columns), limits.max, real)
        self.nan = np.tile(can_miss, (n, 1))
        self.bound = np.zeros((n, columns), dtype=bool)
        self.open = {}
        for f, table in forest.tables.items():
            allowed = np.zeros(table.shape[1], dtype=bool)
            allowed[np.asarray(codes.get(f, range(table.shape[1] - 2)), dtype=np.int64) + 1] = True
            allowed[0] |= can_miss[f]
            self.open[f] = np.tile(allowed, (n, 1))

    def narrow(self, at: np.ndarray, node: np.ndarray, left: np.ndarray) -> None:
        """Demand that rows `at` take the given branch of `node`."""
        forest, feature = self.forest, self.forest.feature[node]
        self.bound[at, feature] = True
        member = forest.sets[node] >= 0
        for f, table in forest.tables.items():
            pick = member & (feature == f)
            self.open[f][at[pick]] &= table[forest.sets[node[pick]]] == left[pick, None]
        at, node, left, feature = at[~member], node[~member], left[~member], feature[~member]
        cut = _cut(forest, node, self.real)
        below = left == (forest.mode[node] <= LT)
        self.high[at[below], feature[below]] = np.minimum(self.high[at[below], feature[below]], cut[below])
        above = ~below
        self.low[at[above], feature[above]] = np.maximum(self.low[at[above], feature[above]], _next(cut[above]))
        self.nan[at, feature] &= forest.missing_left[node] == left

    def rows(self, start: np.ndarray, rng: np.random.Generator, answers: np.ndarray, values: dict[int, np.ndarray]) -> list[np.ndarray]:
        """Return rows for both branches of every node, and for a missing value there."""
        out = self._rows(start, rng)
        dull = [~_tells(self.forest, self.nodes[at], rows, answers) for at, rows in out]
        for _ in range(_DRAWS):
            again = np.unique(np.concatenate([at[d] for (at, _), d in zip(out, dull)]))
            if not len(again):
                break
            drawn = start[again]
            for f, some in values.items():
                drawn[:, f] = rng.choice(some, len(again))
            for (at, rows), d, (new_at, new_rows) in zip(out, dull, self._some(again)._rows(drawn, rng)):
                mine = np.flatnonzero(d)
                other = new_rows[np.searchsorted(new_at, np.searchsorted(again, at[mine]))]
                better = _tells(self.forest, self.nodes[at[mine]], other, answers)
                rows[mine[better]] = other[better]
                d[mine[better]] = False
        return [rows for _, rows in out]

    def _rows(self, start: np.ndarray, rng: np.random.Generator) -> list[tuple[np.ndarray, np.ndarray]]:
        """Return, for each kind of pick, at which of the nodes it can be made, and the rows."""
        feature, out = self.forest.feature[self.nodes], []
        for value, where, _ in self._picks(start, rng):
            at, rows = np.flatnonzero(where), start[where].copy()
            rows[np.arange(len(rows)), feature[at]] = value[at]
            out.append((at, rows))
        return out

    def _some(self, at: np.ndarray) -> _Domain:
        """Return the domain of some of the nodes."""
        part = copy.copy(self)
        part.nodes, part.low, part.high, part.nan, part.bound = self.nodes[at], self.low[at], self.high[at], self.nan[at], self.bound[at]
        part.open = {f: allowed[at] for f, allowed in self.open.items()}
        return part

    def reachable(self, start: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """Return which nodes' left and right branches some row takes."""
        sides = np.zeros((2, len(self.nodes)), dtype=bool)
        for _, where, left in self._picks(start, rng):
            sides[0] |= where & left
            sides[1] |= where & ~left
        return sides[0], sides[1]

    def _picks(self, start: np.ndarray, rng: np.random.Generator) -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
        """Move `start` onto the paths; return values of the nodes' own columns, where they get there, and whether they go left."""
        forest, node, every = self.forest, self.nodes, np.arange(len(self.nodes))
        feature, member = forest.feature[node], forest.sets[node] >= 0
        others = self._fill(start, rng)
        others[every, feature] = True
        alive = others.all(axis=1)
        cut = _cut(forest, node, self.real)
        low, high = self.low[every, feature], self.high[every, feature]
        below, above = np.minimum(cut, high), np.maximum(_next(cut), low)
        under = forest.mode[node] <= LT
        picks = [(below, alive & ~member & (below >= low), under), (above, alive & ~member & (above <= high), ~under)]
        nan = alive & ~member & self.nan[every, feature]
        picks.append((np.full(len(node), np.nan, self.real), nan, forest.missing_left[node]))
        for f, table in forest.tables.items():
            mine = alive & member & (feature == f)
            inside = table[np.where(mine, forest.sets[node], 0)]
            for side, left in ((inside, True), (~inside, False)):
                allowed = self.open[f] & side
                picks.append((_some_code(allowed, rng), mine & allowed.any(axis=1), np.full(len(node), left)))
            picks.append((np.full(len(node), -1.0), mine & self.open[f][:, 0], inside[:, 0]))
        return picks

    def _fill(self, start: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Move `start` onto the paths in place; say where that was possible."""
        numeric = self.bound.copy()
        possible = np.ones_like(self.bound)
        for f, allowed in self.open.items():
            code = np.clip(np.nan_to_num(start[:, f], nan=-1), -1, allowed.shape[1] - 2).astype(int)
            keep = allowed[np.arange(len(code)), code + 1]
            start[:, f] = np.where(keep, start[:, f], _some_code(allowed, rng))
            possible[:, f] = allowed.any(axis=1)
            numeric[:, f] = False
        number = self.low <= self.high
        inside = np.where(np.isnan(start), self.nan, (start >= self.low) & (start <= self.high))
        moved = np.where(number, np.clip(np.where(np.isnan(start), 0, start), self.low, self.high), np.nan)
        np.copyto(start, moved.astype(self.real), where=numeric & ~inside)
        possible[numeric] = (number | self.nan)[numeric]
        return possible


def _domains(forest: Forest, nodes: np.ndarray, columns: int, real: np.dtype, can_miss, codes) -> Iterator[_Domain]:
    parent, is_left = np.full(len(forest.left), -1), np.zeros(len(forest.left), dtype=bool)
    inner = np.flatnonzero(~forest.leaf)
    parent[forest.left[inner]] = parent[forest.right[inner]] = inner
    is_left[forest.left[inner]] = True
    chunk = max(1, _CELLS_AT_ONCE // (columns + sum(t.shape[1] for t in forest.tables.values())))
    for begin in range(0, len(nodes), chunk):
        domain = _Domain(forest, nodes[begin : begin + chunk], columns, real, can_miss, codes)
        at, here = np.arange(len(domain.nodes)), domain.nodes
        while True:
            going = parent[here] >= 0
            at, here = at[going], here[going]
            if not len(at):
                break
            domain.narrow(at, parent[here], is_left[here])
            here = parent[here]
        yield domain


def _answers(trees: Sequence[Tree]) -> np.ndarray:
    """Return a number a node: equal where leaves of one tree answer the same."""
    return np.concatenate([np.unique(t.value, axis=0, return_inverse=True)[1].reshape(-1) for t in trees])


def _boundaries(forest: Forest, real: np.dtype) -> dict[int, np.ndarray]:
    """Return, for each column that is compared, values on both sides of its thresholds."""
    inner = np.flatnonzero(~forest.leaf & (forest.sets < 0))
    cut, feature = _cut(forest, inner, real), forest.feature[inner]
    return {int(f): np.concatenate([mine := np.unique(cut[feature == f]), _next(mine)]) for f in np.unique(feature)}


def _tells(forest: Forest, node: np.ndarray, rows: np.ndarray, answers: np.ndarray) -> np.ndarray:
    """Whether each row would be answered otherwise had it turned the other way at its node."""
    return answers[_leaf(forest, forest.left[node], rows)] != answers[_leaf(forest, forest.right[node], rows)]


def _leaf(forest: Forest, node: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Return the leaf each row comes to from a node of its own."""
    node, at = node.copy(), np.flatnonzero(~forest.leaf[node])
    while len(at):
        here = node[at]
        value = rows[at, forest.feature[here]].astype(np.float64)
        node[at] = np.where(_goes_left(forest, here, value), forest.left[here], forest.right[here])
        at = at[~forest.leaf[node[at]]]
    return node


def _cut(forest: Forest, node: np.ndarray, real: np.dtype) -> np.ndarray:
    """Return the largest value of the dtype on the lower side of each node's threshold."""
    threshold = forest.threshold[node]
    with np.errstate(over="ignore"):
        cut = threshold.astype(real)
    strict = (forest.mode[node] == LT) | (forest.mode[node] == GE)
    wide = cut.astype(np.float64)
    down = np.where(strict, wide >= threshold, wide > threshold)
    return np.where(down, np.nextafter(cut, real.type(-np.inf)), cut)


def _next(cut: np.ndarray) -> np.ndarray:
    return np.nextafter(cut, cut.dtype.type(np.inf))


def _some_code(allowed: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Pick one allowed code a row, present levels in a random order and a missing value last."""
    order = np.append(rng.permutation(allowed.shape[1] - 1) + 1, 0)
    return order[np.argmax(allowed[:, order], axis=1)] - 1.0


def node_coverage(
    trees: Sequence[Tree],
    rows: np.ndarray,
    *,
    dtype: str = "float64",
    missing: np.ndarray | bool = False,
    codes: Mapping[int, Sequence[int]] | None = None,
    levels: Mapping[int, int] | None = None,
) -> float:
    """Return the share of reachable nodes whose every reachable branch some row takes.

    Parameters are those of `path_rows`; `rows` are in the trees' input. Where rows times trees exceed four million, a seeded
    sample of the trees is walked. 1.0 where no tree has a node.
    """
    trees = [t for t in trees if len(t.feature) > 1]
    if not trees:
        return 1.0
    if len(rows) * len(trees) > _WALKS:
        some = np.random.default_rng(0).choice(len(trees), max(1, _WALKS // len(rows)), replace=False)
        trees = [trees[i] for i in sorted(some)]
    forest = stack(trees, levels or {})
    taken = np.zeros(len(forest.feature), dtype=bool)
    taken[_visited(forest, np.asarray(rows, dtype=np.float64))] = True
    can_miss = np.broadcast_to(np.asarray(missing, dtype=bool), (rows.shape[1],))
    nodes = np.flatnonzero(~forest.leaf)
    rng, sides = np.random.default_rng(0), []
    for domain in _domains(forest, nodes, rows.shape[1], np.dtype(dtype), can_miss, codes or {}):
        sides.append(domain.reachable(np.zeros((len(domain.nodes), rows.shape[1]), dtype=domain.real), rng))
    left, right = np.concatenate([s[0] for s in sides]), np.concatenate([s[1] for s in sides])
    done = (taken[forest.left[nodes]] | ~left) & (taken[forest.right[nodes]] | ~right)
    open_ = left | right
    return float(done[open_].mean()) if open_.any() else 1.0


def _visited(forest: Forest, rows: np.ndarray) -> np.ndarray:
    seen = np.zeros(len(forest.feature), dtype=bool)
    for begin in range(0, len(rows), _ROWS_AT_ONCE):
        part = rows[begin : begin + _ROWS_AT_ONCE]
        for root in forest.roots:
            at, node = np.arange(len(part)), np.full(len(part), root)
            while len(at):
                node = np.where(_goes_left(forest, node, part[at, forest.feature[node]]), forest.left[node], forest.right[node])
                seen[node] = True
                on = ~forest.leaf[node]
                at, node = at[on], node[on]
    return np.flatnonzero(seen)


def _goes_left(forest: Forest, node: np.ndarray, value: np.ndarray) -> np.ndarray:
    threshold, mode = forest.threshold[node], forest.mode[node]
    left = np.select([mode == LE, mode == LT, mode == GE], [value <= threshold, value < threshold, value >= threshold], value > threshold)
    left |= np.isnan(value) & forest.missing_left[node]
    for f, table in forest.tables.items():
        mine = (forest.sets[node] >= 0) & (forest.feature[node] == f)
        code = np.clip(np.nan_to_num(value[mine], nan=-1.0), -1, table.shape[1] - 2).astype(np.int64)
        left[mine] = table[forest.sets[node[mine]], code + 1]
    return left
