"""One model's requests and answers: messages to feeds that satisfy its signature, results to messages.

Compiled once per model. The usual request (raw numbers, exactly the inputs) takes a short way; everything else takes a
long way that names every problem. gRPC and REST share the long way: both bring `Incoming` and send `Outgoing` tensors.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from ..errors import InferenceError, InputError, UnsupportedError
from ..model import Model
from ..runtimes.wire import (
    MISSING,
    NUMPY,
    clip,
    contents_array,
    datatype_of,
    fill_contents,
    inference_pb2,
    missing_indices,
    pack_array,
    raw_array,
    text_values,
)
from ..signature import TensorSpec, level_text
from ..tensors import Coercion, input_error
from .shortcuts import NOTHING, Decoded, Recipe, Writer, kinds_of

__all__ = ["Codec", "Decoded", "Incoming", "Outgoing"]

_INTEGER = re.compile(r"-?[0-9]{1,19}", re.ASCII)
_TRUTH = {"true": True, "false": False}
_MAX_PROBLEMS = 20  # listed in one message; a request can have 100,000
_UNSUPPORTED = ("shared_memory_region", "shared_memory_byte_size", "shared_memory_offset", "classification")
_SEQUENCE = ("sequence_id", "sequence_start", "sequence_end")


class Incoming(NamedTuple):
    """A tensor as a client sent it: BYTES are an object array of bytes or str."""

    name: str
    datatype: str
    array: np.ndarray
    missing: Sequence[int] = ()


class Outgoing(NamedTuple):
    """A tensor as a client gets it: BYTES are an object array of bytes."""

    name: str
    datatype: str
    array: np.ndarray
    missing: Sequence[int] = ()


class Codec:
    """Messages to feeds and results to messages, for one model.

    Parameters
    ----------
    model : Model
        Its signature decides.
    name, version : str
        Written into every answer.
    always_raw : bool
        Answer raw even where the request was typed.
    """

    def __init__(self, model: Model, name: str, version: str, *, always_raw: bool = False) -> None:
        self.signature = model.signature
        self.name, self.version, self._always_raw = name, version, always_raw
        self._coercion = Coercion(model.signature)
        self._blocks = {s.name: s for s in self.signature.inputs}
        self._columns = {c.name: (s, c) for s in self.signature.inputs for c in s.columns}
        self._outputs = {s.name: s for s in self.signature.outputs}
        self._kinds = kinds_of(self.signature)
        self._writer = Writer(name, version, self.signature.outputs)
        self._plain = {s.name: datatype_of(s) for s in self.signature.outputs if not s.categorical and s.dtype != "string"}
        self._half = any(s.dtype == "float16" for s in self.signature.outputs)
        self._levels = {s.name: _level_octets(s) for s in self.signature.outputs if s.categorical and datatype_of(s) == "BYTES"}

    # -------------------------------------------------- in

    def decode(self, request: Any) -> Decoded:
        """Turn a ModelInferRequest into feeds; InputError lists every problem, UnsupportedError names what is not offered."""
        recipe = self.recipe(request)
        how = None if recipe is None else recipe.read(request.raw_input_contents)
        return self._long(request) if how is None else how

    def recipe(self, request: Any) -> Recipe | None:
        """Return how to read the request, and every other of the same head; None where only the long way can."""
        kinds, tensors = self._kinds, request.inputs
        if kinds is None or len(tensors) != len(kinds) or request.parameters:
            return None
        inputs, rows = {}, 0
        for tensor in tensors:
            name, shape = tensor.name, tuple(tensor.shape)
            kind = kinds.get(name)
            if kind is None or name in inputs or tensor.datatype != kind.datatype or tensor.HasField("contents") or tensor.parameters:
                return None
            if not shape or shape[0] < 1 or shape[1:] != kind.tail or (rows and rows != shape[0]):
                return None
            inputs[name], rows = kind, shape[0]
        names, codes = self._requested(request) if request.outputs else (None, NOTHING)
        return Recipe(list(inputs.items()), rows, names, codes)

    def _long(self, request: Any) -> Decoded:
        self.refuse_parameters(request.parameters, _SEQUENCE)
        tensors, raws = request.inputs, request.raw_input_contents
        typed = bool(tensors) and not raws
        if raws and len(raws) != len(tensors):
            raise InputError(f"{len(raws)} raw_input_contents for {len(tensors)} inputs; there must be one per input, in their order")
        problems: list[str] = []
        incoming = []
        for i, tensor in enumerate(tensors):
            where = f"input {clip(tensor.name)}"
            try:
                self.refuse_parameters(tensor.parameters, _UNSUPPORTED)
                if raws and tensor.HasField("contents"):
                    raise InputError(f"{where}: has contents beside raw_input_contents; send one of them")
                array = (
                    contents_array(tensor.contents, tensor.datatype, tensor.shape, where)
                    if typed
                    else raw_array(raws[i], tensor.datatype, tensor.shape, where)
                )
                incoming.append(Incoming(tensor.name, tensor.datatype, array, missing_indices(tensor.parameters, array.size, where)))
            except InputError as exc:
                problems.append(exc.message)
                if len(problems) > _MAX_PROBLEMS:
                    break
        if problems:
            raise input_error(_some(problems))
        names, codes = self._requested(request) if request.outputs else (None, NOTHING)
        feeds, rows = self.assemble(incoming)
        return Decoded(feeds, rows, names, typed, codes)

    def assemble(self, incoming: Iterable[Incoming]) -> tuple[dict[str, np.ndarray], int | None]:
        """Turn tensors, by input or by column, into feeds and their number of rows.

        Raises
        ------
        InputError
            With every problem, at most twenty of them.
        """
        values: dict[str, np.ndarray] = {}
        codes: set[str] = set()
        problems: list[str] = []
        for tensor in incoming:
            where = f"input {clip(tensor.name)}"
            try:
                if tensor.name in values:
                    raise InputError(f"{where}: is sent twice")
                values[tensor.name] = self._value(tensor, codes, where)
            except InputError as exc:
                problems.append(exc.message)
            if len(problems) > _MAX_PROBLEMS:
                break
        if problems:
            raise input_error(_some(problems))
        try:
            feeds, _ = self._coercion.feeds(values, codes=frozenset(codes))
        except InputError as exc:
            if len(exc.problems) <= _MAX_PROBLEMS:
                raise
            raise input_error(_some(exc.problems)) from exc
        return feeds, self.rows(feeds)

    def rows(self, feeds: Mapping[str, np.ndarray]) -> int | None:
        """Return the number of rows of feeds, or None where rows are not independent."""
        return len(feeds[self.signature.inputs[0].name]) if self.signature.batched else None

    def _value(self, tensor: Incoming, codes: set[str], where: str) -> np.ndarray:
        array = tensor.array
        if tensor.name in self._blocks and not self._is_column(tensor.name):
            spec, column = self._blocks[tensor.name], None
            if array.ndim == 0 and spec.shape:
                raise InputError(f"{where}: shape [], expected {len(spec.shape)} axes")
        elif tensor.name in self._columns:
            spec, column = self._columns[tensor.name]
            if array.ndim not in (1, 2) or (array.ndim == 2 and array.shape[1] != 1):
                raise InputError(f"{where}: shape {list(array.shape)}, expected [-1] or [-1,1] for one column")
        else:
            raise InputError(f"{where}: there is no such input or column; the inputs are {_listed(self._blocks)}")
        if spec.categorical:
            return self._level_values(tensor, spec, column, codes, where)
        if tensor.datatype == "BYTES":
            if spec.dtype != "string":
                raise InputError(f"{where}: BYTES, expected {datatype_of(spec)}")
            array = _text(array, where)
        elif spec.dtype == "string":
            raise InputError(f"{where}: {tensor.datatype}, expected BYTES")
        return _with_missing(array, tensor.missing)

    def _is_column(self, name: str) -> bool:
        """Whether a name that is both an input and one of its only columns means the column: it makes no difference."""
        return name in self._columns and self._columns[name][0].name != name

    def _level_values(self, tensor: Incoming, spec: TensorSpec, column: Any, codes: set[str], where: str) -> np.ndarray:
        array, datatype = tensor.array, tensor.datatype
        if datatype == "BYTES":
            kinds = [column] if column is not None else spec.columns
            return _with_missing(_levels(_text(array, where), kinds, tensor.missing, where), tensor.missing)
        if column is None and datatype == "INT32":
            if len(tensor.missing):
                raise InputError(f"{where}: codes write a missing value as -1, not by the parameter 'missing'")
            codes.add(spec.name)
            return array
        single = column if column is not None else spec.columns[0] if len(spec.columns) == 1 else None
        if single is not None and datatype == {"int64": "INT64", "bool": "BOOL"}.get(single.level_type or ""):
            return _with_missing(array, tensor.missing)
        wanted = "BYTES (levels)" + (" or INT32 (codes)" if column is None else "")
        raise InputError(f"{where}: {datatype}, expected {wanted}")

    def refuse_parameters(self, parameters: Any, names: Sequence[str]) -> None:
        """Raise UnsupportedError for a parameter whose meaning this server does not have."""
        for name in names if parameters else ():
            if name not in parameters:
                continue
            value = parameters[name]
            if name not in _SEQUENCE or _truthy(value):
                raise UnsupportedError(f"the parameter {name!r} is not supported")

    def _requested(self, request: Any) -> tuple[list[str] | None, frozenset[str]]:
        codes, names = set(), []
        for tensor in request.outputs:
            names.append(tensor.name)
            if tensor.parameters:
                self.refuse_parameters(tensor.parameters, _UNSUPPORTED)
                if "encoding" in tensor.parameters:
                    codes |= self.wants_codes(tensor.name, tensor.parameters["encoding"].string_param)
        return self.select(names), frozenset(codes)

    def select(self, names: list[str]) -> list[str] | None:
        """Check the outputs asked for; None is all, as they come. InputError names the unknown and the repeated."""
        if len(names) > len(self._outputs) or any(n not in self._outputs for n in names) or len(set(names)) != len(names):
            unknown = [f"there is no output {clip(n)}" for n in names if n not in self._outputs]
            twice = [f"output {clip(n)} is asked for twice" for n in dict.fromkeys(names) if n in self._outputs and names.count(n) > 1]
            raise input_error(_some(unknown + twice), hint=f"the outputs are {_listed(self._outputs)}")
        return None if names == list(self._outputs) else names

    def wants_codes(self, name: str, encoding: str) -> set[str]:
        """Read an output's parameter `encoding`: `codes` or `values`."""
        spec = self._outputs.get(name)
        if encoding == "codes" and spec is not None and spec.categorical:
            return {name}
        if encoding in ("values", "codes") and (encoding == "values" or spec is None):
            return set()
        raise InputError(f"output {clip(name)}: encoding {clip(encoding)}; 'codes' is for categorical outputs, 'values' for all")

    # -------------------------------------------------- out

    def encode(self, results: Mapping[str, np.ndarray], request_id: bytes, how: Decoded) -> bytes:
        """Turn results into a serialized ModelInferResponse, raw or typed as the request was."""
        if not how.typed and not how.codes:
            written = self._writer.write(results, request_id)
            if written is not None:
                return written
        answer = inference_pb2.ModelInferResponse(model_name=self.name, model_version=self.version, id=request_id.decode())
        typed = how.typed and not self._always_raw and not (self._half and any(self._outputs[n].dtype == "float16" for n in results))
        for out in self.outgoing(results, how.codes):
            tensor = answer.outputs.add(name=out.name, datatype=out.datatype, shape=out.array.shape)
            if len(out.missing):
                tensor.parameters[MISSING].string_param = ",".join(map(str, out.missing))
            if typed:
                fill_contents(tensor.contents, out.datatype, out.array)
            else:
                answer.raw_output_contents.append(pack_array(out.array, out.datatype))
        return answer.SerializeToString()

    def outgoing(self, results: Mapping[str, np.ndarray], codes: frozenset[str] = NOTHING) -> list[Outgoing]:
        """Turn results into tensors as clients see them: levels instead of codes, bytes instead of text."""
        out = []
        for name, array in results.items():
            spec = self._outputs[name]
            if spec.categorical and name not in codes:
                out.append(self._levels_out(spec, array))
            elif spec.categorical:
                out.append(Outgoing(name, "INT32", array))
            elif spec.dtype == "string":
                flat = array.ravel()
                missing = [i for i, v in enumerate(flat) if v is None]
                octets = np.empty(flat.size, object)
                octets[:] = [b"" if v is None else v if isinstance(v, bytes) else str(v).encode() for v in flat]
                out.append(Outgoing(name, "BYTES", octets.reshape(array.shape), missing))
            else:
                out.append(Outgoing(name, self._plain[name], array))
        return out

    def _levels_out(self, spec: TensorSpec, codes: np.ndarray) -> Outgoing:
        datatype, width = datatype_of(spec), len(spec.columns)
        flat = codes.ravel()
        if datatype == "BYTES":
            tables = self._levels[spec.name]
            octets = np.empty(flat.size, object)
            gone = []
            for i, code in enumerate(flat.tolist()):
                table = tables[i % width]
                known = 0 <= code < len(table)
                octets[i] = table[code] if known else b""
                if not known:
                    gone.append(i)
            array = octets
        else:
            levels = spec.columns[0].categories or ()
            gone = np.flatnonzero((flat < 0) | (flat >= len(levels))).tolist()
            array = np.zeros(flat.size, NUMPY[datatype])
            keep = np.ones(flat.size, bool)
            keep[gone] = False
            array[keep] = np.array(levels, NUMPY[datatype])[flat[keep]]
        if gone and spec.missing == "refuse" and not all(c.unknown == "keep" for c in spec.columns):
            raise InferenceError(f"output {spec.name!r}: a code outside its levels, and the signature says none is missing")
        return Outgoing(spec.name, datatype, array.reshape(codes.shape), gone)


