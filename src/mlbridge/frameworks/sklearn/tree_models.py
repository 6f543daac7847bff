"""Trees and their forests: decision trees, random forests, extra trees, boosting, isolation forests, embeddings.

`forest_of` says which trees a model has, for the writer here and for `probing`; `frameworks/trees` writes them.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from ...errors import ConversionError
from ..trees import IN, LE, Tree, add_trees
from .answers import quiet
from .emitter import Emitter, Frame, class_name, emits

__all__ = ["Ensemble", "forest_of"]

_SINGLE = ("DecisionTreeClassifier", "DecisionTreeRegressor", "ExtraTreeClassifier", "ExtraTreeRegressor")
_FORESTS = ("RandomForestClassifier", "RandomForestRegressor", "ExtraTreesClassifier", "ExtraTreesRegressor")
_BOOSTED = ("GradientBoostingClassifier", "GradientBoostingRegressor")
_HISTOGRAM = ("HistGradientBoostingClassifier", "HistGradientBoostingRegressor")


class Ensemble(NamedTuple):
    """A model's trees, how wide their answer is, and in which dtype they read their input."""

    trees: list[Tree]
    targets: int
    dtype: str
    average: bool = False


def forest_of(est: Any) -> Ensemble | None:
    """Return the trees of a model that is made of them, or None."""
    name = class_name(est)
    if name in _SINGLE:
        return Ensemble([_tree(est, _tree_values(est))], _width(est), "float32")
    if name in _FORESTS:
        return Ensemble([_tree(t, _tree_values(t)) for t in est.estimators_], _width(est), "float32", average=True)
    if name in _BOOSTED:
        trees = [
            _tree(t, est.learning_rate * t.tree_.value[:, 0, :], target=k)
            for stage in est.estimators_
            for k, t in enumerate(stage)
            if t is not None
        ]
        return Ensemble(trees, est.estimators_.shape[1], "float32")
    if name in _HISTOGRAM:
        trees = [
            _histogram_tree(p, k, est._bin_mapper.make_known_categories_bitsets()) for stage in est._predictors for k, p in enumerate(stage)
        ]
        return Ensemble(trees, est.n_trees_per_iteration_, "float64")
    if name == "IsolationForest":
        return Ensemble([_depths(est, i) for i in range(len(est.estimators_))], 1, "float32")
    if name == "RandomTreesEmbedding":
        trees = [_tree(t, np.arange(t.tree_.node_count, dtype=np.float64)[:, None], target=i) for i, t in enumerate(est.estimators_)]
        return Ensemble(trees, len(trees), "float32")
    return None


def _tree(est: Any, value: np.ndarray, *, target: int | None = None, columns: np.ndarray | None = None) -> Tree:
    t = est.tree_
    leaf = t.children_left < 0
    feature = np.where(leaf, -1, t.feature)
    if columns is not None:
        feature = np.where(leaf, -1, np.asarray(columns)[np.where(leaf, 0, t.feature)])
    here = np.arange(t.node_count)
    left, right = np.where(leaf, here, t.children_left), np.where(leaf, here, t.children_right)
    missing = np.asarray(t.missing_go_to_left, dtype=bool)
    return Tree(feature, np.asarray(t.threshold, dtype=np.float64), left, right, value, missing_left=missing, target=target)


def _width(est: Any) -> int:
    if not hasattr(est, "classes_"):
        return int(est.n_outputs_)
    return int(sum(np.atleast_1d(est.n_classes_)))


def _tree_values(est: Any) -> np.ndarray:
    """Return leaf values (nodes, targets): means, or the classes' shares of each output side by side."""
    value = est.tree_.value
    if not hasattr(est, "classes_"):
        return np.ascontiguousarray(value[:, :, 0])
    parts = [value[:, o, :n] for o, n in enumerate(np.atleast_1d(est.n_classes_))]
    return np.ascontiguousarray(np.concatenate(parts, axis=1))


