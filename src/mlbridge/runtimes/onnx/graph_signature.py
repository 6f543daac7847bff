"""The signature of an ONNX graph: the one stored in it when it agrees, else what the graph itself says.

Foreign graphs keep their names and symbols; missing values are allowed, and float32 inputs round to the nearest.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from ...conversion.graph import METADATA_KEY
from ...errors import SignatureError, UnsupportedError
from ...signature import DTYPES, ROWS, Dim, Signature, TensorSpec

if TYPE_CHECKING:
    import onnx

__all__ = ["claimed_rows", "disagreements", "graph_signature", "read_signature"]

_BY_ONNX = {d.onnx: d.name for d in DTYPES.values()}
_ROUNDS = ("float16", "float32")


def read_signature(model: onnx.ModelProto) -> Signature:
    """Return the stored signature if it agrees with the graph, else the graph's own.

    Parameters
    ----------
    model : onnx.ModelProto
        With the shapes of its outputs inferred where the file leaves them out.

    Raises
    ------
    SignatureError
        If a tensor's rank cannot be known, or the stored signature contradicts the graph.
    UnsupportedError
        If an input or output is not a tensor of a dtype mlbridge has.
    """
    stored = next((p.value for p in model.metadata_props if p.key == METADATA_KEY), None)
    if stored is None:
        return graph_signature(model)
    signature = Signature.from_json(stored)
    problems = disagreements(signature, model)
    if problems:
        raise SignatureError(
            f"the signature stored in the graph contradicts it: {'; '.join(problems)}",
            problems=problems,
            hint=f"remove metadata_props[{METADATA_KEY!r}], or write the file again with mlbridge",
        )
    return signature


def graph_signature(model: onnx.ModelProto) -> Signature:
    """Return what the graph says of itself; names and symbols are kept."""
    inputs = tuple(_spec(v, is_input=True) for v in feeds_of(model))
    return Signature(inputs, tuple(_spec(v, is_input=False) for v in model.graph.output))


def feeds_of(model: onnx.ModelProto) -> list[Any]:
    """Return the inputs a caller must feed: initializers are defaults, not inputs."""
    known = {t.name for t in model.graph.initializer} | {t.values.name for t in model.graph.sparse_initializer}
    return [v for v in model.graph.input if v.name not in known]


def disagreements(signature: Signature, model: onnx.ModelProto) -> list[str]:
    """List where a signature contradicts the graph; symbols may be finer than the graph's own."""
    problems = []
    for side, specs, values in (("input", signature.inputs, feeds_of(model)), ("output", signature.outputs, list(model.graph.output))):
        graph = {v.name: v for v in values}
        names = [s.name for s in specs]
        problems += [f"{side} {n!r} is not in the graph" for n in names if n not in graph]
        problems += [f"the graph's {side} {n!r} is not in the signature" for n in graph if n not in names]
        for spec in specs:
            if spec.name in graph:
                problems += _against(side, spec, graph[spec.name])
    return problems


def _against(side: str, spec: TensorSpec, value: Any) -> list[str]:
    tensor = value.type.tensor_type
    dtype = _BY_ONNX.get(tensor.elem_type)
    if not value.type.HasField("tensor_type") or dtype != spec.dtype:
        return [f"{side} {spec.name!r} is {spec.dtype}, in the graph {dtype or value.type.WhichOneof('value')}"]
    if not tensor.HasField("shape"):
        return []
    dims = [d.dim_value if d.HasField("dim_value") else None for d in tensor.shape.dim]
    if len(dims) != len(spec.shape):
        return [f"{side} {spec.name!r} has {len(spec.shape)} axes, in the graph {len(dims)}"]
    return [
        f"{side} {spec.name!r} axis {i} is {want!r}, in the graph {have}"
        for i, (want, have) in enumerate(zip(spec.shape, dims))
        if have is not None and want != have
    ]


def _spec(value: Any, *, is_input: bool) -> TensorSpec:
    side = "input" if is_input else "output"
    kind = value.type.WhichOneof("value")
    if kind != "tensor_type":
        hint = "export the classifier with options={'zipmap': False}" if kind == "sequence_type" else "only dense tensors are exchanged"
        raise UnsupportedError(
            f"{side} {value.name!r} is a {(kind or 'value without a type').removesuffix('_type')}, not a tensor", hint=hint, runtime="onnx"
        )
    tensor = value.type.tensor_type
    dtype = _BY_ONNX.get(tensor.elem_type)
    if dtype is None:
        raise UnsupportedError(f"{side} {value.name!r} has ONNX element type {tensor.elem_type}, which has no numpy form", runtime="onnx")
    if not tensor.HasField("shape"):
        raise SignatureError(
            f"{side} {value.name!r}: the graph does not say its rank", hint="pass signature=, or export the model with shapes"
        )
    shape = tuple(_dim(d, i) for i, d in enumerate(tensor.shape.dim))
    # onnxruntime would feed a missing text as the text 'None'; a foreign float input takes NaN as its author decided.
    missing: Literal["refuse", "allow"] = "refuse" if dtype in ("string", "bool") or dtype.startswith(("int", "uint")) else "allow"
    return TensorSpec(value.name, dtype, shape, missing=missing, rounding="nearest" if is_input and dtype in _ROUNDS else "refuse")


def _dim(dim: Any, axis: int) -> Dim:
    if dim.HasField("dim_value"):
        return dim.dim_value if dim.dim_value >= 0 else None
    if dim.dim_param:
        # `rows` is a promise that a foreign graph has not made; elsewhere than first it would be malformed too.
        return "rows_of_graph" if dim.dim_param == ROWS else dim.dim_param
    return None


def claimed_rows(signature: Signature) -> Signature | None:
    """Return the signature with its common first axis named `rows`, for a check of that promise; None where it has none.

    The first axis of every input must be open and, where named, the same symbol everywhere it is first.

    Examples
    --------
    >>> s = Signature([TensorSpec("x", "float32", ("N", 3))], [TensorSpec("y", "float32", (None, 2))])
    >>> str(claimed_rows(s))
    'x: float32[rows, 3] -> y: float32[rows, 2]'
    """
    specs = (*signature.inputs, *signature.outputs)
    if not signature.inputs or any(not s.shape or isinstance(s.shape[0], int) for s in specs):
        return None
    symbols = {s.shape[0] for s in signature.inputs} - {None}
    if len(symbols) > 1 or any(d in symbols | {ROWS} for s in specs for d in s.shape[1:] if d is not None):
        return None

    def renamed(spec: TensorSpec) -> TensorSpec:
        return spec if spec.shape[0] == ROWS else _replace(spec, (ROWS, *spec.shape[1:]))

    return Signature(tuple(renamed(s) for s in signature.inputs), tuple(renamed(s) for s in signature.outputs))


def _replace(spec: TensorSpec, shape: tuple[Dim, ...]) -> TensorSpec:
    return TensorSpec(spec.name, spec.dtype, shape, spec.columns, spec.missing, spec.rounding)
