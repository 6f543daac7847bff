"""Threads: two callers of one tiny model, and what a paced service burns."""

from __future__ import annotations

import threading
import time

import numpy as np
import onnxruntime

from benchmarks.executor.models import DAILY, graph, open_model, rows
from benchmarks.harness import Bar, Section, geometric_mean, ratio_row

RATE = 500


def bench(quick: bool) -> Section:
    section = Section(
        "threads",
        "Two threads on a tiny model, and idle use at 500 requests/s",
        "Throughput rows: two threads over one, raw onnxruntime beside. Idle rows: processor seconds a second, over 0.3 cores.",
    )
    raw = onnxruntime.InferenceSession(graph(DAILY[0]), providers=["CPUExecutionProvider"])
    x = rows(1)
    feeds = {raw.get_inputs()[0].name: x}
    model = open_model(graph(DAILY[0]))
    for name, call in {"ours": lambda: model.predict(x), "raw": lambda: raw.run(None, feeds)}.items():
        pairs = np.asarray([(_rate(call, 1), _rate(call, 2)) for _ in range(6 if quick else 14)])
        row = ratio_row("two threads over one", name, pairs[:, 1], pairs[:, 0])
        section.rows.append(row)
        if name == "ours":
            section.bars.append(Bar("two threads over one, tiny model", row.ratio, row.low, row.high, 0.60, ">="))
    model.close()
    paced = []
    for name in DAILY:
        model = open_model(graph(name))
        burnt = np.asarray([_burnt(lambda m=model: m.predict(x), 0.5 if quick else 1.0) for _ in range(3 if quick else 6)])
        paced.append(ratio_row(f"{name}, {RATE} requests/s", "cores over 0.3", burnt, np.full(len(burnt), 0.3)))
        model.close()
    section.rows += paced
    section.bars.append(Bar(f"cores burnt at {RATE} requests/s, over 0.3: geometric mean", *geometric_mean(paced), 1.0))
    return section


def _rate(call, threads: int, seconds: float = 0.25) -> float:
    counts, stop = [0] * threads, threading.Event()

    def work(i: int) -> None:
        n = 0
        while not stop.is_set():
            for _ in range(50):
                call()
            n += 50
        counts[i] = n

    workers = [threading.Thread(target=work, args=(i,)) for i in range(threads)]
    began = time.perf_counter()
    for w in workers:
        w.start()
    time.sleep(seconds)
    stop.set()
    for w in workers:
        w.join()
    return sum(counts) / (time.perf_counter() - began)


def _burnt(call, seconds: float) -> float:
    for _ in range(20):
        call()
    began, used = time.perf_counter(), time.process_time()
    due = began
    while due < began + seconds:
        call()
        due += 1 / RATE
        time.sleep(max(0.0, due - time.perf_counter()))
    return (time.process_time() - used) / (time.perf_counter() - began)
