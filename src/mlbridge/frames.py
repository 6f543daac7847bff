"""The frame codec: named arrays to bytes and back, for workers in any language and for golden samples.

The byte layout and the meaning of each frame are in `proto/FRAMES.md`; `proto/vectors/` holds frames that every
language reads in its tests. Not here: processes (`workers`). Called by `workers`, `package` and the python runtime.

Files and buffers that are malformed raise ArtifactError; the same bytes from a socket raise BridgeError.
"""

from __future__ import annotations

import os
import select
import socket
import struct
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import IntEnum
from functools import lru_cache
from math import prod
from typing import Any

import numpy as np

from .errors import ArtifactError, BridgeError, InputError, StatusCode
from .interfaces import Array, Deadline
from .signature import DTYPES

__all__ = [
    "FRAME_VERSION",
    "MAX_PAYLOAD",
    "Frame",
    "FrameType",
    "LinkError",
    "decode_frame",
    "encode_frame",
    "encode_parts",
    "read_exactly",
    "read_frame",
    "write_frame",
    "write_parts",
]

FRAME_VERSION = 1  # the protocol version of HELLO
MAX_PAYLOAD = 2**31 - 1  # Java's and R's longest array of bytes
_MAX_TENSORS = 1 << 16  # a frame of a model has a few; more is an attack
_MAX_NAME = 1 << 16  # bytes
_MAX_RANK = 32
_MAX_ELEMENTS = 2**31  # also bounds shapes that hold a zero
_JOIN_BELOW = 1 << 16  # bytes under which one copy costs less than a second system call
_MISSING = 0xFFFFFFFF
_MAGIC = b"MLB1"
_COLUMN_MAJOR = 1

_HEADER = struct.Struct("<4sBBHII")
_COUNT = struct.Struct("<II")
_U32 = struct.Struct("<I")
_U64 = struct.Struct("<Q")
_KIND = struct.Struct("<BBH")
_ZEROS = bytes(8)
_STRING = DTYPES["string"].frame
_CODE_OF: dict[np.dtype, int] = {np.dtype(d.numpy): d.frame for d in DTYPES.values() if d.numpy and d.name != "string"}
_DTYPE_OF: dict[int, np.dtype] = {code: dtype for dtype, code in _CODE_OF.items()}
_BOOL = DTYPES["bool"].frame


class LinkError(BridgeError):
    """The connection ended or broke; it did not lie."""


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