def _in_bitset(bitset: np.ndarray) -> set[int]:
    return {32 * w + b for w, word in enumerate(np.asarray(bitset).tolist()) for b in range(32) if word >> b & 1}


def _histogram_tree(predictor: Any, target: int, known: tuple) -> Tree:
    n = predictor.nodes
    leaf = n["is_leaf"].astype(bool)
    here = np.arange(len(n))
    mode = np.where(n["is_categorical"].astype(bool) & ~leaf, IN, LE).astype(np.uint8)
    members: dict[int, tuple[int, ...]] = {}
    bitsets, place = known
    for i in np.flatnonzero(mode == IN):
        node = n[i]
        left = _in_bitset(predictor.raw_left_cat_bitsets[node["bitset_idx"]])
        if node["missing_go_to_left"]:
            trained = _in_bitset(bitsets[place[node["feature_idx"]]])
            left |= {-1} | (set(range(max(trained | left, default=0) + 1)) - trained)
        members[int(i)] = tuple(sorted(left))
    return Tree(
        np.where(leaf, -1, n["feature_idx"]).astype(np.int64),
        np.where(np.isposinf(n["num_threshold"]), np.finfo(np.float64).max, n["num_threshold"]),
        np.where(leaf, here, n["left"].astype(np.int64)),
        np.where(leaf, here, n["right"].astype(np.int64)),
        n["value"].astype(np.float64)[:, None],
        mode=mode,
        missing_left=n["missing_go_to_left"].astype(bool),
        members=members,
        target=target,
    )


def _depths(est: Any, i: int) -> Tree:
    tree, columns = est.estimators_[i], est.estimators_features_[i]
    depth = est._decision_path_lengths[i] + est._average_path_length_per_tree[i] - 1.0
    return _tree(tree, np.asarray(depth, dtype=np.float64)[:, None], target=0, columns=columns)


def _sums(e: Emitter, est: Any, frame: Frame, **kwargs: Any) -> str:
    """Emit the trees' sum or mean, ("rows", targets)."""
    forest = forest_of(est)
    if forest is None:
        raise ConversionError(f"{type(est).__name__} is not made of trees")
    x = kwargs.get("x") or e.matrix(frame, forest.dtype)
    aggregate: Any = "average" if forest.average else "sum"
    return add_trees(e.graph, x, forest.trees, targets=forest.targets, aggregate=aggregate, dtype=forest.dtype)


def _split(e: Emitter, value: str, widths: list[int]) -> list[str]:
    ends = np.cumsum([0, *widths])
    return [e.op("Slice", value, ends[i : i + 1], ends[i + 1 : i + 2], np.array([1])) for i in range(len(widths))]


@emits("predict_proba", "DecisionTreeClassifier", "ExtraTreeClassifier", "RandomForestClassifier", "ExtraTreesClassifier")
def proba_trees(e: Emitter, est: Any, frame: Frame) -> Any:
    """Emit class shares; a list for several outputs."""
    value = _sums(e, est, frame)
    return value if est.n_outputs_ == 1 else _split(e, value, [int(n) for n in est.n_classes_])


@emits("predict", "DecisionTreeClassifier", "ExtraTreeClassifier", "RandomForestClassifier", "ExtraTreesClassifier")
def label_trees(e: Emitter, est: Any, frame: Frame) -> Any:
    """Emit the greatest share's code."""
    p = e.proba(est, frame)
    return [e.argmax(v) for v in p] if isinstance(p, list) else e.argmax(p)


@emits("predict", "DecisionTreeRegressor", "ExtraTreeRegressor", "RandomForestRegressor", "ExtraTreesRegressor")
def predict_trees(e: Emitter, est: Any, frame: Frame) -> str:
    """Emit leaf means."""
    value = _sums(e, est, frame)
    return e.flat(value) if est.n_outputs_ == 1 else value


