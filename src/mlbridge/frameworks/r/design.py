"""Design: the columns of a model matrix before they are built, so that a product with coefficients needs few nodes.

A term of factors alone is a table of its levels: its coefficients are summed now, and a row of the graph looks up one
number. Only numeric terms, and their products with factors, become columns.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from .arithmetic import Arithmetic
from .values import Factor, Numeric, look_up, refuse

__all__ = ["Coded", "Design"]

_MAX_TABLE = 4096  # combinations of levels in one table; more terms than fit take tables of their own


@dataclass(frozen=True)
class Coded:
    """One variable of a term: a number, or a factor with its coding (levels, columns); and its columns' names."""

    value: Numeric | Factor
    labels: tuple[str, ...]
    table: np.ndarray | None = None

    def columns(self, ar: Arithmetic) -> str:
        """Return its columns, ("rows", columns)."""
        return self.value.name if isinstance(self.value, Numeric) else look_up(ar, self.value, np.asarray(self.table))


class Design:
    """The terms of a formula in the order of the model matrix.

    Parameters
    ----------
    ar : Arithmetic
        Writes the nodes.
    terms : sequence of sequence of Coded
        The variables of each term.
    """

    def __init__(self, ar: Arithmetic, terms: Sequence[Sequence[Coded]]) -> None:
        self.ar = ar
        self.terms = terms
        self.spans: list[slice] = []
        names: list[str] = []
        for term in terms:
            labels = term[0].labels
            for coded in term[1:]:
                labels = tuple(f"{a}:{b}" for b in coded.labels for a in labels)
            self.spans.append(slice(len(names), len(names) + len(labels)))
            names += labels
        self.names = tuple(names)

    def matrix(self) -> str:
        """Return all columns, ("rows", p)."""
        return self.ar.columns([_product(self.ar, term) for term in self.terms])

    def product(
        self, weights: np.ndarray, bias: np.ndarray | float, *, offsets: Sequence[str] = (), lines: Sequence[tuple[float, float]] = ()
    ) -> str:
        """Return the columns' product with weights, plus a bias and offsets.

        Parameters
        ----------
        weights : ndarray, (p,) or (p, m)
            A row that is NaN throughout belongs to a column R leaves out.
        bias : float or ndarray, (m,)
            Added to every row.
        offsets : sequence of str
            Values of ("rows", 1) added as they are.
        lines : sequence of slope and intercept
            Where given, weights are (p,), and the answer is each line of the product side by side.

        Returns
        -------
        str
            ("rows",) or ("rows", m).
        """
        upright = weights.ndim == 1 and not lines
        slopes, shifts = np.array(lines or [(1.0, 0.0)]).T
        with np.errstate(invalid="ignore"):  # R's NA is a NaN that signals
            weights = weights.reshape(len(weights), int(np.prod(weights.shape[1:]))) * slopes
        bias = np.broadcast_to(np.asarray(bias) * slopes + shifts, weights.shape[1:])
        numeric: list[tuple[str, np.ndarray]] = [(o, np.ones((1, weights.shape[1])) * slopes) for o in offsets]
        tables: list[_Table] = []
        for term, span in zip(self.terms, self.spans):
            some = weights[span]
            known = np.isfinite(some).reshape(len(some), -1).all(axis=1)
            if not known.any():
                continue
            if all(isinstance(c.value, Factor) for c in term):
                _into(tables, [c.value for c in term], _effects(term, np.where(np.isfinite(some), some, 0.0)))  # type: ignore[misc]
            elif known.all():
                numeric.append((_product(self.ar, term), some))
            else:
                kept = self.ar.graph.add("Gather", _product(self.ar, term), self.ar.graph.const(np.flatnonzero(known)), axis=1)
                numeric.append((kept, some[known]))
        if not tables and not numeric:
            raise refuse("a model without any column")
        if not tables:
            return self._numeric(numeric, bias, upright)
        tables[0].effects = tables[0].effects + bias
        if not numeric and upright:
            for table in tables:
                table.effects = table.effects[..., 0]
        base = self.ar.add(*(t.look_up(self.ar) for t in tables))
        return self._numeric(numeric, base, upright) if numeric else base

    def _numeric(self, parts: list[tuple[str, np.ndarray]], base: Any, upright: bool) -> str:
        """Multiply numeric columns with their weights; columns of one block stand in the block's order, so that it is taken whole."""
        origins = self.ar.origins
        parts = sorted(parts, key=lambda p: (0, *origins[p[0]]) if p[0] in origins else (1,))
        out = self.ar.affine(self.ar.columns([p[0] for p in parts]), np.concatenate([p[1] for p in parts]), base)
        return self.ar.flat(out) if upright else out


