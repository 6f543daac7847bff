"""coxph: the centred linear predictor, or the risk."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ...signature import Field, TensorSpec, prediction_spec
from .arithmetic import Arithmetic
from .family import Family
from .linear import model_frame
from .robject import RObject
from .terms import named_lists
from .values import refuse

__all__ = ["Coxph"]


class Coxph(Family):
    """Cox's model of survival; without strata, whose centres need the training rows."""

    settings = frozenset({"type"})

    def prepare(self) -> None:
        self.frame = model_frame(self.model)
        self.kind = self.option("type", ("lp", "risk"), "lp")
        specials = self.model["terms"].attribute("specials")
        if isinstance(specials, RObject) and any(v is not None for v in specials.value):
            named = [n for n, v in zip(specials.names, specials.value) if v is not None]
            raise refuse(f"coxph with {', '.join(named)}()")
        if self.frame.offset_index or self.frame.extra_offsets:
            raise refuse("coxph with an offset")
        coefficients = self.model["coefficients"]
        self.names, self.beta = coefficients.names, np.nan_to_num(coefficients.numbers())
        self.means = self.model["means"].numbers()

    def fields(self) -> Sequence[Field]:
        return self.frame.fields()

    def choices(self) -> Mapping[str, tuple[float, ...]]:
        return self.frame.choices()

    def outputs(self) -> tuple[TensorSpec, ...]:
        return (prediction_spec(name="score", missing="allow"),)

    def emit(self, ar: Arithmetic, scope: Mapping[str, Any]) -> dict[str, str]:
        ev = self.frame.evaluator(ar, scope)
        x, names = self.frame.matrix(ev, named_lists(self.model.get("contrasts")), drop_intercept=True)
        if names != tuple(self.names):
            raise refuse(f"the model matrix has columns {names[:8]}, the coefficients are {tuple(self.names)[:8]}")
        score = ar.matmul(ar.sub(x, self.means[None]), self.beta[:, None])
        return {"score": ar.flat(ar.exp(score) if self.kind == "risk" else score)}
