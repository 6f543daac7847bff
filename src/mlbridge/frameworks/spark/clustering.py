"""Clusterers: KMeans, BisectingKMeans, GaussianMixture."""

from __future__ import annotations

from typing import Any

import numpy as np

from ...errors import ConversionError
from .flow import Flow
from .predictors import cluster, features, features_of, name, predicted
from .registry import stage
from .stage import Stage

_EPSILON = 2.220446049250313e-16  # what Spark adds to every density


def _centers(stage: Stage) -> np.ndarray:
    rows = sorted(stage.rows(), key=lambda r: r["clusterIdx"])
    centers = [stage.vector(r["clusterCenter"]) for r in rows]
    if [r["clusterIdx"] for r in rows] != list(range(len(rows))) or len({len(c) for c in centers}) != 1:
        raise stage.wrong("its centres are malformed")
    return np.array(centers)


def _whole_features(flow: Flow, stage: Stage, width: int) -> str:
    """Return the features; Spark raises where one is NaN."""
    col = flow.vector(stage, stage.text("featuresCol"), width)
    if col.nan:
        flow.fail(flow.any(flow.graph.add("IsNaN", col.value)), known=flow.limit(col.attrs, -np.inf, np.inf))
    return col.value


def _distances(flow: Flow, x: str, centers: np.ndarray, measure: str) -> str:
    """Return ("rows", centres): squared, or 1 - cosine."""
    g = flow.graph
    if measure == "euclidean":
        apart = flow.op("Sub", g.add("Unsqueeze", x, flow.ints([1])), centers[None])
        return flow.sum(flow.op("Mul", apart, apart), 2, keep=0)
    if measure != "cosine":
        raise ConversionError(f"distance measure {measure!r} is not one of Spark's")
    norm = g.add("Sqrt", flow.sum(flow.op("Mul", x, x)))
    flow.fail(flow.op("Equal", norm, 0.0), known=True)
    unit = centers / np.linalg.norm(centers, axis=1, keepdims=True)
    return flow.op("Sub", 1.0, flow.op("Div", flow.dot(x, unit.T.copy()), norm))


def _nearest(flow: Flow, distances: str) -> str:
    """Return the first smallest; NaN is never smaller."""
    clean = flow.op("Where", flow.graph.add("IsNaN", distances), np.inf, distances)
    return flow.graph.add("ArgMin", clean, axis=1, keepdims=1)


@stage("KMeansModel", reads=features_of(lambda s: _centers(s).shape[1]), makes=predicted, task="clusterer", note="euclidean, cosine")
def kmeans(flow: Flow, stage: Stage) -> None:
    centers = _centers(stage)
    x = _whole_features(flow, stage, centers.shape[1])
    cluster(flow, stage, _nearest(flow, _distances(flow, x, centers, stage.text("distanceMeasure", "euclidean"))), len(centers))


def _bisecting_width(stage: Stage) -> int:
    return len(stage.vector(stage.rows()[0]["center"]))


