"""glmnet and cv.glmnet: the coefficients at one lambda, interpolated as R does."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ...errors import ArtifactError, InputError
from ...signature import Field, TensorSpec, prediction_spec
from .arithmetic import Arithmetic
from .family import Family, class_outputs, level_values, two_columns
from .robject import RObject
from .values import numeric_field, refuse

__all__ = ["Glmnet"]

_FAMILIES = {"elnet": "gaussian", "lognet": "binomial", "fishnet": "poisson", "multnet": "multinomial"}


class Glmnet(Family):
    """A lasso, ridge or elastic net path at `s`; cv.glmnet's own choice is lambda.1se."""

    settings = frozenset({"s", "type", "as"})

    def prepare(self) -> None:
        model = self.model
        self.fit = model["glmnet.fit"] if model.classes == ("cv.glmnet",) else model
        if self.fit.classes[:1] not in {(k,) for k in _FAMILIES}:
            raise refuse(f"glmnet of class {'/'.join(self.fit.classes)}")
        self.family = _FAMILIES[self.fit.classes[0]]
        if bool(self.fit["offset"].scalar()):
            raise refuse("glmnet with an offset, which predict must be given")
        self.kind = self.option("type", ("response", "link"), "response")
        self.as_classifier = self.option("as", ("regressor", "classifier"), "regressor") == "classifier"
        if self.as_classifier and self.family != "binomial":
            raise refuse(f"a {self.family} glmnet is no classifier of two classes")
        several = self.family == "multinomial"
        betas = self.fit["beta"].value if several else [self.fit["beta"]]
        self.intercepts = self.fit["a0"].array().reshape(len(betas), -1)
        self.slopes = [_dense(b) for b in betas]
        self.columns = _row_names(betas[0], self.slopes[0].shape[0])
        self._at_lambda()

    def _lambda(self) -> float:
        s, model = self.options.get("s"), self.model
        if model.classes == ("cv.glmnet",):
            s = "lambda.1se" if s is None else s
            if s in ("lambda.1se", "lambda.min"):
                return model[s].scalar()
        if s is None:
            raise InputError("a glmnet answers a whole path of lambdas", hint="choose one: options={'r': {'s': 0.05}}")
        if isinstance(s, bool) or not isinstance(s, (int, float)) or not np.isfinite(s):
            raise InputError(f"option 's' is {s!r}", hint="give a lambda; a cv.glmnet knows 'lambda.min' and 'lambda.1se' too")
        return float(s)

    def _at_lambda(self) -> None:
        """Interpolate between the two nearest lambdas of the path, on the scale R uses."""
        path, s = self.fit["lambda"].numbers(), self._lambda()
        if len(path) == 1:
            left = right = 0
            share = 1.0
        else:
            scaled = (path[0] - path) / (path[0] - path[-1])
            wanted = float(np.clip((path[0] - s) / (path[0] - path[-1]), scaled.min(), scaled.max()))
            position = float(np.interp(wanted, scaled, np.arange(len(path))))
            left, right = int(np.floor(position)), int(np.ceil(position))
            gap = scaled[left] - scaled[right]
            share = 1.0 if left == right or abs(gap) < np.finfo(float).eps else (wanted - scaled[right]) / gap
        mix = lambda m: m[..., left] * share + m[..., right] * (1 - share)  # noqa: E731
        self.intercept = mix(self.intercepts)
        self.slope = np.stack([mix(b) for b in self.slopes], axis=1)

    def fields(self) -> Sequence[Field]:
        return [numeric_field(n) for n in self.columns]

    def outputs(self) -> tuple[TensorSpec, ...]:
        if self.family == "multinomial" or self.as_classifier:
            return class_outputs(level_values(self.fit["classnames"].strings()))
        return (prediction_spec(missing="allow"),)

    def emit(self, ar: Arithmetic, scope: Mapping[str, Any]) -> dict[str, str]:
        x = ar.columns([scope[n].name for n in self.columns])
        used = np.asarray(self.slope.any(axis=1))  # R multiplies by a sparse matrix: a missing value there says nothing
        eta = self._linear(ar, x, used)
        if self.family == "multinomial":
            e = ar.exp(eta)
            return {"label": ar.label(eta), "probabilities": ar.div(e, ar.total(e))}
        if self.family == "binomial" and (self.as_classifier or self.kind == "response"):
            mean = ar.logistic(eta)
            if self.as_classifier:
                probabilities = two_columns(ar, mean)
                return {"label": ar.label(ar.graph.concat([ar.mul(eta, 0.0), eta])), "probabilities": probabilities}
            return {"prediction": ar.flat(mean)}
        if self.family == "poisson" and self.kind == "response":
            eta = ar.exp(eta)
        return {"prediction": ar.flat(eta)}

    def _linear(self, ar: Arithmetic, x: str, used: np.ndarray) -> str:
        if self.slope.shape[1] == 1:
            if not used.any():
                one = ar.graph.add("Gather", x, ar.graph.const([0], "int64"), axis=1)
                return ar.where(ar.is_missing(one), self.intercept[0], self.intercept[0])
            picked = ar.graph.add("Gather", x, ar.graph.const(np.flatnonzero(used)), axis=1)
            return ar.affine(picked, self.slope[used], self.intercept)
        known = ar.where(ar.is_missing(x), 0.0, x)
        gone = ar.graph.cast(ar.is_missing(x), "float64")
        touched = ar.matmul(gone, (self.slope != 0).astype(np.float64))
        eta = ar.affine(known, self.slope, self.intercept)
        return ar.where(ar.op("Greater", touched, 0.0), np.nan, eta)


def _dense(beta: Any) -> np.ndarray:
    """Turn a dgCMatrix into an array, every index checked."""
    if not isinstance(beta, RObject) or beta.kind != "S4" or beta.classes != ("dgCMatrix",):
        raise ArtifactError("the glmnet model's coefficients are not a sparse matrix")
    rows, columns = (int(v) for v in beta.attribute("Dim").integers())
    i, p, x = beta.attribute("i").integers(), beta.attribute("p").integers(), beta.attribute("x").numbers()
    bad = rows < 0 or columns < 0 or rows * columns > 1 << 27 or len(p) != columns + 1 or len(i) != len(x)
    if bad or p[0] != 0 or p[-1] != len(i) or (np.diff(p) < 0).any() or ((i < 0) | (i >= rows)).any():
        raise ArtifactError("the glmnet model has a malformed sparse matrix")
    out = np.zeros((rows, columns))
    out[i, np.repeat(np.arange(columns), np.diff(p))] = x
    return out


def _row_names(beta: RObject, rows: int) -> tuple[str, ...]:
    names = beta.attribute("Dimnames")
    first = names.value[0] if isinstance(names, RObject) and names.kind == "list" and names.value else None
    return tuple(first.strings()) if isinstance(first, RObject) else tuple(f"V{i + 1}" for i in range(rows))
