"""The RDS reader: R's serialisation, versions 2 and 3, as plain data; R is not needed and nothing is evaluated.

Calls, promises, closures and bytecode are read as inert trees. Values are `RObject` (robject.py), bytes and words come
from rds_stream.py. The reader keeps its own stack, so a deep file cannot exhaust Python's.

References
----------
R Internals, section 1.8 "Serialization Formats" (type codes, flags, reference table).
"""

from __future__ import annotations

from collections.abc import Generator
from types import GeneratorType
from typing import Any

import numpy as np

from ...errors import ArtifactError
from .rds_stream import SMALLER, AsciiStream, BinaryStream, decompress
from .robject import NA_INTEGER, NO_ATTRIBUTES, RObject, number_text

_Steps = Generator[Any, Any, Any]  # yields generators of items inside, is sent their values, returns its own

__all__ = ["MAX_BYTES", "MAX_DEPTH", "MAX_OBJECTS", "read_rds"]

MAX_BYTES = 1 << 30  # of the unpacked file; a model with more holds its training data
MAX_DEPTH = 10_000  # nested values; R itself stops near 5,000
MAX_OBJECTS = 20_000_000  # values in one file: bounds the memory that small ones cost
_MAX_SEQUENCE = 1 << 27  # values of all compact sequences together: each costs 30 bytes in the file, whatever its length
_VECTOR_COST = 4  # values a vector or list counts as: one of a single number costs a few hundred bytes
_MAX_VERSION_TEXT = 64  # the name of a native encoding

_SINGLETONS = {
    242: "emptyenv", 241: "baseenv", 253: "globalenv", 250: "base namespace", 252: "unbound", 251: "missing argument"
}  # fmt: skip
_PAIRLISTS = {2: "pairlist", 6: "language", 17: "pairlist"}
_BYTECODE_LANGUAGE = frozenset({2, 6, 239, 240, 243, 244})
_ENCODINGS = {"UTF-8": "utf-8", "latin1": "latin-1", "ISO-8859-1": "latin-1", "ISO8859-1": "latin-1", "CP1252": "cp1252", "ASCII": "ascii"}
_OBJECT, _ATTRIBUTES, _TAG = 0x100, 0x200, 0x400
_BYTES, _LATIN1, _UTF8 = 0x2000, 0x4000, 0x8000  # the encoding of one string, in its flags


def read_rds(data: bytes, *, max_bytes: int = MAX_BYTES, max_depth: int = MAX_DEPTH, max_objects: int = MAX_OBJECTS) -> RObject | None:
    """Read what `saveRDS` wrote: XDR, ASCII or little-endian; plain, gzip, bzip2 or xz; version 2 or 3.

    Parameters
    ----------
    data : bytes
        The file.
    max_bytes : int
        Refuse a file that unpacks to more.
    max_depth, max_objects : int
        Refuse a file with deeper nesting or more values.

    Returns
    -------
    RObject or None
        None is R's NULL.

    Raises
    ------
    ArtifactError
        If the file is malformed, too large, too deep, or would read other files.

    Examples
    --------
    >>> read_rds(b"A\\n2\\n262146\\n131840\\n14\\n2\\n1.5\\nNA\\n").value[0]
    np.float64(1.5)
    """
    plain = decompress(bytes(data), max_bytes)
    stream: BinaryStream | AsciiStream
    if plain[:2] == b"X\n":
        stream = BinaryStream(plain, 2, order=">")
    elif plain[:2] == b"B\n":
        stream = BinaryStream(plain, 2, order="<")
    elif plain[:2] == b"A\n":
        stream = AsciiStream(plain, 2)
    else:
        raise ArtifactError("not an RDS file: it does not start with a format line")
    reader = _Reader(stream, max_depth, max_objects)
    try:
        return reader.top()
    except MemoryError as exc:
        raise ArtifactError("the RDS file needs more memory than there is") from exc


