"""Polynomial and spline bases as ONNX: poly, ns, bs, evaluated as R's `makepredictcall` leaves them.

A spline is a table of local polynomials, one row an interval: find the interval, gather its coefficients, weigh the powers.

References
----------
C. de Boor, "A Practical Guide to Splines" (the recursion of B-splines).
"""

from __future__ import annotations

import itertools

import numpy as np

from .arithmetic import Arithmetic

_POWERS = 6  # the highest degree whose powers are summed

__all__ = ["bs", "ns", "poly", "products"]


def poly(ar: Arithmetic, x: str, alpha: np.ndarray, norm2: np.ndarray, degree: int) -> str:
    """Return orthogonal polynomials of degree 1.., of a high degree by their three-term recursion."""
    if degree <= _POWERS:  # powers about the centre, in units near one, lose nothing
        scale = float(np.sqrt(norm2[2] / norm2[1]))
        basis = [np.polynomial.Polynomial([1.0]), np.polynomial.Polynomial([0.0, scale])]
        for i in range(1, degree):
            step = np.polynomial.Polynomial([alpha[0] - alpha[i], scale])
            basis.append(step * basis[i] - basis[i - 1] * (norm2[i + 1] / norm2[i]))
        table = np.zeros((degree, degree))
        for j, (p, n) in enumerate(zip(basis[1:], norm2[2:])):
            table[: len(p.coef) - 1, j] = p.coef[1:] / np.sqrt(n)
        constants = np.array([p.coef[0] / np.sqrt(n) for p, n in zip(basis[1:], norm2[2:])])
        u = ar.div(ar.sub(x, alpha[0]), scale)
        return ar.affine(ar.op("Pow", u, np.arange(1.0, degree + 1)[None]), table, constants)
    one = ar.add(ar.mul(x, 0.0), 1.0)
    z = [one, ar.sub(x, alpha[0])]
    for i in range(1, degree):
        z.append(ar.sub(ar.mul(ar.sub(x, alpha[i]), z[i]), ar.mul(z[i - 1], norm2[i + 1] / norm2[i])))
    return ar.graph.concat([ar.div(v, float(np.sqrt(n))) for v, n in zip(z[1:], norm2[2:])])


def products(ar: Arithmetic, columns: list[str], degree: int) -> tuple[str, tuple[str, ...]]:
    """Return all products of several columns' polynomials up to a degree, and their names: the powers, joined by dots."""
    powers = [p[::-1] for p in itertools.product(range(degree + 1), repeat=len(columns)) if 0 < sum(p) <= degree]
    graph, picked = ar.graph, []
    for i, block in enumerate(columns):
        one = graph.add("Gather", block, graph.const([0], "int64"), axis=1)
        padded = graph.concat([ar.where(ar.is_missing(one), np.nan, 1.0), block])
        picked.append(graph.add("Gather", padded, graph.const([p[i] for p in powers], "int64"), axis=1))
    return ar.mul(*picked), tuple(".".join(map(str, p)) for p in powers)


