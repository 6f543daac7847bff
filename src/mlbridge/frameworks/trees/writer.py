"""add_trees: trees to one ai.onnx.ml TreeEnsemble in double, straight from arrays."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Literal

import numpy as np

from ...errors import ConversionError
from .forest import LE, Forest, Tree, stack

if TYPE_CHECKING:
    import onnx

    from ...conversion.graph import Graph

__all__ = ["add_trees"]


def add_trees(
    graph: Graph,
    x: str,
    trees: Sequence[Tree],
    *,
    targets: int,
    aggregate: Literal["sum", "average"] = "sum",
    dtype: str = "float64",
    levels: Mapping[int, int] | None = None,
) -> str:
    """Write trees as one TreeEnsemble computed in double.

    Parameters
    ----------
    graph : Graph
        The graph under construction.
    x : str
        The trees' input, ("rows", columns). Columns of IN nodes hold category codes.
    trees : sequence of Tree
        None at all give zeros.
    targets : int
        Width of the answer.
    aggregate : {'sum', 'average'}
        Over trees.
    dtype : str
        Of `x`. Anything but float64 is cast to float64 first, so comparisons of float32 values are exact.
    levels : mapping of int to int, optional
        Column to its number of levels k: codes above k count as k (unknown), below -1 as -1. Without it, k is one more than the
        largest code any of the column's members names, so unknown levels go right.

    Returns
    -------
    str
        A value of shape ("rows", targets), float64.

    Raises
    ------
    ConversionError
        If the arrays do not form trees.
    """
    if dtype != "float64":
        x = graph.cast(x, "float64")
    if not trees:
        trees = [Tree(np.array([-1]), np.zeros(1), np.zeros(1, int), np.zeros(1, int), np.zeros((1, 1)), target=0)]
    trees = [_with_a_node(t) if len(t.feature) == 1 else t for t in trees]
    forest = stack(trees, levels or {})
    x, forest = _indicators(graph, x, forest)
    total = _ensemble(graph, x, forest, trees, targets)
    if aggregate == "average":
        return graph.add("Div", total, graph.const(np.float64(len(trees))))
    return total


def _with_a_node(tree: Tree) -> Tree:
    """Give a single leaf a node whose branches agree: TreeEnsemble has no tree without a node."""
    value = np.repeat(np.asarray(tree.value, dtype=np.float64).reshape(1, -1), 3, axis=0)
    return Tree(np.array([0, -1, -1]), np.zeros(3), np.array([1, 0, 0]), np.array([2, 0, 0]), value, target=tree.target)


def _indicators(graph: Graph, x: str, forest: Forest) -> tuple[str, Forest]:
    """Append one column for each distinct category set: 0 where the code is in it, else 1.

    onnxruntime answers chained BRANCH_MEMBER and BRANCH_EQ nodes on one feature wrongly; a look-up table is exact.
    """
    if not forest.tables:
        return x, forest
    columns = sorted(forest.tables)
    width = np.array([forest.tables[f].shape[1] - 2 for f in columns], dtype=np.float64)
    codes = graph.add("Gather", x, graph.const(columns, "int64"), axis=1)
    codes = graph.add("Where", graph.add("IsNaN", codes), graph.const(np.float64(-1)), codes)
    codes = graph.add("Max", graph.add("Min", codes, graph.const(width)), graph.const(np.float64(-1)))
    codes = graph.cast(graph.add("Add", graph.add("Floor", codes), graph.const(np.float64(1))), "int64")
    parts, offset, at = [], 0, {}
    for i, f in enumerate(columns):
        table = np.ascontiguousarray(~forest.tables[f].T).astype(np.uint8)
        one = graph.add("Gather", codes, graph.const(np.int64(i)), axis=1)
        parts.append(graph.add("Gather", graph.const(table), one, axis=0))
        at[f], offset = offset, offset + table.shape[1]
    indicators = graph.cast(graph.concat(parts), "float64")
    member = forest.sets >= 0
    position = np.zeros(len(member), dtype=np.int64)
    position[member] = forest.sets[member] + np.array([at[f] for f in forest.feature[member]])
    joined = graph.concat([indicators, x])  # indicators first: their number is known here, that of x's columns is not
    feature = np.where(member, position, np.where(forest.leaf, 0, forest.feature + offset))
    return joined, forest._replace(
        feature=feature,
        threshold=np.where(member, 0.5, forest.threshold),
        mode=np.where(member, LE, forest.mode).astype(np.uint8),
        missing_left=forest.missing_left & ~member,
    )


def _ensemble(graph: Graph, x: str, forest: Forest, trees: Sequence[Tree], targets: int) -> str:
    """Write the node straight from arrays: attribute by attribute, no Python loop over nodes."""
    inner = ~forest.leaf
    order = np.cumsum(inner) - 1  # node -> index among inner nodes
    rank = np.cumsum(
        forest.leaf
    )  # leaf -> index among leaves, from 1: onnxruntime takes a root whose false leaf has the root's index for a leaf
    weights, ids = _leaf_values(forest, trees, targets)
    copies, nodes, leaves = len(weights), int(inner.sum()), int(forest.leaf.sum())

    def child(of: np.ndarray) -> np.ndarray:
        branch = of[inner]
        is_leaf = forest.leaf[branch]
        step = np.where(is_leaf, leaves, nodes) * np.arange(copies)[:, None]
        return (np.where(is_leaf, rank[branch], order[branch]) + step).ravel()

    def tiled(of: np.ndarray) -> np.ndarray:
        return np.tile(of[inner].astype(np.int64), copies)

    ints = {
        "tree_roots": (order[forest.roots] + nodes * np.arange(copies)[:, None]).ravel(),
        "nodes_featureids": tiled(forest.feature),
        "nodes_truenodeids": child(forest.left),
        "nodes_falsenodeids": child(forest.right),
        "nodes_trueleafs": tiled(forest.leaf[forest.left]),
        "nodes_falseleafs": tiled(forest.leaf[forest.right]),
        "leaf_targetids": np.concatenate(([0], *ids)),
    }
    if forest.missing_left[inner].any():
        ints["nodes_missing_value_tracks_true"] = tiled(forest.missing_left)
    tensors = {
        "nodes_splits": np.tile(forest.threshold[inner], copies),
        "nodes_modes": np.tile(forest.mode[inner], copies),
        "leaf_weights": np.concatenate(([0.0], *weights)),
    }
    return _node(graph, x, targets, ints, tensors)


def _leaf_values(forest: Forest, trees: Sequence[Tree], targets: int) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Return leaf weights and target ids, a pair of arrays for each copy of the forest: a leaf adds to one target only."""
    values = [np.asarray(t.value, dtype=np.float64).reshape(len(t.feature), -1) for t in trees]
    leaves = [np.asarray(t.feature) < 0 for t in trees]
    widths = {v.shape[1] for v in values}
    if widths == {1}:
        aim = [0 if t.target is None else t.target for t in trees]
        if min(aim) < 0 or max(aim) >= targets:
            raise ConversionError(f"a tree adds to target {max(aim)} of {targets}")
        ids = np.concatenate([np.full(int(at.sum()), a, dtype=np.int64) for at, a in zip(leaves, aim)])
        return [np.concatenate([v[at, 0] for v, at in zip(values, leaves)])], [ids]
    if widths != {targets}:
        raise ConversionError(f"leaf values are {sorted(widths)} wide, expected {targets}")
    stacked = np.concatenate([v[at] for v, at in zip(values, leaves)])
    return [np.ascontiguousarray(stacked[:, j]) for j in range(targets)], [np.full(len(stacked), j) for j in range(targets)]


