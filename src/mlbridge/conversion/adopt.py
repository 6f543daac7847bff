"""Make an exporter's ONNX graph ours: its inputs and outputs named, typed and shaped as the signature says.

Exporters keep order and lose names; this renames by position, casts what the signature wants in another dtype, and
writes the signature into the metadata.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import ConversionError
from ..signature import DTYPES, Signature, TensorSpec
from .graph import METADATA_KEY

if TYPE_CHECKING:
    import onnx

__all__ = ["adopt"]


def adopt(model: onnx.ModelProto, signature: Signature, path: Path) -> Path:
    """Rename, cast and stamp an exported graph, and write it.

    Parameters
    ----------
    model : onnx.ModelProto
        Inputs and outputs in the signature's order.
    signature : Signature
        What it must look like.
    path : Path
        Where to write it.

    Raises
    ------
    ConversionError
        If the counts differ.
    """
    import onnx
    from onnx import helper

    graph = model.graph
    initializers = {i.name for i in graph.initializer}
    inputs = [i for i in graph.input if i.name not in initializers]
    for side, have, want in (("inputs", inputs, signature.inputs), ("outputs", list(graph.output), signature.outputs)):
        if len(have) != len(want):
            raise ConversionError(f"the exported graph has {len(have)} {side}, the signature {len(want)}: {[v.name for v in have]}")
    taken = _names(graph)
    before, after = [], []
    for value, spec in zip(inputs, signature.inputs):
        inner = _fresh(f"{spec.name}_in", taken)
        _rename_uses(graph, value.name, inner)
        kind = value.type.tensor_type.elem_type
        op = ("Identity", {}) if kind == DTYPES[spec.dtype].onnx else ("Cast", {"to": kind})
        before.append(helper.make_node(op[0], [spec.name], [inner], name=_fresh("adopted", taken), **op[1]))
    for value, spec in zip(graph.output, signature.outputs):
        inner = _fresh(f"{spec.name}_out", taken)
        _rename_all(graph, value.name, inner)
        after.append(helper.make_node("Cast", [inner], [spec.name], name=_fresh("adopted", taken), to=DTYPES[spec.dtype].onnx))
    nodes = [*before, *graph.node, *after]
    del graph.node[:], graph.input[:], graph.output[:], graph.value_info[:]
    graph.node.extend(nodes)
    graph.input.extend(_info(s) for s in signature.inputs)
    graph.output.extend(_info(s) for s in signature.outputs)
    helper.set_model_props(model, {METADATA_KEY: signature.to_json()})
    onnx.save_model(model, str(path))
    return path


def _info(spec: TensorSpec) -> onnx.ValueInfoProto:
    from onnx import helper

    return helper.make_tensor_value_info(spec.name, DTYPES[spec.dtype].onnx, list(spec.shape))


def _names(graph: onnx.GraphProto) -> set[str]:
    names = {i.name for i in graph.input} | {o.name for o in graph.output} | {i.name for i in graph.initializer}
    for node in graph.node:
        names.update(node.input, node.output, [node.name])
    return names


def _fresh(stem: str, taken: set[str]) -> str:
    name, n = stem, 0
    while name in taken:
        n += 1
        name = f"{stem}_{n}"
    taken.add(name)
    return name


def _rename_uses(graph: onnx.GraphProto, old: str, new: str) -> None:
    for node in graph.node:
        for i, name in enumerate(node.input):
            if name == old:
                node.input[i] = new
        for attribute in node.attribute:
            for inner in ([attribute.g] if attribute.HasField("g") else []) + list(attribute.graphs):
                _rename_uses(inner, old, new)
    for value in graph.output:  # an input that is an output too
        if value.name == old:
            value.name = new


def _rename_all(graph: onnx.GraphProto, old: str, new: str) -> None:
    _rename_uses(graph, old, new)
    for node in graph.node:
        for i, name in enumerate(node.output):
            if name == old:
                node.output[i] = new
    for initializer in graph.initializer:
        if initializer.name == old:
            initializer.name = new
