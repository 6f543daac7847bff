"""e1071's svm: libsvm's kernels over scaled columns; the label by votes, as predict gives it without probability = TRUE.

A fit with probability = TRUE answers the probabilities too; their largest need not be the label, as in R.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ...signature import Field, TensorSpec, prediction_spec
from .arithmetic import Arithmetic
from .coupling import coupled
from .family import Family, class_outputs, label_output, level_values
from .linear import model_frame
from .robject import RObject
from .values import numeric_field, refuse

__all__ = ["Svm"]

_CLASSIFIERS, _ONE_CLASS, _REGRESSIONS = (0, 1), 2, (3, 4)


def _made(name: str) -> str:
    """Return a name as R's make.names does, near enough to compare: e1071 writes some that way."""
    return re.sub(r"\W", ".", name)


class Svm(Family):
    """A support vector machine over numeric columns; e1071 does not store the levels of factors."""

    def prepare(self) -> None:
        model = self.model
        self.type, self.kernel = int(model["type"].scalar()), int(model["kernel"].scalar())
        self.frame = model_frame(self, self.known) if "svm.formula" in model.classes else None
        if bool(model["sparse"].scalar()):
            raise refuse("svm over a sparse matrix")
        self.vectors = model["SV"].array()
        names = model["SV"].dimnames
        self.columns = (names[1] if len(names) == 2 else None) or tuple(f"x{i + 1}" for i in range(self.vectors.shape[1]))
        self.coefs, self.rho = model["coefs"].array(), model["rho"].numbers()
        if self.coefs.ndim == 1:
            self.coefs = self.coefs[:, None]
        if self.type in _CLASSIFIERS:
            levels = model.get("levels")
            if not isinstance(levels, RObject):
                raise refuse("svm whose classes the file does not hold")
            self.classes = level_values(levels.strings())
        self.couples = self.type in _CLASSIFIERS and bool(model["compprob"].scalar())

    def fields(self) -> Sequence[Field]:
        return [numeric_field(n) for n in self.columns] if self.frame is None else self.frame.fields()

    def ranges(self) -> Mapping[str, tuple[float, float]]:
        raw = self.vectors * self._scale()[1] + self._scale()[0]
        return {n: (float(c.min()), float(c.max())) for n, c in zip(self.columns, raw.T)}

    def outputs(self) -> tuple[TensorSpec, ...]:
        if self.couples:
            return class_outputs(self.classes)
        if self.type in _CLASSIFIERS:
            return label_output(self.classes)
        if self.type == _ONE_CLASS:
            return label_output([False, True])
        return (prediction_spec(missing="allow"),)

    def _scale(self) -> tuple[np.ndarray, np.ndarray]:
        centre, scale = np.zeros(self.vectors.shape[1]), np.ones(self.vectors.shape[1])
        chosen = self.model["scaled"].numbers().astype(bool)
        stored = self.model.get("x.scale")
        if chosen.any() and isinstance(stored, RObject):
            centre[chosen], scale[chosen] = stored["scaled:center"].numbers(), stored["scaled:scale"].numbers()
        return centre, scale

    def _inputs(self, ar: Arithmetic, scope: Mapping[str, Any]) -> str:
        if self.frame is None:
            return ar.columns([scope[n].name for n in self.columns])
        ev = self.frame.evaluator(ar, scope)
        x, names = self.frame.matrix(ev, {})
        named = bool(self.model["SV"].dimnames) and self.model["SV"].dimnames[1] is not None
        if len(names) != len(self.columns) or (named and [_made(n) for n in names] != [_made(n) for n in self.columns]):
            raise refuse(f"the model matrix has columns {names[:8]}, the support vectors {tuple(self.columns)[:8]}")
        return x

    def emit(self, ar: Arithmetic, scope: Mapping[str, Any]) -> dict[str, str]:
        x = self._inputs(ar, scope)
        centre, scale = self._scale()
        kernel = self._kernel(ar, x, centre, scale)
        if self.type in _CLASSIFIERS:
            decision = self._decide(ar, kernel)
            gone = ar.graph.add("ReduceMax", ar.is_missing(x), ar.graph.const([1], "int64"), keepdims=0)
            out = {"label": ar.graph.add("Where", gone, ar.graph.const(np.int32(-1)), self._vote(ar, decision))}
            return {**out, "probabilities": self._probabilities(ar, decision)} if self.couples else out
        stored = self.model.get("y.scale")
        spread, middle = (stored[f"scaled:{k}"].scalar() for k in ("scale", "center")) if isinstance(stored, RObject) else (1.0, 0.0)
        value = ar.flat(ar.affine(kernel, self.coefs * spread, middle - self.rho[:1] * spread))
        if self.type == _ONE_CLASS:
            return {"label": ar.masked(ar.graph.cast(ar.op("Greater", value, 0.0), "int32"), value)}
        return {"prediction": value}

    def _kernel(self, ar: Arithmetic, x: str, centre: np.ndarray, scale: np.ndarray) -> str:
        model, gamma = self.model, self.model["gamma"].scalar()
        if self.kernel == 2:
            unit = np.sqrt(gamma) / scale
            x = ar.mul(ar.sub(x, centre[None]) if centre.any() else x, unit[None])
            apart = ar.sub(ar.graph.add("Unsqueeze", x, ar.graph.const([1], "int64")), self.vectors[None] * np.sqrt(gamma))
            squares = ar.graph.add("ReduceSumSquare", apart, ar.graph.const([2], "int64"), keepdims=0)
            return ar.exp(ar.op("Neg", squares))
        constant = model["coef0"].scalar() if self.kernel else 0.0
        weights = (self.vectors / scale).T * (gamma if self.kernel else 1.0)
        inner = ar.centred(x, centre, weights, np.full(len(self.vectors), constant), 1.0)
        if self.kernel == 0:
            return inner
        if self.kernel == 1:
            return ar.op("Pow", inner, model["degree"].scalar())
        if self.kernel == 3:
            return ar.op("Tanh", inner)
        raise refuse(f"svm with the kernel {self.kernel}")

    def _pairs(self) -> list[tuple[int, int]]:
        k = len(self.model["nSV"])
        return [(i, j) for i in range(k) for j in range(i + 1, k)]

    def _decide(self, ar: Arithmetic, kernel: str) -> str:
        """Return the decision of every pair of classes, ("rows", pairs)."""
        sizes = self.model["nSV"].integers()
        ends = np.cumsum(sizes)
        starts = ends - sizes
        weights = np.zeros((len(self.vectors), len(self._pairs())))
        for p, (i, j) in enumerate(self._pairs()):
            weights[starts[i] : ends[i], p] = self.coefs[starts[i] : ends[i], j - 1]
            weights[starts[j] : ends[j], p] = self.coefs[starts[j] : ends[j], i]
        return ar.affine(kernel, weights, -self.rho)

    def _vote(self, ar: Arithmetic, decision: str) -> str:
        """Let every pair of classes vote; the first with most votes wins."""
        labels = self.model["labels"].integers()
        swing, base = np.zeros((len(self._pairs()), len(labels))), np.zeros(len(labels))
        for p, (i, j) in enumerate(self._pairs()):
            swing[p, i], swing[p, j] = 1.0, -1.0
            base[j] += 1.0
        wins = ar.graph.cast(ar.op("Greater", decision, 0.0), "float64")
        best = ar.graph.add("ArgMax", ar.affine(wins, swing, base), axis=1, keepdims=0)
        return ar.graph.add("Gather", ar.graph.const((labels - 1).astype(np.int32)), best, axis=0)

    def _probabilities(self, ar: Arithmetic, decision: str) -> str:
        """Return the probabilities in the order of levels; libsvm's own order is that in which training met the classes."""
        a, b = self.model["probA"].numbers(), self.model["probB"].numbers()
        first_wins = ar.op("Sigmoid", ar.sub(ar.mul(decision, -a[None]), b[None]))
        met = self.model["labels"].integers() - 1
        order = np.argsort(met)
        found = coupled(ar, first_wins, len(met))
        return found if (order == np.arange(len(met))).all() else ar.graph.add("Gather", found, ar.graph.const(order), axis=1)
