"""MASS's lda and qda: posterior probabilities of the plug-in rule."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ...signature import Field, TensorSpec
from .arithmetic import Arithmetic
from .family import Family, class_outputs, level_values
from .linear import model_frame
from .robject import RObject
from .terms import named_lists
from .values import numeric_field, refuse

__all__ = ["Lda", "Qda"]


class Lda(Family):
    """Linear discriminant analysis."""

    def prepare(self) -> None:
        model = self.model
        self.frame = model_frame(model) if "terms" in model.names else None
        self.prior, self.means, self.scaling = model["prior"].numbers(), model["means"].array(), model["scaling"].array()
        self.groups = model["prior"].names
        lev = model["lev"].strings()
        if list(self.groups) != lev:
            raise refuse("a discriminant with groups that training never saw")
        self.classes = level_values(lev)
        self.columns = (model["means"].dimnames[1] or ()) if model["means"].dimnames else ()
        if not self.columns:
            self.columns = tuple(f"x{i + 1}" for i in range(self.means.shape[1]))

    def fields(self) -> Sequence[Field]:
        return [numeric_field(n) for n in self.columns] if self.frame is None else self.frame.fields()

    def choices(self) -> Mapping[str, tuple[float, ...]]:
        return {} if self.frame is None else self.frame.choices()

    def ranges(self) -> Mapping[str, tuple[float, float]]:
        low, high = self.means.min(axis=0), self.means.max(axis=0)
        return {n: (float(a - (b - a)), float(b + (b - a))) for n, a, b in zip(self.columns, low, high)}

    def outputs(self) -> tuple[TensorSpec, ...]:
        return class_outputs(self.classes)

    def _inputs(self, ar: Arithmetic, scope: Mapping[str, Any]) -> str:
        if self.frame is None:
            return ar.columns([scope[n].name for n in self.columns])
        ev = self.frame.evaluator(ar, scope)
        x, names = self.frame.matrix(ev, named_lists(self.model.get("contrasts")), drop_intercept=True)
        if names != tuple(self.columns):
            raise refuse(f"the model matrix has columns {names[:8]}, the means are of {tuple(self.columns)[:8]}")
        return x

    def emit(self, ar: Arithmetic, scope: Mapping[str, Any]) -> dict[str, str]:
        distance = self._distance(ar, self._inputs(ar, scope))
        posterior = ar.softmax(ar.op("Neg", distance))
        return {"label": ar.label(ar.op("Neg", distance)), "probabilities": posterior}

    def _distance(self, ar: Arithmetic, x: str) -> str:
        centre = self.prior @ self.means
        group = (self.means - centre) @ self.scaling
        scores = ar.matmul(ar.sub(x, centre[None]), self.scaling)
        constant = 0.5 * (group**2).sum(axis=1) - np.log(self.prior)
        return ar.sub(constant[None], ar.matmul(scores, group.T))


class Qda(Lda):
    """Quadratic discriminant analysis."""

    def _distance(self, ar: Arithmetic, x: str) -> str:
        determinants = self.model["ldet"].numbers()
        parts = []
        for i in range(len(self.prior)):
            deviation = ar.matmul(ar.sub(x, self.means[i][None]), self.scaling[:, :, i])
            half = ar.mul(ar.total(ar.mul(deviation, deviation)), 0.5)
            parts.append(ar.add(half, 0.5 * determinants[i] - np.log(self.prior[i])))
        return ar.graph.concat(parts)


class Polr(Family):
    """MASS's proportional odds: an ordered response, cumulative probabilities cut by `zeta`."""

    def prepare(self) -> None:
        model = self.model
        self.frame = model_frame(model)
        self.zeta = model["zeta"].numbers()
        self.classes = level_values(model["lev"].strings())
        self.method = model["method"].text()
        coefficients = model.get("coefficients")
        self.names = coefficients.names if isinstance(coefficients, RObject) else ()
        self.beta = coefficients.numbers() if isinstance(coefficients, RObject) else np.zeros(0)
        if not len(self.beta) or self.frame.offset_index or self.frame.extra_offsets:
            raise refuse("polr without predictors or with an offset")

    def fields(self) -> Sequence[Field]:
        return self.frame.fields()

    def choices(self) -> Mapping[str, tuple[float, ...]]:
        return self.frame.choices()

    def outputs(self) -> tuple[TensorSpec, ...]:
        return class_outputs(self.classes)

    def emit(self, ar: Arithmetic, scope: Mapping[str, Any]) -> dict[str, str]:
        ev = self.frame.evaluator(ar, scope)
        x, names = self.frame.matrix(ev, named_lists(self.model.get("contrasts")), drop_intercept=True)
        missing = [n for n in self.names if n not in names]
        if missing:
            raise refuse(f"the model matrix lacks {missing[:5]}")
        x = ar.graph.add("Gather", x, ar.graph.const([names.index(n) for n in self.names], "int64"), axis=1)
        q = ar.sub(self.zeta[None], ar.matmul(x, self.beta[:, None]))
        cumulative = self._distribution(ar, q)
        first = ar.graph.add("Gather", cumulative, ar.graph.const([0], "int64"), axis=1)
        nothing = ar.mul(ar.where(ar.is_missing(first), np.nan, 0.0), 1.0)
        low = ar.graph.concat([nothing, cumulative])
        high = ar.graph.concat([cumulative, ar.add(nothing, 1.0)])
        p = ar.sub(high, low)
        return {"label": ar.label(p), "probabilities": p}

    def _distribution(self, ar: Arithmetic, q: str) -> str:
        if self.method == "logistic":
            return ar.logistic(q)
        if self.method == "probit":
            return ar.normal(q)
        if self.method == "loglog":
            return ar.exp(ar.op("Neg", ar.exp(ar.op("Neg", q))))
        if self.method == "cloglog":
            return ar.op("Neg", ar.expm1(ar.op("Neg", ar.exp(q))))
        if self.method == "cauchit":
            tail = ar.div(ar.atan(ar.div(-1.0, q)), np.pi)
            return ar.where(ar.op("Less", q, -1.0), tail, ar.add(0.5, ar.div(ar.atan(q), np.pi)))
        raise refuse(f"polr with the method {self.method!r}")
