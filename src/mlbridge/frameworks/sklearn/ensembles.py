"""Ensembles of any estimators: voting, stacking, bagging, boosting by weights."""

from __future__ import annotations

from typing import Any

import numpy as np

from .emitter import Emitter, Frame, emits
from .meta import labels, one_hot


def _weights(est: Any) -> np.ndarray:
    w = est._weights_not_none
    n = len(est.estimators_)
    return np.ones(n) if w is None else np.asarray(w, dtype=np.float64)


@emits("predict_proba", "VotingClassifier")
def proba_voting(e: Emitter, est: Any, frame: Frame) -> str:
    """Emit the weighted mean of probabilities."""
    w = _weights(est)
    total = None
    for part, weight in zip(est.estimators_, w, strict=True):
        value = e.op("Mul", e.proba(part, frame), float(weight))
        total = value if total is None else e.op("Add", total, value)
    return e.op("Div", total, float(w.sum()))


@emits("predict", "VotingClassifier")
def label_voting(e: Emitter, est: Any, frame: Frame) -> str:
    """Emit the greatest mean probability, or the first class with most weighted votes."""
    if est.voting == "soft":
        return e.argmax(e.proba(est, frame))
    total = None
    for part, weight in zip(est.estimators_, _weights(est), strict=True):
        value = e.op("Mul", one_hot(e, labels(e, part, frame), len(est.classes_)), float(weight))
        total = value if total is None else e.op("Add", total, value)
    return e.argmax(str(total))


@emits("predict", "VotingRegressor")
def predict_voting(e: Emitter, est: Any, frame: Frame) -> str:
    """Emit the weighted mean."""
    w = _weights(est)
    both = e.graph.concat([e.tall(e.predict(p, frame)) for p in est.estimators_])
    return e.flat(e.op("Div", e.linear(both, w[None]), float(w.sum())))


def _stacked(e: Emitter, est: Any, frame: Frame) -> Frame:
    """Emit what the final estimator reads: every part's answers, then the input where it is passed through."""
    parts = []
    fitted = [p for p in est.estimators_ if not (isinstance(p, str) and p == "drop")]
    for part, method in zip(fitted, est.stack_method_, strict=True):
        value = e.call(part, method, frame)
        if method == "predict" and hasattr(part, "classes_"):
            value = e.graph.cast(labels(e, part, frame), "float64")
        if method == "predict_proba":
            n = len(part.classes_)
            block = Frame.of(value, n)
            parts.append(block.select(range(1, n)) if len(est.classes_) == 2 else block)
        elif method == "decision_function" and len(part.classes_) > 2:
            parts.append(Frame.of(value, len(part.classes_)))
        else:
            parts.append(Frame.of(e.tall(value), 1))
    return Frame.join([*parts, frame] if est.passthrough else parts)


@emits("predict", "StackingRegressor")
def predict_stacking(e: Emitter, est: Any, frame: Frame) -> str:
    """Emit the final estimator on the parts' answers."""
    return e.predict(est.final_estimator_, _stacked(e, est, frame))


@emits("predict", "StackingClassifier")
def label_stacking(e: Emitter, est: Any, frame: Frame) -> str:
    """Emit the final estimator's label, which is a position among the classes."""
    return labels(e, est.final_estimator_, _stacked(e, est, frame))


def _final(method: str) -> Any:
    def emit(e: Emitter, est: Any, frame: Frame) -> Any:
        return e.call(est.final_estimator_, method, _stacked(e, est, frame))

    return emit


for _method in ("predict_proba", "decision_function"):
    emits(_method, "StackingClassifier")(_final(_method))


@emits("predict_proba", "BaggingClassifier")
def proba_bagging(e: Emitter, est: Any, frame: Frame) -> str:
    """Emit the mean of probabilities, or the share of votes."""
    total, n = None, len(est.classes_)
    for part, columns in zip(est.estimators_, est.estimators_features_, strict=True):
        own = frame.select(np.asarray(columns).tolist())
        if hasattr(part, "predict_proba"):
            value = e.proba(part, own)
            if len(part.classes_) != n:
                value = e.op("MatMul", value, np.eye(n)[np.asarray(part.classes_, dtype=int)])
        else:
            value = one_hot(e, labels(e, part, own), n)
        total = value if total is None else e.op("Add", total, value)
    return e.op("Div", total, float(len(est.estimators_)))


