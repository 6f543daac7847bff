"""RObject: an R value as plain data, as the RDS reader hands it out.

Vectors are numpy arrays or lists of strings, lists are lists, calls stay unevaluated trees. Nothing here runs R code,
and nothing here knows any model.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np

from ...errors import ArtifactError

__all__ = ["NA_INTEGER", "RObject", "number_text"]

NA_INTEGER = -(2**31)  # R's missing integer and missing logical
NO_ATTRIBUTES: Mapping[str, Any] = MappingProxyType({})
_NUMERIC = frozenset({"logical", "integer", "double"})


class RObject:
    """One R value; R's NULL is Python's None instead.

    Attributes
    ----------
    kind : str
        As R's `typeof` spells it: double, integer, logical, character, list, language, symbol, closure, environment, S4, …
    value : object
        Numeric vectors: a numpy array (integer and logical as int32 with `NA_INTEGER`), or a range for a compact sequence.
        character: list of str, None where missing. list, expression, pairlist, language: list of RObject or None.
        symbol: its name. environment: `{"enclosure", "frame", "hash"}`. closure: `{"environment", "formals", "body"}`.
    attributes : mapping of str to RObject
        R's attributes.
    tags : tuple of str or None
        Argument names of a pairlist or call.

    Examples
    --------
    >>> RObject("double", np.array([1.0, 2.0]), {"names": RObject("character", ["a", "b"])}).get("b").item()
    2.0
    """

    __slots__ = ("attributes", "kind", "tags", "value")

    def __init__(
        self, kind: str, value: Any = None, attributes: Mapping[str, Any] = NO_ATTRIBUTES, tags: Sequence[str | None] = ()
    ) -> None:
        self.kind = kind
        self.value = value
        self.attributes = attributes
        self.tags = tags

    def __repr__(self) -> str:
        size = f"[{len(self.value)}]" if hasattr(self.value, "__len__") else ""
        classes = f" class {'/'.join(self.classes)}" if self.classes else ""
        return f"<R {self.kind}{size}{classes}>"

    def __len__(self) -> int:
        return len(self.value) if hasattr(self.value, "__len__") else 0

    def attribute(self, name: str) -> Any:
        """Return an attribute, None where it is absent."""
        return self.attributes.get(name)

    @property
    def classes(self) -> tuple[str, ...]:
        """The class attribute, empty where there is none."""
        found = self.attributes.get("class")
        return tuple(v for v in found.value if v is not None) if isinstance(found, RObject) and found.kind == "character" else ()

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the elements, empty where there are none."""
        if self.kind in ("pairlist", "language"):
            return tuple(t or "" for t in self.tags)
        found = self.attributes.get("names")
        if not isinstance(found, RObject) or found.kind != "character":
            dimnames = self.dimnames
            return dimnames[0] or () if len(dimnames) == 1 else ()
        return tuple(v or "" for v in found.value)

    @property
    def dim(self) -> tuple[int, ...]:
        """The dimensions of a matrix or array, empty for a plain vector."""
        found = self.attributes.get("dim")
        return tuple(int(v) for v in found.value) if isinstance(found, RObject) and found.kind in _NUMERIC else ()

    @property
    def dimnames(self) -> tuple[tuple[str, ...] | None, ...]:
        """Names of each dimension, None where a dimension has none."""
        found = self.attributes.get("dimnames")
        if not isinstance(found, RObject) or found.kind != "list":
            return ()
        return tuple(tuple(v or "" for v in d.value) if isinstance(d, RObject) and d.kind == "character" else None for d in found.value)

    @property
    def levels(self) -> tuple[str, ...]:
        """The levels of a factor, empty for anything else."""
        found = self.attributes.get("levels")
        return tuple(v if v is not None else "NA" for v in found.value) if isinstance(found, RObject) and found.kind == "character" else ()

    def has(self, name: str) -> bool:
        """Whether there is an element of that name."""
        return name in self.names

    def get(self, name: str, default: Any = None) -> Any:
        """Return the first element of that name; a vector's element as a scalar."""
        names = self.names
        if name not in names:
            return default
        index = names.index(name)
        return self.value[index] if index < len(self.value) else default

    def __getitem__(self, name: str) -> Any:
        """Return the element of that name; ArtifactError if there is none."""
        names = self.names
        if name not in names or names.index(name) >= len(self.value):
            raise ArtifactError(f"the R object {self!r} has no element {name!r}")
        return self.value[names.index(name)]

    def numbers(self) -> np.ndarray:
        """Return a numeric vector as float64, in R's column order, missing integers as NaN."""
        if self.kind not in _NUMERIC:
            raise ArtifactError(f"expected numbers, found {self!r}")
        steps = self.value
        array = np.arange(steps.start, steps.stop, steps.step) if isinstance(steps, range) else np.asarray(steps)
        if self.kind == "double":
            return array.astype(np.float64)
        return np.where(array == NA_INTEGER, np.nan, array.astype(np.float64))

    def integers(self) -> np.ndarray:
        """Return a numeric vector of whole numbers as int64."""
        values = self.numbers()
        if not np.all(np.isfinite(values)) or np.any(np.abs(values) > 2.0**53) or np.any(values != np.floor(values)):
            raise ArtifactError(f"expected whole numbers, found {self!r}")
        return values.astype(np.int64)

    def array(self) -> np.ndarray:
        """Return a numeric matrix or array with its dimensions, as float64."""
        values = self.numbers()
        if not self.dim:
            return values
        if int(np.prod([int(d) for d in self.dim], dtype=object)) != values.size or min(self.dim) < 0:
            raise ArtifactError(f"an R array of {values.size} values has dimensions {self.dim}")
        return values.reshape(self.dim, order="F")

    def strings(self) -> list[str]:
        """Return a character vector or the labels of a factor; missing is the text NA."""
        if self.levels and self.kind == "integer":
            levels = self.levels
            codes = [int(c) for c in self.value]
            if any(c != NA_INTEGER and not 1 <= c <= len(levels) for c in codes):
                raise ArtifactError("a factor has a code outside its levels")
            return ["NA" if c == NA_INTEGER else levels[c - 1] for c in codes]
        if self.kind != "character":
            raise ArtifactError(f"expected text, found {self!r}")
        return ["NA" if v is None else v for v in self.value]

    def scalar(self) -> float:
        """Return the first number."""
        values = self.numbers()
        if not values.size:
            raise ArtifactError("expected a number, found an empty vector")
        return float(values[0])

    def text(self) -> str:
        """Return the first string."""
        values = self.strings()
        if not values:
            raise ArtifactError("expected text, found an empty vector")
        return values[0]

    def frame(self) -> dict[str, Any]:
        """Return the variables of an environment; of a promise the value R had already computed, else the promise."""
        out: dict[str, Any] = {}
        if self.kind != "environment" or not isinstance(self.value, dict):
            return out
        chains = [self.value.get("frame")]
        table = self.value.get("hash")
        if isinstance(table, RObject) and table.kind == "list":
            chains += table.value
        for chain in chains:
            if isinstance(chain, RObject) and chain.kind == "pairlist":
                out.update({t: _computed(v) for t, v in zip(chain.tags, chain.value) if t})
        return out


def _computed(value: Any) -> Any:
    if isinstance(value, RObject) and value.kind == "promise":
        inner = value.value["value"]
        return value if isinstance(inner, RObject) and inner.kind == "symbol" and not inner.value else inner
    return value


def number_text(value: float) -> str:
    """Write a number as R's `as.character` does: up to 15 significant digits, the shorter of fixed and scientific.

    Examples
    --------
    >>> [number_text(v) for v in (4.0, 0.1, 100000.0, 123456.0, 1e-20)]
    ['4', '0.1', '1e+05', '123456', '1e-20']
    """
    if np.isnan(value):
        return "NaN"
    if np.isinf(value):
        return "Inf" if value > 0 else "-Inf"
    if value == 0:
        return "0"
    mantissa, exponent_text = f"{value:.14e}".split("e")
    exponent = int(exponent_text)
    digits = mantissa.lstrip("-").replace(".", "").rstrip("0") or "0"
    sign = "-" if value < 0 else ""
    scientific = digits[0] + (f".{digits[1:]}" if len(digits) > 1 else "") + f"e{exponent:+03d}"
    fixed = f"{abs(value):.{max(0, len(digits) - 1 - exponent)}f}"
    return sign + (fixed if len(fixed) <= len(scientific) else scientific)
