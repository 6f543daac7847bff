"""Starting: a session from the kept optimised model, against a plain session of the same file."""

from __future__ import annotations

import hashlib
import os
import tempfile
import time
from pathlib import Path

import numpy as np
import onnxruntime

from benchmarks.executor.models import transformer
from benchmarks.harness import Bar, Section, geometric_mean, interleave, ratio_row
from mlbridge.executor.engine import Engine
from mlbridge.executor.plans import Plan
from mlbridge.runtimes.onnx import OnnxRuntime

MODELS = {f"encoder, {n} blocks": lambda n=n: transformer(n) for n in (6, 12, 24)}


def bench(quick: bool) -> Section:
    section = Section(
        "start",
        "Starting a session from the cache",
        "*session* is the native session alone; *load* is the whole way of a file: copy, hash, checks recalled, session. "
        "Graphs as exporters write them (layer norms and GELU in small operators). Files under 64 KiB, and graphs that "
        "optimising leaves as they are, are not kept: they start no faster.",
    )
    found = []
    with tempfile.TemporaryDirectory() as folder:
        os.environ["MLBRIDGE_CACHE"] = str(Path(folder, "cache"))
        for name, make in MODELS.items():
            data = make()
            path = Path(folder, "model.onnx")
            path.write_bytes(data)
            digest, plan = hashlib.sha256(data).hexdigest(), Plan()
            OnnxRuntime().load(str(path)).close()  # fills the cache
            variants = {
                "plain": lambda data=data: onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"]),
                "session": lambda data=data, digest=digest, plan=plan: Engine(data, plan, sha256=digest).native(),
                "load": lambda path=path: OnnxRuntime().load(str(path)).close(),
            }
            times = interleave(variants, rounds=20 if quick else 60)
            for variant in ("session", "load"):
                row = ratio_row(name, variant, times[variant], times["plain"])
                section.rows.append(row)
                if variant == "session":
                    found.append(row)
        section.bars.append(Bar("warm start of a session: geometric mean", *geometric_mean(found), 0.6))
        recall = np.asarray([_recall(digest) for _ in range(50)])
        one_ms = ratio_row("recall of a tuned plan", "against 1 ms", recall, np.full(len(recall), 1e-3))
        section.bars.append(Bar("recalling a tuned plan, against 1 ms", one_ms.ratio, one_ms.low, one_ms.high, 1.0))
    return section


def _recall(digest: str) -> float:
    from mlbridge.executor import cache, probing

    key = probing.plan_key(digest)
    cache.write_json("plans", key, {"key": key, "plan": Plan().to_dict(), "rows": 1, "objective": "latency"})
    began = time.perf_counter()
    assert probing.recall(digest, Plan()) is not None
    return time.perf_counter() - began
