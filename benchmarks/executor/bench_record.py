"""One record: a 30-column mixed table fed as a dict of values, against raw onnxruntime on its prepared blocks."""

from __future__ import annotations

import warnings

import numpy as np
import onnxruntime

import mlbridge as mb
from benchmarks.harness import Bar, Section, interleave, ratio_row


def bench(quick: bool) -> Section:
    section = Section(
        "record",
        "One record of a 30-column mixed table",
        "20 numeric and 10 categorical columns into a scikit-learn pipeline; the reference gets the blocks ready-made.",
    )
    table, model = _model()
    record = {k: v.item() if hasattr(v, "item") else v for k, v in table.iloc[0].items()}
    feeds, _ = model._coercion.feeds(record)
    raw = onnxruntime.InferenceSession(model._session.engine.model, providers=["CPUExecutionProvider"])
    for output, want in zip(raw.get_outputs(), raw.run(None, feeds)):
        np.testing.assert_array_equal(model.run(feeds)[output.name], want)
    variants = {"raw": lambda: raw.run(None, feeds), "record": lambda: model.predict(record), "blocks": lambda: model.run(feeds)}
    times = interleave(variants, rounds=40 if quick else 120)
    for name in ("record", "blocks"):
        section.rows.append(ratio_row("30 columns, one row", name, times[name], times["raw"]))
    first = section.rows[0]
    section.bars.append(Bar("one record against raw on prepared blocks", first.ratio, first.low, first.high, 4.0))
    model.close()
    return section


def _model():
    import pandas as pd
    from sklearn.compose import make_column_transformer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OneHotEncoder, StandardScaler

    rng = np.random.default_rng(0)
    numeric, levels = [f"n{i}" for i in range(20)], [f"c{i}" for i in range(10)]
    table = pd.DataFrame(rng.normal(size=(400, 20)), columns=numeric)
    for name in levels:
        table[name] = pd.Categorical(rng.choice(["low", "middle", "high"], 400))
    y = (table["n0"] + (table["c0"] == "high") > 0).astype(int)
    steps = make_column_transformer((StandardScaler(), numeric), (OneHotEncoder(), levels))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        fitted = make_pipeline(steps, LogisticRegression(max_iter=300)).fit(table, y)
    return table, mb.wrap(fitted, table.head(40))
