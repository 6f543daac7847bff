"""The benchmark harness: sections, their bars, JSON, tables and charts; `mlbridge.measuring` times.

A suite is a file `benchmarks/<room>/bench_<name>.py` with a function `bench(quick)` that returns a Section. Every ratio
is against a reference timed in the same rounds of the same process; absolute times are shown, never judged.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Literal

import numpy as np

from mlbridge.measuring import Row, chart, interleave, machine_line, ratio_row, time_text

__all__ = ["Bar", "Row", "Section", "among_earlier", "geometric_mean", "interleave", "machine_line", "ratio_row", "render"]


@dataclass(frozen=True)
class Bar:
    """A promise about a ratio: broken only where the whole interval is on the wrong side."""

    name: str
    ratio: float
    low: float
    high: float
    limit: float
    sense: Literal["<=", ">="] = "<="

    @property
    def met(self) -> bool:
        """Whether the measured middle keeps the promise."""
        return self.ratio <= self.limit if self.sense == "<=" else self.ratio >= self.limit

    @property
    def broken(self) -> bool:
        """Whether the promise is broken beyond doubt."""
        return self.low > self.limit if self.sense == "<=" else self.high < self.limit


@dataclass
class Section:
    """What one suite found."""

    name: str
    title: str
    note: str = ""
    rows: list[Row] = field(default_factory=list)
    bars: list[Bar] = field(default_factory=list)
    skipped: str = ""


def geometric_mean(rows: Iterable[Row]) -> tuple[float, float, float]:
    """Return the geometric mean of the rows' ratios with its interval; rows are independent."""
    rows = list(rows)
    means = np.exp(np.mean(np.log([r.samples for r in rows]), axis=0))
    return math.exp(sum(math.log(r.ratio) for r in rows) / len(rows)), float(np.quantile(means, 0.025)), float(np.quantile(means, 0.975))


# ---------------------------------------------------------------- rendering


def render(sections: Sequence[Section], folder: Path, *, quick: bool = False) -> None:
    """Write `results.json`, `README.md` and one chart a section under `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    data = {"machine": machine_line(), "quick": quick, "sections": [asdict(s) for s in sections]}
    for section in data["sections"]:
        for row in section["rows"]:
            del row["samples"]
    (folder / "results.json").write_text(json.dumps(data, indent=1, default=float) + "\n", "utf-8")
    parts = [
        "# Benchmarks\n",
        f"Measured on: {data['machine']}.{' Quick run: fewer rounds, seven of the 32 tuning cells.' if quick else ''}\n",
        "Ratios are against a reference timed in the same rounds; the interval is a 95 % bootstrap. Run them with `make bench`.\n",
    ]
    for s in sections:
        parts.append(f"## {s.title}\n")
        if s.skipped:
            parts.append(f"Not run: {s.skipped}.\n")
            continue
        if s.note:
            parts.append(s.note + "\n")
        if s.bars:
            parts.append("| promise | measured | 95 % interval | limit | |\n|---|---|---|---|---|")
            parts += [f"| {b.name} | {b.ratio:.2f} | {b.low:.2f} – {b.high:.2f} | {b.sense} {b.limit:g} | {_word(b)} |" for b in s.bars]
            parts.append("")
        if s.rows:
            (folder / f"{s.name}.svg").write_text(chart(s.title, s.rows), "utf-8")
            parts.append(f"![{s.title}]({s.name}.svg)\n")
            parts.append("| case | variant | time | reference | ratio | 95 % interval |\n|---|---|---|---|---|---|")
            parts += [
                f"| {r.case} | {r.variant} | {time_text(r.us)} | {time_text(r.reference_us)} | {r.ratio:.2f} | {r.low:.2f} – {r.high:.2f} |"
                for r in s.rows
            ]
            parts.append("")
    (folder / "README.md").write_text("\n".join(parts) + "\n", "utf-8")


def among_earlier(sections: Sequence[Section], folder: Path) -> list[Section]:
    """Put new sections among those that were rendered into `folder` before, in their places."""
    try:
        before = json.loads((folder / "results.json").read_text("utf-8"))["sections"]
    except FileNotFoundError:
        return list(sections)
    bars = [f.name for f in fields(Bar)]
    found = {
        s["name"]: Section(**s | {"rows": [Row(**r) for r in s["rows"]], "bars": [Bar(**{n: b[n] for n in bars}) for b in s["bars"]]})
        for s in before
    }
    return [*(found | {s.name: s for s in sections}).values()]


def _word(bar: Bar) -> str:
    return "kept" if bar.met else "**broken**" if bar.broken else "within noise"
