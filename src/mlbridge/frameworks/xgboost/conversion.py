"""An XgboostModel as a graph, and as the rows that probe it. What its objective makes of the sum lives here too."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from ...conversion.graph import Graph
from ...errors import ConversionError
from ...signature import Signature
from ..trees import Tree, add_trees, blocks_of, join, node_coverage, path_rows, positions, width
from .model import XgboostModel

__all__ = ["KINDS", "coverage", "probe", "write"]

KINDS = {
    "reg:squarederror": "identity",
    "reg:linear": "identity",
    "reg:squaredlogerror": "identity",
    "reg:pseudohubererror": "identity",
    "reg:absoluteerror": "identity",
    "reg:quantileerror": "identity",
    "reg:expectileerror": "identity",
    "rank:pairwise": "identity",
    "rank:ndcg": "identity",
    "rank:map": "identity",
    "reg:logistic": "sigmoid",
    "binary:logistic": "sigmoid",
    "binary:logitraw": "logit",
    "binary:hinge": "step",
    "multi:softprob": "softmax",
    "multi:softmax": "softmax",
    "count:poisson": "exp",
    "reg:gamma": "exp",
    "reg:tweedie": "exp",
    "survival:cox": "exp",
    "survival:aft": "exp",
}  # objective -> what predict makes of the sum

_TARGETS_AT_ONCE = 64  # leaves kept apart at once, for each row


def kind_of(model: XgboostModel) -> str:
    """Return the objective's link, or raise ConversionError for one we do not know."""
    if model.objective not in KINDS:
        raise ConversionError(f"XGBoost's objective {model.objective!r} has no known link", hint="it can run natively")
    return KINDS[model.objective]


def _base_margin(model: XgboostModel) -> np.ndarray:
    """Return the base score in the space of the sum, computed in float32 as XGBoost does."""
    base, kind = model.base_score.astype(np.float32), kind_of(model)
    with np.errstate(divide="ignore", invalid="ignore"):
        if kind == "sigmoid":
            base = -np.log(np.float32(1) / base - np.float32(1))
        elif kind == "exp":
            base = np.log(base)
    if not np.isfinite(base).all():
        raise ConversionError(f"base_score {model.base_score.tolist()} lies outside what {model.objective} allows")
    # a linear booster adds the first answer's base score to all of them
    return np.repeat(base[:1], len(base)) if model.booster == "gblinear" else base


def _placed(model: XgboostModel, signature: Signature) -> tuple[list[Tree], dict[int, int]]:
    """Return the trees over the signature's matrix, and the number of levels of its category columns."""
    at = positions(signature, model.names)
    if len(at) != model.columns:
        raise ConversionError(f"the inputs have {len(at)} columns, the model {model.columns}")
    trees = [Tree(np.where(t.feature >= 0, at[t.feature], -1), *_rest(t)) for t in model.trees]
    levels = {i: len(c.categories) for i, c in enumerate(signature.columns) if c.categories is not None}
    used = {int(f) for t in trees for f in t.feature[list(t.members)]}
    return trees, {f: k for f, k in levels.items() if f in used}


def _rest(tree: Tree) -> tuple:
    return tree.threshold, tree.left, tree.right, tree.value, tree.mode, tree.missing_left, tree.members, tree.target


def write(model: XgboostModel, folder: Path, signature: Signature) -> Path:
    """Write the model as an ONNX file."""
    graph = Graph(signature)
    x = join(graph)
    if not np.isnan(model.missing):
        if any(c.categories is not None for c in signature.columns) or "c" in model.kinds:
            raise ConversionError(f"missing={model.missing!r} beside categorical columns has no exact form")
        same = graph.add("Equal", x, graph.const(np.float64(np.float32(model.missing))))
        x = graph.add("Where", same, graph.const(np.float64(np.nan)), x)
    if model.booster == "gblinear":
        total = _linear(graph, x, model, signature)
    else:
        total = _sum(graph, _bare_codes(graph, x, model, signature), model, signature)
    _answer(graph, model, total)
    return graph.save(folder)


