"""ranger: averaged regression and probability trees, voting classification trees, factors by order or by sets.

A factor's levels are in the file only under respect.unordered.factors = "order"; otherwise they come from the sample or the
signature, and a column without them is read as the number ranger itself saw.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ...signature import Field, TensorSpec, prediction_spec
from ..trees import IN, LE, Tree, add_trees
from .arithmetic import Arithmetic
from .family import Family, class_outputs, label_output, level_values
from .robject import RObject
from .treeframe import TreeFrame
from .values import refuse, stored_levels

__all__ = ["Ranger"]


class Ranger(Family):
    """A forest of ranger."""

    def prepare(self) -> None:
        model = self.model
        forest = model.get("forest")
        if not isinstance(forest, RObject):
            raise refuse("a ranger without its forest (write.forest = FALSE)")
        self.forest = forest
        self.kind = model["treetype"].text()
        if self.kind not in ("Regression", "Classification", "Probability estimation"):
            raise refuse(f"a ranger of type {self.kind!r}")
        self.names = tuple(forest["independent.variable.names"].strings())
        covariates = forest.get("covariate.levels")
        found = {}
        if isinstance(covariates, RObject):
            pairs = zip(covariates.names, covariates.value)
            found = {n: stored_levels(v) for n, v in pairs if isinstance(v, RObject) and v.kind == "character"}
        for name in self.names:  # the file has no levels here: those of the sample or the signature, coded as ranger coded them
            if name not in found and name in self.known:
                found[name] = self.known[name]
        self.by_set = ~forest["is.ordered"].numbers().astype(bool)
        sets = {n for n, apart in zip(self.names, self.by_set) if apart}
        if not sets <= found.keys():
            raise refuse("the file does not hold the levels of ranger's unordered factors (partition); order keeps them")
        # ranger stops at a missing value
        self.table = TreeFrame(self.names, found, ordered=[n for n in found if n not in sets], missing="refuse")
        levels = forest.get("levels")
        self.values = forest["class.values"].numbers() if forest.has("class.values") else np.zeros(0)
        present = np.sort(self.values)
        if isinstance(levels, RObject):
            every = level_values(levels.strings())
            # a level no row had: the label may not be it, and the probabilities have no column of it
            self.classes = every if self.kind == "Classification" else [every[int(v) - 1] for v in present]
        elif self.kind == "Probability estimation":
            raise refuse("ranger's probabilities of classes that are numbers")
        else:
            self.classes = present.tolist()
        # columns of the counts stand in the order classes were met; the answer's in the order of levels
        whole = isinstance(levels, RObject) and self.kind == "Classification"
        self.order = self.values.astype(int) - 1 if whole else np.searchsorted(present, self.values)

    def fields(self) -> Sequence[Field]:
        return self.table.fields()

    def outputs(self) -> tuple[TensorSpec, ...]:
        if self.kind == "Regression":
            return (prediction_spec(),)
        if self.kind == "Classification":
            return label_output(self.classes, missing="refuse")
        return class_outputs(self.classes, missing="refuse")[1:]

    def emit(self, ar: Arithmetic, scope: Mapping[str, Any]) -> dict[str, str]:
        x, trees = self.table.inputs(ar, scope, self._trees())
        out = add_trees(ar.graph, x, trees, targets=self._width(), aggregate="average", levels=self.table.sets())
        if self.kind == "Regression":
            return {"prediction": ar.flat(out)}
        if self.kind == "Classification":
            return {"label": ar.graph.cast(ar.graph.add("ArgMax", out, axis=1, keepdims=0), "int32")}
        return {"probabilities": out}

    def trees(self) -> tuple[list, list[str], dict[int, int]]:
        return ([], [], {}) if self.table.ordered else (self._trees(), list(self.names), self.table.sets())

    def _width(self) -> int:
        return 1 if self.kind == "Regression" else len(self.classes)

    def _trees(self) -> list[Tree]:
        forest = self.forest
        children, variables, values = (forest[k].value for k in ("child.nodeIDs", "split.varIDs", "split.values"))
        counts = forest["terminal.class.counts"].value if self.kind.startswith("Prob") else [None] * len(children)
        return [self._tree(c, v.integers(), s.numbers(), n) for c, v, s, n in zip(children, variables, values, counts)]

    def _tree(self, children: RObject, variables: np.ndarray, splits: np.ndarray, counts: RObject | None) -> Tree:
        left, right = (c.integers() for c in children.value)
        leaf = (left == 0) & (right == 0)
        value = np.zeros((len(leaf), self._width()))
        if counts is not None:
            for i in np.flatnonzero(leaf):
                value[i, self.order] = counts.value[i].numbers()
        elif self.kind == "Classification":
            where = {v: c for v, c in zip(self.values, self.order)}
            value[np.flatnonzero(leaf), [where[s] for s in splits[leaf]]] = 1.0
        else:
            value[leaf, 0] = splits[leaf]
        keep = _reachable(left, right, leaf)
        renumber = np.cumsum(keep) - 1
        feature = np.where(leaf, -1, variables)
        down = [np.where(leaf, 0, renumber[side]) for side in (left, right)]
        mode = np.where(~leaf & self.by_set[np.where(leaf, 0, variables)], IN, LE).astype(np.uint8)[keep]
        feature, splits = feature[keep], splits[keep]
        members = {int(i): self._left_set(splits[i], self.names[feature[i]]) for i in np.flatnonzero(mode == IN)}
        return Tree(feature, splits, down[0][keep], down[1][keep], value[keep], mode, members=members)

    def _left_set(self, mask: float, name: str) -> tuple[int, ...]:
        """Return the codes whose bit is not set: ranger sends those left."""
        return tuple(i for i in range(len(self.table.levels[name])) if not int(mask) >> i & 1)


def _reachable(left: np.ndarray, right: np.ndarray, leaf: np.ndarray) -> np.ndarray:
    keep, pending = np.zeros(len(leaf), bool), [0]
    while pending:
        node = pending.pop()
        if keep[node]:
            raise refuse("a tree that is not one")
        keep[node] = True
        if not leaf[node]:
            pending += [int(left[node]), int(right[node])]
    return keep
