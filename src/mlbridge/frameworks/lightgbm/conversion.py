"""A LightgbmModel as a graph, and as the rows that probe it. What its objective makes of the sum lives here too."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from ...conversion.graph import Graph
from ...errors import ConversionError
from ...signature import Signature, TensorSpec
from ..trees import Tree, add_trees, blocks_of, join, node_coverage, path_rows, width
from .model import ZERO, LightgbmModel

__all__ = ["LINKS", "coverage", "probe", "write"]

LINKS = {
    "": "identity",
    "regression": "identity",
    "regression_l2": "identity",
    "regression_l1": "identity",
    "huber": "identity",
    "fair": "identity",
    "quantile": "identity",
    "mape": "identity",
    "lambdarank": "identity",
    "rank_xendcg": "identity",
    "poisson": "exp",
    "gamma": "exp",
    "tweedie": "exp",
    "binary": "sigmoid",
    "multiclassova": "sigmoid",
    "cross_entropy": "sigmoid",
    "cross_entropy_lambda": "softplus",
    "multiclass": "softmax",
}  # objective -> what predict makes of the sum


def write(model: LightgbmModel, folder: Path, signature: Signature, order: np.ndarray) -> Path:
    """Write the model as an ONNX file; `order` is where each trained column stands in the inputs' matrix."""
    if model.refusal:
        raise ConversionError(f"LightGBM: {model.refusal}", hint="it can run natively")
    graph = Graph(signature)
    x = _clean(graph, join(graph), model, order)
    trees, levels = _placed(model, signature, order)
    total = add_trees(graph, x, trees, targets=model.groups, levels=levels)
    if model.average:
        total = graph.add("Div", total, graph.const(np.float64(max(1, len(model.trees) // model.groups))))
    _answer(graph, model, total)
    return graph.save(folder)


def _masks(model: LightgbmModel, signature: Signature, order: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return, over the matrix: levels of category columns (inf elsewhere), codes as plain numbers, zero as missing."""
    size = width(signature)
    levels, bare, zero = np.full(size, np.inf), np.zeros(size, bool), np.zeros(size, bool)
    for i, column in enumerate(signature.columns):
        if column.categories is not None:
            levels[i] = len(column.categories)
    bare[order] = model.coded
    zero[order] = model.zero
    return levels, bare & np.isinf(levels), zero & np.isinf(levels)


def _clean(graph: Graph, x: str, model: LightgbmModel, order: np.ndarray) -> str:
    """Make missing what LightGBM takes for missing: codes outside the levels, and zeros where they count so."""
    levels, bare, zero = _masks(model, graph.signature, order)
    if np.isfinite(levels).any():
        lowest = graph.const(np.where(np.isfinite(levels), 0.0, -np.inf))
        outside = graph.add(
            "Or",
            graph.add("Less", x, lowest),
            graph.add("And", graph.add("GreaterOrEqual", x, graph.const(levels)), graph.const(np.isfinite(levels))),
        )
        x = graph.add("Where", outside, graph.const(np.float64(np.nan)), x)
    if bare.any():  # a code is the integer part, rounded towards zero
        toward = graph.add("And", graph.add("Less", x, graph.const(np.float64(0))), graph.const(bare))
        x = graph.add("Where", toward, graph.add("Ceil", x), x)
    if zero.any():
        small = graph.add("And", graph.add("LessOrEqual", graph.add("Abs", x), graph.const(np.float64(ZERO))), graph.const(zero))
        x = graph.add("Where", small, graph.const(np.float64(np.nan)), x)
    return x


def _placed(model: LightgbmModel, signature: Signature, order: np.ndarray) -> tuple[list[Tree], dict[int, int]]:
    trees = [replace(t, feature=np.where(t.feature >= 0, order[t.feature], -1)) for t in model.trees]
    used = {int(f) for t in trees for f in t.feature[list(t.members)]}
    levels = {i: len(c.categories) for i, c in enumerate(signature.columns) if c.categories is not None and i in used}
    return [_within(t, levels) for t in trees], levels


def _within(tree: Tree, levels: dict[int, int]) -> Tree:
    """Drop codes no level has: they would count as unknown ones, which go right."""
    if not any(int(tree.feature[n]) in levels for n in tree.members):
        return tree
    top = {n: levels.get(int(tree.feature[n]), np.inf) for n in tree.members}
    return replace(tree, members={n: tuple(c for c in m if c < top[n]) for n, m in tree.members.items()})


def _link(graph: Graph, total: str, model: LightgbmModel) -> str:
    if model.objective not in LINKS:
        raise ConversionError(f"LightGBM's objective {model.objective!r} has no known link", hint="it can run natively")
    kind = LINKS[model.objective]
    if kind == "exp":
        return graph.add("Exp", total)
    if kind == "softmax":
        return graph.add("Softmax", total, axis=1)
    if kind == "sigmoid":
        return graph.add("Sigmoid", graph.add("Mul", total, graph.const(np.float64(model.parameters.get("sigmoid", "1")))))
    if kind == "softplus":  # log1p(exp(x)), steady for large x; onnxruntime has neither in double
        tail = graph.add("Log", graph.add("Add", graph.add("Exp", graph.add("Neg", graph.add("Abs", total))), graph.const(np.float64(1))))
        return graph.add("Add", graph.add("Max", total, graph.const(np.float64(0))), tail)
    if "sqrt" in model.parameters:
        return graph.add("Mul", total, graph.add("Abs", total))
    return total


def _answer(graph: Graph, model: LightgbmModel, total: str) -> None:
    """From the trees' sum, ("rows", groups), to the outputs the signature names."""
    specs = {s.name: s for s in graph.signature.outputs}
    if "decision" in specs:  # the sum itself: not in `infer`, but scikit-learn's calibration asks a classifier for it
        graph.output("decision", _fitting(graph, total, specs.pop("decision")))
    if not specs:
        return
    value = _link(graph, total, model)
    if "label" not in specs:
        spec = next(iter(specs.values()))
        graph.output(spec.name, _fitting(graph, value, spec))
        return
    if model.groups == 1:
        value = graph.concat([graph.add("Sub", graph.const(np.float64(1)), value), value])
    best = graph.add("ArgMax", value, axis=1, keepdims=0)
    if specs["label"].columns:
        graph.output("label", graph.cast(best, "int32"))
    else:
        classes = np.array([float(c.name) for c in specs["probabilities"].columns])
        graph.output("label", graph.add("Gather", graph.const(classes), best))
    graph.output("probabilities", value)


def _fitting(graph: Graph, value: str, spec: TensorSpec) -> str:
    return value if len(spec.shape) == 2 else graph.add("Squeeze", value, graph.const([1], "int64"))


# ---------------------------------------------------------------- probe rows


def probe(model: LightgbmModel, signature: Signature, order: np.ndarray, seed: int) -> dict[str, np.ndarray]:
    """Return path rows of every tree, each column missing, zero and unknown, and rows at random among the thresholds."""
    columns, rng = width(signature), np.random.default_rng(seed)
    trees, levels = _placed(model, signature, order)
    base = rng.normal(size=(64, columns))
    for t in trees[:200]:
        for f, cut in zip(t.feature, t.threshold):
            if f >= 0 and rng.random() < 0.3 and abs(cut) < 1e300:
                base[rng.integers(64), f] = cut + rng.choice([-1.0, 0.0, 1.0])
    top, bare, zero = _masks(model, signature, order)
    base[:, bare] = rng.integers(0, 8, (64, int(bare.sum())))
    for i in np.flatnonzero(np.isfinite(top)):
        base[:, i] = rng.integers(0, max(1, int(top[i])), 64)
    some = min(columns, 256)
    gaps, zeros, unknown = (np.repeat(base[:1], some, axis=0) for _ in range(3))
    np.fill_diagonal(gaps, np.nan)
    np.fill_diagonal(zeros, 0.0)
    np.fill_diagonal(unknown, np.where(np.isfinite(top), top, -1.0)[:some])
    keep = [c.unknown == "keep" or c.categories is None for c in signature.columns[:some]] or [True] * some
    rows = path_rows(trees, columns=columns, base_rows=base, seed=seed, missing=True, levels=levels, codes=_codes(trees, levels))
    return blocks_of(
        np.concatenate([base, gaps, zeros, unknown[keep], np.full((1, columns), np.nan), rows, *_beside_zero(rows, zero)]), signature
    )


def _beside_zero(rows: np.ndarray, zero: np.ndarray) -> list[np.ndarray]:
    """Where zero is missing, the numbers next to it lie a little off: try both neighbours."""
    near = zero & (np.abs(rows) <= ZERO)
    hit = near.any(axis=1)
    return [np.where(near[hit], np.nextafter(side * ZERO, side * np.inf), rows[hit]) for side in (-1.0, 1.0)] if hit.any() else []


def _codes(trees: list[Tree], levels: dict[int, int]) -> dict[int, range]:
    highest: dict[int, int] = {}
    for t in trees:
        for node, members in t.members.items():
            f = int(t.feature[node])
            highest[f] = max(highest.get(f, 0), *members, 0)
    return {f: range(levels[f]) if f in levels else range(top + 2) for f, top in highest.items()}


def coverage(model: LightgbmModel, rows: np.ndarray, signature: Signature, order: np.ndarray) -> float:
    """Return the share of reachable nodes the rows test on both sides."""
    levels, bare, zero = _masks(model, signature, order)
    rows = np.where(
        (rows < 0) & bare, np.ceil(rows), np.where((rows < 0) | (rows >= levels), np.where(np.isfinite(levels), np.nan, rows), rows)
    )
    rows = np.where(zero & (np.abs(rows) <= ZERO), np.nan, rows)
    trees, found = _placed(model, signature, order)
    return node_coverage(trees, rows, missing=True, levels=found, codes=_codes(trees, found))
