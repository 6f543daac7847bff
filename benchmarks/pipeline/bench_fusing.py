"""Fusing: four-stage pipelines as one graph against their stages one by one; and what the composer itself adds a stage."""

from __future__ import annotations

import itertools

import numpy as np

import mlbridge as mb
from benchmarks.harness import Bar, Section, geometric_mean, interleave, ratio_row

FASTER = {1: 4.0, 64: 2.2, 1024: 1.2}
OWN_US = 3.0
WIDTH = 30


def bench(quick: bool) -> Section:
    section = Section(
        "fusing",
        "Fusing pipelines of four ONNX stages",
        "Scaler, principal components, scaler, then a logistic regression or a ridge regression (scikit-learn); and a scaler before "
        "three stages of torch. *one by one*: each stage's public `Model.run`, by hand; *onnxruntime one by one*: the same files by "
        "its `session.run(None, …)`; *pipeline*: the stages composed. Bars are on the geometric mean of *one by one* over fused. The "
        f"last row is what composing two stages adds to their sessions' own time at batch 1, a stage, over {OWN_US:g} us.",
    )
    X, pipelines = _pipelines()
    rounds = 40 if quick else 120
    by_batch: dict[int, list] = {batch: [] for batch in FASTER}
    for name, stages in pipelines.items():
        with mb.Pipeline("four", stages) as pipeline, pipeline.fuse(X[:64]) as fused:
            by_hand, raw = _one_by_one(list(stages.values())), _raw_one_by_one(list(stages.values()))
            answer = fused.signature.outputs[-1].name
            for batch in FASTER:
                x = np.ascontiguousarray(X[:batch])
                np.testing.assert_allclose(fused.predict(x)[answer], by_hand(x)[answer], rtol=1e-9, atol=1e-12)
                np.testing.assert_allclose(pipeline.predict(x)[answer], raw(x), rtol=1e-12)
                variants = {
                    "fused": lambda x=x: fused.predict(x),
                    "one by one": lambda x=x, by_hand=by_hand: by_hand(x),
                    "onnxruntime one by one": lambda x=x, raw=raw: raw(x),
                    "pipeline": lambda x=x: pipeline.predict(x),
                }
                times = interleave(variants, rounds=rounds)
                rows = [ratio_row(f"{name}, batch {batch}", f"{v} over fused", times[v], times["fused"]) for v in variants if v != "fused"]
                section.rows += rows
                by_batch[batch].append(rows[0])
    for batch, limit in FASTER.items():
        ratio, low, high = geometric_mean(by_batch[batch])
        section.bars.append(Bar(f"fused faster than stage by stage, batch {batch}", ratio, low, high, limit, ">="))
    own = _own_time(pipelines["logistic regression"], X, 40 if quick else 160)
    section.rows.append(own)
    section.bars.append(Bar(f"our own time a stage at batch 1, over {OWN_US:g} us", own.ratio, own.low, own.high, 1.0))
    for stages in pipelines.values():
        for model in stages.values():
            model.close()
    return section


def _pipelines() -> tuple[np.ndarray, dict[str, dict[str, mb.Model]]]:
    import torch
    from sklearn.decomposition import PCA
    from sklearn.linear_model import LogisticRegression, Ridge
    from sklearn.preprocessing import StandardScaler

    X = np.random.default_rng(0).normal(size=(2000, WIDTH))
    y = X[:, 0] + X[:, 1]
    prepared, x = {}, X
    for name, step in {"scale": StandardScaler(), "reduce": PCA(20), "whiten": StandardScaler()}.items():
        prepared[name] = mb.wrap(step.fit(x), sample=x[:64])
        x = step.transform(x)
    made = {
        "logistic regression": prepared | {"score": mb.wrap(LogisticRegression().fit(x, y > 0), sample=x[:64])},
        "ridge": prepared | {"score": mb.wrap(Ridge().fit(x, y), sample=x[:64])},
    }
    torch.manual_seed(0)
    layers = {
        "embed": torch.nn.Sequential(torch.nn.Linear(WIDTH, 64), torch.nn.ReLU()),
        "logits": torch.nn.Linear(64, 2),
        "softmax": torch.nn.Softmax(-1),
    }
    network = {"scale": prepared["scale"]}
    value = torch.tensor(StandardScaler().fit_transform(X))
    for name, layer in layers.items():
        network[name] = mb.wrap(layer.double(), sample=value[:64].numpy())
        value = layer(value).detach()
    made["torch"] = network
    return X, made


def _one_by_one(models: list[mb.Model]):
    names = [(m.signature.inputs[0].name, m.signature.outputs[-1].name) for m in models]

    def call(x):
        for model, (given, answer) in zip(models, names):
            out = model.run({given: x})
            x = out[answer]
        return out

    return call


def _raw_one_by_one(models: list[mb.Model]):
    import onnxruntime

    sessions = [onnxruntime.InferenceSession(m._session.engine.model, providers=["CPUExecutionProvider"]) for m in models]
    names = [s.get_inputs()[0].name for s in sessions]

    def call(x):
        for session, given in zip(sessions, names):
            x = session.run(None, {given: x})[-1]
        return x

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
