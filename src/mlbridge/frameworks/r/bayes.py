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
        numbers = [n for n in self.tables if not isinstance(scope[n], Factor)]
        parts = [look_up(ar, scope[n], _logs(self.tables[n].array()).T, 0.0) for n in self.tables if n not in numbers]
        if numbers:
            tables = np.stack([self.tables[n].array() for n in numbers])
            parts.append(self._normal(ar, ar.columns([scope[n].name for n in numbers]), tables))
        total = ar.add(*parts, self.apriori[None])
        label = ar.graph.cast(ar.graph.add("ArgMax", total, axis=1, keepdims=0), "int32")
        return {"label": label, "probabilities": ar.softmax(total)}

    @staticmethod
    def _normal(ar: Arithmetic, x: str, tables: np.ndarray) -> str:
        """Return the summed log densities of all numeric columns; `tables` is (columns, classes, mean and deviation)."""
        mean, spread = tables[:, :, 0], np.where(tables[:, :, 1] <= 0, _FLOOR, tables[:, :, 1])
        apart = ar.sub(ar.graph.add("Unsqueeze", x, ar.graph.const([2], "int64")), mean[None])
        z = ar.mul(apart, np.sqrt(0.5) / spread[None])
        square = ar.mul(z, z)
        density = ar.sub(-(np.log(spread) + 0.5 * np.log(2 * np.pi))[None], square)
        out = ar.where(ar.op("Greater", square, 0.5 * _VANISHES**2), np.log(_FLOOR), density)
        out = ar.where(ar.is_missing(square), 0.0, out)
        return ar.graph.add("ReduceSum", out, ar.graph.const([1], "int64"), keepdims=0)


def _logs(probabilities: np.ndarray) -> np.ndarray:
    return np.log(np.where(probabilities <= 0, _FLOOR, probabilities))
