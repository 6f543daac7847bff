"""What users hand to `predict` and get back: tables, dicts, records, arrays.

A container is opened into columns by name (or one array), and an answer is closed into the same kind. Tables of any
library go through narwhals. Values are checked in `values.py`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from ..errors import InputError
from ..signature import Signature, TensorSpec
from .spark_frame import collect_columns, is_spark_frame

__all__ = ["Opened", "close_table", "open_container"]

_TABLES = frozenset({"pandas", "polars", "pyarrow", "modin", "cudf", "duckdb", "ibis", "dask", "pyspark", "sqlframe", "fireducks"})
_SERIES = frozenset({"Series", "ChunkedArray", "Array", "Index"})


class Opened(NamedTuple):
    """A container opened: what it was, and its values by name (or one array under the name None)."""

    kind: str  # "table", "record", "records", "dict", "array"
    values: Mapping[str | None, Any]
    native: Any = None  # the table, for its library and index


def open_container(x: Any, signature: Signature) -> Opened:
    """Find out what the user passed and give its values by name.

    Raises
    ------
    InputError
        If it is nothing a model takes.
    """
    if isinstance(x, np.ndarray):
        return Opened("array", {None: x})
    if isinstance(x, Mapping):
        return Opened("record" if _is_record(x, signature) else "dict", x)
    root = type(x).__module__.split(".")[0]
    if root in _TABLES:
        return Opened("dict", collect_columns(x, signature)) if is_spark_frame(x) else _open_table(x, root)
    if isinstance(x, (list, tuple)) and x and all(isinstance(r, Mapping) for r in x):
        return Opened("records", _open_records(x))
    arrays = (
        hasattr(x, "__array__") or isinstance(x, (Sequence, int, float, bool)) or root in ("torch", "tensorflow", "scipy", "jax", "jaxlib")
    )
    if isinstance(x, str) or not arrays:
        raise InputError(
            f"{type(x).__name__} is not an input a model takes",
            hint="pass a table (pandas, polars, Arrow), a dict of arrays, one record, a list of records, or an array",
        )
    return Opened("array", {None: x})


def _is_record(x: Mapping, signature: Signature) -> bool:
    return bool(x) and signature.batched and all(_is_scalar(v) for v in x.values())


def _is_scalar(v: Any) -> bool:
    if v is None or isinstance(v, (str, bytes, int, float, bool, np.generic)):
        return True
    if isinstance(v, np.ndarray):
        return v.ndim == 0
    return not isinstance(v, (Sequence, Mapping)) and not hasattr(v, "__array__") and not hasattr(v, "__len__")


def _open_records(records: Sequence[Mapping]) -> dict[str | None, Any]:
    names: dict[Any, None] = {}
    for r in records:
        names.update(dict.fromkeys(r))
    problems = [f"record {i} lacks {n!r}" for i, r in enumerate(records) for n in names if n not in r]
    if problems:
        raise InputError(_listed(problems), problems=problems, hint="every record needs every column; write None for a missing value")
    out: dict[str | None, Any] = {}
    for n in names:
        column = np.empty(len(records), object)
        column[:] = [r[n] for r in records]
        out[n] = column
    return out


def _listed(problems: Sequence[str]) -> str:
    return problems[0] if len(problems) == 1 else f"{len(problems)} problems:\n" + "\n".join(f"  - {p}" for p in problems)


def _open_table(x: Any, root: str) -> Opened:
    import narwhals as nw
    from narwhals.exceptions import NarwhalsError

    if type(x).__name__ in _SERIES:
        raise InputError(
            f"a {root} {type(x).__name__} is not a table",
            hint="pass a table with named columns (`.to_frame()`), or an array (`.to_numpy()`)",
        )
    try:
        frame = nw.from_native(x)
        names = list(frame.collect_schema().names()) if isinstance(frame, nw.LazyFrame) else list(frame.columns)
    except (NarwhalsError, TypeError, ValueError) as exc:
        raise InputError(f"the table cannot be read: {exc}", hint="are two columns of one name?") from exc
    if isinstance(frame, nw.LazyFrame):
        raise InputError("a lazy table has no rows yet", hint="collect it first (`.collect()`)")
    twice = sorted({str(n) for n in names if names.count(n) > 1})
    if twice:
        raise InputError(f"columns occur twice: {', '.join(map(repr, twice))}", hint="rename or drop one of them")
    return Opened("table", _TableColumns(frame), x)


class _TableColumns(Mapping):
    """The columns of a table as arrays, made when asked for."""

    def __init__(self, frame: Any) -> None:
        self._frame = frame
        self._names = {str(n): n for n in frame.columns}

    def __len__(self) -> int:
        return len(self._names)

    def __iter__(self):
        return iter(self._names)

    def __contains__(self, name: object) -> bool:
        return name in self._names

    def __getitem__(self, name: str) -> np.ndarray:
        return series_array(self._frame.get_column(self._names[name]))

    @property
    def rows(self) -> int:
        return len(self._frame)


def series_array(series: Any) -> np.ndarray:
    """Return a narwhals series as an array: numbers with NaN, or objects with None."""
    import narwhals as nw

    dtype = series.dtype
    if dtype.is_numeric() and not isinstance(dtype, nw.Decimal):
        nulls = series.null_count() if not dtype.is_float() else 0
        if nulls == 0:
            return np.asarray(series.to_numpy())
        return _objects(series.to_list())
    if dtype == nw.Boolean and series.null_count() == 0:
        return np.asarray(series.to_numpy())
    if (isinstance(dtype, nw.Datetime) and dtype.time_zone is None) or dtype == nw.Date:
        return np.asarray(series.to_numpy()).astype("datetime64[us]" if dtype != nw.Date else "datetime64[D]")
    return _objects(series.to_list())


def _objects(values: list) -> np.ndarray:
    out = np.empty(len(values), object)
    out[:] = values
    return out


def close_table(outputs: Mapping[str, np.ndarray], specs: Mapping[str, TensorSpec], native: Any) -> Any:
    """Return outputs as a table of the input's kind; a matrix is spread as `<output>_<column>`."""
    import narwhals as nw

    columns: dict[str, Any] = {}
    for name, values in outputs.items():
        spec = specs[name]
        if values.ndim <= 1:
            columns[name] = values
        elif values.ndim == 2:
            names = [c.name for c in spec.columns] or [str(j) for j in range(values.shape[1])]
            for j, column in enumerate(names):
                columns[f"{name}_{column}"] = np.ascontiguousarray(values[:, j])
        else:
            columns[name] = list(values)
    data = {k: v.tolist() if isinstance(v, np.ndarray) and v.dtype == object else v for k, v in columns.items()}
    out = nw.from_dict(data, backend=nw.from_native(native).implementation).to_native()
    if hasattr(native, "index") and hasattr(out, "index") and hasattr(out, "iloc"):
        out.index = native.index
    return out
