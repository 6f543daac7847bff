"""What a fitted estimator answers: which kind it is, and its outputs as named arrays.

The one place that calls `predict`, `predict_proba`, `decision_function` and `transform`; `infer` looks at the shapes,
`native` returns the values.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ...errors import SignatureError
from ...signature import ROWS, TensorSpec, classifier_outputs, level_text, prediction_spec

__all__ = ["ask", "classes_of", "codes_of", "kind_of", "output_specs", "quiet"]


def quiet() -> warnings.catch_warnings:
    """Return a context in which the library's warnings stay silent: they were for whoever trained the model."""
    return warnings.catch_warnings(action="ignore")


def kind_of(model: Any) -> str:
    """Return `classifier`, `regressor`, `clusterer`, `outlier`, `transformer` or `density`."""
    from sklearn.base import is_classifier, is_clusterer, is_outlier_detector

    if hasattr(model, "predict"):
        if is_classifier(model):
            return "classifier"
        if is_outlier_detector(model):
            return "outlier"
        if is_clusterer(model) or type(_last(model)).__name__ in ("GaussianMixture", "BayesianGaussianMixture"):
            return "clusterer"
        return "regressor"
    if hasattr(model, "transform"):
        return "transformer"
    if hasattr(model, "score_samples"):
        return "density"
    raise SignatureError(
        f"{type(model).__name__} neither predicts nor transforms new rows",
        hint="models such as DBSCAN label only the rows they were fitted on",
    )


def _last(model: Any) -> Any:
    while hasattr(model, "best_estimator_") or hasattr(model, "steps"):
        model = model.best_estimator_ if hasattr(model, "best_estimator_") else model.steps[-1][1]
    return model


def classes_of(model: Any) -> Any:
    """Return the classes, or a list of them for several targets."""
    if type(model).__name__ == "ClassifierChain":  # its own list is in the chain's order
        return [model.estimators_[i].classes_ for i in np.argsort(model.order_)]
    if not hasattr(model, "classes_"):
        raise SignatureError(f"{type(model).__name__} has no classes_; is it fitted?")
    return model.classes_


def codes_of(classes: Any, values: Any) -> np.ndarray:
    """Return the position of each value among the classes, int32."""
    classes, values = np.asarray(classes), np.asarray(values)
    position = {c: i for i, c in enumerate(classes.tolist())}
    return np.fromiter((position.get(v, -1) for v in values.tolist()), dtype=np.int32, count=len(values))


def _dense(value: Any) -> np.ndarray:
    if hasattr(value, "toarray"):
        value = value.toarray()
    return np.asarray(value)


def _score_method(model: Any) -> str | None:
    for method, name in (("predict_proba", "probabilities"), ("decision_function", "decision")):
        if hasattr(model, method):
            return name
    return None


def ask(model: Any, x: Any, wanted: Callable[[str], bool] = lambda name: True) -> dict[str, np.ndarray]:
    """Ask a model for all its outputs, or those `wanted` by their stem (`label`, `probabilities`, ...)."""
    kind = kind_of(model)
    with quiet():
        if kind == "classifier":
            return _classify(model, x, wanted)
        if kind == "regressor":
            return {"prediction": _numbers(model.predict(x), squeeze=True)}
        if kind == "clusterer":
            out = {"cluster": _dense(model.predict(x)).astype(np.int64)} if wanted("cluster") else {}
            if hasattr(model, "predict_proba") and wanted("probabilities"):
                out["probabilities"] = _numbers(model.predict_proba(x))
            return out
        if kind == "outlier":
            out = {"label": (_dense(model.predict(x)) > 0).astype(np.int32)} if wanted("label") else {}
            if wanted("score") and hasattr(model, "decision_function"):
                out["score"] = _numbers(model.decision_function(x), squeeze=True)
            return out
        if kind == "density":
            return {"score": _numbers(model.score_samples(x), squeeze=True)}
        return {"transformed": _transformed(model.transform(x))}


def _numbers(value: Any, *, squeeze: bool = False) -> np.ndarray:
    array = _dense(value)
    array = array if array.dtype == np.float32 else array.astype(np.float64)
    return array[:, 0] if squeeze and array.ndim == 2 and array.shape[1] == 1 else array


def _transformed(value: Any) -> np.ndarray:
    array = _dense(value)
    if array.dtype.kind in "OUS":
        try:
            return np.asarray(array, dtype=np.float64)
        except (TypeError, ValueError):
            flat = [None if v is None or v != v else str(v) for v in array.ravel().tolist()]
            return np.array(flat, dtype=object).reshape(array.shape)
    return array if array.dtype == np.float32 else array.astype(np.float64)


