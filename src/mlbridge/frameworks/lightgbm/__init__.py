"""LightGBM: estimators, boosters, and saved text models.

Rooms: `model` (what a file says), `conversion` (the graph, the probe rows). Files are read by our own reader; the library
itself runs only for `native`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from ...artifact import Artifact
from ...errors import ArtifactError, InferenceError, InputError, SignatureError
from ...interfaces import Array
from ...plugins import require
from ...signature import ROWS, Column, Field, Signature, TensorSpec, blocks, classifier_outputs, prediction_spec
from ..trees import matrix, width
from . import conversion
from .model import MAX_BYTES, LightgbmModel, parse

__all__ = ["LightgbmFramework", "LightgbmModel"]

_CLASSES = ("LGBMClassifier", "LGBMRegressor", "LGBMRanker", "LGBMModel", "Booster")


class LightgbmFramework:
    """All that mlbridge knows about LightGBM's models.

    `options`: `start_iteration` and `num_iteration`, as the library's `predict` takes them.
    """

    name: ClassVar[str] = "lightgbm"
    formats: ClassVar[frozenset[str]] = frozenset({"lightgbm-text"})
    options: ClassVar[frozenset[str]] = frozenset({"start_iteration", "num_iteration"})

    def accepts(self, model: object, /) -> bool:
        """Whether this is a LightGBM estimator or booster, or a model `read` returned."""
        return isinstance(model, LightgbmModel) or _own_class(model) is not None

    def read(self, source: Artifact, /, **options: Any) -> LightgbmModel:
        """Read a saved model with our own reader; nothing in it is executed."""
        if source.path.stat().st_size > MAX_BYTES:
            raise ArtifactError(f"{source.label}: more than the limit of {MAX_BYTES} bytes")
        try:
            text = source.read_bytes().decode()
        except UnicodeDecodeError as exc:
            raise ArtifactError(f"{source.label}: not UTF-8: {exc}") from exc
        return parse(text, source.label)

    def infer(self, model: object, sample: object | None, /, **options: Any) -> Signature:
        """Name inputs by the training table's columns; categories come from the model."""
        said = _said(model, options)
        return Signature(_inputs(said, sample), _outputs(said, _classes(model, said)))

    def native(self, model: object, /, *, signature: Signature, **options: Any) -> Callable[[Mapping[str, Array]], Mapping[str, Array]]:
        """Return a function that asks the library."""
        said = _said(model, options)
        if isinstance(model, LightgbmModel):
            booster = require("lightgbm").Booster(model_str=model.source)
        else:
            booster = model if _own_class(model) == "Booster" else model.booster_  # type: ignore[attr-defined]
        rounds = {"start_iteration": options.get("start_iteration", 0), "num_iteration": options.get("num_iteration")}
        table = _table_maker(said, signature)

        def answer(feeds: Mapping[str, Array]) -> Mapping[str, Array]:
            try:
                value = booster.predict(table(feeds), **rounds)
            except Exception as exc:
                raise InferenceError(f"LightGBM: {exc}", runtime="python") from exc
            return _named(np.asarray(value, dtype=np.float64), said, signature)

        return answer

    def probe(self, model: object, /, *, signature: Signature, seed: int, **options: Any) -> dict[str, Array]:
        """Return rows that take both branches of every node, with missing values and unknown levels."""
        said = _said(model, options)
        return conversion.probe(said, signature, _order(said, signature), seed)

    def convert(self, model: object, folder: Path, /, *, signature: Signature, **options: Any) -> Path:
        """Write the model as ONNX, all in double."""
        said = _said(model, options)
        return conversion.write(said, folder, signature, _order(said, signature))

    def tolerance(self, model: object, /, *, signature: Signature) -> float:
        """Return 1e-12 per hundred trees: only the order of the sum differs."""
        return 1e-12 * max(1.0, len(_said(model, {}).trees) / 100)

    def coverage(self, model: object, feeds: Mapping[str, Array], /, *, signature: Signature) -> float:
        """Return the share of reachable nodes these rows test on both sides."""
        said = _said(model, {})
        return conversion.coverage(said, matrix(feeds, signature).astype(np.float64), signature, _order(said, signature))


def _own_class(model: object) -> str | None:
    """Return LightGBM's own class the model's class is or derives from."""
    for c in type(model).__mro__:
        if c.__module__.split(".")[0] == "lightgbm" and c.__name__ in _CLASSES:
            return c.__name__
    return None


def _said(model: Any, options: Mapping[str, Any]) -> LightgbmModel:
    """Return the parsed model, cut to the rounds that predict uses."""
    start, count = options.get("start_iteration", 0), options.get("num_iteration")
    if isinstance(model, LightgbmModel):
        return model.between(start, count)
    booster = model if _own_class(model) == "Booster" else model.booster_
    # without a count it writes the rounds up to the best one, which are those predict uses
    return parse(booster.model_to_string(num_iteration=count, start_iteration=start), f"<{type(model).__name__}>")