def _sum(graph: Graph, x: str, model: XgboostModel, signature: Signature) -> str:
    """Add the leaves as XGBoost does: one after the other, in float32, from the base score on.

    CumSum adds in order. A few trees at a time bound the memory a row needs, whatever the number of trees.
    """
    trees, levels = _placed(model, signature)
    queues: list[list[Tree]] = [[] for _ in range(model.groups)]
    base = _base_margin(model)
    for tree, drop in zip(trees, model.drop):
        for group in range(model.groups) if tree.target is None else (tree.target,):
            value = (tree.value[:, [group]] if tree.target is None else tree.value).astype(np.float32)
            if model.booster == "dart":
                value = ((value + base[group]) - base[group] if model.in_place else value) * drop
            queues[group].append(replace(tree, value=value.astype(np.float64), target=group))
    rows = graph.add("Shape", x, start=0, end=1)
    shape = graph.add("Concat", rows, graph.const([1, model.groups], "int64"), axis=0)
    total = graph.add("Expand", graph.const(base[None, None, :]), shape)
    step = max(1, _TARGETS_AT_ONCE // model.groups)
    for begin in range(0, max(map(len, queues)), step):
        part = [q[begin : begin + step] for q in queues]
        length = max(map(len, part))
        placed = [replace(t, target=i * model.groups + (t.target or 0)) for q in part for i, t in enumerate(q)]
        leaves = graph.cast(add_trees(graph, x, placed, targets=length * model.groups, levels=levels), "float32")
        leaves = graph.add("Reshape", leaves, graph.add("Concat", rows, graph.const([length, model.groups], "int64"), axis=0))
        running = graph.add("CumSum", graph.concat([total, leaves]), graph.const(np.int64(1)))
        total = graph.add("Gather", running, graph.const([length], "int64"), axis=1)
    return graph.add("Squeeze", total, graph.const([1], "int64"))


def _bare_codes(graph: Graph, x: str, model: XgboostModel, signature: Signature) -> str:
    """Where codes come as plain numbers, a negative one is no missing value: XGBoost takes it for an unknown category."""
    at = positions(signature, model.names)
    known = {i for i, c in enumerate(signature.columns) if c.categories is not None}
    bare = [int(at[i]) for i, kind in enumerate(model.kinds) if kind == "c" and int(at[i]) not in known]
    if not bare:
        return x
    mask = np.zeros(width(signature), dtype=bool)
    mask[bare] = True
    negative = graph.add("And", graph.add("Less", x, graph.const(np.float64(0))), graph.const(mask))
    return graph.add("Where", negative, graph.const(np.float64(1e9)), x)


def _linear(graph: Graph, x: str, model: XgboostModel, signature: Signature) -> str:
    """Add weight times value, column after column, in float32 from bias and base score on, as XGBoost does."""
    if model.weights is None:
        raise ConversionError("a linear booster without weights")
    at = positions(signature, model.names)
    x = graph.add("Where", graph.add("IsNaN", x), graph.const(np.float64(0)), x)  # a missing value adds nothing
    x = graph.cast(graph.add("Gather", x, graph.const(at, "int64"), axis=1), "float32")
    bias = model.weights[-1] + _base_margin(model)
    rows = graph.add("Shape", x, start=0, end=1)
    total = graph.add(
        "Expand", graph.const(bias[None, None, :]), graph.add("Concat", rows, graph.const([1, model.groups], "int64"), axis=0)
    )
    step = max(1, _TARGETS_AT_ONCE // model.groups)
    for begin in range(0, model.columns, step):
        index = graph.const(np.arange(begin, min(begin + step, model.columns)))
        part = graph.add("Unsqueeze", graph.add("Gather", x, index, axis=1), graph.const([2], "int64"))
        terms = graph.add("Mul", part, graph.const(model.weights[begin : min(begin + step, model.columns)]))
        running = graph.add("CumSum", graph.concat([total, terms]), graph.const(np.int64(1)))
        total = graph.add("Gather", running, graph.const([min(step, model.columns - begin)], "int64"), axis=1)
    return graph.add("Squeeze", total, graph.const([1], "int64"))


def _answer(graph: Graph, model: XgboostModel, total: str) -> None:
    """From the sum, ("rows", groups) in float32, to the outputs the signature names; links in double, rounded once."""
    names, kind = [s.name for s in graph.signature.outputs], kind_of(model)
    wide = graph.cast(total, "float64")
    if kind == "softmax":
        scores = _softmax(graph, total)
        best = graph.add("ArgMax", scores, axis=1, keepdims=0)
        _give(graph, {"label": graph.cast(best, "int32"), "probabilities": scores}, names)
        return
    value = total
    if kind == "sigmoid":  # step by step as XGBoost: its last bit shows where 1 - p is small
        power = graph.cast(graph.add("Exp", graph.add("Neg", wide)), "float32")
        one = graph.const(np.float32(1))
        value = graph.add("Div", one, graph.add("Add", power, one))
    elif kind == "exp":
        value = graph.cast(graph.add("Exp", wide), "float32")
    if kind == "step":
        value = graph.cast(graph.add("Greater", value, graph.const(np.float32(0))), "float32")
    if "label" in names:
        _give(graph, _two_classes(graph, value, model, ""), names)
    elif "label_0" in names:
        for i in range(model.groups):
            one = graph.add("Gather", value, graph.const([i], "int64"), axis=1)
            _give(graph, _two_classes(graph, one, model, f"_{i}"), names)
    else:
        spec = graph.signature.outputs[0]
        _give(graph, {spec.name: value if len(spec.shape) == 2 else _flat(graph, value)}, names)


def _softmax(graph: Graph, total: str) -> str:
    """Step by step as XGBoost: powers and their division in float32, their sum in double."""
    axis = graph.const([1], "int64")
    less = graph.add("Sub", total, graph.add("ReduceMax", total, axis, keepdims=1))
    power = graph.cast(graph.add("Exp", graph.cast(less, "float64")), "float32")
    whole = graph.cast(graph.add("ReduceSum", graph.cast(power, "float64"), axis, keepdims=1), "float32")
    return graph.add("Div", power, whole)


def _two_classes(graph: Graph, value: str, model: XgboostModel, suffix: str) -> dict[str, str]:
    """From one score, ("rows", 1): its label, and what goes beside it."""
    cut = 0.0 if kind_of(model) == "logit" and model.estimator is None else 0.5
    label = graph.cast(graph.add("Greater", _flat(graph, value), graph.const(np.float32(cut))), "int32")
    other = graph.add("Sub", graph.const(np.float32(1)), value)
    return {
        f"label{suffix}": label,
        f"probabilities{suffix}": graph.concat([other, value]),
        f"decision{suffix}": _flat(graph, value),
    }


def _flat(graph: Graph, value: str) -> str:
    return graph.add("Squeeze", value, graph.const([1], "int64"))


def _give(graph: Graph, values: dict[str, str], names: list[str]) -> None:
    for name, value in values.items():
        if name in names:
            graph.output(name, value)


# ---------------------------------------------------------------- probe rows


def probe(model: XgboostModel, signature: Signature, seed: int) -> dict[str, np.ndarray]:
    """Return path rows of every tree, each column missing, and rows at random among the thresholds."""
    columns, rng = width(signature), np.random.default_rng(seed)
    trees, levels = _placed(model, signature)
    base = rng.normal(size=(64, columns))
    for f, cuts in _cuts(trees).items():
        base[:, f] = rng.choice(cuts, 64) + rng.choice([-1.0, 0.0, 1.0], 64)
    for i, column in enumerate(signature.columns):
        if column.categories is not None:
            base[:, i] = rng.integers(0, max(1, len(column.categories)), 64)
    gaps = np.repeat(base[:1], min(columns, 256), axis=0)
    np.fill_diagonal(gaps, np.nan)
    rows = path_rows(
        trees, columns=columns, dtype="float32", base_rows=base, seed=seed, missing=True, levels=levels, codes=_codes(trees, levels)
    )
    rows = np.concatenate([base.astype(np.float32), gaps.astype(np.float32), np.full((1, columns), np.nan, np.float32), rows])
    return blocks_of(rows, signature)


def _cuts(trees: list[Tree]) -> dict[int, np.ndarray]:
    if not trees:
        return {}
    feature = np.concatenate([t.feature for t in trees])
    threshold = np.concatenate([t.threshold for t in trees])
    found = {}
    for f in np.unique(feature[feature >= 0]):
        cuts = threshold[(feature == f) & np.isfinite(threshold)]
        if cuts.size:
            found[int(f)] = cuts
    return found


def _codes(trees: list[Tree], levels: dict[int, int]) -> dict[int, range]:
    """Codes to try: the levels; where codes are plain numbers, one beyond the largest as well."""
    highest: dict[int, int] = {}
    for t in trees:
        for node, members in t.members.items():
            f = int(t.feature[node])
            highest[f] = max(highest.get(f, 0), *members, 0)
    return {f: range(levels[f]) if f in levels else range(top + 2) for f, top in highest.items()}


def coverage(model: XgboostModel, rows: np.ndarray, signature: Signature) -> float:
    """Return the share of reachable nodes the rows test on both sides."""
    trees, levels = _placed(model, signature)
    return node_coverage(trees, rows, dtype="float32", missing=True, levels=levels, codes=_codes(trees, levels))
