"""NaiveBayes: multinomial, complement, bernoulli, gaussian."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import numpy as np

from ...errors import ConversionError
from .flow import Flow
from .linear import softmax
from .predictors import classify, features, predicted
from .registry import Need, stage
from .stage import Stage


def _width(stage: Stage) -> int:
    return int(stage.row()["theta"]["numCols"])


def _reads(stage: Stage, widths: Mapping[str, int]) -> list[Need]:
    missing: Literal["allow", "refuse"] = "allow" if stage.text("modelType") == "gaussian" else "refuse"
    return [Need(stage.text("featuresCol"), "vector", _width(stage), missing)]


@stage("NaiveBayesModel", reads=_reads, makes=predicted, task="classifier", note="all model types")
def naive_bayes(flow: Flow, stage: Stage) -> None:
    row, g = stage.row(), flow.graph
    prior, theta = stage.vector(row["pi"]), stage.matrix(row["theta"])
    x = features(flow, stage, theta.shape[1])
    attrs = flow.get(stage.text("featuresCol")).attrs
    kind = stage.text("modelType")
    if kind == "multinomial":
        flow.fail(g.add("Not", _all(flow, flow.op("GreaterOrEqual", x, 0.0))), known=flow.limit(attrs, 0.0, np.inf))
        raw = flow.op("Add", flow.dot(x, theta.T.copy()), prior[None])
    elif kind == "complement":
        flow.fail(g.add("Not", _all(flow, flow.op("GreaterOrEqual", x, 0.0))), known=flow.limit(attrs, 0.0, np.inf))
        score = flow.dot(x, theta.T.copy())
        largest = g.add("ReduceMax", score, flow.ints([1]), keepdims=1)
        total = flow.op("Add", g.add("Log", flow.sum(g.add("Exp", flow.op("Sub", score, largest)))), largest)
        raw = flow.op("Sub", score, total)
    elif kind == "bernoulli":
        binary = g.add("Or", flow.op("Equal", x, 0.0), flow.op("Equal", x, 1.0))
        flow.fail(g.add("Not", _all(flow, binary)), known=flow.limit(attrs, 0.0, 1.0, only=(0.0, 1.0)))
        absent = np.log1p(-np.exp(theta))
        raw = flow.op("Add", flow.dot(x, (theta - absent).T.copy()), (prior + absent.sum(axis=1))[None])
    elif kind == "gaussian":
        raw = _gaussian(flow, stage, x, prior, theta, stage.matrix(row["sigma"]))
    else:
        raise ConversionError(f"{stage.where}: NaiveBayes modelType {kind!r} is not one of Spark's")
    classify(flow, stage, classes=len(prior), raw=raw, probability=softmax(flow, raw))


def _all(flow: Flow, flags: str) -> str:
    g = flow.graph
    return g.cast(g.add("ReduceMin", g.cast(flags, "int32"), flow.ints([1]), keepdims=1), "bool")


def _gaussian(flow: Flow, stage: Stage, x: str, prior: np.ndarray, mean: np.ndarray, variance: np.ndarray) -> str:
    if variance.shape != mean.shape:
        raise stage.wrong("its means and variances differ in shape")
    g = flow.graph
    apart = flow.op("Sub", g.add("Unsqueeze", x, flow.ints([1])), mean[None])
    distance = flow.sum(flow.op("Div", flow.op("Mul", apart, apart), variance[None]), 2, keep=0)
    return flow.op("Sub", (prior - np.log(variance).sum(axis=1) / 2)[None], flow.op("Mul", distance, 0.5))
