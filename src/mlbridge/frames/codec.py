"""Bytes to named arrays and back: one frame, no socket."""

from __future__ import annotations

import struct
import sys
from collections.abc import Iterator, Mapping
from enum import IntEnum
from functools import lru_cache
from math import prod
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from ..errors import ArtifactError, BridgeError, InputError, StatusCode
from ..interfaces import Array
from ..signature import DTYPES

if TYPE_CHECKING:
    from .layout import Layout

__all__ = [
    "FRAME_VERSION",
    "HEADER_BYTES",
    "MAX_PAYLOAD",
    "Frame",
    "FrameType",
    "decode_frame",
    "decode_header",
    "decode_payload",
    "encode_frame",
    "encode_parts",
]

FRAME_VERSION = 1  # the protocol version of HELLO
MAX_PAYLOAD = 2**31 - 1  # Java's and R's longest array of bytes
_MAX_TENSORS = 1 << 16  # a frame of a model has a few; more is an attack
_MAX_NAME = 1 << 16  # bytes
_MAX_RANK = 32
_MAX_ELEMENTS = 2**31  # also bounds shapes that hold a zero
_MISSING = 0xFFFFFFFF
_MAGIC = b"MLB1"
_COLUMN_MAJOR = 1
_JOIN_BELOW = 1 << 16  # bytes under which one copy costs less than a second system call

_HEADER = struct.Struct("<4sBBHII")
HEADER_BYTES = _HEADER.size
_COUNT = struct.Struct("<II")
_U32 = struct.Struct("<I")
_DIMS = [struct.Struct(f"<{rank + 1}Q") for rank in range(_MAX_RANK + 1)]  # the byte length comes last
_KIND = struct.Struct("<BBH")
_ZEROS = bytes(8)
_STRING = DTYPES["string"].frame
_CODE_OF: dict[np.dtype, int] = {np.dtype(d.numpy): d.frame for d in DTYPES.values() if d.numpy and d.name != "string"}
_DTYPE_OF: dict[int, np.dtype] = {code: dtype for dtype, code in _CODE_OF.items()}
_BOOL = DTYPES["bool"].frame


class FrameType(IntEnum):
    """What a frame asks or answers; see `proto/FRAMES.md`."""

    HELLO = 1
    LOAD = 2
    RUN = 3
    RESULT = 4
    ERROR = 5
    CANCEL = 6
    CLOSE = 7
    PING = 8
    PONG = 9


_TYPE_OF = {int(t): t for t in FrameType}


class Frame(NamedTuple):
    """One decoded frame: its type, the request it belongs to, its named arrays, and where they lay."""

    type: FrameType
    request_id: int
    tensors: dict[str, Array]
    layout: Layout | None = None

    def text(self, name: str, default: str | None = None) -> str | None:
        """Return a string scalar, or the default where it is absent or missing; BridgeError for another kind."""
        value = self.tensors.get(name)
        if value is None:
            return default
        if value.dtype != object or value.size != 1:
            raise BridgeError(f"{self.type.name}: {name!r} is not one string")
        item = value.reshape(-1)[0]
        return default if item is None else item

    def texts(self, name: str) -> tuple[str, ...]:
        """Return a string vector, empty where it is absent; missing elements are left out."""
        value = self.tensors.get(name)
        if value is None:
            return ()
        if value.dtype != object:
            raise BridgeError(f"{self.type.name}: {name!r} is not a vector of strings")
        return tuple(v for v in value.reshape(-1) if v is not None)

    def integer(self, name: str, default: int | None = None) -> int | None:
        """Return an integer scalar, or the default where it is absent; BridgeError for another kind."""
        value = self.tensors.get(name)
        if value is None:
            return default
        if value.dtype.kind not in "iu" or value.size != 1:
            raise BridgeError(f"{self.type.name}: {name!r} is not one integer")
        return int(value.reshape(-1)[0])


# ---------------------------------------------------------------- writing


