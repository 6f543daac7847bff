"""Decide a model's signature: columns, levels, dtypes, what may be missing, and the outputs.

The model is asked, not the sample: outputs are those of a few rows, and one missing value is tried in each column.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from ...errors import SignatureError
from ...signature import ROWS, Column, Field, Signature, TensorSpec, blocks
from .answers import ask, output_specs, quiet
from .emitter import class_name
from .native import TableMaker, column_names, first_step, is_text_model, on_line
from .records import patches_spec, reads_records, record_inputs
from .tracing import column_of, trace

__all__ = ["infer", "reads_float32"]

_ROWS = 5  # enough to see shapes; some estimators answer wrongly shaped arrays for one row
_FLOAT32_TREES = frozenset(  # ruff would spell it one name a line
    """DecisionTreeClassifier DecisionTreeRegressor ExtraTreeClassifier ExtraTreeRegressor RandomForestClassifier
    RandomForestRegressor ExtraTreesClassifier ExtraTreesRegressor GradientBoostingClassifier GradientBoostingRegressor
    IsolationForest RandomTreesEmbedding""".split()  # noqa: SIM905
)


def reads_float32(model: Any) -> bool:
    """Whether the model itself rounds its input to float32."""
    while hasattr(model, "best_estimator_"):
        model = model.best_estimator_
    return class_name(model) in _FLOAT32_TREES


def _reading(model: Any) -> tuple[str, Any]:
    return ("float32", "nearest") if reads_float32(model) else ("float64", "refuse")


def infer(model: Any, sample: Any = None) -> Signature:
    """Decide the signature of a fitted estimator.

    Raises
    ------
    SignatureError
        If it is not fitted, or nothing says what its input is.
    """
    from sklearn.exceptions import NotFittedError
    from sklearn.utils.validation import check_is_fitted

    try:
        check_is_fitted(model)
    except (NotFittedError, TypeError) as exc:
        raise SignatureError(f"{type(model).__name__} is not fitted", hint="fit it first") from exc
    names = column_names(model)
    if reads_records(first_step(model)):
        return _infer_records(model, sample)
    return _infer_array(model, sample) if names is None else _infer_table(model, names, sample)


# ---------------------------------------------------------------- arrays


def _infer_array(model: Any, sample: Any) -> Signature:
    if is_text_model(model):
        texts = _texts(sample)
        spec = TensorSpec("text", "string", (ROWS,))
        return Signature((spec,), output_specs(model, ask(model, texts)))
    if on_line(model):
        spec = TensorSpec("features", "float64", (ROWS,))
        rows = _line_rows(model)
        return Signature((spec,), output_specs(model, ask(model, rows)))
    rows = _array_rows(model, sample)
    dtype, rounding = _reading(model)
    rows = rows.astype(dtype)
    outputs = _first_answer(model, rows)
    missing, holes = _try_missing_array(model, rows)
    shape = (ROWS, rows.shape[1])
    spec = TensorSpec("features", dtype, shape, missing=missing, rounding=rounding)
    return Signature((spec,), output_specs(model, outputs, holes))


def _line_rows(model: Any) -> np.ndarray:
    classes = np.asarray(model.classes_)
    if classes.dtype.kind not in "iufb":
        raise SignatureError(
            f"{type(model).__name__} encodes labels that are not numbers", hint="encode targets before they reach mlbridge"
        )
    return classes.astype(np.float64)


def _texts(sample: Any) -> list[str]:
    values = [] if sample is None else [v for v in np.asarray(sample, dtype=object).reshape(-1)[:_ROWS].tolist() if isinstance(v, str)]
    return values or ["some text", "more text"]


def _array_rows(model: Any, sample: Any) -> np.ndarray:
    width = getattr(model, "n_features_in_", None)
    if sample is not None:
        if hasattr(sample, "toarray"):
            sample = sample[:_ROWS].toarray()
        try:
            rows = np.asarray(sample, dtype=np.float64)[:_ROWS]
        except (TypeError, ValueError) as exc:
            raise SignatureError(
                "the sample is not numbers, and the model was not trained on a table with column names",
                hint="fit the model on a DataFrame so that it knows its columns",
            ) from exc
        if rows.ndim == 1 and width == 1:
            rows = rows[:, None]
        if rows.ndim != 2 or (width is not None and rows.shape[1] != width):
            raise SignatureError(f"the sample has shape {np.shape(sample)}, the model takes {width} features")
        if len(rows):
            return np.repeat(rows, _ROWS, axis=0)[:_ROWS] if len(rows) < _ROWS else rows
        width = rows.shape[1]
    if width is None:
        raise SignatureError(f"{type(model).__name__} does not say how many features it takes", hint="pass sample=")
    return np.zeros((_ROWS, int(width)))


def _first_answer(model: Any, x: Any) -> dict[str, np.ndarray]:
    try:
        return ask(model, x)
    except (ValueError, TypeError, IndexError, KeyError, AttributeError) as exc:
        if isinstance(exc, SignatureError):
            raise
        raise SignatureError(
            f"{type(model).__name__} does not answer a plain row: {exc}", hint="pass sample= with rows it answers"
        ) from exc


def _answers(model: Any, x: Any) -> dict[str, np.ndarray] | None:
    try:
        with quiet(), np.errstate(all="ignore"):
            return ask(model, x)
    except Exception:  # noqa: BLE001 - any refusal of the source means the value is refused
        return None


def _try_missing_array(model: Any, rows: np.ndarray) -> tuple[Any, list[str]]:
    """Try a missing value in every column at once, then one by one: all must be answered."""
    width = rows.shape[1]
    holes: set[str] = set()
    everywhere = np.full((2, width), np.nan, dtype=rows.dtype)
    answer = _answers(model, everywhere)
    picks = range(width) if width <= 64 else [0]
    if answer is None:
        return "refuse", []
    holes |= _with_holes(answer)
    for j in picks:
        trial = rows[:2].copy()
        trial[0, j] = np.nan
        if (answer := _answers(model, trial)) is None:
            return "refuse", []
        holes |= _with_holes(answer)
    return "allow", sorted(holes)


def _with_holes(answer: dict[str, np.ndarray]) -> set[str]:
    return {
        n
        for n, a in answer.items()
        if (a.dtype.kind == "f" and np.isnan(a).any()) or (a.dtype == object and any(v is None for v in a.ravel()))
    }


# ---------------------------------------------------------------- dicts, sets of labels, images


def _infer_records(model: Any, sample: Any) -> Signature:
    inputs = record_inputs(first_step(model), sample)
    plain = Signature(inputs, (TensorSpec("transformed", "float64", (ROWS,)),))
    make = TableMaker(model, plain)
    rows = {s.name: _record_rows(s) for s in inputs}
    outputs = _first_answer(model, make(rows))
    if class_name(model) == "PatchExtractor":
        return Signature(inputs, (patches_spec(model, inputs, outputs["transformed"].dtype.name),))
    specs, holes = [], set()
    for spec in inputs:
        trial = {k: v.copy() for k, v in rows.items()}
        if spec.dtype != "string":
            trial[spec.name][:] = -1 if spec.categorical else np.nan
        answer = _answers(model, make(trial)) if spec.missing == "allow" else None
        holes |= _with_holes(answer) if answer is not None else set()
        specs.append(replace(spec, missing="refuse" if answer is None else "allow"))
    return Signature(tuple(specs), output_specs(model, outputs, sorted(holes)))


def _record_rows(spec: TensorSpec) -> np.ndarray:
    """Return a few plain rows: ones, first levels, a word; images of 20 by 20."""
    shape = (_ROWS, *(d if isinstance(d, int) else 20 if spec.dtype != "string" else 1 for d in spec.shape[1:]))
    if spec.dtype == "string":
        return np.full(shape, "word", dtype=object)
    return np.zeros(shape, dtype=spec.dtype) if spec.categorical else np.ones(shape, dtype=spec.dtype)


# ---------------------------------------------------------------- tables


def _as_pandas(sample: Any) -> Any:
    import pandas as pd

    if sample is None or isinstance(sample, pd.DataFrame):
        return sample
    if hasattr(sample, "to_pandas"):
        return sample.to_pandas()
    if isinstance(sample, dict):
        return pd.DataFrame({k: np.atleast_1d(v) if not isinstance(v, list) else v for k, v in sample.items()})
    return pd.DataFrame(sample) if isinstance(sample, list) and sample and isinstance(sample[0], dict) else None


def _fields(model: Any, names: list[str], table: Any) -> list[Field]:
    uses = trace(model, len(names))
    dtype, rounding = _reading(model)
    fields, problems = [], []
    droppable = _starts_with_column_transformer(model)
    for name, use in zip(names, uses, strict=True):
        if droppable and not use.used:
            continue
        given = table[name].dtype if table is not None and name in table.columns else None
        if table is not None and name not in table.columns:
            problems.append(f"the sample has no column {name!r}")
            continue
        column = column_of(name, use, given)
        if column is not None:
            fields.append(Field(column, "int32"))
        elif use.text or (given is not None and _is_text(given, table[name])):
            fields.append(Field(Column(name), "string"))
        elif given is not None and given.kind in "Mm":
            problems.append(f"column {name!r} is {given}: give scikit-learn numbers instead of dates")
        else:
            fields.append(Field(Column(name), dtype, rounding=rounding))
    if problems:
        raise SignatureError("; ".join(problems), problems=problems)
    return fields


def _is_text(dtype: Any, values: Any) -> bool:
    if hasattr(dtype, "categories"):
        return any(isinstance(v, str) for v in dtype.categories)
    if dtype.kind in "biuf":
        return False
    return any(isinstance(v, str) for v in values.dropna().head(100))


def _starts_with_column_transformer(model: Any) -> bool:
    while hasattr(model, "best_estimator_") or (class_name(model) == "Pipeline" and model.steps):
        model = model.best_estimator_ if hasattr(model, "best_estimator_") else model.steps[0][1]
    return class_name(model) == "ColumnTransformer"


def _infer_table(model: Any, names: list[str], sample: Any) -> Signature:
    fields = _fields(model, names, _as_pandas(sample))
    plain = Signature(_loose(fields), (TensorSpec("prediction", "float64", (ROWS,)),))
    make = TableMaker(model, plain)
    rows = _table_rows(fields, plain, _as_pandas(sample), make)
    outputs = _first_answer(model, make(rows))
    ruled: list[Field] = []
    holes: set[str] = set()
    for f in fields:
        answer = None
        for spec in plain.inputs:
            at = [c.name for c in spec.columns].index(f.column.name) if f.column.name in [c.name for c in spec.columns] else -1
            if at >= 0:
                trial = {k: v.copy() for k, v in rows.items()}
                trial[spec.name][0, at] = {"int32": -1, "string": None}.get(spec.dtype, np.nan)
                answer = _answers(model, make(trial))
        if answer is not None and f.dtype != "string":
            holes |= _with_holes(answer)
        ruled.append(f._replace(missing="refuse" if answer is None or f.dtype == "string" else "allow"))
    return Signature(blocks(ruled), output_specs(model, outputs, sorted(holes)))


def _loose(fields: list[Field]) -> tuple[TensorSpec, ...]:
    return blocks([f._replace(missing="allow") for f in fields])


def _table_rows(fields: list[Field], signature: Signature, table: Any, make: TableMaker) -> dict[str, np.ndarray]:
    """Return a few rows as feeds: from the sample where there is one, else zeros and first levels."""
    count = _ROWS
    feeds = {s.name: np.zeros((count, len(s.columns)), dtype=object if s.dtype == "string" else s.dtype) for s in signature.inputs}
    for spec in signature.inputs:
        if spec.dtype == "string":
            feeds[spec.name][:] = "some text"
        for j, column in enumerate(spec.columns):
            if table is None or not len(table):
                continue
            values = table[column.name].head(count)
            values = [values.iloc[i % len(values)] for i in range(count)]
            feeds[spec.name][:, j] = [_cell(v, column, spec.dtype) for v in values]
    return feeds


def _cell(value: Any, column: Column, dtype: str) -> Any:
    null = (
        value is None
        or value is not value
        or (isinstance(value, float) and np.isnan(value))
        or type(value).__name__ in ("NAType", "NaTType")
    )
    if column.categories is not None:
        return column.categories.index(value) if not null and value in column.categories else 0
    if dtype == "string":
        return "" if null else str(value)
    return 0.0 if null else float(value)
