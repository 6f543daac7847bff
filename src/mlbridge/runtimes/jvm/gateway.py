"""`jvm+py4j:` a live PySpark model as a session, in the Spark that is running.

py4j carries the orders alone; tensors go beside it, as Arrow, by PySpark's own files and sockets. Not here: what the
signature of a Spark model is (`spark_schema`, and `frameworks/spark` for what converts).
"""

from __future__ import annotations

import itertools
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from ...artifact import Artifact, Implementation
from ...errors import ClosedError, InferenceError, InputError, MissingDependencyError, UnavailableError
from ...interfaces import Array, Deadline
from ...signature import Signature, TensorSpec
from .spark_schema import answer_columns, check_fitted, flat_stages, infer_signature, vector_column, without_labels

__all__ = ["GatewaySession", "infer_signature", "is_spark_model", "load_folder"]

_ROW = "__mlbridge_row"
_NEVER = "\uffffunknown"  # a level no model was trained on
_groups = itertools.count()


def is_spark_model(model: object) -> bool:
    """Whether this is of pyspark.ml, by its class's module: a fitted model, a transformer, or what is still to be fitted."""
    kind = type(model)
    return kind.__module__.startswith("pyspark.ml.") and hasattr(kind, "write") and (hasattr(kind, "transform") or hasattr(kind, "fit"))


def _active() -> Any:
    """Return the running SparkSession; UnavailableError where there is none."""
    try:
        from pyspark.sql import SparkSession
    except ImportError as exc:
        raise MissingDependencyError("pyspark is not installed", hint="pip install pyspark", runtime="jvm") from exc
    spark = SparkSession.getActiveSession() or SparkSession._instantiatedSession
    if spark is None:
        raise UnavailableError(
            "no SparkSession is running in this process", hint="start one, or use jvm: for a worker of its own", runtime="jvm"
        )
    if not hasattr(spark.createDataFrame([], "x int"), "toArrow"):
        raise UnavailableError(f"PySpark {spark.version} cannot exchange Arrow tables", hint="pip install 'pyspark>=4'", runtime="jvm")
    return spark


def load_folder(source: Artifact, signature: Signature | None) -> GatewaySession:
    """Load a saved model into the running Spark.

    Raises
    ------
    UnavailableError
        If no SparkSession is running.
    InputError
        If it is no Spark folder, or the signature is absent.
    ArtifactError
        If Spark does not load it.
    """
    from ...errors import ArtifactError

    if source.format != "spark":
        raise InputError(
            f"{source.label}: jvm+py4j joins Spark's gateway, and this is of format {source.format!r}", hint="use jvm:", runtime="jvm"
        )
    spark = _active()
    from pyspark.ml.util import DefaultParamsReader

    model: Any
    try:
        try:
            model = DefaultParamsReader.loadParamsInstance(source.path.as_uri(), spark)
        except (AttributeError, TypeError):  # before Spark 4 it took the context
            model = DefaultParamsReader.loadParamsInstance(source.path.as_uri(), spark.sparkContext)
    except Exception as exc:
        raise ArtifactError(f"{source.label}: Spark does not load it: {str(exc)[:500]}", runtime="jvm") from exc
    if signature is None:
        raise InputError(f"{source.label}: a Spark folder holds no input types", hint="pass sample=… or signature=…", runtime="jvm")
    return GatewaySession(model, signature)


