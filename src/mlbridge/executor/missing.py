"""Missing values: the output in which a NaN that went in shows, so that it may be looked for there.

An answer is often much smaller than what was asked. `carrying_outputs` reads the graph; `showing_output` believes it only
where the engine's own run agrees. Called by `session` alone.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from ..signature import Signature

if TYPE_CHECKING:
    import onnx

__all__ = ["carrying_outputs", "showing_output"]

_MAX_BYTES = 64 << 10  # a larger model takes so long to answer that the search does not matter, and long to read
_SMALLER = 4  # times fewer values than the input, for looking there to be worth it
_PROOF_ROWS = 64
_FLOATS = (1, 10, 11)  # float, float16 and double in ONNX's numbering
# In these a NaN anywhere in one of the operands counted here makes a NaN in the output, whatever the others hold. Not among
# them, because they may drop it: comparisons, choices and extremes (Where, Max, Clip, Relu), Pow (NaN to the power of 0 is 1), trees.
_EVERY_OPERAND = frozenset(["Add", "Sub", "Mul", "Div", "Concat"])
_FIRST_OPERAND = frozenset(
    [
        "Identity",
        "Reshape",
        "Squeeze",
        "Unsqueeze",
        "Flatten",
        "Transpose",
        "Neg",
        "Abs",
        "Exp",
        "Log",
        "Sqrt",
        "Sigmoid",
        "Tanh",
        "Erf",
        "Softplus",
        "Softmax",
        "LogSoftmax",
        "ReduceSum",
        "ReduceMean",
        "LayerNormalization",
        "ai.onnx.ml:Scaler",
        "ai.onnx.ml:LinearRegressor",
    ]
)


def showing_output(native: Any, model: object, signature: Signature) -> str | None:
    """Return the smallest output in which every NaN of the only input shows, or None.

    Parameters
    ----------
    native : onnxruntime's inner session
        Runs a few rows with a NaN each.
    model : bytes or Path
        The graph; not read where it is large.
    signature : Signature
        Agrees with the graph.
    """
    import onnx

    if not isinstance(model, bytes) or len(model) > _MAX_BYTES or len(signature.inputs) != 1 or not signature.batched:
        return None
    spec, carrying = signature.inputs[0], carrying_outputs(onnx.load_model_from_string(model))
    width = _row_size(spec.shape)
    sizes = {s.name: _row_size(s.shape) for s in signature.outputs if s.name in carrying and s.dtype in ("float32", "float64")}
    fitting = sorted((size, name) for name, size in sizes.items() if 0 < _SMALLER * size <= width)
    if not fitting:
        return None
    name, rows = fitting[0][1], min(width, _PROOF_ROWS)
    probe = np.ones((rows, width), spec.dtype)
    probe[np.arange(rows), np.arange(rows) * width // rows] = np.nan
    (answer,) = native.run([name], {spec.name: probe.reshape(rows, *spec.shape[1:])}, None)
    shows = answer.size == rows * fitting[0][0] and np.isnan(answer.reshape(rows, -1)).any(axis=1).all()
    return name if shows else None


def _row_size(shape: tuple) -> int:
    """Return the values of a row; 0 where the shape does not fix them."""
    return math.prod(shape[1:]) if all(isinstance(d, int) for d in shape[1:]) else 0


def carrying_outputs(model: onnx.ModelProto) -> list[str]:
    """List the outputs in which a NaN anywhere in the only input must show as a NaN somewhere.

    This follows from arithmetic; what an engine's kernels make of a NaN it does not know.
    """
    graph = model.graph
    constants = {t.name for t in graph.initializer}
    given = [i.name for i in graph.input if i.name not in constants]
    if len(given) != 1:
        return []
    carried = set(given)
    for node in graph.node:  # sorted: producers come first
        at = _carries(node, carried)
        if at is not None:
            carried.add(node.output[at])
    return [o.name for o in graph.output if o.name in carried]


def _carries(node: onnx.NodeProto, carried: set[str]) -> int | None:
    """Return which output of a node shows every NaN of what is carried into it, or None."""
    operands = [name in carried for name in node.input]
    name = f"{node.domain}:{node.op_type}" if node.domain not in ("", "ai.onnx") else node.op_type
    numbers = {a.name: a for a in node.attribute}
    if name in _EVERY_OPERAND:
        return 0 if any(operands) else None
    if name in _FIRST_OPERAND:
        return 0 if operands[0] else None
    if name == "MatMul":
        return 0 if any(operands[:2]) else None
    if name == "Gemm":  # a product scaled by 0 is never made
        return 0 if any(operands[:2]) and ("alpha" not in numbers or numbers["alpha"].f != 0) else None
    if name == "Cast":
        return 0 if operands[0] and numbers["to"].i in _FLOATS else None
    if name == "ai.onnx.ml:LinearClassifier":
        return 1 if operands[0] else None  # the scores; a label is an extreme
    if name == "ai.onnx.ml:Normalizer":
        return 0 if operands[0] and numbers["norm"].s in (b"L1", b"L2") else None
    return None