@stage(
    "BisectingKMeansModel", reads=features_of(_bisecting_width), makes=predicted, task="clusterer", note="descends its tree, as Spark does"
)
def bisecting_kmeans(flow: Flow, stage: Stage) -> None:
    """Every inner node says left or right; a leaf is reached where all on its path agree."""
    nodes = {int(r["index"]): r for r in stage.rows()}
    mllib = stage.extra.get("mllib", {})
    root = mllib.get("rootId")
    centers = {i: stage.vector(r["center"]) for i, r in nodes.items()}
    leaves, paths, inner = _descend(stage, nodes, root)
    x = _whole_features(flow, stage, len(centers[root]))
    if not inner:
        zero = flow.graph.cast(flow.op("Mul", flow.take(x, [0]), 0.0), "int64")
        cluster(flow, stage, flow.graph.add("Mul", zero, flow.ints(0)), 1)
        return
    points = np.array([centers[c] for i in inner for c in nodes[i]["children"]])
    far = _distances(flow, x, points, mllib.get("distanceMeasure", "euclidean"))
    right = flow.op("Greater", flow.take(far, np.arange(0, len(points), 2)), flow.take(far, np.arange(1, len(points), 2)))
    turn = flow.op("Sub", 1.0, flow.op("Mul", flow.double(right), 2.0))  # 1 is left, the first of equals
    signs, depth = np.zeros((len(inner), len(leaves))), np.zeros(len(leaves))
    for j, path in enumerate(paths):
        for node, side in path:
            signs[inner.index(node), j] = 1.0 - 2.0 * side
        depth[j] = len(path)
    agreed = flow.op("Sub", flow.dot(turn, signs), depth[None])
    place = flow.graph.add("ArgMax", agreed, axis=1, keepdims=1)
    cluster(flow, stage, flow.graph.add("Gather", flow.ints(leaves), place), len(leaves))


def _descend(stage: Stage, nodes: dict[int, Any], root: Any) -> tuple[list[int], list[list[tuple[int, int]]], list[int]]:
    if root not in nodes:
        raise stage.wrong("its root is missing")
    leaves: list[int] = []
    paths: list[list[tuple[int, int]]] = []
    inner: list[int] = []
    todo: list[tuple[int, list[tuple[int, int]]]] = [(root, [])]
    while todo:
        node, path = todo.pop()
        children = nodes[node]["children"]
        if len(path) > len(nodes) or len(children) not in (0, 2):
            raise stage.wrong("its clusters do not form a tree")
        if not children:
            leaves.append(node)
            paths.append(path)
            continue
        inner.append(node)
        todo += [(children[1], [*path, (node, 1)]), (children[0], [*path, (node, 0)])]
    return leaves, paths, inner


def _mixture_width(stage: Stage) -> int:
    return len(stage.vector(stage.row()["mus"][0]))


@stage("GaussianMixtureModel", reads=features_of(_mixture_width), makes=predicted, task="clusterer", note="probability when asked")
def gaussian_mixture(flow: Flow, stage: Stage) -> None:
    row, g = stage.row(), flow.graph
    weights = np.array(row["weights"], np.float64)
    means = np.array([stage.vector(v) for v in row["mus"]])
    roots, logs = zip(*(_whiten(stage.matrix(v)) for v in row["sigmas"]))
    x = features(flow, stage, means.shape[1])
    apart = flow.op("Sub", g.add("Unsqueeze", x, flow.ints([1])), means[None])
    turned = flow.op("MatMul", g.add("Unsqueeze", apart, flow.ints([2])), np.array(roots)[None])
    square = g.add("Squeeze", flow.sum(flow.op("Mul", turned, turned), 3), flow.ints([2, 3]))
    density = g.add("Exp", flow.op("Sub", np.array(logs)[None], flow.op("Mul", square, 0.5)))
    share = flow.op("Add", flow.op("Mul", density, weights[None]), _EPSILON)
    probability = flow.op("Div", share, flow.sum(share))
    cluster(flow, stage, flow.argmax(probability), len(weights))
    if name(stage, "probabilityCol"):
        flow.put_vector(stage.text("probabilityCol"), probability, len(weights))


def _whiten(covariance: np.ndarray) -> tuple[np.ndarray, float]:
    """Return W with W'W the pseudo-inverse (as columns to multiply by), and the log of the density's constant."""
    values, vectors = np.linalg.eigh(covariance)
    limit = np.finfo(np.float64).eps * values.max() * len(values)
    kept = values > limit
    scale = np.divide(1.0, np.sqrt(np.where(kept, values, 1.0)), out=np.zeros_like(values), where=kept)
    constant = -0.5 * (len(values) * np.log(2.0 * np.pi) + np.log(values[kept]).sum())
    return vectors * scale[None], float(constant)
