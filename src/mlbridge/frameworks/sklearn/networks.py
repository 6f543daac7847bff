"""Multilayer perceptrons."""

from __future__ import annotations

from typing import Any

import numpy as np

from .emitter import Emitter, Frame, emits


def _activate(e: Emitter, x: str, name: str) -> str:
    if name == "identity":
        return x
    if name == "softmax":
        return e.softmax(x)
    if name == "logistic":
        return e.logistic(x)
    return e.op({"tanh": "Tanh", "relu": "Relu"}[name], x)


def _forward(e: Emitter, est: Any, frame: Frame) -> str:
    x = e.matrix(frame)
    for i, (w, b) in enumerate(zip(est.coefs_, est.intercepts_, strict=True)):
        x = e.op("Add", e.op("MatMul", x, np.asarray(w, dtype=np.float64)), np.asarray(b, dtype=np.float64))
        x = _activate(e, x, est.activation if i < len(est.coefs_) - 1 else est.out_activation_)
        x = e.op("Add", x, 0.0) if i == len(est.coefs_) - 1 else x
    return x


@emits("predict", "MLPRegressor")
def predict(e: Emitter, est: Any, frame: Frame) -> str:
    """Emit the forward pass."""
    out = _forward(e, est, frame)
    return e.flat(out) if est.n_outputs_ == 1 else out


@emits("predict_proba", "MLPClassifier")
def proba(e: Emitter, est: Any, frame: Frame) -> str:
    """Emit the forward pass; two columns for two classes."""
    out = _forward(e, est, frame)
    return e.two_columns(out) if est.n_outputs_ == 1 else out


@emits("predict", "MLPClassifier")
def label(e: Emitter, est: Any, frame: Frame) -> Any:
    """Emit the class above one half, or the greatest; one code a label for several labels."""
    out = _forward(e, est, frame)
    if est.out_activation_ == "softmax":
        return e.argmax(out)
    hits = e.graph.cast(e.op("Greater", out, 0.5), "int64")
    if est.n_outputs_ == 1:
        return e.flat(hits)
    return [e.flat(e.op("Gather", hits, np.array([i]), axis=1)) for i in range(est.n_outputs_)]
