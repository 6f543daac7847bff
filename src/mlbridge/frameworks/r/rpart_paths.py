"""rpart's tree with its surrogates written out: wherever a variable is missing, the next split asked has branches of its own.

It grows with every surrogate at every level, so only small trees are written so; `rpart.py` has another form for the rest.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from ..trees import IN, LE, LT, Tree

__all__ = ["Split", "written_out"]

_MAX_NODES = 20_000  # one TreeEnsemble; depth alone costs time, nodes cost memory


@dataclass(frozen=True)
class Split:
    """One primary or surrogate split: numbers below `cut` go left (or right), or the levels of two sets do."""

    feature: int
    cut: float = 0.0
    below_left: bool = True
    left: tuple[int, ...] | None = None  # levels; None for a number
    right: tuple[int, ...] = ()
    levels: int = 0


def written_out(
    root: int, splits: Mapping[int, Sequence[Split]], child: Callable[[int, int], int], majority: Mapping[int, float], value: np.ndarray
) -> Tree | None:
    """Return the whole tree, None if it grows too large.

    Parameters
    ----------
    root : int
        The first node.
    splits : mapping of int to sequence of Split
        What each inner node asks, in turn.
    child : callable
        The node left (0) or right (1) of one.
    majority : mapping of int to float
        Where a row goes that no split can tell: below 0 left, above 0 right, 0 it stays and takes the node's value.
    value : ndarray, (nodes, targets)
        Each node's answer.
    """
    sizes: dict[int, int] = {}
    pending = [root]
    while pending:  # children first
        node = pending[-1]
        below = [child(node, side) for side in (0, 1)] if node in splits else []
        todo = [b for b in below if b not in sizes]
        if todo:
            pending += todo
            continue
        pending.pop()
        sizes[node] = len(splits[node]) * (2 + sum(sizes[b] for b in below)) + 1 if below else 1
        if sizes[node] > _MAX_NODES or len(pending) > _MAX_NODES:
            return None
    return _Writer(splits, child, majority, value).tree(root)


@dataclass
class _Writer:
    splits: Mapping[int, Sequence[Split]]
    child: Callable[[int, int], int]
    majority: Mapping[int, float]
    value: np.ndarray
    rows: list[list] = field(default_factory=list)
    members: dict[int, tuple[int, ...]] = field(default_factory=dict)

    def tree(self, root: int) -> Tree:
        pending: list[tuple[int, int, int, int]] = [(root, 0, -1, 0)]
        while pending:
            node, turn, parent, side = pending.pop()
            here = len(self.rows)
            if parent >= 0:
                self.rows[parent][2 + side] = here
            if node not in self.splits or turn == len(self.splits[node]):
                self._put(-1, 0.0, LE, node)
                continue
            pending += self._ask(node, turn)
        columns = list(zip(*self.rows))
        feature, left, right, mode = (np.array(columns[i]) for i in (0, 2, 3, 4))
        return Tree(
            feature, np.array(columns[1], dtype=np.float64), left, right, self.value[np.array(columns[6])], mode.astype(np.uint8),
            missing_left=np.array(columns[5], dtype=bool), members=self.members,
        )  # fmt: skip

    def _put(self, feature: int, threshold: float, mode: int, node: int, *, missing_left: bool = False, members: tuple = ()) -> int:
        self.rows.append([feature, threshold, 0, 0, mode, missing_left, node])
        if mode == IN:
            self.members[len(self.rows) - 1] = tuple(members)
        return len(self.rows) - 1

    def _ask(self, node: int, turn: int) -> list[tuple[int, int, int, int]]:
        """Write one split, and before it whether it can tell, unless the majority decides where it cannot."""
        split, least = self.splits[node][turn], self.majority[node]
        decided = turn == len(self.splits[node]) - 1 and least != 0
        out = []
        test = None
        if not decided:
            known = (*split.left, *split.right) if split.left is not None else ()
            test = self._put(split.feature, np.inf, LE if split.left is None else IN, node, members=known)
            out.append((node, turn + 1, test, 1))
        if split.left is None:
            to_left = decided and (least < 0) == split.below_left
            here = self._put(split.feature, split.cut, LT, node, missing_left=to_left)
            sides = (0, 1) if split.below_left else (1, 0)
        else:
            lost = [-1, *(v for v in range(split.levels) if v not in split.right)] if decided and least < 0 else split.left
            here = self._put(split.feature, 0.0, IN, node, members=tuple(lost))
            sides = (0, 1)
        if test is not None:
            self.rows[test][2] = here
        return [*out, *((self.child(node, side), 0, here, branch) for branch, side in enumerate(sides))]
