"""Transformers that work on numbers column by column or row by row: scalers, powers, bins, splines, polynomials."""

from __future__ import annotations

from collections.abc import Callable
from itertools import chain
from typing import Any

import numpy as np

from ...errors import ConversionError
from .emitter import Emitter, Frame, emits


@emits("transform", "StandardScaler")
def standard(e: Emitter, est: Any, frame: Frame) -> tuple[str, int]:
    """Emit (x - mean) / scale."""
    x = e.matrix(frame)
    if est.with_mean:
        x = e.op("Sub", x, est.mean_)
    return (e.op("Div", x, est.scale_) if est.with_std else x), frame.width


@emits("transform", "MinMaxScaler")
def min_max(e: Emitter, est: Any, frame: Frame) -> tuple[str, int]:
    """Emit x * scale + min, clipped where asked."""
    x = e.op("Add", e.op("Mul", e.matrix(frame), est.scale_), est.min_)
    if est.clip:
        low, high = est.feature_range
        x = clip(e, x, float(low), float(high))
    return x, frame.width


def clip(e: Emitter, x: str, low: Any, high: Any) -> str:
    """Limit values; NaN stays NaN."""
    x = e.op("Where", e.op("Less", x, np.asarray(low, dtype=np.float64)), np.asarray(low, dtype=np.float64), x)
    return e.op("Where", e.op("Greater", x, np.asarray(high, dtype=np.float64)), np.asarray(high, dtype=np.float64), x)


@emits("transform", "MaxAbsScaler")
def max_abs(e: Emitter, est: Any, frame: Frame) -> tuple[str, int]:
    """Emit x / scale."""
    x = e.op("Div", e.matrix(frame), est.scale_)
    return (clip(e, x, -1.0, 1.0) if getattr(est, "clip", False) else x), frame.width


@emits("transform", "RobustScaler")
def robust(e: Emitter, est: Any, frame: Frame) -> tuple[str, int]:
    """Emit (x - median) / scale."""
    x = e.matrix(frame)
    if est.with_centering:
        x = e.op("Sub", x, est.center_)
    return (e.op("Div", x, est.scale_) if est.with_scaling else x), frame.width


@emits("transform", "Normalizer")
def normalizer(e: Emitter, est: Any, frame: Frame) -> tuple[str, int]:
    """Emit rows divided by their norm; rows of zeros stay."""
    x = e.matrix(frame)
    if est.norm == "l1":
        norm = e.reduce("Sum", e.op("Abs", x))
    elif est.norm == "l2":
        norm = e.op("Sqrt", e.reduce("SumSquare", x))
    else:
        norm = e.reduce("Max", e.op("Abs", x))
    return e.op("Div", x, e.op("Where", e.op("Equal", norm, 0.0), 1.0, norm)), frame.width


@emits("transform", "Binarizer")
def binarizer(e: Emitter, est: Any, frame: Frame) -> tuple[str, int]:
    """Emit x > threshold."""
    return e.graph.cast(e.op("Greater", e.matrix(frame), float(est.threshold)), "float64"), frame.width


@emits("transform", "KernelCenterer")
def kernel_centerer(e: Emitter, est: Any, frame: Frame) -> tuple[str, int]:
    """Emit a kernel matrix centred by the training kernel's means."""
    return center_kernel(e, est, e.matrix(frame)), frame.width


def center_kernel(e: Emitter, est: Any, k: str) -> str:
    """Subtract column means and row means, add the mean of all."""
    rows = e.op("Div", e.reduce("Sum", k), float(est.K_fit_rows_.shape[0]))
    return e.op("Add", e.op("Sub", e.op("Sub", k, est.K_fit_rows_), rows), np.float64(est.K_fit_all_))


@emits("transform", "PolynomialFeatures")
def polynomial(e: Emitter, est: Any, frame: Frame) -> tuple[str, int]:
    """Emit each monomial as a product of powers built one degree at a time."""
    x = e.matrix(frame)
    columns = [e.column(Frame.of(x, frame.width), i) for i in range(frame.width)]
    made: dict[tuple, str] = {}
    out: list[str] = []
    for powers in est.powers_:
        factors = tuple(chain.from_iterable([i] * int(p) for i, p in enumerate(powers)))
        out.append(_product(e, factors, columns, made) if factors else e.per_row(x, [1.0]))
    return e.graph.concat(out), len(out)


def _product(e: Emitter, factors: tuple, columns: list[str], made: dict[tuple, str]) -> str:
    if len(factors) == 1:
        return columns[factors[0]]
    if factors not in made:
        made[factors] = e.op("Mul", _product(e, factors[:-1], columns, made), columns[factors[-1]])
    return made[factors]


@emits("transform", "PowerTransformer")
def power(e: Emitter, est: Any, frame: Frame) -> tuple[str, int]:
    """Emit Box-Cox or Yeo-Johnson per column, then the scaler."""
    x = e.matrix(frame)
    make = _box_cox if est.method == "box-cox" else _yeo_johnson
    columns = [make(e, e.column(Frame.of(x, frame.width), i), float(lam)) for i, lam in enumerate(est.lambdas_)]
    out = e.graph.concat(columns)
    if est.standardize:
        out, _ = standard(e, est._scaler, Frame.of(out, frame.width))
    return out, frame.width


