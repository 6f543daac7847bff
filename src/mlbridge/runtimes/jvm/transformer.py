"""Any package as a stage of a PySpark pipeline: the Python face of `dev.mlbridge.spark.MlbridgeTransformer`.

Spark must have been started with mlbridge's jar and ONNX Runtime's Java artifact on its class path
(`spark.jars`, or `spark.jars.packages` for the latter); `jars()` names the first.
"""

from __future__ import annotations

import os
from functools import cache
from pathlib import Path
from typing import Any

from ...errors import MissingDependencyError, UnavailableError
from .command import jar

__all__ = ["jars", "make_transformer", "save_package"]

_CLASS = "dev.mlbridge.spark.MlbridgeTransformer"
_HINT = "start Spark with spark.jars = mlbridge.runtimes.jvm.transformer.jars(), and onnxruntime's jar beside it"


def jars() -> str:
    """Return the path of mlbridge's jar, for `spark.jars`."""
    return str(jar())


def make_transformer(path: str | os.PathLike) -> Any:
    """Make a Spark ML transformer that asks a package on the executors.

    Parameters
    ----------
    path : path
        A `.mlb` file that holds ONNX. Its input columns are found in a DataFrame by their names; each output becomes a
        column: labels as values, several numbers a row as a vector.

    Returns
    -------
    pyspark.ml.wrapper.JavaTransformer

    Raises
    ------
    UnavailableError
        If no Spark runs, or mlbridge's jar is not on its class path.
    """
    return _stage_class()(Path(path).resolve())


def __getattr__(name: str) -> Any:
    """Find the stage's class, which needs pyspark: PySpark looks for it here when it loads a saved pipeline."""
    if name == "MlbridgeTransformer":
        return _stage_class()
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


@cache
def _stage_class() -> Any:
    try:
        from pyspark.ml.util import DefaultParamsReader, DefaultParamsWriter, MLReadable, MLReader, MLWritable, MLWriter
        from pyspark.ml.wrapper import JavaTransformer
    except ImportError as exc:
        raise MissingDependencyError("pyspark is not installed", hint="pip install pyspark", runtime="jvm") from exc

    class MlbridgeTransformer(JavaTransformer, MLReadable, MLWritable):
        """A package as a stage; saved, it remembers the package's path."""

        def __init__(self, path: Path) -> None:
            java = _java_class(_CLASS)()
            java.setPath(str(path))
            super().__init__(java)
            self._resetUid(java.uid())
            self.path = path

        def write(self) -> Any:
            return Writer(self)

        @classmethod
        def read(cls) -> Any:
            return Reader()

    class Writer(MLWriter):
        def __init__(self, stage: Any) -> None:
            super().__init__()
            self.stage = stage

        def saveImpl(self, path: str) -> None:  # noqa: N802
            DefaultParamsWriter.saveMetadata(self.stage, path, _context(), extraMetadata={"package": str(self.stage.path)})

    class Reader(MLReader):
        def load(self, path: str) -> Any:
            return MlbridgeTransformer(Path(DefaultParamsReader.loadMetadata(path, _context())["package"]))

    MlbridgeTransformer.__module__, MlbridgeTransformer.__qualname__ = __name__, "MlbridgeTransformer"
    return MlbridgeTransformer


def save_package(model: Any, path: str | os.PathLike, sample: Any) -> None:
    """Save a fitted Spark model as a package with golden rows, as `Packages.save` of Java and Scala does.

    Parameters
    ----------
    model : pyspark.ml model
        Fitted.
    path : path
        The `.mlb` file to make.
    sample : pyspark DataFrame
        Real rows of the raw columns.
    """
    java_path = _java_class("java.nio.file.Paths").get(str(Path(path).resolve()), _no_strings())
    _java_class("dev.mlbridge.spark.Packages").save(model._to_java(), java_path, sample._jdf)


def _no_strings() -> Any:
    gateway = _context()._gateway
    return gateway.new_array(gateway.jvm.java.lang.String, 0)


def _context() -> Any:
    from pyspark import SparkContext

    context = SparkContext._active_spark_context
    if context is None:
        raise UnavailableError("no SparkSession is running in this process", hint="start one first", runtime="jvm")
    return context


def _java_class(name: str) -> Any:
    found = _context()._jvm
    for part in name.split("."):
        found = getattr(found, part)
    if not callable(found) or type(found).__name__ == "JavaPackage":
        raise UnavailableError(f"{name} is not on Spark's class path", hint=_HINT, runtime="jvm")
    return found
