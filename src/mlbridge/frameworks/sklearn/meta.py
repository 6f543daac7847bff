"""Estimators around estimators: one-vs-rest and kin, several outputs, chains, calibration, thresholds, target transforms."""

from __future__ import annotations

from typing import Any

import numpy as np

from ...errors import ConversionError
from .emitter import Emitter, Frame, class_name, emits
from .kernels import votes
from .scalers import expm1, interpolate
from .semi import isotonic


def labels(e: Emitter, est: Any, frame: Frame) -> str:
    """Emit a classifier's label as the integer its class is, ("rows",)."""
    classes = np.asarray(est.classes_)
    if classes.dtype.kind not in "iufb":
        raise ConversionError(f"{type(est).__name__}: its classes are not numbers")
    codes = e.predict(est, frame)
    return codes if np.array_equal(classes, np.arange(len(classes))) else e.op("Gather", classes.astype(np.int64), codes)


def one_hot(e: Emitter, codes: str, n: int) -> str:
    """Emit ("rows", n) with a one at each code."""
    return e.op("Gather", np.eye(n), codes, axis=0)


def binary_score(e: Emitter, est: Any, frame: Frame) -> str:
    """Emit the score of the positive class, ("rows",): prediction, decision or probability."""
    from sklearn.base import is_regressor

    if is_regressor(est):
        return e.predict(est, frame)
    if hasattr(est, "decision_function"):
        return e.decision(est, frame)
    return e.flat(e.column(Frame.of(e.proba(est, frame), 2), 1))


def _threshold(est: Any) -> float:
    from sklearn.base import is_classifier

    return 0.5 if not hasattr(est, "decision_function") and is_classifier(est) else 0.0


# ---------------------------------------------------------------- one against others


@emits("predict", "_ConstantPredictor")
def constant_label(e: Emitter, est: Any, frame: Frame) -> str:
    """Emit the constant as a code."""
    return e.graph.cast(constant_decision(e, est, frame), "int64")


@emits("decision_function", "_ConstantPredictor")
def constant_decision(e: Emitter, est: Any, frame: Frame) -> str:
    """Emit the constant."""
    return e.flat(e.per_row(frame.cols[0].block, np.asarray(est.y_).ravel()[:1]))


@emits("predict_proba", "_ConstantPredictor")
def constant_proba(e: Emitter, est: Any, frame: Frame) -> str:
    """Emit the constant's certainty."""
    y = float(np.asarray(est.y_).ravel()[0])
    return e.per_row(frame.cols[0].block, [1 - y, y])


def _scores(e: Emitter, est: Any, frame: Frame) -> str:
    return e.graph.concat([e.tall(binary_score(e, p, frame)) for p in est.estimators_])


@emits("predict", "OneVsRestClassifier")
def label_rest(e: Emitter, est: Any, frame: Frame) -> Any:
    """Emit the greatest score's code, or one code a label for several labels."""
    scores, n = _scores(e, est, frame), len(est.estimators_)
    if est.label_binarizer_.y_type_ == "multiclass":
        return e.argmax(scores)
    hits = e.graph.cast(e.op("Greater", scores, _threshold(est.estimators_[0])), "int64")
    columns = [e.flat(e.op("Gather", hits, np.array([i]), axis=1)) for i in range(n)]
    return columns if est.multilabel_ else columns[0]


@emits("predict_proba", "OneVsRestClassifier")
def proba_rest(e: Emitter, est: Any, frame: Frame) -> str:
    """Emit the positive probabilities, normalised unless there are several labels."""
    p = e.graph.concat([e.column(Frame.of(e.proba(part, frame), 2), 1) for part in est.estimators_])
    if len(est.estimators_) == 1:
        p = e.two_columns(p)
    return p if est.multilabel_ else e.normalized(p, guard=True)


@emits("decision_function", "OneVsRestClassifier")
def decide_rest(e: Emitter, est: Any, frame: Frame) -> str:
    """Emit each decision."""
    parts = [e.decision(p, frame) for p in est.estimators_]
    return parts[0] if len(parts) == 1 else e.graph.concat([e.tall(p) for p in parts])


@emits("decision_function", "OneVsOneClassifier")
def decide_one(e: Emitter, est: Any, frame: Frame) -> str:
    """Emit votes and bounded confidences."""
    wins = e.graph.concat([e.tall(e.graph.cast(labels(e, p, frame), "float64")) for p in est.estimators_])
    out = votes(e, wins, _scores(e, est, frame), len(est.classes_))
    return e.flat(e.column(Frame.of(out, 2), 1)) if len(est.classes_) == 2 else out


