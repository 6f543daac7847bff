"""Flow: the ONNX graph under construction, seen as Spark's DataFrame: columns by name, dropped and failing rows.

A number column is ("rows", 1) float64, a vector ("rows", width) float64, a text column int32 codes of levels.
Stage families call it; it knows nothing about any stage.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from ...errors import ConversionError, SignatureError
from ...signature import ROWS, level_text
from .stage import Stage

if TYPE_CHECKING:
    from ...conversion.graph import Graph
    from .text import Words

__all__ = ["Answer", "Attr", "Col", "Flow", "Origin"]


@dataclass(frozen=True)
class Origin:
    """Where an element of a vector comes from, so that probe rows can be carried back to raw columns.

    `how` is `value` (the raw number, scaled: x = element * scale + shift), `index` (a position in `codes`, which holds the
    raw column's codes), `number` (a position in `codes`, which holds its numbers) or `level` (1 where its code is `codes[0]`).
    """

    column: str
    how: str
    codes: tuple[float, ...] = ()
    scale: float = 1.0
    shift: float = 0.0
    within: int | None = None  # element of a raw vector column


@dataclass(frozen=True)
class Attr:
    """Spark's ML attribute of a number or of one element of a vector."""

    name: str | None = None
    kind: str = "numeric"  # or nominal, binary
    values: tuple[str, ...] | None = None
    count: int | None = None
    origin: Origin | None = None


@dataclass(frozen=True)
class Col:
    """One column: a value of the graph and what Spark's schema says about it.

    Attributes
    ----------
    value : str
        ("rows", width) float64; of text columns int32 codes ("rows", 1).
    vector : bool
        Whether Spark holds vectors.
    width : int
        1 for numbers and text.
    attrs : tuple of Attr or None
        One an element; None where Spark has none.
    levels : tuple of str or None
        Of a text column.
    codes : str or None
        The same as int64 ("rows", 1), where it is a whole number.
    nan : bool
        Whether NaN may occur.
    member : (str, int) or None
        The tensor and index it is a column of, so that neighbours are gathered at once.
    compressed : bool
        Whether Spark stores it sparse wherever that is shorter.
    plain : bool
        False for text that is not held as codes, whose value is strings ("rows", 1): only text stages read it.
    words : Words or None
        What tokens of that text the column holds.
    """

    value: str
    vector: bool = False
    width: int = 1
    attrs: tuple[Attr, ...] | None = None
    levels: tuple[str, ...] | None = None
    codes: str | None = None
    nan: bool = True
    member: tuple[str, int] | None = None
    compressed: bool = False
    plain: bool = True
    words: Words | None = None


@dataclass(frozen=True)
class Answer:
    """What a predictor answers."""

    task: str  # classifier, regressor, clusterer
    column: str  # Spark's predictionCol
    classes: int = 0
    index: str = ""  # int64 ("rows", 1)
    scores: str | None = None  # probabilities or decision, as the signature calls it
    score_value: str = ""
    labels: tuple[str, ...] | None = None
    unsure: bool = False  # whether the label may be missing


class Flow:
    """The graph and its columns.

    Parameters
    ----------
    graph : Graph
        Whose signature names the raw columns.
    dry : bool
        Only find out what comes out: refusals are collected in `refused`, not raised.
    """

    def __init__(self, graph: Graph, *, dry: bool = False) -> None:
        self.graph, self.dry = graph, dry
        self.columns: dict[str, Col] = {}
        self.answer: Answer | None = None
        self.refused: list[str] = []
        self.forests: list[tuple[Any, ...]] = []  # (trees, attributes of their input, levels), for the probe
        self.limits: dict[tuple[str, int | None], tuple[float, float]] = {}  # raw numbers outside make Spark raise
        self.only: dict[tuple[str, int | None], tuple[float, ...]] = {}  # raw numbers other than these do
        self.whole: set[tuple[str, int | None]] = set()  # raw numbers where NaN does
        self.unsafe = False  # whether rows may fail for reasons that do not lead back to raw columns
        self._dropped: str | None = None
        self._failed: str | None = None

    # ---------------------------------------------------------------- columns

    def has(self, name: str) -> bool:
        """Whether a column exists."""
        return name in self.columns or self._raw(name) is not None

    def get(self, name: str) -> Col:
        """Return a column; ConversionError if neither a stage makes it nor the signature names it."""
        if name not in self.columns:
            col = self._raw(name)
            if col is None:
                raise ConversionError(f"no stage makes column {name!r} and the signature does not name it")
            self.columns[name] = col
        return self.columns[name]

    def number(self, stage: Stage, name: str) -> Col:
        """Return a number column with its value made."""
        col = self.get(name)
        if col.vector or col.levels is not None or not col.plain:
            kind = "a vector" if col.vector else "text"
            raise SignatureError(f"{stage.name} reads column {name!r} as a number, and it is {kind}", hint="give a signature or a sample")
        return self.made(name)

    def vector(self, stage: Stage, name: str, width: int | None = None) -> Col:
        """Return a vector column; its width must be the one the stage learned."""
        col = self.made(name)
        if col.levels is not None or not col.plain:
            raise SignatureError(f"{stage.name} reads column {name!r} as a vector, and it is text")
        if width is not None and col.width != width:
            raise SignatureError(
                f"{stage.name} learned {width} features and column {name!r} has {col.width}",
                hint="a raw column that is a vector needs its width: give a sample or a signature",
            )
        return col

    def made(self, name: str) -> Col:
        """Return a column, gathered from its tensor if that was put off."""
        col = self.get(name)
        if not col.value and col.member is not None:
            tensor, index = col.member
            col = replace(col, value=self.graph.add("Gather", tensor, self.ints([index]), axis=1))
            self.columns[name] = col
        return col

    def put(self, name: str, col: Col) -> None:
        """Set a column."""
        self.columns[name] = col

    def put_number(self, name: str, value: str, *, attr: Attr | None = None, codes: str | None = None, nan: bool = True) -> None:
        """Set a number column."""
        self.put(name, Col(value, attrs=(attr or Attr(name),), codes=codes, nan=nan))

    def put_vector(
        self, name: str, value: str, width: int, attrs: Sequence[Attr] | None = None, *, nan: bool = True, compressed: bool = False
    ) -> None:
        """Set a vector column."""
        self.put(name, Col(value, True, width, None if attrs is None else tuple(attrs), nan=nan, compressed=compressed))

    def _raw(self, name: str) -> Col | None:
        for spec in self.graph.signature.inputs:
            mine = spec.name in (name, f"{name}_vector") and not spec.columns
            if mine and len(spec.shape) == 2 and isinstance(spec.shape[1], int):
                attrs = tuple(Attr(origin=Origin(spec.name, "value", within=i)) for i in range(spec.shape[1]))
                return Col(self._double(spec.name, spec.dtype), True, spec.shape[1], attrs, nan=spec.missing == "allow")
            for i, column in enumerate(spec.columns):
                if column.name != name:
                    continue
                if column.categories is not None:
                    levels = tuple(level_text(v) for v in column.categories)
                    return Col(self.graph.column(name), levels=levels, nan=spec.missing == "allow")
                if spec.dtype == "string":
                    return Col(self.graph.column(name), plain=False)
                attr = Attr(name, origin=Origin(name, "value"))
                tensor = self._double(spec.name, spec.dtype)
                if len(spec.shape) == 1:
                    return Col(self.graph.add("Unsqueeze", tensor, self.ints([1])), attrs=(attr,), nan=spec.missing == "allow")
                whole = tensor if len(spec.columns) == 1 else ""
                return Col(whole, attrs=(attr,), nan=spec.missing == "allow", member=(tensor, i))
        return None

    def _double(self, name: str, dtype: str) -> str:
        if dtype == "float64":
            return name
        key = f"\0{name}"
        if key not in self.columns:
            self.columns[key] = Col(self.graph.cast(name, "float64"))
        return self.columns[key].value

    def width_of(self, tensor: str) -> int | None:
        """Return the number of columns of an input block."""
        for spec in self.graph.signature.inputs:
            if spec.name == tensor and spec.shape[0] == ROWS and len(spec.shape) == 2 and isinstance(spec.shape[1], int):
                return spec.shape[1]
        return None

    # ---------------------------------------------------------------- rows

    def drop(self, bad: str) -> None:
        """Leave out the rows where `bad` ("rows", 1) holds: their answers are missing."""
        self._dropped = bad if self._dropped is None else self.graph.add("Or", self._dropped, bad)

    def fail(self, bad: str, *, known: bool = False) -> None:
        """Raise, when run, if `bad` ("rows", 1) holds in a row that was not left out.

        `known` says that no row within the signature and within `limits` and `only` does.
        """
        self.unsafe |= not known
        if self._dropped is not None:
            bad = self.graph.add("And", bad, self.graph.add("Not", self._dropped))
        self._failed = bad if self._failed is None else self.graph.add("Or", self._failed, bad)

    def limit(self, attrs: Sequence[Attr] | None, low: float, high: float, *, only: tuple[float, ...] = (), nan: bool = False) -> bool:
        """Note what numbers may be, for probe rows; False where they are not raw columns."""
        for attr in attrs or (Attr(),):
            origin = attr.origin
            if attr.kind == "binary" and {0.0, 1.0} <= set(only or (0.0, 1.0)) and low <= 0 and high >= 1:
                continue
            if origin is None or origin.how != "value" or (origin.scale, origin.shift) != (1.0, 0.0):
                return False
            key = (origin.column, origin.within)
            old = self.limits.get(key, (-np.inf, np.inf))
            self.limits[key] = (max(low, old[0]), min(high, old[1]))
            if only:
                self.only[key] = only
            if not nan:
                self.whole.add(key)
        return True

    @property
    def drops(self) -> bool:
        """Whether any row may be left out."""
        return self._dropped is not None

    def finish(self, value: str, *, missing: float | int, dtype: str, flat: bool) -> str:
        """Return an answer with missing values in rows left out, and with the failure of failing rows."""
        g = self.graph
        if self._dropped is not None:
            value = g.add("Where", self._dropped, g.const(np.asarray(missing, dtype)), value)
        if self._failed is not None:
            # ONNX has no raise: an index beyond a one-element table makes the runtime refuse the batch, as Spark does
            value = g.add("Add", value, g.add("Gather", g.const(np.zeros(1, dtype)), g.cast(self._failed, "int64")))
        return g.add("Squeeze", value, self.ints([1])) if flat else value

    def refuse(self, message: str, hint: str = "load it with via='native': it runs in Spark itself") -> None:
        """Refuse the conversion; in a dry run, remember why."""
        if not self.dry:
            raise ConversionError(message, hint=hint)
        self.refused.append(message)

    # ---------------------------------------------------------------- arithmetic

    def real(self, value: Any) -> str:
        """Return a float64 constant."""
        return self.graph.const(np.asarray(value, np.float64))

    def ints(self, value: Any) -> str:
        """Return an int64 constant."""
        return self.graph.const(np.asarray(value, np.int64))

    def op(self, name: str, *inputs: str | float | np.ndarray, **attributes: Any) -> str:
        """Add a node; numbers and arrays become float64 constants."""
        return self.graph.add(name, *(v if isinstance(v, str) else self.real(v) for v in inputs), **attributes)

    def sum(self, value: str, axis: int = 1, *, keep: int = 1) -> str:
        """Sum along an axis."""
        return self.graph.add("ReduceSum", value, self.ints([axis]), keepdims=keep)

    def take(self, value: str, index: Sequence[int] | np.ndarray) -> str:
        """Return some columns."""
        return self.graph.add("Gather", value, self.ints(index), axis=1)

    def any(self, flags: str) -> str:
        """Return ("rows", 1): whether any column of a boolean matrix holds."""
        return self.graph.cast(self.graph.add("ReduceMax", self.graph.cast(flags, "int32"), self.ints([1]), keepdims=1), "bool")

    def double(self, value: str) -> str:
        """Cast to float64."""
        return self.graph.cast(value, "float64")

    def dot(self, x: str, weights: np.ndarray, *, sparse: bool = False) -> str:
        """Multiply ("rows", n) by (n, k); Spark skips the zeros of weights that it stores sparse."""
        if sparse:
            active = np.flatnonzero(weights.any(axis=1))
            if not len(active):
                return self.op(
                    "Mul", self.double(self.graph.add("Equal", self.take(x, [0]), self.take(x, [0]))), np.zeros((1, weights.shape[1]))
                )
            if len(active) < len(weights):
                x, weights = self.take(x, active), weights[active]
        return self.op("MatMul", x, weights)

    def argmax(self, scores: str, *, first: bool = True) -> str:
        """Return ("rows", 1) int64: the first largest, NaN never chosen.

        With `first` the search starts at the first score, so that NaN there wins, as in Spark's `Vector.argmax`.
        """
        g = self.graph
        clean = self.op("Where", g.add("IsNaN", scores), -np.inf, scores)
        index = g.add("ArgMax", clean, axis=1, keepdims=1)
        if not first:
            return index
        return g.add("Where", g.add("IsNaN", self.take(scores, [0])), self.ints(0), index)
