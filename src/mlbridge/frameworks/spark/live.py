"""A live pyspark.ml model, recognised by its class's module, read through the folder that Spark itself saves."""

from __future__ import annotations

import tempfile
import weakref
from pathlib import Path
from typing import Any

from ...errors import ConversionError
from .folder import read_folder
from .stage import SparkModel

__all__ = ["is_live", "read_live"]

_READ: weakref.WeakKeyDictionary[Any, SparkModel] = weakref.WeakKeyDictionary()  # saving takes Spark a second


def is_live(model: object) -> bool:
    """Whether this is a fitted model or a transformer of pyspark.ml."""
    kind = type(model)
    return kind.__module__.startswith("pyspark.ml.") and hasattr(kind, "transform") and hasattr(kind, "write")


def read_live(model: Any) -> SparkModel:
    """Save a live model to a private folder and read that.

    Raises
    ------
    ConversionError
        If Spark cannot save it.
    """
    found = _READ.get(model)
    if found is None:
        with tempfile.TemporaryDirectory(prefix="mlbridge-spark-") as folder:
            target = Path(folder) / "model"
            try:
                model.write().overwrite().save(target.as_uri())
            except Exception as exc:  # py4j and Spark raise classes that are not importable here
                raise ConversionError(f"Spark could not save this {type(model).__name__}: {str(exc)[:500]}") from exc
            found = _READ[model] = read_folder(target, type(model).__name__)
    return found