def encode_frame(kind: FrameType, tensors: Mapping[str, Any] | None = None, *, request_id: int = 0) -> bytes:
    """Write one frame as bytes; as `encode_parts`."""
    return b"".join(encode_parts(kind, tensors, request_id=request_id))


def encode_parts(
    kind: FrameType,
    tensors: Mapping[str, Any] | None = None,
    *,
    request_id: int = 0,
    max_payload: int = MAX_PAYLOAD,
    column_major: bool = False,
) -> list[Any]:
    """Write one frame as buffers to be sent one after the other; arrays are not copied.

    Parameters
    ----------
    kind : FrameType
        The type.
    tensors : mapping of str to array_like, optional
        Arrays, and scalars or sequences that numpy turns into one: str, None, bool, int, float.
    request_id : int, default=0
        0 to 2**32 - 1.
    max_payload : int
        The payload's limit in bytes.
    column_major : bool, default=False
        Whether matrices go column by column: a reader that holds them so need not turn them.

    Returns
    -------
    list of bytes-like
        The header first; one buffer for a small frame.

    Raises
    ------
    InputError
        If a name or an array has no form in a frame; with code OUT_OF_RANGE where the frame is too large.
    """
    tensors = tensors or {}
    parts: list[Any] = [b"", _COUNT.pack(len(tensors), 0)]
    size, flags = 8, 0
    for name, value in tensors.items():
        array = value if type(value) is np.ndarray else _as_array(value)
        shape = array.shape
        if column_major and len(shape) > 1:
            array, flags = array.T, _COLUMN_MAJOR
        data: Any
        code = _CODE_OF.get(array.dtype)
        if code is None:
            code, data = _encode_odd(name, array)
        else:
            data = array if array.flags.c_contiguous else np.asarray(array, order="C")
        length = data.nbytes if type(data) is np.ndarray else len(data)
        head = _tensor_head(name, code, shape, length)
        parts.append(head)
        size += len(head) + length
        if length:
            parts.append(data)
            if length & 7:
                parts.append(_ZEROS[: -length & 7])
                size += -length & 7
    if size > max_payload:
        raise InputError(
            f"the frame would hold {size} bytes, at most {max_payload} fit",
            hint="send fewer rows at a time",
            code=StatusCode.OUT_OF_RANGE,
        )
    parts[0] = _HEADER.pack(_MAGIC, kind, flags, 0, size, request_id)
    if size < _JOIN_BELOW:
        return [b"".join(parts)]
    return [p.data.cast("B") if type(p) is np.ndarray else p for p in parts]


def _as_array(value: Any) -> Array:
    if value is None or isinstance(value, str):
        array = np.empty((), object)
        array[()] = value
        return array
    array = np.asarray(value)
    return array.astype(object) if array.dtype.kind in "UT" else array


def _encode_odd(name: str, array: Array) -> tuple[int, Any]:
    """Encode strings, and arrays in the other byte order."""
    if array.dtype.kind in "OUT":
        return _STRING, _encode_strings(name, array)
    native = array.dtype.newbyteorder("=")
    code = _CODE_OF.get(native)
    if code is None:
        raise InputError(f"tensor {name!r}: dtype {array.dtype} has no form in a frame", hint=f"use one of {', '.join(DTYPES)}")
    return code, array.astype(native, order="C")


def _encode_strings(name: str, array: Array) -> bytes:
    pieces = []
    for item in array.ravel(order="C").tolist():
        if item is None:
            pieces.append(b"\xff\xff\xff\xff")
            continue
        if not isinstance(item, str):
            raise InputError(f"tensor {name!r}: {type(item).__name__} found where text or None was expected")
        try:
            text = item.encode()
        except UnicodeEncodeError as exc:
            raise InputError(f"tensor {name!r}: {item!r} has no UTF-8 form") from exc
        pieces.append(_U32.pack(len(text)))
        pieces.append(text)
    return b"".join(pieces)


