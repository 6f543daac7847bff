"""MultilayerPerceptron and OneVsRest."""

from __future__ import annotations

import itertools
from collections.abc import Mapping

import numpy as np

from .flow import Flow
from .linear import softmax
from .predictors import classify, features, features_of, predicted
from .registry import Need, family, stage
from .stage import Stage


def _layers(stage: Stage) -> list[int]:
    raw = stage.params.get("layers", stage.row().get("layers"))  # a column of the data before Spark 3
    layers = [int(v) for v in raw] if isinstance(raw, list) else []
    if len(layers) < 2 or min(layers) < 1:
        raise stage.wrong(f"its layers are {raw!r}")
    return layers


@stage(
    "MultilayerPerceptronClassificationModel",
    reads=features_of(lambda stage: _layers(stage)[0]),
    makes=predicted,
    task="classifier",
    note="sigmoid layers, softmax",
)
def perceptron(flow: Flow, stage: Stage) -> None:
    layers, weights = _layers(stage), stage.vector(stage.row()["weights"])
    if len(weights) != sum((a + 1) * b for a, b in itertools.pairwise(layers)):
        raise stage.wrong("its weights do not fit its layers")
    value, at = features(flow, stage, layers[0]), 0
    for i, (n_in, n_out) in enumerate(itertools.pairwise(layers)):
        matrix = weights[at : at + n_in * n_out].reshape(n_in, n_out)  # Spark's (out, in) by columns
        at += n_in * n_out
        value = flow.op("Add", flow.dot(value, matrix), weights[at : at + n_out][None])
        at += n_out
        if i < len(layers) - 2:
            value = flow.op("Div", 1.0, flow.op("Add", 1.0, flow.graph.add("Exp", flow.graph.add("Neg", value))))
    classify(flow, stage, classes=layers[-1], raw=value, probability=softmax(flow, value))


def _rest_reads(stage: Stage, widths: Mapping[str, int]) -> list[Need]:
    first = stage.children[0]
    column = stage.text("featuresCol")
    return [Need(column, n.kind, n.width) for n in family(first).reads(first, widths)[:1]]


@stage("OneVsRestModel", reads=_rest_reads, makes=predicted, task="classifier", note="answers `decision`, a score a class")
def one_vs_rest(flow: Flow, stage: Stage) -> None:
    scores = []
    for child in stage.children:
        params = {**child.params, "featuresCol": stage.text("featuresCol"), "rawPredictionCol": "\0raw", "predictionCol": "\0one"}
        params.update(probabilityCol="", leafCol="")
        family(child).emit(
            flow, Stage(child.name, child.uid, child.where, params, child.given, child.extra, child.table, child.side, child.children)
        )
        scores.append(flow.take(flow.columns.pop("\0raw").value, [1]))
    raw = flow.graph.concat(scores)
    scored = flow.any(flow.op("Greater", raw, -np.inf))  # Spark says -1 where no score is a number
    index = flow.graph.add("Where", scored, flow.argmax(raw, first=False), flow.ints(-1))
    second = None if len(scores) > 2 else flow.take(raw, [len(scores) - 1])  # `decision` of two classes is one value a row
    classify(flow, stage, classes=len(scores), raw=raw, probability=None, index=index, decision=second, unsure=True)
