"""Tensors of the Open Inference Protocol: arrays to message contents and back, raw and typed.

Shared by `runtimes/grpc.py` (client) and `server/`. Everything that comes from outside is checked here before numpy
sees it: sizes, counts, ranges, text. What a signature makes of the tensors is not here (`server/codec.py`, `tensors`).
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np

from ..errors import InputError, UnsupportedError
from ..signature import DTYPES, TensorSpec
from ._proto import inference_pb2, mlbridge_pb2
from ._proto._pool import POOL

__all__ = [
    "BRIDGE",
    "ID",
    "MISSING",
    "NUMPY",
    "POOL",
    "RAW_IN",
    "RAW_OUT",
    "SERVICE",
    "Parted",
    "clip",
    "contents_array",
    "datatype_of",
    "field",
    "fill_contents",
    "inference_pb2",
    "join_bytes",
    "level_datatype",
    "missing_indices",
    "mlbridge_pb2",
    "pack_array",
    "part",
    "raw_array",
    "split_bytes",
    "tensor_array",
    "text_values",
    "varint",
]

SERVICE = "inference.GRPCInferenceService"
BRIDGE = "mlbridge.v1.Bridge"
MISSING = "missing"  # name of the tensor parameter that lists missing elements
ID, RAW_IN, RAW_OUT = 0x1A, 0x3A, 0x32  # first bytes of the fields id, raw_input_contents and raw_output_contents
NUMPY: dict[str, np.dtype] = {d.oip: np.dtype(d.numpy) for d in DTYPES.values() if d.numpy and d.oip != "BYTES"}

_MAX_RANK = 32  # numpy takes 64; nobody means more than a handful
_MAX_ELEMENTS = 1 << 48  # products beyond are attacks, and this keeps numpy's own arithmetic from overflowing
_MAX_RAWS = 64  # a message with more raw contents is read by protobuf, which is faster at that
_MAX_NAME = 128  # longer names break HTTP/2 trailers when echoed
_LENGTH = struct.Struct("<I")
_FIELD = {
    "BOOL": "bool_contents",
    "INT8": "int_contents",
    "INT16": "int_contents",
    "INT32": "int_contents",
    "INT64": "int64_contents",
    "UINT8": "uint_contents",
    "UINT16": "uint_contents",
    "UINT32": "uint_contents",
    "UINT64": "uint64_contents",
    "FP32": "fp32_contents",
    "FP64": "fp64_contents",
    "BYTES": "bytes_contents",
}
_FIELDS = tuple(dict.fromkeys(_FIELD.values()))
_INDICES = re.compile(r"[0-9]{1,18}(,[0-9]{1,18})*", re.ASCII)


def clip(name: Any) -> str:
    """Quote a caller's name for a message, cut at 128 characters, without control characters."""
    text = str(name)
    text = text if len(text) <= _MAX_NAME else text[:_MAX_NAME] + "…"
    return repr(text)


def datatype_of(spec: TensorSpec) -> str:
    """Return the protocol's datatype of a tensor as clients see it: category levels, not codes.

    Examples
    --------
    >>> datatype_of(TensorSpec("x", "float64", ("rows", 2)))
    'FP64'
    """
    return level_datatype(spec) if spec.categorical else DTYPES[spec.dtype].oip


def level_datatype(spec: TensorSpec) -> str:
    """Return how a categorical tensor's levels travel: BYTES in a block, else by the levels' type."""
    if len(spec.shape) > 1 or not spec.columns:
        return "BYTES"
    return {"int64": "INT64", "bool": "BOOL"}.get(spec.columns[0].level_type or "string", "BYTES")


# ---------------------------------------------------------------- sizes


def _elements(shape: Sequence[int], where: str) -> int:
    if len(shape) > _MAX_RANK:
        raise InputError(f"{where}: {len(shape)} axes, at most {_MAX_RANK} are accepted")
    total = largest = 1
    for size in shape:
        if size < 0:
            raise InputError(f"{where}: shape {list(shape)[:_MAX_RANK]} has a negative size")
        total *= size
        largest *= size or 1
    if largest > _MAX_ELEMENTS:
        raise InputError(f"{where}: shape {list(shape)} is too large")
    return total


def _known(datatype: str, where: str) -> None:
    if datatype == "BF16":
        raise UnsupportedError(f"{where}: BF16 is not supported; send FP32")
    if datatype not in NUMPY and datatype != "BYTES":
        raise InputError(f"{where}: there is no datatype {clip(datatype)}; there are {', '.join((*NUMPY, 'BYTES'))}")


# ---------------------------------------------------------------- raw


