"""Polynomial and spline bases as ONNX: poly, ns, bs, evaluated as R's `makepredictcall` leaves them.

A spline is a table of local polynomials, one row an interval: find the interval, gather its coefficients, run Horner.

References
----------
C. de Boor, "A Practical Guide to Splines" (the recursion of B-splines).
"""

from __future__ import annotations

import numpy as np

from .arithmetic import Arithmetic

__all__ = ["bs", "ns", "poly"]


def poly(ar: Arithmetic, x: str, alpha: np.ndarray, norm2: np.ndarray, degree: int) -> str:
    """Return orthogonal polynomials of degree 1.. by their three-term recursion."""
    one = ar.add(ar.mul(x, 0.0), 1.0)
    z = [one, ar.sub(x, alpha[0])]
    for i in range(1, degree):
        z.append(ar.sub(ar.mul(ar.sub(x, alpha[i]), z[i]), ar.mul(z[i - 1], norm2[i + 1] / norm2[i])))
    return ar.graph.concat([ar.div(v, float(np.sqrt(n))) for v, n in zip(z[1:], norm2[2:])])


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
    above = graph.cast(ar.op("GreaterOrEqual", x, breaks[None, :]), "float64")
    index = graph.cast(ar.flat(ar.total(above)), "int64")
    offset = ar.sub(x, graph.add("Gather", graph.const(origins[:, None]), index, axis=0))
    out = None
    for power in range(table.shape[2] - 1, -1, -1):
        coefficients = graph.add("Gather", graph.const(np.ascontiguousarray(table[:, :, power])), index, axis=0)
        out = coefficients if out is None else ar.add(ar.mul(out, offset), coefficients)
    assert out is not None
    return ar.add(out, ar.mul(offset, 0.0))


def bs(ar: Arithmetic, x: str, knots: np.ndarray, boundary: np.ndarray, degree: int, intercept: bool) -> str:
    """Return B-splines; beyond the boundary the outermost polynomials go on."""
    order = degree + 1
    every = np.sort(np.concatenate([np.repeat(boundary, order), knots]))
    breaks, table = _local_polynomials(every, order)
    if not intercept:
        table = table[:, 1:, :]
    return _evaluate(ar, x, breaks[1:-1], breaks[:-1], table)


def ns(ar: Arithmetic, x: str, knots: np.ndarray, boundary: np.ndarray, intercept: bool) -> str:
    """Return natural cubic splines: no curvature at the boundary, straight lines beyond it."""
    every = np.sort(np.concatenate([np.repeat(boundary, 4), knots]))
    breaks, table = _local_polynomials(every, 4)
    width = breaks[-1] - breaks[-2]
    at_end = np.stack(
        [table[-1] @ width ** np.arange(4.0), table[-1] @ (np.arange(4) * width ** np.maximum(np.arange(4) - 1.0, 0))], axis=1
    )
    curvature = np.stack([2 * table[0, :, 2], 2 * table[-1, :, 2] + 6 * table[-1, :, 3] * width])
    low, high = np.zeros_like(table[0]), np.zeros_like(table[0])
    low[:, :2], high[:, :2] = table[0, :, :2], at_end
    table = np.concatenate([low[None], table, high[None]])
    if not intercept:
        table, curvature = table[:, 1:, :], curvature[:, 1:]
    q, _ = np.linalg.qr(curvature.T, mode="complete")
    table = np.einsum("rfp,fg->rgp", table, q[:, 2:])
    return _evaluate(ar, x, breaks, np.concatenate([[breaks[0]], breaks]), table)