def _box_cox(e: Emitter, x: str, lam: float) -> str:
    if np.isnan(lam):
        return x
    if lam == 0:
        return e.op("Log", x)
    return e.op("Div", expm1(e, e.op("Mul", e.op("Log", x), lam)), lam)


def _yeo_johnson(e: Emitter, x: str, lam: float) -> str:
    if np.isnan(lam):
        return x
    up, down = log1p(e, e.op("Abs", x)), log1p(e, e.op("Abs", x))
    positive = up if abs(lam) < np.spacing(1.0) else e.op("Div", expm1(e, e.op("Mul", up, lam)), lam)
    if abs(lam - 2) > np.spacing(1.0):
        negative = e.op("Div", e.op("Neg", expm1(e, e.op("Mul", down, 2 - lam))), 2 - lam)
    else:
        negative = e.op("Neg", down)
    return e.op("Where", e.op("GreaterOrEqual", x, 0.0), positive, negative)


def log1p(e: Emitter, x: str) -> str:
    """Return log(1 + x) that keeps its digits near zero: log(u) * x / (u - 1) with u = 1 + x."""
    u = e.op("Add", 1.0, x)
    one = e.op("Equal", u, 1.0)
    ratio = e.op("Div", x, e.op("Where", one, 1.0, e.op("Sub", u, 1.0)))
    plain = e.op("Mul", e.op("Log", u), ratio)
    exact = e.op("Where", one, x, plain)
    return e.op("Where", e.op("IsInf", x), e.op("Log", u), exact)


def expm1(e: Emitter, x: str) -> str:
    """Return exp(x) - 1 that keeps its digits near zero: tanh(x/2) * (exp(x) + 1) there."""
    u = e.op("Exp", x)
    near = e.op("Mul", e.op("Tanh", e.op("Div", x, 2.0)), e.op("Add", u, 1.0))
    small = e.op("Less", e.op("Abs", x), 0.5)
    return e.op("Where", small, near, e.op("Sub", u, 1.0))


@emits("transform", "QuantileTransformer")
def quantile(e: Emitter, est: Any, frame: Frame) -> tuple[str, int]:
    """Emit the mean of the two interpolations the library averages; uniform output only."""
    if est.output_distribution != "uniform":
        raise ConversionError(
            "QuantileTransformer(output_distribution='normal') needs the normal quantile function in double", hint="use 'uniform'"
        )
    columns = []
    x = e.matrix(frame)
    for i in range(frame.width):
        xi, q, r = e.column(Frame.of(x, frame.width), i), est.quantiles_[:, i], est.references_
        up = interpolate(e, xi, q, r)
        down = e.op("Neg", interpolate(e, e.op("Neg", xi), -q[::-1], -r[::-1]))
        mid = e.op("Mul", e.op("Add", up, down), 0.5)
        mid = e.op("Where", e.op("Equal", xi, float(q[-1])), 1.0, mid)
        mid = e.op("Where", e.op("Equal", xi, float(q[0])), 0.0, mid)
        columns.append(mid)
    return e.graph.concat(columns), frame.width


def interpolate(e: Emitter, x: str, xp: np.ndarray, fp: np.ndarray) -> str:
    """Emit numpy.interp of x ("rows", 1) over increasing xp, repeated knots included."""
    xp, fp = np.asarray(xp, dtype=np.float64), np.asarray(fp, dtype=np.float64)
    last = len(xp) - 1
    if last == 0:
        return e.op("Where", e.op("IsNaN", x), x, e.op("Mul", fp[0], e.op("Where", e.op("IsNaN", x), 0.0, 1.0)))
    at = count_not_above(e, x, xp)  # how many knots are <= x
    j = e.op("Clip", e.op("Sub", at, np.int64(1)), np.int64(0), np.int64(last - 1))
    with np.errstate(divide="ignore", invalid="ignore"):
        slope = np.diff(fp) / np.diff(xp)
    slope[~np.isfinite(slope)] = 0.0
    left, base, rate = (e.tall(e.op("Gather", v, j)) for v in (xp[:-1], fp[:-1], slope))
    value = e.op("Add", e.op("Mul", rate, e.op("Sub", x, left)), base)
    value = e.op("Where", e.op("GreaterOrEqual", x, xp[-1]), fp[-1], value)
    value = e.op("Where", e.op("Less", x, xp[0]), fp[0], value)
    return e.op("Where", e.op("IsNaN", x), x, value)


def count_not_above(e: Emitter, x: str, knots: np.ndarray) -> str:
    """Return how many knots are <= x, int64 ("rows",), for x ("rows", 1)."""
    hits = e.graph.cast(e.op("GreaterOrEqual", x, np.asarray(knots, dtype=np.float64)[None]), "int64")
    return e.reduce("Sum", hits, keep=False)


