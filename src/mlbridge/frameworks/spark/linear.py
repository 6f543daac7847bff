"""Linear models: regressions with every link, logistic, support vector, survival, isotonic, factorisation machines."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from ...errors import ConversionError
from .flow import Flow
from .predictors import classify, features, features_of, name, predicted, regress, thresholds
from .registry import Need, stage
from .special import normal_cdf
from .stage import Stage


def _coefficients(stage: Stage) -> int:
    return len(stage.vector(stage.row()["coefficients"]))


def _margin(flow: Flow, stage: Stage) -> str:
    row = stage.row()
    weights = stage.vector(row["coefficients"])
    x = features(flow, stage, len(weights))
    return flow.op("Add", flow.dot(x, weights[:, None], sparse=stage.sparse(row["coefficients"])), float(row["intercept"]))


@stage("LinearRegressionModel", reads=features_of(_coefficients), makes=predicted, task="regressor", note="squared error and Huber")
def linear_regression(flow: Flow, stage: Stage) -> None:
    regress(flow, stage, _margin(flow, stage))


# ---------------------------------------------------------------- generalised linear

_LINKS = {"gaussian": "identity", "binomial": "logit", "poisson": "log", "gamma": "inverse"}


def _glr_reads(stage: Stage, widths: Mapping[str, int]) -> list[Need]:
    needs = features_of(_coefficients)(stage, widths)
    return [*needs, Need(stage.text("offsetCol"))] if name(stage, "offsetCol") else needs


def glr_link(stage: Stage) -> tuple[str, str, float]:
    """Return family, link and link power; defaults are not in the folder."""
    kind = stage.text("family").lower()
    if kind != "tweedie":
        link = stage.text("link").lower() if stage.has("link") else _LINKS.get(kind, "")
        return kind, link, 1.0
    variance = stage.number("variancePower")
    power = stage.number("linkPower") if stage.has("linkPower") else 1.0 - variance
    kind = {0.0: "gaussian", 1.0: "poisson", 2.0: "gamma"}.get(variance, "tweedie")
    return kind, {0.0: "log", 1.0: "identity", -1.0: "inverse", 0.5: "sqrt"}.get(power, "power"), power


@stage("GeneralizedLinearRegressionModel", reads=_glr_reads, makes=predicted, task="regressor", note="every family and link; offset")
def generalized_linear_regression(flow: Flow, stage: Stage) -> None:
    eta = _margin(flow, stage)
    if name(stage, "offsetCol"):
        eta = flow.op("Add", eta, flow.number(stage, stage.text("offsetCol")).value)
    kind, link, power = glr_link(stage)
    mean = _project(flow, _unlink(flow, eta, link, power, stage), kind)
    if name(stage, "linkPredictionCol"):
        flow.put_number(stage.text("linkPredictionCol"), eta)
    regress(flow, stage, mean)


def _unlink(flow: Flow, eta: str, link: str, power: float, stage: Stage) -> str:
    g = flow.graph
    if link == "identity":
        return eta
    if link == "log":
        return g.add("Exp", eta)
    if link == "logit":
        return flow.op("Div", 1.0, flow.op("Add", 1.0, g.add("Exp", g.add("Neg", eta))))
    if link == "inverse":
        return flow.op("Div", 1.0, eta)
    if link == "sqrt":
        return flow.op("Mul", eta, eta)
    if link == "cloglog":
        return flow.op("Sub", 1.0, g.add("Exp", g.add("Neg", g.add("Exp", eta))))
    if link == "probit":
        return normal_cdf(flow, eta)
    if link == "power":
        return flow.op("Pow", eta, 1.0 / power)
    raise ConversionError(f"{stage.where}: link {link!r} is not one of Spark's")


def _project(flow: Flow, mean: str, kind: str) -> str:
    """Keep a mean inside its family's range, as Spark does."""
    tiny, huge = 1e-16, float(np.finfo(np.float64).max)
    low, high = {"gaussian": (-huge, huge), "binomial": (tiny, 1.0 - tiny)}.get(kind, (tiny, huge))
    mean = flow.op("Where", flow.op("Less", mean, low), low, mean)  # not Clip: NaN must stay NaN
    return flow.op("Where", flow.op("Greater", mean, high), high, mean)


