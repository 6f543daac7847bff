"""What every framework names alike: the blocks of a table, and the outputs of classifiers and regressors."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Literal, NamedTuple

from .specs import ROWS, Column, Dim, TensorSpec, level_text

__all__ = ["Field", "blocks", "classifier_outputs", "label_spec", "prediction_spec"]


class Field(NamedTuple):
    """One column of a training table, before columns are gathered into blocks."""

    column: Column
    dtype: str = "float64"
    missing: Literal["refuse", "allow"] = "refuse"
    rounding: Literal["refuse", "nearest"] = "refuse"


def blocks(fields: Iterable[Field]) -> tuple[TensorSpec, ...]:
    """Gather a table's columns into a few blocks: `features`, `categorical`, `text`.

    Columns of one kind that differ in dtype, missing rule or rounding get a block each: the first keeps the name,
    the next are `features_2`, `features_3`, …. Order inside a block is the training order.

    Examples
    --------
    >>> [str(s) for s in blocks([Field(Column("age")), Field(Column("sex", categories=("f", "m")), "int32")])]
    ['features: float64[rows, 1]', 'categorical: int32[rows, 1]']
    """
    groups: dict[tuple, list[Column]] = {}
    for f in fields:
        kind = "categorical" if f.column.categories is not None else "text" if f.dtype == "string" else "features"
        groups.setdefault((kind, f.dtype, f.missing, f.rounding), []).append(f.column)
    counts: dict[str, int] = {}
    specs = []
    for (kind, dtype, missing, rounding), columns in groups.items():
        n = counts[kind] = counts.get(kind, 0) + 1
        specs.append(TensorSpec(kind if n == 1 else f"{kind}_{n}", dtype, (ROWS, len(columns)), tuple(columns), missing, rounding))
    order = {"features": 0, "categorical": 1, "text": 2}
    return tuple(sorted(specs, key=lambda s: order[s.name.split("_")[0]]))


def label_spec(classes: Sequence[Any], *, name: str = "label", missing: Literal["refuse", "allow"] = "refuse") -> TensorSpec:
    """Describe a classifier's label: int32 codes of `classes`, in the model's order.

    Integral floating-point classes become int64 levels; other floating-point classes give a plain float64 output.
    """
    levels = [c.item() if hasattr(c, "item") else c for c in classes]
    if levels and all(isinstance(v, float) for v in levels):
        if not all(v.is_integer() for v in levels):
            return TensorSpec(name, "float64", (ROWS,), missing=missing)
        levels = [int(v) for v in levels]
    return TensorSpec(name, "int32", (ROWS,), (Column(name, categories=tuple(levels)),), missing=missing)


def classifier_outputs(
    classes: Sequence[Any],
    *,
    scores: str | None = "probabilities",
    dtype: str = "float64",
    suffix: str = "",
    missing: Literal["refuse", "allow"] = "refuse",
) -> tuple[TensorSpec, ...]:
    """Describe a classifier's outputs: `label`, and `probabilities` with a column a class.

    Parameters
    ----------
    classes : sequence
        The classes in the model's order.
    scores : {'probabilities', 'decision', None}
        What the model gives beside the label. `decision` of two classes is one value a row.
    dtype : str
        The scores' dtype.
    suffix : str
        `_0`, `_1`, … for several targets.
    missing : {'refuse', 'allow'}
        `allow` where an answer may be missing.
    """
    label = label_spec(classes, name=f"label{suffix}", missing=missing)
    if scores is None:
        return (label,)
    if scores == "decision" and len(classes) <= 2:
        return label, TensorSpec(f"decision{suffix}", dtype, (ROWS,), missing=missing)
    levels = label.columns[0].categories if label.columns else classes
    columns = tuple(Column(level_text(v)) for v in levels or ())
    return label, TensorSpec(f"{scores}{suffix}", dtype, (ROWS, len(columns)), columns, missing=missing)


def prediction_spec(
    width: int | None = None,
    *,
    name: str = "prediction",
    dtype: str = "float64",
    columns: Sequence[str] = (),
    missing: Literal["refuse", "allow"] = "refuse",
) -> TensorSpec:
    """Describe a numeric answer: one value a row, or `width` of them with optional column names."""
    shape: tuple[Dim, ...] = (ROWS,) if width is None else (ROWS, width)
    return TensorSpec(name, dtype, shape, tuple(Column(str(c)) for c in columns), missing=missing)
