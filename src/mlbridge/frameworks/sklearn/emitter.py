"""Emitter: turn fitted estimators into nodes of one graph, recursively.

The rooms beside it (`linear`, `encoders`, `compose`, ...) register one function per estimator and method with `emits`;
the emitter finds them by the class's name, so nothing here imports scikit-learn. Values between steps are Frames.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from importlib import import_module
from typing import TYPE_CHECKING, Any

import numpy as np

from ...errors import ConversionError

if TYPE_CHECKING:
    from ...conversion.graph import Graph

__all__ = ["Col", "Emitter", "Frame", "class_name", "emits", "registered"]

_ROOMS = (
    "bayes", "cluster", "compose", "decomposition", "discriminant", "encoders", "ensembles", "imputers", "kernels", "linear",
    "manifold", "meta", "neighbors", "networks", "records", "scalers", "selection", "semi", "text", "tree_models",
)  # fmt: skip
_CELLS = 10_000  # points times features up to which one three-way difference is formed: 80 kB a row
_EMITTERS: dict[tuple[str, str], Callable[..., Any]] = {}


def emits(method: str, *names: str) -> Callable[[Callable], Callable]:
    """Register a function as the emitter of `method` for scikit-learn classes of these names."""

    def register(function: Callable) -> Callable:
        for name in names:
            _EMITTERS[name, method] = function
        return function

    return register


def registered() -> dict[tuple[str, str], Callable[..., Any]]:
    """Return every (class name, method) that has an emitter, all rooms loaded."""
    for room in _ROOMS:
        import_module(f"{__package__}.{room}")
    return _EMITTERS


def class_name(estimator: object) -> str:
    """Return the name of a scikit-learn class; other classes get a name no emitter has."""
    kind = type(estimator)
    return kind.__name__ if kind.__module__.split(".")[0] == "sklearn" else f"{kind.__module__}.{kind.__name__}"


@dataclass(frozen=True, eq=False)
class Col:
    """One column on its way through the graph: a position in a block ("rows", width).

    `levels` are the values the source library sees; the block then holds int32 codes: -1 missing, k unknown.
    """

    block: str
    index: int
    width: int
    dtype: str = "float64"
    name: Any = None
    levels: tuple | None = None

    @property
    def kind(self) -> str:
        """`number`, `category` or `text`."""
        return "category" if self.levels is not None else "text" if self.dtype == "string" else "number"


@dataclass(frozen=True, eq=False)
class Frame:
    """Columns side by side: what one estimator hands to the next.

    `sparse` says that the source hands a sparse matrix, in which zeros are absent: some libraries read those as missing.
    """

    cols: tuple[Col, ...]
    sparse: bool = False

    @property
    def width(self) -> int:
        """How many columns there are."""
        return len(self.cols)

    def select(self, indices: Iterable[int]) -> Frame:
        """Keep columns by position, in this order."""
        return replace(self, cols=tuple(self.cols[i] for i in indices))

    def renamed(self, names: Sequence[Any]) -> Frame:
        """Give the columns new names."""
        return replace(self, cols=tuple(replace(c, name=n) for c, n in zip(self.cols, names, strict=True)))

    @staticmethod
    def of(block: str, width: int, dtype: str = "float64") -> Frame:
        """Make a frame of one numeric block."""
        return Frame(tuple(Col(block, i, width, dtype) for i in range(width)))

    @staticmethod
    def join(frames: Iterable[Frame]) -> Frame:
        """Put frames side by side."""
        frames = list(frames)
        return Frame(tuple(c for f in frames for c in f.cols), any(f.sparse for f in frames))


class Emitter:
    """Writes estimators into a graph.

    Parameters
    ----------
    graph : Graph
        Where nodes go.
    """

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self._matrices: dict[tuple, str] = {}
        self._done: dict[tuple, Any] = {}
        self._keep: list[object] = []  # ids in `_done` stay unique only while their objects live

    # ---- dispatch

    def can(self, estimator: object, method: str) -> bool:
        """Whether there is an emitter."""
        return (class_name(estimator), method) in registered()

    def call(self, estimator: object, method: str, frame: Frame) -> Any:
        """Emit one method of an estimator; once for the same frame."""
        key = (id(estimator), method, frame.cols, frame.sparse)
        return self.once(key, (estimator, frame), lambda: self._emit(estimator, method, frame))

    def once(self, key: tuple, keep: object, emit: Callable[[], Any]) -> Any:
        """Return what `emit` gave the first time for this key; `keep` holds the objects whose ids are in the key."""
        if key not in self._done:
            self._keep.append(keep)
            self._done[key] = emit()
        return self._done[key]

    def _emit(self, estimator: Any, method: str, frame: Frame) -> Any:
        function = registered().get((class_name(estimator), method))
        if function is not None:
            return function(self, estimator, frame)
        from .other_steps import emit_step, other_step

        step = other_step(estimator)
        if step is None:
            raise ConversionError(
                f"{type(estimator).__module__}.{type(estimator).__name__}.{method} has no exact ONNX form here",
                hint="use via='native', or convert the steps before it on their own",
            )
        return emit_step(self, step, method, frame)

    def transform(self, estimator: object, frame: Frame) -> Frame:
        """Emit `transform`; None and 'passthrough' are the identity."""
        if estimator is None or (isinstance(estimator, str) and estimator == "passthrough"):
            return frame
        result = self.call(estimator, "transform", frame)
        if isinstance(result, Frame):
            return result
        value, width = result
        return Frame.of(value, width)

    def predict(self, estimator: object, frame: Frame) -> Any:
        """Emit `predict`: float64 for regressors, int64 codes into `classes_` for classifiers."""
        return self.call(estimator, "predict", frame)

    def proba(self, estimator: object, frame: Frame) -> Any:
        """Emit `predict_proba`, ("rows", classes)."""
        return self.call(estimator, "predict_proba", frame)

    def decision(self, estimator: object, frame: Frame) -> Any:
        """Emit `decision_function`, ("rows",) or ("rows", classes)."""
        return self.call(estimator, "decision_function", frame)

    # ---- frames to blocks

    def matrix(self, frame: Frame, dtype: str = "float64") -> str:
        """Return the frame as one numeric block ("rows", width)."""
        key = (frame.cols, dtype)
        if key in self._matrices:
            return self._matrices[key]
        g = self.graph
        parts: list[str] = []
        run: list[Col] = []
        for col in (*frame.cols, None):
            if col is not None and col.kind == "number" and (not run or col.block == run[0].block):
                run.append(col)
                continue
            if run:
                parts.append(self._cast(self._gather(run), run[0].dtype, dtype))
            run = []
            if col is None:
                break
            if col.kind == "number":
                run = [col]
            else:
                parts.append(self._numbers_of(col, dtype))
        if not parts:
            raise ConversionError("a step gets no columns at all")
        self._keep.append(frame)
        self._matrices[key] = g.concat(parts)
        return self._matrices[key]

    def codes(self, col: Col) -> str:
        """Return a category's codes shifted to 0 missing, 1..k levels, k+1 unknown: int64 ("rows",)."""
        g = self.graph
        one = g.add("Squeeze", self._gather([col]), g.const([1], "int64"))
        return g.add("Add", g.cast(one, "int64"), g.const(1, "int64"))

    def lookup(self, col: Col, table: np.ndarray) -> str:
        """Gather rows of `table` ((levels + 2), m) by the shifted codes of a category."""
        return self.graph.add("Gather", self.graph.const(table), self.codes(col), axis=0)

    def column(self, frame: Frame, index: int) -> str:
        """Return one numeric column as float64 ("rows", 1)."""
        return self.matrix(frame.select([index]))

    def _gather(self, cols: list[Col]) -> str:
        g, first = self.graph, cols[0]
        if len(cols) == first.width and all(c.index == i for i, c in enumerate(cols)):
            return first.block
        return g.add("Gather", first.block, g.const([c.index for c in cols], "int64"), axis=1)

    def _cast(self, value: str, have: str, want: str) -> str:
        return value if have == want else self.graph.cast(value, want)

    def _numbers_of(self, col: Col, dtype: str) -> str:
        """Spell a category of numbers or booleans as numbers."""
        if col.kind == "text" or any(isinstance(v, str) for v in col.levels or ()):
            raise ConversionError(f"column {col.name!r} holds text where numbers are computed", hint="encode it first")
        values = [np.nan, *(np.nan if v is None else float(v) for v in col.levels or ()), np.nan]
        return self._cast(self.lookup(col, np.array(values)[:, None]), "float64", dtype)

    # ---- arithmetic that many rooms use

    def op(self, name: str, *values: Any, **attributes: Any) -> str:
        """Add a node; numbers and arrays become float64 constants."""
        inputs = [v if isinstance(v, str) else self.graph.const(np.asarray(v)) for v in values]
        return self.graph.add(name, *inputs, **attributes)

    def linear(self, x: str, coef: np.ndarray, intercept: Any = None) -> str:
        """Return x @ coef.T + intercept for coef (k, features)."""
        out = self.op("MatMul", x, np.ascontiguousarray(np.asarray(coef, dtype=np.float64).T))
        if intercept is not None and np.any(np.asarray(intercept) != 0):
            out = self.op("Add", out, np.asarray(intercept, dtype=np.float64))
        return out

    def reduce(self, kind: str, value: str, axis: int = 1, *, keep: bool = True) -> str:
        """Reduce along an axis: `Sum`, `Max`, `Min`, `Mean`, `SumSquare`, ...."""
        return self.graph.add(f"Reduce{kind}", value, self.graph.const([axis], "int64"), keepdims=int(keep))

    def argmax(self, value: str, *, least: bool = False) -> str:
        """Return the index of the first best column, int64 ("rows",)."""
        return self.graph.add("ArgMin" if least else "ArgMax", value, axis=1, keepdims=0)

    def flat(self, value: str) -> str:
        """Drop the axis of a single column."""
        return self.graph.add("Squeeze", value, self.graph.const([1], "int64"))

    def tall(self, value: str) -> str:
        """Give ("rows",) its column axis."""
        return self.graph.add("Unsqueeze", value, self.graph.const([1], "int64"))

    def softmax(self, value: str) -> str:
        """Return exp(x - max) / sum along columns."""
        return self.graph.add("Softmax", value, axis=1)

    def logistic(self, value: str) -> str:
        """Return 1 / (1 + exp(-x)) computed as scipy's expit does, so that tiny values keep their digits."""
        return self.op("Div", 1.0, self.op("Add", 1.0, self.op("Exp", self.op("Neg", value))))

    def two_columns(self, p: str) -> str:
        """Return [1 - p, p] for p ("rows", 1)."""
        return self.graph.concat([self.op("Sub", 1.0, p), p])

    def normalized(self, value: str, *, guard: bool = False) -> str:
        """Divide each row by its sum; `guard` leaves rows that sum to zero as they are."""
        total = self.reduce("Sum", value)
        if guard:
            total = self.op("Where", self.op("Equal", total, 0.0), 1.0, total)
        return self.op("Div", value, total)

    def distances(self, x: str, points: np.ndarray, metric: str = "euclidean", p: float | None = None) -> str:
        """Return distances to each point, ("rows", points), by differences: exact near zero."""
        points = np.asarray(points, dtype=np.float64)
        if metric == "minkowski":
            metric = {1.0: "manhattan", 2.0: "euclidean"}.get(float(p or 2), "minkowski")
        if metric not in ("euclidean", "l2", "sqeuclidean", "manhattan", "cityblock", "l1", "chebyshev", "minkowski"):
            raise ConversionError(f"the metric {metric!r} has no ONNX form here", hint="use euclidean, manhattan, chebyshev or minkowski")
        parts = self._differences(x, points)
        if metric in ("manhattan", "cityblock", "l1"):
            return self._fold("Add", "Sum", [self.op("Abs", d) for d in parts])
        if metric == "chebyshev":
            return self._fold("Max", "Max", [self.op("Abs", d) for d in parts])
        if metric == "minkowski":
            total = self._fold("Add", "Sum", [self.op("Pow", self.op("Abs", d), float(p or 2)) for d in parts])
            return self.op("Pow", total, 1.0 / float(p or 2))
        total = self._fold("Add", "Sum", [self.op("Mul", d, d) for d in parts])
        return total if metric == "sqeuclidean" else self.op("Sqrt", total)

    def _differences(self, x: str, points: np.ndarray) -> list[str]:
        """Return x - points as one ("rows", points, features), or a ("rows", points) each feature where that is too large."""
        if points.size <= _CELLS or points.shape[1] == 1:
            return [self.op("Sub", self.op("Unsqueeze", x, np.array([1])), points[None])]
        width = points.shape[1]
        return [self.op("Sub", self.column(Frame.of(x, width), j), points[None, :, j]) for j in range(width)]

    def _fold(self, op: str, reduce: str, parts: list[str]) -> str:
        if len(parts) == 1:
            return self.reduce(reduce, parts[0], 2, keep=False)
        total = parts[0]
        for part in parts[1:]:
            total = self.op(op, total, part)
        return total

    def square_distances(self, x: str, points: np.ndarray) -> str:
        """Return |x - p|^2 to each point, ("rows", points)."""
        return self.distances(x, points, "sqeuclidean")

    def per_row(self, x: str, values: Any) -> str:
        """Repeat constants (k,) for every row: ("rows", k)."""
        values = np.asarray(values, dtype=np.float64).reshape(1, -1)
        g = self.graph
        rows = g.add("Shape", x, start=0, end=1)
        shape = g.concat([rows, g.const([values.shape[1]], "int64")], axis=0)
        return g.add("Expand", g.const(values), shape)
