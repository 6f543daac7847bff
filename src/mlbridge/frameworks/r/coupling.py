"""Pairwise coupling: class probabilities out of every pair's, by libsvm's own iteration and its own stopping rule.

The rule stops well before convergence, so the iteration itself is written, as a Loop that each row leaves on its own.

References
----------
T.-F. Wu, C.-J. Lin, R. C. Weng, "Probability estimates for multi-class classification by pairwise coupling", JMLR 5 (2004).
"""

from __future__ import annotations

import numpy as np

from ...conversion.graph import Graph
from ...signature import DTYPES
from .arithmetic import Arithmetic

__all__ = ["coupled"]

_FLOOR = 1e-7  # libsvm keeps each pair's probability this far from 0 and 1
_LEAST_ITERATIONS = 100
_TOLERANCE = 0.005  # over the number of classes


def coupled(ar: Arithmetic, first_wins: str, classes: int) -> str:
    """Return the probabilities of all classes.

    Parameters
    ----------
    ar : Arithmetic
        Writes the nodes.
    first_wins : str
        For each pair of classes (0, 1), (0, 2), …, (1, 2), … the probability of the first, ("rows", pairs).
    classes : int
        How many there are.

    Returns
    -------
    str
        ("rows", classes).
    """
    r = ar.clamp(first_wins, _FLOOR, 1 - _FLOOR)
    if classes == 2:
        return ar.graph.concat([r, ar.sub(1.0, r)])
    weights, bias = _as_matrix(classes)
    flat = ar.add(ar.matmul(r, weights), bias[None])
    pairs = ar.graph.add("Reshape", flat, ar.graph.const([-1, classes, classes], "int64"))
    turned = ar.graph.add("Transpose", pairs, perm=[0, 2, 1])
    diagonal = ar.graph.add("ReduceSum", ar.mul(pairs, pairs), ar.graph.const([1], "int64"), keepdims=0)
    q = ar.sub(ar.mul(ar.graph.add("Unsqueeze", diagonal, ar.graph.const([2], "int64")), np.eye(classes)), ar.mul(pairs, turned))
    start = ar.add(ar.mul(diagonal, 0.0), 1.0 / classes)
    active = ar.graph.add("Not", ar.is_missing(ar.total(start)))
    limit, go = ar.graph.const(np.int64(max(_LEAST_ITERATIONS, classes))), ar.graph.const(np.bool_(True))
    found, _ = ar.graph.add("Loop", limit, go, start, active, outputs=2, body=_step(ar.graph, q, diagonal, classes))
    return found


def _as_matrix(classes: int) -> tuple[np.ndarray, np.ndarray]:
    """Return weights and bias that lay each pair's r and 1 - r out as a square matrix without a diagonal."""
    pairs = [(i, j) for i in range(classes) for j in range(i + 1, classes)]
    weights, bias = np.zeros((len(pairs), classes * classes)), np.zeros(classes * classes)
    for p, (i, j) in enumerate(pairs):
        weights[p, i * classes + j], weights[p, j * classes + i], bias[j * classes + i] = 1.0, -1.0, 1.0
    return weights, bias


class _Body(Graph):
    """The graph inside a loop: a name inside may not repeat one outside."""

    def __init__(self, outer: Graph) -> None:
        super().__init__(outer.signature)
        self._outer = outer

    def name(self, stem: str = "v") -> str:
        return self._outer.name(stem)


def _step(outer: Graph, q: str, diagonal: str, classes: int):
    """Return the body of the loop: a sweep over the classes for the rows whose conditions do not hold yet."""
    from onnx import helper

    inner = _Body(outer)
    ar = Arithmetic(inner)
    turn, go, p, active = (outer.name(stem) for stem in ("turn", "go", "p", "active"))
    deep = inner.add("Unsqueeze", p, inner.const([2], "int64"))
    qp = inner.add("Squeeze", inner.add("MatMul", q, deep), inner.const([2], "int64"))
    pqp = ar.total(ar.mul(p, qp))
    worst = inner.add("ReduceMax", ar.op("Abs", ar.sub(qp, pqp)), inner.const([1], "int64"), keepdims=1)
    left = inner.add("And", active, ar.op("GreaterOrEqual", worst, _TOLERANCE / classes))
    new = p
    for t in range(classes):
        own = inner.add("Gather", diagonal, inner.const([t], "int64"), axis=1)
        here = inner.add("Gather", qp, inner.const([t], "int64"), axis=1)
        diff = ar.div(ar.sub(pqp, here), own)
        scale = ar.add(diff, 1.0)
        new = ar.div(ar.add(new, ar.mul(diff, np.eye(1, classes, t))), scale)
        pqp = ar.div(ar.div(ar.add(pqp, ar.mul(diff, ar.add(ar.mul(diff, own), ar.mul(here, 2.0)))), scale), scale)
        row = inner.add("Gather", q, inner.const(np.int64(t)), axis=1)
        qp = ar.div(ar.add(qp, ar.mul(diff, row)), scale)
    kept = ar.where(left, new, p)
    again = inner.add(
        "Squeeze", inner.add("ReduceMax", inner.cast(left, "float64"), inner.const([0], "int64"), keepdims=0), inner.const([0], "int64")
    )
    again = inner.cast(again, "bool")
    info = lambda name, dtype, shape: helper.make_tensor_value_info(name, DTYPES[dtype].onnx, shape)  # noqa: E731
    inputs = [info(turn, "int64", []), info(go, "bool", []), info(p, "float64", None), info(active, "bool", None)]
    outputs = [info(again, "bool", []), info(kept, "float64", None), info(left, "bool", None)]
    return helper.make_graph(inner.nodes, "couple", inputs, outputs, inner.initializers)