class _Reader:
    def __init__(self, stream: BinaryStream | AsciiStream, max_depth: int, max_objects: int) -> None:
        self._in = stream
        self._references: list[Any] = []
        self._max_depth = max_depth
        self._left = max_objects
        self._sequences = _MAX_SEQUENCE
        self._encoding = "utf-8"

    def top(self) -> RObject | None:
        version = self._in.integer()
        self._in.integer()  # the R that wrote it
        self._in.integer()  # the oldest R that reads it
        if version not in (2, 3):
            raise ArtifactError(f"the RDS file has version {version}; versions 2 and 3 are read", hint="write it with saveRDS(version = 2)")
        if version == 3:
            size = self._in.integer()
            if not 0 <= size <= _MAX_VERSION_TEXT:
                raise ArtifactError("the RDS file names its encoding in a malformed way")
            self._encoding = _ENCODINGS.get(self._in.text(size).decode("latin-1"), "utf-8")
        return self._run(self._item())

    def _run(self, first: Any) -> Any:
        """Drive nested generators from a list, so that depth costs memory of ours and no Python frames."""
        if type(first) is not GeneratorType:
            return first
        stack, value = [first], None
        while stack:
            try:
                inner = stack[-1].send(value)
            except StopIteration as done:
                value = done.value
                stack.pop()
                continue
            if len(stack) >= self._max_depth:
                raise ArtifactError(f"the RDS file nests deeper than {self._max_depth} levels")
            stack.append(inner)
            value = None
        return value

    def _item(self) -> Any:
        """Read one item: a finished value, or a generator that yields the items inside it and returns the value."""
        return self._body(self._in.integer())

    def _body(self, flags: int) -> Any:
        self._left -= 1
        if self._left < 0:
            raise ArtifactError("the RDS file holds too many values", hint=SMALLER)
        kind = flags & 0xFF
        if kind == 254:
            return None
        if kind == 255:
            return self._reference(flags)
        if kind == 9:
            return self._string(flags)
        if kind in (10, 13, 14, 15, 24, 25, 7, 8, 16, 19, 20, 21, 22, 23):
            self._left -= _VECTOR_COST - 1
            return self._vector(kind, flags)
        if kind == 1:
            return self._symbol()
        if kind in _PAIRLISTS:
            return self._pairlist(_PAIRLISTS[kind], flags)
        if kind in _SINGLETONS:
            return RObject("environment", _SINGLETONS[kind]) if kind not in (252, 251) else RObject("symbol", "")
        if kind in (3, 5):
            return self._closure("closure" if kind == 3 else "promise", flags)
        if kind == 4:
            return self._environment()
        if kind == 238:
            return self._altrep()
        if kind in (247, 248, 249):
            return self._namespace()
        raise ArtifactError(f"the RDS file has an item of unknown type {kind}")

    def _reference(self, flags: int) -> Any:
        index = (flags >> 8) & 0xFFFFFF or self._in.integer()
        if not 1 <= index <= len(self._references):
            raise ArtifactError(f"the RDS file refers to item {index}, and there are {len(self._references)}")
        return self._references[index - 1]

    def _length(self) -> int:
        length = self._in.integer()
        if length == -1:  # a long vector: two halves follow
            high, low = self._in.integer(), self._in.integer()
            length = (high << 32) + (low & 0xFFFFFFFF)
        if length < 0:
            raise ArtifactError(f"the RDS file has a vector of length {length}")
        return length

    def _string(self, flags: int) -> str | None:
        if flags & _ATTRIBUTES:
            raise ArtifactError("the RDS file has a string with attributes")
        length = self._in.integer()
        if length == -1:
            return None
        raw = self._in.text(length)
        if flags & _UTF8:
            return raw.decode("utf-8", "backslashreplace")
        if flags & _LATIN1:
            return raw.decode("cp1252" if all(b not in (0x81, 0x8D, 0x8F, 0x90, 0x9D) for b in raw) else "latin-1")
        if flags & _BYTES:
            return raw.decode("ascii", "backslashreplace")
        return raw.decode(self._encoding, "backslashreplace")

    def _vector(self, kind: int, flags: int) -> Any:
        if flags & _ATTRIBUTES or kind in (16, 19, 20, 21, 22, 23):
            return self._vector_with_items(kind, flags)
        return self._atomic(kind)

    def _atomic(self, kind: int) -> RObject:
        if kind == 25:
            return RObject("S4")
        if kind in (7, 8):
            return RObject("special" if kind == 7 else "builtin", self._in.text(self._in.integer()).decode("latin-1"))
        length = self._length()
        if kind == 14:
            return RObject("double", self._in.doubles(length))
        if kind == 15:
            return RObject("complex", self._in.doubles(2 * length).view(np.complex128))
        if kind == 24:
            return RObject("raw", self._in.octets(length))
        return RObject("integer" if kind == 13 else "logical", self._in.integers(length))

    def _vector_with_items(self, kind: int, flags: int) -> _Steps:
        if kind == 16:
            out = RObject("character", self._strings())
        elif kind in (19, 20):
            out = RObject("list" if kind == 19 else "expression")
            out.value = yield self._elements()
        elif kind == 21:
            yield self._bytecode()
            out = RObject("bytecode")
        elif kind in (22, 23):
            out = RObject("externalptr" if kind == 22 else "weakref")
            self._references.append(out)
            for _ in range(2 if kind == 22 else 0):
                inner = self._item()
                if type(inner) is GeneratorType:
                    inner = yield inner
        else:
            out = self._atomic(kind)
        if flags & _ATTRIBUTES:
            out.attributes = yield self._attributes()
        return out

    def _strings(self) -> list[str | None]:
        length = self._length()
        self._in.check_items(length)
        self._left -= length
        out = []
        for _ in range(length):
            flags = self._in.integer()
            if flags & 0xFF != 9:
                raise ArtifactError(f"the RDS file has an item of type {flags & 0xFF} inside a character vector")
            out.append(self._string(flags))
        return out

    def _elements(self) -> _Steps:
        length = self._length()
        self._in.check_items(length)
        out = []
        for _ in range(length):
            value = self._item()
            if type(value) is GeneratorType:
                value = yield value
            out.append(value)
        return out

    def _attributes(self) -> _Steps:
        found = self._item()
        if type(found) is GeneratorType:
            found = yield found
        if found is None:
            return NO_ATTRIBUTES
        if not isinstance(found, RObject) or found.kind != "pairlist":
            raise ArtifactError("the RDS file has attributes that are not a pairlist")
        return {t: v for t, v in zip(found.tags, found.value) if t is not None}

    def _symbol(self) -> RObject:
        name = self._item()
        if not isinstance(name, str) and name is not None:
            raise ArtifactError("the RDS file has a symbol without a name")
        out = RObject("symbol", "NA" if name is None else name)
        self._references.append(out)
        return out

    def _pairlist(self, kind: str, flags: int) -> _Steps:
        attributes: Any = NO_ATTRIBUTES
        tags: list[str | None] = []
        values: list[Any] = []
        while True:
            if flags & _ATTRIBUTES:
                found = yield self._attributes()
                attributes = attributes or found
            tag = self._item() if flags & _TAG else None
            if tag is not None and (not isinstance(tag, RObject) or tag.kind != "symbol"):
                raise ArtifactError("the RDS file has a tag that is not a symbol")
            value = self._item()
            if type(value) is GeneratorType:
                value = yield value
            tags.append(None if tag is None else tag.value)
            values.append(value)
            flags = self._in.integer()
            if flags & 0xFF == 254:
                return RObject(kind, values, attributes, tuple(tags))
            if flags & 0xFF not in _PAIRLISTS:  # a dotted pair: deferred strings are saved as one
                value = self._body(flags)
                if type(value) is GeneratorType:
                    value = yield value
                return RObject(kind, [*values, value], attributes, (*tags, None))
            self._left -= 1

    def _closure(self, kind: str, flags: int) -> _Steps:
        """A closure is (environment, formals, body); a promise (environment, value, expression). Both stay inert."""
        attributes: Any = NO_ATTRIBUTES
        if flags & _ATTRIBUTES:
            attributes = yield self._attributes()
        parts = []
        for present in (flags & _TAG, True, True):
            value = self._item() if present else None
            if type(value) is GeneratorType:
                value = yield value
            parts.append(value)
        names = ("environment", "formals", "body") if kind == "closure" else ("environment", "value", "expression")
        return RObject(kind, dict(zip(names, parts)), attributes)

    def _environment(self) -> _Steps:
        self._in.integer()  # whether it is locked
        out = RObject("environment", {})
        self._references.append(out)
        for part in ("enclosure", "frame", "hash"):
            value = self._item()
            if type(value) is GeneratorType:
                value = yield value
            out.value[part] = value
        out.attributes = yield self._attributes()
        return out

    def _namespace(self) -> RObject:
        if self._in.integer() != 0:
            raise ArtifactError("the RDS file has a namespace in a malformed form")
        out = RObject("environment", tuple(v or "" for v in self._strings()))
        self._references.append(out)
        return out

    # ------------------------------------------------------------ bytecode: walked, never kept

    def _bytecode(self) -> _Steps:
        self._in.check_items(self._in.integer())  # the table of shared constants, which we do not keep
        yield self._bytecode_body()

    def _bytecode_body(self) -> _Steps:
        code = self._item()
        if type(code) is GeneratorType:
            yield code
        count = self._in.integer()
        self._in.check_items(count)
        for _ in range(count):
            kind = self._in.integer()
            if kind == 21:
                yield self._bytecode_body()
            else:
                yield self._bytecode_language(kind)

    def _bytecode_language(self, kind: int) -> _Steps:
        while True:  # the tail of a call is a loop, its head a nested item
            self._left -= 1
            if self._left < 0:
                raise ArtifactError("the RDS file holds too many values", hint=SMALLER)
            if kind == 243:
                self._in.integer()
                return
            if kind == 244:
                self._in.integer()
                kind = self._in.integer()
            if kind not in _BYTECODE_LANGUAGE:
                value = self._item()
                if type(value) is GeneratorType:
                    yield value
                return
            if kind in (239, 240):
                yield self._attributes()
            tag = self._item()
            if type(tag) is GeneratorType:
                yield tag
            yield self._bytecode_language(self._in.integer())
            kind = self._in.integer()

    # ------------------------------------------------------------ ALTREP: R's compact forms of vectors

    def _altrep(self) -> _Steps:
        parts = []
        for _ in range(2):
            value = self._item()
            if type(value) is GeneratorType:
                value = yield value
            parts.append(value)
        attributes = yield self._attributes()
        info, state = parts
        if not isinstance(info, RObject) or info.kind != "pairlist" or not isinstance(info.value[0], RObject):
            raise ArtifactError("the RDS file has a compact vector without a class")
        out = _expand(info.value[0].value, state, min(self._sequences, _MAX_SEQUENCE))
        if out.kind == "character":
            self._left -= len(out)  # each is a Python string now
        elif isinstance(out.value, range):
            self._sequences -= len(out)
        out.attributes = attributes
        return out


