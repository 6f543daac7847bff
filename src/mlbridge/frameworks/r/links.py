"""Links: R's inverse link functions, with the limits R sets so that a mean stays inside its range."""

from __future__ import annotations

import numpy as np

from .arithmetic import Arithmetic
from .robject import RObject
from .values import refuse

__all__ = ["inverse_link"]

_EPSILON = float(np.finfo(np.float64).eps)
_PROBIT_LIMIT = 8.12589066470190  # -qnorm(eps)
_CAUCHIT_LIMIT = 1 / np.tan(np.pi * _EPSILON)  # -qcauchy(eps)


def inverse_link(ar: Arithmetic, link: str, eta: str, family: RObject | None = None) -> str:
    """Return the mean of a linear predictor.

    Parameters
    ----------
    ar : Arithmetic
        Writes the nodes.
    link : str
        As R names it.
    eta : str
        The linear predictor, ("rows", 1).
    family : RObject, optional
        The family object: a power link keeps its exponent in the function's environment.
    """
    _check_own(link, family)
    if link == "identity":
        return eta
    if link == "logit":
        # above 30 R answers 1/(1 + eps), which the sigmoid is within 1e-13; below -30 a constant
        return ar.where(ar.op("Less", eta, -30.0), _EPSILON / (1 + _EPSILON), ar.op("Sigmoid", eta))
    if link == "probit":
        return ar.normal(ar.clamp(eta, -_PROBIT_LIMIT, _PROBIT_LIMIT))
    if link == "cauchit":
        return ar.cauchy(ar.clamp(eta, -_CAUCHIT_LIMIT, _CAUCHIT_LIMIT))
    if link == "cloglog":
        return ar.clamp(ar.op("Neg", ar.expm1(ar.op("Neg", ar.exp(eta)))), _EPSILON, 1 - _EPSILON)
    if link == "log":
        return ar.clamp(ar.exp(eta), _EPSILON)
    if link == "sqrt":
        return ar.mul(eta, eta)
    if link == "inverse":
        return ar.div(1.0, eta)
    if link == "1/mu^2":
        return ar.div(1.0, ar.op("Sqrt", eta))
    if link.startswith("mu^"):
        return ar.clamp(ar.op("Pow", eta, 1 / _exponent(family)), _EPSILON)
    raise refuse(f"the link {link!r}")


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
