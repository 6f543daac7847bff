"""e1071's svm: libsvm's kernels over scaled columns; the label by votes, as predict gives it without probability = TRUE."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ...signature import Field, TensorSpec, prediction_spec
from .arithmetic import Arithmetic
from .family import Family, label_output, level_values
from .linear import model_frame
from .robject import RObject
from .values import numeric_field, refuse

__all__ = ["Svm"]

_CLASSIFIERS, _ONE_CLASS, _REGRESSIONS = (0, 1), 2, (3, 4)


class Svm(Family):
    """A support vector machine over numeric columns; e1071 does not store the levels of factors."""

    def prepare(self) -> None:
        model = self.model
        self.type, self.kernel = int(model["type"].scalar()), int(model["kernel"].scalar())
        self.frame = model_frame(model, self.known) if "svm.formula" in model.classes else None
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

    def fields(self) -> Sequence[Field]:
        return [numeric_field(n) for n in self.columns] if self.frame is None else self.frame.fields()

    def ranges(self) -> Mapping[str, tuple[float, float]]:
        raw = self.vectors * self._scale()[1] + self._scale()[0]
        return {n: (float(c.min()), float(c.max())) for n, c in zip(self.columns, raw.T)}

    def outputs(self) -> tuple[TensorSpec, ...]:
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
        x, names = self.frame.matrix(ev, {}, drop_intercept=True)
        named = bool(self.model["SV"].dimnames) and self.model["SV"].dimnames[1] is not None
        if len(names) != len(self.columns) or (named and names != tuple(self.columns)):
            raise refuse(f"the model matrix has columns {names[:8]}, the support vectors {tuple(self.columns)[:8]}")
        return x

    def emit(self, ar: Arithmetic, scope: Mapping[str, Any]) -> dict[str, str]:
        x = self._inputs(ar, scope)
        centre, scale = self._scale()
        kernel = self._kernel(ar, ar.div(ar.sub(x, centre[None]), scale[None]))
        if self.type in _CLASSIFIERS:
            return {"label": ar.masked(self._vote(ar, kernel), ar.total(ar.mul(x, 0.0)))}
        value = ar.sub(ar.matmul(kernel, self.coefs), self.rho[0])
        if self.type == _ONE_CLASS:
            label = ar.graph.cast(ar.flat(ar.op("Greater", value, 0.0)), "int32")
            return {"label": ar.masked(label, value)}
        stored = self.model.get("y.scale")
        if isinstance(stored, RObject):
            value = ar.add(ar.mul(value, stored["scaled:scale"].scalar()), stored["scaled:center"].scalar())
        return {"prediction": ar.flat(value)}

    def _kernel(self, ar: Arithmetic, x: str) -> str:
        model, gamma = self.model, self.model["gamma"].scalar()
        if self.kernel == 2:
            apart = ar.sub(ar.graph.add("Unsqueeze", x, ar.graph.const([1], "int64")), self.vectors[None])
            squares = ar.graph.add("ReduceSum", ar.mul(apart, apart), ar.graph.const([2], "int64"), keepdims=0)
            return ar.exp(ar.mul(squares, -gamma))
        dot = ar.matmul(x, self.vectors.T)
        if self.kernel == 0:
            return dot
        inner = ar.add(ar.mul(dot, gamma), model["coef0"].scalar())
        if self.kernel == 1:
            return ar.op("Pow", inner, model["degree"].scalar())
        if self.kernel == 3:
            return ar.op("Tanh", inner)
        raise refuse(f"svm with the kernel {self.kernel}")

    def _vote(self, ar: Arithmetic, kernel: str) -> str:
        """Let every pair of classes vote; the first with most votes wins."""
        sizes, labels = self.model["nSV"].integers(), self.model["labels"].integers()
        k, ends = len(sizes), np.cumsum(sizes)
        starts = ends - sizes
        pairs = [(i, j) for i in range(k) for j in range(i + 1, k)]
        weights = np.zeros((len(self.vectors), len(pairs)))
        first, second = np.zeros((len(pairs), k)), np.zeros((len(pairs), k))
        for p, (i, j) in enumerate(pairs):
            weights[starts[i] : ends[i], p] = self.coefs[starts[i] : ends[i], j - 1]
            weights[starts[j] : ends[j], p] = self.coefs[starts[j] : ends[j], i]
            first[p, i], second[p, j] = 1.0, 1.0
        decision = ar.sub(ar.matmul(kernel, weights), self.rho[None])
        wins = ar.graph.cast(ar.op("Greater", decision, 0.0), "float64")
        votes = ar.add(ar.matmul(wins, first), ar.matmul(ar.sub(1.0, wins), second))
        best = ar.graph.add("ArgMax", votes, axis=1, keepdims=0)
        return ar.graph.cast(ar.graph.add("Gather", ar.graph.const(labels - 1), best, axis=0), "int32")
