"""One array to one spec: dtypes, categories, dates, missing values, rounding; and level codes back to values.

Every function appends what it finds to `problems` and returns None when the values cannot be used. Containers
(tables, dicts, records) are `containers.py`.
"""

from __future__ import annotations

import datetime
import math
import numbers
from collections.abc import Callable
from typing import Any

import numpy as np

from ..signature import Column, TensorSpec

__all__ = ["as_array", "check_codes", "coerce", "decode", "decoder", "encode"]

_EXACT = {"float64": 2**53, "float32": 2**24, "float16": 2**11, "bfloat16": 2**8}  # integers up to here are exact
_FOREIGN = {
    "torch": "x.detach().cpu().numpy()",
    "tensorflow": "x.numpy()",
    "jax": "numpy.asarray(x)",
    "jaxlib": "numpy.asarray(x)",
    "scipy": "x.toarray()",
}
_SHOWN = 5  # levels and positions shown in one message


def as_array(value: Any, where: str, problems: list[str]) -> np.ndarray | None:
    """Return a plain ndarray of what numpy, a list or a scalar holds; objects stay objects."""
    if type(value) is np.ndarray:
        return value
    root = type(value).__module__.split(".")[0]
    if root in _FOREIGN and not isinstance(value, np.ndarray):
        kind = "a sparse matrix" if root == "scipy" else f"a {root} {type(value).__name__}"
        problems.append(f"{where}: {kind} is not taken; pass {_FOREIGN[root]}")
        return None
    if isinstance(value, np.ma.MaskedArray):
        return _unmask(value, where, problems)
    if isinstance(value, (dict, set)) or (callable(value) and not hasattr(value, "__array__")):
        problems.append(f"{where}: {type(value).__name__} is not an array")
        return None
    if hasattr(value, "cat") and hasattr(value, "to_list"):  # a pandas or polars categorical series: its values
        value = value.to_list()
    try:
        return np.asarray(value) if not _holds_text(value) else np.asarray(value, dtype=object)
    except (ValueError, TypeError) as exc:
        problems.append(f"{where}: {uneven(value) or f'not an array: {exc}'}")
        return None


def stacked(rows: np.ndarray) -> np.ndarray:
    """Return a column of vectors (lists, arrays, Spark's own) of one length as a matrix; anything else as it is."""
    vectors = [v.toArray() if hasattr(v, "toArray") else v for v in rows]
    if not all(isinstance(v, (list, tuple, np.ndarray)) and np.ndim(v) == 1 for v in vectors) or len({len(v) for v in vectors}) != 1:
        return rows
    return np.array(vectors)


def uneven(rows: Any) -> str | None:
    """Say that rows are of different lengths, where they are."""
    if not isinstance(rows, (list, tuple, np.ndarray)) or not all(isinstance(r, (list, tuple, np.ndarray)) for r in rows):
        return None
    lengths = [1 if isinstance(r, np.ndarray) and not r.ndim else len(r) for r in rows]
    if len(set(lengths)) < 2:
        return None
    shown = ", ".join(map(str, lengths[:5])) + (", …" if len(lengths) > 5 else "")
    return f"its rows have different lengths ({shown}); pad each to {max(lengths)}, with None where values may be missing"


def _holds_text(value: Any) -> bool:
    """Whether numpy would turn mixed values into text (1 and 'a' into '1' and 'a')."""
    while isinstance(value, (list, tuple)) and value:
        if any(isinstance(v, (str, bytes)) or v is None for v in value):
            return True
        value = value[0]
    return False


def _unmask(value: Any, where: str, problems: list[str]) -> np.ndarray | None:
    if not np.ma.is_masked(value):
        return np.asarray(value.data)
    if value.dtype.kind in "biuf":
        return np.asarray(value.astype(np.float64).filled(np.nan))
    return np.asarray(value.astype(object).filled(None))