def _boosted(e: Emitter, est: Any, frame: Frame) -> str:
    """Emit start + sum of leaves, ("rows", trees an iteration)."""
    if class_name(est) in _HISTOGRAM:
        x = e.matrix(e.transform(est._preprocessor, frame)) if est._preprocessor is not None else e.matrix(frame)
        return e.op("Add", _sums(e, est, frame, x=x), np.asarray(est._baseline_prediction, dtype=np.float64).reshape(1, -1))
    return e.op("Add", _sums(e, est, frame), _start(est))


def _start(est: Any) -> np.ndarray:
    if isinstance(est.init_, str):
        return np.zeros((1, est.estimators_.shape[1]))
    if class_name(est.init_) not in ("DummyClassifier", "DummyRegressor"):
        raise ConversionError(
            f"{type(est).__name__}(init={type(est.init_).__name__}) starts from another model", hint="use the default init"
        )
    with quiet():
        return np.asarray(est._raw_predict_init(np.zeros((1, est.n_features_in_), dtype=np.float32)))


@emits("decision_function", "GradientBoostingClassifier", "HistGradientBoostingClassifier")
def decide_boosted(e: Emitter, est: Any, frame: Frame) -> str:
    """Emit raw scores; ("rows",) for two classes."""
    raw = _boosted(e, est, frame)
    return e.flat(raw) if len(est.classes_) == 2 else raw


@emits("predict", "GradientBoostingClassifier", "HistGradientBoostingClassifier")
def label_boosted(e: Emitter, est: Any, frame: Frame) -> str:
    """Emit the greatest raw score's code; the two libraries differ at zero."""
    raw = e.decision(est, frame)
    if len(est.classes_) > 2:
        return e.argmax(raw)
    op = "Greater" if class_name(est) in _HISTOGRAM else "GreaterOrEqual"
    return e.graph.cast(e.op(op, raw, 0.0), "int64")


@emits("predict_proba", "GradientBoostingClassifier", "HistGradientBoostingClassifier")
def proba_boosted(e: Emitter, est: Any, frame: Frame) -> str:
    """Emit the loss's own link."""
    raw = e.decision(est, frame)
    if len(est.classes_) > 2:
        return e.softmax(raw)
    if type(est._loss).__name__ == "ExponentialLoss":
        raw = e.op("Mul", raw, 2.0)
    return e.two_columns(e.tall(e.logistic(raw)))


@emits("predict", "GradientBoostingRegressor", "HistGradientBoostingRegressor")
def predict_boosted(e: Emitter, est: Any, frame: Frame) -> str:
    """Emit the inverse link of the raw score."""
    raw = e.flat(_boosted(e, est, frame))
    log = class_name(est) in _HISTOGRAM and type(est._loss.link).__name__ == "LogLink"
    return e.op("Exp", raw) if log else raw


@emits("score_samples", "IsolationForest")
def score_isolation(e: Emitter, est: Any, frame: Frame) -> str:
    """Emit -2 ** (-depths / (trees * expected depth))."""
    from sklearn.ensemble._iforest import _average_path_length

    total = float(len(est.estimators_) * _average_path_length([est._max_samples])[0])
    depths = e.flat(_sums(e, est, frame))
    if total == 0:
        return e.op("Sub", e.op("Mul", depths, 0.0), 0.5)
    return e.op("Neg", e.op("Pow", 2.0, e.op("Neg", e.op("Div", depths, total))))


@emits("decision_function", "IsolationForest")
def decide_isolation(e: Emitter, est: Any, frame: Frame) -> str:
    """Emit score - offset."""
    return e.op("Sub", e.call(est, "score_samples", frame), float(est.offset_))


@emits("predict", "IsolationForest")
def label_isolation(e: Emitter, est: Any, frame: Frame) -> str:
    """Emit 1 for inliers: decision >= 0."""
    return e.graph.cast(e.op("GreaterOrEqual", e.decision(est, frame), 0.0), "int64")


@emits("transform", "RandomTreesEmbedding")
def embed(e: Emitter, est: Any, frame: Frame) -> Frame:
    """Emit the one-hot encoding of each tree's leaf."""
    return e.transform(est.one_hot_encoder_, Frame.of(_sums(e, est, frame), len(est.estimators_)))
