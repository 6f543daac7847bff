"""Measuring calls against a reference in one run: interleaved rounds, paired ratios, bootstrap intervals, a chart.

Absolute times are shown, never judged. Called by `mlbridge bench` and by the benchmark suites.
"""

from __future__ import annotations

import html
import os
import platform
import random
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

__all__ = ["Row", "chart", "interleave", "machine_line", "ratio_row", "time_text"]

_RESAMPLES = 1000
_SEED = 20240601
_WARM_S = 0.5  # what takes longer is warm after one call, and has its own block


@dataclass(frozen=True)
class Row:
    """One case of one variant: its time, and its ratio to the reference with a 95 % interval."""

    case: str
    variant: str
    us: float
    reference_us: float
    ratio: float
    low: float
    high: float
    samples: tuple[float, ...] = field(default=(), repr=False)


def interleave(
    variants: Mapping[str, Callable[[], Any]], *, rounds: int = 60, block_s: float = 1e-3, before: Callable[[], Any] | None = None
) -> dict[str, np.ndarray]:
    """Time functions in rounds, each round in another order; return seconds a call, one value a round.

    Parameters
    ----------
    variants : dict of str to callable
        The first is usually the reference.
    rounds : int
        Rounds; each gives one value a variant.
    block_s : float
        Seconds one value is measured over, at least one call.
    before : callable, optional
        Run untimed before every block.
    """
    names, calls = list(variants), {}
    for name, f in variants.items():
        until = time.perf_counter() + _WARM_S
        for _ in range(12):  # grow memory, bind buffers, learn what a row takes
            began = time.perf_counter()
            f()
            if time.perf_counter() > until:
                break
        calls[name] = max(1, int(block_s / max(time.perf_counter() - began, 1e-7)))
    times: dict[str, list[float]] = {n: [] for n in names}
    shuffle = random.Random(_SEED).shuffle
    for _ in range(rounds):
        shuffle(names)
        for name in names:
            f, n = variants[name], calls[name]
            if before is not None:
                before()
            if n > 1:  # the call before was another variant's; one long call hides that by itself
                f()
            began = time.perf_counter()
            for _ in range(n):
                f()
            times[name].append((time.perf_counter() - began) / n)
    return {n: np.asarray(times[n]) for n in variants}


def ratio_row(case: str, variant: str, times: np.ndarray, reference: np.ndarray) -> Row:
    """Return the median of paired ratios with a bootstrap interval."""
    ratios = times / reference
    rng = np.random.default_rng(_SEED)
    medians = np.median(rng.choice(ratios, (_RESAMPLES, len(ratios))), axis=1)
    low, high = np.quantile(medians, (0.025, 0.975))
    us = 1e6
    return Row(case, variant, us * np.median(times), us * np.median(reference), float(np.median(ratios)), low, high, tuple(medians))


def machine_line() -> str:
    """Describe the machine and the libraries in one line."""
    from importlib import metadata

    from mlbridge.executor.devices import facts

    f = facts()
    versions = []
    for name in ("onnxruntime", "numpy", "scikit-learn"):
        try:
            versions.append(f"{name} {metadata.version(name)}")
        except metadata.PackageNotFoundError:
            continue
    memory = f", {f.memory_bytes >> 30} GiB free" if f.memory_bytes else ""
    load = f", load {os.getloadavg()[0]:.0f} from other work and this" if hasattr(os, "getloadavg") else ""
    return f"{f.devices[0].description}, {f.cores} cores{memory}{load}; {platform.system()}, Python {platform.python_version()}; {', '.join(versions)}"


def time_text(us: float) -> str:
    """Return microseconds in the unit that reads best."""
    return f"{us:,.1f} us" if us < 1e4 else f"{us / 1e3:,.1f} ms" if us < 1e7 else f"{us / 1e6:,.1f} s"


def chart(title: str, rows: Sequence[Row]) -> str:
    """Draw ratios as SVG bars with their intervals; the reference is the line at 1."""
    top = max(1.2, *(min(r.high, 6 * r.ratio) for r in rows))
    left, width, height = 330, 420, 20 * len(rows) + 34

    def x(ratio: float) -> float:
        return left + width * min(ratio, top) / top

    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{left + width + 70}" height="{height}" font-family="sans-serif" font-size="11">',
        f'<rect width="100%" height="100%" fill="white"/><text x="4" y="14" font-weight="bold">{html.escape(title)}</text>',
    ]
    for i, r in enumerate(rows):
        y = 24 + 20 * i
        colour = "#2a7f4f" if r.ratio <= 1 else "#b3572b"
        out.append(f'<text x="4" y="{y + 12}">{html.escape(f"{r.case} · {r.variant}")}</text>')
        out.append(f'<rect x="{left}" y="{y + 2}" width="{x(r.ratio) - left:.1f}" height="12" fill="{colour}"/>')
        out.append(f'<line x1="{x(r.low):.1f}" x2="{x(r.high):.1f}" y1="{y + 8}" y2="{y + 8}" stroke="black"/>')
        out.append(f'<text x="{x(max(r.ratio, r.high)) + 5:.1f}" y="{y + 12}">{r.ratio:.2f}</text>')
    out.append(f'<line x1="{x(1):.1f}" x2="{x(1):.1f}" y1="20" y2="{height - 6}" stroke="#555" stroke-dasharray="3 3"/></svg>')
    return "\n".join(out) + "\n"
