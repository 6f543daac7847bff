"""e1071's naiveBayes: normal densities and tables of levels; a missing value says nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ...signature import Field, TensorSpec
from .arithmetic import Arithmetic
from .family import Family, class_outputs, level_values
from .robject import RObject
from .values import Factor, categorical_field, look_up, numeric_field, refuse

__all__ = ["NaiveBayes"]

_FLOOR = 0.001  # predict's `threshold`: what a density or probability of zero counts as
_VANISHES = 38.56804181549334  # standard deviations beyond which R's dnorm is exactly zero


class NaiveBayes(Family):
    """Naive Bayes over numbers and factors."""

    def prepare(self) -> None:
        model = self.model
        levels = model.get("levels")
        if not isinstance(levels, RObject):
            raise refuse("naiveBayes whose classes the file does not hold")
        self.classes = level_values(levels.strings())
        self.apriori = np.log(model["apriori"].numbers())
        self.tables = dict(zip(model["tables"].names, model["tables"].value))
        numeric = model["isnumeric"]
        self.numeric = dict(zip(numeric.names, numeric.numbers().astype(bool)))

    def fields(self) -> Sequence[Field]:
        return [numeric_field(n) if self.numeric.get(n, False) else categorical_field(n, t.dimnames[1]) for n, t in self.tables.items()]

    def ranges(self) -> Mapping[str, tuple[float, float]]:
        out = {}
        for name, table in self.tables.items():
            if self.numeric.get(name, False):
                mean, spread = table.array()[:, 0], table.array()[:, 1]
                out[name] = (float((mean - 3 * spread).min()), float((mean + 3 * spread).max()))
        return out

    def outputs(self) -> tuple[TensorSpec, ...]:
        return class_outputs(self.classes, missing="refuse")

    def emit(self, ar: Arithmetic, scope: Mapping[str, Any]) -> dict[str, str]:
        total: Any = self.apriori[None]
        for name, table in self.tables.items():
            value = scope[name]
            values = table.array()
            if isinstance(value, Factor):
                part = look_up(ar, value, np.log(np.where(values <= 0, _FLOOR, values)).T, 0.0)
            else:
                part = self._normal(ar, value.name, values)
            total = ar.add(total, part)
        label = ar.graph.cast(ar.graph.add("ArgMax", total, axis=1, keepdims=0), "int32")
        return {"label": label, "probabilities": ar.softmax(ar.value(total))}

    @staticmethod
    def _normal(ar: Arithmetic, x: str, table: np.ndarray) -> str:
        mean, spread = table[:, 0], np.where(table[:, 1] <= 0, _FLOOR, table[:, 1])
        z = ar.div(ar.sub(x, mean[None]), spread[None])
        density = ar.sub(ar.mul(z, z, -0.5), (np.log(spread) + 0.5 * np.log(2 * np.pi))[None])
        out = ar.where(ar.op("Greater", ar.op("Abs", z), _VANISHES), np.log(_FLOOR), density)
        return ar.where(ar.is_missing(z), 0.0, out)
