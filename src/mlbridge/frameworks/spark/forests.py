"""Decision trees, random forests, gradient-boosted trees; categorical splits by look-up."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np

from ...errors import ConversionError
from ..trees import IN, LE, Tree, add_trees
from .flow import Attr, Flow
from .linear import binary_scores
from .predictors import classify, features_of, name, predicted, regress
from .registry import stage
from .stage import Stage

_reads = features_of(lambda stage: stage.integer("numFeatures"))


class _Nodes:
    """The node table of all trees as arrays."""

    def __init__(self, stage: Stage) -> None:
        table = stage.table
        if table is None:
            raise stage.wrong("its data folder is missing")
        nodes = table.flatten() if "nodeData" in table.column_names else table
        prefix = "nodeData." if "nodeData" in table.column_names else ""
        while any(n.startswith(f"{prefix}split") and t_is_struct(nodes, n) for n in nodes.column_names):
            nodes = nodes.flatten()

        def column(key: str) -> Any:
            return nodes.column(prefix + key).combine_chunks()

        self.tree = table.column("treeID").to_numpy() if "treeID" in table.column_names else np.zeros(len(table), np.int64)
        self.id = column("id").to_numpy(zero_copy_only=False)
        self.left = column("leftChild").to_numpy(zero_copy_only=False)
        self.right = column("rightChild").to_numpy(zero_copy_only=False)
        self.prediction = column("prediction").to_numpy(zero_copy_only=False)
        self.stats = column("impurityStats")
        self.feature = column("split.featureIndex").to_numpy(zero_copy_only=False)
        self.arity = column("split.numCategories").to_numpy(zero_copy_only=False)
        self.split = column("split.leftCategoriesOrThreshold")


def t_is_struct(table: Any, column: str) -> bool:
    """Whether a column of an Arrow table is a struct."""
    return hasattr(table.schema.field(column).type, "num_fields") and table.schema.field(column).type.num_fields > 1


def _trees(stage: Stage, values: str, weights: np.ndarray | None, classes: int = 1) -> tuple[list[Tree], dict[int, int]]:
    """Read the trees; `values` is what a leaf gives: `prediction`, `counts`, `shares`, or `leaf` (its number)."""
    nodes = _Nodes(stage)
    width = stage.integer("numFeatures")
    starts, lists = nodes.split.offsets.to_numpy(), nodes.split.values.to_numpy(zero_copy_only=False)
    stats = None
    if values in ("counts", "shares"):
        stats = nodes.stats.values.to_numpy(zero_copy_only=False).reshape(len(nodes.id), classes)
    levels: dict[int, int] = {}
    order = np.lexsort((nodes.id, nodes.tree))
    ids = nodes.tree[order]
    bounds = np.flatnonzero(np.concatenate(([True], ids[1:] != ids[:-1], [True])))
    trees = []
    for t, (a, b) in enumerate(itertools.pairwise(bounds)):
        at = order[a:b]
        if not np.array_equal(nodes.id[at], np.arange(b - a)):
            raise stage.wrong(f"the nodes of tree {t} are not numbered from 0")
        leaf = nodes.left[at] < 0
        feature = np.where(leaf, -1, nodes.feature[at])
        if (feature[~leaf] < 0).any() or (feature >= width).any():
            raise stage.wrong(f"tree {t} tests a feature outside 0..{width - 1}")
        arity = np.where(leaf, -1, nodes.arity[at])
        categorical = arity >= 0
        threshold = np.zeros(b - a)
        plain = np.flatnonzero(~leaf & ~categorical)
        threshold[plain] = lists[starts[at[plain]]]
        members = {}
        for node in np.flatnonzero(categorical):
            k, f = int(arity[node]), int(feature[node])
            if levels.setdefault(f, k) != k:
                raise stage.wrong(f"feature {f} has {levels[f]} categories in one node and {k} in another")
            left = lists[starts[at[node]] : starts[at[node] + 1]].astype(int)
            # Spark keeps the smaller side; what is in neither goes to the other one
            members[int(node)] = tuple(left) if len(left) <= k // 2 else (-1, *left, k)
        mode = np.where(categorical, IN, LE).astype(np.uint8)
        value = _leaf_values(values, nodes.prediction[at], None if stats is None else stats[at], leaf, nodes.left[at], nodes.right[at])
        if weights is not None:
            value = value * weights[t]
        trees.append(Tree(feature, threshold, nodes.left[at], nodes.right[at], value, mode=mode, members=members))
    expected = stage.extra.get("numTrees")
    if isinstance(expected, int) and expected != len(trees):
        raise stage.wrong(f"it says {expected} trees and holds {len(trees)}")
    return trees, levels


def _leaf_values(values: str, prediction, stats, leaf, left, right) -> np.ndarray:
    if values == "prediction":
        return prediction[:, None]
    if values == "counts":
        return stats
    if values == "shares":
        total = stats.sum(axis=1, keepdims=True)
        return np.divide(stats, total, out=stats.copy(), where=total != 0)
    out = np.zeros(len(leaf))
    out[_leaves_in_order(leaf, left, right)] = np.arange(leaf.sum())
    return out[:, None]


def _leaves_in_order(leaf, left, right) -> list[int]:
    """Return the leaves from left to right: how Spark numbers them."""
    found, todo = [], [0]
    while todo:
        node = todo.pop()
        if leaf[node]:
            found.append(node)
        else:
            todo += [int(right[node]), int(left[node])]
        if len(found) + len(todo) > len(leaf):
            raise ConversionError("a tree's children do not form a tree")
    return found


def _weights(stage: Stage) -> np.ndarray:
    table = stage.side.get("treesMetadata")
    if table is None:
        raise stage.wrong("its treesMetadata folder is missing")
    ids, weights = table.column(0).to_numpy(), table.column(2).to_numpy()
    return np.asarray(weights, np.float64)[np.argsort(ids, kind="stable")]


def _add(flow: Flow, stage: Stage, values: str, *, weights: np.ndarray | None = None, classes: int = 1) -> str:
    trees, levels = _trees(stage, values, weights, classes)
    width = stage.integer("numFeatures")
    col = flow.vector(stage, stage.text("featuresCol"), width)
    flow.forests.append((trees, col.attrs or (Attr(),) * width, levels))
    out = col.value if flow.dry else add_trees(flow.graph, col.value, trees, targets=classes, levels=levels)
    if name(stage, "leafCol") and not flow.dry:
        leaves = [add_trees(flow.graph, col.value, [t], targets=1, levels=levels) for t in _trees(stage, "leaf", None)[0]]
        flow.put_vector(stage.text("leafCol"), flow.graph.concat(leaves), len(leaves))
    elif name(stage, "leafCol"):
        flow.put_vector(stage.text("leafCol"), col.value, len(trees))
    return out


def _shares(flow: Flow, raw: str) -> str:
    total = flow.sum(raw)
    return flow.op("Div", raw, flow.op("Where", flow.op("Equal", total, 0.0), 1.0, total))


@stage("DecisionTreeRegressionModel", reads=_reads, makes=predicted, task="regressor", note="categorical splits; leaf when asked")
def tree_regressor(flow: Flow, stage: Stage) -> None:
    regress(flow, stage, _add(flow, stage, "prediction"))


@stage("RandomForestRegressionModel", reads=_reads, makes=predicted, task="regressor", note="as a tree")
def forest_regressor(flow: Flow, stage: Stage) -> None:
    total = _add(flow, stage, "prediction")
    regress(flow, stage, flow.op("Div", total, float(max(1, stage.integer("numTrees")))))


@stage("GBTRegressionModel", reads=_reads, makes=predicted, task="regressor", note="as a tree")
def boosted_regressor(flow: Flow, stage: Stage) -> None:
    regress(flow, stage, _add(flow, stage, "prediction", weights=_weights(stage)))


@stage("DecisionTreeClassificationModel", reads=_reads, makes=predicted, task="classifier", note="thresholds; as a tree")
def tree_classifier(flow: Flow, stage: Stage) -> None:
    classes = stage.integer("numClasses")
    raw = _add(flow, stage, "counts", classes=classes)
    classify(flow, stage, classes=classes, raw=raw, probability=_shares(flow, raw))


@stage("RandomForestClassificationModel", reads=_reads, makes=predicted, task="classifier", note="thresholds; as a tree")
def forest_classifier(flow: Flow, stage: Stage) -> None:
    classes = stage.integer("numClasses")
    raw = _add(flow, stage, "shares", classes=classes)
    classify(flow, stage, classes=classes, raw=raw, probability=_shares(flow, raw))


@stage("GBTClassificationModel", reads=_reads, makes=predicted, task="classifier", note="thresholds; as a tree")
def boosted_classifier(flow: Flow, stage: Stage) -> None:
    margin = _add(flow, stage, "prediction", weights=_weights(stage))
    raw, probability = binary_scores(flow, margin, 2.0)
    classify(flow, stage, classes=2, raw=raw, probability=probability)
