"""XGBoost: estimators, boosters, and saved JSON and UBJSON files.

Rooms: `model` (what a file says), `ubj` (the binary JSON it may be written in), `conversion` (the graph, the probe rows).
Files are read by our own reader; the library itself runs only for `native`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from ...artifact import Artifact
from ...errors import ArtifactError, ConversionError, InferenceError
from ...interfaces import Array
from ...plugins import require
from ...signature import ROWS, Column, Field, Signature, TensorSpec, blocks, classifier_outputs, prediction_spec
from ..trees import matrix, positions
from . import conversion
from .model import MAX_BYTES, XgboostModel, parse

__all__ = ["XgboostFramework", "XgboostModel"]

_CLASSES = {
    "XGBClassifier": "classifier", "XGBRFClassifier": "classifier", "XGBRegressor": "regressor", "XGBRFRegressor": "regressor",
    "XGBRanker": "ranker", "XGBModel": "regressor", "Booster": None,
}  # fmt: skip


class XgboostFramework:
    """All that mlbridge knows about XGBoost's models.

    `options`: `iteration_range`, a pair (begin, end) of boosting rounds, as the library's `predict` takes it.
    """

    name: ClassVar[str] = "xgboost"
    formats: ClassVar[frozenset[str]] = frozenset({"xgboost-json", "xgboost-ubj"})
    options: ClassVar[frozenset[str]] = frozenset({"iteration_range"})
    absent: ClassVar[float] = float("nan")  # what an entry that a sparse matrix does not hold means to the library

    def accepts(self, model: object, /) -> bool:
        """Whether this is an XGBoost estimator or booster, or a model `read` returned."""
        return isinstance(model, XgboostModel) or _own_class(model) is not None

    def read(self, source: Artifact, /, **options: Any) -> XgboostModel:
        """Read a saved model with our own reader; nothing in it is executed."""
        if source.path.stat().st_size > MAX_BYTES:
            raise ArtifactError(f"{source.label}: more than the limit of {MAX_BYTES} bytes")
        return parse(source.read_bytes(), source.label)

    def infer(self, model: object, sample: object | None, /, **options: Any) -> Signature:
        """Name inputs by the training table's columns; categories come from the model, else from the sample."""
        said = _said(model, options)
        return Signature(_inputs(said, sample), _outputs(said))

    def native(self, model: object, /, *, signature: Signature, **options: Any) -> Callable[[Mapping[str, Array]], Mapping[str, Array]]:
        """Return a function that asks the library."""
        said = _said(model, options)
        ask = (
            _booster_call(model, said, options)
            if isinstance(model, XgboostModel) or _own_class(model) == "Booster"
            else _estimator_call(model, said, options)
        )
        table = _table_maker(said, signature)

        def answer(feeds: Mapping[str, Array]) -> Mapping[str, Array]:
            try:
                value, margin = ask(table(feeds))
            except Exception as exc:
                raise InferenceError(f"XGBoost: {exc}", runtime="python") from exc
            return _named(value, margin, said, signature)

        return answer

    def probe(self, model: object, /, *, signature: Signature, seed: int, **options: Any) -> dict[str, Array]:
        """Return rows that take both branches of every node, with missing values."""
        return conversion.probe(_said(model, options), signature, seed)

    def convert(self, model: object, folder: Path, /, *, signature: Signature, **options: Any) -> Path:
        """Write the model as ONNX, trees summed in double."""
        return conversion.write(_said(model, options), folder, signature)

    def tolerance(self, model: object, /, *, signature: Signature) -> float:
        """Return 1e-5: XGBoost adds its leaves in float32."""
        return 1e-5

    def coverage(self, model: object, feeds: Mapping[str, Array], /, *, signature: Signature) -> float:
        """Return the share of reachable nodes these rows test on both sides."""
        return conversion.coverage(_said(model, {}), matrix(feeds, signature), signature)


def _own_class(model: object) -> str | None:
    """Return XGBoost's own class the model's class is or derives from."""
    for c in type(model).__mro__:
        if c.__module__.split(".")[0] == "xgboost" and c.__name__ in _CLASSES:
            return c.__name__
    return None


