"""Stages, endpoints and wiring: the untyped graph, its order, and its mistakes of shape.

An endpoint is `stage.tensor`, `stage.tensor[column]`, or an undotted name: an input of the pipeline.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from ..errors import SignatureError
from ..signature import Signature

__all__ = ["Endpoint", "check_names", "nearest", "order_stages", "parse_endpoint", "straight_wiring"]

_ENDPOINT = re.compile(r"(?:(?P<stage>[^.\[\]]+)\.)?(?P<tensor>[^.\[\]]+)(?:\[(?P<column>.+)\])?", re.DOTALL)


class Endpoint(NamedTuple):
    """One end of an edge."""

    stage: str | None  # None: an input of the pipeline
    tensor: str
    column: str | None = None

    def __str__(self) -> str:
        place = self.tensor if self.stage is None else f"{self.stage}.{self.tensor}"
        return place if self.column is None else f"{place}[{self.column}]"


def parse_endpoint(text: str) -> Endpoint:
    """Read `stage.tensor[column]`, `stage.tensor`, or `name`; SignatureError if it is none of these."""
    match = _ENDPOINT.fullmatch(text) if isinstance(text, str) else None
    if match is None:
        raise SignatureError(
            f"{text!r} is not an endpoint", hint="write stage.tensor, stage.tensor[column], or the name of a pipeline input"
        )
    return Endpoint(match["stage"], match["tensor"], match["column"])


def nearest(name: str, known: Iterable[str]) -> str:
    """Return `; did you mean …?` or nothing."""
    import difflib

    close = difflib.get_close_matches(name, list(known), n=1)
    return f"; did you mean {close[0]!r}?" if close else ""


def check_names(stages: Iterable[str]) -> list[str]:
    """List stage names that cannot be wired."""
    return [
        f"a stage's name must be text without '.', '[' and ']', not {s!r}"
        for s in stages
        if not isinstance(s, str) or not re.fullmatch(r"[^.\[\]\s/\\]+", s)
    ]


def straight_wiring(first: tuple[str, Signature], second: tuple[str, Signature]) -> tuple[dict[str, str], list[str]]:
    """Join two stages: equal names, failing any one output to one input.

    Returns
    -------
    wiring : dict
        Consumer to producer.
    problems : list of str
        Inputs of the second that nothing feeds.
    """
    (a, sa), (b, sb) = first, second
    outputs = {o.name for o in sa.outputs}
    wiring = {f"{b}.{i.name}": f"{a}.{i.name}" for i in sb.inputs if i.name in outputs}
    if not wiring and len(sb.inputs) == 1:
        main = _main_output(sa)
        if main is not None:
            wiring = {f"{b}.{sb.inputs[0].name}": f"{a}.{main}"}
    unfed = [i for i in sb.inputs if f"{b}.{i.name}" not in wiring]
    problems = [f"{b}: nothing feeds input {str(i)!r}; {a} gives {', '.join(str(o) for o in sa.outputs)}" for i in unfed]
    return wiring, problems


def _main_output(signature: Signature) -> str | None:
    if len(signature.outputs) == 1:
        return signature.outputs[0].name
    return None


def order_stages(stages: Iterable[str], edges: Mapping[str, set[str]]) -> tuple[list[str], list[str]]:
    """Order stages so that producers come first.

    Returns
    -------
    order : list of str
    problems : list of str
        One for each cycle found.
    """
    order: list[str] = []
    waiting = {s: set(edges.get(s, ())) for s in stages}
    while waiting:
        ready = [s for s, needs in waiting.items() if not needs & waiting.keys()]
        if not ready:
            return order, [f"the stages {' -> '.join(_cycle(waiting))} form a cycle"]
        order += ready
        for s in ready:
            del waiting[s]
    return order, []


def _cycle(waiting: Mapping[str, set[str]]) -> list[str]:
    seen: list[str] = []
    here = next(iter(waiting))
    while here not in seen:
        seen.append(here)
        here = next(s for s in waiting[here] if s in waiting)
    return [*seen[seen.index(here) :], here][::-1]