def _expand(name: Any, state: Any, longest: int) -> RObject:
    """Turn the state of one of R's own ALTREP classes into the vector it stands for; a sequence is at most `longest`."""
    parts = state.value if isinstance(state, RObject) and state.kind in ("list", "pairlist") else None
    if name in ("compact_intseq", "compact_realseq"):
        if (
            not isinstance(state, RObject)
            or state.kind not in ("double", "integer")
            or len(state) != 3
            or not np.all(np.isfinite(state.value))
        ):
            raise ArtifactError("the RDS file has a malformed compact sequence")
        length, first, step = (float(v) for v in state.value)
        if not 0 <= length <= longest or step not in (1.0, -1.0) or not length.is_integer():
            raise ArtifactError("the RDS file has a compact sequence that is too long or malformed")
        last = first + step * length
        if name == "compact_intseq" and (not first.is_integer() or max(abs(first), abs(last)) > 2.0**32):
            raise ArtifactError("the RDS file has a malformed compact sequence")
        if first.is_integer() and max(abs(first), abs(last)) < 2.0**53:
            return RObject("integer" if name == "compact_intseq" else "double", range(int(first), int(last), int(step)))
        raise ArtifactError("the RDS file has a malformed compact sequence")
    if isinstance(name, str) and name.startswith("wrap_") and parts and isinstance(parts[0], RObject):
        inner = parts[0]
        return RObject(inner.kind, inner.value)
    if name == "deferred_string" and parts and isinstance(parts[0], RObject) and parts[0].kind in ("integer", "double"):
        numbers = parts[0]
        if len(numbers) > _MAX_SEQUENCE // 16:  # each becomes a Python string
            raise ArtifactError("the RDS file has too many deferred strings")
        if numbers.kind == "integer":
            return RObject("character", [None if v == NA_INTEGER else str(int(v)) for v in numbers.value])
        return RObject("character", [_deferred(float(v), b) for v, b in zip(numbers.value, _is_na(numbers.value))])
    raise ArtifactError(
        f"the RDS file has a compact vector of class {name!r}, which this reader does not expand",
        hint="copy the vector in R before saving it",
    )


def _is_na(values: Any) -> np.ndarray:
    array = np.ascontiguousarray(values, dtype=np.float64)
    return np.isnan(array) & ((array.view(np.uint64) & 0xFFFFFFFF) == 1954)  # NaN is the text "NaN", NA is missing


def _deferred(value: float, missing: bool) -> str | None:
    return None if missing else number_text(value)
