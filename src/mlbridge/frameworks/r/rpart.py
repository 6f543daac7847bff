"""rpart: one tree whose nodes ask surrogates when the primary variable is missing.

A small tree is written out with all its surrogates (`rpart_paths.py`). In a large one each node's direction is a column
computed first (primary, surrogates in turn, majority); the tree then splits on those, so that no subtree is written twice.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ...errors import ArtifactError
from ...signature import Field, TensorSpec, prediction_spec
from ..trees import IN, LT, Tree, add_trees
from .arithmetic import Arithmetic
from .family import Family, class_outputs, level_values
from .rpart_paths import Split, written_out
from .terms import ModelFrame, text_levels
from .treeframe import TreeFrame
from .values import refuse

__all__ = ["Rpart"]


class Rpart(Family):
    """A tree of rpart: anova, poisson and exp answer the node's value, class answers label and probabilities."""

    def prepare(self) -> None:
        model = self.model
        frame, method = model["frame"], model["method"].text()
        if method not in ("anova", "poisson", "class", "exp"):
            raise refuse(f"rpart with the method {method!r}")
        self.method = method
        self.variables = frame["var"].strings()
        self.numbers = [int(v) for v in _row_names(frame)]
        self.yval = frame["yval"].numbers()
        self.count = frame["n"].numbers()
        ylevels = model.attribute("ylevels")
        self.classes = level_values(ylevels.strings()) if method == "class" and ylevels is not None else []
        if method == "class":
            k = len(self.classes)
            if not k:
                raise refuse("rpart without the levels of its response")
            self.probabilities = frame["yval2"].array()[:, 1 + k : 1 + 2 * k]
        levels = text_levels(model.attribute("xlevels"))
        self.frame = ModelFrame(model["terms"], levels, call=model.get("call"), told=self.told)
        names = [self.frame.labels[i] for i in self.frame.used]
        # an ordered factor is split by a set of codes too
        self.table = TreeFrame(names, {n: v for n, v in levels.items() if n in names}, frame=self.frame)
        self._read_splits()

    def _read_splits(self) -> None:
        model, frame = self.model, self.model["frame"]
        splits = model.get("splits")
        self.splits = splits.array() if splits is not None else np.zeros((0, 5))
        self.split_names = (splits.dimnames[0] or ()) if splits is not None else ()
        csplit = model.get("csplit")
        self.csplit = csplit.array().astype(int) if csplit is not None else np.zeros((0, 0), int)
        control = model.get("control")
        self.surrogates = int(control["usesurrogate"].scalar()) if control is not None else 2
        compete, surrogate = frame["ncompete"].integers(), frame["nsurrogate"].integers()
        self.candidates: dict[int, list[int]] = {}
        row = 0
        for node, name in enumerate(self.variables):
            if name == "<leaf>":
                continue
            spare = range(row + 1 + compete[node], row + 1 + compete[node] + surrogate[node]) if self.surrogates > 0 else ()
            self.candidates[node] = [row, *spare]
            row += 1 + int(compete[node]) + int(surrogate[node])
        if row > len(self.splits):
            raise ArtifactError("the rpart model has fewer splits than its nodes name")
        self.at = {number: node for node, number in enumerate(self.numbers)}

    def fields(self) -> Sequence[Field]:
        return self.frame.fields()

    def choices(self) -> Mapping[str, tuple[float, ...]]:
        return self.frame.choices()

    def outputs(self) -> tuple[TensorSpec, ...]:
        if self.method == "class":
            return class_outputs(self.classes, missing="refuse")
        return (prediction_spec(name="score" if self.method == "exp" else "prediction"),)

    def emit(self, ar: Arithmetic, scope: Mapping[str, Any]) -> dict[str, str]:
        value = self._leaf_values()
        tree = written_out(self.at[1], self._splits(), self._child, {n: self._rest(n) for n in self.candidates}, value)
        if tree is not None:
            x, trees = self.table.inputs(ar, scope, [tree])
        else:
            x, trees = self._directions(ar, self._matrix(ar, scope)), [self._route(value)]
        total = add_trees(ar.graph, x, trees, targets=value.shape[1], levels=self.table.sets() if tree is not None else None)
        if self.method != "class":
            return {"score" if self.method == "exp" else "prediction": ar.flat(total)}
        sizes = ar.graph.const([1, value.shape[1] - 1], "int64")
        label, rest = ar.graph.add("Split", total, sizes, axis=1, outputs=2)
        return {"label": ar.graph.cast(ar.flat(label), "int32"), "probabilities": rest}

    def _rest(self, node: int) -> float:
        return self._majority(node) if self.surrogates > 1 else 0.0

    def _splits(self) -> dict[int, list[Split]]:
        return {node: [self._split(row) for row in rows] for node, rows in self.candidates.items()}

    def _split(self, row: int) -> Split:
        feature, cats = self.table.names.index(self.split_names[row]), int(self.splits[row, 1])
        if abs(cats) == 1:
            return Split(feature, float(self.splits[row, 3]), cats == -1)
        levels = len(self.table.levels[self.table.names[feature]])
        codes = self.csplit[int(self.splits[row, 3]) - 1][:levels]
        left, right = (tuple(np.flatnonzero(codes == way).tolist()) for way in (1, 3))
        return Split(feature, left=left, right=right, levels=levels)

    def _matrix(self, ar: Arithmetic, scope: Mapping[str, Any]) -> str:
        x = self.table.matrix(ar, scope)
        sets = list(self.table.sets()) if self.table.raw_codes(scope) else []
        if not sets:
            return x
        coded = np.isin(np.arange(len(self.table.names)), sets)  # codes of -1 are missing in those columns
        return ar.where(ar.graph.add("And", ar.op("Less", x, 0.0), ar.graph.const(coded[None])), np.nan, x)

    def _leaf_values(self) -> np.ndarray:
        # the label is the node's own value, which a loss matrix can take away from the largest probability
        return np.column_stack([self.yval - 1, self.probabilities]) if self.method == "class" else self.yval[:, None]

    def _directions(self, ar: Arithmetic, x: str) -> str:
        """Return a column a node: below 0 left, above 0 right, 0 stay there.

        The first split that can tell decides: with weights of falling powers of three no sum of later ones outweighs it.
        """
        nodes = list(self.candidates)
        rows = [row for n in nodes for row in self.candidates[n]]
        weights = np.zeros((len(rows), len(nodes)))
        at = 0
        for j, n in enumerate(nodes):
            count = len(self.candidates[n])
            weights[at : at + count, j] = 3.0 ** np.arange(count - 1, -1, -1)
            at += count
        out = ar.matmul(self._ask(ar, x, rows), weights)
        if self.surrogates > 1:
            out = ar.add(out, 0.5 * np.array([[self._majority(n) for n in nodes]]))
        return out

    def _majority(self, node: int) -> float:
        left, right = (self.count[self._child(node, side)] for side in (0, 1))
        return -1.0 if left > right else 1.0 if right > left else 0.0

    def _child(self, node: int, side: int) -> int:
        number = 2 * self.numbers[node] + side
        if number not in self.at:
            raise ArtifactError(f"the rpart model has no node {number}")
        return self.at[number]

    def _ask(self, ar: Arithmetic, x: str, rows: list[int]) -> str:
        """Return the direction each split gives, 0 where its variable is missing or its level was not seen."""
        graph, width = ar.graph, len(rows)
        variable, cut, sign = np.zeros(width, np.int64), np.zeros(width), np.zeros(width)
        sets: dict[int, list[int]] = {}
        for j, row in enumerate(rows):
            variable[j] = self.table.names.index(self.split_names[row])
            cats = int(self.splits[row, 1])
            if abs(cats) == 1:
                cut[j], sign[j] = self.splits[row, 3], cats
            else:
                sets.setdefault(int(variable[j]), []).append(j)
        picked = graph.add("Gather", x, graph.const(variable), axis=1)
        out = ar.where(ar.op("Less", picked, cut[None]), sign[None], -sign[None])
        out = ar.where(ar.is_missing(picked), 0.0, out)
        for column, where in sets.items():
            out = ar.add(out, self._by_level(ar, x, column, [(j, rows[j]) for j in where], width))
        return out

    def _by_level(self, ar: Arithmetic, x: str, column: int, where: list, width: int) -> str:
        levels = len(self.table.levels[self.table.names[column]])
        table = np.zeros((levels + 1, width))
        for j, row in where:
            codes = self.csplit[int(self.splits[row, 3]) - 1]
            table[: min(levels, len(codes)), j] = codes[:levels] - 2
        one = ar.graph.add("Gather", x, ar.graph.const(column, "int64"), axis=1)
        code = ar.graph.cast(ar.where(ar.is_missing(one), float(levels), one), "int64")
        return ar.graph.add("Gather", ar.graph.const(table), code, axis=0)

    def _route(self, value: np.ndarray) -> Tree:
        """Return the tree over the direction columns; a node where a row may stay has a leaf of its own."""
        order = list(self.candidates)
        feature: list[int] = []
        threshold: list[float] = []
        left: list[int] = []
        right: list[int] = []
        values: list[np.ndarray] = []

        def put(f: int, t: float, v: np.ndarray) -> int:
            feature.append(f)
            threshold.append(t)
            left.append(0)
            right.append(0)
            values.append(v)
            return len(feature) - 1

        pending: list[tuple[int, int | None, int]] = [(self.at[1], None, 0)]
        while pending:
            node, parent, side = pending.pop()
            if node in self.candidates:
                here = put(order.index(node), -0.25, value[node])
                stays = self.surrogates < 2 or self._majority(node) == 0
                second = put(order.index(node), 0.25, value[node]) if stays else here
                if stays:
                    right[here] = second
                    left[second] = put(-1, 0.0, value[node])
                pending += [(self._child(node, 0), here, 0), (self._child(node, 1), second, 1)]
            else:
                here = put(-1, 0.0, value[node])
            if parent is not None:
                (left if side == 0 else right)[parent] = here
        return Tree(np.array(feature), np.array(threshold), np.array(left), np.array(right), np.array(values))

    def trees(self) -> tuple[list, list[str], dict[int, int]]:
        if not self.table.plain() or not self.candidates:
            return [], [], {}
        n = len(self.variables)
        feature, threshold = np.full(n, -1), np.zeros(n)
        left, right, mode, members = np.zeros(n, int), np.zeros(n, int), np.full(n, LT, np.uint8), {}
        for node, rows in self.candidates.items():
            row = rows[0]
            feature[node] = self.table.names.index(self.split_names[row])
            cats = int(self.splits[row, 1])
            sides = [self._child(node, 0), self._child(node, 1)]
            if abs(cats) == 1:
                threshold[node] = self.splits[row, 3]
                left[node], right[node] = sides if cats == -1 else sides[::-1]
            else:
                mode[node] = IN
                members[node] = tuple(np.flatnonzero(self.csplit[int(self.splits[row, 3]) - 1] == 1).tolist())
                left[node], right[node] = sides
        return [Tree(feature, threshold, left, right, np.zeros((n, 1)), mode, members=members)], list(self.table.names), self.table.sets()


def _row_names(frame: Any) -> list[str]:
    names = frame.attribute("row.names")
    if names.kind == "character":
        return names.strings()
    values = (
        names.integers()
        if names.kind != "integer" or len(names) != 2 or names.value[0] >= 0
        else np.arange(1, abs(int(names.value[1])) + 1)
    )
    return [str(v) for v in values]
