"""Requests a second under h2load: against a bare grpcio echo of the same messages, and batching on against off."""

from __future__ import annotations

import shutil

import grpc
import numpy as np

from benchmarks.harness import Bar, Section, ratio_row
from benchmarks.server.load import echo, h2load
from benchmarks.server.models import METHOD, message, served


def _compare(section: Section, case: str, addresses: dict[str, str], data: bytes, streams: int, rounds: int, limit: float) -> None:
    """Time both by turns; the ratio is time a request over the reference's."""
    times: dict[str, list[float]] = {k: [] for k in addresses}
    for i in range(rounds):
        for name in list(addresses)[:: 1 if i % 2 else -1]:
            load = h2load(addresses[name], METHOD, data, streams=streams, seconds=2)
            if load.failed:
                raise RuntimeError(f"{name}: {load.failed} requests failed")
            times[name].append(1 / load.per_s)
    reference, ours = addresses
    row = ratio_row(case, ours, np.array(times[ours]), np.array(times[reference]))
    section.rows.append(row)
    section.bars.append(Bar(case, row.ratio, row.low, row.high, limit))


def bench(quick: bool) -> Section:
    section = Section(
        "throughput",
        "Throughput over gRPC",
        "Ratios of time a request at saturation: below 1.33 is at least 0.75 of the echo's throughput. Everything is on: access table, "
        "statistics, admission, batching.",
    )
    if shutil.which("h2load") is None:
        section.skipped = "h2load is not installed"
        return section
    rounds = 3 if quick else 9
    data = message()
    with served("logistic") as ours:
        with grpc.insecure_channel(ours) as channel:
            answer = channel.unary_unary(METHOD)(data)
        with echo(answer) as bare:
            for streams in (1, 8, 32):
                _compare(section, f"logistic 1x30, {streams} streams", {"echo": bare, "mlbridge": ours}, data, streams, rounds, 1 / 0.75)
    for kind in ("forest", "native-forest"):
        with served(kind, batching=False) as off, served(kind) as on:
            _compare(section, f"{kind} of 100 trees, 32 streams, batching", {"off": off, "on": on}, data, 32, rounds, 0.5)
            _compare(section, f"{kind} of 100 trees, 1 stream (latency), batching", {"off": off, "on": on}, data, 1, rounds, 1.05)
    return section
