"""The quick ways in, compiled once a signature: what satisfies it already goes through, None sends it the long way.

An array or feeds in the right dtype and shape, and one record of plain Python values. Called by `Coercion`, `holds_nan` by
the server too; every problem is found and named by the long way.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping, Sequence
from operator import itemgetter
from typing import Any

import numpy as np

from ..signature import Column, Signature, TensorSpec

__all__ = ["CHUNK_VALUES", "exact_array", "exact_feeds", "holds_nan", "one_row", "record"]

CHUNK_VALUES = 1 << 21  # values of one batch; larger ones go in chunks, so that what lies between stages stays small
_EXACT_FLOAT = float(2**53)
_SINGLE = 1e38  # a sum of sizes below this hides no value beyond float32
_SHAPES = 64
_LARGE = 4096  # values; fewer are searched as quickly as an answer is


def one_row(signature: Signature) -> Callable[[dict[str, np.ndarray]], dict[str, Any]]:
    """Compile the way from outputs of one row to a record: Python scalars, level values, and a row of what has several."""
    readers = {s.name: _reader(s) for s in signature.outputs}
    return lambda results: {name: readers[name](values) for name, values in results.items()}


def _reader(spec: TensorSpec) -> Callable[[np.ndarray], Any]:
    if len(spec.shape) != 1:
        return itemgetter(0)
    if spec.categorical:
        levels = (*(spec.columns[0].categories or ()), None)  # code -1 is missing
        return lambda codes: levels[codes.item(0)]
    return lambda values: values.item(0)


def exact_array(
    signature: Signature, shows_missing: Callable[[], str | None] | None = None
) -> tuple[str, Callable[[Any], bool | str]] | None:
    """Return the only input's name and the test «this array already satisfies it», for batched numeric inputs.

    With `shows_missing` the test may answer the name of an output: the array fits if no NaN shows there.
    """
    if len(signature.inputs) != 1 or signature.inputs[0].categorical:
        return None
    fits = _fits(signature.inputs[0], shows_missing)
    return None if fits is None else (signature.inputs[0].name, fits)


def exact_feeds(signature: Signature) -> Callable[[Mapping[str, Any]], dict[str, np.ndarray] | None] | None:
    """Compile the test «these feeds already satisfy every input», categories as codes."""
    tests = [(s.name, fits) for s in signature.inputs if (fits := _fits(s)) is not None]
    if not tests or len(tests) < len(signature.inputs):
        return None

    def exact(feeds: Mapping[str, Any]) -> dict[str, np.ndarray] | None:
        if len(feeds) != len(tests):
            return None
        out, rows = {}, -1
        for name, fits in tests:
            x = feeds.get(name)
            if not fits(x) or (rows >= 0 and len(x) != rows):  # type: ignore[arg-type]
                return None
            out[name], rows = x, len(x)  # type: ignore[arg-type]
        return out  # type: ignore[return-value]

    return exact


def _fits(spec: TensorSpec, shows_missing: Callable[[], str | None] | None = None) -> Callable[[Any], bool | str] | None:
    """Compile the test «this array satisfies the spec», for numbers and codes whose shape the spec fixes but for `rows`."""
    if not spec.batched or spec.dtype in ("string", "bfloat16") or not all(isinstance(d, int) for d in spec.shape[1:]):
        return None
    dtype, tail, ndim = np.dtype(spec.dtype), spec.shape[1:], len(spec.shape)
    known: set[tuple[int, ...]] = set()  # shapes that passed: one look-up instead of three comparisons
    ndarray, checks_nan = np.ndarray, dtype.kind == "f" and spec.missing == "refuse"
    in_range = _codes_in_range(spec) if spec.categorical else None

    def fits(x: Any) -> bool | str:
        if type(x) is not ndarray or x.dtype is not dtype or not x.flags.carray:
            return False
        shape = x.shape
        if shape not in known:
            if len(shape) != ndim or shape[1:] != tail or not 0 < x.size <= CHUNK_VALUES:
                return False
            if len(known) < _SHAPES:
                known.add(shape)
        if checks_nan:
            if shows_missing is not None and x.size > _LARGE:
                shown = shows_missing()
                if shown is not None:
                    return shown
            return not holds_nan(x)
        return in_range is None or in_range(x)

    return fits


def holds_nan(x: np.ndarray) -> bool:
    """Whether a NaN is among these floats, of which there is at least one."""
    # The place of the least is the first NaN's, where there is one. No reduction starts up, no BLAS thread is woken, no
    # warning is printed, and the answer is a Python float: the quickest search numpy has for up to 30,000 numbers.
    least: float = x.item(x.argmin())
    return least != least


def _codes_in_range(spec: TensorSpec) -> Callable[[np.ndarray], bool]:
    low = -1 if spec.missing == "allow" else 0
    highs = [len(c.categories or ()) - (c.unknown != "keep") for c in spec.columns]
    least, most = np.minimum.reduce, np.maximum.reduce
    one, every = min(highs), np.array(highs, np.int32)

    def in_range(x: np.ndarray) -> bool:
        if least(x, axis=None) < low:
            return False
        return bool(most(x, axis=None) <= one or (x <= every).all())

    return in_range


def record(signature: Signature) -> Callable[[dict], dict[str, np.ndarray] | None] | None:
    """Compile one record of plain Python values to one-row blocks; None sends it the long way round."""
    if not signature.inputs or any(len(s.shape) != 2 or not s.columns or not s.batched for s in signature.inputs):
        return None
    parts: list[tuple[str, Callable[[dict], np.ndarray | None]]] = []
    for spec in signature.inputs:
        part = _record_part(spec)
        if part is None:
            return None
        parts.append((spec.name, part))
    width = len(signature.columns)

    def quick(x: dict) -> dict[str, np.ndarray] | None:
        if len(x) != width:
            return None
        feeds = {}
        try:
            for name, part in parts:
                block = part(x)
                if block is None:
                    return None
                feeds[name] = block
        except (KeyError, TypeError, OverflowError, ValueError):
            return None  # the long way names every problem
        return feeds

    return quick


_PLAIN = frozenset({float, int, np.float64})


def _record_part(spec: TensorSpec) -> Callable[[dict], np.ndarray | None] | None:
    names, k = [c.name for c in spec.columns], len(spec.columns)
    get: Callable[[dict], tuple] = itemgetter(*names) if k > 1 else lambda x, n=names[0]: (x[n],)  # type: ignore[misc]
    if spec.categorical:
        return _record_codes(spec.columns, get)
    if spec.dtype == "string":

        def text(x: dict) -> np.ndarray | None:
            values = get(x)
            if set(map(type, values)) != {str}:
                return None
            out = np.empty((1, k), object)
            out[0] = values
            return out

        return text
    if spec.dtype not in ("float64", "float32") or (spec.dtype == "float32" and spec.rounding == "refuse"):
        return None
    if any(c.unit in ("date", "timestamp") for c in spec.columns):
        return None
    refuse, single, row = spec.missing == "refuse", spec.dtype == "float32", _row(spec.dtype, k)

    def numbers(x: dict) -> np.ndarray | None:
        values = get(x)
        kinds = set(map(type, values))
        if not kinds <= _PLAIN:
            return None
        total = sum(map(abs, values))
        if total != total and (refuse or single or int in kinds):
            return None
        if (total >= _EXACT_FLOAT and int in kinds) or (single and not total < _SINGLE):
            return None
        return row(values)

    return numbers


def _row(dtype: str, k: int) -> Callable[[Sequence], np.ndarray]:
    """Compile k Python numbers to an array of one row: packed by `struct`, a third of what numpy's own way takes."""
    kind = np.dtype(dtype)
    pack, shape, array = struct.Struct(f"{k}{kind.char}").pack, (1, k), np.ndarray
    return lambda values: array(shape, kind, bytearray(pack(*values)))


def _record_codes(columns: tuple[Column, ...], get: Callable[[dict], tuple]) -> Callable[[dict], np.ndarray | None]:
    kinds: dict[str, type] = {"string": str, "int64": int, "bool": bool}
    tables: list[tuple[dict[Any, int], type]] = [
        ({v: i for i, v in enumerate(c.categories or ())}, kinds[c.level_type or "string"]) for c in columns
    ]

    row = _row("int32", len(columns))

    def codes(x: dict) -> np.ndarray | None:
        out = []
        for value, (table, kind) in zip(get(x), tables):
            if type(value) is not kind:
                return None
            out.append(table[value])  # KeyError: the long way
        return row(out)

    return codes