@emits("transform", "KBinsDiscretizer")
def bins(e: Emitter, est: Any, frame: Frame) -> tuple[str, int]:
    """Emit the bin's number, or its one-hot columns."""
    x = e.matrix(frame)
    parts = []
    for i in range(frame.width):
        xi, edges = e.column(Frame.of(x, frame.width), i), est.bin_edges_[i]
        at = (
            count_not_above(e, xi, edges[1:-1])
            if len(edges) > 2
            else e.op("Mul", e.graph.cast(e.op("IsNaN", e.flat(xi)), "int64"), np.int64(0))
        )
        if est.encode == "ordinal":
            parts.append(e.tall(e.graph.cast(at, "float64")))
        else:
            parts.append(e.op("Gather", np.eye(int(est.n_bins_[i])), at))
    width = frame.width if est.encode == "ordinal" else int(sum(est.n_bins_))
    return e.graph.concat(parts), width


@emits("transform", "SplineTransformer")
def splines(e: Emitter, est: Any, frame: Frame) -> tuple[str, int]:
    """Emit B-spline bases by the Cox-de Boor recursion over each column's own knots."""
    if est.extrapolation not in ("constant", "error", "continue", "linear", "periodic"):
        raise ConversionError(f"SplineTransformer(extrapolation={est.extrapolation!r}) has no ONNX form here")
    if est.extrapolation != "constant":
        raise ConversionError(
            f"SplineTransformer(extrapolation={est.extrapolation!r}) has no ONNX form here", hint="use extrapolation='constant'"
        )
    if getattr(est, "handle_missing", "error") == "zeros":
        raise ConversionError("SplineTransformer(handle_missing='zeros') has no ONNX form here")
    x = e.matrix(frame)
    parts, width = [], 0
    for i, spline in enumerate(est.bsplines_):
        xi = e.column(Frame.of(x, frame.width), i)
        degree = spline.k
        low, high = spline.t[degree], spline.t[-degree - 1]
        basis = _basis(e, clip(e, xi, low, high), spline.t, degree)
        size = len(spline.t) - degree - 1
        drop = 0 if est.include_bias else 1
        parts.append(
            e.graph.add("Slice", basis, e.graph.const([0], "int64"), e.graph.const([size - drop], "int64"), e.graph.const([1], "int64"))
        )
        width += size - drop
    return e.graph.concat(parts), width


def _basis(e: Emitter, x: str, t: np.ndarray, degree: int) -> str:
    """Return the B-spline basis values ("rows", len(t) - degree - 1) for x inside the base interval."""
    t = np.asarray(t, dtype=np.float64)
    low, n = degree, len(t) - degree - 1
    at = e.op("Clip", e.op("Sub", count_not_above(e, x, t), np.int64(1)), np.int64(low), np.int64(n - 1))
    value = e.op("Gather", np.eye(len(t) - 1), at)
    for k in range(1, degree + 1):
        m = len(t) - 1 - k
        a, b = t[k : k + m] - t[:m], t[k + 1 : k + 1 + m] - t[1 : 1 + m]
        left = e.op("Div", e.op("Sub", x, t[:m][None]), np.where(a == 0, np.inf, a)[None])
        right = e.op("Div", e.op("Sub", t[k + 1 : k + 1 + m][None], x), np.where(b == 0, np.inf, b)[None])
        first = e.op("Slice", value, np.array([0]), np.array([m]), np.array([1]))
        second = e.op("Slice", value, np.array([1]), np.array([m + 1]), np.array([1]))
        value = e.op("Add", e.op("Mul", left, first), e.op("Mul", right, second))
    return value


def piecewise(e: Emitter, x: str, function: Any, low: float, high: float, pieces: int, degree: int = 13) -> str:
    """Emit a smooth function of any block by Chebyshev fits on equal pieces of [low, high]; ends are held.

    onnxruntime has no double Erf, nor a normal quantile; a fit of degree 13 on short pieces is exact to rounding.
    """
    from numpy.polynomial import chebyshev

    edges = np.linspace(low, high, pieces + 1)
    width = edges[1] - edges[0]
    coefs = np.zeros((pieces, degree + 1))
    for i, edge in enumerate(edges[:-1]):
        fit = chebyshev.cheb2poly(chebyshev.chebinterpolate(_shifted(function, float(edge), float(width) / 2), degree))
        coefs[i, : len(fit)] = fit
    at = e.op("Div", e.op("Sub", x, low), float(width))
    piece = e.op("Max", e.op("Min", e.op("Floor", at), float(pieces - 1)), 0.0)
    t = e.op("Sub", e.op("Mul", e.op("Sub", at, piece), 2.0), 1.0)
    t = e.op("Max", e.op("Min", t, 1.0), -1.0)
    index = e.graph.cast(piece, "int64")
    value = e.op("Gather", coefs[:, degree], index)
    for k in range(degree - 1, -1, -1):
        value = e.op("Add", e.op("Mul", value, t), e.op("Gather", coefs[:, k], index))
    return value


def _shifted(function: Callable[[np.ndarray], np.ndarray], edge: float, half: float) -> Any:
    """Return the function of [-1, 1] that is `function` on the piece which starts at `edge`."""
    return lambda t: function(edge + (t + 1) * half)
