"""What an R expression can be while a graph is built: a number, a factor, or a constant; and the lookup of raw columns.

Used by the evaluator (expressions.py), formulas (terms.py) and every model family.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from ...errors import ConversionError
from ...signature import Column, Field
from .arithmetic import Arithmetic

__all__ = ["Factor", "Numeric", "Scope", "categorical_field", "codes_of", "numeric_field", "refuse", "top_scope"]


@dataclass(frozen=True)
class Numeric:
    """A float64 tensor ("rows", k); `columns` names its columns, `logical` marks R's TRUE and FALSE."""

    name: str
    columns: tuple[str, ...] = ("",)
    logical: bool = False


@dataclass(frozen=True)
class Factor:
    """Codes from 0 as an int32 or int64 tensor ("rows", 1), -1 where missing, of the levels' texts."""

    codes: str
    levels: tuple[str, ...]
    ordered: bool = False
    numbers: bool = False  # a column of whole numbers that the formula makes a factor of: elsewhere it is a number
    open: bool = False  # any other text may come, as the code after the last level


Scope = Mapping[str, Any]  # symbol -> Numeric, Factor or constant


def refuse(what: str) -> ConversionError:
    """Return the error for what has no exact ONNX form."""
    return ConversionError(f"R model: {what}", hint="run it in R: load it with the scheme 'r:' and trust='code'")


def numeric_field(name: str, *, missing: str = "allow") -> Field:
    """Describe a numeric column."""
    return Field(Column(name), "float64", missing)  # type: ignore[arg-type]


def categorical_field(
    name: str, levels: Iterable[str] | None, *, ordered: bool = False, missing: str = "allow", unknown: str = "refuse"
) -> Field:
    """Describe a factor, a character or a logical column by its training levels; refuse one whose levels are not known."""
    levels = () if levels is None else tuple(levels)
    if not levels:
        raise refuse(f"the file does not hold the levels of column {name!r}")
    values: tuple[Any, ...] = tuple(levels)
    if set(levels) == {"FALSE", "TRUE"}:
        values = tuple(v == "TRUE" for v in levels)
    return Field(Column(name, categories=values, ordered=ordered, unknown=unknown), "int32", missing)  # type: ignore[arg-type]


def stored_levels(value: Any) -> tuple[str, ...]:
    """Return the levels a file stores for one factor; NA as a level has no code of its own here and is refused."""
    if any(v is None for v in value.value):
        raise refuse("a factor that has NA among its levels")
    return tuple(value.value)


def level_texts(column: Column) -> tuple[str, ...]:
    """Return a column's levels as R writes them."""
    return tuple(("TRUE" if v else "FALSE") if isinstance(v, bool) else str(v) for v in column.categories or ())


def top_scope(ar: Arithmetic) -> dict[str, Any]:
    """Return the signature's columns as values; each is cut out of its block on first use."""
    return _Columns(ar)


class _Columns(dict):
    def __init__(self, ar: Arithmetic) -> None:
        super().__init__()
        self._ar, self._graph = ar, ar.graph
        self._columns = {c.name: c for s in ar.graph.signature.inputs for c in s.columns}
        self._texts = {c.name for s in ar.graph.signature.inputs if s.dtype == "string" for c in s.columns}
        self._places = {c.name: (s.name, i, len(s.columns)) for s in ar.graph.signature.inputs for i, c in enumerate(s.columns)}

    def __missing__(self, name: str) -> Any:
        column = self._columns[name]
        if name in self._texts:
            raise refuse(f"a computation over the text column {name!r}")
        raw = self._graph.column(name)
        self._ar.origins[raw] = self._places[name]
        if column.categories is None:
            value: Any = Numeric(raw)
        else:
            value = Factor(raw, level_texts(column), column.ordered, column.level_type == "int64", column.unknown == "keep")
        self[name] = value
        return value

    def __contains__(self, name: object) -> bool:
        return name in self._columns

    def get(self, name: str, default: Any = None) -> Any:
        return self[name] if name in self._columns else default


def is_top(scope: Scope) -> bool:
    """Whether a scope is the signature's columns themselves."""
    return isinstance(scope, _Columns)


def look_up(ar: Arithmetic, factor: Factor, table: np.ndarray, missing: float = np.nan) -> str:
    """Return row `code` of a table (levels, m), or `missing` where the code is."""
    table = np.asarray(table, dtype=np.float64).reshape(len(factor.levels) + factor.open, -1)
    rows = np.vstack([table, np.full((1, table.shape[1]), missing)])  # Gather counts -1 from the end: the missing row
    flat = ar.graph.add("Squeeze", factor.codes, ar.graph.const([1], "int64"))
    return ar.graph.add("Gather", ar.graph.const(rows), flat, axis=0)


def recode(ar: Arithmetic, factor: Factor, levels: tuple[str, ...]) -> Factor:
    """Express a factor in other levels, matched by text; a level they lack becomes missing."""
    if factor.open:
        raise refuse("a column compared with some texts used as a factor: the file does not hold its levels")
    if factor.levels == levels:
        return factor
    table = np.array([levels.index(v) if v in levels else -1 for v in factor.levels] + [-1], dtype=np.int64)
    return Factor(ar.graph.add("Gather", ar.graph.const(table), factor.codes, axis=0), levels, factor.ordered)


def codes_of(ar: Arithmetic, value: Any, *, first: int = 1) -> str:
    """Return a column as numbers: a factor's codes counted from `first` with NaN for missing, a number as it is."""
    if isinstance(value, Factor):
        return look_up(ar, value, np.arange(first, first + len(value.levels)))
    if isinstance(value, Numeric):
        return value.name
    raise refuse("a column that is a constant")