def coerce(
    values: np.ndarray, spec: TensorSpec, where: str, problems: list[str], *, column: Column | None = None, codes: bool = False
) -> np.ndarray | None:
    """Turn an array of any shape into the spec's dtype under its rules.

    Parameters
    ----------
    values : ndarray
        User values, or codes where `codes`.
    spec : TensorSpec
        Gives dtype, missing and rounding rules.
    where : str
        How messages name it: `input 'features', column 'age'`.
    problems : list of str
        Appended to.
    column : Column, optional
        The column these values are; for a whole block with categories call once a column.
    codes : bool
        Categorical values are codes already.

    Returns
    -------
    ndarray or None
        Same shape; None if there was a problem.
    """
    if column is not None and column.categories is not None:
        if codes:
            got = _number(values, spec, where, problems)
            return None if got is None else check_codes(got, column, spec.missing, where, problems)
        return encode(values, column, spec.missing, where, problems)
    if spec.dtype == "string":
        return _text(values, spec, where, problems)
    if values.dtype.kind in "mM" or (column is not None and column.unit in ("date", "timestamp") and values.dtype == object):
        dated = _dates(values, column.unit if column else None, where, problems)
        if dated is None:
            return None
        values = dated
    if values.dtype == object:
        plain = _numbers_of(values, where, problems)
        if plain is None:
            return None
        values = plain
    return _number(values, spec, where, problems)


def _at(mask: np.ndarray) -> str:
    index = [int(i) for i in np.argwhere(mask)[0]]
    return f"row {index[0]}" if len(index) == 1 else f"{tuple(index)}" if index else "the scalar"


def _count(mask: np.ndarray, what: str) -> str:
    n = int(np.count_nonzero(mask))
    return f"{n} {what}{'s' if n > 1 else ''}, first at {_at(mask)}"


def is_missing(value: Any) -> bool:
    """Whether a Python value means missing: None, NaN, NaT, pandas.NA."""
    if value is None:
        return True
    if isinstance(value, float):
        return math.isnan(value)
    if type(value).__name__ in ("NAType", "NaTType"):
        return True
    return isinstance(value, (np.floating, np.datetime64)) and bool(value != value)


def _numbers_of(values: np.ndarray, where: str, problems: list[str]) -> np.ndarray | None:
    """Turn an object array of numbers and missing values into a numeric one."""
    flat, kinds, has_missing, has_int = values.ravel(), set(), False, False
    for v in flat:
        if is_missing(v):
            has_missing = True
        elif isinstance(v, (bool, np.bool_, numbers.Real)) and not isinstance(v, str):
            has_int |= isinstance(v, numbers.Integral)
        else:
            kinds.add(type(v).__name__)
    if kinds:
        problems.append(f"{where}: holds {', '.join(sorted(kinds))}, expected numbers")
        return None
    try:
        if not has_missing and has_int and all(isinstance(v, numbers.Integral) for v in flat):
            return np.array([int(v) for v in flat], dtype=np.int64).reshape(values.shape)
        big = [v for v in flat if isinstance(v, numbers.Integral) and abs(int(v)) > _EXACT["float64"]]
        if big:
            problems.append(f"{where}: {big[0]} is beyond 2**53 and has no exact float64")
            return None
        return np.array([math.nan if is_missing(v) else float(v) for v in flat]).reshape(values.shape)
    except OverflowError:
        problems.append(f"{where}: an integer does not fit into 64 bits")
        return None


def _number(values: np.ndarray, spec: TensorSpec, where: str, problems: list[str]) -> np.ndarray | None:
    target, kind = np.dtype(spec.dtype), values.dtype.kind
    if kind not in "biuf":
        what = {"U": "text", "S": "bytes", "c": "complex numbers", "V": "records", "O": "objects", "T": "text"}.get(kind, str(values.dtype))
        problems.append(f"{where}: holds {what}, expected {spec.dtype}")
        return None
    if values.dtype == target:
        out: np.ndarray | None = values.astype(target, copy=False)
    elif target.kind == "f":
        out = _to_float(values, target, spec, where, problems)
    else:
        out = _to_integer(values, target, where, problems)
    if out is not None and target.kind == "f" and spec.missing == "refuse":
        mask = np.isnan(out)
        if mask.any():
            problems.append(f"{where}: {_count(mask, 'missing value')}; the model refuses missing values")
            return None
    return out


def _to_float(values: np.ndarray, target: np.dtype, spec: TensorSpec, where: str, problems: list[str]) -> np.ndarray | None:
    with np.errstate(over="ignore", invalid="ignore"):  # a signalling NaN is a NaN, not a warning
        out = values.astype(target)
    if np.can_cast(values.dtype, target, "safe") and not (values.dtype.kind in "iu" and values.dtype.itemsize == 8):
        return out
    overflow = np.isinf(out) & np.isfinite(values)
    if overflow.any():
        problems.append(f"{where}: {_count(overflow, 'value')} is too large for {target.name}")
        return None
    if values.dtype.kind in "iu":
        limit = _EXACT[target.name]
        inexact = (values > limit) | (values < -limit) if values.dtype.kind == "i" else values > limit
        if (spec.rounding == "refuse" or target.name == "float64") and inexact.any():
            problems.append(f"{where}: {_count(inexact, 'integer')}, is beyond {limit} and has no exact {target.name}")
            return None
    elif spec.rounding == "refuse":
        inexact = (out.astype(values.dtype) != values) & ~np.isnan(values)
        if inexact.any():
            problems.append(
                f"{where}: {_count(inexact, 'value')}, would be rounded to {target.name}; cast on purpose with mlbridge.cast({target.name!r})"
            )
            return None
    return out