def _classify(model: Any, x: Any, wanted: Callable[[str], bool]) -> dict[str, np.ndarray]:
    classes = classes_of(model)
    labels = _dense(model.predict(x)) if wanted("label") else None
    score = _score_method(model)
    scores: Any = None
    if score is not None and wanted(score):
        scores = getattr(model, "predict_proba" if score == "probabilities" else "decision_function")(x)
    out: dict[str, np.ndarray] = {}
    if not _several(model, classes, labels, scores):
        if labels is not None:
            out["label"] = labels.astype(np.float64) if _fractional(classes) else codes_of(classes, labels.reshape(len(labels)))
        if scores is not None:
            out[str(score)] = _numbers(scores)
        return out
    targets = _targets(classes, labels, scores)
    for i, levels in enumerate(targets):
        if labels is not None:
            column = labels[:, i] if labels.ndim == 2 else labels
            out[f"label_{i}"] = column.astype(np.float64) if _fractional(levels) else codes_of(levels, column)
        if scores is not None:
            out[f"{score}_{i}"] = _target_scores(scores, i, str(score))
    return out


def _several(model: Any, classes: Any, labels: np.ndarray | None, scores: Any) -> bool:
    if isinstance(classes, list) and classes and np.ndim(classes[0]) == 1:
        return True
    if isinstance(scores, list) or (labels is not None and labels.ndim == 2 and labels.shape[1] > 1):
        return True
    return bool(getattr(model, "multilabel_", False)) or (
        getattr(model, "_label_binarizer", None) is not None and "multilabel" in str(getattr(model._label_binarizer, "y_type_", ""))
    )


def _targets(classes: Any, labels: np.ndarray | None, scores: Any) -> list:
    if isinstance(classes, list) and np.ndim(classes[0]) == 1:
        return classes
    width = labels.shape[1] if labels is not None else len(scores) if isinstance(scores, list) else scores.shape[1]
    return [np.array([0, 1])] * width


def _target_scores(scores: Any, i: int, name: str) -> np.ndarray:
    if isinstance(scores, list):
        return _numbers(scores[i])
    column = _numbers(scores)[:, i]
    return np.stack([1 - column, column], axis=1) if name == "probabilities" else column


def _fractional(classes: Any) -> bool:
    array = np.asarray(classes)
    return array.dtype.kind == "f" and not np.all(array == np.floor(array))


def output_specs(model: Any, outputs: dict[str, np.ndarray], missing: Sequence[str] = ()) -> tuple[TensorSpec, ...]:
    """Describe outputs that `ask` returned; those named in `missing` may be missing."""
    kind = kind_of(model)
    rule: dict[str, Any] = {name: "allow" if name in missing else "refuse" for name in outputs}
    if kind == "classifier":
        return _classifier_specs(model, outputs, rule)
    specs = []
    for name, array in outputs.items():
        if name == "label":
            specs.append(classifier_outputs([-1, 1], scores=None)[0])
            continue
        dtype = {"O": "string"}.get(array.dtype.kind, array.dtype.name)
        specs.append(
            prediction_spec(
                array.shape[1] if array.ndim == 2 else None, name=name, dtype=dtype, columns=_names(model, name, array), missing=rule[name]
            )
        )
    return tuple(specs)


def _classifier_specs(model: Any, outputs: dict[str, np.ndarray], rule: dict[str, Any]) -> tuple[TensorSpec, ...]:
    classes = classes_of(model)
    score = _score_method(model)
    if "label_0" not in outputs:
        return _fit_scores(classifier_outputs(classes, scores=score, dtype=_dtype(outputs, score)), outputs)
    labels = [k for k in outputs if k.startswith("label_")]
    targets = classes if isinstance(classes, list) and np.ndim(classes[0]) == 1 else [np.array([0, 1])] * len(labels)
    specs: list[TensorSpec] = []
    for i, levels in enumerate(targets):
        name = f"{score}_{i}"
        specs += _fit_scores(
            classifier_outputs(levels, scores=score if name in outputs else None, suffix=f"_{i}", dtype=_dtype(outputs, name)), outputs
        )
    return tuple(specs)


def _dtype(outputs: dict[str, np.ndarray], name: str | None) -> str:
    return outputs[name].dtype.name if name in outputs else "float64"


def _fit_scores(specs: Sequence[TensorSpec], outputs: dict[str, np.ndarray]) -> tuple[TensorSpec, ...]:
    """Give a score the shape it has where that is not one column a class: one-vs-one votes of pairs."""
    out = []
    for spec in specs:
        got = outputs[spec.name].shape[1:]
        if got != tuple(spec.shape[1:]):
            spec = TensorSpec(spec.name, spec.dtype, (ROWS, *got), missing=spec.missing)
        out.append(spec)
    return tuple(out)


def _names(model: Any, name: str, array: np.ndarray) -> Sequence[str]:
    """Name a transformer's columns as the library does, where it can."""
    if name != "transformed" or array.ndim != 2 or not hasattr(model, "feature_names_in_"):
        return ()
    try:
        names = [level_text(v) if not isinstance(v, str) else v for v in model.get_feature_names_out()]
    except (AttributeError, ValueError, NotImplementedError, TypeError):
        return ()
    return names if len(names) == array.shape[1] and len(set(names)) == len(names) and all(names) else ()