# ---------------------------------------------------------------- the signature


def _inputs(said: LightgbmModel, sample: Any) -> tuple[TensorSpec, ...]:
    if not said.levels and all(re.fullmatch(r"Column_\d+", n) for n in said.names):
        return (TensorSpec("features", "float64", (ROWS, len(said.names)), missing="allow"),)
    names, marked = _sample_columns(said, sample)
    which = marked if marked is not None else np.flatnonzero(said.coded).tolist()
    if said.levels and len(which) != len(said.levels):
        raise InputError(
            f"the model was trained with {len(said.levels)} categorical columns, and its file does not say which",
            hint="pass a sample: a table with the columns, dtypes and categories of the training table",
        )
    fields = []
    for i, name in enumerate(names):
        if said.levels and i in which:
            levels = tuple(said.levels[which.index(i)])
            fields.append(Field(Column(name, categories=levels, unknown="keep"), "int32", "allow"))
        else:
            fields.append(Field(Column(name), "float64", "allow"))
    return blocks(fields)


def _sample_columns(said: LightgbmModel, sample: Any) -> tuple[tuple[str, ...], list[int] | None]:
    """Return the column names as the user spells them, and which are categorical, if the sample is the training table's like."""
    if sample is None or not hasattr(sample, "columns"):
        return said.names, None
    import narwhals.stable.v2 as nw

    frame = nw.from_native(sample, eager_only=True, pass_through=True)
    if not isinstance(frame, nw.DataFrame):
        return said.names, None
    spelt = {re.sub(r"\s", "_", n): n for n in frame.columns}
    if not set(said.names) <= set(spelt):
        return said.names, None
    names = tuple(spelt[n] for n in said.names)
    marked = [i for i, n in enumerate(names) if frame[n].dtype in (nw.Categorical, nw.Enum)]
    return names, marked if len(marked) == len(said.levels) else None


def _classes(model: Any, said: LightgbmModel) -> Any:
    """Return a classifier's classes, or None."""
    if _own_class(model) == "LGBMClassifier":
        return model.classes_ if said.objective else None
    if said.objective == "binary":
        return (0, 1)
    return tuple(range(said.groups)) if said.objective in ("multiclass", "multiclassova") else None


def _outputs(said: LightgbmModel, classes: Any) -> tuple[TensorSpec, ...]:
    if classes is not None:
        return classifier_outputs(classes)
    return (prediction_spec(None if said.groups == 1 else said.groups),)


def _order(said: LightgbmModel, signature: Signature) -> np.ndarray:
    """Return where each trained column stands in the inputs' matrix; spaces in names count as underscores."""
    if not signature.columns:
        if width(signature) != len(said.names):
            raise SignatureError(f"the inputs have {width(signature)} columns, the model {len(said.names)}")
        return np.arange(len(said.names))
    at = {re.sub(r"\s", "_", c.name): i for i, c in enumerate(signature.columns)}
    absent = [n for n in said.names if n not in at]
    if absent:
        raise SignatureError(f"the signature has no column {', '.join(map(repr, absent[:5]))}")
    return np.array([at[n] for n in said.names], dtype=np.int64)


# ---------------------------------------------------------------- asking the library


def _table_maker(said: LightgbmModel, signature: Signature) -> Callable[[Mapping[str, Array]], Any]:
    """Return how to make what the library was trained on: a table where there are categories, else an array."""
    order = _order(said, signature)
    columns = signature.columns
    if not said.levels:
        return lambda feeds: np.ascontiguousarray(matrix(feeds, signature)[:, order], dtype=np.float64)
    pandas = require("pandas")

    def table(feeds: Mapping[str, Array]) -> Any:
        rows, out = matrix(feeds, signature), {}
        for name, at in zip(said.names, order):
            levels = columns[at].categories
            if levels is None:
                out[name] = rows[:, at].astype(np.float64)
            else:  # the library itself makes unknown levels missing
                codes = rows[:, at].astype(np.int64)
                out[name] = pandas.Categorical.from_codes(np.where(codes < len(levels), codes, -1), list(levels))
        return pandas.DataFrame(out)

    return table


def _named(value: Array, said: LightgbmModel, signature: Signature) -> dict[str, Array]:
    """Name the library's answer as the signature does."""
    specs = {s.name: s for s in signature.outputs}
    if "label" not in specs:
        return {signature.outputs[0].name: value}
    if value.ndim == 1:
        value = np.stack([1 - value, value], axis=1)
    best = value.argmax(axis=1)
    if specs["label"].columns:
        label = best.astype(np.int32)
    else:
        label = np.array([float(c.name) for c in specs["probabilities"].columns])[best]
    return {"label": label, "probabilities": np.ascontiguousarray(value)}