def _to_integer(values: np.ndarray, target: np.dtype, where: str, problems: list[str]) -> np.ndarray | None:
    if values.dtype.kind == "b" or np.can_cast(values.dtype, target, "safe"):
        return values.astype(target)
    low, high = (0, 1) if target.kind == "b" else (int(np.iinfo(target).min), int(np.iinfo(target).max))
    if values.dtype.kind == "f":
        values = values.astype(np.float64) if values.dtype == np.float16 else values  # float16 ends below the integers' limits
        with np.errstate(invalid="ignore"):
            nan = np.isnan(values)
            # `high + 1` is a power of two and so exact in floating point; `high` itself may not be
            bad = ~nan & ((values != np.floor(values)) | (values < low) | (values >= float(high + 1)))
        if nan.any():
            problems.append(f"{where}: {_count(nan, 'missing value')}; {target.name} has no missing value")
            return None
    else:
        bad = np.zeros(values.shape, bool)
        if values.dtype.kind == "i" and np.iinfo(values.dtype).min < low:
            bad |= values < low
        if np.iinfo(values.dtype).max > high:
            bad |= values > high
    if bad.any():
        problems.append(f"{where}: {_count(bad, 'value')}, has no exact {target.name}: {values[bad].ravel()[0]!s}")
        return None
    return values.astype(target)


def _text(values: np.ndarray, spec: TensorSpec, where: str, problems: list[str]) -> np.ndarray | None:
    if values.dtype.kind in "UT":
        return values.astype(object)
    if not values.size:  # an empty list is of no type
        return values.astype(object)
    if values.dtype != object:
        problems.append(f"{where}: holds {values.dtype.name}, expected text")
        return None
    out, flat, kinds, missing = np.empty(values.shape, object), values.ravel(), set(), np.zeros(values.size, bool)
    target = out.reshape(-1)
    for i, v in enumerate(flat):
        if isinstance(v, str):
            target[i] = str(v) if type(v) is not str else v
        elif is_missing(v):
            target[i], missing[i] = None, True
        else:
            kinds.add(type(v).__name__)
    if kinds:
        hint = "; decode it first" if "bytes" in kinds else ""
        problems.append(f"{where}: holds {', '.join(sorted(kinds))}, expected text{hint}")
        return None
    if spec.missing == "refuse" and missing.any():
        problems.append(f"{where}: {_count(missing.reshape(values.shape), 'missing value')}; the model refuses missing values")
        return None
    return out


# ---------------------------------------------------------------- categories


def encode(values: np.ndarray, column: Column, missing: str, where: str, problems: list[str]) -> np.ndarray | None:
    """Turn level values into int32 codes: -1 missing, 0..k-1 levels, k unknown where kept."""
    levels = column.categories or ()
    table = {v: i for i, v in enumerate(levels)}
    wanted = column.level_type
    out = np.empty(values.size, np.int32)
    unknown: dict[Any, int] = {}
    kinds: set[str] = set()
    for i, v in enumerate(values.ravel().tolist()):
        code = _code(v, table, wanted, len(levels))
        if code == _WRONG_TYPE:
            kinds.add(type(v).__name__)
        elif code == len(levels):
            unknown.setdefault(v, i)
        out[i] = code if code is not None else -2
    before = len(problems)
    if kinds:
        problems.append(f"{where}: holds {', '.join(sorted(kinds))}, expected levels of type {wanted}: {_some(levels)}")
    if unknown and column.unknown == "refuse":
        first = next(iter(unknown.values()))
        problems.append(
            f"{where}: unknown level{'s' if len(unknown) > 1 else ''} {_some(list(unknown))}, first at row {first}; known are {_some(levels)}"
        )
    if missing == "refuse" and (out == -1).any():
        problems.append(f"{where}: {_count(out.reshape(values.shape) == -1, 'missing value')}; the model refuses missing values")
    return out.reshape(values.shape) if len(problems) == before else None


_WRONG_TYPE = -3


