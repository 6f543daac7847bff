"""Counts and durations of one model version: what ModelStatistics answers and metrics are read from.

Written once per request under one lock; everything derived is computed when somebody asks.
"""

from __future__ import annotations

import threading
import time
from bisect import bisect_left
from collections import Counter

__all__ = ["BATCH_BOUNDS", "Statistics"]

BATCH_BOUNDS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)  # rows of a call, for histograms
_TIME_BOUNDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0)  # seconds of a request
_MAX_SIZES = 256  # different batch sizes kept one by one; beyond, sizes are rounded up to a power of two


class Statistics:
    """Totals since the model was loaded; durations are nanoseconds."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.success = self.success_ns = 0
        self.fail = self.fail_ns = 0
        self.queue_ns = self.input_ns = self.infer_ns = self.output_ns = 0
        self.rows = 0
        self.executions = self.execution_ns = 0
        self.last_ms = 0
        self.codes: Counter[str] = Counter()
        self.batches: dict[int, list[int]] = {}
        self.latency = [0] * (len(_TIME_BOUNDS) + 1)

    def answered(self, rows: int, total_ns: int, queue_ns: int, input_ns: int, output_ns: int) -> None:
        """Count a request that was answered."""
        at = bisect_left(_TIME_BOUNDS, total_ns * 1e-9)
        with self._lock:
            self.success += 1
            self.success_ns += total_ns
            self.queue_ns += queue_ns
            self.input_ns += input_ns
            self.output_ns += output_ns
            self.infer_ns += total_ns - queue_ns - input_ns - output_ns
            self.rows += rows
            self.latency[at] += 1
            self.last_ms = time.time_ns() // 1_000_000

    def failed(self, code: str, total_ns: int) -> None:
        """Count a request that failed, refused input among them."""
        with self._lock:
            self.fail += 1
            self.fail_ns += total_ns
            self.codes[code] += 1

    def executed(self, requests: int, rows: int, took_ns: int) -> None:
        """Count one call of the model."""
        with self._lock:
            self.executions += 1
            self.execution_ns += took_ns
            entry = self.batches.get(rows)
            if entry is None:
                if len(self.batches) >= _MAX_SIZES:
                    rows = 1 << (rows - 1).bit_length()
                entry = self.batches.setdefault(rows, [0, 0])
            entry[0] += 1
            entry[1] += took_ns

    def latency_buckets(self) -> tuple[list[tuple[str, float]], float]:
        """Return cumulative buckets of request seconds and their sum, as metrics want them."""
        with self._lock:
            counts, total = list(self.latency), self.success_ns * 1e-9
        out, running = [], 0
        for bound, count in zip((*map(str, _TIME_BOUNDS), "+Inf"), counts):
            running += count
            out.append((bound, float(running)))
        return out, total

    def batch_buckets(self) -> tuple[list[tuple[str, float]], float]:
        """Return cumulative buckets of rows per call and their sum."""
        with self._lock:
            sizes = [(rows, n) for rows, (n, _) in self.batches.items()]
        out = [(str(b), float(sum(n for rows, n in sizes if rows <= b))) for b in BATCH_BOUNDS]
        out.append(("+Inf", float(sum(n for _, n in sizes))))
        return out, float(sum(rows * n for rows, n in sizes))
