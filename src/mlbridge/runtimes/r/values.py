"""numpy arrays to R vectors and back by copying memory; to be called on the R thread only, values protected by the caller.

What R types the values get is what `_r/frames.R` gives them, so that both ways into R answer alike.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ...errors import InputError
from ...interfaces import Array
from ...signature import DTYPES

__all__ = ["REAL", "KeptCall", "Scope", "from_r", "named_list", "numbers_from_r", "strings_from_r", "to_r"]

_LOGICAL, _INTEGER, REAL, _STRING, _LIST = 10, 13, 14, 16, 19  # SEXPTYPEs
_UTF8 = 1  # CE_UTF8
_GUARDED_BYTES = 1 << 20  # above, R's own allocation error must have a caller to jump to
_KEPT_BYTES = 1 << 20  # of inputs between calls, by each model
_EXACT = 2**53
_MOST_NAMES = 256
_MODES = {_LOGICAL: "logical", _INTEGER: "integer", REAL: "double", _STRING: "character"}
_DTYPES: dict[int, np.dtype[Any]] = {1: np.dtype(np.int32), 4: np.dtype(np.int32), 13: np.dtype(np.float64)}  # by frame code
_STRING_CODE = DTYPES["string"].frame


class Scope:
    """Keeps R objects from R's garbage collector until the block ends.

    Parameters
    ----------
    r : EmbeddedR
        The running R.
    """

    def __init__(self, r: Any) -> None:
        self.r, self._count = r, 0

    def keep(self, value: Any) -> Any:
        """Protect an R object and return it."""
        self._count += 1
        return self.r.rlib.Rf_protect(value)

    def __enter__(self) -> Scope:
        return self

    def __exit__(self, *exc: object) -> None:
        self.r.rlib.Rf_unprotect(self._count)


class KeptCall:
    """A call of R's whose vectors of doubles are filled anew for the next question, if R has let go of them.

    New vectors cost more than filling them: R's garbage collector goes round, and the memory is never in a cache.

    Parameters
    ----------
    r : EmbeddedR
        The running R.
    call : R object
        Preserved here until `release`; its first argument is the list of the feeds.
    feeds : mapping of str to ndarray
        What the list was made of; to be `keepable`.
    """

    def __init__(self, r: Any, call: Any, feeds: Mapping[str, Array]) -> None:
        rlib = r.rlib
        rlib.R_PreserveObject(call)
        self.call, self._r = call, r
        self._list = rlib.CAR(rlib.CDR(call))
        self._parts = []
        for i, (name, value) in enumerate(feeds.items()):
            vector = rlib.VECTOR_ELT(self._list, i)
            memory = np.frombuffer(r.ffi.buffer(rlib.REAL(vector), value.nbytes))
            self._parts.append((name, vector, memory.reshape(value.shape, order="F")))

    @staticmethod
    def keepable(feeds: Mapping[str, Array]) -> bool:
        """Whether the feeds are doubles and few enough to keep."""
        return all(v.dtype == np.float64 and v.size for v in feeds.values()) and sum(v.nbytes for v in feeds.values()) <= _KEPT_BYTES

    def fill(self, feeds: Mapping[str, Array]) -> bool:
        """Put other feeds in the place of the last; False where they do not fit or R holds the last ones still."""
        holders = self._r.holders
        if len(feeds) != len(self._parts) or holders(self._list) != 1:
            return False
        for name, vector, view in self._parts:
            value = feeds[name]
            if value.shape != view.shape or value.dtype != view.dtype or holders(vector) != 1:
                return False
        for name, _, view in self._parts:
            view[...] = feeds[name]
        return True

    def release(self) -> None:
        """Let R forget the call."""
        self._r.rlib.R_ReleaseObject(self.call)


def to_r(scope: Scope, value: Any) -> Any:
    """Return an R vector, matrix or array of the values: column-major, rank 0 as one element.

    Parameters
    ----------
    scope : Scope
        Keeps what is made.
    value : ndarray, str or number
        Row-major.

    Raises
    ------
    InputError
        If R has no form for a value; the words are those of the worker.
    """
    if isinstance(value, str):
        value = np.array(value, object)
    array = np.asarray(value)
    kind, array = _as_r(array)
    r = scope.r
    rlib = r.rlib
    if kind == REAL and array.ndim == 2 and 0 < array.nbytes <= _GUARDED_BYTES:  # the way that small calls go
        vector = scope.keep(r.allocate_matrix(kind, *array.shape))
        r.ffi.memmove(rlib.REAL(vector), np.ascontiguousarray(array.T), array.nbytes)
        return vector
    vector = scope.keep(_allocate(r, kind, array.size))
    if kind == _STRING:
        for i, text in enumerate(array.ravel(order="F").tolist()):
            rlib.SET_STRING_ELT(vector, i, _charsxp(rlib, text))
    elif array.size:
        pointer = rlib.REAL(vector) if kind == REAL else rlib.INTEGER(vector) if kind == _INTEGER else rlib.LOGICAL(vector)
        memory = np.frombuffer(r.ffi.buffer(pointer, array.nbytes), array.dtype)
        memory.reshape(array.shape, order="F")[...] = array
    if array.ndim > 1:
        sizes = scope.keep(rlib.Rf_allocVector(_INTEGER, array.ndim))
        rlib.INTEGER(sizes)[0 : array.ndim] = list(array.shape)
        rlib.Rf_setAttrib(vector, rlib.R_DimSymbol, sizes)
    return vector


def named_list(scope: Scope, values: Mapping[str, Any]) -> Any:
    """Return an R list of the values with their names."""
    rlib = scope.r.rlib
    out = scope.keep(rlib.Rf_allocVector(_LIST, len(values)))
    for i, value in enumerate(values.values()):
        rlib.SET_VECTOR_ELT(out, i, to_r(scope, value))
    rlib.Rf_setAttrib(out, scope.r.names_symbol, _names(scope, tuple(values)))
    return out


def _names(scope: Scope, names: tuple[str, ...]) -> Any:
    """Return the names as an R vector; the same few come call after call, so some are kept for good."""
    rlib, kept = scope.r.rlib, scope.r.kept_names
    vector = kept.get(names)
    if vector is None:
        vector = scope.keep(rlib.Rf_allocVector(_STRING, len(names)))
        for i, name in enumerate(names):
            rlib.SET_STRING_ELT(vector, i, _charsxp(rlib, name))
        if len(kept) < _MOST_NAMES:
            rlib.R_PreserveObject(vector)
            kept[names] = vector
    return vector


def numbers_from_r(r: Any, value: Any) -> Array:
    """Return a fresh array of an R vector of doubles without attributes."""
    size = r.rlib.Rf_xlength(value)
    out = np.empty(size)
    if size:
        r.ffi.memmove(out, r.rlib.REAL(value), out.nbytes)
    return out


def from_r(r: Any, value: Any, code: int) -> Array:
    """Return a fresh row-major array of an R vector whose type is given by its frame code."""
    rlib = r.rlib
    size = rlib.Rf_xlength(value)
    shape = _shape(r, value, size)
    if code == _STRING_CODE:
        array = np.empty(size, object)
        array[:] = strings_from_r(r, value)
        return np.asarray(array.reshape(shape, order="F"), order="C")
    dtype = _DTYPES[code]
    if not size:
        return np.empty(shape, bool if code == 1 else dtype)
    pointer = rlib.REAL(value) if code == 13 else rlib.INTEGER(value) if code == 4 else rlib.LOGICAL(value)
    memory = np.frombuffer(r.ffi.buffer(pointer, size * dtype.itemsize), dtype)
    return np.array(memory.reshape(shape, order="F"), bool if code == 1 else dtype, order="C")


def strings_from_r(r: Any, value: Any) -> list[str | None]:
    """Return the texts of an R character vector in UTF-8; NA is None."""
    rlib, text_of = r.rlib, r.ffi.string
    missing = rlib.R_NaString
    items = (rlib.STRING_ELT(value, i) for i in range(rlib.Rf_xlength(value)))
    return [None if item == missing else text_of(rlib.R_CHAR(item)).decode() for item in items]


def _shape(r: Any, value: Any, size: int) -> Sequence[int]:
    sizes = r.rlib.Rf_getAttrib(value, r.rlib.R_DimSymbol)
    if sizes == r.rlib.R_NilValue:
        return (size,)
    return tuple(r.rlib.INTEGER(sizes)[0 : r.rlib.Rf_xlength(sizes)])


def _allocate(r: Any, kind: int, size: int) -> Any:
    if size * 8 <= _GUARDED_BYTES:
        return r.rlib.Rf_allocVector(kind, size)
    vector = r.evaluate_text(f'vector("{_MODES[kind]}", {size})')
    if vector is None:
        raise InputError(f"R has no memory for {size} values at once", hint="send fewer rows at a time", runtime="r")
    return vector


def _charsxp(rlib: Any, text: str | None) -> Any:
    if text is None:
        return rlib.R_NaString
    if not isinstance(text, str):
        raise InputError(f"{type(text).__name__} found where text or None was expected", runtime="r")
    if "\0" in text:
        raise InputError("a text with a zero character has no form in R", runtime="r")
    data = text.encode()
    return rlib.Rf_mkCharLenCE(data, len(data), _UTF8)


def _as_r(array: Array) -> tuple[int, Array]:
    """Return R's type and the values in its numpy equivalent."""
    kind = array.dtype.kind
    if kind in "OUT":
        return _STRING, array.astype(object, copy=False)
    if array.dtype == np.float64:
        return REAL, array
    if kind == "b":
        return _LOGICAL, array.astype(np.int32)
    if kind in "iu" and (array.dtype.itemsize < 4 or array.dtype == np.int32):
        return _INTEGER, array.astype(np.int32, copy=False)
    if array.dtype.itemsize == 2:
        raise InputError("R has no number of 16 bits; send float32", runtime="r")
    if kind in "iu" and array.dtype.itemsize == 8 and array.size and (array.max() > _EXACT or (kind == "i" and array.min() < -_EXACT)):
        raise InputError("a 64-bit integer beyond 2^53 has no exact form in R", runtime="r")
    return REAL, array.astype(np.float64)
