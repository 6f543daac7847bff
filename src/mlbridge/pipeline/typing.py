"""Does each edge fit, and what must be inserted on it: decided from signatures alone, all problems at once.

An edge is accepted only where no value the producer may give can be refused by the consumer's coercion.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from ..signature import ROWS, Column, TensorSpec
from .steps import Cast, Columns, Recode, Reshape, Step

__all__ = ["Edge", "Symbols", "fit"]


@dataclass(frozen=True)
class Edge:
    """A typed edge: from, to, and the conversions inserted between."""

    producer: Any  # Endpoint
    consumer: Any  # Endpoint
    steps: tuple[Step, ...] = ()

    def __call__(self, values: np.ndarray) -> np.ndarray:
        for step in self.steps:
            values = step(values)
        return values

    def __str__(self) -> str:
        inserted = f"  ({'; '.join(s.text for s in self.steps)})" if self.steps else ""
        return f"{self.producer} → {self.consumer}{inserted}"


@dataclass
class Symbols:
    """Symbols of all stages, joined as edges demand; each group may have one size."""

    parent: dict[tuple, tuple] = field(default_factory=dict)
    size: dict[tuple, int] = field(default_factory=dict)

    def find(self, key: tuple) -> tuple:
        """Return the group a symbol belongs to."""
        self.parent.setdefault(key, key)
        while self.parent[key] != key:
            self.parent[key] = self.parent[self.parent[key]]
            key = self.parent[key]
        return key

    def bind(self, key: tuple, size: int) -> int | None:
        """Give a symbol a size; return the size it has already, if another."""
        root = self.find(key)
        known = self.size.setdefault(root, size)
        return None if known == size else known

    def join(self, a: tuple, b: tuple) -> tuple[int, int] | None:
        """Make two symbols one; return their sizes if they differ."""
        ra, rb = self.find(a), self.find(b)
        if ra == rb:
            return None
        sa, sb = self.size.get(ra), self.size.get(rb)
        if sa is not None and sb is not None and sa != sb:
            return sa, sb
        self.parent[rb] = ra
        if sa is None and sb is not None:
            self.size[ra] = sb
        return None

    def all_rows(self, key: tuple) -> bool:
        """Whether every symbol of the group is `rows`."""
        root = self.find(key)
        return all(k[1] == ROWS for k in list(self.parent) if self.find(k) == root)


def narrowed(spec: TensorSpec, column: str | None) -> TensorSpec | None:
    """Return the spec of one column of a block as ("rows", 1), or the spec; None if it has no such column."""
    if column is None:
        return spec
    for c in spec.columns:
        if c.name == column:
            return replace(spec, shape=(spec.shape[0], 1), columns=(c,)) if len(spec.shape) == 2 else spec
    return None


def fit(producer: TensorSpec, consumer: TensorSpec, stages: tuple[str | None, str], symbols: Symbols) -> tuple[list[Step], list[str]]:
    """Compare two specs.

    Parameters
    ----------
    producer, consumer : TensorSpec
        The two ends, narrowed to a column where the endpoint names one.
    stages : pair of str or None
        Their stages, to keep symbols apart; None is the pipeline itself.
    symbols : Symbols
        Shared by all edges of the pipeline.

    Returns
    -------
    steps : list of Step
        What must be inserted, in order.
    problems : list of str
        Why it does not fit, each with a remedy; empty if it does.
    """
    steps: list[Step] = []
    problems: list[str] = []
    given = _columns(producer, consumer, steps, problems)
    given = _rank(given, consumer, steps)
    if not problems:
        problems += _shape(given, consumer, stages, symbols)
    problems += _kind(given, consumer, steps)
    if producer.missing == "allow" and consumer.missing == "refuse":
        problems.append("it may hold missing values and the consumer refuses them; put an imputer between")
    return steps, problems


def _columns(producer: TensorSpec, consumer: TensorSpec, steps: list[Step], problems: list[str]) -> TensorSpec:
    have, want = [c.name for c in producer.columns], [c.name for c in consumer.columns]
    if not have or not want or have == want or (len(have) == 1 and len(want) == 1):
        return producer
    absent = [n for n in want if n not in have]
    if absent:
        problems.append(
            f"it lacks the columns {', '.join(absent[:6])}; it has {', '.join(have[:6])}{', …' if len(have) > 6 else ''}; wire the columns one by one"
        )
        return producer
    if len(producer.shape) != 2:
        return producer
    index = tuple(have.index(n) for n in want)
    steps.append(Columns(index, tuple(want)))
    return replace(producer, shape=(producer.shape[0], len(want)), columns=tuple(producer.columns[i] for i in index))


def _rank(producer: TensorSpec, consumer: TensorSpec, steps: list[Step]) -> TensorSpec:
    p, c = producer.shape, consumer.shape
    if len(p) == 1 and len(c) == 2 and c[1] == 1:
        steps.append(Reshape(2))
        return replace(producer, shape=(p[0], 1))
    if len(p) == 2 and p[1] == 1 and len(c) == 1:
        steps.append(Reshape(1))
        return replace(producer, shape=(p[0],))
    return producer


def _shape(producer: TensorSpec, consumer: TensorSpec, stages: tuple[str | None, str], symbols: Symbols) -> list[str]:
    p, c = producer.shape, consumer.shape
    if len(p) != len(c):
        return [f"{len(p)} axes do not fit {len(c)}; put a reshaping stage between"]
    problems = []
    for i, (a, b) in enumerate(zip(p, c)):
        if b is None:
            continue
        if a is None:
            problems.append(f"axis {i} may have any size and the consumer wants {b}; declare its size in the producer's signature")
        elif isinstance(a, int) and isinstance(b, int):
            if a != b:
                problems.append(
                    f"axis {i} has size {a} and the consumer wants {b}; wire another output, or retrain the consumer on this one"
                )
        elif isinstance(a, str) and isinstance(b, str):
            clash = symbols.join((stages[0], a), (stages[1], b))
            if clash:
                problems.append(f"axis {i}: {a} is {clash[0]} and {b} is {clash[1]}; both must have one size")
        else:
            symbol, size, stage = (a, b, stages[0]) if isinstance(a, str) else (b, a, stages[1])
            if symbol == ROWS:
                problems.append(f"axis {i}: the batch axis does not fit the fixed size {size}; export that stage with a dynamic batch axis")
                continue
            known = symbols.bind((stage, symbol), size)  # type: ignore[arg-type]
            if known is not None:
                problems.append(f"axis {i}: {symbol} is {known} elsewhere and {size} here; it must have one size in the whole pipeline")
    return problems


def _kind(producer: TensorSpec, consumer: TensorSpec, steps: list[Step]) -> list[str]:
    problems = []
    if producer.categorical != consumer.categorical:
        if producer.categorical:
            return [
                "it gives categories and the consumer wants numbers or text; wire its probabilities, or encode it in a stage of its own"
            ]
        return ["the consumer wants categories and it gives none; declare its levels in the producer's signature"]
    if producer.categorical:
        tables, names, differs = [], [], False
        for a, b in zip(producer.columns, consumer.columns):
            table, wrong = _recoding(a, b, producer.missing == "allow")
            problems += wrong
            tables.append(table)
            names.append(b.name)
            differs |= a.categories != b.categories or a.level_type != b.level_type
        if not problems and differs:
            steps.append(Recode(tuple(names), tuple(tables)))
        return problems
    for a, b in zip(producer.columns, consumer.columns):
        if a.unit and b.unit and a.unit != b.unit:
            problems.append(f"column {a.name!r} is in {a.unit} and the consumer wants {b.unit}; convert it in a stage of its own")
    if producer.dtype == consumer.dtype:
        return problems
    if "string" in (producer.dtype, consumer.dtype) or "bfloat16" in (producer.dtype, consumer.dtype):
        return [*problems, f"{producer.dtype} does not fit {consumer.dtype}; convert it in a stage of its own"]
    if castable(producer.dtype, consumer):
        steps.append(Cast(producer.dtype, consumer))
        return problems
    remedy = (
        f"put mlbridge.cast({consumer.dtype!r}) between" if consumer.dtype in ("float32", "float16") else "convert it in a stage of its own"
    )
    return [*problems, f"{producer.dtype} would lose values as {consumer.dtype}; {remedy}"]


def castable(dtype: str, consumer: TensorSpec) -> bool:
    """Whether every value of a dtype may go into the consumer's: widening, a rounding it allows, or 64-bit integers to float64."""
    source, target = np.dtype(dtype), np.dtype(consumer.dtype)
    if source.kind in "iu" and source.itemsize == 8 and target == np.float64:
        return True  # exact up to 2**53, which is checked when it runs
    if np.can_cast(source, target, "safe"):
        return True
    return consumer.rounding == "nearest" and source.kind in "iuf" and target.kind == "f"


def _recoding(producer: Column, consumer: Column, missing: bool) -> tuple[tuple[int, ...], list[str]]:
    """Return the table from code+1 to the consumer's code, and the levels it does not know."""
    known = {(type(v), v): i for i, v in enumerate(consumer.categories or ())}
    k = len(consumer.categories or ())
    codes = [known.get((type(v), v)) for v in producer.categories or ()]
    strange = [v for v, code in zip(producer.categories or (), codes) if code is None]
    problems = []
    if strange and consumer.unknown == "refuse":
        problems.append(
            f"column {consumer.name!r}: the consumer does not know the levels {', '.join(map(repr, strange[:5]))}; "
            f"it knows {', '.join(map(repr, (consumer.categories or ())[:5]))}; retrain it, or map the levels in a stage of its own"
        )
    if producer.unknown == "keep" and consumer.unknown == "refuse":
        problems.append(
            f"column {consumer.name!r}: the producer keeps unknown levels and the consumer refuses them; map them in a stage of its own"
        )
    return (-1, *(k if code is None else code for code in codes), k), problems
