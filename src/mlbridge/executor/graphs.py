"""Graphs: what nodes read and hold, and a smaller graph for some outputs.

Pure functions of ONNX protos. Called by `engine`, and by `conversion`, `pipeline` and `runtimes/onnx`, which walk graphs too.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import onnx

__all__ = ["prune", "reads", "subgraphs"]

# Dropping only these is not worth a second session: they read and write a few values.
_CHEAP = frozenset(
    [
        "Identity",
        "Cast",
        "CastLike",
        "Reshape",
        "Squeeze",
        "Unsqueeze",
        "Flatten",
        "Gather",
        "Slice",
        "Concat",
        "Shape",
        "Constant",
        "Not",
        "And",
        "Or",
        "Equal",
        "Greater",
        "Less",
        "GreaterOrEqual",
        "LessOrEqual",
        "Where",
        "ArgMax",
        "ZipMap",
        "LabelEncoder",
        "ArrayFeatureExtractor",
        "Transpose",
    ]
)


def reads(node: onnx.NodeProto) -> Iterator[str]:
    """Yield the names of the values a node reads, those of its subgraphs included."""
    yield from filter(None, node.input)
    for inner in subgraphs(node):
        for n in inner.node:
            yield from reads(n)
        yield from (o.name for o in inner.output)


def subgraphs(node: onnx.NodeProto) -> Iterator[onnx.GraphProto]:
    """Yield the graphs a node holds: the branches of an If, the body of a Loop or Scan."""
    for attribute in node.attribute:
        if attribute.HasField("g"):
            yield attribute.g
        yield from attribute.graphs


def prune(model: bytes, names: Sequence[str]) -> bytes | None:
    """Return the model with these outputs alone, or None where that saves nothing worth it."""
    import onnx

    proto = onnx.load_model_from_string(model)
    producers = {name: i for i, node in enumerate(proto.graph.node) for name in node.output if name}
    needed: set[int] = set()
    stack = list(names)
    while stack:
        index = producers.get(stack.pop())
        if index is not None and index not in needed:
            needed.add(index)
            stack.extend(reads(proto.graph.node[index]))
    if all(n.op_type in _CHEAP for i, n in enumerate(proto.graph.node) if i not in needed):
        return None
    keep = [n for i, n in enumerate(proto.graph.node) if i in needed]
    outputs = [o for o in proto.graph.output if o.name in set(names)]
    del proto.graph.node[:]
    del proto.graph.output[:]
    proto.graph.node.extend(keep)
    proto.graph.output.extend(outputs)
    read = {name for node in keep for name in reads(node)} | set(names)
    weights = [t for t in proto.graph.initializer if t.name in read]
    del proto.graph.initializer[:]
    proto.graph.initializer.extend(weights)
    return proto.SerializeToString()