def raw_array(raw: bytes, datatype: str, shape: Sequence[int], where: str) -> np.ndarray:
    """Read one raw tensor: a read-only view of the bytes, or an object array of bytes for BYTES.

    Parameters
    ----------
    raw : bytes
        Row-major, little-endian; each BYTES element after its length in 4 bytes.
    datatype : str
        The protocol's name.
    shape : sequence of int
        Sizes, first axis first.
    where : str
        How messages name the tensor.

    Returns
    -------
    ndarray
        Of that shape.

    Raises
    ------
    InputError
        If bytes, datatype and shape do not agree.
    """
    shape = tuple(shape)
    count = _elements(shape, where)
    _known(datatype, where)
    if datatype == "BYTES":
        return _objects(split_bytes(raw, count, where), shape)
    dtype = NUMPY[datatype]
    if len(raw) != count * dtype.itemsize:
        raise InputError(f"{where}: {len(raw)} bytes, expected {count * dtype.itemsize} for {datatype}{list(shape)}")
    if not count:
        return np.empty(shape, dtype.newbyteorder("="))
    if datatype == "BOOL":
        octets = np.frombuffer(raw, np.uint8)
        if octets.max() > 1:
            raise InputError(f"{where}: a BOOL is a byte 0 or 1, not {int(octets.max())}")
    return np.frombuffer(raw, dtype).reshape(shape)


def split_bytes(raw: bytes, count: int, where: str) -> list[bytes]:
    """Part a raw BYTES tensor into its elements; InputError if they are not exactly `count`."""
    if count * 4 > len(raw):  # before anything is built: a short message cannot claim many elements
        raise InputError(f"{where}: {len(raw)} bytes cannot hold {count} BYTES elements; each takes 4 bytes and its content")
    out: list[bytes] = []
    at, end, read = 0, len(raw), _LENGTH.unpack_from
    while at < end and len(out) <= count:
        if end - at < 4:
            raise InputError(f"{where}: the length of element {len(out)} is cut short")
        (size,) = read(raw, at)
        at += 4
        if size > end - at:
            raise InputError(f"{where}: element {len(out)} has {size} bytes, {end - at} are left")
        out.append(raw[at : at + size])
        at += size
    if len(out) != count or at != end:
        raise InputError(f"{where}: {'more than ' if len(out) > count else ''}{min(len(out), count)} BYTES elements, expected {count}")
    return out


def join_bytes(elements: Iterable[bytes]) -> bytes:
    """Write a raw BYTES tensor.

    Examples
    --------
    >>> join_bytes([b"a", b""])
    b'\\x01\\x00\\x00\\x00a\\x00\\x00\\x00\\x00'
    """
    pack, parts = _LENGTH.pack, []
    for e in elements:
        parts.append(pack(len(e)))
        parts.append(e)
    return b"".join(parts)


def _objects(elements: Sequence[Any], shape: tuple[int, ...]) -> np.ndarray:
    out = np.empty(len(elements), object)
    out[:] = elements
    return out.reshape(shape)


# ---------------------------------------------------------------- typed


def contents_array(contents: Any, datatype: str, shape: Sequence[int], where: str) -> np.ndarray:
    """Read one typed tensor from its InferTensorContents; as `raw_array`.

    Raises
    ------
    InputError
        If a field of another datatype is filled, the count is not the shape's, or a number is out of range.
    """
    shape = tuple(shape)
    count = _elements(shape, where)
    _known(datatype, where)
    if datatype not in _FIELD:
        raise InputError(f"{where}: {datatype} has no typed contents; send it raw")
    right = _FIELD[datatype]
    for name in _FIELDS:
        if name != right and len(getattr(contents, name)):
            raise InputError(f"{where}: {datatype} belongs into {right}, and {name} is filled")
    values = getattr(contents, right)
    if len(values) != count:
        raise InputError(f"{where}: {len(values)} elements, expected {count} for {datatype}{list(shape)}")
    if datatype == "BYTES":
        return _objects(list(values), shape)
    dtype = NUMPY[datatype].newbyteorder("=")
    if dtype.kind in "iu" and dtype.itemsize < 4 and count:
        wide = np.fromiter(values, np.int64, count)
        limits = np.iinfo(dtype)
        if wide.min() < limits.min or wide.max() > limits.max:
            raise InputError(f"{where}: a number is out of the range of {datatype}, {limits.min}..{limits.max}")
        return wide.astype(dtype).reshape(shape)
    return np.fromiter(values, dtype, count).reshape(shape)


def fill_contents(contents: Any, datatype: str, values: np.ndarray) -> None:
    """Write an array into an InferTensorContents; BYTES from an array of bytes."""
    getattr(contents, _FIELD[datatype]).extend(values.ravel().tolist())  # a list: protobuf reads an ndarray item by item, 100 times slower


# ---------------------------------------------------------------- either


