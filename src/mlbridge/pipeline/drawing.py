"""The graph of a pipeline as SVG: stages as boxes in columns, edges as curves, inserted conversions on them."""

from __future__ import annotations

import itertools
from typing import Any

__all__ = ["Drawing", "svg"]

_WIDTH, _HEIGHT, _GAP_X, _GAP_Y, _MARGIN = 190, 62, 110, 26, 18
_COLOURS = {"onnx": "#dcecff", "python": "#fff3cf", "r": "#dff3df", "jvm": "#ffe3d6", "grpc": "#eee3fb", "pipeline": "#e8eef2"}


class Drawing:
    """A pipeline's graph: in words where it is printed, a picture in a notebook."""

    def __init__(self, pipeline: Any) -> None:
        self._pipeline = pipeline

    def __str__(self) -> str:
        after: dict[str, list[str]] = {}
        for a, b in _joined(self._pipeline.plan):
            after.setdefault(a.removeprefix("in:"), []).append(b.removeprefix("out:"))
        return "; ".join(f"{a} → {', '.join(b)}" for a, b in after.items())

    def _repr_html_(self) -> str:
        return svg(self._pipeline)


def svg(pipeline: Any) -> str:
    """Draw a pipeline.

    Parameters
    ----------
    pipeline : Pipeline or PipelineSession
        Its stages are laid out in columns, producers left of consumers.

    Returns
    -------
    str
        An `<svg>` element.
    """
    plan, stages = pipeline.plan, pipeline.stages
    depth, joined = _depths(plan), _joined(plan)
    routes = {
        pair: [pair[0], *(f"via:{pair[0]}:{pair[1]}:{d}" for d in range(depth[pair[0]] + 1, depth[pair[1]])), pair[1]] for pair in joined
    }
    columns: dict[int, list[str]] = {}
    for node, d in [*depth.items(), *((n, depth[a] + i) for (a, _), r in routes.items() for i, n in enumerate(r) if n.startswith("via:"))]:
        columns.setdefault(d, []).append(node)
    place = _places(columns, [(a, b) for r in routes.values() for a, b in itertools.pairwise(r)])
    width = max(x for x, _ in place.values()) + _WIDTH + _MARGIN
    height = max(y for _, y in place.values()) + _HEIGHT + _MARGIN
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" viewBox="0 0 {width} {height}" '
        'font-family="sans-serif" font-size="12">',
        '<defs><marker id="arrow" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" orient="auto">'
        '<path d="M0,0 L8,4 L0,8 z" fill="#667"/></marker></defs>',
    ]
    edges = [_edge([place[n] for n in routes[pair]], texts) for pair, texts in joined.items()]
    parts += [line for line, _ in edges] + [label for _, label in edges]  # words above all lines
    parts += [_node(node, xy, plan, stages) for node, xy in place.items() if not node.startswith("via:")]
    return "".join(parts) + "</svg>"


def _depths(plan: Any) -> dict[str, int]:
    depth = {f"in:{i.name}": 0 for i in plan.signature.inputs}
    for stage in plan.order:
        before = [e.producer.stage for f in plan.feeds[stage] for e in f.edges]
        depth[stage] = 1 + max((depth[b] for b in before if b is not None), default=0)
    last = max(depth.values(), default=0) + 1
    return depth | {f"out:{name}": last for name in plan.outputs}


def _joined(plan: Any) -> dict[tuple[str, str], list[str]]:
    """Return what is inserted between each pair of nodes."""
    joined: dict[tuple[str, str], list[str]] = {}
    for e in plan.edges:
        source = e.producer.stage if e.producer.stage is not None else f"in:{e.producer.tensor}"
        joined.setdefault((source, e.consumer.stage), []).extend(s.text for s in e.steps)
    for name, end in plan.outputs.items():
        joined.setdefault((end.stage or "", f"out:{name}"), [])
    return joined


def _places(columns: dict[int, list[str]], links: list[tuple[str, str]]) -> dict[str, tuple[int, int]]:
    """Order each column by the mean place of its producers, so that edges cross little; long edges get slots of their own."""
    feeders: dict[str, list[str]] = {}
    for a, b in links:
        feeders.setdefault(b, []).append(a)
    tallest = max(len(c) for c in columns.values())
    place: dict[str, tuple[int, int]] = {}
    for d in sorted(columns):
        nodes = sorted(
            columns[d], key=lambda n: sum(place[f][1] for f in feeders.get(n, []) if f in place) / max(len(feeders.get(n, [])), 1)
        )
        top = _MARGIN + (tallest - len(nodes)) * (_HEIGHT + _GAP_Y) // 2
        for i, node in enumerate(nodes):
            place[node] = (_MARGIN + d * (_WIDTH + _GAP_X), top + i * (_HEIGHT + _GAP_Y))
    return place


def _cut(text: str, n: int) -> str:
    import html

    return html.escape(text if len(text) <= n else text[: n - 1] + "…")


def _node(node: str, xy: tuple[int, int], plan: Any, stages: Any) -> str:
    x, y = xy
    if node.startswith(("in:", "out:")):
        side, name = node.split(":", 1)
        spec = plan.signature.input(name) if side == "in" else plan.signature.output(name)
        title, lines, fill, radius = name, [str(spec).split(": ", 1)[1]], "#f4f4f4", 30
    else:
        model = stages[node]
        title, radius = node, 6
        lines = [
            f"{model.route.framework or model.route.runtime} · {model.route.runtime} on {model.device}",
            ", ".join(str(o).replace("rows, ", "").replace("[rows]", "") for o in model.signature.outputs),
        ]
        fill = _COLOURS.get(model.route.runtime, "#eef")
    text = f'<text x="{x + _WIDTH / 2}" y="{y + 20}" text-anchor="middle" font-weight="bold">{_cut(title, 22)}</text>'
    for i, line in enumerate(lines[:2]):
        text += f'<text x="{x + _WIDTH / 2}" y="{y + 37 + 15 * i}" text-anchor="middle" font-size="10" fill="#445">{_cut(line, 34)}</text>'
    return f'<rect x="{x}" y="{y}" width="{_WIDTH}" height="{_HEIGHT}" rx="{radius}" fill="{fill}" stroke="#889"/>{text}'


def _edge(points: list[tuple[int, int]], texts: list[str]) -> tuple[str, str]:
    """Return a curve through the slots between two nodes, and its words, which stand in the first gap."""
    x, y = points[0][0] + _WIDTH, points[0][1] + _HEIGHT / 2
    path, label_at = f"M{x},{y}", None
    for i, (left, top) in enumerate(points[1:], 1):
        x2, y2 = left, top + _HEIGHT / 2
        path += f" C{x + (x2 - x) / 2},{y} {x2 - (x2 - x) / 2},{y2} {x2},{y2}"
        label_at = label_at or ((x + x2) / 2, (y + y2) / 2)
        if i < len(points) - 1:
            path += f" L{x2 + _WIDTH},{y2}"
        x, y = x2 + _WIDTH, y2
    line = f'<path d="{path}" fill="none" stroke="#667" marker-end="url(#arrow)"/>'
    shown = list(dict.fromkeys(texts))
    if not shown or not label_at:
        return line, ""
    words = shown[0].split(",")[0] + (f" +{len(shown) - 1}" if len(shown) > 1 else "")
    halo = 'stroke="white" stroke-width="3" paint-order="stroke"'
    at = f'x="{label_at[0]}" y="{label_at[1] - 6}" text-anchor="middle" font-size="9"'
    return line, f'<text {at} fill="#a33" {halo}>{_cut(words, 24)}</text>'