def _local_polynomials(knots: np.ndarray, order: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the breaks and, for each interval, each basis function's coefficients in powers of (x - left break)."""
    breaks = np.unique(knots)
    count = len(knots) - order
    table = np.zeros((len(breaks) - 1, count, order))
    for row, left in enumerate(breaks[:-1]):
        inside = (knots[:-1] <= left) & (left < knots[1:])
        pieces = [np.array([1.0]) if v else np.zeros(1) for v in inside]
        for k in range(1, order):
            pieces = [_raise(pieces, knots, i, k, left) for i in range(len(knots) - 1 - k)]
        for i, p in enumerate(pieces[:count]):
            table[row, i, : len(p)] = p
    return breaks, table


def _raise(pieces: list, knots: np.ndarray, i: int, k: int, left: float) -> np.ndarray:
    out = np.zeros(k + 1)
    first, second = knots[i + k] - knots[i], knots[i + k + 1] - knots[i + 1]
    if first > 0:
        out[: len(pieces[i]) + 1] += np.convolve(pieces[i], np.array([left - knots[i], 1.0]) / first)
    if second > 0:
        out[: len(pieces[i + 1]) + 1] += np.convolve(pieces[i + 1], np.array([knots[i + k + 1] - left, -1.0]) / second)
    return out


def _evaluate(ar: Arithmetic, x: str, breaks: np.ndarray, origins: np.ndarray, table: np.ndarray) -> str:
    """Evaluate row `number of breaks below x` of a table (intervals, functions, powers); NaN stays NaN."""
    graph = ar.graph
    index = ar.total(graph.cast(ar.op("GreaterOrEqual", x, breaks[None, :]), "int64"), keep=False)
    offset = ar.sub(x, graph.add("Gather", graph.const(origins[:, None]), index, axis=0))
    powers = ar.op("Pow", graph.add("Unsqueeze", offset, graph.const([1], "int64")), np.arange(max(table.shape[2], 2), dtype=np.float64))
    if table.shape[2] == 1:  # steps: a power more carries what is missing
        table = np.concatenate([table, np.zeros_like(table)], axis=2)
    terms = ar.mul(powers, graph.add("Gather", graph.const(np.ascontiguousarray(table)), index, axis=0))
    return graph.add("ReduceSum", terms, graph.const([2], "int64"), keepdims=0)


def bs(ar: Arithmetic, x: str, knots: np.ndarray, boundary: np.ndarray, degree: int, intercept: bool) -> str:
    """Return B-splines; beyond the boundary the outermost polynomials go on."""
    order = degree + 1
    every = np.sort(np.concatenate([np.repeat(boundary, order), knots]))
    breaks, table = _local_polynomials(every, order)
    if not intercept:
        table = table[:, 1:, :]
    return _evaluate(ar, x, breaks[1:-1], breaks[:-1], table)


def _complement(columns: np.ndarray) -> np.ndarray:
    """Return the rest of Q after the columns, by R's own reflections: another basis of the same space would not do."""
    rest, q = columns.copy(), np.eye(len(columns))
    for j in range(columns.shape[1]):
        v = np.zeros(len(columns))
        norm = np.sqrt((rest[j:, j] ** 2).sum())
        if norm == 0:
            continue
        v[j:] = rest[j:, j] / (-norm if rest[j, j] < 0 else norm)  # a zero counts as positive, whatever its sign bit
        v[j] += 1
        reflect = np.eye(len(v)) - np.outer(v, v) / v[j]
        rest, q = reflect @ rest, q @ reflect
    return q[:, columns.shape[1] :]


def ns(ar: Arithmetic, x: str, knots: np.ndarray, boundary: np.ndarray, intercept: bool) -> str:
    """Return natural cubic splines: no curvature at the boundary, straight lines beyond it."""
    every = np.sort(np.concatenate([np.repeat(boundary, 4), knots]))
    breaks, table = _local_polynomials(every, 4)
    width = breaks[-1] - breaks[-2]
    at_end = np.stack(
        [table[-1] @ width ** np.arange(4.0), table[-1] @ (np.arange(4) * width ** np.maximum(np.arange(4) - 1.0, 0))], axis=1
    )
    curvature = np.stack([2 * table[0, :, 2], 2 * table[-1, :, 2] + 6 * table[-1, :, 3] * width])
    curvature[0, 3:], curvature[1, :-3] = 0, 0  # exactly: the sign of what rounding leaves would choose another basis
    low, high = np.zeros_like(table[0]), np.zeros_like(table[0])
    low[:, :2], high[:, :2] = table[0, :, :2], at_end
    table = np.concatenate([low[None], table, high[None]])
    if not intercept:
        table, curvature = table[:, 1:, :], curvature[:, 1:]
    table = np.einsum("rfp,fg->rgp", table, _complement(curvature.T))
    return _evaluate(ar, x, breaks, np.concatenate([[breaks[0]], breaks]), table)
