"""Fusing: a four-stage pipeline as one graph against its stages one by one; and what the composer itself adds a stage."""

from __future__ import annotations

import itertools

import numpy as np

import mlbridge as mb
from benchmarks.harness import Bar, Section, interleave, ratio_row

FASTER = {1: 4.0, 64: 2.2, 1024: 1.2}
OWN_US = 3.0
WIDTH = 30


def bench(quick: bool) -> Section:
    section = Section(
        "fusing",
        "Fusing a pipeline of four ONNX stages",
        "A scaler, principal components, another scaler and a logistic regression, each wrapped by itself. *one by one*: each "
        "stage's public `Model.run`, by hand; *pipeline*: the same stages composed. The last row is what composing two stages adds "
        f"to their sessions' own time at batch 1, a stage, over {OWN_US:g} us.",
    )
    X, stages = _stages()
    with mb.Pipeline("four", stages) as pipeline, pipeline.fuse(X[:64]) as fused:
        for batch, limit in FASTER.items():
            x = np.ascontiguousarray(X[:batch])
            by_hand = _one_by_one(list(stages.values()))
            np.testing.assert_allclose(fused.predict(x)["probabilities"], by_hand(x)["probabilities"], rtol=1e-9)
            np.testing.assert_allclose(pipeline.predict(x)["probabilities"], by_hand(x)["probabilities"], rtol=1e-12)
            variants = {
                "fused": lambda x=x: fused.predict(x),
                "one by one": lambda x=x, by_hand=by_hand: by_hand(x),
                "pipeline": lambda x=x: pipeline.predict(x),
            }
            times = interleave(variants, rounds=40 if quick else 120)
            for name in ("one by one", "pipeline"):
                section.rows.append(ratio_row(f"four stages, batch {batch}", f"{name} over fused", times[name], times["fused"]))
            row = section.rows[-2]
            section.bars.append(Bar(f"fused faster than stage by stage, batch {batch}", row.ratio, row.low, row.high, limit, ">="))
    section.rows.append(_own_time(stages, X, 40 if quick else 160))
    own = section.rows[-1]
    section.bars.append(Bar(f"our own time a stage at batch 1, over {OWN_US:g} us", own.ratio, own.low, own.high, 1.0))
    for model in stages.values():
        model.close()
    return section


def _stages() -> tuple[np.ndarray, dict[str, mb.Model]]:
    from sklearn.decomposition import PCA
    from sklearn.linear_model import LogisticRegression
    from sklearn.preprocessing import StandardScaler

    X = np.random.default_rng(0).normal(size=(2000, WIDTH))
    y = (X[:, 0] + X[:, 1] > 0).astype(int)
    made, x = {}, X
    for name, step in {"scale": StandardScaler(), "reduce": PCA(20), "whiten": StandardScaler()}.items():
        made[name] = mb.wrap(step.fit(x), sample=x[:64])
        x = step.transform(x)
    made["score"] = mb.wrap(LogisticRegression().fit(x, y), sample=x[:64])
    return X, made


def _one_by_one(models: list[mb.Model]):
    names = [(m.signature.inputs[0].name, m.signature.outputs[0].name) for m in models]

    def call(x):
        for model, (given, answer) in zip(models, names):
            out = model.run({given: x})
            x = out[answer]
        return out

    return call


def _own_time(stages: dict[str, mb.Model], X: np.ndarray, rounds: int):
    """Compare `Pipeline.run` of two stages with their two sessions called in a row; the difference is ours."""
    pair = dict(itertools.islice(stages.items(), 2))
    (a, first), (b, second) = pair.items()
    x = np.ascontiguousarray(X[:1])
    run_a, run_b, key, inner = first._session.run, second._session.run, second.signature.inputs[0].name, first.signature.outputs[0].name
    with mb.Pipeline("two", pair) as pipeline:
        session = pipeline._session
        variants = {
            "sessions": lambda: run_b({key: run_a({"features": x})[inner]}),
            "pipeline": lambda: session.run({"features": x}),
        }
        times = interleave(variants, rounds=rounds)
    own = (times["pipeline"] - times["sessions"]) / 2
    return ratio_row(f"{a} >> {b}, batch 1", f"own time a stage over {OWN_US:g} us", own, np.full(len(own), OWN_US * 1e-6))
