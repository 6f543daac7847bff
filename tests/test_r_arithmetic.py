"""R's functions as nodes: what onnxruntime answers for them is what numpy's, or the standard library's, do."""

from __future__ import annotations

import math

import numpy as np
import onnxruntime
import pytest

from mlbridge.conversion.graph import Graph
from mlbridge.frameworks.r.arithmetic import NORMAL_STEPS, Arithmetic
from mlbridge.frameworks.r.links import inverse_link
from mlbridge.frameworks.r.network import Nnet
from mlbridge.signature import Signature, TensorSpec

EPSILON = np.finfo(float).eps
NEAR_ONE = np.array([np.nextafter(1, 0), 1.0, np.nextafter(1, 2), 1.0 + 1e-8, 1.0 - 1e-8])
SPREAD = np.concatenate([np.linspace(-9, 9, 5001), NEAR_ONE, -NEAR_ONE, np.logspace(-300, 2.5, 200), -np.logspace(-300, 2.5, 200)])


def answer(write, x, shape=("rows", 1)):
    x = np.asarray(x, float).reshape(len(x), -1)
    g = Graph(Signature([TensorSpec("x", "float64", ("rows", x.shape[1]), missing="allow")], [TensorSpec("y", "float64", shape)]))
    g.output("y", write(Arithmetic(g)))
    session = onnxruntime.InferenceSession(g.model().SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, {"x": x})[0]


def normal(x):
    return np.array([0.5 * math.erfc(-v / math.sqrt(2)) for v in x])


def cauchy(x):
    return np.where(x < 0, np.arctan2(1, -x), math.pi - np.arctan2(1, x)) / math.pi


CASES = {
    "atan": (lambda ar: ar.atan("x"), np.arctan, 1e-15),
    "cauchy": (lambda ar: ar.cauchy("x"), cauchy, 1e-15),
    "expm1": (lambda ar: ar.expm1("x"), np.expm1, 1e-13),  # exp() of 300 has lost as much
    "normal": (lambda ar: ar.normal("x"), normal, 1e-12),  # so has the square in the tail's exponent, there and in math.erfc
}


@pytest.mark.parametrize("name", CASES)
def test_a_function_keeps_its_digits_everywhere(name):
    write, want, rtol = CASES[name]
    x = SPREAD[np.abs(SPREAD) < 35] if name == "normal" else SPREAD
    np.testing.assert_allclose(answer(write, x)[:, 0], want(x), rtol=rtol, atol=0)


@pytest.mark.parametrize("name", CASES)
def test_a_missing_value_stays_missing(name):
    assert np.isnan(answer(CASES[name][0], [np.nan, 0.5])[:, 0]).tolist() == [True, False]


def test_the_normal_between_its_limits_keeps_its_digits_in_the_lower_tail():
    x = np.linspace(-8.2, 8.2, 20001)
    got = answer(lambda ar: ar.normal_between(ar.mul("x", float(NORMAL_STEPS))), x, ("rows",))
    np.testing.assert_allclose(got, normal(x), rtol=3e-14)  # the argument of math.erfc has lost as much


def logit(x):
    """R's own: stats:::C_logit_linkinv."""
    t = np.where(x < -30, EPSILON, np.where(x > 30, 1 / EPSILON, np.exp(np.clip(x, -30, 30))))
    return t / (1 + t)


LINKS = {
    "logit": logit,
    "log": lambda x: np.maximum(np.exp(x), EPSILON),
    "cloglog": lambda x: np.clip(-np.expm1(-np.exp(x)), EPSILON, 1 - EPSILON),
    "probit": lambda x: normal(np.clip(x, -8.12589066470190, 8.12589066470190)),
    "sqrt": lambda x: x**2,
    "inverse": lambda x: 1 / x,
    "1/mu^2": lambda x: 1 / np.sqrt(x),
}


@pytest.mark.parametrize("link", LINKS)
def test_a_link_inverts_as_in_r(link):
    """Around the places where R cuts, too, and where nothing is known."""
    x = np.concatenate([np.linspace(-45, 45, 9001), [-30 - 1e-12, -30 + 1e-12, -36.05, 700.0, -700.0]])
    x = x[x > 0] if link in ("inverse", "1/mu^2") else x

    def predictor(ar):
        def lines(wanted=()):
            if not wanted:
                return ar.flat("x")
            slopes, shifts = np.array(wanted).T
            return ar.affine("x", slopes[None], shifts)

        return lines

    got = answer(lambda ar: inverse_link(ar, link, predictor(ar)), x, ("rows",))
    np.testing.assert_allclose(got, LINKS[link](x), rtol=1e-12, atol=2e-16)  # onnxruntime's sigmoid of numbers far below 0
    assert np.isnan(answer(lambda ar: inverse_link(ar, link, predictor(ar)), [np.nan], ("rows",))).all()


def test_the_sigmoid_of_nnet_is_exactly_zero_and_one_beyond_its_limit():
    x = np.array([-np.inf, -1e300, np.nextafter(-15, -16), -15.0, 0.0, 15.0, np.nextafter(15, 16), 15.0000001, 1e300, np.inf, np.nan])
    got = answer(lambda ar: Nnet._sigmoid(ar, "x"), x)[:, 0]
    inside = 1 / (1 + np.exp(-x[3:6]))
    np.testing.assert_allclose(got, [0, 0, 0, *inside, 1, 1, 1, 1, np.nan], rtol=1e-15, atol=1e-16)


@pytest.mark.parametrize("columns", [1, 2, 3, 8, 17])
def test_a_row_is_spoiled_by_a_missing_value_and_by_no_infinite_one(columns):
    x = np.full((columns + 2, columns), 2.0)
    np.fill_diagonal(x, np.nan)
    x[-1] = np.inf
    x[-2, 0] = -np.inf
    missing = [True] * columns + [False] * 2

    def spoiled(ar):
        return ar.spoiled(ar.value(np.array([5.0, 7.0])), 2, "x", columns)

    assert answer(lambda ar: ar.witness("x", columns), x, ("rows",)).tolist() == pytest.approx(np.where(missing, np.nan, 0.0), nan_ok=True)
    got = answer(spoiled, x, ("rows", 2))
    assert np.isnan(got).tolist() == [[m, m] for m in missing]
    assert got[columns:].tolist() == [[5.0, 7.0]] * 2


@pytest.mark.parametrize("centre", [3.0, 1e9], ids=["near", "far"])
def test_a_far_centre_costs_no_digits(centre):
    x = centre + np.linspace(-3, 3, 101)
    got = answer(lambda ar: ar.centred("x", np.array([centre]), np.array([[2.0]]), np.array([1.0]), 1.0), x)
    np.testing.assert_allclose(got[:, 0], (x - centre) * 2 + 1, atol=2e-12)


def test_logic_knows_what_is_missing():
    values = np.array([0.0, 1.0, np.nan])
    a, b = (v.reshape(-1, 1) for v in np.meshgrid(values, values))
    x = np.hstack([a, b])

    def both(ar, join):
        columns = ar.split("x", ("a", "b"))
        return join(columns["a"], columns["b"])

    got_and, got_or = (answer(lambda ar, w=w: both(ar, getattr(ar, w)), x)[:, 0] for w in ("conjunction", "disjunction"))
    want_and = [0 if 0 in r else np.nan if np.isnan(r).any() else 1 for r in x]
    want_or = [1 if 1 in r else np.nan if np.isnan(r).any() else 0 for r in x]
    np.testing.assert_array_equal(got_and, want_and)
    np.testing.assert_array_equal(got_or, want_or)