def _truthy(value: Any) -> bool:
    """Whether a parameter says anything: clients write zeros where they mean nothing."""
    if not hasattr(value, "WhichOneof"):
        return bool(value)
    kind = value.WhichOneof("parameter_choice")
    return kind is not None and bool(getattr(value, kind))


def _level_octets(spec: TensorSpec) -> list[list[bytes]]:
    return [[level_text(v).encode() for v in c.categories or ()] for c in spec.columns]


def _text(array: np.ndarray, where: str) -> np.ndarray:
    if array.size and isinstance(array.flat[0], str):
        return array  # REST brings text already
    return text_values(array, where)


def _levels(array: np.ndarray, columns: Sequence[Any], missing: Sequence[int], where: str) -> np.ndarray:
    """Read level values from their text, column by column of the last axis."""
    if all(c.level_type == "string" for c in columns):
        return array
    out, gone, width = array.ravel().copy(), set(missing), len(columns)
    for i, text in enumerate(out):
        kind = columns[i % width].level_type
        if i in gone or kind == "string":
            continue
        if kind == "bool" and text in _TRUTH:
            out[i] = _TRUTH[text]
        elif kind == "int64" and _INTEGER.fullmatch(text):
            out[i] = int(text)
        else:
            want = "true or false" if kind == "bool" else "a decimal integer"
            raise InputError(f"{where}: element {i} is {clip(text)}, expected {want}")
    return out.reshape(array.shape)


def _with_missing(array: np.ndarray, missing: Sequence[int]) -> np.ndarray:
    if not len(missing):
        return array
    if array.dtype.kind == "f":
        out = array.copy()
        out.reshape(-1)[list(missing)] = np.nan
        return out
    out = array.astype(object)
    flat = out.reshape(-1)
    for i in missing:
        flat[i] = None
    return out


def _listed(names: Iterable[str]) -> str:
    shown = [clip(n) for n in names]
    return ", ".join(shown[:10]) + (f" and {len(shown) - 10} more" if len(shown) > 10 else "")


def _some(problems: Sequence[str]) -> list[str]:
    left = len(problems) - _MAX_PROBLEMS
    return [*problems[:_MAX_PROBLEMS], *([f"and {left} more"] if left > 0 else [])]