@lru_cache(maxsize=1024)  # the same few shapes come call after call
def _tensor_head(name: str, code: int, shape: tuple[int, ...], length: int) -> bytes:
    if not isinstance(name, str) or not name:
        raise InputError(f"a tensor's name must be a non-empty string, not {name!r}")
    try:
        text = name.encode()
    except UnicodeEncodeError as exc:
        raise InputError(f"the name {name!r} has no UTF-8 form") from exc
    if len(text) > _MAX_NAME or len(shape) > _MAX_RANK:
        raise InputError(f"tensor {name[:40]!r}: a name holds at most {_MAX_NAME} bytes, a shape at most {_MAX_RANK} axes")
    head = _U32.pack(len(text)) + text + _KIND.pack(code, len(shape), 0)
    return head + bytes(-len(head) & 7) + _DIMS[len(shape)].pack(*shape, length)


# ---------------------------------------------------------------- reading


def decode_frame(buffer: Any) -> Frame:
    """Read exactly one frame; arrays share the buffer's memory where they can.

    Parameters
    ----------
    buffer : bytes-like
        The frame, nothing before or behind it. Arrays are writable only if the buffer is.

    Raises
    ------
    ArtifactError
        If it is malformed in any way.
    """
    view = memoryview(buffer).cast("B")
    if len(view) < HEADER_BYTES:
        raise ArtifactError(f"a frame of {len(view)} bytes is shorter than its header of {HEADER_BYTES}")
    kind, flags, size, request_id = decode_header(view[:HEADER_BYTES])
    if len(view) != HEADER_BYTES + size:
        raise ArtifactError(f"the frame's header announces {size} bytes, {len(view) - HEADER_BYTES} follow")
    return Frame(kind, request_id, decode_payload(view[HEADER_BYTES:], flags))


def decode_header(header: Any) -> tuple[FrameType, int, int, int]:
    """Return type, flags, payload length and request id; ArtifactError if it is no header."""
    magic, kind, flags, reserved, size, request_id = _HEADER.unpack(header)
    if magic != _MAGIC:
        raise ArtifactError(f"this is not a frame: it starts with {bytes(magic)!r}, not {_MAGIC!r}")
    type_ = _TYPE_OF.get(kind)
    if type_ is None:
        raise ArtifactError(f"the frame's type is {kind}, expected 1 to 9")
    if flags > _COLUMN_MAJOR or reserved:
        raise ArtifactError(f"the frame's flags are {flags:#x} and its reserved bits {reserved:#x}, both unknown")
    if size > MAX_PAYLOAD:
        raise ArtifactError(f"the frame announces {size} bytes, at most {MAX_PAYLOAD} are allowed")
    return type_, flags, size, request_id


def decode_payload(view: memoryview, flags: int) -> dict[str, Array]:
    """Return the tensors of a payload; ArtifactError if it is malformed."""
    if len(view) < 8:
        raise ArtifactError(f"the payload holds {len(view)} bytes, less than its count")
    count, reserved = _COUNT.unpack_from(view)
    if reserved or count > _MAX_TENSORS:
        raise ArtifactError(f"the payload announces {count} tensors (at most {_MAX_TENSORS}) and reserved bits {reserved:#x}")
    tensors: dict[str, Array] = {}
    offset = 8
    try:
        for _ in range(count):
            name, array, offset = _decode_tensor(view, offset, flags)
            if name in tensors:
                raise ArtifactError(f"two tensors are named {name!r}")
            tensors[name] = array
    except struct.error as exc:
        raise ArtifactError("the payload ends inside a tensor") from exc
    if offset != len(view):
        raise ArtifactError(f"{len(view) - offset} bytes follow the last tensor")
    return tensors


