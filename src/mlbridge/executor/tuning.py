"""Tuning: the record of what was measured, to print, to show in a notebook, and to decide from."""

from __future__ import annotations

import html
import statistics
from dataclasses import dataclass, field
from typing import Any

from .plans import Plan

__all__ = ["Candidate", "Tuning"]


@dataclass(eq=False)
class Candidate:
    """One plan and what was measured of it.

    Attributes
    ----------
    plan : Plan
        What it was.
    times : list of float
        Seconds a call, one entry a block.
    dropped : str or None
        Why it was not taken further.
    placement : dict
        Share of nodes per provider.
    ratio : tuple of three floats, or None
        Time against plain onnxruntime: median, lower and upper 95 % bound.
    """

    plan: Plan
    times: list[float] = field(default_factory=list)
    dropped: str | None = None
    placement: dict[str, float] = field(default_factory=dict)
    ratio: tuple[float, float, float] | None = None
    session: Any = None
    calls: int = 1

    @property
    def median_s(self) -> float:
        """Median seconds a call; infinite where nothing was measured."""
        return statistics.median(self.times) if self.times else float("inf")

    @property
    def quick_s(self) -> float:
        """Lower quartile of the seconds a call: neighbours on the machine only ever add."""
        return sorted(self.times)[len(self.times) // 4] if self.times else float("inf")

    def close(self) -> None:
        """Free its session."""
        if self.session is not None:
            self.session.close()
            self.session = None


@dataclass(frozen=True)
class Tuning:
    """What a tuning tried and found.

    Attributes
    ----------
    objective : str
        `latency` or `throughput`.
    rows : int
        Rows of the sample.
    budget_s, spent_s : float
        Seconds allowed, and taken.
    candidates : tuple of Candidate
        Plain onnxruntime first.
    winner : Candidate
        What the session runs by now.
    """

    objective: str
    rows: int
    budget_s: float
    spent_s: float
    candidates: tuple[Candidate, ...]
    winner: Candidate

    @property
    def plan(self) -> Plan:
        """The plan that won."""
        return self.winner.plan

    def summary(self) -> str:
        """Return one line: the winner and its time against plain onnxruntime."""
        plain = self.candidates[0].median_s
        share = f", {self.winner.median_s / plain:.2f}x of plain onnxruntime" if plain < float("inf") else ""
        return f"{self.winner.plan}: {1e6 * self.winner.median_s:,.1f} us a call at {self.rows} rows{share}"

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON form."""
        return {
            "objective": self.objective,
            "rows": self.rows,
            "budget_s": self.budget_s,
            "spent_s": self.spent_s,
            "winner": self.winner.plan.to_dict(),
            "candidates": [
                {"plan": c.plan.to_dict(), "median_s": c.median_s if c.times else None, "blocks": len(c.times), "dropped": c.dropped}
                for c in self.candidates
            ],
        }

    def _sorted(self) -> list[Candidate]:
        return sorted(self.candidates, key=lambda c: (c is not self.winner, c.median_s))

    def __repr__(self) -> str:
        lines = [f"tuned for {self.objective} on {self.rows} rows in {self.spent_s:.2f} of {self.budget_s:g} s"]
        for c in self._sorted():
            took = f"{1e6 * c.median_s:>12,.1f} us" if c.times else f"{'—':>15}"
            lines.append(f"{'*' if c is self.winner else ' '} {took}  {c.plan}{f'  ({c.dropped})' if c.dropped else ''}")
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        """Draw the candidates as bars, the winner first."""
        shown = self._sorted()
        longest = max((c.median_s for c in shown if c.times), default=1.0)
        rows = []
        for i, c in enumerate(shown):
            y, width = 22 * i, 260 * (c.median_s / longest if c.times else 0.0)
            colour = "#2a7f4f" if c is self.winner else "#8aa0b4" if c.dropped is None else "#c9c9c9"
            took = f"{1e6 * c.median_s:,.1f} us" if c.times else "not run"
            note = f" — {c.dropped}" if c.dropped else ""
            rows.append(f'<rect x="0" y="{y + 3}" width="{width:.1f}" height="14" fill="{colour}"/>')
            rows.append(f'<text x="{width + 6:.1f}" y="{y + 14}" font-size="11">{took} · {html.escape(str(c.plan) + note)}</text>')
        title = html.escape(repr(self).splitlines()[0])
        return f'<div>{title}<svg xmlns="http://www.w3.org/2000/svg" width="960" height="{22 * len(shown) + 6}">{"".join(rows)}</svg></div>'
