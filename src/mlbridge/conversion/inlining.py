"""Lay one finished ONNX graph into another under construction, under a prefix.

Fusing pipelines and converters that meet a step of another library call it; which graphs, and why, they know.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from ..errors import ConversionError
from ..executor.graphs import subgraphs

if TYPE_CHECKING:
    import onnx

    from .graph import Graph

__all__ = ["inline", "rename"]


def inline(graph: Graph, proto: onnx.ModelProto, prefix: str, given: Mapping[str, str]) -> dict[str, str]:
    """Copy a model's nodes into `graph`.

    Parameters
    ----------
    graph : Graph
        Where nodes go.
    proto : onnx.ModelProto
        The finished model; older opsets are converted.
    prefix : str
        Put before every name of the model; unique in `graph`.
    given : mapping of str to str
        Input name to the value of `graph` that feeds it.

    Returns
    -------
    dict of str to str
        Output name to its value in `graph`.

    Raises
    ------
    ConversionError
        If the model is newer than `graph`, or holds sparse initializers.
    """
    from onnx import compose, inliner, version_converter

    label = prefix.rstrip("/")
    if proto.functions:
        proto = inliner.inline_local_functions(proto)
    version = next((o.version for o in proto.opset_import if o.domain in ("", "ai.onnx")), graph.opsets[""])
    if version < graph.opsets[""]:
        proto = version_converter.convert_version(proto, graph.opsets[""])
    elif version > graph.opsets[""]:
        raise ConversionError(f"{label!r} has opset {version}; the graph around it is written in {graph.opsets['']}")
    if proto.graph.sparse_initializer:
        raise ConversionError(f"{label!r} has sparse initializers, which cannot be copied into another graph")
    for o in proto.opset_import:
        if o.domain not in ("", "ai.onnx"):
            graph.opsets[o.domain] = max(graph.opsets.get(o.domain, 0), o.version)
    proto = compose.add_prefix(proto, prefix)
    renamed = {prefix + k: v for k, v in given.items()}
    for node in proto.graph.node:
        rename(node, renamed)
    graph.nodes.extend(proto.graph.node)
    graph.initializers.extend(i for i in proto.graph.initializer if i.name not in renamed)
    return {o.name.removeprefix(prefix): renamed.get(o.name, o.name) for o in proto.graph.output}


def rename(node: onnx.NodeProto, renamed: Mapping[str, str]) -> None:
    """Give the values a node reads their new names, in its subgraphs too."""
    for i, name in enumerate(node.input):
        if name in renamed:
            node.input[i] = renamed[name]
    for inner in subgraphs(node):
        for n in inner.node:
            rename(n, renamed)
