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
        self.frame = model_frame(self) if "terms" in model.names else None
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
        x, names = self.frame.matrix(ev, named_lists(self.model.get("contrasts")))
        if names != tuple(self.columns):
            raise refuse(f"the model matrix has columns {names[:8]}, the means are of {tuple(self.columns)[:8]}")
        return x

    def emit(self, ar: Arithmetic, scope: Mapping[str, Any]) -> dict[str, str]:
        centre = self.prior @ self.means  # near every group: what is subtracted first costs no digits later
        scores = self._scores(ar, self._inputs(ar, scope), centre, self.means - centre)
        return {"label": ar.label(scores), "probabilities": ar.softmax(scores)}

    def _scores(self, ar: Arithmetic, x: str, centre: np.ndarray, means: np.ndarray) -> str:
        """Return log densities of the groups but for a common constant; `means` are centred."""
        group = means @ self.scaling
        constant = np.log(self.prior) - 0.5 * (group**2).sum(axis=1)
        return ar.centred(x, centre, self.scaling @ group.T, constant, 1.0)


class Qda(Lda):
    """Quadratic discriminant analysis."""

    def _scores(self, ar: Arithmetic, x: str, centre: np.ndarray, means: np.ndarray) -> str:
        groups, (_, rank, _) = len(means), self.scaling.shape
        scaling = [self.scaling[:, :, i] for i in range(groups)]
        middle = np.concatenate([means[i] @ scaling[i] for i in range(groups)])
        deviation = ar.centred(x, centre, np.hstack(scaling), -middle, 1.0)
        constant = np.log(self.prior) - 0.5 * self.model["ldet"].numbers()
        return ar.affine(ar.mul(deviation, deviation), np.kron(np.eye(groups), np.full((rank, 1), -0.5)), constant)


class Polr(Family):
    """MASS's proportional odds: an ordered response, cumulative probabilities cut by `zeta`."""

    def prepare(self) -> None:
        model = self.model
        self.frame = model_frame(self)
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
        design = self.frame.design(ev, named_lists(self.model.get("contrasts")))
        missing = [n for n in self.names if n not in design.names]
        if missing:
            raise refuse(f"the model matrix lacks {missing[:5]}")
        weights = np.array([self.beta[self.names.index(n)] if n in self.names else np.nan for n in design.names])
        cuts = len(self.zeta)
        cumulative = self._distribution(ar, design.product(-np.repeat(weights[:, None], cuts, axis=1), self.zeta))
        steps = np.eye(cuts, cuts + 1) - np.eye(cuts, cuts + 1, 1)  # each class is what its cut adds to the one before
        p = ar.affine(cumulative, steps, np.eye(1, cuts + 1, cuts)[0])
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
            return ar.cauchy(q)
        raise refuse(f"polr with the method {self.method!r}")
