"""The bytes under an RDS file: decompression with a limit, and the two encodings of numbers (binary and text).

Called by `rds.py` alone, which knows what the numbers mean.
"""

from __future__ import annotations

import bz2
import lzma
import re
import struct
import zlib

import numpy as np

from ...errors import ArtifactError
from .robject import NA_INTEGER

__all__ = ["SMALLER", "AsciiStream", "BinaryStream", "decompress"]

SMALLER = "such a file holds its training data: save it by mlb_save() in R, which leaves those out, or run it in R by r: with trust='code'"
_CHUNK = 1 << 16
_XZ_MEMORY = 1 << 28  # a dictionary larger than any that R writes
_NA_REAL = np.array([0x7FF00000000007A2], dtype=np.uint64).view(np.float64)  # R's NA is a NaN with this payload
_WORD = re.compile(rb"[ \t\r\n]*([^ \t\r\n]{1,127})(?=[ \t\r\n]|\Z)")
_INTEGER = re.compile(rb"[+-]?[0-9]{1,10}")
_DECIMAL = re.compile(rb"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]{1,5})?")
_HEXADECIMAL = re.compile(rb"[+-]?0x[0-9a-fA-F]+(?:\.[0-9a-fA-F]*)?(?:p[+-]?[0-9]{1,5})?")
_ESCAPES = {
    **{ord(k): v for k, v in {"n": 10, "t": 9, "v": 11, "b": 8, "r": 13, "f": 12, "a": 7}.items()},
    **{ord(k): ord(k) for k in "\\?'\""},
}


def decompress(data: bytes, max_bytes: int) -> bytes:
    """Undo gzip, zlib, bzip2 or xz; plain data is returned as it is.

    Raises
    ------
    ArtifactError
        If the data is damaged or unpacks to more than `max_bytes`.
    """
    try:
        if data[:2] == b"\x1f\x8b" or data[:1] == b"\x78":
            return _unpack(data, lambda: zlib.decompressobj(wbits=47), max_bytes, b"\x1f\x8b")
        if data[:3] == b"BZh":
            return _unpack(data, bz2.BZ2Decompressor, max_bytes, b"BZh")
        if data[:6] == b"\xfd7zXZ\0":
            return _unpack(data, lambda: lzma.LZMADecompressor(format=lzma.FORMAT_XZ, memlimit=_XZ_MEMORY), max_bytes, b"\xfd7zXZ\0")
    except (zlib.error, OSError, EOFError, ValueError, lzma.LZMAError) as exc:
        if isinstance(exc, ArtifactError):
            raise
        raise ArtifactError(f"the RDS file's compressed data is damaged: {exc}") from exc
    if len(data) > max_bytes:
        raise _too_large(max_bytes)
    return data


def _too_large(max_bytes: int) -> ArtifactError:
    return ArtifactError(f"the RDS file unpacks to more than {max_bytes} bytes", hint=SMALLER)


def _unpack(data: bytes, make, max_bytes: int, magic: bytes) -> bytes:
    out: list[bytes] = []
    total, at = 0, 0
    while data.startswith(magic, at) or not out:  # R's writers and `cat a.gz b.gz` may give several members
        engine, chunk = make(), b""
        while not engine.eof:
            # zlib hands back what it did not take, a copy of it each time: it is fed in slices, or a long file costs its square
            if not chunk and getattr(engine, "needs_input", True):
                chunk = data[at : at + _CHUNK]
                at += len(chunk)
                if not chunk:
                    raise ArtifactError("the RDS file's compressed data ends too early")
            piece = engine.decompress(chunk, _CHUNK)
            total += len(piece)
            if total > max_bytes:
                raise _too_large(max_bytes)
            out.append(piece)
            chunk = getattr(engine, "unconsumed_tail", b"")
        at -= len(engine.unused_data)
    return b"".join(out)


