"""The hot path: the public Model.predict, checks included, against a raw `session.run(None, feeds)`."""

from __future__ import annotations

import time

import numpy as np
import onnxruntime

from benchmarks.executor.models import DAILY, graph, open_model, rows
from benchmarks.harness import Bar, Section, geometric_mean, interleave, ratio_row

BARS = {"allow": {1: 0.80, 64: 0.92, 1024: 1.02}, "refuse": {1: 0.90, 64: 0.96, 1024: 1.06}}
_ASLEEP_S = 0.045  # plain onnxruntime's threads spin for 40 ms after a call that used them, on a core its neighbour needs
_LIVES = 4  # a session whose threads sleep early may stay a sixth slower for seconds on a forest; one session would show one state


def bench(quick: bool) -> Section:
    section = Section(
        "hot_path",
        "Model.predict against raw onnxruntime",
        "Both in one process on the same graph. *allow*: missing values may occur; *refuse*: every call looks for them. "
        "Larger batches are timed over several sessions, once every session's threads have gone to sleep and one call woke its own.",
    )
    for batch in (1, 64, 1024):
        found = {rule: [] for rule in BARS}
        for name in DAILY:
            times = _times(name, batch, quick)
            for rule in BARS:
                row = ratio_row(f"{name}, batch {batch}", f"missing {rule}", times[rule], times["raw"])
                section.rows.append(row)
                found[rule].append(row)
        for rule, limits in BARS.items():
            section.bars.append(
                Bar(f"batch {batch}, missing {rule}: geometric mean of four models", *geometric_mean(found[rule]), limits[batch])
            )
    return section


def _times(name: str, batch: int, quick: bool) -> dict[str, np.ndarray]:
    if batch == 1:  # one thread each
        return _life(name, batch, rounds=40 if quick else 120)
    asleep = {"block_s": 1e-2, "before": lambda: time.sleep(_ASLEEP_S)}
    lives = [_life(name, batch, rounds=6 if quick else 20, **asleep) for _ in range(_LIVES)]
    return {variant: np.concatenate([life[variant] for life in lives]) for variant in lives[0]}


def _life(name: str, batch: int, **how) -> dict[str, np.ndarray]:
    """Time one session each."""
    raw = onnxruntime.InferenceSession(graph(name), providers=["CPUExecutionProvider"])
    x = rows(batch)
    feeds = {raw.get_inputs()[0].name: x}
    models = {rule: open_model(graph(name), rule) for rule in BARS}
    for model in models.values():
        _same(raw, feeds, model.predict(x))
    variants = {"raw": lambda: raw.run(None, feeds)} | {rule: lambda m=m: m.predict(x) for rule, m in models.items()}
    times = interleave(variants, **how)
    for model in models.values():
        model.close()
    return times


def _same(raw, feeds, answer) -> None:
    for output, want in zip(raw.get_outputs(), raw.run(None, feeds)):
        np.testing.assert_allclose(answer[output.name], want, rtol=1e-5, atol=1e-6)
