"""One tensor: its name, dtype, shape, columns, and the rules for missing values and rounding."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Literal

from ..errors import SignatureError
from .dtypes import DTYPES

__all__ = ["ROWS", "Column", "Dim", "TensorSpec", "level_text"]

ROWS = "rows"  # the batch axis; its presence is a promise that rows are independent

Level = str | int | bool
Dim = int | str | None


def level_text(level: Level) -> str:
    """Write a category level as text: strings as they are, `true`/`false`, integers in decimal.

    Examples
    --------
    >>> [level_text(v) for v in ("a", 3, True)]
    ['a', '3', 'true']
    """
    if isinstance(level, bool):
        return "true" if level else "false"
    return str(level)


def _level_type(levels: tuple) -> str | None:
    kinds = {"bool" if isinstance(v, bool) else "int64" if isinstance(v, int) else "string" if isinstance(v, str) else "?" for v in levels}
    if len(kinds) > 1 or "?" in kinds:
        raise SignatureError(
            f"categories {levels[:5]!r} are not all str, all int or all bool",
            hint="convert the levels to one type; floating-point levels are numbers, not categories",
        )
    return kinds.pop() if kinds else "string"


@dataclass(frozen=True, slots=True)
class Column:
    """One named column of a tensor's last axis.

    Parameters
    ----------
    name : str
        Its name, as users write it in tables and records.
    categories : sequence of str, int or bool, optional
        The training levels in order. The tensor then holds int32 codes: -1 missing, 0..k-1 levels, k unknown.
    ordered : bool, default=False
        Whether the levels are ordered.
    unknown : {'refuse', 'keep'}, default='refuse'
        What happens to a level the model was not trained on.
    unit : str, optional
        `date` (days since 1970-01-01), `timestamp` (seconds since the epoch, UTC), or any unit two stages must share.

    Examples
    --------
    >>> Column("size", categories=("S", "M", "L"), ordered=True).categories
    ('S', 'M', 'L')
    """

    name: str
    categories: tuple[Level, ...] | None = None
    ordered: bool = False
    unknown: Literal["refuse", "keep"] = "refuse"
    unit: str | None = None
    level_type: str | None = field(init=False, default=None, repr=False)  # True == 1 in Python; levels must not

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not self.name:
            raise SignatureError(f"a column's name must be a non-empty string, not {self.name!r}")
        if self.unknown not in ("refuse", "keep"):
            raise SignatureError(f"column {self.name!r}: unknown must be 'refuse' or 'keep', not {self.unknown!r}")
        if self.unit is not None and not isinstance(self.unit, str):
            raise SignatureError(f"column {self.name!r}: unit must be a string, not {self.unit!r}")
        if self.categories is None:
            if self.ordered or self.unknown == "keep":
                raise SignatureError(f"column {self.name!r}: ordered and unknown='keep' need categories")
            return
        levels = tuple(v.item() if hasattr(v, "item") else v for v in self.categories)
        if len(set(levels)) != len(levels):
            raise SignatureError(f"column {self.name!r}: a category occurs twice")
        object.__setattr__(self, "categories", levels)
        object.__setattr__(self, "level_type", _level_type(levels))

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON form; defaults are left out.

        Returns
        -------
        dict
            Strings, numbers, lists and dicts only.
        """
        out: dict[str, Any] = {"name": self.name}
        if self.categories is not None:
            out["categories"] = list(self.categories)
        if self.ordered:
            out["ordered"] = True
        if self.unknown != "refuse":
            out["unknown"] = self.unknown
        if self.unit is not None:
            out["unit"] = self.unit
        return out


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """One named tensor: dtype, shape, columns, and the rules for missing values and rounding.

    Parameters
    ----------
    name : str
        The tensor's name.
    dtype : str
        A name of the dtype table: bool, int8..int64, uint8..uint64, float16, float32, float64, string, bfloat16.
    shape : sequence of int, str or None
        A string is a symbol that must agree across tensors; None is any size. `rows` is the batch axis, first.
    columns : sequence of Column, optional
        Names of the last axis, or of the single column a ("rows",) tensor is.
    missing : {'refuse', 'allow'}, default='refuse'
        Whether NaN, code -1 or None may occur.
    rounding : {'refuse', 'nearest'}, default='refuse'
        Whether values may be rounded to this float32 or float16.

    Examples
    --------
    >>> TensorSpec("features", "float64", ("rows", 2), (Column("age"), Column("income"))).shape
    ('rows', 2)
    """

    name: str
    dtype: str
    shape: tuple[Dim, ...]
    columns: tuple[Column, ...] = ()
    missing: Literal["refuse", "allow"] = "refuse"
    rounding: Literal["refuse", "nearest"] = "refuse"

    def __post_init__(self) -> None:
        object.__setattr__(self, "shape", tuple(self.shape))
        object.__setattr__(self, "columns", tuple(self.columns))
        problems = list(_spec_problems(self))
        if problems:
            raise SignatureError(f"tensor {self.name!r}: " + "; ".join(problems), problems=problems)

    @property
    def batched(self) -> bool:
        """Whether the first axis is the promise `rows`."""
        return bool(self.shape) and self.shape[0] == ROWS

    @property
    def categorical(self) -> bool:
        """Whether the values are codes of categories."""
        return bool(self.columns) and self.columns[0].categories is not None

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON form; defaults are left out.

        Returns
        -------
        dict
            Strings, numbers, lists and dicts only.
        """
        out: dict[str, Any] = {"name": self.name, "dtype": self.dtype, "shape": list(self.shape)}
        if self.columns:
            out["columns"] = [c.to_dict() for c in self.columns]
        if self.missing != "refuse":
            out["missing"] = self.missing
        if self.rounding != "refuse":
            out["rounding"] = self.rounding
        return out

    def __str__(self) -> str:
        dims = ", ".join("?" if d is None else str(d) for d in self.shape)
        return f"{self.name}: {self.dtype}[{dims}]"


def _spec_problems(spec: TensorSpec) -> Iterable[str]:
    if not isinstance(spec.name, str) or not spec.name:
        yield f"the name must be a non-empty string, not {spec.name!r}"
    if spec.dtype not in DTYPES:
        yield f"dtype {spec.dtype!r} is not one of {', '.join(DTYPES)}"
    for i, d in enumerate(spec.shape):
        if not (d is None or (isinstance(d, str) and d) or (isinstance(d, int) and not isinstance(d, bool) and d >= 0)):
            yield f"shape[{i}] must be a size, a symbol or None, not {d!r}"
        if d == ROWS and i:
            yield "the symbol 'rows' must be the first axis"
    if spec.missing not in ("refuse", "allow"):
        yield f"missing must be 'refuse' or 'allow', not {spec.missing!r}"
    if spec.rounding not in ("refuse", "nearest"):
        yield f"rounding must be 'refuse' or 'nearest', not {spec.rounding!r}"
    if spec.rounding == "nearest" and spec.dtype not in ("float16", "float32", "bfloat16"):
        yield f"rounding='nearest' is for float32 and float16, not {spec.dtype}"
    if not all(isinstance(c, Column) for c in spec.columns):
        yield "columns must be Column objects"
        return
    if spec.columns:
        names = [c.name for c in spec.columns]
        twice = sorted({n for n in names if names.count(n) > 1})
        if twice:
            yield f"columns occur twice: {', '.join(map(repr, twice))}"
        width = spec.shape[-1] if len(spec.shape) > 1 else 1
        if not spec.shape:
            yield "a scalar has no columns"
        elif isinstance(width, int) and len(names) != width:
            yield f"{len(names)} columns for a last axis of {width}"
        kinds = {c.categories is not None for c in spec.columns}
        if len(kinds) > 1:
            yield "categorical and other columns cannot share a block"
        elif kinds == {True} and spec.dtype != "int32":
            yield f"categories are int32 codes, not {spec.dtype}"
