"""Converted models, as `mlbridge.wrap` makes them: against raw onnxruntime on their graph, and against scikit-learn."""

from __future__ import annotations

import numpy as np
import onnxruntime

import mlbridge as mb
from benchmarks.executor.models import DAILY, data, estimator
from benchmarks.harness import Bar, Section, geometric_mean, interleave, ratio_row

FASTER = {"logistic regression": 10, "scaler + logistic regression": 10, "100-tree forest": 200}


def bench(quick: bool) -> Section:
    section = Section(
        "wrapped",
        "Wrapped scikit-learn models against raw onnxruntime and against scikit-learn",
        "Float64 graphs with labels decoded to their values. The scikit-learn rows are the time of its `predict_proba` over ours, at batch 1.",
    )
    X = data()[0].astype("f8")
    at_one = []
    for name in DAILY:
        native = estimator(name)
        model = mb.wrap(native, X[:40])
        raw = onnxruntime.InferenceSession(model._session.engine.model, providers=["CPUExecutionProvider"])
        dtype = model.signature.inputs[0].dtype
        for batch in (1, 64, 1024):
            x = np.ascontiguousarray(X[:batch].astype(dtype))
            feeds = {raw.get_inputs()[0].name: x}
            np.testing.assert_allclose(model.predict(x)["probabilities"], native.predict_proba(x), rtol=1e-4, atol=1e-6)
            variants = {"raw": lambda raw=raw, feeds=feeds: raw.run(None, feeds), "ours": lambda m=model, x=x: m.predict(x)}
            if batch == 1:
                variants["native"] = lambda n=native, x=x: n.predict_proba(x)
            times = interleave(variants, rounds=25 if quick else 80)
            row = ratio_row(f"{name}, batch {batch}", "against raw", times["ours"], times["raw"])
            section.rows.append(row)
            if batch == 1:
                at_one.append(row)
                if name in FASTER:
                    speed = ratio_row(name, "scikit-learn over ours", times["native"], times["ours"])
                    section.bars.append(Bar(f"{name}: faster than scikit-learn", speed.ratio, speed.low, speed.high, FASTER[name], ">="))
        model.close()
    section.bars.append(Bar("batch 1 against raw: geometric mean of four models", *geometric_mean(at_one), 1.10))
    return section