def _said(model: object, options: Mapping[str, Any]) -> XgboostModel:
    """Return the parsed model, cut to the rounds that predict uses."""
    said = model if isinstance(model, XgboostModel) else _live(model)
    begin, end = _range(said, options)
    return said if said.booster == "gblinear" else said.between(begin, end)


def _range(said: XgboostModel, options: Mapping[str, Any]) -> tuple[int, int]:
    """As the library does: an estimator stops at its best iteration, a bare booster uses every round."""
    given = options.get("iteration_range")
    if given is not None and tuple(given)[1] != 0:
        return int(given[0]), int(given[1])
    if said.estimator is not None and said.best_iteration is not None:
        return 0, said.best_iteration + 1
    return 0, 0


def _live(model: Any) -> XgboostModel:
    from dataclasses import replace

    kind = _own_class(model)
    booster = model if kind == "Booster" else model.get_booster()
    said = parse(bytes(booster.save_raw("ubj")), f"<{type(model).__name__}>")
    if kind == "Booster":
        return replace(said, estimator=None)
    missing = float("nan") if model.missing is None else float(model.missing)
    return replace(said, estimator=_CLASSES[str(kind)], missing=missing, in_place=said.booster == "dart")


# ---------------------------------------------------------------- the signature


def _inputs(said: XgboostModel, sample: object | None) -> tuple[TensorSpec, ...]:
    if said.names is None:
        return (TensorSpec("features", "float32", (ROWS, said.columns), missing="allow", rounding="nearest"),)
    fields = []
    for name, kind, levels in zip(said.names, said.kinds, said.levels):
        levels = (levels or _sample_levels(sample, name)) if kind == "c" else None
        if levels:
            fields.append(Field(Column(name, categories=tuple(levels)), "int32", "allow"))
        else:
            fields.append(Field(Column(name), "float32", "allow", "nearest"))
    return blocks(fields)


def _sample_levels(sample: Any, name: str) -> tuple | None:
    """Return the levels of a categorical column of the sample table, if it is one."""
    if sample is None or not hasattr(sample, "columns"):
        return None
    import narwhals.stable.v2 as nw

    frame = nw.from_native(sample, eager_only=True, pass_through=True)
    if not isinstance(frame, nw.DataFrame) or name not in frame.columns:
        return None
    column = frame[name]
    if column.dtype not in (nw.Categorical, nw.Enum):
        return None
    return tuple(column.cat.get_categories().to_list())


def _outputs(said: XgboostModel) -> tuple[TensorSpec, ...]:
    kind, many = conversion.KINDS.get(said.objective), said.groups
    if kind == "softmax":
        return classifier_outputs(range(many), dtype="float32")
    binary = said.objective.startswith("binary:") and said.estimator in (None, "classifier")
    if binary or (kind == "sigmoid" and said.estimator == "classifier"):
        scores = {"logit": "decision", "step": None}.get(str(kind), "probabilities")
        if many == 1:
            return classifier_outputs((0, 1), scores=scores, dtype="float32")
        return tuple(s for i in range(many) for s in classifier_outputs((0, 1), scores=scores, dtype="float32", suffix=f"_{i}"))
    name = "score" if said.objective.startswith("survival:") else "prediction"
    return (prediction_spec(None if many == 1 else many, name=name, dtype="float32"),)


# ---------------------------------------------------------------- asking the library


def _table_maker(said: XgboostModel, signature: Signature) -> Callable[[Mapping[str, Array]], Any]:
    """Return how to make what the library was trained on: a table where there are categories, else an array."""
    order = positions(signature, said.names)
    levels = {c.name: c.categories for c in signature.columns if c.categories is not None}
    if not levels:
        return lambda feeds: np.ascontiguousarray(matrix(feeds, signature)[:, order], dtype=np.float32)
    pandas = require("pandas")

    def table(feeds: Mapping[str, Array]) -> Any:
        rows, columns = matrix(feeds, signature), {}
        for name, at in zip(said.names or (), order):
            if name in levels:
                columns[name] = pandas.Categorical.from_codes(rows[:, at].astype(np.int32), list(levels[name]))
            else:
                columns[name] = rows[:, at].astype(np.float32)
        return pandas.DataFrame(columns)

    return table


