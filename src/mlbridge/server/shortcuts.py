"""The short ways through the codec, compiled once per model: the usual request and the usual outputs.

Everything unusual answers None here and takes the codec's long way, which names what is wrong.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from ..runtimes.wire import NUMPY, datatype_of, join_bytes
from ..signature import Signature, TensorSpec, level_text

__all__ = ["NOTHING", "Decoded", "Plan", "compile_single", "packer", "plan_inputs"]

NOTHING: frozenset[str] = frozenset()


class Decoded(NamedTuple):
    """A request ready to run, and how its answer is to be written."""

    feeds: dict[str, np.ndarray]
    rows: int | None  # of the batch axis; None where the model has none
    names: list[str] | None  # outputs asked for; None is all
    typed: bool
    codes: frozenset[str]  # outputs asked for as codes


class Plan(NamedTuple):
    """The short way of one input."""

    datatype: str
    dtype: np.dtype
    rank: int
    tail: tuple[int, ...]
    row_bytes: int
    refuses_nan: bool


def plan_inputs(signature: Signature) -> dict[str, Plan] | None:
    """Plan the short way; None where an input needs the long one."""
    if not signature.batched:
        return None
    plans = {}
    for spec in signature.inputs:
        if spec.categorical or spec.dtype in ("string", "bool") or not all(isinstance(d, int) for d in spec.shape[1:]):
            return None
        dtype = np.dtype(spec.dtype)
        tail: tuple[int, ...] = tuple(int(d) for d in spec.shape[1:])  # type: ignore[arg-type]
        row_bytes = dtype.itemsize * int(np.prod(tail, dtype=np.int64))
        if not row_bytes:
            return None
        refuses = dtype.kind == "f" and spec.missing == "refuse"
        plans[spec.name] = Plan(datatype_of(spec), dtype, len(spec.shape), tail, row_bytes, refuses)
    return plans


def compile_single(name: str, plan: Plan) -> Callable[[Any], Decoded | None]:
    """Compile the shortest way: one numeric input, raw, all outputs, nothing unusual; None sends it the longer way."""
    datatype, dtype, tail, row_bytes, refuses = plan.datatype, plan.dtype, list(plan.tail), plan.row_bytes, plan.refuses_nan
    frombuffer, smallest = np.frombuffer, np.minimum.reduce

    def single(request: Any) -> Decoded | None:
        raws, tensors = request.raw_input_contents, request.inputs
        if len(raws) != 1 or len(tensors) != 1 or request.outputs or request.parameters:
            return None
        tensor, raw = tensors[0], raws[0]
        rows = len(raw) // row_bytes
        shape = [rows, *tail]
        if not rows or tensor.name != name or tensor.datatype != datatype or tensor.shape != shape or len(raw) != rows * row_bytes:
            return None
        if tensor.HasField("contents") or tensor.parameters:
            return None
        array = frombuffer(raw, dtype)
        if refuses:
            # Not a dot product: that gives the GIL away, and among many threads it takes long to get back.
            least = smallest(array)
            if least != least:
                return None
        return Decoded({name: array.reshape(shape)}, rows, None, False, NOTHING)

    return single


def packer(spec: TensorSpec) -> Callable[[np.ndarray], bytes | None] | None:
    """Return how an output is written raw; None is as it is. The function answers None where an element is missing."""
    if spec.dtype == "string":
        return lambda array: None
    if not spec.categorical:
        return None
    datatype = datatype_of(spec)
    if len(spec.columns) > 1:
        return lambda array: None
    levels = spec.columns[0].categories or ()
    if datatype == "BYTES":
        table = [join_bytes([level_text(v).encode()]) for v in levels]
    else:
        table = [np.array([v], NUMPY[datatype]).tobytes() for v in levels]
    known = len(table)

    def pack(array: np.ndarray) -> bytes | None:
        codes = array.ravel().tolist()
        if min(codes, default=0) < 0 or max(codes, default=-1) >= known:
            return None
        return b"".join([table[c] for c in codes])

    return pack
