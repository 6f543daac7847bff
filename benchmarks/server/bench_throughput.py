"""Requests a second under h2load against a bare grpcio echo of the same messages."""

from __future__ import annotations

import shutil

import grpc

from benchmarks.harness import Bar, Section
from benchmarks.server.load import METHOD, compare, echo
from benchmarks.server.models import message, served


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
    with served("logistic") as ours:
        with grpc.insecure_channel(ours.address) as channel:
            answer = channel.unary_unary(METHOD)(message())
        with echo(answer) as bare:
            for streams in (1, 8, 32):
                row = compare(
                    section, f"logistic 1x30, {streams} streams", {"echo": bare, "mlbridge": ours}, message(), streams, 7 if quick else 15
                )
                section.bars.append(Bar(row.case, row.ratio, row.low, row.high, 1 / 0.75))
    return section