# ---------------------------------------------------------------- classifiers


def _num_features(stage: Stage) -> int:
    return int(stage.row()["numFeatures"])


@stage(
    "LogisticRegressionModel",
    reads=features_of(_num_features),
    makes=predicted,
    task="classifier",
    note="binomial and multinomial; threshold, thresholds",
)
def logistic_regression(flow: Flow, stage: Stage) -> None:
    row = stage.row()
    weights, intercept = stage.matrix(row["coefficientMatrix"]), stage.vector(row["interceptVector"])
    classes = int(row["numClasses"])
    x = features(flow, stage, weights.shape[1])
    margin = flow.op("Add", flow.dot(x, weights.T.copy(), sparse=stage.sparse(row["coefficientMatrix"])), intercept[None])
    if row["isMultinomial"]:
        classify(flow, stage, classes=classes, raw=margin, probability=softmax_of_infinite(flow, margin, classes))
        return
    raw, probability = binary_scores(flow, margin, 1.0)
    cut = _binary_threshold(stage)
    with np.errstate(divide="ignore"):
        limit = -np.inf if cut == 0 else np.inf if cut == 1 else float(np.log(cut / (1.0 - cut)))
    index = flow.graph.cast(flow.op("Greater", margin, limit), "int64")
    classify(flow, stage, classes=2, raw=raw, probability=probability, index=index)


def _binary_threshold(stage: Stage) -> float:
    if "thresholds" in stage.given:
        low, high = thresholds(stage, 2)  # type: ignore[misc]
        return float(1.0 / (1.0 + low / high)) if high else 0.0
    return stage.number("threshold")


def binary_scores(flow: Flow, margin: str, factor: float) -> tuple[str, str]:
    """Return rawPrediction (-m, m) and probability (1 - p, p) of a margin, with p = sigmoid(factor m)."""
    g = flow.graph
    raw = g.concat([g.add("Neg", margin), margin])
    scaled = margin if factor == 1.0 else flow.op("Mul", margin, factor)
    first = flow.op("Div", 1.0, flow.op("Add", 1.0, g.add("Exp", scaled)))  # Spark's own order: p0 first, p1 = 1 - p0
    return raw, g.concat([first, flow.op("Sub", 1.0, first)])


def softmax(flow: Flow, margins: str) -> str:
    """Return exp(m) / sum exp(m), shifted by the largest."""
    g = flow.graph
    largest = g.add("ReduceMax", margins, flow.ints([1]), keepdims=1)
    power = g.add("Exp", flow.op("Sub", margins, largest))
    return flow.op("Div", power, flow.sum(power))


def softmax_of_infinite(flow: Flow, margins: str, classes: int) -> str:
    """Return `softmax`, but where a margin is +inf as Spark's own: 1 at the first of them, 0 times the margin elsewhere."""
    g = flow.graph
    endless = g.cast(flow.op("Equal", margins, np.inf), "int32")
    first = g.add("Equal", g.add("ArgMax", endless, axis=1, keepdims=1), flow.ints(np.arange(classes)[None]))
    return g.add("Where", flow.any(endless), flow.op("Where", first, 1.0, flow.op("Mul", margins, 0.0)), softmax(flow, margins))


@stage("LinearSVCModel", reads=features_of(_coefficients), makes=predicted, task="classifier", note="answers `decision`; threshold")
def linear_svc(flow: Flow, stage: Stage) -> None:
    margin = _margin(flow, stage)
    index = flow.graph.cast(flow.op("Greater", margin, stage.number("threshold")), "int64")
    raw = flow.graph.concat([flow.graph.add("Neg", margin), margin])
    classify(flow, stage, classes=2, raw=raw, probability=None, index=index, decision=margin)


