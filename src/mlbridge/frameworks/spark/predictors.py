"""What predictors share: the columns they read and make, and how Spark turns scores into a label."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from .flow import Answer, Attr, Col, Flow
from .registry import Need
from .stage import Stage

__all__ = ["classify", "cluster", "features", "features_of", "predicted", "regress"]

_MADE = ("predictionCol", "probabilityCol", "rawPredictionCol", "leafCol", "quantilesCol", "linkPredictionCol")


def features_of(width: Callable[[Stage], int]) -> Callable[[Stage, Mapping[str, int]], list[Need]]:
    """Return the `reads` of a predictor of one vector, `width` wide."""

    def reads(stage: Stage, widths: Mapping[str, int]) -> list[Need]:
        return [Need(stage.text("featuresCol"), "vector", width(stage))]

    return reads


def predicted(stage: Stage) -> list[str]:
    """Return the columns a predictor makes: those whose name is not empty."""
    return [stage.text(p) for p in _MADE if stage.params.get(p)]


def features(flow: Flow, stage: Stage, width: int) -> str:
    """Return the value of the features, checked for their width."""
    return flow.vector(stage, stage.text("featuresCol"), width).value


def name(stage: Stage, param: str) -> str | None:
    """Return the name of an optional column, or None."""
    return stage.text(param) if stage.params.get(param) else None


def thresholds(stage: Stage, classes: int) -> np.ndarray | None:
    """Return `thresholds`, if set."""
    if not stage.has("thresholds"):
        return None
    values = np.array(stage.numbers("thresholds"))
    if len(values) != classes:
        raise stage.wrong(f"{len(values)} thresholds for {classes} classes")
    return values


def classify(
    flow: Flow,
    stage: Stage,
    *,
    classes: int,
    raw: str,
    probability: str | None,
    index: str | None = None,
    decision: str | None = None,
    unsure: bool = False,
) -> None:
    """Set a classifier's columns and its answer.

    Parameters
    ----------
    raw : str
        rawPrediction, ("rows", classes).
    probability : str or None
        ("rows", classes).
    index : str, optional
        The label as int64 ("rows", 1); else the first largest raw score, or of probability / threshold.
    decision : str, optional
        The scores answered where there is no probability; `raw` if not given.
    unsure : bool
        Whether the label may be missing (-1).
    """
    limits = thresholds(stage, classes)
    if index is None and limits is not None and probability is not None:
        index = flow.argmax(flow.op("Div", probability, limits[None]), first=False)
    if index is None:
        index = flow.argmax(raw)
    column = stage.text("predictionCol")
    flow.put_number(column, flow.double(index), attr=Attr(column, "nominal", None, classes), codes=index, nan=False)
    if name(stage, "rawPredictionCol"):
        flow.put_vector(stage.text("rawPredictionCol"), raw, classes)
    if probability is not None and name(stage, "probabilityCol"):
        flow.put_vector(stage.text("probabilityCol"), probability, classes)
    scores = "probabilities" if probability is not None else "decision"
    flow.answer = Answer("classifier", column, classes, index, scores, probability or decision or raw, unsure=unsure)


def regress(flow: Flow, stage: Stage, value: str) -> None:
    """Set a regressor's column and its answer."""
    column = stage.text("predictionCol")
    flow.put_number(column, value)
    flow.answer = Answer("regressor", column, score_value=value)


def cluster(flow: Flow, stage: Stage, index: str, clusters: int) -> None:
    """Set a clusterer's column, an int64 ("rows", 1), and its answer."""
    column = stage.text("predictionCol")
    flow.put(column, Col(flow.double(index), attrs=(Attr(column, "nominal", None, clusters),), codes=index, nan=False))
    flow.answer = Answer("clusterer", column, clusters, index)
