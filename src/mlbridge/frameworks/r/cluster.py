"""kmeans and prcomp: the nearest centre, and rotated coordinates."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ...signature import ROWS, Field, TensorSpec, prediction_spec
from .arithmetic import Arithmetic
from .family import Family
from .values import numeric_field

__all__ = ["Kmeans", "Prcomp"]


class Kmeans(Family):
    """The nearest centre, counted from 1 as R does."""

    def prepare(self) -> None:
        self.centres = self.model["centers"].array()
        names = self.model["centers"].dimnames
        self.columns = (names[1] if len(names) == 2 else None) or tuple(f"x{i + 1}" for i in range(self.centres.shape[1]))

    def fields(self) -> Sequence[Field]:
        return [numeric_field(n, missing="refuse") for n in self.columns]

    def ranges(self) -> Mapping[str, tuple[float, float]]:
        return {n: (float(c.min()), float(c.max())) for n, c in zip(self.columns, self.centres.T)}

    def outputs(self) -> tuple[TensorSpec, ...]:
        return (TensorSpec("cluster", "int64", (ROWS,)),)

    def emit(self, ar: Arithmetic, scope: Mapping[str, Any]) -> dict[str, str]:
        x = ar.columns([scope[n].name for n in self.columns])
        apart = ar.sub(ar.graph.add("Unsqueeze", x, ar.graph.const([1], "int64")), self.centres[None])
        distance = ar.graph.add("ReduceSumSquare", apart, ar.graph.const([2], "int64"), keepdims=0)
        nearest = ar.graph.add("ArgMin", distance, axis=1, keepdims=0)
        return {"cluster": ar.graph.add("Add", nearest, ar.graph.const(np.int64(1)))}


class Prcomp(Family):
    """Principal components: centred, scaled, rotated."""

    def prepare(self) -> None:
        rotation = self.model["rotation"]
        self.rotation = rotation.array()
        names = rotation.dimnames if len(rotation.dimnames) == 2 else (None, None)
        self.columns = names[0] or tuple(f"x{i + 1}" for i in range(self.rotation.shape[0]))
        self.components = names[1] or tuple(f"PC{i + 1}" for i in range(self.rotation.shape[1]))

    def fields(self) -> Sequence[Field]:
        return [numeric_field(n) for n in self.columns]

    def outputs(self) -> tuple[TensorSpec, ...]:
        return (prediction_spec(len(self.components), name="transformed", columns=self.components, missing="allow"),)

    def emit(self, ar: Arithmetic, scope: Mapping[str, Any]) -> dict[str, str]:
        x = ar.columns([scope[n].name for n in self.columns])
        centre, scale = (self.model[key] for key in ("center", "scale"))
        middle = np.zeros(len(self.columns)) if centre.kind == "logical" else centre.numbers()
        weights = self.rotation if scale.kind == "logical" else self.rotation / scale.numbers()[:, None]
        return {"transformed": ar.centred(x, middle, weights, np.zeros(weights.shape[1]), self.model["sdev"].numbers()[: weights.shape[1]])}