def _code(value: Any, table: dict, wanted: str | None, unknown: int) -> int:
    if isinstance(value, str):
        return table.get(value, unknown) if wanted == "string" else _WRONG_TYPE
    if is_missing(value):
        return -1
    if isinstance(value, (bool, np.bool_)):
        return table.get(bool(value), unknown) if wanted == "bool" else _WRONG_TYPE
    if wanted == "bool" and isinstance(value, numbers.Real) and value in (0, 1):
        return table.get(bool(value), unknown)
    if isinstance(value, numbers.Real) and wanted == "int64":
        whole = float(value)
        return table.get(int(value), unknown) if whole.is_integer() else unknown  # type: ignore[call-overload]  # a Real has __int__ or __trunc__
    return _WRONG_TYPE


def _some(levels: Any) -> str:
    shown = ", ".join(repr(v) for v in list(levels)[:_SHOWN])
    return shown + (f", … ({len(levels)} in all)" if len(levels) > _SHOWN else "")


def check_codes(codes: np.ndarray, column: Column, missing: str, where: str, problems: list[str]) -> np.ndarray | None:
    """Check int32 codes against a column's levels and rules."""
    k = len(column.categories or ())
    low, high = (-1 if missing == "allow" else 0), (k if column.unknown == "keep" else k - 1)
    bad = (codes < low) | (codes > high)
    if not bad.any():
        return codes
    value = int(codes[bad].ravel()[0])
    why = (
        "a missing value, which the model refuses"
        if value == -1
        else f"an unknown level; codes go up to {k - 1}"
        if value == k
        else f"not in {low}..{high}"
    )
    problems.append(f"{where}: {_count(bad, 'code')}: {value} is {why}")
    return None


def decoder(column: Column, missing: str) -> Callable[[np.ndarray], np.ndarray]:
    """Compile the way from codes back to level values; code -1 becomes None."""
    levels = np.empty(len(column.categories or ()) + 1, object)
    levels[:-1] = column.categories
    levels[-1] = None  # code -1 indexes it
    if column.level_type == "string" or not column.categories:
        return levels.take if missing == "refuse" else levels.__getitem__
    typed = np.array(column.categories, dtype=np.bool_ if column.level_type == "bool" else np.int64)
    if missing == "refuse":
        return typed.take

    def with_missing(codes: np.ndarray) -> np.ndarray:
        # the least by its place: of few codes the quickest search, as in `holds_nan`
        return levels[codes] if codes.size and codes.item(codes.argmin()) < 0 else typed[codes]

    return with_missing


def decode(codes: np.ndarray, column: Column) -> np.ndarray:
    """Return the level values of codes; None where missing."""
    return decoder(column, "allow")(codes)


# ---------------------------------------------------------------- dates

_EPOCH = datetime.date(1970, 1, 1)


def _dates(values: np.ndarray, unit: str | None, where: str, problems: list[str]) -> np.ndarray | None:
    """Turn dates and times into float64 days or seconds; other objects come back as they are."""
    if unit not in ("date", "timestamp"):
        problems.append(f"{where}: holds dates, and the model knows no date here; convert them to numbers")
        return None
    if values.dtype.kind == "M":
        if unit == "timestamp":
            problems.append(f"{where}: naive times; give them a time zone (in pandas: tz_localize('UTC'))")
            return None
        days = values.astype("datetime64[D]")
        if ((days != values) & ~np.isnat(values)).any():
            problems.append(f"{where}: times of day where dates are expected; round them to days first")
            return None
        return np.where(np.isnat(values), np.nan, days.astype(np.int64).astype(np.float64))
    if values.dtype.kind == "m":
        problems.append(f"{where}: durations where {unit}s are expected")
        return None
    out = np.empty(values.size, object)
    bad: set[str] = set()
    for i, v in enumerate(values.ravel()):
        out[i] = _moment(v, unit, bad)
    if bad:
        problems.append(f"{where}: {'; '.join(sorted(bad))}")
        return None
    return out.reshape(values.shape)


def _moment(value: Any, unit: str, bad: set[str]) -> Any:
    if is_missing(value):
        return None
    if isinstance(value, datetime.datetime):
        if unit == "timestamp":
            if value.tzinfo is None:
                bad.add("naive times; give them a time zone")
                return None
            return value.timestamp()
        if (value.hour, value.minute, value.second, value.microsecond) != (0, 0, 0, 0):
            bad.add("times of day where dates are expected; round them to days first")
            return None
        value = value.date()
    if isinstance(value, datetime.date):
        if unit == "timestamp":
            bad.add("dates where times are expected; a date has no time zone")
            return None
        return float((value - _EPOCH).days)
    return value
