"""caret's train: a formula, its preprocessing, and the model it chose, asked as caret asks it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ...signature import Field, TensorSpec, prediction_spec
from .arithmetic import Arithmetic
from .family import Family, class_outputs, label_output, level_values, two_columns
from .linear import frame_ranges
from .preprocess import apply_preprocess
from .robject import RObject
from .terms import ModelFrame, named_lists, text_levels
from .values import Numeric, categorical_field, numeric_field, refuse

__all__ = ["Train"]

_METHODS = frozenset(
    {"lm", "lmStepAIC", "glm", "glmStepAIC", "glm.nb", "rpart", "rpart1SE", "rpart2", "rf", "ranger"}
    | {"gbm", "glmnet", "nnet", "multinom", "lda", "qda", "polr", "svmLinear2", "svmLinearWeights"}
)
_SHOWS_MISSING = frozenset({"lm", "glm", "nnet", "multinom", "lda", "qda", "polr"})  # arithmetic over every column


class Train(Family):
    """A model chosen by caret; of the methods whose predict we know."""

    def prepare(self) -> None:
        from .families import family_of

        model = self.model
        self.method = model["method"].text()
        if self.method not in _METHODS:
            raise refuse(f"caret with the method {self.method!r}")
        self.regression = model["modelType"].text() == "Regression"
        bounds = model["control"].get("predictionBounds")
        if isinstance(bounds, RObject) and (bounds.kind != "logical" or bounds.numbers().any()):
            raise refuse("caret with prediction bounds")
        formula = "train.formula" in model.classes
        self.frame = ModelFrame(model["terms"], text_levels(model.get("xlevels")), told=self.told) if formula else None
        self.chosen = model["finalModel"]
        make = family_of(self.chosen.classes)
        if make is None:
            raise refuse(f"caret over a model of class {'/'.join(self.chosen.classes)}")
        self.classes = [] if self.regression else level_values(model["levels"].strings())
        kinds = {} if formula else named_lists(model.get("ptype"))
        self.final: Family = make(self.chosen, self._options(), {n: v.levels for n, v in kinds.items() if v.levels})

    def _options(self) -> dict[str, Any]:
        if self.method == "glmnet":
            two = self.chosen.classes[0] == "lognet"
            return {"s": self.chosen["lambdaOpt"].scalar(), **({"as": "classifier"} if two else {})}
        if self.method == "gbm":
            return {"n.trees": int(self.chosen["tuneValue"]["n.trees"].scalar())}
        return {}

    def fields(self) -> Sequence[Field]:
        if self.frame is not None:
            return self.frame.fields()
        if self.model.get("preProcess") is None:
            return self.final.fields()
        kinds = self.model["ptype"]
        return [self._field(n, v) for n, v in zip(kinds.names, kinds.value)]

    def _field(self, name: str, value: RObject) -> Field:
        missing = "refuse" if all(f.missing == "refuse" for f in self.final.fields()) else "allow"
        if value.levels:
            return categorical_field(name, value.levels, ordered="ordered" in value.classes, missing=missing)
        if value.kind not in ("double", "integer"):
            raise refuse(f"preProcess over the {value.kind} column {name!r}")
        return numeric_field(name, missing=missing)

    def choices(self) -> Mapping[str, tuple[float, ...]]:
        return {} if self.frame is None else self.frame.choices()

    def ranges(self) -> Mapping[str, tuple[float, float]]:
        stored = self.model.get("trainingData")
        if not isinstance(stored, RObject):
            return {}
        if self.frame is not None:
            return frame_ranges(RObject("list", [stored], {"names": RObject("character", ["model"])}), self.frame)
        numeric = {n: v.numbers() for n, v in named_lists(stored).items() if v.kind in ("double", "integer") and not v.levels}
        return {n: (float(np.nanmin(v)), float(np.nanmax(v))) for n, v in numeric.items() if np.isfinite(v).any()}

    def trees(self) -> tuple[list, list[str], dict[int, int]]:
        found = self.final.trees()
        plain = self.frame is None or set(found[1]) <= {n for n, k in self.frame.raw().items() if k == ("numeric",)}
        return found if plain and self.model.get("preProcess") is None else ([], [], {})

    def _missing(self) -> str:
        return "allow" if self.frame is not None or any(s.missing == "allow" for s in self.final.outputs()) else "refuse"

    def _labels_only(self) -> bool:
        return [s.name for s in self.final.outputs()] == ["label"]

    def outputs(self) -> tuple[TensorSpec, ...]:
        if self.regression:
            return (prediction_spec(missing=self._missing()),)  # type: ignore[arg-type]
        if self._labels_only():
            return label_output(self.classes, missing=self._missing())
        return class_outputs(self.classes, missing=self._missing())

    def emit(self, ar: Arithmetic, scope: Mapping[str, Any]) -> dict[str, str]:
        columns, asked = self._columns(ar, scope)
        given = self.final.emit(ar, columns)
        if self.regression:
            out = {"prediction": given["prediction"]}
        elif "label" in given and ("probabilities" in given or self._labels_only()):
            out = given
        else:
            out = self._classes(ar, given)
        return out if asked is None else {k: self._mask(ar, k, v, *asked) for k, v in out.items()}

    def _columns(self, ar: Arithmetic, scope: Mapping[str, Any]) -> tuple[dict[str, Any], tuple[str, int] | None]:
        """Return the columns the chosen model reads; and all, and how many, where caret drops rows that are not whole."""
        steps = self.model.get("preProcess")
        if self.frame is None:
            raw = {f.column.name: scope[f.column.name] for f in self.fields()}
            return apply_preprocess(ar, steps, raw, complete=False), None
        ev = self.frame.evaluator(ar, scope)
        x, names = self.frame.matrix(ev, named_lists(self.model.get("contrasts")))
        columns = {n: Numeric(v) for n, v in ar.split(x, names).items()}
        used = self.chosen.get("xNames")
        rotated = steps is not None and not {"pca", "ica"}.isdisjoint(steps["method"].names)
        if isinstance(used, RObject) and not rotated:
            columns = {n: v for n, v in columns.items() if n in set(used.strings())}
        shows = self.method in _SHOWS_MISSING and len(columns) == len(names) and (steps is None or "remove" not in steps["method"].names)
        return apply_preprocess(ar, steps, columns, complete=True), None if shows else (x, len(names))

    def _classes(self, ar: Arithmetic, given: Mapping[str, str]) -> dict[str, str]:
        """Turn one probability into two columns, as caret does for the method."""
        if "probabilities" in given:
            return {"label": ar.label(given["probabilities"]), "probabilities": given["probabilities"]}
        p = ar.graph.add("Unsqueeze", given["prediction"], ar.graph.const([1], "int64"))
        both = two_columns(ar, p)
        if self.method == "gbm":  # caret fits gbm to the first level
            both = ar.graph.concat([p, ar.sub(1.0, p)])
        return {"label": ar.label(both), "probabilities": both}

    def _mask(self, ar: Arithmetic, name: str, value: str, x: str, columns: int) -> str:
        if name == "prediction":
            return ar.add(value, ar.witness(x, columns))
        if name == "label":
            return ar.masked(value, ar.witness(x, columns))
        return ar.spoiled(value, len(self.classes), x, columns)
