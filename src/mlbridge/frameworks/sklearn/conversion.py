"""Write a fitted estimator as one ONNX file that emits exactly the signature's outputs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from ...conversion.graph import Graph
from ...errors import ConversionError
from ...signature import Signature
from .answers import kind_of, quiet
from .emitter import Col, Emitter, Frame
from .native import column_names

__all__ = ["convert", "input_frame"]

_METHOD = {"probabilities": "predict_proba", "decision": "decision_function", "score": "decision_function"}


def convert(model: Any, folder: Path, signature: Signature) -> Path:
    """Write the model's graph into `folder`.

    Raises
    ------
    ConversionError
        If a step has no exact ONNX form.
    """
    graph = Graph(signature)
    emitter = Emitter(graph)
    with quiet(), np.errstate(all="ignore"):
        frame = input_frame(model, signature, emitter)
        try:
            _emit_outputs(emitter, model, frame, signature)
        except (AttributeError, KeyError, IndexError, ValueError, TypeError) as exc:
            if isinstance(exc, ConversionError):
                raise
            raise ConversionError(
                f"{type(model).__name__}: its fitted state is not what its class promises: {exc}", hint="use via='native'"
            ) from exc
    return graph.save(Path(folder))


def input_frame(model: Any, signature: Signature, emitter: Emitter) -> Frame:
    """Return the graph's inputs as the columns the model was trained on, in order."""
    names = column_names(model)
    cols: dict[str, Col] = {}
    for spec in signature.inputs:
        block = emitter.tall(spec.name) if len(spec.shape) == 1 else spec.name
        if not spec.columns:
            width = spec.shape[1] if len(spec.shape) == 2 and isinstance(spec.shape[1], int) else 1
            return Frame(tuple(Col(block, i, width, spec.dtype) for i in range(width)))
        for i, c in enumerate(spec.columns):
            cols[c.name] = Col(block, i, len(spec.columns), spec.dtype, c.name, c.categories)
    return Frame(tuple(cols[n] for n in (cols if names is None else names) if n in cols))


def _emit_outputs(e: Emitter, model: Any, frame: Frame, signature: Signature) -> None:
    kind, g = kind_of(model), e.graph
    targets = sum(s.name.startswith("label_") for s in signature.outputs)
    for spec in signature.outputs:
        stem, _, number = spec.name.rpartition("_")
        name, at = (stem, int(number)) if number.isdigit() and targets else (spec.name, None)
        if name == "label":
            value = e.predict(model, frame)
            value = value[at] if at is not None else value
            value = g.cast(value, spec.dtype) if spec.columns else _fractional(e, model, value, at)
        elif name == "prediction":
            value = g.cast(e.predict(model, frame), spec.dtype)
        elif name == "cluster":
            value = e.predict(model, frame)
        elif name == "transformed":
            if len(spec.shape) > 2:
                g.output(spec.name, g.cast(e.call(model, "transform", frame), spec.dtype))
                continue
            out = e.transform(model, frame)
            if spec.dtype == "string":
                raise ConversionError("the transformer answers text, which has no missing value in ONNX", hint="use via='native'")
            value = e.matrix(out, spec.dtype) if len(spec.shape) == 2 else e.flat(e.matrix(out, spec.dtype))
        else:
            method = "score_samples" if kind == "density" else _METHOD[name]
            value = _target(e, e.call(model, method, frame), at, spec, targets)
            value = g.cast(value, spec.dtype)
        g.output(spec.name, value)


def _target(e: Emitter, value: Any, at: int | None, spec: Any, targets: int) -> str:
    """Pick one target of several: from a list, or from a matrix of the labels' positive scores."""
    if at is None:
        return value
    if isinstance(value, list):
        return value[at]
    column = e.column(Frame.of(value, targets), at)
    return e.two_columns(column) if len(spec.shape) == 2 else e.flat(column)


def _fractional(e: Emitter, model: Any, codes: str, at: int | None) -> str:
    classes = model.classes_ if at is None else model.classes_[at]
    return e.op("Gather", np.asarray(classes, dtype=np.float64), codes)
