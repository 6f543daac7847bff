"""Ask scikit-learn itself: from the signature's arrays to what the estimator was trained on, and back.

A model fitted on a table gets a table with the training columns and level values; every other one gets an array.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from ...errors import MissingDependencyError
from ...interfaces import Array
from ...signature import Signature
from .answers import ask
from .emitter import class_name
from .records import reads_records, record_maker
from .tracing import level_values, trace

__all__ = ["TableMaker", "column_names", "first_step", "is_text_model", "native", "on_line"]

_TEXT = frozenset({"CountVectorizer", "TfidfVectorizer", "HashingVectorizer"})


def column_names(model: Any) -> list[str] | None:
    """Return the training table's columns in order, or None for a model trained on an array."""
    names = getattr(model, "feature_names_in_", None)
    if names is None and class_name(model) == "Pipeline":
        first = next((s for _, s in model.steps if s is not None and s != "passthrough"), None)
        names = getattr(first, "feature_names_in_", None)
    return None if names is None else [str(n) for n in names]


def first_step(model: Any) -> Any:
    """Return what reads the input: behind searches, pipelines and unions."""
    while True:
        if hasattr(model, "best_estimator_"):
            model = model.best_estimator_
        elif class_name(model) == "Pipeline" and model.steps:
            model = model.steps[0][1]
        elif class_name(model) == "FeatureUnion":
            model = model.transformer_list[0][1]
        else:
            return model


def is_text_model(model: Any) -> bool:
    """Whether the model takes one document a row."""
    return class_name(first_step(model)) in _TEXT


def on_line(model: Any) -> bool:
    """Whether the model takes one value a row: labels, or the x of an isotonic regression."""
    return class_name(first_step(model)) in {"LabelEncoder", "LabelBinarizer"}


class TableMaker:
    """Makes the source's table or array from feeds, in the training order.

    Parameters
    ----------
    model : estimator
        The fitted model.
    signature : Signature
        What the feeds satisfy.
    """

    def __init__(self, model: Any, signature: Signature) -> None:
        self.names = column_names(model)
        first = first_step(model)
        self.records = record_maker(first, signature) if reads_records(first) else None
        self.text, self.line = is_text_model(model), on_line(model)
        self.places: dict[str, tuple[str, int, Any]] = {}
        for spec in signature.inputs:
            for i, column in enumerate(spec.columns):
                self.places[column.name] = (spec.name, i, column)
        if self.names is not None:
            uses = trace(model, len(self.names))
            self.null = {n: u.null for n, u in zip(self.names, uses, strict=True)}
            self.category = {n for n, u in zip(self.names, uses, strict=True) if u.category}

    def __call__(self, feeds: Mapping[str, Array]) -> Any:
        """Return what the estimator's methods take."""
        if self.records is not None:
            return self.records(feeds)
        if self.names is None:
            if self.text:
                return ["" if v is None else v for v in feeds["text"].reshape(-1).tolist()]
            x = feeds["features"]
            return x.reshape(-1) if self.line else x
        try:
            import pandas as pd
        except ImportError as exc:
            raise MissingDependencyError("this model was trained on a table; it needs pandas", hint="pip install pandas") from exc
        columns = {n: self._column(n, feeds, pd) for n in self.names if n in self.places}
        return pd.DataFrame(columns, copy=False)

    def _column(self, name: str, feeds: Mapping[str, Array], pd: Any) -> Any:
        block, i, column = self.places[name]
        values = feeds[block] if feeds[block].ndim == 1 else feeds[block][:, i]
        if column.categories is None:
            return pd.Series(values, dtype=object) if values.dtype == object else values
        spelt = level_values(column.categories, values, self.null[name])
        if name in self.category:
            extra = [v for v in pd.unique(pd.Series(spelt)) if v == v and v not in column.categories]
            return pd.Categorical(spelt, categories=[*column.categories, *extra])
        return pd.Series(spelt, dtype=object) if spelt.dtype == object else spelt


def native(model: Any, signature: Signature) -> Callable[[Mapping[str, Array]], Mapping[str, Array]]:
    """Return a function from feeds to all of the signature's outputs, asked of the library."""
    make = TableMaker(model, signature)
    wanted = {spec.name for spec in signature.outputs}
    specs = {spec.name: spec for spec in signature.outputs}
    stems = {n if not n.rpartition("_")[2].isdigit() else n.rpartition("_")[0] for n in wanted}

    def run(feeds: Mapping[str, Array]) -> dict[str, Array]:
        answers = ask(model, make(feeds), lambda stem: stem in stems)
        return {name: np.ascontiguousarray(_as(answers[name], spec.dtype)) for name, spec in specs.items()}

    return run


def _as(array: np.ndarray, dtype: str) -> np.ndarray:
    return array if dtype == "string" else array.astype(dtype, copy=False)