# ---------------------------------------------------------------- others


@stage("AFTSurvivalRegressionModel", reads=features_of(_coefficients), makes=predicted, task="regressor", note="quantiles when asked")
def aft_survival(flow: Flow, stage: Stage) -> None:
    scale = flow.graph.add("Exp", _margin(flow, stage))
    if name(stage, "quantilesCol"):
        odds = np.array(stage.numbers("quantileProbabilities"))
        factor = np.exp(np.log(-np.log1p(-odds)) * float(stage.row()["scale"]))
        flow.put_vector(stage.text("quantilesCol"), flow.op("Mul", scale, factor[None]), len(odds))
    regress(flow, stage, scale)


def _isotonic_reads(stage: Stage, widths: Mapping[str, int]) -> list[Need]:
    column = stage.text("featuresCol")
    known = widths.get(column)
    return [Need(column, "vector" if stage.integer("featureIndex") else "any", known, together=known)]


@stage("IsotonicRegressionModel", reads=_isotonic_reads, makes=predicted, task="regressor", note="of a number, or of one element")
def isotonic(flow: Flow, stage: Stage) -> None:
    row, g = stage.row(), flow.graph
    edge, level = np.array(row["boundaries"], np.float64), np.array(row["predictions"], np.float64)
    if not len(edge) or len(edge) != len(level):
        raise stage.wrong("its boundaries and predictions do not fit")
    col = flow.made(stage.text("featuresCol"))
    x = flow.take(col.value, [stage.integer("featureIndex")]) if col.vector else col.value
    if len(edge) == 1:
        regress(flow, stage, flow.op("Where", g.add("IsNaN", x), level[0], flow.op("Add", flow.op("Mul", x, 0.0), level[0])))
        return
    passed = flow.sum(g.cast(flow.op("GreaterOrEqual", x, edge[None, 1:-1]), "int64"))
    x1, x2 = (g.add("Gather", flow.real(e), passed) for e in (edge[:-1], edge[1:]))
    y1, y2 = (g.add("Gather", flow.real(v), passed) for v in (level[:-1], level[1:]))
    slope = flow.op("Div", flow.op("Sub", x, x1), flow.op("Sub", x2, x1))
    value = flow.op("Add", y1, flow.op("Mul", flow.op("Sub", y2, y1), slope))
    value = flow.op("Where", flow.op("LessOrEqual", x, edge[0]), level[0], value)
    above = g.add("Or", flow.op("GreaterOrEqual", x, edge[-1]), g.add("IsNaN", x))  # Java sorts NaN last
    regress(flow, stage, flow.op("Where", above, level[-1], value))


def _fm_width(stage: Stage) -> int:
    return int(stage.row()["factors"]["numRows"])


def _fm_margin(flow: Flow, stage: Stage) -> str:
    row = stage.row()
    linear, factors = stage.vector(row["linear"]), stage.matrix(row["factors"])
    x = features(flow, stage, len(factors))
    crossed = flow.dot(x, factors)
    own = flow.dot(flow.op("Mul", x, x), factors * factors)
    pairs = flow.op("Mul", flow.sum(flow.op("Sub", flow.op("Mul", crossed, crossed), own)), 0.5)
    return flow.op("Add", flow.op("Add", flow.dot(x, linear[:, None]), pairs), float(row["intercept"]))


@stage("FMRegressionModel", reads=features_of(_fm_width), makes=predicted, task="regressor")
def fm_regressor(flow: Flow, stage: Stage) -> None:
    regress(flow, stage, _fm_margin(flow, stage))


@stage("FMClassificationModel", reads=features_of(_fm_width), makes=predicted, task="classifier")
def fm_classifier(flow: Flow, stage: Stage) -> None:
    raw, probability = binary_scores(flow, _fm_margin(flow, stage), 1.0)
    classify(flow, stage, classes=2, raw=raw, probability=probability)
