"""The raw columns of tree models, and the one matrix their trees read.

A tree's column is a number, or a factor as codes: `TreeFrame` evaluates each, from a formula or from plain names.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ...signature import Field
from ..trees import Tree, join, positions, width
from .arithmetic import Arithmetic
from .terms import ModelFrame
from .treecodes import looked_up
from .values import Factor, Numeric, categorical_field, codes_of, is_top, numeric_field, refuse

__all__ = ["TreeFrame"]


class TreeFrame:
    """The columns of a tree model.

    Parameters
    ----------
    names : sequence of str
        The variables in training order, as the trees count them.
    levels : mapping of str to tuple of str
        Levels of those that are factors.
    ordered : collection of str
        Factors whose codes are split as numbers.
    frame : ModelFrame, optional
        The formula; without one the names are plain columns.
    missing : {'allow', 'refuse'}
        The rule of every column.
    """

    def __init__(
        self,
        names: Sequence[str],
        levels: Mapping[str, tuple[str, ...]],
        *,
        ordered: Sequence[str] = (),
        frame: ModelFrame | None = None,
        missing: str = "allow",
    ) -> None:
        self.names, self.levels, self.ordered = tuple(names), dict(levels), frozenset(ordered)
        self.frame, self.missing = frame, missing
        if frame is not None and (frame.offset_index or frame.extra_offsets):
            raise refuse("an offset in the formula of a tree model")
        absent = [n for n in self.names if frame is not None and n not in frame.labels]
        if absent:
            raise refuse(f"the formula has no variable {', '.join(map(repr, absent[:5]))}")

    def fields(self) -> list[Field]:
        """Describe the raw columns."""
        if self.frame is not None:
            return self.frame.fields()
        return [
            categorical_field(n, self.levels[n], ordered=n in self.ordered, missing=self.missing)
            if n in self.levels
            else numeric_field(n, missing=self.missing)
            for n in self.names
        ]

    def values(self, ar: Arithmetic, scope: Mapping[str, Any]) -> dict[str, Any]:
        """Evaluate every variable."""
        if self.frame is None:
            return {n: scope[n] for n in self.names}
        ev = self.frame.evaluator(ar, scope)
        return {n: self.frame.variable(ev, self.frame.labels.index(n)) for n in self.names}

    def inputs(
        self, ar: Arithmetic, scope: Mapping[str, Any], trees: Sequence[Tree], *, first: int = 1, missing: float = 1.0
    ) -> tuple[str, list[Tree]]:
        """Return the matrix of all variables and the trees over it.

        `first` is the number of the first level of an ordered factor; a missing code is NaN there, and `missing` where sets are asked.
        """
        if is_top(scope) and self.plain():
            values = [scope[n] for n in self.names]
            factors = [i for i, v in enumerate(values) if isinstance(v, Factor)]
            if factors and all(values[i].levels == self.levels.get(n, values[i].levels) for i, n in enumerate(self.names) if i in factors):
                numbers = {i: first if self.names[i] in self.levels else 0 for i in factors if i not in self.sets()}
                found = looked_up(ar, values, numbers, trees, missing=missing)
                if found is not None:
                    return found
        return self._evaluated(ar, scope, first), list(trees)

    def matrix(self, ar: Arithmetic, scope: Mapping[str, Any], *, first: int = 1) -> str:
        """Return all variables as one matrix: factors split by sets as codes from 0, ordered ones as codes from `first`.

        A missing code is NaN, or -1 where `raw_codes` says so.
        """
        if self.raw_codes(scope):
            signature = ar.graph.signature
            where = positions(signature, self.names)
            whole = join(ar.graph)
            return (
                whole if where.tolist() == list(range(width(signature))) else ar.graph.add("Gather", whole, ar.graph.const(where), axis=1)
            )
        return self._evaluated(ar, scope, first)

    def _evaluated(self, ar: Arithmetic, scope: Mapping[str, Any], first: int) -> str:
        values = self.values(ar, scope)
        x = ar.columns([self._number(ar, n, values[n], first) for n in self.names])
        ar.widths[x] = len(self.names)
        return x

    def _number(self, ar: Arithmetic, name: str, value: Any, first: int) -> str:
        if isinstance(value, Factor):
            logical = set(value.levels) == {"FALSE", "TRUE"} and name not in self.levels
            return codes_of(ar, value, first=0 if logical or (name in self.levels and name not in self.ordered) else first)
        if isinstance(value, Numeric) and len(value.columns) == 1:
            return value.name
        raise refuse(f"the variable {name!r}, a matrix")

    def raw_codes(self, scope: Mapping[str, Any]) -> bool:
        """Whether the signature's own blocks are the matrix: every variable a raw column, every factor split by sets."""
        logical = any(isinstance(scope[n], Factor) and n not in self.levels for n in self.names) if self.plain() else True
        return is_top(scope) and not logical and not self.ordered

    def plain(self) -> bool:
        """Whether every variable is a raw column, so that rows for the trees are rows of the model."""
        if self.frame is None:
            return True
        return set(self.names) <= set(self.frame.raw()) and not any(len(v) > 1 and v[0] == "numeric" for v in self.frame.raw().values())

    def sets(self) -> dict[int, int]:
        """Return column index to number of levels, for factors split by sets."""
        return {i: len(self.levels[n]) for i, n in enumerate(self.names) if n in self.levels and n not in self.ordered}
