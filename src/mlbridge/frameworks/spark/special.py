"""Special functions that ONNX Runtime lacks in double: the normal distribution."""

from __future__ import annotations

import numpy as np

from .flow import Flow

__all__ = ["normal_cdf"]

# W. J. Cody, "Rational Chebyshev approximations for the error function", Math. Comp. 23 (1969): coefficients, highest power first
_SMALL = (
    (1.85777706184603153e-1, 3.16112374387056560, 1.13864154151050156e2, 3.77485237685302021e2, 3.20937758913846947e3),
    (1.0, 2.36012909523441209e1, 2.44024637934444173e2, 1.28261652607737228e3, 2.84423683343917062e3),
)
_MIDDLE = (
    (
        2.15311535474403846e-8, 5.64188496988670089e-1, 8.88314979438837594, 6.61191906371416295e1, 2.98635138197400131e2,
        8.81952221241769090e2, 1.71204761263407058e3, 2.05107837782607147e3, 1.23033935479799725e3,
    ),
    (
        1.0, 1.57449261107098347e1, 1.17693950891312499e2, 5.37181101862009858e2, 1.62138957456669019e3,
        3.29079923573345963e3, 4.36261909014324716e3, 3.43936767414372164e3, 1.23033935480374942e3,
    ),
)  # fmt: skip
_LARGE = (
    (
        1.63153871373020978e-2,
        3.05326634961232344e-1,
        3.60344899949804439e-1,
        1.25781726111229246e-1,
        1.60837851487422766e-2,
        6.58749161529837803e-4,
    ),
    (1.0, 2.56852019228982242, 1.87295284992346725, 5.27905102951428412e-1, 6.05183413124413191e-2, 2.33520497626869185e-3),
)


def _horner(flow: Flow, x: str, coefficients: tuple[float, ...]) -> str:
    value = flow.op("Add", flow.op("Mul", x, coefficients[0]), coefficients[1])
    for c in coefficients[2:]:
        value = flow.op("Add", flow.op("Mul", value, x), c)
    return value


def _ratio(flow: Flow, x: str, pair: tuple[tuple[float, ...], tuple[float, ...]]) -> str:
    return flow.op("Div", _horner(flow, x, pair[0]), _horner(flow, x, pair[1]))


def normal_cdf(flow: Flow, x: str) -> str:
    """Return the standard normal distribution at x, within 1e-15.

    Each branch is computed on an argument clamped into its own range, so that none overflows where it is not taken.
    """
    g = flow.graph
    z = flow.op("Mul", x, 1.0 / np.sqrt(2.0))
    size = g.add("Abs", z)
    near, far = flow.op("Min", size, 0.5), flow.op("Min", flow.op("Max", size, 0.46875), 27.0)
    squared = flow.op("Mul", near, near)
    small = flow.op("Sub", 1.0, flow.op("Mul", near, _ratio(flow, squared, _SMALL)))
    damp = g.add("Exp", g.add("Neg", flow.op("Mul", far, far)))
    middle = flow.op("Mul", damp, _ratio(flow, far, _MIDDLE))
    inverse = flow.op("Div", 1.0, flow.op("Mul", far, far))
    tail = flow.op("Sub", 1.0 / np.sqrt(np.pi), flow.op("Mul", inverse, _ratio(flow, inverse, _LARGE)))
    large = flow.op("Div", flow.op("Mul", damp, tail), far)
    above = flow.op("Where", flow.op("LessOrEqual", size, 4.0), middle, large)
    complement = flow.op("Where", flow.op("LessOrEqual", size, 0.46875), small, above)  # erfc(|z|)
    half = flow.op("Mul", complement, 0.5)
    value = flow.op("Where", flow.op("Greater", z, 0.0), flow.op("Sub", 1.0, half), half)
    return flow.op("Where", g.add("IsNaN", x), x, value)
