"""Tuning: how far its choice is from the best of all candidates, and from plain onnxruntime."""

from __future__ import annotations

import os
import tempfile
import time

import onnxruntime

from benchmarks.executor.models import GRID, graph, open_model, rows
from benchmarks.harness import Bar, Section, geometric_mean, interleave, ratio_row
from mlbridge.executor.engine import Engine
from mlbridge.executor.session import OnnxSession

BATCHES = (1, 8, 64, 1024)
BUDGET_S = 1.0


def bench(quick: bool) -> Section:
    section = Section(
        "tuning",
        "model.tune: the chosen plan against the best of all candidates",
        f"{len(GRID)} models at batches {', '.join(map(str, BATCHES))}, {BUDGET_S:g} s each. *regret* is against the best candidate "
        "measured afterwards, *default* against a plain session.",
    )
    regrets, worst, over = [], None, []
    cells = [(n, b) for n in GRID for b in BATCHES]
    for name, batch in cells[::5] if quick else cells:
        with tempfile.TemporaryDirectory() as folder:
            os.environ["MLBRIDGE_CACHE"] = folder
            regret, default, spent = _cell(name, batch, 12 if quick else 30)
        over.append(spent / BUDGET_S)
        regrets.append(regret)
        section.rows += [regret, default]
        worst = default if worst is None or default.low > worst.low else worst
    section.bars.append(Bar(f"regret: geometric mean of {len(regrets)} cells", *geometric_mean(regrets), 1.08))
    section.bars.append(Bar(f"worst cell against plain onnxruntime ({worst.case})", worst.ratio, worst.low, worst.high, 1.05))
    share = max(over)
    section.bars.append(Bar("probing time over its budget, worst cell", share, share, share, 1.25))
    return section


def _cell(name: str, batch: int, rounds: int):
    model = open_model(graph(name))
    x = rows(batch)
    began = time.perf_counter()
    record = model.tune(x, budget_s=BUDGET_S)
    spent = time.perf_counter() - began
    raw = onnxruntime.InferenceSession(graph(name), providers=["CPUExecutionProvider"])
    feeds = {raw.get_inputs()[0].name: x}
    session = model._session
    others = [
        OnnxSession(Engine(session.engine.model, c.plan), session.signature)
        for c in record.candidates
        if c.plan != record.winner.plan and (c.dropped is None or c.dropped.startswith(("slower", "the budget")))
    ]
    variants = {"raw": lambda: raw.run(None, feeds), "chosen": lambda: session.run(feeds)}
    variants |= {f"candidate {i}": lambda s=s: s.run(feeds) for i, s in enumerate(others)}
    times = interleave(variants, rounds=rounds)
    best = min((k for k in times if k != "raw"), key=lambda k: sorted(times[k])[len(times[k]) // 2])
    case = f"{name}, batch {batch}"
    for s in others:
        s.close()
    model.close()
    return ratio_row(case, "regret", times["chosen"], times[best]), ratio_row(case, "default", times["chosen"], times["raw"]), spent
