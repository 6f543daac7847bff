"""Arithmetic: R's numeric functions as float64 ONNX nodes, missing values included.

Values are names of float64 tensors ("rows", k); Python and numpy numbers stand for constants. Logical values are 0, 1 or
NaN. onnxruntime has no double Erf, Atan, Tan, Sinh or Cosh: they are built here from what it has.

References
----------
W. J. Cody, "Rational Chebyshev approximations for the error function", Math. Comp. 23 (1969): the normal distribution.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from ...conversion.graph import Graph

__all__ = ["NORMAL_LIMIT", "NORMAL_STEPS", "Arithmetic"]

_NORMAL_CENTRE = (
    (2.2352520354606839287, 161.02823106855587881, 1067.6894854603709582, 18154.981253343561249, 0.065682337918207449113),
    (47.20258190468824187, 976.09855173777669322, 10260.932208618978205, 45507.789335026729956),
)
_NORMAL_MIDDLE = (
    (
        0.39894151208813466764,
        8.8831497943883759412,
        93.506656132177855979,
        597.27027639480026226,
        2494.5375852903726711,
        6848.1904505362823326,
        11602.651437647350124,
        9842.7148383839780218,
        1.0765576773720192317e-8,
    ),
    (
        22.266688044328115691,
        235.38790178262499861,
        1519.377599407554805,
        6485.558298266760755,
        18615.571640885098091,
        34900.952721145977266,
        38912.003286093271411,
        19685.429676859990727,
    ),
)
_NORMAL_TAIL = (
    (0.21589853405795699, 0.1274011611602473639, 0.022235277870649807, 0.001421619193227893466, 2.9112874951168792e-5, 0.02307344176494017303),
    (1.28426009614491121, 0.468238212480865118, 0.0659881378689285515, 0.00378239633202758244, 7.29751555083966205e-5),
)  # fmt: skip
_SQRT_32 = 5.656854249492380195
_ONE_OVER_SQRT_2PI = 0.398942280401432677939946059934
_DIGITS_KEPT = 1e-12  # of results a centre may cost
_ATAN_STEPS, _ATAN_POWERS = 16, 12  # pieces of one; powers of half a piece: the next is below 1e-17
NORMAL_STEPS, NORMAL_LIMIT, _NORMAL_POWERS = 8, 8.25, 15


@functools.cache
def _atan_series() -> np.ndarray:
    """Return the series of the arc tangent about -1 to 1: its derivatives are those of Im log(1 + ic), in powers of i / (1 + ic)."""
    centres = _about(_ATAN_STEPS) / _ATAN_STEPS
    powers = np.arange(1, _ATAN_POWERS)
    ratio = 1j / (1 + 1j * centres[:, None]) / _ATAN_STEPS
    return np.hstack([np.arctan(centres)[:, None], (-((-ratio) ** powers) / powers).imag])


@functools.cache
def _normal_series() -> np.ndarray:
    """Return the series of the normal's distribution function: its derivatives are Hermite polynomials times the density."""
    centres = _about(round(NORMAL_LIMIT * NORMAL_STEPS)) / NORMAL_STEPS
    out = np.empty((len(centres), _NORMAL_POWERS))
    out[:, 0] = [0.5 * math.erfc(-c / math.sqrt(2)) for c in centres]
    before, hermite = np.zeros_like(centres), np.exp(-0.5 * centres**2) * _ONE_OVER_SQRT_2PI
    for n in range(1, _NORMAL_POWERS):
        out[:, n] = (-1.0) ** (n - 1) * hermite / (math.factorial(n) * float(NORMAL_STEPS) ** n)
        before, hermite = hermite, centres * hermite - (n - 1) * before
    return out


def _about(most: int) -> np.ndarray:
    """Return 0, 1, …, most, and -most, …, -1: the places of a table."""
    return np.concatenate([np.arange(most + 1), np.arange(-most, 0)]).astype(np.float64)


