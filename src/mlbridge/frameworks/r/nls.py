"""nls: an arithmetic formula with its fitted parameters."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ...signature import Field, TensorSpec, prediction_spec
from .arithmetic import Arithmetic
from .expressions import Evaluator
from .family import Family
from .robject import RObject
from .values import Numeric, numeric_field, refuse

__all__ = ["Nls"]


class Nls(Family):
    """A nonlinear least squares fit whose right-hand side our evaluator knows."""

    def prepare(self) -> None:
        classes = self.model.get("dataClasses")
        if not isinstance(classes, RObject) or any(c != "numeric" for c in classes.strings()):
            raise refuse("nls over anything but numeric columns")
        self.columns = classes.names
        call = self.model.get("call")
        algorithm = call.get("algorithm") if isinstance(call, RObject) else None
        if isinstance(algorithm, RObject) and algorithm.kind == "character" and algorithm.text() == "plinear":
            raise refuse("nls with the algorithm plinear, whose linear parameters are not in the formula")
        environment = self.model["m"]["predict"].value["environment"]
        form = environment.frame().get("form")
        inner = environment.frame().get("env")
        if not isinstance(form, RObject) or form.kind != "language" or not isinstance(inner, RObject):
            raise refuse("nls whose formula the file does not hold")
        self.body = form.value[-1]
        stored = inner.frame()
        numbers = {n: v for n, v in stored.items() if n not in self.columns and isinstance(v, RObject) and v.kind in ("double", "integer")}
        self.parameters = {n: v.numbers()[0] for n, v in numbers.items() if len(v) == 1}

    def fields(self) -> Sequence[Field]:
        return [numeric_field(n) for n in self.columns]

    def ranges(self) -> Mapping[str, tuple[float, float]]:
        return dict.fromkeys(self.columns, (0.1, 3.0))

    def outputs(self) -> tuple[TensorSpec, ...]:
        return (prediction_spec(missing="allow"),)

    def emit(self, ar: Arithmetic, scope: Mapping[str, Any]) -> dict[str, str]:
        value = Evaluator(ar, {**self.parameters, **{n: scope[n] for n in self.columns}}).evaluate(self.body)
        if not isinstance(value, Numeric) or len(value.columns) != 1:
            raise refuse("nls whose right-hand side is not one number a row")
        return {"prediction": ar.flat(value.name)}