class GatewaySession:
    """A live PySpark model; implements `interfaces.Session`. Rows that Spark drops answer missing.

    Parameters
    ----------
    model : pyspark.ml model
        Fitted.
    signature : Signature
        Its raw columns and answers.
    """

    device = "jvm"

    def __init__(self, model: Any, signature: Signature) -> None:
        check_fitted(model)
        self.signature = signature
        self.max_concurrency = 1
        self._model, self._spark = model, _active()
        self._stages = flat_stages(model)
        columns = [c.name for s in signature.inputs for c in s.columns]
        vectors = [vector_column(signature, s) for s in signature.inputs if not s.columns]
        self._asked = without_labels(model, [*columns, *vectors])
        self._closed = False

    def run(
        self, feeds: Mapping[str, Array], /, *, outputs: Sequence[str] | None = None, deadline: Deadline | None = None
    ) -> dict[str, Array]:
        """Transform the rows in Spark and collect the answers.

        Raises
        ------
        InferenceError
            What Spark raised, with its class and trace.
        """
        if self._closed:
            raise ClosedError("the model is closed", runtime="jvm")
        specs = self.signature.outputs if outputs is None else [self.signature.output(n) for n in outputs]
        rows = next(iter(feeds.values())).shape[0]
        if deadline is not None:
            deadline.check()
        with self._job(deadline), _translated(deadline):
            table = self._transformed(self._frame(feeds), specs).toArrow()
        if deadline is not None:
            deadline.check()  # what Spark does between its jobs does not end with them
        at = table.column(_ROW).to_numpy()
        return {s.name: _gather(s, [table.column(f"{s.name}/{i}") for i in range(self._width(s))], at, rows) for s in specs}

    def _width(self, spec: TensorSpec) -> int:
        return len(answer_columns(self._stages, spec))

    def _frame(self, feeds: Mapping[str, Array]) -> Any:
        import pyarrow as pa

        arrays: dict[str, Any] = {}
        vectors = []
        for spec in self.signature.inputs:
            block = feeds[spec.name]
            if not spec.columns and block.ndim > 1:
                name = vector_column(self.signature, spec)
                vectors.append(name)
                flat = pa.array(np.ascontiguousarray(block).reshape(-1), pa.float64())
                arrays[name] = pa.FixedSizeListArray.from_arrays(flat, block.shape[1]).cast(pa.list_(pa.float64()))
                continue
            for i, name in enumerate([c.name for c in spec.columns] or [spec.name]):
                values = block[:, i] if block.ndim > 1 else block
                arrays[name] = _column(spec, i, values)
        rows = next(iter(feeds.values())).shape[0]
        arrays[_ROW] = pa.array(np.arange(rows), pa.int64())
        frame = self._spark.createDataFrame(pa.table(arrays))
        if vectors:
            from pyspark.ml.functions import array_to_vector

            for name in vectors:
                frame = frame.withColumn(name, array_to_vector(frame[name]))
        return frame

    def _transformed(self, frame: Any, specs: Sequence[TensorSpec]) -> Any:
        from pyspark.ml.functions import vector_to_array
        from pyspark.sql import functions as f

        made = self._asked.transform(frame)
        kinds = dict(made.dtypes)
        columns = [f.col(_ROW)]
        for spec in specs:
            for i, name in enumerate(answer_columns(self._stages, spec)):
                column = f.col(f"`{name}`")
                columns.append((vector_to_array(column) if kinds[name] == "vector" else column).alias(f"{spec.name}/{i}"))
        return made.select(*columns)

    @contextmanager
    def _job(self, deadline: Deadline | None) -> Iterator[None]:
        """Run Spark's jobs in a group that the deadline ends."""
        if deadline is None:
            yield
            return
        context, group = self._spark.sparkContext, f"mlbridge-{next(_groups)}"
        context.setJobGroup(group, "mlbridge", True)
        forget = deadline.on_cancel(lambda: context.cancelJobGroup(group))
        left = deadline.remaining_s()
        timer = None if left is None else threading.Timer(max(0.0, left), context.cancelJobGroup, [group])
        if timer is not None:
            timer.daemon = True
            timer.start()
        try:
            yield
        finally:
            forget()
            if timer is not None:
                timer.cancel()
            context.setLocalProperty("spark.jobGroup.id", None)

    def save(self, folder: Path) -> Implementation:
        """Let Spark save the model under `folder`."""
        self._model.write().overwrite().save((folder / "spark").as_uri())
        return Implementation("jvm", "spark", "spark", requires={"pyspark": self._spark.version})

    def close(self) -> None:
        """Let go of the model; Spark stays the caller's. Harmless when repeated."""
        self._closed = True
        self._model = self._asked = None