class Arithmetic:
    """Writes R arithmetic into a graph.

    Parameters
    ----------
    graph : Graph
        The graph under construction.
    """

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.origins: dict[str, tuple[str, int, int]] = {}  # raw columns: block, place in it, its width
        self.widths: dict[str, int] = {}  # how many columns what trees read has
        self._logical: set[str] = set()  # what is 0, 1 or NaN

    def value(self, x: Any) -> str:
        """Return the name of a value: a name as it is, a number as a constant."""
        return x if isinstance(x, str) else self.graph.const(np.asarray(x, dtype=np.float64))

    def op(self, name: str, *args: Any) -> str:
        """Add a node over values and numbers."""
        return self.graph.add(name, *(self.value(a) for a in args))

    def add(self, *args: Any) -> str:
        """Sum."""
        out = self.value(args[0])
        for other in args[1:]:
            out = self.op("Add", out, other)
        return out

    def sub(self, a: Any, b: Any) -> str:
        """Difference."""
        return self.op("Sub", a, b)

    def mul(self, *args: Any) -> str:
        """Product."""
        out = self.value(args[0])
        for other in args[1:]:
            out = self.op("Mul", out, other)
        return out

    def div(self, a: Any, b: Any) -> str:
        """Quotient."""
        return self.op("Div", a, b)

    def exp(self, x: Any) -> str:
        """Exponential."""
        return self.op("Exp", x)

    def log(self, x: Any) -> str:
        """Natural logarithm."""
        return self.op("Log", x)

    def power(self, a: Any, b: Any) -> str:
        """R's `^`, which multiplies for a square."""
        return self.mul(a, a) if not isinstance(b, str) and np.ndim(b) == 0 and float(b) == 2.0 else self.op("Pow", a, b)

    def where(self, condition: str, a: Any, b: Any) -> str:
        """Choose by a bool tensor."""
        return self.graph.add("Where", condition, self.value(a), self.value(b))

    def is_missing(self, x: Any) -> str:
        """Return a bool tensor: NaN or not."""
        return self.op("IsNaN", x)

    def compare(self, op: str, a: Any, b: Any) -> str:
        """Compare to 0, 1 or NaN; `op` is an ONNX comparison."""
        truth = self.graph.cast(self.op(op, a, b), "float64")
        gone = [self.is_missing(v) for v in (a, b) if isinstance(v, str) or np.isnan(v)]
        out = self.where(gone[0] if len(gone) == 1 else self.graph.add("Or", *gone), np.nan, truth)
        self._logical.add(out)
        return out

    def negate(self, x: Any) -> str:
        """R's `!` on a logical or a number."""
        out = self.sub(1.0, self.truth(x))
        self._logical.add(out)
        return out

    def truth(self, x: Any) -> str:
        """Number to logical: nonzero is 1, NaN stays."""
        if x in self._logical:
            return x
        flat = self.graph.cast(self.graph.add("Not", self.op("Equal", x, 0.0)), "float64")
        out = self.where(self.is_missing(x), np.nan, flat)
        self._logical.add(out)
        return out

    def conjunction(self, a: Any, b: Any) -> str:
        """R's `&`: FALSE wins over NA."""
        a, b = self.truth(a), self.truth(b)
        false = self.graph.add("Or", self.op("Equal", a, 0.0), self.op("Equal", b, 0.0))
        out = self.where(false, 0.0, self.mul(a, b))
        self._logical.add(out)
        return out

    def disjunction(self, a: Any, b: Any) -> str:
        """R's `|`: TRUE wins over NA."""
        a, b = self.truth(a), self.truth(b)
        true = self.graph.add("Or", self.op("Equal", a, 1.0), self.op("Equal", b, 1.0))
        out = self.where(true, 1.0, self.add(a, b))
        self._logical.add(out)
        return out

    def choose(self, test: Any, yes: Any, no: Any) -> str:
        """R's `ifelse`: a missing test gives a missing answer."""
        test = self.truth(test)
        picked = self.where(self.op("Equal", test, 1.0), yes, no)
        return self.where(self.is_missing(test), np.nan, picked)

    def modulo(self, a: Any, b: Any) -> str:
        """R's `%%`: the sign of the divisor."""
        return self.sub(a, self.mul(self.op("Floor", self.div(a, b)), b))

    def expm1(self, x: Any) -> str:
        """exp(x) - 1 without cancellation."""
        return self.mul(self.op("Tanh", self.mul(x, 0.5)), self.add(self.exp(x), 1.0))

    def log1p(self, x: Any) -> str:
        """log(1 + x) without cancellation."""
        u = self.add(x, 1.0)
        corrected = self.div(self.mul(self.log(u), x), self.sub(u, 1.0))
        return self.where(self.op("Equal", u, 1.0), x, self.where(self.op("IsInf", u), u, corrected))

    def logistic(self, x: Any) -> str:
        """1 / (1 + exp(-x))."""
        return self.op("Sigmoid", x)

    def atan(self, x: Any) -> str:
        """Arc tangent."""
        small, beyond = self._reduced_atan(x)
        return self.add(small, self.mul(beyond, math.pi / 2))

    def cauchy(self, x: Any) -> str:
        """The distribution function of Cauchy's distribution (R's pcauchy), its lower tail without cancellation."""
        small, beyond = self._reduced_atan(x)
        return self.add(self.div(small, math.pi), self.add(0.5, self.mul(beyond, 0.5)))

    def _reduced_atan(self, x: Any) -> tuple[str, str]:
        """Return atan(x), or atan(-1/x) beyond one; and 1 where x is above 1, -1 where it is below -1, else 0."""
        x = self.value(x)
        far = self.op("Greater", self.op("Abs", x), 1.0)
        t, beyond = self.where(far, self.div(-1.0, x), x), self.mul(self.op("Sign", x), self.graph.cast(far, "float64"))
        return self.tabulated(self.mul(t, float(_ATAN_STEPS)), _atan_series()), beyond

    def tabulated(self, x: str, series: np.ndarray, axes: Sequence[int] = (-1,)) -> str:
        """Return a function of x by its Taylor series about the whole number next to x, for |x| within the table.

        Parameters
        ----------
        x : str
            Values of any shape; a NaN gives a NaN.
        series : ndarray, (numbers, powers)
            About 0, 1, …, m and then -m, …, -1, as Gather counts negative places.
        axes : sequence of int
            Which to sum over: the powers, and with them axes of one.
        """
        # by its definition Shrink makes 0 of NaN; onnxruntime's computes in single precision, enough to choose a place
        near = self.op("Round", self.graph.add("Shrink", x, lambd=0.0))
        apart = self.graph.add("Unsqueeze", self.sub(x, near), self.graph.const([-1], "int64"))
        powers = self.op("Pow", apart, np.arange(series.shape[1], dtype=np.float64))
        terms = self.mul(powers, self.graph.add("Gather", self.graph.const(series), self.graph.cast(near, "int64"), axis=0))
        return self.graph.add("ReduceSum", terms, self.graph.const(list(axes), "int64"), keepdims=0)

    def _powers(self, x: str, coefficients: np.ndarray) -> str:
        """Return the sums of powers times coefficients (powers, m), on an axis of their own."""
        deep = self.graph.add("Unsqueeze", x, self.graph.const([-1], "int64"))
        return self.matmul(self.op("Pow", deep, np.arange(len(coefficients), dtype=np.float64)), coefficients)

    def normal_between(self, steps: str) -> str:
        """Return `normal` of steps / NORMAL_STEPS, within NORMAL_LIMIT, ("rows", 1) to ("rows",)."""
        return self.tabulated(steps, _normal_series(), axes=(-2, -1))

    def normal(self, x: Any) -> str:
        """The distribution function of the standard normal (R's pnorm)."""
        x = self.value(x)
        y = self.op("Abs", x)
        centre = self.add(0.5, self.mul(x, self._ratio(self.mul(x, x), *_NORMAL_CENTRE)))
        tail_square = self.div(1.0, self.mul(x, x))
        series = self.mul(tail_square, self._ratio(tail_square, *_NORMAL_TAIL))
        tail = self.div(self.sub(_ONE_OVER_SQRT_2PI, series), y)
        upper = self.where(self.op("LessOrEqual", y, _SQRT_32), self._ratio(y, *_NORMAL_MIDDLE), tail)
        whole = self.div(self.op("Floor", self.mul(y, 16.0)), 16.0)  # splitting the square keeps its last digits
        rest = self.mul(self.sub(y, whole), self.add(y, whole))
        upper = self.mul(upper, self.exp(self.mul(whole, whole, -0.5)), self.exp(self.mul(rest, -0.5)))
        outer = self.where(self.op("Greater", x, 0.0), self.sub(1.0, upper), upper)
        beyond = self.where(self.op("Greater", x, 0.0), 1.0, 0.0)
        outer = self.where(self.op("Greater", y, 38.6), beyond, outer)
        return self.where(self.op("LessOrEqual", y, 0.67448975), centre, outer)

    def _ratio(self, x: str, numerator: tuple, denominator: tuple) -> str:
        """Cody's rational functions: the numerator's leading coefficient stands last, the denominator's is one.

        All coefficients are positive, and so is x: summing powers loses nothing against Horner's rule.
        """
        both = np.stack([(*numerator[:-1][::-1], numerator[-1]), (*denominator[::-1], 1.0)], axis=1)
        top, bottom = self.graph.add("Split", self._powers(x, both), axis=-1, num_outputs=2, outputs=2)
        return self.flat(self.div(top, bottom), axis=-1)

    def columns(self, values: list[str]) -> str:
        """Join columns side by side; neighbours cut from one block of the input are taken in one piece."""
        parts: list[str] = []
        at = 0
        while at < len(values):
            origin = self.origins.get(values[at])
            end = at + 1
            while origin is not None and end < len(values) and self.origins.get(values[end], ("",))[0] == origin[0]:
                end += 1
            if origin is None or end == at + 1:
                parts.append(values[at])
            else:
                places = [self.origins[v][1] for v in values[at:end]]
                whole = places == list(range(origin[2]))
                parts.append(origin[0] if whole else self.graph.add("Gather", origin[0], self.graph.const(places, "int64"), axis=1))
            at = end
        return self.graph.concat(parts)

    def split(self, block: str, names: list[str] | tuple[str, ...]) -> dict[str, str]:
        """Return the columns of a matrix by name; joined again, they are taken in one piece."""
        out = {}
        for j, name in enumerate(names):
            out[name] = self.graph.add("Gather", block, self.graph.const([j], "int64"), axis=1)
            self.origins[out[name]] = (block, j, len(names))
        return out

    def clamp(self, x: Any, low: float | None = None, high: float | None = None) -> str:
        """pmax and pmin with NaN kept."""
        return self.graph.add("Clip", self.value(x), *("" if v is None else self.value(v) for v in (low, high)))

    def softmax(self, x: str) -> str:
        """exp(x - max) normalised along the last axis."""
        return self.graph.add("Softmax", x, axis=1)

    def total(self, x: str, *, keep: bool = True) -> str:
        """Sum along the last axis, which stays unless `keep` says otherwise."""
        return self.graph.add("ReduceSum", x, self.graph.const([1], "int64"), keepdims=int(keep))

    def matmul(self, x: str, weights: Any) -> str:
        """Matrix product with a constant matrix (k, m)."""
        return self.op("MatMul", x, np.asarray(weights, dtype=np.float64))

    def affine(self, x: str, weights: np.ndarray, bias: Any) -> str:
        """Matrix product with a constant matrix (k, m), plus numbers (m,) or a tensor ("rows", m)."""
        return self.op("Gemm", x, np.asarray(weights, dtype=np.float64), bias)

    def centred(self, x: str, centre: np.ndarray, weights: np.ndarray, bias: np.ndarray, spread: np.ndarray | float) -> str:
        """(x - centre) W + b; the centre goes into the bias where that costs no digits of results as large as `spread`."""
        lost = np.finfo(np.float64).eps * (np.abs(centre) @ np.abs(weights))
        if (lost <= _DIGITS_KEPT * np.abs(spread)).all():
            return self.affine(x, weights, bias - centre @ weights)
        return self.affine(self.sub(x, centre[None]), weights, bias)

    def witness(self, x: str, columns: int) -> str:
        """Return zeros ("rows",), NaN where any of x ("rows", columns) is: zero times it, infinities cut first."""
        return self.matmul(self.clamp(x, -1.0, 1.0), np.zeros(columns))

    def spoiled(self, values: str, width: int, x: str, columns: int) -> str:
        """Return values ("rows", width), NaN in rows whose `witness` is."""
        return self.affine(self.clamp(x, -1.0, 1.0), np.zeros((columns, width)), values)

    def flat(self, x: str, *, axis: int = 1) -> str:
        """Drop an axis of one, the last of ("rows", 1)."""
        return self.graph.add("Squeeze", x, self.graph.const([axis], "int64"))

    def upright(self, x: str) -> str:
        """Turn ("rows",) into ("rows", 1)."""
        return self.graph.add("Unsqueeze", x, self.graph.const([1], "int64"))

    def label(self, scores: str) -> str:
        """Code of the largest score as int32, the first of ties; -1 where a score is missing."""
        best = self.graph.cast(self.graph.add("ArgMax", scores, axis=1, keepdims=0), "int32")
        return self.masked(best, self.total(scores, keep=False))

    def masked(self, codes: str, witness: str) -> str:
        """Set int32 codes to -1 where the witness, ("rows",), is NaN."""
        return self.graph.add("Where", self.graph.add("IsNaN", witness), self.graph.const(np.int32(-1)), codes)
