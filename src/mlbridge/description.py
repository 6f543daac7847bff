"""What a Model says of itself: its Route, and the Description that prints and shows in notebooks.

Values only. Made by `model.py`; routes are chosen in `conversion/` and `_api`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from .signature import Column, Signature, TensorSpec

__all__ = ["Description", "Route"]

_SHOWN = 12  # columns listed before «and more»


@dataclass(frozen=True, slots=True)
class Route:
    """The implementation chosen, and why.

    Attributes
    ----------
    runtime : str
        Name of the runtime that answers.
    why : str
        One sentence.
    framework : str or None
        The framework the model came from.
    trust : str
        The trust it was loaded at; `live` for an object in this process.
    considered : tuple of str
        What was tried before, and why it was not taken.
    """

    runtime: str
    why: str
    framework: str | None = None
    trust: str = "live"
    considered: tuple[str, ...] = ()


@dataclass(frozen=True)
class Description:
    """What a model is, at a glance: print it, or show it in a notebook."""

    name: str
    signature: Signature
    route: Route
    device: str
    parity: str
    placement: Mapping[str, float] = field(default_factory=dict)
    extra: Mapping[str, Any] = field(default_factory=dict)

    def _facts(self) -> list[tuple[str, Any]]:
        facts = [("route", f"{self.route.runtime}: {self.route.why}")]
        facts += [("", f"not taken: {c}") for c in self.route.considered]
        facts += [("device", self.device + "".join(f", {100 * v:.0f} % of nodes on {k}" for k, v in self.placement.items()))]
        facts += [("trust", self.route.trust), ("parity", self.parity.splitlines()[0])]
        return facts + list(self.extra.items())

    def __repr__(self) -> str:
        lines = [f"Model {self.name!r}"]
        for side, specs in (("in", self.signature.inputs), ("out", self.signature.outputs)):
            for spec in specs:
                lines.append(f"  {side:<3} {spec}{_rules(spec)}")
                lines += [f"        {_column_text(c)}" for c in spec.columns[:_SHOWN]]
                if len(spec.columns) > _SHOWN:
                    lines.append(f"        … and {len(spec.columns) - _SHOWN} more columns")
        return "\n".join(lines + [f"  {k:<7} {v}".replace("\n", "\n    ") for k, v in self._facts()])

    def _repr_html_(self) -> str:
        import html

        esc = html.escape
        rows = ""
        for side, specs in (("input", self.signature.inputs), ("output", self.signature.outputs)):
            for spec in specs:
                columns = "<br>".join(esc(_column_text(c)) for c in spec.columns[: 4 * _SHOWN]) or "—"
                more = f"<br>… and {len(spec.columns) - 4 * _SHOWN} more" if len(spec.columns) > 4 * _SHOWN else ""
                rows += f"<tr><td>{side}</td><td><b>{esc(spec.name)}</b></td><td>{esc(str(spec).split(': ', 1)[1])}{esc(_rules(spec))}</td><td style='text-align:left'>{columns}{more}</td></tr>"
        facts = "".join(f"<tr><td>{esc(k)}</td><td style='text-align:left'>{_shown(v)}</td></tr>" for k, v in self._facts())
        return (
            f"<div><b>Model {esc(self.name)}</b><table><thead><tr><th></th><th>name</th><th>type</th><th>columns</th></tr></thead>"
            f"<tbody>{rows}</tbody></table><table><tbody>{facts}</tbody></table></div>"
        )


def _shown(value: Any) -> str:
    """Return a fact as HTML: its own picture where it has one."""
    import html

    return value._repr_html_() if hasattr(value, "_repr_html_") else html.escape(str(value))


def _rules(spec: TensorSpec) -> str:
    rules = [r for r, on in (("missing allowed", spec.missing == "allow"), ("rounds", spec.rounding == "nearest")) if on]
    return f" ({', '.join(rules)})" if rules else ""


def _column_text(column: Column) -> str:
    text = column.name
    if column.categories is not None:
        levels = (" < " if column.ordered else ", ").join(map(str, column.categories[:8]))
        text += f" {{{levels}{', …' if len(column.categories) > 8 else ''}}}" + (" or unknown" if column.unknown == "keep" else "")
    return text + (f" [{column.unit}]" if column.unit else "")
