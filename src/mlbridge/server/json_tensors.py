"""Tensors of the REST protocol: JSON objects with an optional binary tail, to `Incoming` and from `Outgoing`.

Non-finite floats are written as proto3 JSON writes them ("NaN", "Infinity", "-Infinity"); null is a missing value.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from ..errors import InputError, UnsupportedError
from ..runtimes.wire import MISSING, NUMPY, clip, missing_indices, pack_array, raw_array
from .codec import Codec, Decoded, Incoming, Outgoing

__all__ = ["Wanted", "read_request", "write_answer"]

_SPECIAL = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}
_MAX_DEPTH = 32
_CONTROL = ("shared_memory_region", "shared_memory_byte_size", "shared_memory_offset", "classification")


class Wanted(NamedTuple):
    """How an answer over REST is to be written."""

    how: Decoded
    request_id: str
    binary: Mapping[str, bool]  # output name to whether it goes into the tail
    binary_default: bool
    timeout_s: float | None


class _Text(NamedTuple):
    """A JSON string parameter with the face of a protobuf one."""

    string_param: str

    def WhichOneof(self, _: str) -> str:  # noqa: N802 - protobuf's name
        return "string_param" if isinstance(self.string_param, str) else "other"


def read_request(body: bytes, header_length: int | None, codec: Codec) -> Wanted:
    """Read a request body.

    Parameters
    ----------
    body : bytes
        JSON, followed by a binary tail where `header_length` is given.
    header_length : int, optional
        Bytes of the JSON part; 0 means that the whole body is the raw data of the only input.
    codec : Codec
        The model's.

    Raises
    ------
    InputError
        If it does not fit.
    """
    if header_length == 0:
        return _raw_body(body, codec)
    head, tail = (body, memoryview(b"")) if header_length is None else (body[:header_length], memoryview(body)[header_length:])
    if header_length is not None and header_length > len(body):
        raise InputError(f"Inference-Header-Content-Length is {header_length}, the body has {len(body)} bytes")
    data = _object(_parse(head), "the request")
    parameters = _object(data.get("parameters", {}), "parameters")
    codec.refuse_parameters(parameters, ("sequence_id", "sequence_start", "sequence_end"))
    at, incoming = 0, []
    for item in _array(data.get("inputs", []), "inputs"):
        tensor, used = _tensor(_object(item, "an input"), tail[at:], codec)
        at += used
        incoming.append(tensor)
    if at != len(tail):
        raise InputError(f"{len(tail) - at} bytes are left after the inputs' binary data")
    names, codes, binary = _requested(data.get("outputs"), codec)
    feeds, rows = codec.assemble(incoming)
    request_id = data.get("id", "")
    if not isinstance(request_id, str):
        raise InputError("id must be a string")
    how = Decoded(feeds, rows, names, True, codes)
    return Wanted(how, request_id, binary, parameters.get("binary_data_output") is True, _timeout(parameters))


def _timeout(parameters: Mapping[str, Any]) -> float | None:
    value = parameters.get("timeout", 0)
    if type(value) is not int or value < 0:
        raise InputError("the parameter 'timeout' must be a whole number of microseconds")
    return value * 1e-6 or None


def _parse(text: bytes) -> Any:
    def refuse(name: str) -> Any:
        raise InputError(f'{name} is not JSON; write it as the string "{name}"')

    try:
        return json.loads(text, parse_constant=refuse)
    except InputError:
        raise
    except (ValueError, RecursionError) as exc:
        raise InputError("the body is not JSON") from exc


def _object(value: Any, where: str) -> dict:
    if not isinstance(value, dict):
        raise InputError(f"{where} must be a JSON object")
    return value


def _array(value: Any, where: str) -> list:
    if not isinstance(value, list):
        raise InputError(f"{where} must be a JSON array")
    return value


def _raw_body(body: bytes, codec: Codec) -> Wanted:
    inputs = codec.signature.inputs
    if len(inputs) != 1:
        raise InputError("a raw body is for models with one input")
    spec = inputs[0]
    datatype = "BYTES" if spec.dtype == "string" or spec.categorical else next(k for k, v in NUMPY.items() if v == np.dtype(spec.dtype))
    if datatype == "BYTES":
        array = np.array([body], object)
        shape: tuple[int, ...] = (1,) * len(spec.shape)
        array = array.reshape(shape)
    else:
        fixed = math.prod(d for d in spec.shape if isinstance(d, int)) or 1
        open_axes = [i for i, d in enumerate(spec.shape) if not isinstance(d, int)]
        count = len(body) // NUMPY[datatype].itemsize
        shape = tuple(d if isinstance(d, int) else count // fixed if i == open_axes[0] else 1 for i, d in enumerate(spec.shape))
        array = raw_array(body, datatype, shape, f"input {spec.name!r}")
    feeds, rows = codec.assemble([Incoming(spec.name, datatype, array)])
    return Wanted(Decoded(feeds, rows, None, False, frozenset()), "", {}, True, None)


def _tensor(item: dict, tail: memoryview, codec: Codec) -> tuple[Incoming, int]:
    name, datatype, shape = item.get("name"), item.get("datatype"), item.get("shape")
    if not isinstance(name, str) or not isinstance(datatype, str) or not isinstance(shape, list):
        raise InputError("an input needs name, datatype and shape")
    where = f"input {clip(name)}"
    if not all(type(d) is int and abs(d) < 1 << 62 for d in shape):
        raise InputError(f"{where}: shape must be a list of whole numbers")
    parameters = _object(item.get("parameters", {}), f"{where}: parameters")
    codec.refuse_parameters(parameters, _CONTROL)
    size = parameters.get("binary_data_size")
    if size is not None:
        if "data" in item:
            raise InputError(f"{where}: has data beside binary_data_size; send one of them")
        if type(size) is not int or not 0 <= size <= len(tail):
            raise InputError(f"{where}: binary_data_size is {clip(size)}, {len(tail)} bytes are left")
        array = raw_array(bytes(tail[:size]), datatype, shape, where)
        missing: Sequence[int] = []
    else:
        array, missing = _json_array(item.get("data"), datatype, shape, where)
        size = 0
    if MISSING in parameters:
        missing = [*missing, *missing_indices({MISSING: _Text(parameters[MISSING])}, array.size, where)]
    return Incoming(name, datatype, array, missing), size


def _json_array(data: Any, datatype: str, shape: list[int], where: str) -> tuple[np.ndarray, list[int]]:
    """Read nested or flat JSON data; null is missing."""
    if datatype == "BF16":
        raise UnsupportedError(f"{where}: BF16 is not supported; send FP32")
    if datatype != "BYTES" and datatype not in NUMPY:
        raise InputError(f"{where}: there is no datatype {clip(datatype)}")
    flat: list[Any] = []
    _flatten(_array(data, f"{where}: data"), flat, 0, where)
    if any(d < 0 for d in shape) or len(shape) > _MAX_DEPTH or len(flat) != math.prod(shape):
        raise InputError(f"{where}: {len(flat)} elements for shape {shape[:_MAX_DEPTH]}")
    missing = [i for i, v in enumerate(flat) if v is None]
    if datatype == "BYTES":
        if not all(isinstance(v, str) or v is None for v in flat):
            raise InputError(f"{where}: BYTES elements are JSON strings")
        array = np.empty(len(flat), object)
        array[:] = ["" if v is None else v for v in flat]
        return array.reshape(shape), missing
    dtype = NUMPY[datatype].newbyteorder("=")
    if dtype.kind == "b":
        good = all(type(v) is bool or v is None for v in flat)
    elif dtype.kind == "f":
        flat = [_SPECIAL.get(v, v) if isinstance(v, str) else v for v in flat]
        good = all(type(v) in (int, float) or v is None for v in flat)
    else:
        limits = np.iinfo(dtype)
        good = all(v is None or (type(v) is int and limits.min <= v <= limits.max) for v in flat)
    if not good:
        raise InputError(f"{where}: an element is not a {datatype}")
    try:
        values = np.array([0 if v is None else v for v in flat], dtype=np.float64 if dtype.kind == "f" else dtype)
    except OverflowError:
        raise InputError(f"{where}: an element is not a {datatype}") from None
    with np.errstate(over="ignore"):
        return values.astype(dtype).reshape(shape), missing


def _flatten(data: list, out: list, depth: int, where: str) -> None:
    if depth > _MAX_DEPTH:
        raise InputError(f"{where}: data is nested too deep")
    for value in data:
        if isinstance(value, list):
            _flatten(value, out, depth + 1, where)
        elif isinstance(value, dict):
            raise InputError(f"{where}: data holds an object")
        else:
            out.append(value)


def _requested(outputs: Any, codec: Codec) -> tuple[list[str] | None, frozenset[str], dict[str, bool]]:
    if not outputs:
        return None, frozenset(), {}
    names, codes, binary = [], set(), {}
    for item in _array(outputs, "outputs"):
        name = _object(item, "an output").get("name")
        if not isinstance(name, str):
            raise InputError("an output needs a name")
        parameters = _object(item.get("parameters", {}), "an output's parameters")
        codec.refuse_parameters({k: v for k, v in parameters.items() if not (k == "classification" and v == 0)}, _CONTROL)
        if "encoding" in parameters:
            codes |= codec.wants_codes(name, str(parameters["encoding"]))
        if "binary_data" in parameters:
            binary[name] = parameters["binary_data"] is True
        names.append(name)
    return codec.select(names), frozenset(codes), binary


def write_answer(outgoing: Sequence[Outgoing], codec: Codec, wanted: Wanted) -> tuple[bytes, int | None]:
    """Write an answer.

    Returns
    -------
    body : bytes
    header_length : int or None
        Bytes of its JSON part; None where there is no binary tail.
    """
    outputs, tail = [], []
    for out in outgoing:
        item: dict[str, Any] = {"name": out.name, "datatype": out.datatype, "shape": list(out.array.shape)}
        parameters: dict[str, Any] = {}
        if wanted.binary.get(out.name, wanted.binary_default):
            raw = pack_array(out.array, out.datatype)
            parameters["binary_data_size"] = len(raw)
            tail.append(raw)
            if len(out.missing):
                parameters[MISSING] = ",".join(map(str, out.missing))
        else:
            item["data"] = _json_values(out)
        if parameters:
            item["parameters"] = parameters
        outputs.append(item)
    answer = {"model_name": codec.name, "model_version": codec.version, "id": wanted.request_id, "outputs": outputs}
    if not wanted.request_id:
        del answer["id"]
    head = json.dumps(answer, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()
    return (b"".join([head, *tail]), len(head)) if tail else (head, None)


def _json_values(out: Outgoing) -> list:
    flat = out.array.ravel()
    if out.datatype == "BYTES":
        values: list[Any] = [v.decode(errors="replace") for v in flat]
    elif flat.dtype.kind == "f":
        values = [_finite(v) for v in flat.tolist()]
    else:
        values = flat.tolist()
    for i in out.missing:
        values[i] = None
    return values


def _finite(value: float) -> float | str:
    if math.isfinite(value):
        return value
    return "NaN" if value != value else "Infinity" if value > 0 else "-Infinity"
