"""The conversions a pipeline inserts on an edge: each shown in words, run on arrays, and written into ONNX."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from ..errors import InputError
from ..interfaces import Array
from ..signature import TensorSpec
from ..tensors import coerce

__all__ = ["Cast", "Columns", "Recode", "Refuse", "Reshape", "Step"]


_SMALL = 8192  # values up to which a dot product is the quickest search for NaN


class Step:
    """One inserted conversion. `text` shows it; `__call__` runs it; `emit` writes it into a Graph."""

    text: str

    def __call__(self, values: Array) -> Array:
        raise AssertionError

    def emit(self, graph: Any, value: str) -> str:
        raise AssertionError


@dataclass(frozen=True)
class Cast(Step):
    """A widening, a rounding the input allows, or a checked integer to float64."""

    source: str
    spec: TensorSpec

    @property
    def text(self) -> str:  # type: ignore[override]
        rounds = self.spec.rounding == "nearest" and np.dtype(self.source).itemsize > np.dtype(self.spec.dtype).itemsize
        return f"cast {self.source}→{self.spec.dtype}" + (", rounds" if rounds else "")

    def __call__(self, values: Array) -> Array:
        problems: list[str] = []
        out = coerce(values, self.spec, f"input {self.spec.name!r}", problems)
        if out is None:
            raise InputError(problems[0], problems=problems)
        return out

    def emit(self, graph: Any, value: str) -> str:
        return graph.cast(value, self.spec.dtype)


@dataclass(frozen=True)
class Columns(Step):
    """Take some columns of a block, in the consumer's order."""

    index: tuple[int, ...]
    names: tuple[str, ...]
    rank: int = 2

    @property
    def text(self) -> str:  # type: ignore[override]
        shown = ", ".join(self.names[:6]) + (", …" if len(self.names) > 6 else "")
        return f"columns {shown}"

    def __call__(self, values: Array) -> Array:
        return np.ascontiguousarray(values[:, list(self.index)])

    def emit(self, graph: Any, value: str) -> str:
        return graph.add("Gather", value, graph.const(list(self.index), "int64"), axis=1)


@dataclass(frozen=True)
class Reshape(Step):
    """Between ("rows",) and ("rows", 1)."""

    to_rank: int

    @property
    def text(self) -> str:  # type: ignore[override]
        return "reshape (rows, 1)→(rows,)" if self.to_rank == 1 else "reshape (rows,)→(rows, 1)"

    def __call__(self, values: Array) -> Array:
        return values[:, 0] if self.to_rank == 1 else values[:, None]

    def emit(self, graph: Any, value: str) -> str:
        return graph.add("Squeeze" if self.to_rank == 1 else "Unsqueeze", value, graph.const([1], "int64"))


@dataclass(frozen=True)
class Recode(Step):
    """Exchange the producer's level codes for the consumer's, column by column."""

    names: tuple[str, ...]
    tables: tuple[tuple[int, ...], ...]  # per column: index code+1 -> the consumer's code

    @property
    def text(self) -> str:  # type: ignore[override]
        return f"recode {', '.join(self.names)}"

    def __call__(self, values: Array) -> Array:
        out = np.empty(values.shape, np.int32)
        wide, target = values.reshape(-1, len(self.tables)), out.reshape(-1, len(self.tables))
        for j, table in enumerate(self.tables):
            target[:, j] = np.asarray(table, np.int32)[wide[:, j] + 1]
        return out

    def emit(self, graph: Any, value: str) -> str:
        width = max(len(t) for t in self.tables)
        flat = np.array([list(t) + [0] * (width - len(t)) for t in self.tables], np.int32).ravel()
        offsets = np.arange(len(self.tables), dtype=np.int64) * width + 1
        index = graph.add("Add", graph.cast(value, "int64"), graph.const(offsets if len(self.tables) > 1 else offsets[0]))
        return graph.add("Gather", graph.const(flat), index, axis=0)


@dataclass(frozen=True)
class Refuse(Step):
    """Check that a stage which only hands missing values on made none of its own."""

    consumer: str

    @property
    def text(self) -> str:  # type: ignore[override]
        return "refuses missing"

    def __call__(self, values: Array) -> Array:
        # infinities square to infinity; large blocks would start BLAS' threads
        square = np.vdot(values, values) if values.size < _SMALL else np.minimum.reduce(values, axis=None)
        if square != square:
            problem = f"{self.consumer}: the stage before it gave a missing value, which it refuses"
            raise InputError(problem, problems=[problem])
        return values

    def emit(self, graph: Any, value: str) -> str:
        return value  # a graph cannot refuse; the pipeline's inputs already do