def tensor_array(tensor: Any, raw: bytes | None, where: str) -> np.ndarray:
    """Read a tensor message with its raw bytes, or its typed contents where there are none."""
    if raw is None:
        return contents_array(tensor.contents, tensor.datatype, tensor.shape, where)
    return raw_array(raw, tensor.datatype, tensor.shape, where)


def pack_array(array: np.ndarray, datatype: str) -> bytes:
    """Write an array as raw bytes; BYTES from an object array of str or bytes, None as empty."""
    if datatype == "BYTES":
        return join_bytes([_octets(v) for v in array.ravel().tolist()])
    return np.ascontiguousarray(array, NUMPY[datatype]).tobytes()


def _octets(value: Any) -> bytes:
    return value if type(value) is bytes else b"" if value is None else str(value).encode()


def text_values(array: np.ndarray, where: str) -> np.ndarray:
    """Turn an object array of bytes into one of str; InputError where they are not UTF-8."""
    out = np.empty(array.size, object)
    for i, value in enumerate(array.ravel()):
        try:
            out[i] = value.decode()
        except UnicodeDecodeError:
            raise InputError(f"{where}: element {i} is not UTF-8 text") from None
    return out.reshape(array.shape)


def missing_indices(parameters: Any, size: int, where: str) -> list[int]:
    """Read a tensor's parameter `missing`: the flat row-major indices of missing elements."""
    if MISSING not in parameters:
        return []
    parameter = parameters[MISSING]
    if parameter.WhichOneof("parameter_choice") != "string_param" or len(parameter.string_param) > 20 * max(size, 1):
        raise InputError(f"{where}: the parameter 'missing' must be a string of indices within the tensor")
    text = parameter.string_param
    if not text:
        return []
    if not _INDICES.fullmatch(text):
        raise InputError(f"{where}: the parameter 'missing' must be decimal indices joined by commas")
    out = [int(t) for t in text.split(",")]
    if max(out) >= size:
        raise InputError(f"{where}: the parameter 'missing' names element {max(out)} of {size}")
    return out


def metadata_shape(spec: TensorSpec) -> list[int]:
    """Return a spec's shape as the protocol writes it: -1 for any size."""
    return [d if isinstance(d, int) else -1 for d in spec.shape]


# ---------------------------------------------------------------- the bytes themselves


class Parted(NamedTuple):
    """A message in three: all but id and raw contents, the id, the raw contents."""

    head: bytes
    id: bytes
    raws: list[bytes]


def part(message: bytes, tag: int) -> Parted | None:
    """Part a serialized ModelInferRequest or -Response without parsing it; None where raw contents are not all at its end.

    Fields are independent of each other, so messages of equal heads differ in id and raw contents only: what was
    found out about one head holds for all of them. A head may be malformed; only protobuf tells.

    Parameters
    ----------
    message : bytes
        As it came.
    tag : int
        `RAW_IN` or `RAW_OUT`.

    Examples
    --------
    >>> part(field(0x0A, b"m") + field(ID, b"7") + field(RAW_IN, b"abcd"), RAW_IN)
    Parted(head=b'\\n\\x01m', id=b'7', raws=[b'abcd'])
    """
    at, end, id_at, id_from, id_to = 0, len(message), 0, 0, 0
    raws: list[bytes] = []
    try:
        while (kind := message[at]) != tag:
            if kind & 0x87 != 2 or (kind == ID and id_to):
                return None
            size, start = message[at + 1], at + 2
            if size > 127:
                size, start = varint(message, at + 1)
            if kind == ID:
                id_at, id_from, id_to = at, start, start + size
            at = start + size
        head = message[:id_at] + message[id_to:at] if id_to else message[:at]
        while at < end:
            if message[at] != tag or len(raws) == _MAX_RAWS:
                return None
            size, start = message[at + 1], at + 2
            if size > 127:
                size, start = varint(message, at + 1)
            at = start + size
            raws.append(message[start:at])
    except IndexError:
        return None
    return Parted(head, message[id_from:id_to], raws) if at == end else None


def field(tag: int, content: bytes) -> bytes:
    """Write a length-delimited field.

    Examples
    --------
    >>> field(0x0A, b"m")
    b'\\n\\x01m'
    """
    size = len(content)
    if size < 128:
        return bytes((tag, size)) + content
    out = bytearray((tag,))
    while size > 127:
        out.append(size & 127 | 128)
        size >>= 7
    out.append(size)
    return bytes(out) + content


def varint(message: bytes, at: int) -> tuple[int, int]:
    """Read a variable-length number; returns it and where the next thing begins. IndexError where the message ends."""
    value = shift = 0
    while True:
        byte = message[at]
        at += 1
        value |= (byte & 127) << shift
        if byte < 128 or shift > 63:
            return value, at
        shift += 7
