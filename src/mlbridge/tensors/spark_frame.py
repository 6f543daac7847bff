"""A PySpark DataFrame as columns: collected through Arrow, the columns a signature names alone, within a stated limit.

For samples and small answers. A frame that does not fit in this process is scored in Spark, by MlbridgeTransformer.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ..errors import InputError
from ..signature import Signature

__all__ = ["MAX_ROWS", "collect_columns", "is_spark_frame"]

MAX_ROWS = 100_000  # more is no sample: it belongs to Spark's executors


def is_spark_frame(x: Any) -> bool:
    """Whether this is a DataFrame of PySpark, by its class's module."""
    return type(x).__module__.startswith("pyspark.sql.") and type(x).__name__ == "DataFrame"


def collect_columns(frame: Any, signature: Signature) -> dict[str | None, Any]:
    """Collect the columns that the signature names; vectors become arrays of rank 2.

    Raises
    ------
    InputError
        If the frame has more than `MAX_ROWS` rows.
    """
    kinds = dict(frame.dtypes)
    names = [c.name for s in signature.inputs for c in s.columns]
    for spec in signature.inputs:
        if not spec.columns:
            names.append(spec.name if spec.name in kinds else spec.name.removesuffix("_vector"))
    units = {c.name: c.unit for s in signature.inputs for c in s.columns}
    picked = [_plain(frame, n, kinds[n], units.get(n)) for n in names if n in kinds]  # what is absent is told with all other problems
    limited = frame.select(*picked).limit(MAX_ROWS + 1)
    table = limited.toArrow() if hasattr(limited, "toArrow") else _older(limited)
    if table.num_rows > MAX_ROWS:
        raise InputError(
            f"the Spark DataFrame has more than {MAX_ROWS} rows",
            hint="pass `frame.limit(n)` as a sample; score large frames in Spark with MlbridgeTransformer",
        )
    found = {n: _array(table.column(n)) for n in table.column_names}
    return {_input_name(n, signature, kinds): v for n, v in found.items()}


def _input_name(column: str, signature: Signature, kinds: dict[str, str]) -> str:
    return f"{column}_vector" if kinds[column] == "vector" and any(s.name == f"{column}_vector" for s in signature.inputs) else column


def _plain(frame: Any, name: str, kind: str, unit: str | None) -> Any:
    column = frame[f"`{name}`"]
    if kind == unit == "date":
        from pyspark.sql.functions import unix_date

        return unix_date(column).cast("double").alias(name)
    if kind == unit == "timestamp":
        return column.cast("double").alias(name)  # seconds since the epoch, whatever the session's time zone
    if kind == "vector":
        from pyspark.ml.functions import vector_to_array

        return vector_to_array(column).alias(name)
    return column.cast("double").alias(name) if kind.startswith("decimal") else column


def _older(frame: Any) -> Any:
    import pyarrow as pa

    return pa.Table.from_batches(frame._collect_as_arrow())


def _array(column: Any) -> np.ndarray:
    import pyarrow as pa

    if pa.types.is_list(column.type):
        return np.array(column.to_pylist(), np.float64)
    if column.null_count and not pa.types.is_floating(column.type):
        out = np.empty(len(column), object)
        out[:] = column.to_pylist()
        return out
    array = column.to_numpy()
    return array.astype(np.float64) if column.null_count else array
