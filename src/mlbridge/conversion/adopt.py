"""Make an exporter's ONNX graph ours: its inputs and outputs named, typed and shaped as the signature says.

Exporters keep order and lose names; this renames by position, casts what the signature wants in another dtype, and
writes the signature into the metadata.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import ConversionError
from ..executor.graphs import subgraphs
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
    own = {s.name for s in signature.inputs}
    if both := sorted(own & {s.name for s in signature.outputs}):
        raise ConversionError(
            f"output {both[0]!r} has the name of an input, which no graph can say", hint="rename one of them in the model"
        )
    taken = _names(graph)
    _rename(graph, {s.name: _fresh(f"{s.name}_inner", taken) for s in (*signature.inputs, *signature.outputs) if s.name in taken})
    before, after = [], []
    for value, spec in zip(inputs, signature.inputs):
        kind = value.type.tensor_type.elem_type
        op = ("Identity", {}) if kind == DTYPES[spec.dtype].onnx else ("Cast", {"to": kind})
        before.append(helper.make_node(op[0], [spec.name], [value.name], name=_fresh("adopted", taken), **op[1]))
    for value, spec in zip(graph.output, signature.outputs):
        after.append(helper.make_node("Cast", [value.name], [spec.name], name=_fresh("adopted", taken), to=DTYPES[spec.dtype].onnx))
    own_copies = [n for n in graph.node if n.op_type == "Identity" and n.input[:] == n.output[:]]  # so torch answers an input
    nodes = [*before, *(n for n in graph.node if n not in own_copies), *after]
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
    names = {v.name for v in (*graph.input, *graph.output, *graph.initializer)}
    for node in graph.node:
        names.update(node.input, node.output, [node.name], *map(_names, subgraphs(node)))
    return names


def _fresh(stem: str, taken: set[str]) -> str:
    name, n = stem, 0
    while name in taken:
        n += 1
        name = f"{stem}_{n}"
    taken.add(name)
    return name


def _rename(graph: onnx.GraphProto, names: Mapping[str, str]) -> None:
    """Give values other names wherever they are made or read, in subgraphs too."""
    for value in (*graph.input, *graph.output, *graph.initializer, *graph.value_info):
        value.name = names.get(value.name, value.name)
    for node in graph.node:
        node.input[:] = [names.get(n, n) for n in node.input]
        node.output[:] = [names.get(n, n) for n in node.output]
        for inner in subgraphs(node):
            _rename(inner, names)
