"""The quick ways in, compiled once a signature: what satisfies it already goes through, None sends it the long way.

An array or feeds in the right dtype and shape, and one record of plain Python values. Called by `Coercion`, `holds_nan` by
the server too; every problem is found and named by the long way.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping, Sequence
from math import fsum
from operator import getitem, itemgetter
from typing import Any

import numpy as np

from ..signature import Signature, TensorSpec

__all__ = [
    "CHUNK_VALUES",
    "Writer",
    "exact_array",
    "exact_feeds",
    "holds_nan",
    "read_arrays",
    "read_row",
    "record",
    "row_reader",
    "write_array",
    "write_record",
]

Writer = Callable[[Any, Sequence[np.ndarray]], bool]  # writes what was asked into the inputs, in their order, and says whether it could

CHUNK_VALUES = 1 << 21  # values of one batch; larger ones go in chunks, so that what lies between stages stays small
_EXACT = float(2**53 - 1)  # whole numbers up to here are floats
_SINGLE = 1e38  # a sum of sizes below this hides no value beyond float32
_SHAPES = 64
_KINDS = 1024  # combinations of types remembered a model
_LARGE = 4096  # values; fewer are searched as quickly as an answer is


def read_row(signature: Signature) -> Callable[[Sequence[np.ndarray]], dict[str, Any]]:
    """Compile the way from outputs of one row to a record of its own: Python scalars, level values, and a row of what has several."""
    return _named([(s.name, _reader(s)) for s in signature.outputs])


def row_reader(signature: Signature) -> Callable[[dict[str, np.ndarray]], dict[str, Any]]:
    """Compile the same for outputs by name, some or all."""
    readers = {s.name: _reader(s) for s in signature.outputs}
    return lambda results: {name: readers[name](values) for name, values in results.items()}


def _reader(spec: TensorSpec) -> Callable[[np.ndarray], Any]:
    if len(spec.shape) != 1:
        return lambda values: values[0].copy()
    if spec.categorical:
        levels = (*(spec.columns[0].categories or ()), None)  # code -1 is missing
        return lambda codes: levels[codes.item()]
    return np.ndarray.item


def read_arrays(signature: Signature, decoders: Mapping[str, Callable]) -> Callable[[Sequence[np.ndarray]], dict[str, np.ndarray]]:
    """Compile the way from outputs to arrays of their own by name, codes decoded."""
    return _named([(s.name, decoders.get(s.name, np.ndarray.copy)) for s in signature.outputs])


def _named(ways: Sequence[tuple[str, Callable[[np.ndarray], Any]]]) -> Callable[[Sequence[np.ndarray]], dict[str, Any]]:
    """Compile outputs, each read in its way, to a dict; one and two are written out, for a loop costs as much as their reading."""
    (first, read), (second, read_second) = ways[0], ways[-1]
    if len(ways) == 1:
        return lambda results: {first: read(results[0])}
    if len(ways) == 2:
        return lambda results: {first: read(results[0]), second: read_second(results[1])}
    return lambda results: {name: way(values) for (name, way), values in zip(ways, results)}


def write_array(signature: Signature) -> Writer | None:
    """Compile the way of an array into the only input, for batched numeric ones; the caller has seen that its shape fits."""
    if len(signature.inputs) != 1 or signature.inputs[0].categorical or _fits(signature.inputs[0]) is None:
        return None
    dtype = np.dtype(signature.inputs[0].dtype)
    checks_nan = dtype.kind == "f" and signature.inputs[0].missing == "refuse"

    def write(x: np.ndarray, blocks: Sequence[np.ndarray]) -> bool:
        if x.dtype is not dtype:
            return False
        block = blocks[0]
        block[...] = x
        return not checks_nan or (x.size <= _LARGE and not holds_nan(block))

    return write


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


def record(signature: Signature, write: Writer) -> Callable[[dict], dict[str, np.ndarray] | None]:
    """Compile one record of plain Python values to one-row blocks; None sends it the long way round."""
    names, array = [s.name for s in signature.inputs], np.ndarray
    blanks = [((1, len(s.columns)), np.dtype(object if s.dtype == "string" else s.dtype)) for s in signature.inputs]

    def quick(x: dict) -> dict[str, np.ndarray] | None:
        blocks = [array(shape, dtype) for shape, dtype in blanks]
        return dict(zip(names, blocks)) if write(x, blocks) else None

    return quick


def write_record(signature: Signature) -> Writer | None:
    """Compile the way of one record of plain Python values into one-row blocks; what it refuses goes the long way round."""
    specs = signature.inputs
    if not specs or any(len(s.shape) != 2 or not s.columns or not s.batched for s in specs) or not all(map(_packs, specs)):
        return None
    ends = np.cumsum([len(s.columns) for s in specs]).tolist()
    spans = [slice(end - len(s.columns), end) for s, end in zip(specs, ends)]
    parts = [(span, _packer(s), _tables(s)) for s, span in zip(specs, spans)]
    lone, (_, only, levels) = len(parts) == 1, parts[0]
    names, width = [c.name for s in specs for c in s.columns], ends[-1]
    get: Callable[[dict], tuple] = itemgetter(*names) if width > 1 else lambda x, n=names[0]: (x[n],)  # type: ignore[misc]
    known: dict[tuple[type, ...], tuple[tuple[slice, float], ...]] = {}  # what to look at in values of these types

    def write(x: dict, blocks: Sequence[np.ndarray]) -> bool:
        if len(x) != width:
            return False
        try:
            values = get(x)
            kinds = tuple(map(type, values))
            checks = known.get(kinds)
            if checks is None:
                checks = _checks(specs, spans, kinds)
                if checks is None:
                    return False
                if len(known) < _KINDS:
                    known[kinds] = checks
            for span, most in checks:
                # fsum raises where numpy's numbers would warn of an overflow; only sum counts integers exactly
                if not fsum(map(abs, values[span])) <= most or (int in kinds and not sum(map(abs, values[span])) <= most):
                    return False
            if lone:
                only(blocks[0], 0, *(values if levels is None else map(getitem, levels, values)))  # KeyError: the long way
                return True
            for block, (span, pack, tables) in zip(blocks, parts):
                some = values[span]
                pack(block, 0, *(some if tables is None else map(getitem, tables, some)))
        except (KeyError, TypeError, OverflowError, ValueError, struct.error):
            return False  # the long way names every problem
        return True

    return write


_PLAIN = frozenset({float, int, np.float64})
_LEVELS = {"string": str, "int64": int, "bool": bool}


def _packs(spec: TensorSpec) -> bool:
    if spec.categorical or spec.dtype == "string":
        return True
    rounds = spec.dtype == "float64" or (spec.dtype == "float32" and spec.rounding != "refuse")
    return rounds and not any(c.unit in ("date", "timestamp") for c in spec.columns)


def _packer(spec: TensorSpec) -> Callable[..., None]:
    """Return what writes a block's row: `struct` takes a third of numpy's own time for it."""
    if spec.dtype == "string":
        return _put_texts
    return struct.Struct(f"{len(spec.columns)}{np.dtype(spec.dtype).char}").pack_into


def _put_texts(block: np.ndarray, _: int, *values: str) -> None:
    block[0] = values


def _tables(spec: TensorSpec) -> list[dict[Any, int]] | None:
    return [{v: i for i, v in enumerate(c.categories or ())} for c in spec.columns] if spec.categorical else None


def _checks(specs: Sequence[TensorSpec], spans: Sequence[slice], kinds: tuple[type, ...]) -> tuple[tuple[slice, float], ...] | None:
    """Return which values' sizes may sum up to what, for a record of these types; None where one is not plain."""
    out = []
    for spec, span in zip(specs, spans):
        some = kinds[span]
        if spec.categorical:
            if any(kind is not _LEVELS[c.level_type or "string"] for kind, c in zip(some, spec.columns)):
                return None
        elif spec.dtype == "string":
            if set(some) != {str}:
                return None
        elif not _PLAIN.issuperset(some):
            return None
        elif int in some or spec.dtype == "float32" or spec.missing == "refuse":  # no NaN passes the comparison
            exact = _EXACT if int in some else np.inf
            out.append((span, min(exact, _SINGLE) if spec.dtype == "float32" else exact))
    return tuple(out)
