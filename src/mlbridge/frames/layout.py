"""Where the tensors of a frame lie: a frame like an earlier one is joined and compared, not encoded and parsed.

The same few shapes cross call after call. `links` reads by the layout of the last answer, `workers` writes by the last
question's. What is done here is done in every call of a worker: it is written for few steps.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from functools import partial
from typing import Any

import numpy as np

from .codec import _CODE_OF, _COLUMN_MAJOR, _COUNT, _HEADER, _JOIN_BELOW, _MAGIC, _U32, HEADER_BYTES, Frame, FrameType, _tensor_head

__all__ = ["Layout", "layout_of"]

REQUEST_ID = slice(HEADER_BYTES - 4, HEADER_BYTES)  # where the request id stands
_BOOL = np.dtype(bool)
put_id, _read_id = _U32.pack_into, _U32.unpack
_ndarray, _empty = np.ndarray, np.empty
new_frame = partial(tuple.__new__, Frame)  # half the time of Frame(...)


class Layout:
    """All of a frame but its request id and its data; it belongs to one connection, in one direction.

    Frames with text, booleans or nothing in a tensor have no layout: their bytes are looked at each time.

    Parameters
    ----------
    kind : FrameType
        The frame's type.
    size : int
        Bytes of the whole frame.
    head : bytes
        What stands before the first array's data.
    arrays : sequence of (str, tuple of int, dtype, bytes)
        Each array's name, shape and dtype, and what stands behind its data.
    turned : bool, default=False
        Whether matrices are written column by column; such a frame is not read by a layout.
    """

    __slots__ = ("arrays", "came", "fits", "head", "kind", "size", "turned")

    def __init__(
        self, kind: FrameType, size: int, head: bytes, arrays: list[tuple[str, tuple[int, ...], np.dtype, bytes]], turned: bool = False
    ) -> None:
        self.kind, self.size, self.arrays, self.turned = kind, size, arrays, turned
        self.head = bytearray(head)  # with the request id of the last one
        self.came = bytearray(len(head))  # the room for an answer's
        self.fits: Any = None  # whose signature such an answer fits as it is

    def write(self, tensors: Mapping[str, Any], request_id: int) -> list[Any] | None:
        """Write a frame like this as buffers to send one after the other, or None where the tensors are others."""
        if len(tensors) != len(self.arrays):
            return None
        parts: list[Any] = [self.head]
        for (name, array), (known, shape, dtype, behind) in zip(tensors.items(), self.arrays):
            if name != known or type(array) is not _ndarray or array.dtype is not dtype or array.shape != shape:
                return None
            if not array.flags.c_contiguous:
                return None
            parts += array if not self.turned else array.T.copy(order="C"), behind
        put_id(self.head, REQUEST_ID.start, request_id)
        if self.size < _JOIN_BELOW:
            return [b"".join(parts)]
        return [p.data.cast("B") if type(p) is _ndarray else p for p in parts if type(p) is _ndarray or p]

    def rooms(self) -> list[Any]:
        """Return buffers to receive a frame like this into, one after the other; the arrays stay where they come to lie."""
        rooms: list[Any] = [self.came]
        for _, shape, dtype, behind in self.arrays:
            rooms += _empty(shape, dtype), bytearray(behind)
        return rooms

    def values_in(self, frame: bytearray) -> np.ndarray:
        """Return the array of a frame like this that holds one, as a view."""
        [(_, shape, dtype, _)] = self.arrays
        return _ndarray(shape, dtype, frame, len(self.head))

    def begins(self, got: int) -> bool:
        """Tell whether a frame of this size begins with the bytes that came."""
        end = min(got, REQUEST_ID.start)
        return self.came[:end] == self.head[:end]

    def read(self, rooms: list[Any]) -> Frame | None:
        """Read a frame of this size out of its rooms, or None where it is not like this."""
        came, head = self.came, self.head
        head[REQUEST_ID] = request_id = came[REQUEST_ID]
        if came != head:
            return None
        tensors, at = {}, 1
        for name, _, _, behind in self.arrays:
            tensors[name] = rooms[at]
            if rooms[at + 1] != behind:
                return None
            at += 2
        return new_frame((self.kind, _read_id(request_id)[0], tensors, self))


def layout_of(kind: FrameType, tensors: Mapping[str, Any], column_major: bool = False) -> Layout | None:
    """Return the layout of a frame of these tensors, where it has one."""
    if not tensors or sys.byteorder == "big":
        return None
    heads, arrays, size = [], [], HEADER_BYTES + _COUNT.size
    for name, array in tensors.items():
        if type(array) is not np.ndarray or not array.size or array.dtype == _BOOL:
            return None
        code = _CODE_OF.get(array.dtype)
        if code is None:
            return None
        heads.append(_tensor_head(name, code, array.shape, array.nbytes))
        arrays.append((name, array.shape, array.dtype, bytes(-array.nbytes & 7)))
        size += len(heads[-1]) + array.nbytes + len(arrays[-1][3])
    flags = _COLUMN_MAJOR if column_major and any(len(shape) > 1 for _, shape, _, _ in arrays) else 0
    first = _HEADER.pack(_MAGIC, kind, flags, 0, size - HEADER_BYTES, 0) + _COUNT.pack(len(tensors), 0) + heads[0]
    heads = [*heads[1:], b""]
    turned = flags > 0 and any(sum(size > 1 for size in shape) > 1 for _, shape, _, _ in arrays)  # else both orders are one
    return Layout(kind, size, first, [(*array, padding + head) for (*array, padding), head in zip(arrays, heads)], turned)
