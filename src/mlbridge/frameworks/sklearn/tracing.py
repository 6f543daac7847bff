"""Trace a table's columns through pipelines: which encoders, imputers and vectorizers each one reaches.

`infer` takes levels, text and unused columns from here; `native` and `convert` the value that marks a missing category.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ...signature import Column
from .emitter import class_name
from .other_steps import OtherStep, other_step

__all__ = ["Use", "column_of", "level_values", "trace"]

_ENCODERS = frozenset({"OneHotEncoder", "OrdinalEncoder", "TargetEncoder"})
_VECTORIZERS = frozenset({"CountVectorizer", "TfidfVectorizer", "HashingVectorizer"})
_SAME_COLUMNS = frozenset({"StandardScaler", "MinMaxScaler", "MaxAbsScaler", "RobustScaler"})
UNKNOWN_TEXT = "\x00unknown\x00"  # a level no training table has


@dataclass
class Use:
    """What one input column reaches."""

    encoders: list[tuple[Any, int]] = field(default_factory=list)  # the encoder, and the column's position in it
    imputers: list[Any] = field(default_factory=list)
    readers: list[Column] = field(default_factory=list)  # what steps of other libraries call it, where it is a category to them
    text: bool = False
    numeric: bool = False  # read as a number somewhere
    category: bool = False  # read as a pandas category by the model itself
    used: bool = False

    @property
    def null(self) -> Any:
        """What marks a missing category in the source table: None or NaN."""
        if any(i.missing_values is None for i in self.imputers):
            return None
        for encoder, at in self.encoders:
            if any(v is None for v in encoder.categories_[at].tolist()):
                return None
        return np.nan


def trace(model: Any, width: int) -> list[Use]:
    """Return what each of `width` input columns reaches."""
    uses = [Use() for _ in range(width)]
    _walk(model, list(range(width)), uses)
    return uses


def _walk(est: Any, cols: list[int | None], uses: list[Use]) -> list[int | None] | None:
    """Follow columns into one estimator; return where they come out, None where that cannot be told."""
    name = class_name(est)
    if name == "Pipeline":
        current: list[int | None] | None = cols
        for _, step in est.steps:
            if current is None:
                return None
            if step is not None and step != "passthrough":
                current = _walk(step, current, uses)
        return current
    if name == "ColumnTransformer":
        return _walk_columns(est, cols, uses)
    for c in cols:
        if c is not None:
            uses[c].used = True
    if name == "FeatureUnion":
        parts = [cols if t == "passthrough" else _walk(t, cols, uses) for _, t in est.transformer_list if t != "drop"]
        return None if any(p is None for p in parts) else [c for p in parts for c in p or ()]
    if name in _ENCODERS:
        for i, c in enumerate(cols):
            if c is not None:
                uses[c].encoders.append((est, i))
        return [None] * len(est.get_feature_names_out()) if name != "TargetEncoder" else None
    if name in _VECTORIZERS:
        for c in cols:
            if c is not None:
                uses[c].text = True
        return None
    if name == "SimpleImputer" and est.strategy in ("most_frequent", "constant"):
        return _walk_imputer(est, cols, uses)
    if name == "FunctionTransformer" and est.func is None:
        return cols
    return _walk_inside(est, name, cols, uses)


def _walk_inside(est: Any, name: str, cols: list[int | None], uses: list[Use]) -> list[int | None] | None:
    encoder = getattr(est, "_preprocessor", None)
    if name.startswith("HistGradientBoosting") and encoder is not None:
        ordinal = encoder.named_transformers_["encoder"]
        for i, j in enumerate(encoder._transformer_to_input_indices["encoder"]):
            c = cols[j]
            if c is not None:
                uses[c].encoders.append((ordinal, i))
                uses[c].category = isinstance(est.categorical_features, str)
        for j in encoder._transformer_to_input_indices.get("numerical", ()):
            if cols[j] is not None:
                uses[cols[j]].numeric = True
        return None
    step = other_step(est) if hasattr(est, "n_features_in_") else None
    if step is not None:
        _walk_other(step, cols, uses)
        return None
    inner = [getattr(est, a) for a in ("best_estimator_", "estimator_", "regressor_") if hasattr(est, a)]
    if not inner and hasattr(est, "calibrated_classifiers_"):
        inner = [c.estimator for c in est.calibrated_classifiers_]
    if not inner and name.startswith(("Voting", "Stacking", "Multi", "OneVsRest")):
        inner = [e for e in getattr(est, "estimators_", ()) if e != "drop"]
    if not inner:
        for c in cols:
            if c is not None:
                uses[c].numeric = True
        return cols if name in _SAME_COLUMNS else None
    for e in inner:
        _walk(e, cols, uses)
    return None


def _walk_other(step: OtherStep, cols: list[int | None], uses: list[Use]) -> None:
    """Note which columns a step of another library reads as categories, and which as numbers."""
    levels = {step.position(c.name): c for c in step.signature.columns if c.categories is not None}
    for i, c in enumerate(cols):
        if c is None:
            continue
        if i in levels:
            uses[c].readers.append(levels[i])
            uses[c].category = True
        else:
            uses[c].numeric = True


def _walk_columns(est: Any, cols: list[int | None], uses: list[Use]) -> list[int | None] | None:
    out: list[int | None] | None = []
    for name, step, _ in est.transformers_:
        indices = est._transformer_to_input_indices.get(name, [])
        if (isinstance(step, str) and step == "drop") or len(indices) == 0:
            continue
        branch = [cols[i] for i in indices]
        if isinstance(step, str) or (class_name(step) == "FunctionTransformer" and step.func is None):
            for c in branch:
                if c is not None:
                    uses[c].used = True
            part: list[int | None] | None = branch
        else:
            part = _walk(step, branch, uses)
        out = None if out is None or part is None else out + part
    return out


def _walk_imputer(est: Any, cols: list[int | None], uses: list[Use]) -> list[int | None] | None:
    for c in cols:
        if c is not None:
            uses[c].imputers.append(est)
    if est.add_indicator:
        return None
    statistics = est.statistics_.tolist()
    if est.keep_empty_features:
        return cols
    return [c for c, s in zip(cols, statistics, strict=True) if s is not None and s == s]


def _python(value: Any) -> Any:
    return value.item() if hasattr(value, "item") else value


def _is_null(value: Any) -> bool:
    return value is None or value != value


def _tidy(values: Any) -> tuple | None:
    """Return levels without missing ones; integral floats as int; None where they are no levels of ours."""
    levels = [v for v in map(_python, values) if not _is_null(v)]
    if levels and all(isinstance(v, float) for v in levels):
        if not all(v.is_integer() for v in levels):
            return None
        levels = [int(v) for v in levels]
    kinds = {bool if isinstance(v, bool) else int if isinstance(v, int) else str if isinstance(v, str) else None for v in levels}
    return tuple(levels) if len(kinds) == 1 and None not in kinds else None


def column_of(name: str, use: Use, dtype: Any) -> Column | None:
    """Return the categorical column, or None where the column is numbers or text.

    Parameters
    ----------
    name : str
        The column's name.
    use : Use
        What the column reaches.
    dtype : pandas dtype or None
        The sample's dtype for it, if there is a sample.
    """
    sampled = getattr(dtype, "categories", None)
    from_model = [lv for lv in (_tidy(e.categories_[i]) for e, i in use.encoders) if lv is not None]
    from_model += [c.categories for c in use.readers if c.categories]
    levels = from_model[0] if from_model and len(from_model) == len(use.encoders) + len(use.readers) else None
    if levels is None and (sampled is None or (levels := _tidy(sampled)) is None):
        return None
    if sampled is None and not isinstance(levels[0], str | bool) and use.numeric:
        return None  # a number that is also encoded stays a number
    if sampled is None and isinstance(levels[0], bool) and use.numeric:
        return None
    ordered = bool(getattr(dtype, "ordered", False))
    if sampled is not None and set(_tidy(sampled) or ()) == set(levels):
        levels = _tidy(sampled) or levels
    else:
        ordered = False
    answers = [_keeps_unknown(e) for e, _ in use.encoders] + [c.unknown == "keep" for c in use.readers]
    keep = bool(answers) and all(answers)
    return Column(name, categories=levels, ordered=ordered, unknown="keep" if keep and not isinstance(levels[0], bool) else "refuse")


def _keeps_unknown(encoder: Any) -> bool:
    return type(encoder).__name__ == "TargetEncoder" or encoder.handle_unknown != "error"


def level_values(levels: tuple, codes: np.ndarray, null: Any) -> np.ndarray:
    """Spell codes as the values the source was trained on; `null` marks a missing one."""
    if isinstance(levels[0], str | bool) or null is None:
        unknown: Any = UNKNOWN_TEXT
        dtype: Any = object
        if isinstance(levels[0], bool) and len(codes) and codes.min() >= 0 and codes.max() < len(levels):
            dtype = bool
        if not isinstance(levels[0], str | bool):
            unknown = max(levels) + 1
    else:
        unknown, dtype = max(levels) + 1, (np.float64 if len(codes) and codes.min() < 0 else np.int64)
    table = np.empty(len(levels) + 2, dtype=object)
    table[:] = [null, *levels, unknown]
    return table[np.asarray(codes, dtype=np.int64) + 1].astype(dtype)
