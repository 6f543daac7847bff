"""Universal Binary JSON, read with bounds: no size in a file is believed before the bytes are there."""

from __future__ import annotations

import struct
from typing import Any

import numpy as np

from ...errors import ArtifactError

__all__ = ["loads"]

_MAX_DEPTH = 64  # a model is ten deep
_NUMBERS = {b"i": ">i1", b"U": ">u1", b"I": ">i2", b"u": ">u2", b"l": ">i4", b"m": ">u4", b"L": ">i8", b"d": ">f4", b"D": ">f8"}
_CONSTANTS = {b"T": True, b"F": False, b"Z": None}


def loads(data: bytes) -> Any:
    """Read one value; typed arrays come as numpy arrays, other values as JSON's Python types.

    Raises
    ------
    ArtifactError
        If the bytes are malformed or nest too deeply. Memory stays within a small multiple of `data`.
    """
    try:
        reader = _Reader(data)
        value = reader.value(reader.marker(), 0)
    except (struct.error, UnicodeDecodeError, IndexError) as exc:
        raise ArtifactError(f"malformed UBJSON: {exc}") from exc
    if reader.at != len(data):
        raise ArtifactError("malformed UBJSON: bytes follow the value")
    return value


class _Reader:
    def __init__(self, data: bytes) -> None:
        self.data, self.at = data, 0

    def take(self, count: int) -> bytes:
        if count < 0 or self.at + count > len(self.data):
            raise ArtifactError("malformed UBJSON: it ends inside a value")
        self.at += count
        return self.data[self.at - count : self.at]

    def marker(self) -> bytes:
        mark = self.take(1)
        while mark == b"N":  # a no-op
            mark = self.take(1)
        return mark

    def number(self, mark: bytes) -> int | float:
        dtype = np.dtype(_NUMBERS[mark])
        return np.frombuffer(self.take(dtype.itemsize), dtype)[0].item()

    def length(self) -> int:
        mark = self.marker()
        if mark not in _NUMBERS or mark in (b"d", b"D"):
            raise ArtifactError(f"malformed UBJSON: a length of type {mark!r}")
        return int(self.number(mark))

    def value(self, mark: bytes, depth: int) -> Any:
        if depth > _MAX_DEPTH:
            raise ArtifactError(f"malformed UBJSON: nested deeper than {_MAX_DEPTH}")
        if mark in _NUMBERS:
            return self.number(mark)
        if mark in _CONSTANTS:
            return _CONSTANTS[mark]
        if mark == b"C":
            return self.take(1).decode("latin-1")
        if mark in (b"S", b"H"):
            return self.take(self.length()).decode()
        if mark == b"[":
            return self.array(depth)
        if mark == b"{":
            return self.object(depth)
        raise ArtifactError(f"malformed UBJSON: unknown type {mark!r}")

    def head(self) -> tuple[bytes | None, int | None, bytes | None]:
        """Return a container's declared type and count, or the marker that came instead."""
        kind, mark = None, self.marker()
        if mark == b"$":
            kind, mark = self.take(1), self.marker()
            if mark != b"#":
                raise ArtifactError("malformed UBJSON: a type without a count")
        if mark == b"#":
            return kind, self.length(), None
        return None, None, mark

    def array(self, depth: int) -> Any:
        kind, count, mark = self.head()
        if kind is not None and kind in _NUMBERS:
            dtype = np.dtype(_NUMBERS[kind])
            array = np.frombuffer(self.take(dtype.itemsize * int(count or 0)), dtype)
            return array.astype(dtype.newbyteorder("="))
        if kind is not None and kind in _CONSTANTS:
            raise ArtifactError("malformed UBJSON: an array of constants")
        out = []
        if count is not None:
            for _ in range(self._plausible(count)):
                out.append(self.value(self.marker() if kind is None else kind, depth + 1))
            return out
        while mark != b"]":
            out.append(self.value(mark or b"", depth + 1))
            mark = self.marker()
        return out

    def object(self, depth: int) -> dict[str, Any]:
        kind, count, mark = self.head()
        out: dict[str, Any] = {}
        if count is not None:
            for _ in range(self._plausible(count)):
                key = self.take(self.length()).decode()
                out[key] = self.value(self.marker() if kind is None else kind, depth + 1)
            return out
        while mark != b"}":
            if mark not in _NUMBERS or mark in (b"d", b"D"):
                raise ArtifactError("malformed UBJSON: a key without its length")
            key = self.take(int(self.number(mark))).decode()
            out[key] = self.value(self.marker(), depth + 1)
            mark = self.marker()
        return out

    def _plausible(self, count: int) -> int:
        """Every element takes a byte at least: a larger count is a lie."""
        if count < 0 or count > len(self.data) - self.at:
            raise ArtifactError("malformed UBJSON: more elements than bytes")
        return count