def _product(ar: Arithmetic, term: Sequence[Coded]) -> str:
    """Return all products of the variables' columns, the first varying fastest."""
    out, width = term[0].columns(ar), len(term[0].labels)
    for coded in term[1:]:
        other, count = coded.columns(ar), len(coded.labels)
        if width == 1 or count == 1:
            out = ar.mul(out, other)
        else:
            left = ar.graph.add("Unsqueeze", out, ar.graph.const([1], "int64"))
            right = ar.graph.add("Unsqueeze", other, ar.graph.const([2], "int64"))
            out = ar.graph.add("Reshape", ar.mul(left, right), ar.graph.const([-1, width * count], "int64"))
        width *= count
    return out


def _effects(term: Sequence[Coded], weights: np.ndarray) -> np.ndarray:
    """Return what each combination of levels adds: (levels of the first factor, of the second, …, [m])."""
    widths = [len(c.labels) for c in term]
    out = weights.reshape(*widths[::-1], *weights.shape[1:])  # the first factor's columns vary fastest
    for axis, coded in enumerate(reversed(term)):
        out = np.tensordot(np.asarray(coded.table), out, axes=(1, axis))
    return out


class _Table:
    """What some factors add together: an axis a factor, each with one place more, the last, for missing."""

    def __init__(self, factors: list[Factor], effects: np.ndarray) -> None:
        self.factors = factors
        self.effects = np.pad(effects, [(0, 1)] * len(factors) + [(0, 0)] * (effects.ndim - len(factors)), constant_values=np.nan)

    def joined(self, factors: list[Factor], effects: np.ndarray) -> _Table | None:
        """Return a table that adds other effects too, None if it grows too large."""
        codes = [f.codes for f in self.factors]
        new = [f for f in factors if f.codes not in codes]
        every = [*self.factors, *new]
        other = _Table(factors, effects)
        trailing = other.effects.ndim - len(factors)
        if np.prod([len(f.levels) + 1 for f in every]) > _MAX_TABLE:
            return None
        mine = self.effects.reshape(*self.effects.shape[: len(codes)], *[1] * len(new), *self.effects.shape[len(codes) :])
        places = [[f.codes for f in every].index(f.codes) for f in factors]
        order = [*np.argsort(places), *range(len(factors), len(factors) + trailing)]
        theirs = other.effects.transpose(order)
        shape = [len(f.levels) + 1 if i in places else 1 for i, f in enumerate(every)]
        out = _Table.__new__(_Table)
        out.factors, out.effects = every, mine + theirs.reshape(*shape, *theirs.shape[len(factors) :])
        return out

    def look_up(self, ar: Arithmetic) -> str:
        """Return the row of each combination, ("rows", [m])."""
        sizes = [len(f.levels) + 1 for f in self.factors]
        strides = np.append(np.cumprod(sizes[:0:-1])[::-1], 1).astype(np.int64)
        flat = self.effects.reshape(int(np.prod(sizes)), *self.effects.shape[len(sizes) :])
        # a missing code is -1, and Gather counts negative places from the end: turn the table so that every sum finds its row
        index = self._index(ar, strides)
        return ar.graph.add("Gather", ar.graph.const(_turned(flat, sizes, strides)), index, axis=0)

    def _index(self, ar: Arithmetic, strides: np.ndarray) -> str:
        """Return the weighted sum of the codes, ("rows",); codes cut from one block are weighted in one product."""
        graph, origins = ar.graph, [ar.origins.get(f.codes) for f in self.factors]
        if all(o is not None and o[0] == origins[0][0] for o in origins):  # type: ignore[index]
            block, _, width = origins[0]  # type: ignore[misc]
            row = np.zeros(width, np.int32)
            for origin, stride in zip(origins, strides):
                row[origin[1]] = stride  # type: ignore[index]
            return graph.add("MatMul", block, graph.const(row))
        parts = [graph.add("MatMul", graph.cast(f.codes, "int64"), graph.const(np.array([s]))) for f, s in zip(self.factors, strides)]
        return ar.add(*parts)


def _turned(flat: np.ndarray, sizes: list[int], strides: np.ndarray) -> np.ndarray:
    """Move each combination's row to the place its weighted sum of codes names, -1 standing for the last code of each factor."""
    codes = np.stack(np.unravel_index(np.arange(len(flat)), sizes), axis=1)
    codes = np.where(codes == np.array(sizes) - 1, -1, codes)
    out = np.empty_like(flat)
    out[(codes @ strides) % len(flat)] = flat
    return np.ascontiguousarray(out)


def _into(tables: list[_Table], factors: list[Factor], effects: np.ndarray) -> None:
    for i, table in enumerate(tables):
        joined = table.joined(factors, effects)
        if joined is not None:
            tables[i] = joined
            return
    tables.append(_Table(factors, effects))
