"""Stage: one saved Spark stage; its parameters and data, read with types.

What a file says wrongly is an ArtifactError that names the stage. `folder` makes these, the stage families read them.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ...errors import ArtifactError

__all__ = ["SparkModel", "Stage", "java_double"]

_SPECIAL = {"Inf": math.inf, "Infinity": math.inf, "-Inf": -math.inf, "-Infinity": -math.inf, "NaN": math.nan}
_MAX_CELLS = 1 << 27  # a dense matrix of 1 GiB; a sparse one may claim any size


def java_double(value: Any) -> float:
    """Read a number as Spark writes it in JSON, where `Inf` and `NaN` are text."""
    if isinstance(value, str) and value in _SPECIAL:
        return _SPECIAL[value]
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"{value!r} is not a number")
    return float(value)


@dataclass(frozen=True, eq=False)
class Stage:
    """One saved stage.

    Attributes
    ----------
    name : str
        The class, without its package: `StringIndexerModel`.
    uid, where : str
        Spark's identifier, and the place inside the folder, for messages.
    params : dict
        Defaults overlaid by what was set.
    given : set of str
        The parameters that were set.
    extra : dict
        What the class writes beside its parameters: `numFeatures`, `numClasses`, ….
    table : pyarrow.Table or None
        The learned data.
    side : dict
        Further tables: `treesMetadata`.
    children : tuple of Stage
        Stages of a pipeline, models of a OneVsRest, the best model of a search.
    """

    name: str
    uid: str
    where: str
    params: Mapping[str, Any]
    given: frozenset[str]
    extra: Mapping[str, Any]
    table: Any = None
    side: Mapping[str, Any] = field(default_factory=dict)
    children: tuple[Stage, ...] = ()

    # ---------------------------------------------------------------- parameters

    def wrong(self, what: str) -> ArtifactError:
        """Return the error for a malformed stage."""
        return ArtifactError(f"{self.where}: {self.name} {self.uid!r}: {what}", hint="save the model again with Spark's own writer")

    def has(self, name: str) -> bool:
        """Whether a parameter has a value, set or default."""
        return self.params.get(name) is not None

    def text(self, name: str, default: str | None = None) -> str:
        """Return a parameter that is text."""
        value = self.params.get(name, default)
        if not isinstance(value, str):
            raise self.wrong(f"parameter {name} is {value!r}, not text")
        return value

    def texts(self, name: str) -> list[str]:
        """Return a parameter that is a list of text."""
        value = self.params.get(name)
        if not isinstance(value, list) or not all(isinstance(v, str) for v in value):
            raise self.wrong(f"parameter {name} is {value!r}, not a list of text")
        return value

    def flag(self, name: str) -> bool:
        """Return a parameter that is true or false."""
        value = self.params.get(name)
        if not isinstance(value, bool):
            raise self.wrong(f"parameter {name} is {value!r}, not true or false")
        return value

    def number(self, name: str) -> float:
        """Return a parameter that is a number."""
        try:
            return java_double(self.params.get(name))
        except TypeError as exc:
            raise self.wrong(f"parameter {name}: {exc}") from exc

    def numbers(self, name: str) -> list[float]:
        """Return a parameter that is a list of numbers."""
        value = self.params.get(name)
        if not isinstance(value, list):
            raise self.wrong(f"parameter {name} is {value!r}, not a list of numbers")
        try:
            return [java_double(v) for v in value]
        except TypeError as exc:
            raise self.wrong(f"parameter {name}: {exc}") from exc

    def integer(self, name: str) -> int:
        """Return a parameter, or an extra, that is an integer."""
        value = self.params.get(name, self.extra.get(name))
        if isinstance(value, bool) or not isinstance(value, int):
            raise self.wrong(f"{name} is {value!r}, not an integer")
        return value

    @property
    def sources(self) -> list[str]:
        """The input columns of a stage with `inputCol` or `inputCols`."""
        return self.texts("inputCols") if self.has("inputCols") else [self.text("inputCol")]

    @property
    def targets(self) -> list[str]:
        """The output columns of a stage with `outputCol` or `outputCols`."""
        if self.has("inputCols") and "outputCols" in self.params:
            return self.texts("outputCols")
        return [self.text("outputCol")]

    @property
    def invalid(self) -> str:
        """What `handleInvalid` says: error, skip or keep."""
        value = self.text("handleInvalid", "error")
        if value not in ("error", "skip", "keep", "optimistic"):
            raise self.wrong(f"handleInvalid is {value!r}")
        return value

    # ---------------------------------------------------------------- learned data

    def rows(self) -> list[dict[str, Any]]:
        """Return the learned data as dicts."""
        if self.table is None:
            raise self.wrong("its data folder is missing")
        return self.table.to_pylist()

    def row(self) -> dict[str, Any]:
        """Return the one row of learned data."""
        rows = self.rows()
        if len(rows) != 1:
            raise self.wrong(f"its data has {len(rows)} rows, not 1")
        return rows[0]

    def vector(self, value: Any) -> np.ndarray:
        """Return a Spark vector, dense or sparse, as float64 (n,)."""
        if isinstance(value, Mapping) and value.get("type") == 0:
            size = int(value["size"])
            if not 0 <= size <= _MAX_CELLS:
                raise self.wrong(f"a vector of {size} values")
            out = np.zeros(size)
            out[np.asarray(value["indices"], np.int64)] = [java_double(v) for v in value["values"]]
            return out
        if not isinstance(value, Mapping) or value.get("type") != 1:
            raise self.wrong("a vector is malformed")
        return np.array([java_double(v) for v in value["values"]], np.float64)

    def sparse(self, value: Any) -> bool:
        """Whether a vector or matrix was stored sparse: Spark skips its zeros."""
        return isinstance(value, Mapping) and value.get("type") == 0

    def matrix(self, value: Any) -> np.ndarray:
        """Return a Spark matrix, dense or sparse, as float64 (rows, columns)."""
        rows, columns = int(value["numRows"]), int(value["numCols"])
        if rows < 0 or columns < 0 or rows * columns > _MAX_CELLS:
            raise self.wrong(f"a matrix of {rows} x {columns}")
        flat = np.asarray(value["values"], np.float64)
        transposed = bool(value["isTransposed"])
        if value["type"] == 1:
            return flat.reshape(rows, columns) if transposed else flat.reshape(columns, rows).T.copy()
        out = np.zeros((columns, rows) if not transposed else (rows, columns))
        starts, index = value["colPtrs"], np.asarray(value["rowIndices"], np.int64)
        for i in range(len(starts) - 1):
            out[i, index[starts[i] : starts[i + 1]]] = flat[starts[i] : starts[i + 1]]
        return out if transposed else out.T.copy()

    def walk(self) -> Iterator[Stage]:
        """Yield this stage and all below it."""
        yield self
        for child in self.children:
            yield from child.walk()


@dataclass(frozen=True, eq=False)
class SparkModel:
    """A saved Spark model: what `SparkFramework.read` returns.

    Attributes
    ----------
    root : Stage
        The saved object: a pipeline, or a lone stage.
    label : str
        What to call it in messages.
    """

    root: Stage
    label: str

    @property
    def stages(self) -> tuple[Stage, ...]:
        """The stages that transform rows, in order: pipelines opened, searches replaced by their best model."""
        return tuple(_flatten(self.root))

    def __repr__(self) -> str:
        return f"SparkModel({self.label!r}: {' -> '.join(s.name for s in self.stages)})"


def _flatten(stage: Stage) -> Iterator[Stage]:
    if stage.name in ("PipelineModel", "CrossValidatorModel", "TrainValidationSplitModel", "RFormulaModel"):
        for child in stage.children:
            yield from _flatten(child)
    else:
        yield stage
