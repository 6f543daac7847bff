"""Sizes a graph fixes by itself: a model of 72 bytes can ask for gigabytes before it reads an input."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ...errors import ArtifactError
from .checks import Limits, element_bits, is_external, subgraphs

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