@emits("predict", "OneVsOneClassifier")
def label_one(e: Emitter, est: Any, frame: Frame) -> str:
    """Emit the greatest vote."""
    decision = e.decision(est, frame)
    if len(est.classes_) > 2:
        return e.argmax(decision)
    return e.graph.cast(e.op("Greater", decision, _threshold(est.estimators_[0])), "int64")


@emits("predict", "OutputCodeClassifier")
def label_code(e: Emitter, est: Any, frame: Frame) -> str:
    """Emit the nearest code word."""
    return e.argmax(e.distances(_scores(e, est, frame), est.code_book_, "sqeuclidean"), least=True)


# ---------------------------------------------------------------- several outputs


@emits("predict", "MultiOutputRegressor")
def predict_several(e: Emitter, est: Any, frame: Frame) -> str:
    """Emit every target."""
    return e.graph.concat([e.tall(e.predict(p, frame)) for p in est.estimators_])


@emits("predict", "MultiOutputClassifier")
def label_several(e: Emitter, est: Any, frame: Frame) -> list[str]:
    """Emit every target's code."""
    return [e.predict(p, frame) for p in est.estimators_]


@emits("predict_proba", "MultiOutputClassifier")
def proba_several(e: Emitter, est: Any, frame: Frame) -> list[str]:
    """Emit every target's probabilities."""
    return [e.proba(p, frame) for p in est.estimators_]


def _chain(e: Emitter, est: Any, frame: Frame, answer: str) -> list[Any]:
    """Walk the chain: each estimator also reads what the ones before it answered."""
    method = getattr(est, "chain_method_", "predict")
    out: list[Any] = [None] * len(est.estimators_)
    told: list[Frame] = []
    for place, part in zip(est.order_, est.estimators_, strict=True):
        seen = Frame.join([frame, *told])
        out[place] = e.call(part, answer, seen)
        if method == "predict" and hasattr(part, "classes_"):
            said = e.graph.cast(labels(e, part, seen), "float64")
        elif method == "predict_proba":
            said = e.flat(e.column(Frame.of(e.proba(part, seen), 2), 1))
        else:
            said = e.call(part, method, seen)
        told.append(Frame.of(e.tall(said), 1))
    return out


@emits("predict", "RegressorChain")
def predict_chain(e: Emitter, est: Any, frame: Frame) -> str:
    """Emit every target."""
    return e.graph.concat([e.tall(v) for v in _chain(e, est, frame, "predict")])


def _classifier_chain(method: str) -> Any:
    def emit(e: Emitter, est: Any, frame: Frame) -> list[Any]:
        return _chain(e, est, frame, method)

    return emit


for _method in ("predict", "predict_proba", "decision_function"):
    emits(_method, "ClassifierChain")(_classifier_chain(_method))


# ---------------------------------------------------------------- calibration and thresholds


@emits("predict_proba", "CalibratedClassifierCV")
def proba_calibrated(e: Emitter, est: Any, frame: Frame) -> str:
    """Emit the mean over the calibrated copies."""
    total = None
    for copy in est.calibrated_classifiers_:
        value = _calibrated(e, copy, frame)
        total = value if total is None else e.op("Add", total, value)
    return e.op("Div", total, float(len(est.calibrated_classifiers_)))


def _calibrated(e: Emitter, copy: Any, frame: Frame) -> str:
    if copy.method == "temperature":
        raise ConversionError("CalibratedClassifierCV(method='temperature') has no ONNX form here", hint="use 'sigmoid' or 'isotonic'")
    n, inner = len(copy.classes), copy.estimator
    if hasattr(inner, "decision_function"):
        scores = e.decision(inner, frame)
        scores = e.tall(scores) if len(inner.classes_) == 2 else scores
    else:
        scores = e.proba(inner, frame)
        scores = e.column(Frame.of(scores, n), 1) if n == 2 else scores
    width = len(copy.calibrators)
    columns = [_calibrate(e, c, e.column(Frame.of(scores, width), i)) for i, c in enumerate(copy.calibrators)]
    if n == 2:
        return e.two_columns(columns[0])
    at = [int(np.flatnonzero(copy.classes == c)[0]) for c in inner.classes_]
    spread = np.zeros((width, n))
    spread[np.arange(width), at] = 1.0
    p = e.op("MatMul", e.graph.concat(columns), spread)
    total = e.reduce("Sum", p)
    zero = e.op("Equal", total, 0.0)
    return e.op("Where", zero, 1.0 / n, e.op("Div", p, e.op("Where", zero, 1.0, total)))