def _decode_tensor(view: memoryview, offset: int, flags: int) -> tuple[str, Array, int]:
    """Return name, array, and where the next tensor starts."""
    (length,) = _U32.unpack_from(view, offset)
    offset += 4
    if not 0 < length <= _MAX_NAME:
        raise ArtifactError(f"a tensor's name holds {length} bytes, expected 1 to {_MAX_NAME}")
    if offset + length > len(view):
        raise ArtifactError("the payload ends inside a tensor's name")
    name = _text(view[offset : offset + length], "a tensor's name")
    code, rank, reserved = _KIND.unpack_from(view, offset + length)
    if reserved or rank > _MAX_RANK:
        raise ArtifactError(f"tensor {name!r}: rank {rank} (at most {_MAX_RANK}), reserved bits {reserved:#x}")
    offset = _skip_padding(view, offset + length + 4)
    *dims, size = _DIMS[rank].unpack_from(view, offset)
    shape = tuple(dims)
    offset += 8 * rank + 8
    if size > len(view) - offset:
        raise ArtifactError(f"tensor {name!r}: {size} bytes of data announced, {len(view) - offset} are left")
    count = prod(shape)
    if (count or prod([d or 1 for d in shape])) > _MAX_ELEMENTS:
        raise ArtifactError(f"tensor {name!r}: shape {shape} is too large")
    data = view[offset : offset + size]
    order = "F" if flags & _COLUMN_MAJOR and rank > 1 else "C"
    array = _decode_data(name, code, shape, count, data, order)
    return name, array, _skip_padding(view, offset + size)


def _decode_data(name: str, code: int, shape: tuple[int, ...], count: int, data: memoryview, order: Any) -> Array:
    if code == _STRING:
        if 4 * count > len(data):
            raise ArtifactError(f"tensor {name!r}: {len(data)} bytes cannot hold {count} strings")
        flat = np.empty(count, object)
        flat[:] = list(_decode_strings(name, len(flat), data))
    else:
        dtype = _DTYPE_OF.get(code)
        if dtype is None:
            raise ArtifactError(f"tensor {name!r}: dtype code {code} is unknown here", hint="bfloat16 (11) lives in ONNX graphs only")
        if count * dtype.itemsize != len(data):
            raise ArtifactError(f"tensor {name!r}: shape {shape} of {dtype} needs {count * dtype.itemsize} bytes, not {len(data)}")
        if code == _BOOL and len(data) and int(np.frombuffer(data, np.uint8).max()) > 1:
            raise ArtifactError(f"tensor {name!r}: a bool is neither 0 nor 1")
        flat = np.frombuffer(data, dtype)
        if sys.byteorder == "big":
            flat = flat.astype(dtype.newbyteorder("="))
        elif not flat.flags.aligned:  # only where the caller's buffer starts at an odd address
            flat = flat.copy()
    if len(shape) == 1:
        return flat
    array = flat.reshape(shape, order=order)
    return array if order == "C" else np.asarray(array, order="C")


def _decode_strings(name: str, count: int, data: memoryview) -> Iterator[str | None]:
    offset = 0
    for _ in range(count):
        if offset + 4 > len(data):
            raise ArtifactError(f"tensor {name!r}: the data ends inside a string")
        (length,) = _U32.unpack_from(data, offset)
        offset += 4
        if length == _MISSING:
            yield None
            continue
        if offset + length > len(data):
            raise ArtifactError(f"tensor {name!r}: the data ends inside a string")
        yield _text(data[offset : offset + length], f"tensor {name!r}")
        offset += length
    if offset != len(data):
        raise ArtifactError(f"tensor {name!r}: {len(data) - offset} bytes follow the last string")


def _text(data: memoryview, what: str) -> str:
    try:
        return str(data, "utf-8")
    except UnicodeDecodeError as exc:
        raise ArtifactError(f"{what} is not UTF-8: {exc}") from exc


def _skip_padding(view: memoryview, offset: int) -> int:
    if not offset & 7 and offset <= len(view):
        return offset
    end = offset + (-offset & 7)
    if end > len(view) or bytes(view[offset:end]).strip(b"\0"):
        raise ArtifactError("padding is cut off or not zero")
    return end
