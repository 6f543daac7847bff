"""Outputs checked against a signature: what a foreign or a user's model answers is not taken on trust."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

import numpy as np

from ..errors import InferenceError, InputError
from ..interfaces import Array
from ..signature import DTYPES, ROWS, Signature, TensorSpec

__all__ = ["fit_outputs", "rows_of"]


@lru_cache(maxsize=256)
def _numpy_dtype(name: str) -> np.dtype:
    return np.dtype(DTYPES[name].numpy or "O").newbyteorder("=")


def rows_of(signature: Signature, feeds: Mapping[str, Array]) -> int | None:
    """Return the size of the symbol `rows` in the feeds, or None where no input has it."""
    for spec in signature.inputs:
        if spec.batched:
            return feeds[spec.name].shape[0]
    return None


def fit_outputs(
    signature: Signature, got: Mapping[str, Any], *, wanted: Sequence[str] | None, rows: int | None, runtime: str
) -> dict[str, Array]:
    """Return the wanted outputs in order, each of its dtype and shape; all problems in one error.

    A dtype is changed only where every value survives (R answers whole numbers as doubles), ("rows", 1) becomes
    ("rows",) and back, arrays become C-contiguous and native-endian.

    Parameters
    ----------
    signature : Signature
        The model's.
    got : mapping of str to array_like
        What the model answered; extra names are left out.
    wanted : sequence of str or None
        The outputs asked for; None is all.
    rows : int or None
        What the symbol `rows` must be.
    runtime : str
        For errors.

    Raises
    ------
    InputError
        If an output is asked for that the signature lacks.
    InferenceError
        If an answer is absent or does not fit.
    """
    specs = signature.outputs if wanted is None else _select(signature, wanted)
    problems: list[str] = []
    out: dict[str, Array] = {}
    for spec in specs:
        if spec.name not in got:
            problems.append(f"output {spec.name!r} is absent; there are {', '.join(map(repr, got)) or 'none'}")
            continue
        try:
            out[spec.name] = _fit(spec, got[spec.name], rows)
        except (TypeError, ValueError) as exc:
            problems.append(f"output {spec.name!r}: {exc}")
    if problems:
        raise InferenceError("the model answered what its signature does not say: " + "; ".join(problems), runtime=runtime)
    return out


def _select(signature: Signature, wanted: Sequence[str]) -> list[TensorSpec]:
    by_name = {s.name: s for s in signature.outputs}
    unknown = [name for name in wanted if name not in by_name]
    if unknown:
        raise InputError(
            f"there is no output {', '.join(map(repr, unknown))}; there are {', '.join(map(repr, by_name))}",
            problems=[f"there is no output {name!r}" for name in unknown],
        )
    return [by_name[name] for name in wanted]


def _fit(spec: TensorSpec, value: Any, rows: int | None) -> Array:
    array = value if type(value) is np.ndarray else np.asarray(value)
    dtype = _numpy_dtype(spec.dtype)
    if array.dtype != dtype:
        array = array.astype(dtype) if spec.rounding == "nearest" and array.dtype.kind == "f" else _cast(array, dtype)
    rank = len(spec.shape)
    if array.ndim != rank:
        if rank == 1 and array.ndim == 2 and array.shape[1] == 1:
            array = array[:, 0]
        elif rank == 2 and array.ndim == 1 and spec.shape[1] == 1:
            array = array[:, None]
        else:
            raise ValueError(f"shape {array.shape}, expected {spec.shape}")
    for size, want in zip(array.shape, spec.shape):
        want = rows if want == ROWS else want
        if isinstance(want, int) and size != want:
            raise ValueError(f"shape {array.shape}, expected {tuple(rows if d == ROWS else d for d in spec.shape)}")
    return array if array.flags.c_contiguous else np.asarray(array, order="C")


def _cast(array: Array, dtype: np.dtype) -> Array:
    if dtype.kind == "O":
        if array.dtype.kind in "UT":
            return array.astype(object)
        raise TypeError(f"dtype {array.dtype}, expected text")
    if array.dtype == object:
        try:
            array = array.astype(dtype if dtype.kind in "fb" else np.float64)
        except (TypeError, ValueError) as exc:
            raise TypeError(f"mixed values, expected {dtype}") from exc
    if array.dtype.kind not in "biuf":
        raise TypeError(f"dtype {array.dtype}, expected {dtype}")
    if np.can_cast(array.dtype, dtype, "safe"):
        return array.astype(dtype)
    with np.errstate(all="ignore"):
        cast = array.astype(dtype)
        back = cast.astype(array.dtype)
    equal = (back == array) | ((back != back) & (array != array)) if array.dtype.kind == "f" else back == array
    if not equal.all():
        raise TypeError(f"dtype {array.dtype}, expected {dtype}, which would change values")
    return cast
