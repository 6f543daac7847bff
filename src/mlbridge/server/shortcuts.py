"""The short ways through the codec: what the usual request and the usual answer are, found out once and remembered.

A request's head (all of it but the raw numbers) decides how it is read, an answer's shapes decide its head. Everything
unusual answers None here and takes the codec's long way, which names what is wrong.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from ..runtimes.wire import ID, NUMPY, RAW_OUT, datatype_of, field, inference_pb2, join_bytes
from ..signature import Signature, TensorSpec, level_text
from ..tensors.compiled import holds_nan

__all__ = ["NOTHING", "Decoded", "Kind", "Recipe", "Writer", "kinds_of"]

NOTHING: frozenset[str] = frozenset()
_FEW = 64
_MAX_HEADS = 256  # shapes of answers whose heads are kept
_Tensor = inference_pb2.ModelInferResponse.InferOutputTensor


class Decoded(NamedTuple):
    """A request ready to run, and how its answer is to be written."""

    feeds: dict[str, np.ndarray]
    rows: int | None  # of the batch axis; None where the model has none
    names: list[str] | None  # outputs asked for; None is all
    typed: bool
    codes: frozenset[str]  # outputs asked for as codes


class Kind(NamedTuple):
    """An input that has a short way: plain numbers, all sizes but the rows fixed."""

    datatype: str
    dtype: np.dtype
    tail: tuple[int, ...]
    row_bytes: int
    refuses_nan: bool


def kinds_of(signature: Signature) -> dict[str, Kind] | None:
    """Return the inputs' kinds; None where one of them needs the long way."""
    if not signature.batched:
        return None
    kinds = {}
    for spec in signature.inputs:
        if spec.categorical or spec.dtype in ("string", "bool") or not all(isinstance(d, int) for d in spec.shape[1:]):
            return None
        dtype = np.dtype(spec.dtype)
        tail: tuple[int, ...] = tuple(int(d) for d in spec.shape[1:])  # type: ignore[arg-type]
        row_bytes = dtype.itemsize * int(np.prod(tail, dtype=np.int64))
        if not row_bytes:
            return None
        refuses = dtype.kind == "f" and spec.missing == "refuse"
        kinds[spec.name] = Kind(datatype_of(spec), dtype, tail, row_bytes, refuses)
    return kinds


class Recipe:
    """How raw contents become feeds, for all requests of one head.

    Parameters
    ----------
    inputs : sequence of (str, Kind)
        In the request's order.
    rows : int
        Of each.
    names, codes
        As in `Decoded`.

    Attributes
    ----------
    rows : int
    all : bool
        Whether all outputs are asked for, in the model's own order.
    """

    __slots__ = ("_codes", "_inputs", "_names", "all", "rows")

    def __init__(self, inputs: Sequence[tuple[str, Kind]], rows: int, names: list[str] | None, codes: frozenset[str]) -> None:
        self._inputs = [(name, k.dtype, (rows, *k.tail), rows * k.row_bytes, k.refuses_nan) for name, k in inputs]
        self.rows, self._names, self._codes, self.all = rows, names, codes, names is None

    def read(self, raws: Sequence[bytes]) -> Decoded | None:
        """Return the request; None if the long way must say what is wrong with it."""
        if len(raws) != len(self._inputs):
            return None
        feeds = {}
        for raw, (name, dtype, shape, size, refuses_nan) in zip(raws, self._inputs):
            if len(raw) != size:
                return None
            flat = np.frombuffer(raw, dtype)
            if refuses_nan and _holds_nan(raw, flat):
                return None
            feeds[name] = flat.reshape(shape)
        return Decoded(feeds, self.rows, self._names, False, self._codes)


def _holds_nan(raw: bytes, flat: np.ndarray) -> bool:
    if flat.size <= _FEW and flat.itemsize > 2:
        # For few numbers, look at their highest bytes: numpy's start costs more than they do, and it gives the interpreter away.
        # A NaN's is 7f or ff; so is a huge number's, which is looked at again.
        tops = raw[flat.itemsize - 1 :: flat.itemsize]
        if 0x7F not in tops and 0xFF not in tops:
            return False
    return holds_nan(flat)


class Writer:
    """Writes raw answers of one model as bytes.

    Parameters
    ----------
    name, version : str
        Written into every answer.
    outputs : sequence of TensorSpec
        The signature's.
    """

    def __init__(self, name: str, version: str, outputs: Sequence[TensorSpec]) -> None:
        self._start = inference_pb2.ModelInferResponse(model_name=name, model_version=version).SerializeToString()
        self._datatypes = {s.name: datatype_of(s) for s in outputs}
        self._packers = {s.name: _packer(s) for s in outputs}
        self._heads: dict[tuple, bytes] = {}

    def write(self, results: Mapping[str, np.ndarray], request_id: bytes) -> bytes | None:
        """Return a ModelInferResponse; None where an element is missing or an output is text."""
        shapes, packers = [], self._packers
        parts = [self._start]
        if request_id:
            parts.append(field(ID, request_id))
        at = len(parts)
        for name, array in results.items():
            pack = packers[name]
            raw = array.tobytes() if pack is None else pack(array)
            if raw is None:
                return None
            shapes.append((name, array.shape))
            parts.append(field(RAW_OUT, raw))
        key = tuple(shapes)
        head = self._heads.get(key)
        parts.insert(at, self._head(key) if head is None else head)
        return b"".join(parts)

    def _head(self, key: tuple) -> bytes:
        tensors = [_Tensor(name=name, datatype=self._datatypes[name], shape=shape) for name, shape in key]
        if len(self._heads) >= _MAX_HEADS:
            self._heads.clear()
        head = self._heads[key] = inference_pb2.ModelInferResponse(outputs=tensors).SerializeToString()
        return head


def _packer(spec: TensorSpec) -> Callable[[np.ndarray], bytes | None] | None:
    """Return how an output is written raw; None is as it is. The function answers None where an element is missing."""
    if spec.dtype == "string" or (spec.categorical and len(spec.columns) > 1):
        return lambda array: None
    if not spec.categorical:
        return None
    datatype = datatype_of(spec)
    levels = spec.columns[0].categories or ()
    if datatype == "BYTES":
        table = {i: join_bytes([level_text(v).encode()]) for i, v in enumerate(levels)}
    else:
        table = {i: np.array([v], NUMPY[datatype]).tobytes() for i, v in enumerate(levels)}

    def pack(array: np.ndarray) -> bytes | None:
        try:
            return b"".join([table[code] for code in array.ravel().tolist()])
        except KeyError:
            return None

    return pack