@dataclass(frozen=True, slots=True)
class Frame:
    """One decoded frame: its type, the request it belongs to, and its named arrays."""

    type: FrameType
    request_id: int
    tensors: dict[str, Array]

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
    kind: FrameType, tensors: Mapping[str, Any] | None = None, *, request_id: int = 0, max_payload: int = MAX_PAYLOAD
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

    Returns
    -------
    list of bytes-like
        The header first.

    Raises
    ------
    InputError
        If a name or an array has no form in a frame; with code OUT_OF_RANGE where the frame is too large.
    """
    tensors = tensors or {}
    parts: list[Any] = [b"", _COUNT.pack(len(tensors), 0)]
    size = 8
    for name, value in tensors.items():
        array = value if type(value) is np.ndarray else _as_array(value)
        data: Any
        code = _CODE_OF.get(array.dtype)
        if code is None:
            code, data = _encode_odd(name, array)
        else:
            data = array if array.flags.c_contiguous else np.asarray(array, order="C")
        length = data.nbytes if type(data) is np.ndarray else len(data)
        head = _tensor_head(name, code, array.shape, length)
        parts.append(head)
        size += len(head) + length
        if length:
            parts.append(data.data.cast("B") if type(data) is np.ndarray else data)
            if length & 7:
                parts.append(_ZEROS[: -length & 7])
                size += -length & 7
    if size > max_payload:
        raise InputError(
            f"the frame would hold {size} bytes, at most {max_payload} fit",
            hint="send fewer rows at a time",
            code=StatusCode.OUT_OF_RANGE,
        )
    parts[0] = _HEADER.pack(_MAGIC, kind, 0, 0, size, request_id)
    return parts


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
    return head + bytes(-len(head) & 7) + struct.pack(f"<{len(shape)}Q", *shape) + _U64.pack(length)


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
    if len(view) < _HEADER.size:
        raise ArtifactError(f"a frame of {len(view)} bytes is shorter than its header of {_HEADER.size}")
    kind, flags, size, request_id = _decode_header(view[: _HEADER.size])
    if len(view) != _HEADER.size + size:
        raise ArtifactError(f"the frame's header announces {size} bytes, {len(view) - _HEADER.size} follow")
    return Frame(kind, request_id, _decode_payload(view[_HEADER.size :], flags))


def _decode_header(header: Any) -> tuple[FrameType, int, int, int]:
    magic, kind, flags, reserved, size, request_id = _HEADER.unpack(header)
    if magic != _MAGIC:
        raise ArtifactError(f"this is not a frame: it starts with {bytes(magic)!r}, not {_MAGIC!r}")
    if not 1 <= kind <= 9:
        raise ArtifactError(f"the frame's type is {kind}, expected 1 to 9")
    if flags & ~_COLUMN_MAJOR or reserved:
        raise ArtifactError(f"the frame's flags are {flags:#x} and its reserved bits {reserved:#x}, both unknown")
    if size > MAX_PAYLOAD:
        raise ArtifactError(f"the frame announces {size} bytes, at most {MAX_PAYLOAD} are allowed")
    return FrameType(kind), flags, size, request_id


def _decode_payload(view: memoryview, flags: int) -> dict[str, Array]:
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
    shape = struct.unpack_from(f"<{rank}Q", view, offset)
    (size,) = _U64.unpack_from(view, offset + 8 * rank)
    offset += 8 * rank + 8
    if size > len(view) - offset:
        raise ArtifactError(f"tensor {name!r}: {size} bytes of data announced, {len(view) - offset} are left")
    if prod(d or 1 for d in shape) > _MAX_ELEMENTS:
        raise ArtifactError(f"tensor {name!r}: shape {shape} is too large")
    data = view[offset : offset + size]
    order = "F" if flags & _COLUMN_MAJOR and rank > 1 else "C"
    array = _decode_data(name, code, shape, data, order)
    return name, array, _skip_padding(view, offset + size)


def _decode_data(name: str, code: int, shape: tuple[int, ...], data: memoryview, order: Any) -> Array:
    if code == _STRING:
        flat = np.empty(prod(shape) if 4 * prod(shape) <= len(data) else 0, object)
        if 4 * prod(shape) > len(data):
            raise ArtifactError(f"tensor {name!r}: {len(data)} bytes cannot hold {prod(shape)} strings")
        flat[:] = list(_decode_strings(name, len(flat), data))
    else:
        dtype = _DTYPE_OF.get(code)
        if dtype is None:
            raise ArtifactError(f"tensor {name!r}: dtype code {code} is unknown here", hint="bfloat16 (11) lives in ONNX graphs only")
        if prod(shape) * dtype.itemsize != len(data):
            raise ArtifactError(f"tensor {name!r}: shape {shape} of {dtype} needs {prod(shape) * dtype.itemsize} bytes, not {len(data)}")
        if code == _BOOL and len(data) and int(np.frombuffer(data, np.uint8).max()) > 1:
            raise ArtifactError(f"tensor {name!r}: a bool is neither 0 nor 1")
        flat = np.frombuffer(data, dtype)
        if sys.byteorder == "big":
            flat = flat.astype(dtype.newbyteorder("="))
        elif not flat.flags.aligned:  # only where the caller's buffer starts at an odd address
            flat = flat.copy()
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
    end = offset + (-offset & 7)
    if end > len(view) or bytes(view[offset:end]).strip(b"\0"):
        raise ArtifactError("padding is cut off or not zero")
    return end


# ---------------------------------------------------------------- sockets


def write_frame(
    sock: socket.socket,
    kind: FrameType,
    tensors: Mapping[str, Any] | None = None,
    *,
    request_id: int = 0,
    deadline: Deadline | None = None,
    wake: int | None = None,
) -> None:
    """Send one frame; as `encode_parts` and `write_parts`."""
    write_parts(sock, encode_parts(kind, tensors, request_id=request_id), deadline=deadline, wake=wake)


def write_parts(sock: socket.socket, parts: list[Any], *, deadline: Deadline | None = None, wake: int | None = None) -> None:
    """Send the buffers of one frame over a blocking socket.

    Raises
    ------
    BridgeError
        If the link broke; the other side cannot have read the whole frame.
    BridgeTimeoutError, CancelledError
        If the deadline ended it; part of the frame may have been sent, so the link is of no more use.
    """
    if sum(map(len, parts)) < _JOIN_BELOW:
        parts = [b"".join(parts)]
    try:
        for part in parts:
            if deadline is None:
                sock.sendall(part)
            else:
                _send_until(sock, memoryview(part), deadline, wake)
    except OSError as exc:
        if isinstance(exc, BridgeError):
            raise
        raise LinkError(f"the link broke while sending: {exc}") from exc


def _send_until(sock: socket.socket, part: memoryview, deadline: Deadline, wake: int | None) -> None:
    while len(part):
        try:
            part = part[sock.send(part, socket.MSG_DONTWAIT) :]
        except BlockingIOError:
            _wait(sock, select.POLLOUT, deadline, wake)


def read_frame(sock: socket.socket, *, deadline: Deadline | None = None, wake: int | None = None) -> Frame:
    """Receive one frame from a blocking socket.

    Parameters
    ----------
    sock : socket
        A blocking socket.
    deadline : Deadline, optional
        Ends the wait.
    wake : int, optional
        A file descriptor; when it becomes readable the deadline is looked at again.

    Raises
    ------
    BridgeError
        If the link ended or what came is not a frame.
    BridgeTimeoutError, CancelledError
        If the deadline ended it; a later read goes on only if nothing of the frame had come.
    """
    header = read_exactly(sock, _HEADER.size, deadline=deadline, wake=wake)
    try:
        kind, flags, size, request_id = _decode_header(header)
        payload = read_exactly(sock, size, deadline=deadline, wake=wake)
        return Frame(kind, request_id, _decode_payload(payload, flags))
    except ArtifactError as exc:
        raise BridgeError(f"the other side sent a malformed frame: {exc.message}") from exc


def read_exactly(sock: socket.socket, size: int, *, deadline: Deadline | None = None, wake: int | None = None) -> memoryview:
    """Receive `size` bytes into fresh memory; raises as `read_frame`."""
    view = np.empty(size, np.uint8).data  # aligned, and not touched before it is filled
    got = 0
    try:
        while got < size:
            if deadline is not None:
                _wait(sock, select.POLLIN, deadline, wake)
            n = sock.recv_into(view[got:])
            if n == 0:
                raise LinkError("the other side closed the link" + (" inside a frame" if got else ""))
            got += n
    except OSError as exc:
        if isinstance(exc, BridgeError):
            raise
        raise LinkError(f"the link broke while receiving: {exc}") from exc
    return view


def _wait(sock: socket.socket, event: int, deadline: Deadline, wake: int | None) -> None:
    """Return when the socket is ready; raise what the deadline says when it ends first."""
    poller = select.poll()
    poller.register(sock, event)
    if wake is not None:
        poller.register(wake, select.POLLIN)
    own = sock.fileno()
    while True:
        deadline.check()
        left = deadline.remaining_s()
        ready = poller.poll(None if left is None else max(0.0, left) * 1000 + 1)
        if any(fd == own for fd, _ in ready):
            return
        if ready and wake is not None and not deadline.cancelled:
            os.read(wake, 4096)  # a late wake of an earlier call
