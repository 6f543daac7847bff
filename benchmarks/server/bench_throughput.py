"""Requests a second under h2load: against a bare grpcio echo of the same messages, and batching on against off."""

from __future__ import annotations

import shutil
from collections.abc import Mapping

import grpc

from benchmarks.harness import Bar, Section, ratio_row
from benchmarks.server.load import METHOD, Process, echo, take_turns
from benchmarks.server.models import message, served


def _compare(section: Section, case: str, servers: Mapping[str, Process], data: bytes, rounds: int, limit: float | None) -> None:
    """Load both by turns; the ratio is time a request over the reference's, the first one's."""
    streams = int(case.partition(" stream")[0].rpartition(" ")[2])
    times, cpu = take_turns(servers, data, streams=streams, rounds=rounds)
    reference, ours = servers
    row = ratio_row(case, ours, times[ours], times[reference])
    section.rows.append(row)
    if limit is not None:
        section.bars.append(Bar(case, row.ratio, row.low, row.high, limit))
    section.note += f" {case}: {1e6 * cpu[ours]:.0f} us of processor a request against {1e6 * cpu[reference]:.0f}."


def bench(quick: bool) -> Section:
    section = Section(
        "throughput",
        "Throughput over gRPC",
        "Ratios of time a request at saturation: below 1.33 is at least 0.75 of the echo's throughput. Everything is on: access table, "
        "statistics, admission, batching. A converted forest takes some microseconds a row and next to nothing a call, so a batch "
        "saves nothing there; scikit-learn's own takes milliseconds a call, and a batch shares them.",
    )
    if shutil.which("h2load") is None:
        section.skipped = "h2load is not installed"
        return section
    rounds = 7 if quick else 25
    with served("logistic") as ours:
        with grpc.insecure_channel(ours.address) as channel:
            answer = channel.unary_unary(METHOD)(message())
        with echo(answer) as bare:
            for streams in (1, 8, 32):
                _compare(section, f"logistic 1x30, {streams} streams", {"echo": bare, "mlbridge": ours}, message(), rounds, 1 / 0.75)
    data = message(datatype="FP32")
    for kind, limit in (("native-forest", 0.5), ("forest", None)):
        with served(kind, batching=False) as off, served(kind) as on:
            _compare(section, f"{kind} of 100 trees, 32 streams, batching", {"off": off, "on": on}, data, rounds, limit)
            _compare(section, f"{kind} of 100 trees, 1 stream (latency), batching", {"off": off, "on": on}, data, rounds, 1.05)
    return section