def _column(spec: TensorSpec, i: int, values: Array) -> Any:
    import pyarrow as pa

    if spec.dtype == "string":
        return pa.array(values.tolist(), pa.string())
    levels = spec.columns[i].categories if spec.columns else None
    unit = spec.columns[i].unit if spec.columns else None
    if unit in ("date", "timestamp"):
        missing = np.isnan(values)  # Spark's dates know no NaN: it is null
        numbers = np.where(missing, 0, values)
        if unit == "date":
            return pa.array(np.floor(numbers).astype(np.int32), pa.date32(), mask=missing)
        return pa.array(np.round(numbers * 1e6).astype(np.int64), pa.timestamp("us", tz="UTC"), mask=missing)
    if levels is None:
        return pa.array(np.ascontiguousarray(values, np.float64), pa.float64())  # NaN stays NaN: null is another thing to Spark
    if spec.columns[i].level_type == "int64":
        free = next(v for v in itertools.count(-(2**63)) if v not in levels)
        return pa.array([None if c < 0 else levels[c] if c < len(levels) else free for c in values.tolist()], pa.int64())
    kind = pa.bool_() if spec.columns[i].level_type == "bool" else pa.string()
    return pa.array([None if c < 0 else levels[c] if c < len(levels) else _NEVER for c in values.tolist()], kind)


def _gather(spec: TensorSpec, columns: Sequence[Any], at: Array, rows: int) -> Array:
    """Put the answers of the rows that Spark kept in their places; the others are missing."""
    if spec.dtype == "string":
        out = np.full(rows, None, object)
        out[at] = columns[0].to_pylist()
        return out
    if spec.categorical or spec.dtype in ("int32", "int64"):
        values = columns[0].to_pylist()
        if spec.categorical and values and isinstance(next((v for v in values if v is not None), None), str):
            codes = {v: i for i, v in enumerate(spec.columns[0].categories or ())}
            values = [codes.get(v, -1) for v in values]
        out = np.full(rows, -1, spec.dtype)
        out[at] = [-1 if v is None else int(v) for v in values]
        return out
    parts = [_doubles(c) for c in columns]
    joined = np.concatenate(parts, axis=1) if parts else np.empty((len(at), 0))
    if len(spec.shape) == 1:
        flat = np.full(rows, np.nan)
        if len(at):
            flat[at] = joined[:, 1] if spec.name == "decision" and joined.shape[1] == 2 else joined[:, 0]
        return flat
    width = spec.shape[1] if isinstance(spec.shape[1], int) else joined.shape[1]
    table = np.full((rows, width), np.nan)
    if len(at):
        table[at] = joined
    return table


def _doubles(column: Any) -> Array:
    import pyarrow as pa

    array = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    if pa.types.is_list(array.type):
        values = array.to_pylist() if array.null_count else None
        if values is None and len(array):
            flat = array.flatten().to_numpy(zero_copy_only=False).astype(np.float64)
            return flat.reshape(len(array), -1)
        width = max((len(v) for v in values or () if v is not None), default=0)
        return np.array([[np.nan] * width if v is None else v for v in values or ()], np.float64).reshape(len(array), width)
    return array.cast(pa.float64()).to_numpy(zero_copy_only=False).reshape(-1, 1)


@contextmanager
def _translated(deadline: Deadline | None) -> Iterator[None]:
    try:
        yield
    except Exception as exc:  # py4j and Spark raise their own trees, known only where they are installed
        if not type(exc).__module__.startswith(("pyspark", "py4j")):
            raise
        if deadline is not None:
            deadline.check()  # a job that was ended for it fails too
        raise _foreign(exc) from exc


def _foreign(exc: Exception) -> InferenceError:
    """Turn Spark's or py4j's exception into ours: the root cause's text, Java's classes, the trace."""
    condition: list[str] = []
    message = ""
    java = getattr(exc, "java_exception", None) or getattr(exc, "_origin", None)
    while java is not None and len(condition) < 20:
        condition.append(str(java.getClass().getName()))
        message = java.getMessage() or message
        java = java.getCause()
    first = next((line for line in (message or str(exc)).splitlines() if line.strip()), type(exc).__name__)
    error = InferenceError(first[:2000], runtime="jvm")
    error.condition = tuple(condition) or (type(exc).__name__,)  # type: ignore[attr-defined]
    error.trace = str(exc)[:20_000]  # type: ignore[attr-defined]
    return error