class BinaryStream:
    """Numbers in binary: big-endian (XDR) or the little-endian `B` form."""

    def __init__(self, data: bytes, position: int, *, order: str) -> None:
        self._data = data
        self._position = position
        self._order = order
        self._int = struct.Struct(f"{order}i")

    def check_items(self, count: int) -> None:
        """Raise ArtifactError if `count` more items cannot be there: each needs its flags."""
        if not 0 <= count <= (len(self._data) - self._position) // 4:
            raise ArtifactError("the RDS file ends too early")

    def integer(self) -> int:
        """Read one 32-bit integer."""
        try:
            (value,) = self._int.unpack_from(self._data, self._position)
        except struct.error as exc:
            raise ArtifactError("the RDS file ends too early") from exc
        self._position += 4
        return value

    def _vector(self, dtype: str, count: int, size: int) -> np.ndarray:
        if not 0 <= count * size <= len(self._data) - self._position:
            raise ArtifactError("the RDS file ends too early")
        array = np.frombuffer(self._data, f"{self._order}{dtype}", count, self._position)
        self._position += count * size
        return array.astype(array.dtype.newbyteorder("="))  # a copy: the file's bytes need not live on

    def integers(self, count: int) -> np.ndarray:
        """Read 32-bit integers."""
        return self._vector("i4", count, 4)

    def doubles(self, count: int) -> np.ndarray:
        """Read doubles, NaN payloads kept."""
        return self._vector("f8", count, 8)

    def octets(self, count: int) -> bytes:
        """Read the bytes of a string or of a raw vector."""
        if not 0 <= count <= len(self._data) - self._position:
            raise ArtifactError("the RDS file ends too early")
        start = self._position
        self._position += count
        return self._data[start : self._position]

    text = octets


class AsciiStream:
    """Numbers as words, as `saveRDS(ascii = TRUE)` writes them."""

    def __init__(self, data: bytes, position: int) -> None:
        self._data = data
        self._position = position

    def check_items(self, count: int) -> None:
        """Raise ArtifactError if `count` more items cannot be there: a word and its separator are two bytes."""
        if not 0 <= count <= (len(self._data) - self._position + 1) // 2:
            raise ArtifactError("the RDS file ends too early")

    def _word(self) -> bytes:
        found = _WORD.match(self._data, self._position)
        if found is None:
            raise ArtifactError("the RDS file ends too early")
        self._position = found.end()
        return found.group(1)

    def integer(self) -> int:
        """Read one 32-bit integer."""
        word = self._word()
        if word == b"NA":
            return NA_INTEGER
        if not _INTEGER.fullmatch(word) or not NA_INTEGER <= int(word) < 2**31:
            raise ArtifactError(f"the RDS file has {word[:20]!r} where an integer should be")
        return int(word)

    def integers(self, count: int) -> np.ndarray:
        """Read integers."""
        self._check(count)
        return np.array([self.integer() for _ in range(count)], dtype=np.int32)

    def _double(self) -> float:
        word = self._word()
        if _DECIMAL.fullmatch(word):
            return float(word)
        if word in (b"NaN", b"Inf", b"-Inf"):
            return float(word.decode())
        if word == b"NA":
            return float("nan")
        if _HEXADECIMAL.fullmatch(word):
            try:
                return float.fromhex(word.decode())
            except OverflowError as exc:
                raise ArtifactError(f"the RDS file has the number {word[:20]!r}, which is too large") from exc
        raise ArtifactError(f"the RDS file has {word[:20]!r} where a number should be")

    def doubles(self, count: int) -> np.ndarray:
        """Read doubles."""
        self._check(count)
        out = np.empty(count)
        for i in range(count):
            start = self._position
            out[i] = self._double()
            if np.isnan(out[i]) and self._data[start : self._position].strip() == b"NA":
                out.view(np.uint64)[i] = _NA_REAL.view(np.uint64)[0]
        return out

    def octets(self, count: int) -> bytes:
        """Read a raw vector: a pair of hexadecimal digits a byte."""
        self._check(count)
        words = [self._word() for _ in range(count)]
        if not all(re.fullmatch(rb"[0-9a-fA-F]{2}", w) for w in words):
            raise ArtifactError("the RDS file has a malformed raw vector")
        return bytes(int(w, 16) for w in words)

    def text(self, count: int) -> bytes:
        """Read a string of `count` bytes, escapes undone."""
        self._check(count)
        data, at = self._data, self._position
        while at < len(data) and data[at] in b" \t\r\n":
            at += 1
        out = bytearray()
        while len(out) < count:
            if at >= len(data):
                raise ArtifactError("the RDS file ends too early")
            byte = data[at]
            at += 1
            if byte == 0x5C and at < len(data):
                octal = re.compile(rb"[0-7]{1,3}").match(data, at)
                if octal:
                    byte, at = int(octal.group(), 8) & 0xFF, octal.end()
                else:
                    byte, at = _ESCAPES.get(data[at], data[at]), at + 1
            out.append(byte)
        self._position = at
        return bytes(out)

    def _check(self, count: int) -> None:
        if not 0 <= count <= len(self._data) - self._position:
            raise ArtifactError("the RDS file ends too early")
