"""Ready stages: cast, select, and ensembles (mean, vote, weighted), as Models of ONNX graphs.

Each is a small graph of our own writing, so that it fuses with its neighbours.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ..artifact import open_artifact
from ..conversion.graph import Graph
from ..errors import InputError
from ..model import Model, Route
from ..plugins import runtime
from ..signature import ROWS, Column, Signature, TensorSpec, level_text

__all__ = ["cast", "mean", "select", "vote", "weighted"]


def _model(graph: Graph, name: str) -> Model:
    import tempfile

    onnx = runtime("onnx")
    with tempfile.TemporaryDirectory(prefix="mlbridge-") as folder:
        session = onnx.load(open_artifact(graph.save(Path(folder))), signature=graph.signature)
    return Model(session, runtime=onnx, route=Route("onnx", "a ready stage", "mlbridge"), name=name)


def cast(dtype: str, *, width: int | None = None, columns: Sequence[str] = (), source: str = "float64", missing: str = "allow") -> Model:
    """Make a stage that rounds on purpose.

    Parameters
    ----------
    dtype : {'float32', 'float16', 'float64'}
        To what.
    width : int, optional
        Columns of the block; any unless given.
    columns : sequence of str, optional
        Their names, kept on the output.
    source : str, default='float64'
        From what.
    missing : {'allow', 'refuse'}
        Whether NaN passes.

    Returns
    -------
    Model
        Input `features`, output `features`.
    """
    if dtype not in ("float16", "float32", "float64"):
        raise InputError(f"cast to {dtype!r}, expected 'float16', 'float32' or 'float64'")
    size = len(columns) or width
    shape, names = (ROWS, size), tuple(Column(c) for c in columns)
    graph = Graph(
        Signature(
            [TensorSpec("features", source, shape, names, missing)],  # type: ignore[arg-type]
            [TensorSpec("transformed", dtype, shape, names, missing)],  # type: ignore[arg-type]
        )
    )
    graph.output("transformed", graph.cast("features", dtype))
    return _model(graph, f"cast_{dtype}")


def weighted(
    weights: Sequence[float], *, width: int | None = None, columns: Sequence[str] = (), classes: Sequence[str | int] = ()
) -> Model:
    """Make a stage that averages several numeric answers with fixed weights.

    Parameters
    ----------
    weights : sequence of float
        One an input; they are divided by their sum.
    width : int, optional
        Columns of each answer; one value a row unless given.
    columns : sequence of str, optional
        Names of the columns.
    classes : sequence, optional
        Makes it a classifier's ensemble: the columns are these classes, and `label` is answered too.

    Returns
    -------
    Model
        Inputs `a`, `b`, …, or `x_0`, `x_1`, … beyond 26; output `prediction`, or `label` and `probabilities`.
    """
    share = np.asarray(weights, np.float64)
    if share.ndim != 1 or not len(share) or not np.isfinite(share).all() or share.sum() == 0:
        raise InputError(f"weights are {weights!r}, expected finite numbers with a sum that is not 0")
    share = share / share.sum()
    names = _input_names(len(share))
    columns = [level_text(c) for c in classes] if classes else list(columns)  # type: ignore[arg-type]
    size = len(columns) or width
    shape = (ROWS,) if size is None else (ROWS, size)
    from ..signature import classifier_outputs, prediction_spec

    outputs = classifier_outputs(classes) if classes else (prediction_spec(size, columns=columns),)
    graph = Graph(Signature(tuple(TensorSpec(n, "float64", shape) for n in names), outputs))
    total = None
    for name, w in zip(names, share):
        part = graph.add("Mul", name, graph.const(w))
        total = part if total is None else graph.add("Add", total, part)
    assert total is not None
    if classes:
        graph.output("probabilities", total)
        graph.output("label", graph.cast(graph.add("ArgMax", total, axis=1, keepdims=0), "int32"))
    else:
        graph.output("prediction", total)
    return _model(graph, "weighted")


def mean(n: int, **keywords) -> Model:
    """Make a stage that averages `n` numeric answers; keywords as `weighted`."""
    made = weighted([1.0] * n, **keywords)
    made.name = "mean"
    return made


def vote(n: int, classes: Sequence[str | int]) -> Model:
    """Make a stage that takes the label most of `n` classifiers give; the first class wins ties.

    Parameters
    ----------
    n : int
        How many labels.
    classes : sequence
        The classes all of them share.
    """
    from ..signature import classifier_outputs

    label, shares = classifier_outputs(classes)
    names = _input_names(n)
    graph = Graph(
        Signature(
            tuple(TensorSpec(x, "int32", (ROWS,), (Column(f"label_{x}", categories=tuple(classes)),)) for x in names), (label, shares)
        )
    )
    codes = graph.const(np.arange(len(classes)), "int32")
    total = None
    for name in names:
        hot = graph.cast(graph.add("Equal", graph.add("Unsqueeze", name, graph.const([1], "int64")), codes), "float64")
        total = hot if total is None else graph.add("Add", total, hot)
    assert total is not None
    probabilities = graph.add("Div", total, graph.const(np.float64(n)))
    graph.output("probabilities", probabilities)
    graph.output("label", graph.cast(graph.add("ArgMax", probabilities, axis=1, keepdims=0), "int32"))
    return _model(graph, "vote")


def select(levels: Sequence[str | int] | None = None, *, width: int | None = None, columns: Sequence[str] = ()) -> Model:
    """Make a stage that takes each row's answer from one of several models, by a categorical or a boolean tensor.

    Parameters
    ----------
    levels : sequence of str, int or bool, optional
        Level i takes the row from input i. Without levels `by` is a boolean tensor: true takes input `a`, false `b`.
    width, columns
        Of each answer, as for `weighted`.

    Returns
    -------
    Model
        Inputs `by` and `a`, `b`, …; output `prediction`.
    """
    from ..signature import prediction_spec

    names = _input_names(2 if levels is None else len(levels))
    size = len(columns) or width
    shape = (ROWS,) if size is None else (ROWS, size)
    if levels is None:
        by = TensorSpec("by", "bool", (ROWS,))
    else:
        by = TensorSpec("by", "int32", (ROWS,), (Column("by", categories=tuple(levels)),))  # type: ignore[arg-type]
    graph = Graph(
        Signature(
            (by, *(TensorSpec(n, "float64", shape, missing="allow") for n in names)),
            (prediction_spec(size, columns=columns, missing="allow"),),
        )
    )
    chosen = names[-1]
    for code in range(len(names) - 2, -1, -1):
        hit = "by" if levels is None else graph.add("Equal", "by", graph.const(np.int32(code)))
        if size is not None:
            hit = graph.add("Unsqueeze", hit, graph.const([1], "int64"))
        chosen = graph.add("Where", hit, names[code], chosen)
    graph.output("prediction", chosen)
    return _model(graph, "select")


def _input_names(n: int) -> list[str]:
    if n < 1:
        raise InputError(f"{n} inputs, expected at least one")
    return [chr(ord("a") + i) for i in range(n)] if n <= 26 else [f"x_{i}" for i in range(n)]