def _calibrate(e: Emitter, calibrator: Any, score: str) -> str:
    if class_name(calibrator) == "IsotonicRegression":
        return isotonic(e, calibrator, score)
    return e.logistic(e.op("Neg", e.op("Add", e.op("Mul", score, float(calibrator.a_)), float(calibrator.b_))))


@emits("predict", "CalibratedClassifierCV")
def label_calibrated(e: Emitter, est: Any, frame: Frame) -> str:
    """Emit the greatest probability's code."""
    return e.argmax(e.proba(est, frame))


def _behind(est: Any) -> Any:
    return getattr(est, "estimator_", est.estimator)


def _thresholded(method: str) -> Any:
    def emit(e: Emitter, est: Any, frame: Frame) -> Any:
        return e.call(_behind(est), method, frame)

    return emit


for _method in ("predict_proba", "decision_function"):
    emits(_method, "FixedThresholdClassifier", "TunedThresholdClassifierCV")(_thresholded(_method))


@emits("predict", "FixedThresholdClassifier", "TunedThresholdClassifierCV")
def label_threshold(e: Emitter, est: Any, frame: Frame) -> str:
    """Emit the positive class where the score reaches the threshold."""
    inner, classes = _behind(est), list(est.classes_)
    methods = est._get_response_method()
    methods = [methods] if isinstance(methods, str) else methods
    method = next(m for m in methods if hasattr(inner, m))
    tuned = class_name(est) == "TunedThresholdClassifierCV"
    wanted = est._curve_scorer._get_pos_label() if tuned else est.pos_label
    positive = len(classes) - 1 if wanted is None else classes.index(wanted)
    if method == "predict_proba":
        score = e.flat(e.column(Frame.of(e.proba(inner, frame), 2), positive))
    else:
        score = e.decision(inner, frame)
        score = e.op("Neg", score) if positive == 0 else score
    threshold = est.best_threshold_ if tuned else est.threshold
    if threshold == "auto":
        threshold = 0.5 if method == "predict_proba" else 0.0
    hit = e.op("GreaterOrEqual", score, float(threshold))
    return e.op("Where", hit, np.int64(positive), np.int64(1 - positive))


# ---------------------------------------------------------------- transformed targets


@emits("predict", "TransformedTargetRegressor")
def predict_transformed(e: Emitter, est: Any, frame: Frame) -> str:
    """Emit the regressor, its answers transformed back."""
    out = e.predict(est.regressor_, frame)
    n = int(getattr(est, "_output_width", 0) or 1)
    if est._training_dim == 1:
        return e.flat(inverse(e, est.transformer_, e.tall(out), n))
    return inverse(e, est.transformer_, out, n)


def inverse(e: Emitter, est: Any, y: str, width: int) -> str:
    """Emit `inverse_transform` of targets."""
    name = class_name(est)
    if name == "FunctionTransformer":
        return _inverse_function(e, est, y)
    if name == "StandardScaler":
        y = e.op("Mul", y, est.scale_) if est.with_std else y
        return e.op("Add", y, est.mean_) if est.with_mean else y
    if name == "MinMaxScaler":
        return e.op("Div", e.op("Sub", y, est.min_), est.scale_)
    if name == "MaxAbsScaler":
        return e.op("Mul", y, est.scale_)
    if name == "RobustScaler":
        y = e.op("Mul", y, est.scale_) if est.with_scaling else y
        return e.op("Add", y, est.center_) if est.with_centering else y
    if name == "QuantileTransformer" and est.output_distribution == "uniform" and est.quantiles_.shape[1] == 1:
        return interpolate(e, y, est.references_, est.quantiles_[:, 0])
    raise ConversionError(f"the inverse of {type(est).__name__} has no ONNX form here")


def _inverse_function(e: Emitter, est: Any, y: str) -> str:
    simple = {np.exp: "Exp", np.log: "Log", np.sqrt: "Sqrt", np.negative: "Neg", np.reciprocal: "Reciprocal"}
    if est.inverse_func is None:
        return y
    if est.inverse_func in simple:
        return e.op(simple[est.inverse_func], y)
    if est.inverse_func is np.expm1:
        return expm1(e, y)
    if est.inverse_func is np.square:
        return e.op("Mul", y, y)
    raise ConversionError(f"the inverse function {getattr(est.inverse_func, '__name__', est.inverse_func)!r} is Python code")
