"""Requests a second under h2load, and the latency of one alone: batching on against batching off."""

from __future__ import annotations

import shutil

from benchmarks.harness import Bar, Section
from benchmarks.server.load import compare
from benchmarks.server.models import message, served


def bench(quick: bool) -> Section:
    section = Section(
        "batching",
        "Batching on against off",
        "Ratios of time a request. A converted forest takes some microseconds a row and next to nothing a call, so a batch saves nothing "
        "there; scikit-learn's own takes milliseconds a call, and a batch shares them.",
    )
    if shutil.which("h2load") is None:
        section.skipped = "h2load is not installed"
        return section
    data = message(datatype="FP32")
    for kind, limit in (("native-forest", 0.5), ("forest", None)):
        with served(kind, batching=False) as off, served(kind) as on:
            for streams, bar in ((32, limit), (1, 1.05)):
                case = f"{kind} of 100 trees, {streams} stream{'s' if streams > 1 else ' (latency)'}"
                row = compare(section, case, {"off": off, "on": on}, data, streams, 7 if quick else 15)
                if bar is not None:
                    section.bars.append(Bar(f"{case}, batching", row.ratio, row.low, row.high, bar))
    return section