@emits("decision_function", "BaggingClassifier")
def decide_bagging(e: Emitter, est: Any, frame: Frame) -> str:
    """Emit the mean of decisions."""
    total = None
    for part, columns in zip(est.estimators_, est.estimators_features_, strict=True):
        value = e.decision(part, frame.select(np.asarray(columns).tolist()))
        total = value if total is None else e.op("Add", total, value)
    return e.op("Div", total, float(len(est.estimators_)))


@emits("predict", "BaggingClassifier")
def label_bagging(e: Emitter, est: Any, frame: Frame) -> str:
    """Emit the greatest probability's code."""
    return e.argmax(e.proba(est, frame))


@emits("predict", "BaggingRegressor")
def predict_bagging(e: Emitter, est: Any, frame: Frame) -> str:
    """Emit the mean."""
    total = None
    for part, columns in zip(est.estimators_, est.estimators_features_, strict=True):
        value = e.predict(part, frame.select(np.asarray(columns).tolist()))
        total = value if total is None else e.op("Add", total, value)
    return e.op("Div", total, float(len(est.estimators_)))


@emits("decision_function", "AdaBoostClassifier")
def decide_ada(e: Emitter, est: Any, frame: Frame) -> str:
    """Emit the weighted votes; a lost vote counts -1 / (classes - 1)."""
    n, total = len(est.classes_), None
    w = np.asarray(est.estimator_weights_[: len(est.estimators_)], dtype=np.float64)
    for part, weight in zip(est.estimators_, w, strict=True):
        own = [np.flatnonzero(np.asarray(est.classes_) == c)[0] for c in part.classes_]
        table = np.where(np.eye(n)[own] > 0, weight, -1 / (n - 1) * weight)
        value = e.op("Gather", table, e.predict(part, frame), axis=0)
        total = value if total is None else e.op("Add", total, value)
    mean = e.op("Div", total, float(est.estimator_weights_.sum()))
    if n > 2:
        return mean
    both = Frame.of(mean, 2)
    return e.flat(e.op("Sub", e.column(both, 1), e.column(both, 0)))


@emits("predict", "AdaBoostClassifier")
def label_ada(e: Emitter, est: Any, frame: Frame) -> str:
    """Emit the decision's class."""
    decision = e.decision(est, frame)
    return e.argmax(decision) if len(est.classes_) > 2 else e.graph.cast(e.op("Greater", decision, 0.0), "int64")


@emits("predict_proba", "AdaBoostClassifier")
def proba_ada(e: Emitter, est: Any, frame: Frame) -> str:
    """Emit the softmax of the decision over classes - 1."""
    decision, n = e.decision(est, frame), len(est.classes_)
    if n == 2:
        half = e.tall(e.op("Div", decision, 2.0))
        return e.softmax(e.graph.concat([e.op("Neg", half), half]))
    return e.softmax(e.op("Div", decision, float(n - 1)))


@emits("predict", "AdaBoostRegressor")
def predict_ada(e: Emitter, est: Any, frame: Frame) -> str:
    """Emit the weighted median of the parts' predictions."""
    each = e.graph.concat([e.tall(e.predict(p, frame)) for p in est.estimators_])
    n = len(est.estimators_)
    values, order = e.graph.add("TopK", each, e.graph.const([n], "int64"), axis=1, largest=0, sorted=1, outputs=2)
    weight = e.op("Gather", np.asarray(est.estimator_weights_[:n], dtype=np.float64), order)
    running = e.op("CumSum", weight, np.int64(1))
    last = e.op("Slice", running, np.array([n - 1]), np.array([n]), np.array([1]))
    above = e.graph.cast(e.op("GreaterOrEqual", running, e.op("Mul", last, 0.5)), "int64")
    at = e.op("Unsqueeze", e.argmax(above), np.array([1]))
    return e.flat(e.op("GatherElements", values, at, axis=1))