def _booster_call(model: Any, said: XgboostModel, options: Mapping[str, Any]) -> Callable[[Any], tuple[Any, Any]]:
    xgboost = require("xgboost")
    if isinstance(model, XgboostModel):
        booster = xgboost.Booster(model_file=bytearray(model.source))
    else:
        booster = model
    span = (0, 0) if said.booster == "gblinear" else _range(model if isinstance(model, XgboostModel) else said, options)

    def ask(table: Any) -> tuple[Any, Any]:
        bare = isinstance(table, np.ndarray)
        data = xgboost.DMatrix(
            table, missing=said.missing, enable_categorical=True,
            feature_names=list(said.names) if bare and said.names else None,
            feature_types=list(said.kinds) if bare and "c" in said.kinds else None,
        )  # fmt: skip
        margin = booster.predict(data, output_margin=True, iteration_range=span) if said.objective == "multi:softmax" else None
        return (None if margin is not None else booster.predict(data, iteration_range=span)), margin

    return ask


def _estimator_call(model: Any, said: XgboostModel, options: Mapping[str, Any]) -> Callable[[Any], tuple[Any, Any]]:
    span = options.get("iteration_range")
    if "c" in said.kinds and not any(said.levels):
        booster = model.get_booster()
        return _booster_call(booster, said, {"iteration_range": _range(said, options)})

    def ask(table: Any) -> tuple[Any, Any]:
        bare = isinstance(table, np.ndarray)
        keywords = {"iteration_range": span, "validate_features": not bare}
        if said.objective == "multi:softmax":
            return None, model.predict(table, output_margin=True, **keywords)
        if said.estimator == "classifier" and said.objective == "binary:logitraw":
            return model.predict(table, output_margin=True, **keywords), None  # predict itself answers labels only
        if said.estimator == "classifier" and conversion.KINDS.get(said.objective) in ("sigmoid", "softmax"):
            return _scores(model.predict_proba(table, **keywords), said), None
        return model.predict(table, **keywords), None

    return ask


def _scores(proba: Any, said: XgboostModel) -> Any:
    """Return predict_proba in the booster's own form: one column for two classes."""
    return proba[:, 1] if said.groups == 1 else proba


def _named(value: Any, margin: Any, said: XgboostModel, signature: Signature) -> dict[str, Array]:
    """Name the library's answer as the signature does."""
    if margin is not None:  # multi:softmax answers labels only; its scores are those of softprob
        e = np.exp(margin - margin.max(axis=1, keepdims=True), dtype=np.float32)
        value = e / e.sum(axis=1, keepdims=True)
    value = np.asarray(value)
    names = [s.name for s in signature.outputs]
    out: dict[str, Array] = {}
    if conversion.KINDS.get(said.objective) == "softmax":
        value = value.astype(np.float32).reshape(-1, said.groups)
        out = {"label": value.argmax(axis=1).astype(np.int32), "probabilities": value}
    elif "label" in names or "label_0" in names:
        cut = 0.0 if said.objective == "binary:logitraw" and said.estimator is None else 0.5
        value = value.astype(np.float32).reshape(-1, said.groups)
        for i in range(said.groups):
            suffix, one = ("" if said.groups == 1 else f"_{i}"), value[:, i]
            out[f"label{suffix}"] = (one > cut).astype(np.int32)
            out[f"probabilities{suffix}"] = np.stack([1 - one, one], axis=1)
            out[f"decision{suffix}"] = one
    else:
        out = {names[0]: value.astype(np.float32)}
    if not set(names) <= set(out):
        raise ConversionError(f"the signature names outputs XGBoost does not give: {', '.join(names)}")
    return {name: np.ascontiguousarray(out[name]) for name in names}
