"""randomForest: averaged regression trees, voting classification trees, factors as sets of codes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ...signature import Field, TensorSpec, prediction_spec
from ..trees import IN, LE, Tree, add_trees
from .arithmetic import Arithmetic
from .family import Family, class_outputs, level_values
from .robject import RObject
from .terms import ModelFrame
from .treeframe import TreeFrame
from .values import refuse, stored_levels

__all__ = ["RandomForest"]


class RandomForest(Family):
    """A forest of randomForest, fitted by formula or from a table."""

    def prepare(self) -> None:
        model = self.model
        forest = model.get("forest")
        if not isinstance(forest, RObject):
            raise refuse("a randomForest without its forest (keep.forest = FALSE)")
        self.forest = forest
        self.kind = model["type"].text()
        if self.kind not in ("regression", "classification"):
            raise refuse(f"a randomForest of type {self.kind!r}")
        xlevels = forest["xlevels"]
        names = xlevels.names or _importance_names(model)
        self.ncat = forest["ncat"].integers()
        found = {n: stored_levels(v) for n, v in zip(names, xlevels.value) if isinstance(v, RObject) and v.kind == "character"}
        if len(names) != len(self.ncat):
            raise refuse("a randomForest whose columns have no names")
        formula = "randomForest.formula" in model.classes
        # ordered factors have no levels in the file, and are compared as numbers
        missed = {n: v for n, v in self.known.items() if n in names and n not in found and set(v) != {"FALSE", "TRUE"}}
        found.update({n: v for n, v in missed.items() if self.ncat[names.index(n)] == 1})
        frame = ModelFrame(model["terms"], found, call=model.get("call")) if formula else None
        if frame is not None and "character" in frame.classes:
            raise refuse("a character column: randomForest codes it by what occurs in the batch")
        ordered = [n for n, c in zip(names, self.ncat) if n in found and c == 1]
        # predict on a formula's forest answers NA for rows with NA; the table form stops
        self.table = TreeFrame(names, found, ordered=ordered, frame=frame, missing="allow" if formula else "refuse")
        self.rule = "allow" if formula else "refuse"
        self.classes = level_values(model["classes"].strings()) if self.kind == "classification" else []

    def fields(self) -> Sequence[Field]:
        return self.table.fields()

    def outputs(self) -> tuple[TensorSpec, ...]:
        if self.kind == "classification":
            return class_outputs(self.classes, missing=self.rule)
        return (prediction_spec(missing=self.rule),)  # type: ignore[arg-type]

    def emit(self, ar: Arithmetic, scope: Mapping[str, Any]) -> dict[str, str]:
        allowed = self.rule == "allow"
        x, trees = self.table.inputs(ar, scope, self._trees(), missing=np.nan if allowed else 1.0)
        targets = len(self.classes) or 1
        out = add_trees(ar.graph, x, trees, targets=targets, aggregate="average", levels=self.table.sets())
        if self.kind == "regression":
            return {"prediction": ar.flat(self._known(ar, x, self._unbiased(ar, out), 1))}
        cutoff = self.forest["cutoff"].numbers()
        share = out if (cutoff == cutoff[0]).all() else ar.div(out, cutoff[None])
        label = ar.graph.cast(ar.graph.add("ArgMax", share, axis=1, keepdims=0), "int32")
        if not allowed:
            return {"label": label, "probabilities": out}
        return {"label": ar.masked(label, ar.witness(x, ar.widths[x])), "probabilities": self._known(ar, x, out, targets)}

    def _unbiased(self, ar: Arithmetic, out: str) -> str:
        bias = self.model.get("coefs")
        if not isinstance(bias, RObject):
            return out
        constant, slope = bias.numbers()[:2]
        return ar.add(ar.mul(out, slope), constant)

    def _known(self, ar: Arithmetic, x: str, out: str, targets: int) -> str:
        return ar.spoiled(out, targets, x, ar.widths[x]) if self.rule == "allow" else out

    def trees(self) -> tuple[list, list[str], dict[int, int]]:
        if not self.table.plain() or self.table.ordered:
            return [], [], {}
        return self._trees(), list(self.table.names), self.table.sets()

    def _trees(self) -> list[Tree]:
        forest = self.forest
        size = forest["ndbigtree"].integers()
        status, variable = forest["nodestatus"].array(), forest["bestvar"].array()
        split, answer = forest["xbestsplit"].array(), forest["nodepred"].array()
        if self.kind == "regression":
            left, right = forest["leftDaughter"].array(), forest["rightDaughter"].array()
        else:
            both = forest["treemap"].array()
            left, right = both[:, 0], both[:, 1]
        columns = [a.reshape(a.shape[0], -1) for a in (status, variable, split, answer, left, right)]
        return [self._tree(*(c[: size[t], t] for c in columns)) for t in range(len(size))]

    def _tree(
        self, status: np.ndarray, variable: np.ndarray, split: np.ndarray, answer: np.ndarray, left: np.ndarray, right: np.ndarray
    ) -> Tree:
        leaf = status == -1
        feature = np.where(leaf, -1, variable.astype(int) - 1)
        mode = np.where(~leaf & (self.ncat[feature] > 1), IN, LE).astype(np.uint8)
        members = {int(i): _bits(split[i], int(self.ncat[feature[i]])) for i in np.flatnonzero(mode == IN)}
        if self.kind == "regression":
            value = answer[:, None]
        else:
            value = np.zeros((len(answer), len(self.classes)))
            value[leaf, answer[leaf].astype(int) - 1] = 1.0
        down = np.where(leaf[:, None], 0, np.column_stack([left, right]).astype(int) - 1)
        return Tree(feature, split, down[:, 0], down[:, 1], value, mode, members=members)


def _bits(mask: float, levels: int) -> tuple[int, ...]:
    whole = int(mask)
    return tuple(i for i in range(levels) if whole >> i & 1)


def _importance_names(model: RObject) -> tuple[str, ...]:
    importance = model.get("importance")
    return (importance.dimnames[0] or ()) if isinstance(importance, RObject) and importance.dimnames else ()
