"""caret's preProcess: the steps it applies to numeric columns, in its own order."""

from __future__ import annotations

from typing import Any

import numpy as np

from .arithmetic import Arithmetic
from .robject import RObject
from .values import Numeric, refuse

__all__ = ["apply_preprocess"]

_KNOWN = frozenset(
    {"center", "scale", "range", "BoxCox", "YeoJohnson", "expoTrans", "invHyperbolicSine", "pca", "ica", "spatialSign", "medianImpute"}
    | {"ignore", "remove", "zv", "nzv", "corr", "conditionalX", "keep"}
)


_YEO_JOHNSON_FUDGE = 0.001  # powers this near 0 and 2 count as them


def apply_preprocess(ar: Arithmetic, steps: RObject | None, columns: dict[str, Any], *, complete: bool) -> dict[str, Any]:
    """Return the columns after preprocessing.

    Parameters
    ----------
    ar : Arithmetic
        Writes the nodes.
    steps : RObject or None
        The fit's `preProcess`.
    columns : dict of str to Numeric or Factor
        The columns before, by name.
    complete : bool
        Whether rows with a missing value were dropped before: imputation then has nothing to do.
    """
    if steps is None:
        return columns
    method = {n: v.strings() if v is not None else [] for n, v in zip(steps["method"].names, steps["method"].value)}
    odd = sorted(set(method) - _KNOWN - ({"knnImpute", "bagImpute"} if complete else set()))
    if odd:
        raise refuse(f"preProcess with {', '.join(odd)}")
    out = {n: v for n, v in columns.items() if n not in method.get("remove", [])}
    for column in method.get("invHyperbolicSine", []):
        x = _number(out, column)
        out[column] = Numeric(ar.log(ar.add(x, ar.op("Sqrt", ar.add(ar.mul(x, x), 1.0)))))
    _box_cox(ar, steps, out)
    _yeo_johnson(ar, steps, out)
    _manly(ar, steps, out)
    _range(ar, steps, method.get("range", []), out)
    for name, key, op in (("center", "mean", ar.sub), ("scale", "std", ar.div)):
        chosen, values = method.get(name, []), _by_name(steps.get(key))
        if chosen:
            _replace(ar, out, chosen, op(_block(ar, out, chosen), np.array([[values[c] for c in chosen]])))
    if not complete:
        medians = _by_name(steps.get("median"))
        for column in method.get("medianImpute", []):
            x = _number(out, column)
            out[column] = Numeric(ar.where(ar.is_missing(x), medians[column], x))
    _rotate(ar, steps, method, out)
    _spatial_sign(ar, method.get("spatialSign", []), out)
    return out


def _block(ar: Arithmetic, columns: dict[str, Any], names: list[str]) -> str:
    return ar.columns([_number(columns, n) for n in names])


def _replace(ar: Arithmetic, columns: dict[str, Any], names: list[str] | tuple[str, ...], block: str) -> None:
    columns.update({n: Numeric(v) for n, v in ar.split(block, names).items()})


def _number(columns: dict[str, Any], name: str) -> str:
    value = columns.get(name)
    if not isinstance(value, Numeric):
        raise refuse(f"preProcess over {name!r}, which is not a numeric column")
    return value.name


def _by_name(values: RObject | None) -> dict[str, float]:
    if values is None:
        return {}
    return dict(zip(values.names, (float(v) for v in values.numbers())))


def _box_cox(ar: Arithmetic, steps: RObject, out: dict[str, Any]) -> None:
    found = steps.get("bc")
    for name, one in zip(found.names, found.value) if isinstance(found, RObject) else ():
        power, fudge = one["lambda"].scalar(), one["fudge"].scalar()
        x = _number(out, name)
        if np.isnan(power) or abs(power - 1) < fudge:
            continue
        out[name] = Numeric(ar.log(x) if abs(power) < fudge else ar.div(ar.sub(ar.op("Pow", x, power), 1.0), power))


def _yeo_johnson(ar: Arithmetic, steps: RObject, out: dict[str, Any]) -> None:
    for name, power in _by_name(steps.get("yj")).items():
        if np.isnan(power):
            continue
        x = _number(out, name)
        above, below = ar.add(x, 1.0), ar.sub(1.0, x)
        high = ar.log(above) if abs(power) < _YEO_JOHNSON_FUDGE else ar.div(ar.sub(ar.op("Pow", above, power), 1.0), power)
        rest = 2 - power
        low = ar.log(below) if abs(rest) < _YEO_JOHNSON_FUDGE else ar.div(ar.sub(ar.op("Pow", below, rest), 1.0), rest)
        out[name] = Numeric(ar.where(ar.op("Less", x, 0.0), ar.op("Neg", low), high))


def _manly(ar: Arithmetic, steps: RObject, out: dict[str, Any]) -> None:
    found = steps.get("et")
    for name, one in zip(found.names, found.value) if isinstance(found, RObject) else ():
        power = one["lambda"].scalar()
        if not np.isnan(power) and power != 0:
            out[name] = Numeric(ar.div(ar.sub(ar.exp(ar.mul(_number(out, name), power)), 1.0), power))


def _range(ar: Arithmetic, steps: RObject, names: list[str], out: dict[str, Any]) -> None:
    if not names:
        return
    limits, bounds = steps["ranges"], steps.get("rangeBounds")
    low, high = bounds.numbers() if isinstance(bounds, RObject) else (0.0, 1.0)
    order, table = limits.dimnames[1], limits.array()
    smallest, largest = table[:, [order.index(n) for n in names]]
    scaled = ar.div(ar.sub(_block(ar, out, names), smallest[None]), ((largest - smallest) / (high - low))[None])
    _replace(ar, out, names, ar.add(scaled, low))


def _rotate(ar: Arithmetic, steps: RObject, method: dict[str, list[str]], out: dict[str, Any]) -> None:
    for way in ("pca", "ica"):
        names = method.get(way, [])
        if not names:
            continue
        if method.get("keep") or any(n in method.get("spatialSign", []) for n in names):
            raise refuse("preProcess that keeps columns beside their components")
        weights, labels = _components(steps, way)
        scores = ar.matmul(_block(ar, out, names), weights)
        for name in names:
            del out[name]
        _replace(ar, out, labels, scores)


def _components(steps: RObject, way: str) -> tuple[np.ndarray, tuple[str, ...]]:
    if way == "ica":
        unmixing = steps["ica"]["K"].array() @ steps["ica"]["W"].array()
        return unmixing, tuple(f"ICA{j + 1}" for j in range(unmixing.shape[1]))
    rotation = steps["rotation"]
    if len(rotation.dim) < 2:  # caret drops the matrix of one component
        return rotation.array()[:, None], ("PC1",)
    labels = rotation.dimnames[1] or ()
    return rotation.array(), ("PC1",) if len(labels) == 1 else labels


def _spatial_sign(ar: Arithmetic, names: list[str], out: dict[str, Any]) -> None:
    if not names:
        return
    block = _block(ar, out, names)
    square = ar.total(ar.mul(block, block))
    scaled = ar.where(ar.op("Greater", square, 0.0), ar.div(block, ar.op("Sqrt", square)), ar.mul(block, 0.0))
    _replace(ar, out, names, scaled)
