"""gbm: a sum of trees with a third branch for missing values, and the distribution's mean."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from ...errors import ArtifactError, InputError
from ...signature import Field, TensorSpec, prediction_spec
from ..trees import IN, LE, LT, Tree, add_trees
from .arithmetic import Arithmetic
from .family import Family, class_outputs, give_classes, two_columns
from .robject import RObject
from .terms import ModelFrame
from .treeframe import TreeFrame
from .values import refuse, stored_levels

__all__ = ["Gbm"]

_PLAIN = frozenset({"gaussian", "laplace", "tdist", "quantile", "coxph"})


class Gbm(Family):
    """A boosted model of gbm; the mean, or the sum of trees under type="link"."""

    settings = frozenset({"type", "as", "n.trees"})

    def prepare(self) -> None:
        model = self.model
        self.distribution = model["distribution"]["name"].text()
        if self.distribution not in (*_PLAIN, "bernoulli", "adaboost", "poisson", "multinomial"):
            raise refuse(f"gbm with the distribution {self.distribution!r}")
        self.kind = self.option("type", ("response", "link"), "response")
        self.as_classifier = self.option("as", ("regressor", "classifier"), "regressor") == "classifier"
        if self.as_classifier and self.distribution not in ("bernoulli", "adaboost"):
            raise refuse(f"gbm with the distribution {self.distribution!r} is no classifier of two classes")
        self.width = int(model["num.classes"].scalar()) if model.has("num.classes") and model["num.classes"] is not None else 1
        names = model["var.names"].strings()
        self.types = model["var.type"].integers()
        levels = {n: stored_levels(v) for n, v in zip(names, model["var.levels"].value) if isinstance(v, RObject) and v.kind == "character"}
        terms = model.get("Terms")
        frame = ModelFrame(terms, levels) if isinstance(terms, RObject) else None
        if frame is not None and "character" in frame.classes:
            raise refuse("a character column, which gbm reads as missing")
        ordered = [n for n, t in zip(names, self.types) if t == 0 and n in levels]
        self.table = TreeFrame(names, levels, ordered=ordered, frame=frame)
        self.count = self._count()

    def _count(self) -> int:
        model, most = self.model, int(self.model["n.trees"].scalar())
        given = self.options.get("n.trees")
        if given is not None:
            if not isinstance(given, (int, float)) or given != int(given) or not 1 <= given <= most:
                raise InputError(f"option 'n.trees' is {given!r}, expected a whole number from 1 to {most}")
            return int(given)
        # R's predict without n.trees takes the best iteration of the validation rows, then of cross-validation, then all
        for key, wanted in (("valid.error", model["train.fraction"].scalar() < 1), ("cv.error", model.get("cv.error") is not None)):
            if wanted:
                return int(np.nanargmin(model[key].numbers())) + 1
        return len(model["train.error"])

    def fields(self) -> Sequence[Field]:
        return self.table.fields()

    def outputs(self) -> tuple[TensorSpec, ...]:
        if self.distribution == "multinomial" and self.kind == "response":
            return class_outputs(self.model["classes"].strings(), missing="refuse")[1:]
        if self.as_classifier:
            return class_outputs([0, 1], missing="refuse")
        if self.distribution == "multinomial":
            return (prediction_spec(self.width, columns=self.model["classes"].strings()),)
        return (prediction_spec(name="score" if self.distribution == "coxph" else "prediction"),)

    def emit(self, ar: Arithmetic, scope: Mapping[str, Any]) -> dict[str, str]:
        trees = [self._tree(t, i % self.width, third=True) for i, t in enumerate(self._chosen())]
        start = self.model["initF"].scalar()
        trees = [replace(t, value=t.value + start) for t in trees[: self.width]] + trees[self.width :]  # R's sum starts there too
        x, trees = self.table.inputs(ar, scope, trees, first=0)
        f = add_trees(ar.graph, x, trees, targets=self.width, levels=self.table.sets())
        if self.distribution == "multinomial":
            if self.kind == "link":
                return {"prediction": f}
            e = ar.exp(f)
            return {"probabilities": ar.div(e, ar.total(e))}
        if self.kind == "response" or self.as_classifier:
            f = self._mean(ar, f)
        if self.as_classifier:
            return give_classes(ar, two_columns(ar, f))
        return {"score" if self.distribution == "coxph" else "prediction": ar.flat(f)}

    def _mean(self, ar: Arithmetic, f: str) -> str:
        if self.distribution == "bernoulli":
            return ar.logistic(f)
        if self.distribution == "adaboost":
            return ar.logistic(ar.mul(f, 2.0))
        return ar.exp(f) if self.distribution == "poisson" else f

    def _chosen(self) -> list[RObject]:
        trees = self.model["trees"].value[: self.count * self.width]
        if len(trees) < self.count * self.width:
            raise ArtifactError("the gbm model has fewer trees than it says")
        return trees

    def trees(self) -> tuple[list, list[str], dict[int, int]]:
        if not self.table.plain() or self.table.ordered:
            return [], [], {}
        return [self._tree(t, 0, third=False) for t in self._chosen()], list(self.table.names), self.table.sets()

    def _tree(self, tree: RObject, target: int, *, third: bool) -> Tree:
        """Return a tree; with `third`, a node before each split sends missing values their own way."""
        variable, code, left, right, missing = (tree.value[i].numbers() for i in range(5))
        answer = tree.value[7].numbers()
        feature: list[int] = []
        threshold: list[float] = []
        down: list[list[int]] = []
        mode: list[int] = []
        value: list[float] = []
        members: dict[int, tuple[int, ...]] = {}

        def put(f: int, t: float, m: int, v: float) -> int:
            feature.append(f)
            threshold.append(t)
            down.append([0, 0])
            mode.append(m)
            value.append(v)
            return len(feature) - 1

        pending: list[tuple[int, int, int]] = [(0, -1, 0)]
        while pending:
            node, parent, side = pending.pop()
            if not 0 <= node < len(variable) or len(feature) > 4 * len(variable):
                raise ArtifactError("a gbm tree is not a tree")
            f = int(variable[node])
            if f < 0:
                here = put(-1, 0.0, LE, float(answer[node]))
            else:
                here = put(f, np.inf, LE, 0.0)
                split = here
                sets = None if self.types[f] == 0 else self.model["c.splits"].value[int(code[node])].integers()
                if sets is None:
                    split = put(f, float(code[node]), LT, 0.0) if third else here
                    threshold[split], mode[split] = float(code[node]), LT
                    if third:
                        down[here][0] = split
                        pending.append((int(missing[node]), here, 1))
                else:
                    mode[here], members[here] = IN, tuple(np.flatnonzero(sets == -1).tolist())
                    if third:
                        split = put(f, 0.0, IN, 0.0)
                        members[here] = tuple(np.flatnonzero(sets != 0).tolist())
                        members[split] = tuple(np.flatnonzero(sets == -1).tolist())
                        down[here][0] = split
                        pending.append((int(missing[node]), here, 1))
                pending += [(int(left[node]), split, 0), (int(right[node]), split, 1)]
            if parent >= 0:
                down[parent][side] = here
        ways = np.array(down)
        return Tree(
            np.array(feature),
            np.array(threshold),
            ways[:, 0],
            ways[:, 1],
            np.array(value)[:, None],
            np.array(mode, np.uint8),
            members=members,
            target=target,
        )
