"""Where the tensors of a frame lie: a frame like an earlier one is joined and compared, not encoded and parsed.

The same few shapes cross call after call. `links` reads by the layout of the last answer, `workers` writes by the last
question's.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from .codec import _CODE_OF, _COUNT, _HEADER, _JOIN_BELOW, _MAGIC, _U32, HEADER_BYTES, Frame, FrameType, _tensor_head

__all__ = ["Layout", "layout_of"]

_ID = HEADER_BYTES - 4  # where the request id stands
_BOOL = np.dtype(bool)


class Layout(NamedTuple):
    """All of a frame but its request id and its data.

    Frames with text, booleans, columns or nothing in a tensor have no layout: their bytes are looked at each time.
    """

    type: FrameType
    size: int  # of the whole frame
    start: bytes  # what stands before the request id
    heads: tuple[bytes, ...]  # what stands before each array's data, padding of the one before included
    end: bytes  # padding of the last one
    arrays: tuple[tuple[str, np.dtype, tuple[int, ...], int, int], ...]  # name, dtype, shape, where its head and its data start

    def write(self, tensors: Mapping[str, Any], request_id: int) -> list[Any] | None:
        """Write a frame like this as buffers to send one after the other, or None where the tensors are others."""
        if len(tensors) != len(self.arrays):
            return None
        parts: list[Any] = [self.start, _U32.pack(request_id)]
        for (name, array), (known, dtype, shape, _, _), head in zip(tensors.items(), self.arrays, self.heads):
            if type(array) is not np.ndarray or name != known or array.shape != shape or array.dtype is not dtype:
                return None
            if not array.flags.c_contiguous:
                return None
            parts += (head, array)
        parts.append(self.end)
        if self.size < _JOIN_BELOW:
            return [b"".join(parts)]
        first = b"".join(parts[:3])
        return [first, *(p if type(p) is bytes else p.data.cast("B") for p in parts[3:] if type(p) is not bytes or p)]

    def read(self, frame: memoryview) -> Frame | None:
        """Read a frame of this size, or None where it is not like this."""
        if frame[:_ID] != self.start:
            return None
        tensors = {}
        for (name, dtype, shape, start, stop), head in zip(self.arrays, self.heads):
            if frame[start:stop] != head:
                return None
            tensors[name] = np.ndarray(shape, dtype, frame, stop)
        if self.end and frame[self.size - len(self.end) :] != self.end:
            return None
        return Frame(self.type, _U32.unpack_from(frame, _ID)[0], tensors, self)


def layout_of(kind: FrameType, tensors: Mapping[str, Any]) -> Layout | None:
    """Return the layout of a frame of these tensors, row-major, where it has one."""
    if not tensors or sys.byteorder == "big":
        return None
    head, heads, arrays, at = _COUNT.pack(len(tensors), 0), [], [], HEADER_BYTES
    for name, array in tensors.items():
        if type(array) is not np.ndarray or not array.size or array.dtype == _BOOL:
            return None
        code = _CODE_OF.get(array.dtype)
        if code is None:
            return None
        head += _tensor_head(name, code, array.shape, array.nbytes)
        heads.append(head)
        arrays.append((name, array.dtype, array.shape, at, at + len(head)))
        at += len(head) + array.nbytes
        head = bytes(-array.nbytes & 7)
    size = at + len(head)
    start = _HEADER.pack(_MAGIC, kind, 0, 0, size - HEADER_BYTES, 0)[:_ID]
    return Layout(kind, size, start, tuple(heads), head, tuple(arrays))
