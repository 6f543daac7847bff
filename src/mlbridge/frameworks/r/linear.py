"""lm, glm and MASS's negative binomial: a model matrix, coefficients, offsets, an inverse link."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ...signature import Field, TensorSpec, prediction_spec
from .arithmetic import Arithmetic
from .family import Family, class_outputs, give_classes, level_values, two_columns
from .links import inverse_link
from .robject import RObject
from .terms import ModelFrame, named_lists, text_levels
from .values import refuse

__all__ = ["Glm", "Lm", "frame_ranges", "model_frame"]

_LINKS_OF_R = ["logit", "probit", "cauchit", "cloglog", "log", "identity", "inverse", "sqrt", "1/mu^2"]


def model_frame(family: Family, known: Mapping[str, tuple[str, ...]] | None = None) -> ModelFrame:
    """Return the formula of a fit: its terms, its levels (else the `known` ones), and an offset given beside it."""
    model = family.model
    call = model.get("call")
    offset = call.get("offset") if isinstance(call, RObject) and call.kind == "language" else None
    return ModelFrame(
        model["terms"],
        {**(known or {}), **text_levels(model.get("xlevels"))},
        offsets=(offset,) if offset is not None else (),
        call=call,
        told=family.told,
    )


def frame_ranges(model: RObject, frame: ModelFrame) -> dict[str, tuple[float, float]]:
    """Return ranges of the plain numeric columns that the stored model frame holds."""
    stored = named_lists(model.get("model"))
    out = {}
    for name, kind in frame.raw().items():
        column = stored.get(name)
        if kind[0] == "numeric" and isinstance(column, RObject) and column.kind in ("double", "integer") and not column.dim:
            values = column.numbers()
            values = values[np.isfinite(values)]
            if values.size:
                out[name] = (float(values.min()), float(values.max()))
    return out


class Lm(Family):
    """A linear model; several responses give several columns."""

    def prepare(self) -> None:
        self.frame = model_frame(self)
        coefficients = self.model["coefficients"]
        matrix = len(coefficients.dim) == 2
        names = coefficients.dimnames[1] or ("",) * coefficients.dim[1] if matrix else ()
        # cbind(log(a), b) leaves a response without a name
        self.targets = tuple(n or f"response_{i + 1}" for i, n in enumerate(names)) if matrix else None
        self.names = (coefficients.dimnames[0] if matrix else coefficients.names) or ()
        self.beta = coefficients.array().reshape(len(self.names), -1) if matrix else coefficients.numbers()

    def fields(self) -> Sequence[Field]:
        return self.frame.fields()

    def ranges(self) -> Mapping[str, tuple[float, float]]:
        return frame_ranges(self.model, self.frame)

    def choices(self) -> Mapping[str, tuple[float, ...]]:
        return self.frame.choices()

    def outputs(self) -> tuple[TensorSpec, ...]:
        return (prediction_spec(None if self.targets is None else len(self.targets), columns=self.targets or (), missing="allow"),)

    def linear(self, ar: Arithmetic, scope: Mapping[str, Any], lines: Sequence[tuple[float, float]] = ()) -> str:
        """Return the linear predictor with its offsets, ("rows",) or ("rows", targets); or lines of it, side by side."""
        ev = self.frame.evaluator(ar, scope)
        design = self.frame.design(ev, named_lists(self.model.get("contrasts")))
        first = int(self.frame.intercept)
        if design.names != tuple(self.names)[first:]:
            raise refuse(f"the model matrix has columns {design.names[:8]}, the coefficients are {tuple(self.names)[:8]}")
        bias = self.beta[0] if first else np.zeros(self.beta.shape[1:])
        return design.product(self.beta[first:], bias, offsets=self.frame.offsets(ev), lines=lines)  # R leaves aliased coefficients NA

    def emit(self, ar: Arithmetic, scope: Mapping[str, Any]) -> dict[str, str]:
        return {"prediction": self.linear(ar, scope)}


class Glm(Lm):
    """A generalised linear model: the mean, or the linear predictor under type="link"."""

    settings = frozenset({"type", "as"})

    def prepare(self) -> None:
        super().prepare()
        family = self.model["family"]
        self.link = family["link"].text()
        self.family = family
        self.kind = self.option("type", ("response", "link"), "response")
        self.as_classifier = self.option("as", ("regressor", "classifier"), "regressor") == "classifier"
        self.classes = _classes(self.model, family["family"].text()) if self.as_classifier else []

    def outputs(self) -> tuple[TensorSpec, ...]:
        return class_outputs(self.classes) if self.as_classifier else super().outputs()

    def emit(self, ar: Arithmetic, scope: Mapping[str, Any]) -> dict[str, str]:
        if self.kind == "link" and not self.as_classifier:
            return {"prediction": self.linear(ar, scope)}
        if self.link not in _LINKS_OF_R and not self.link.startswith("mu^"):
            raise refuse(f"the link {self.link!r} is none of R's own")
        mean = inverse_link(ar, self.link, lambda lines=(): self.linear(ar, scope, lines), self.family)
        return give_classes(ar, two_columns(ar, ar.upright(mean))) if self.as_classifier else {"prediction": mean}


def _classes(model: RObject, family: str) -> list:
    """Return the two classes of a binomial model, from its stored response."""
    if family not in ("binomial", "quasibinomial"):
        raise refuse(f"a {family} model is no classifier")
    stored = model.get("model")
    response = stored.value[0] if isinstance(stored, RObject) and stored.kind == "list" and stored.value else None
    if isinstance(response, RObject) and len(response.levels) == 2:
        return level_values(response.levels)
    if isinstance(response, RObject) and response.kind == "logical":
        return [False, True]
    if isinstance(response, RObject) and response.kind in ("double", "integer") and not response.dim:
        values = np.unique(response.numbers())
        if not response.levels and set(values) <= {0.0, 1.0}:
            return [0, 1]
    raise refuse("the two classes of the response are not in the file")
