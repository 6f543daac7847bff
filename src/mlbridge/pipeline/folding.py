"""Fewer nodes for the same answer, in a fused graph: chains of affine steps become one, casts and reshapes that undo
each other go.

A chain of affine steps (a scaler, principal components, another scaler, a linear model) rounds a little differently
when it is one product: x·s - mean·s where it was (x - mean)·s. `fuse` folds only what it then verifies on real rows.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from ..conversion.graph import Graph
from ..conversion.inlining import rename
from ..executor.graphs import reads

__all__ = ["fold"]

_SMALL = 4096  # weights up to which one product is quicker than two whatever their sizes
_TESTS = {"Greater", "GreaterOrEqual", "Less", "LessOrEqual", "Equal", "Not", "And", "Or", "Xor", "IsNaN", "IsInf"}


def fold(graph: Graph) -> None:
    """Rewrite the nodes of a finished graph in place; its inputs, outputs and their names stay."""
    _drop_identities(graph)
    _join_casts_and_axes(graph)
    widths = _widths(graph)
    for chain in [*_chains(graph)]:
        _fold_chain(graph, chain, widths.get(chain[0].source, 0))
    graph.drop_dead()


class _Affine(NamedTuple):
    """A step as x ↦ x·scale + shift, or as x @ weights."""

    node: Any
    source: str
    scale: np.ndarray = np.ones(1)
    shift: np.ndarray = np.zeros(1)
    weights: np.ndarray | None = None


def _drop_identities(graph: Graph) -> None:
    outputs = {o.name for o in graph.signature.outputs}
    same: dict[str, str] = {}
    kept = []
    for node in graph.nodes:
        rename(node, same)
        if node.op_type == "Identity" and node.output[0] not in outputs:
            same[node.output[0]] = node.input[0]
        else:
            kept.append(node)
    graph.nodes[:] = kept


def _join_casts_and_axes(graph: Graph) -> None:
    """Read bool→int64→int32 as bool→int32, and an axis taken away and given back as the value itself."""
    made = {o: n for n in graph.nodes for o in n.output}
    constants = _constants(graph)
    for node in graph.nodes:
        before = made.get(node.input[0]) if node.input else None
        if before is None:
            continue
        first = made.get(before.input[0]) if before.input else None
        if node.op_type == before.op_type == "Cast" and first is not None and first.op_type in _TESTS:
            node.input[0] = before.input[0]
        if node.op_type == "Unsqueeze" and before.op_type == "Squeeze" and len(before.input) == 2:
            axes = [constants.get(n.input[1]) for n in (node, before)]
            if all(a is not None and a.tolist() == [1] for a in axes):
                node.op_type = "Identity"
                del node.input[1:]
                node.input[0] = before.input[0]
    _drop_identities(graph)


def _widths(graph: Graph) -> dict[str, int]:
    """Return the fixed last dimension of the values that have rows and columns."""
    from onnx import shape_inference

    inferred = shape_inference.infer_shapes(graph.model()).graph
    known = {i.name: i.type.tensor_type.shape.dim for i in (*inferred.input, *inferred.value_info)}
    return {name: dims[1].dim_value for name, dims in known.items() if len(dims) == 2}


def _constants(graph: Graph) -> dict[str, np.ndarray]:
    from onnx import numpy_helper

    return {i.name: numpy_helper.to_array(i) for i in graph.initializers}


def _chains(graph: Graph) -> Iterator[list[_Affine]]:
    """Yield maximal runs of affine float64 steps whose values in between nobody else reads."""
    constants = _constants(graph)
    readers: dict[str, int] = {o.name: 1 for o in graph.signature.outputs}
    for node in graph.nodes:
        for name in reads(node):
            readers[name] = readers.get(name, 0) + 1
    steps = {n.output[0]: step for n in graph.nodes if (step := _affine(n, constants)) is not None}
    inner = {s.source for s in steps.values() if s.source in steps and readers[s.source] == 1}
    for name in steps:
        if name not in inner:
            chain = [steps[name]]
            while chain[0].source in inner:
                chain.insert(0, steps[chain[0].source])
            if len(chain) > 1:
                yield chain


def _affine(node: Any, constants: dict[str, np.ndarray]) -> _Affine | None:
    if node.domain not in ("", "ai.onnx") or len(node.input) < 2:
        return None
    a, b = (constants.get(n) for n in node.input[:2])
    if (a is None) == (b is None):
        return None
    value, constant = (node.input[0], b) if a is None else (node.input[1], a)
    if constant is None or constant.dtype != np.float64:
        return None
    if node.op_type == "MatMul" and a is None and constant.ndim == 2:
        return _Affine(node, value, weights=constant)
    row = _as_row(constant)
    if row is None:
        return None
    match node.op_type, a is None:
        case "Add", _:
            return _Affine(node, value, shift=row)
        case "Sub", True:
            return _Affine(node, value, shift=-row)
        case "Sub", False:
            return _Affine(node, value, -np.ones(1), row)
        case "Mul", _:
            return _Affine(node, value, row)
        case "Div", True if np.all(row != 0):
            return _Affine(node, value, 1.0 / row)
    return None


def _as_row(constant: np.ndarray) -> np.ndarray | None:
    """Return a scalar, (k,) or (1, k) constant as (k,); what broadcasts along rows is not a row."""
    if constant.ndim == 2 and constant.shape[0] == 1:
        constant = constant[0]
    return constant.reshape(-1) if constant.ndim <= 1 else None


def _fold_chain(graph: Graph, chain: list[_Affine], width: int) -> None:
    """Replace a chain by one product and one sum where that is less work."""
    scale, shift, weights, work = np.ones(1), np.zeros(1), None, 0
    for step in chain:
        fits = len(step.weights) == width if step.weights is not None else {len(step.scale), len(step.shift)} <= {1, width}
        if not fits:  # broadcasting widens it on the way, or its width is not known
            return
        if step.weights is None:
            weights = weights if weights is None else weights * step.scale
            scale, shift = scale * step.scale, shift * step.scale + step.shift
        else:
            shift = np.broadcast_to(shift, width) @ step.weights
            weights = np.broadcast_to(scale, width)[:, None] * step.weights if weights is None else weights @ step.weights
            scale, width, work = np.ones(1), step.weights.shape[1], work + step.weights.size
    steps = (weights is not None or bool(np.any(scale != 1))) + bool(np.any(shift != 0))
    heavier = weights is not None and weights.size > max(work, _SMALL)
    if heavier or steps >= len(chain) or not all(np.isfinite(v).all() for v in (scale, shift, *([] if weights is None else [weights]))):
        return
    at = graph.nodes.index(chain[-1].node)
    later, graph.nodes[at:] = graph.nodes[at + 1 :], []
    value, end = chain[0].source, chain[-1].node.output[0]
    if weights is not None:
        value = graph.add("MatMul", value, graph.const(weights))
    elif np.any(scale != 1):
        value = graph.add("Mul", value, graph.const(scale))
    if np.any(shift != 0):
        value = graph.add("Add", value, graph.const(shift))
    graph.nodes[-1].output[0] = end
    graph.nodes.extend(later)
