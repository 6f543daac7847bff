"""nnet and multinom: one hidden layer at most, as `nnet` stores it in connections and weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ...errors import ArtifactError
from ...signature import Field, TensorSpec, prediction_spec
from .arithmetic import Arithmetic
from .family import Family, class_outputs, give_classes, level_values, two_columns
from .linear import frame_ranges, model_frame
from .robject import RObject
from .terms import named_lists
from .values import Numeric, numeric_field, refuse

__all__ = ["Nnet"]

_MAX_UNITS = 8192  # its connections are laid out as a square matrix
_STEEP = 1e17  # times the least step beyond the limit, still where a sigmoid is 0 or 1
_SIGMOID_LIMIT = 15.0  # nnet's sigmoid is exactly 0 and 1 beyond it


class Nnet(Family):
    """A network of nnet, or a multinomial model fitted by one without a hidden layer."""

    def prepare(self) -> None:
        model = self.model
        self.layers = [int(v) for v in model["n"].integers()]
        if len(self.layers) != 3:
            raise refuse("a network without three layers")
        self.frame = model_frame(self) if "terms" in model.names else None
        self.multinomial = "multinom" in model.classes
        self.softmax = bool(model["softmax"].scalar())
        lev = model.get("lev") or (model.get("lab") if self.multinomial else None)  # counts of each class have labels, no levels
        self.classes = level_values(lev.strings()) if isinstance(lev, RObject) else []
        self._read_weights()

    def _read_weights(self) -> None:
        model, (p, h, k) = self.model, self.layers
        starts, sources, weights = model["nconn"].integers(), model["conn"].integers(), model["wts"].numbers()
        units = 1 + p + h + k
        if min(p, h, k) < 0 or units > _MAX_UNITS:
            raise refuse(f"a network of {units} units; the limit is {_MAX_UNITS}")
        if len(starts) < units + 1 or starts[-1] > min(len(sources), len(weights)) or (sources >= units).any():
            raise ArtifactError("the network's connections do not fit its layers")
        dense = np.zeros((units, units))
        for unit in range(1 + p, units):
            span = slice(starts[unit], starts[unit + 1])
            dense[unit, sources[span]] = weights[span]
        self.hidden, self.out = dense[1 + p : 1 + p + h], dense[1 + p + h :]
        self.sigmoid_outputs = int(model["nsunits"].scalar()) >= units

    def fields(self) -> Sequence[Field]:
        if self.frame is not None:
            return self.frame.fields()
        return [numeric_field(n, missing="refuse") for n in self._plain_names()]  # R stops at a missing value

    def _plain_names(self) -> tuple[str, ...]:
        names = self.model.get("coefnames")
        return tuple(names.strings()) if isinstance(names, RObject) else tuple(f"x{i + 1}" for i in range(self.layers[0]))

    def choices(self) -> Mapping[str, tuple[float, ...]]:
        return {} if self.frame is None else self.frame.choices()

    def ranges(self) -> Mapping[str, tuple[float, float]]:
        return {} if self.frame is None else frame_ranges(self.model, self.frame)

    def outputs(self) -> tuple[TensorSpec, ...]:
        if self.classes:
            return class_outputs(self.classes)
        k = self.layers[2]
        return (prediction_spec(None if k == 1 else k, missing="allow"),)

    def _weigh(self, ar: Arithmetic, scope: Mapping[str, Any], weights: np.ndarray, bias: np.ndarray) -> str:
        """Return the inputs' product with weights (p, m), plus a bias."""
        if self.frame is None:
            x = ar.columns([_number(scope[n]) for n in self._plain_names()])
            return ar.affine(x, weights, bias)
        ev = self.frame.evaluator(ar, scope)
        if self.frame.offset_index or self.frame.extra_offsets:
            raise refuse("a network with an offset")
        design = self.frame.design(ev, named_lists(self.model.get("contrasts")))
        first = int(self.multinomial and self.frame.intercept)  # multinom counts its intercept among the inputs
        names = ("(Intercept)",) * first + design.names
        wanted = self.model.get("vcoefnames" if self.multinomial else "coefnames")
        if isinstance(wanted, RObject) and tuple(wanted.strings()) != names:
            raise refuse(f"the model matrix has columns {names[:8]}, the network's are {tuple(wanted.strings())[:8]}")
        return design.product(weights[first:], bias + weights[:first].sum(axis=0))

    def emit(self, ar: Arithmetic, scope: Mapping[str, Any]) -> dict[str, str]:
        p, h, k = self.layers
        skip, bias = self.out[:, 1 : 1 + p].T, self.out[:, 0]
        if not h:
            out = self._weigh(ar, scope, skip, bias)
        else:
            hidden = self._sigmoid(ar, self._weigh(ar, scope, self.hidden[:, 1 : 1 + p].T, self.hidden[:, 0]))
            out = ar.affine(hidden, self.out[:, 1 + p : 1 + p + h].T, self._weigh(ar, scope, skip, bias) if skip.any() else bias)
        if self.softmax:
            out = ar.softmax(out)
        elif self.sigmoid_outputs:
            out = self._sigmoid(ar, out)
        if not self.classes:
            return {"prediction": ar.flat(out) if k == 1 else out}
        return give_classes(ar, two_columns(ar, out) if k == 1 else out)

    @staticmethod
    def _sigmoid(ar: Arithmetic, x: str) -> str:
        over = ar.sub(x, ar.clamp(x, -_SIGMOID_LIMIT, _SIGMOID_LIMIT))  # exactly zero inside the limit, and made large beyond
        return ar.logistic(ar.add(x, ar.mul(over, _STEEP)))


def _number(value: Any) -> str:
    if not isinstance(value, Numeric):
        raise refuse("a column that is not a number")
    return value.name
