"""coxph: the centred linear predictor, or the risk; within strata the centre is the stratum's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ...signature import Field, TensorSpec, prediction_spec
from .arithmetic import Arithmetic
from .design import Coded, Design
from .expressions import Evaluator
from .family import Family
from .linear import model_frame
from .robject import RObject
from .terms import named_lists
from .values import refuse

__all__ = ["Coxph"]


class Coxph(Family):
    """Cox's model of survival."""

    settings = frozenset({"type"})

    def prepare(self) -> None:
        self.frame = model_frame(self)
        self.kind = self.option("type", ("lp", "risk"), "lp")
        coefficients = self.model["coefficients"]
        self.names, self.beta = coefficients.names, np.nan_to_num(coefficients.numbers())
        stored = self.model["terms"].attribute("specials")
        specials = dict(zip(stored.names, stored.value)) if isinstance(stored, RObject) else {}
        odd = sorted(n for n, v in specials.items() if v is not None and n != "strata")
        if odd:
            raise refuse(f"coxph with {', '.join(odd)}()")
        strata = specials.get("strata")
        self.strata = [int(i) - 1 for i in strata.integers()] if isinstance(strata, RObject) else []
        self._centre = self._of_strata() if self.strata else self.model["means"].numbers() @ self.beta

    def _of_strata(self) -> np.ndarray:
        """Return what the centre of each stratum scores: R takes weighted means of the training rows, which x = TRUE stores."""
        model, at = self.model, self.strata[0]
        x, strata = model.get("x"), model.get("strata")
        if len(self.strata) > 1 or (self.frame.factors[:, self.frame.factors[at] > 0] > 0).sum() > 1:
            raise refuse("coxph with several strata() or an interaction with one")
        if not isinstance(x, RObject) or not isinstance(strata, RObject):
            raise refuse("coxph with strata() centres by its training rows, which this file lacks; fit it with x = TRUE")
        if self.frame.offset_index or self.frame.extra_offsets:
            raise refuse("coxph with strata() and an offset")
        stored = model.get("weights")
        scores = x.array().reshape(-1, len(self.beta)) @ self.beta
        weights = stored.numbers() if isinstance(stored, RObject) else np.ones(len(scores))
        of, levels = np.array(strata.strings()), self.frame.xlevels.get(self.frame.labels[at], ())
        if not set(of) <= set(levels):
            raise refuse("coxph whose strata are not the levels of its formula")
        # a stratum no training row is in has no centre: R answers NA
        return np.array([np.average(scores[of == v], weights=weights[of == v]) if (of == v).any() else np.nan for v in levels])

    def fields(self) -> Sequence[Field]:
        return self.frame.fields()

    def choices(self) -> Mapping[str, tuple[float, ...]]:
        return self.frame.choices()

    def outputs(self) -> tuple[TensorSpec, ...]:
        return (prediction_spec(name="score", missing="allow"),)

    def emit(self, ar: Arithmetic, scope: Mapping[str, Any]) -> dict[str, str]:
        ev = self.frame.evaluator(ar, scope)
        design = self.frame.design(ev, named_lists(self.model.get("contrasts")), without=self.strata)
        if design.names != tuple(self.names):
            raise refuse(f"the model matrix has columns {design.names[:8]}, the coefficients are {tuple(self.names)[:8]}")
        score = self._centred(ev, design)
        return {"score": ar.exp(score) if self.kind == "risk" else score}

    def _centred(self, ev: Evaluator, design: Design) -> str:
        if not self.strata:
            return design.product(self.beta, -self._centre, offsets=self.frame.offsets(ev))
        stratum = self.frame.variable(ev, self.strata[0])
        size = len(stratum.levels)
        apart = Design(ev.ar, [*design.terms, [Coded(stratum, stratum.levels, np.eye(size))]])
        return apart.product(np.concatenate([self.beta, -self._centre]), 0.0)
