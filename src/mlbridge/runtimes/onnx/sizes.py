"""Sizes a graph fixes by itself: a model of 72 bytes can ask for gigabytes before it reads an input."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ...errors import ArtifactError
from ...executor.graphs import subgraphs
from .checks import Limits, element_bits, is_external

if TYPE_CHECKING:
    import onnx

__all__ = ["check_sizes", "with_shapes"]

_KEEP_BYTES = 4096  # a shape fits; weights beyond say nothing about sizes
_INFER_BYTES = 512 << 20  # protobuf cannot hold more than 2 GiB, and inference copies the model twice


def with_shapes(model: onnx.ModelProto, label: str) -> onnx.ModelProto:
    """Return a copy with every shape that can be inferred, without the data of large constants.

    Raises
    ------
    ArtifactError
        If operators contradict each other's types or sizes.
    """
    import onnx
    from onnx import shape_inference

    light = onnx.ModelProto()
    light.CopyFrom(model)
    _lighten(light.graph)
    _Typed(light).keep(light.graph, set())
    if light.ByteSize() > _INFER_BYTES:
        return light
    try:
        return shape_inference.infer_shapes(light, check_type=False, strict_mode=False, data_prop=True)
    except (shape_inference.InferenceError, ValueError, RuntimeError) as exc:
        raise ArtifactError(f"{label}: the graph's shapes cannot be inferred: {str(exc).splitlines()[0][:300]}") from exc


def _lighten(graph: Any) -> None:
    for tensor in graph.initializer:
        if is_external(tensor) or len(tensor.raw_data) > _KEEP_BYTES:
            for name in ("raw_data", "external_data", "data_location"):
                tensor.ClearField(name)
    for node in graph.node:
        for inner in subgraphs(node):
            _lighten(inner)


class _Typed:
    """What inference may see: onnx crashes the process on some operators whose inputs have no known type.

    A node stays where all its inputs are typed, its operator is one that onnx can infer, and so on for functions.
    """

    def __init__(self, model: onnx.ModelProto) -> None:
        self._versions = {o.domain or "ai.onnx": o.version for o in model.opset_import}
        self._functions = {(f.domain, f.name): f for f in model.functions}
        self._safe: dict[tuple[str, str], bool] = {}

    def keep(self, graph: Any, outer: set[str]) -> None:
        """Drop the nodes of a graph, and of those inside it, that inference must not see."""
        known = outer | {t.name for t in graph.initializer} | {t.values.name for t in graph.sparse_initializer}
        known |= {v.name for v in (*graph.input, *graph.value_info) if v.type.WhichOneof("value")}
        kept = []
        for node in graph.node:
            if not self._stays(node, known):
                continue
            for inner in subgraphs(node):
                self.keep(inner, known)
            known |= set(node.output)
            kept.append(node)
        if len(kept) < len(graph.node):
            copies = [type(n).FromString(n.SerializeToString()) for n in kept]
            del graph.node[:]
            graph.node.extend(copies)

    def _stays(self, node: Any, known: set[str]) -> bool:
        if any(name and name not in known for name in node.input):
            return False
        called = (node.domain, node.op_type)
        return self._function_is_safe(called) if called in self._functions else _infers(node, self._versions)

    def _function_is_safe(self, called: tuple[str, str]) -> bool:
        if called not in self._safe:
            self._safe[called] = False  # a function that calls itself never is
            body = self._functions[called]
            known, versions = set(body.input), {o.domain or "ai.onnx": o.version for o in body.opset_import}
            safe = True
            for node in body.node:
                inner = (node.domain, node.op_type)
                typed = not any(name and name not in known for name in node.input) and not any(True for _ in subgraphs(node))
                safe = safe and typed and (self._function_is_safe(inner) if inner in self._functions else _infers(node, versions))
                known |= set(node.output)
            self._safe[called] = safe
        return self._safe[called]


def _infers(node: Any, versions: dict[str, int]) -> bool:
    from onnx import defs

    domain = "" if node.domain == "ai.onnx" else node.domain
    try:
        schema = defs.get_schema(node.op_type, versions.get(node.domain or "ai.onnx", 1), domain)
    except defs.SchemaError:
        return False
    return bool(schema.has_type_and_shape_inference_function)


def check_sizes(shaped: onnx.ModelProto, label: str, limits: Limits) -> None:
    """Refuse a graph in which one tensor of fixed size is over the limit.

    Parameters
    ----------
    shaped : onnx.ModelProto
        As `with_shapes` returned it.
    """
    stack = [shaped.graph]
    while stack:
        graph = stack.pop()
        for value in (*graph.input, *graph.value_info, *graph.output):
            size = _fixed_bytes(value)
            if size > limits.max_tensor_bytes:
                raise ArtifactError(
                    f"{label}: tensor {value.name!r} alone takes {size} bytes, the limit is {limits.max_tensor_bytes}",
                    hint=f"if that is right, pass options={{'onnx': {{'max_tensor_bytes': {size}}}}}",
                )
        for node in graph.node:
            stack.extend(subgraphs(node))


def _fixed_bytes(value: Any) -> int:
    """Return the bytes of a tensor, open axes counted as one."""
    tensor = value.type.tensor_type
    count = 1
    for dim in tensor.shape.dim:
        if dim.HasField("dim_value"):
            count *= max(0, dim.dim_value)
    return count * element_bits(tensor.elem_type) // 8