def _node(graph: Graph, x: str, targets: int, ints: Mapping[str, np.ndarray], tensors: Mapping[str, np.ndarray]) -> str:
    from onnx import AttributeProto, NodeProto, numpy_helper

    out = graph.name("trees")
    node: onnx.NodeProto = NodeProto(op_type="TreeEnsemble", domain="ai.onnx.ml", name=graph.name("node"), input=[x], output=[out])
    for name, number in (("n_targets", targets), ("aggregate_function", 1), ("post_transform", 0)):
        node.attribute.add(name=name, type=AttributeProto.INT, i=number)
    for name, array in ints.items():
        payload = _varints(array)
        packed = bytes([AttributeProto.INTS_FIELD_NUMBER << 3 | 2]) + _varints(np.array([len(payload)])) + payload
        node.attribute.add(name=name, type=AttributeProto.INTS).MergeFromString(packed)
    for name, array in tensors.items():
        node.attribute.add(name=name, type=AttributeProto.TENSOR).t.CopyFrom(numpy_helper.from_array(array, name))
    graph.nodes.append(node)
    return out


def _varints(array: np.ndarray) -> bytes:
    """Encode non-negative integers as protobuf does: seven bits a byte, lowest first. Ten times faster than `extend`."""
    value = np.asarray(array, dtype=np.int64)
    length = max(1, (int(value.max(initial=0)).bit_length() + 6) // 7)
    groups = value[:, None] >> (7 * np.arange(length))
    used = (groups > 0) | (np.arange(length) == 0)
    more = np.zeros_like(used)
    more[:, :-1] = used[:, 1:]
    return ((groups & 0x7F) | (more << 7)).astype(np.uint8)[used].tobytes()
