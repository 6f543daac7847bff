"""Links: R's inverse link functions, with the limits R sets so that a mean stays inside its range."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from .arithmetic import NORMAL_STEPS, Arithmetic
from .robject import RObject
from .values import refuse

__all__ = ["inverse_link"]

_STEEP, _FLAT = 2.0**46 - 1, 1e-20  # one more is a power of two: the steep line meets the other at -30 exactly
_EPSILON = float(np.finfo(np.float64).eps)
_PROBIT_LIMIT = 8.12589066470190  # -qnorm(eps)
_CAUCHIT_LIMIT = 1 / np.tan(np.pi * _EPSILON)  # -qcauchy(eps)


def inverse_link(ar: Arithmetic, link: str, predictor: Callable[..., str], family: RObject | None = None) -> str:
    """Return the mean of a linear predictor.

    Parameters
    ----------
    ar : Arithmetic
        Writes the nodes.
    link : str
        As R names it.
    predictor : callable
        Returns the linear predictor, ("rows",); or lines of it, given as slopes and intercepts, side by side.
    family : RObject, optional
        The family object: a power link keeps its exponent in the function's environment.
    """
    _check_own(link, family)
    if link == "logit":
        # Above 30 R answers 1/(1 + eps), which the sigmoid is within 1e-13; below -30 a constant. So steep a line cuts it there.
        bent = _one(ar, "ReduceMin", predictor([(1.0, 0.0), (1.0 + _STEEP, 30.0 * _STEEP)]))
        return ar.clamp(ar.op("Sigmoid", bent), _EPSILON / (1 + _EPSILON))
    if link == "log":  # the constant line leans: a constant would be 0 times an infinite value
        return ar.exp(_one(ar, "ReduceMax", predictor([(1.0, 0.0), (_FLAT, np.log(_EPSILON))])))
    if link == "sqrt":
        return _one(ar, "ReduceSumSquare", predictor([(1.0, 0.0)]))
    if link == "probit":
        steps = predictor([(float(NORMAL_STEPS), 0.0)])
        return ar.normal_between(ar.clamp(steps, -_PROBIT_LIMIT * NORMAL_STEPS, _PROBIT_LIMIT * NORMAL_STEPS))
    eta = predictor()
    if link == "identity":
        return eta
    if link == "cauchit":
        return ar.cauchy(ar.clamp(eta, -_CAUCHIT_LIMIT, _CAUCHIT_LIMIT))
    if link == "cloglog":
        half = ar.op("Tanh", ar.mul(ar.exp(eta), 0.5))  # 1 - exp(-2t) is 2 tanh(t) / (1 + tanh(t)), without cancellation
        return ar.clamp(ar.div(ar.add(half, half), ar.add(half, 1.0)), _EPSILON, 1 - _EPSILON)
    if link == "inverse":
        return ar.op("Reciprocal", eta)
    if link == "1/mu^2":
        return ar.op("Reciprocal", ar.op("Sqrt", eta))
    if link.startswith("mu^"):
        return ar.clamp(ar.op("Pow", eta, 1 / _exponent(family)), _EPSILON)
    raise refuse(f"the link {link!r}")


def _one(ar: Arithmetic, op: str, lines: str) -> str:
    """Reduce lines side by side to one number a row, ("rows",)."""
    return ar.graph.add(op, lines, ar.graph.const([1], "int64"), keepdims=0)


def _check_own(link: str, family: RObject | None) -> None:
    """Refuse a link function that is not R's own, whatever it calls itself."""
    function = family.get("linkinv") if family is not None else None
    environment = function.value["environment"] if isinstance(function, RObject) and function.kind == "closure" else None
    if isinstance(environment, RObject) and isinstance(environment.value, dict):
        environment = environment.value.get("enclosure")  # a power link has an environment of its own
    place = environment.value if isinstance(environment, RObject) else None
    if family is not None and (not isinstance(place, tuple) or place[:1] != ("stats",)):
        raise refuse(f"the link {link!r}, a function that is not R's own")


def _exponent(family: RObject | None) -> float:
    function = family.get("linkinv") if family is not None else None
    environment = function.value["environment"] if isinstance(function, RObject) and function.kind == "closure" else None
    found = environment.frame().get("lambda") if isinstance(environment, RObject) else None
    if isinstance(found, RObject) and found.kind == "promise":
        found = found.value.get("value")
    if not isinstance(found, RObject) or found.kind not in ("double", "integer") or not np.isfinite(found.scalar()) or found.scalar() == 0:
        raise refuse("a power link whose exponent the file does not hold")
    return found.scalar()
