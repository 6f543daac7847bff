"""One ONNX graph of several stages: every maximal group of ONNX stages, verified against the unfused pipeline."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..artifact import open_artifact
from ..conversion.graph import Graph
from ..conversion.verification import Report, default_tolerance, signature_probes, stack, verify
from ..errors import ConversionError, MlbridgeError
from ..model import Model, Route
from ..plugins import runtime
from ..signature import Signature, TensorSpec
from .build import Feed, Plan, build
from .session import PipelineSession

if TYPE_CHECKING:
    from .composed import Pipeline

__all__ = ["fuse", "groups"]


def groups(plan: Plan, is_onnx: Mapping[str, bool]) -> list[list[str]]:
    """Return the maximal groups of connected ONNX stages that can become one stage without a cycle.

    Stages get a level that rises wherever an edge crosses between ONNX and other stages; stages of one level can
    always be merged, because any way out of a level and back would raise it.
    """
    before = {s: {e.producer.stage for f in plan.feeds[s] for e in f.edges if e.producer.stage is not None} for s in plan.order}
    level: dict[str, int] = {}
    for s in plan.order:
        level[s] = max((level[p] + (is_onnx[p] != is_onnx[s]) for p in before[s]), default=0)
    parent = {s: s for s in plan.order}

    def find(s: str) -> str:
        while parent[s] != s:
            s = parent[s]
        return s

    for s in plan.order:
        for p in before[s]:
            if is_onnx[s] and is_onnx[p] and level[s] == level[p]:
                parent[find(s)] = find(p)
    made: dict[str, list[str]] = {}
    for s in plan.order:
        if is_onnx[s]:
            made.setdefault(find(s), []).append(s)
    return [g for g in made.values() if len(g) > 1]


def fuse(pipeline: Pipeline, sample: Any = None) -> Pipeline:
    """Return the pipeline with its ONNX groups merged; see `Pipeline.fuse`."""
    from .composed import Pipeline

    session = pipeline._pipeline_session
    plan, stages = session.plan, session.stages
    made: list[Model] = []
    try:
        fused = groups(plan, {n: m.route.runtime == "onnx" for n, m in stages.items()})
        replaced = {s: "+".join(g) for g in fused for s in g}
        models: dict[str, Model] = {}
        wiring: dict[str, str] = {}
        for group in fused:
            model, inner = _fused_model(plan, stages, group)
            made.append(model)
            models["+".join(group)] = model
            wiring |= inner
        for stage in plan.order:
            if stage not in replaced:
                models[stage] = stages[stage]
        wiring |= {k: _moved(v, replaced) for k, v in plan.wiring.items() if k.split(".")[0] not in replaced}
        wiring = {k: _moved(v, replaced) for k, v in wiring.items()}
        outputs = {n: _moved(str(e), replaced) for n, e in plan.outputs.items()}
        new = PipelineSession(build({n: m.signature for n, m in models.items()}, wiring, outputs), models, made)
    except BaseException:
        for m in made:
            m.close()
        raise
    report = _verified(pipeline, new, sample)
    result = Pipeline._of(new, pipeline.name + " (fused)", samples=pipeline.samples)
    result.report = report
    if not report.verified and report.against != "nothing":
        result.close()
        raise ConversionError(f"{pipeline.name}: the fused pipeline answers differently\n{report}", report=report)
    return result


def _moved(endpoint: str, replaced: Mapping[str, str]) -> str:
    stage, dot, rest = endpoint.partition(".")
    if not dot or stage not in replaced:
        return endpoint
    tensor, bracket, column = rest.partition("[")
    return f"{replaced[stage]}.{stage}:{tensor}{bracket}{column}"


def _fused_model(plan: Plan, stages: Mapping[str, Model], group: Sequence[str]) -> tuple[Model, dict[str, str]]:
    """Write one graph; its inputs are what comes from outside, its outputs what is read outside."""
    inside, wiring, inputs = set(group), {}, {}
    for s in group:
        for feed in plan.feeds[s]:
            if _is_outer(feed, inside):
                name = f"{s}:{feed.spec.name}"
                inputs[(s, feed.spec.name)] = TensorSpec(
                    name, feed.spec.dtype, feed.spec.shape, _unique(feed.spec, s), feed.spec.missing, feed.spec.rounding
                )
                for left, right in plan.wiring.items():
                    if left == f"{s}.{feed.spec.name}" or left.startswith(f"{s}.{feed.spec.name}["):
                        target = f"{'+'.join(group)}.{name}"
                        wiring[target + _column_suffix(left, s)] = right
            else:
                _partly_outer(plan, stages, s, feed, inside, inputs, wiring, group)
    read = {(e.producer.stage, e.producer.tensor) for st in plan.order if st not in inside for f in plan.feeds[st] for e in f.edges}
    read |= {(e.stage, e.tensor) for e in plan.outputs.values()}
    outputs = [(s, o) for s in group for o in stages[s].signature.outputs if (s, o.name) in read]
    specs = tuple(TensorSpec(f"{s}:{o.name}", o.dtype, o.shape, o.columns, o.missing, o.rounding) for s, o in outputs)
    graph = Graph(Signature(tuple(inputs.values()), specs))
    values: dict[tuple, str] = {}
    for s in plan.order:
        if s in inside:
            given = {f.spec.name: _emit_feed(graph, f, s, inputs, values) for f in plan.feeds[s]}
            values |= {(s, k): v for k, v in _inline(graph, stages[s], s, given).items()}
    for s, o in outputs:
        graph.output(f"{s}:{o.name}", values[(s, o.name)])
    onnx = runtime("onnx")
    with tempfile.TemporaryDirectory(prefix="mlbridge-") as folder:
        session = onnx.load(open_artifact(graph.save(Path(folder))), signature=graph.signature)
    why = f"{len(group)} stages fused"
    return Model(
        session,
        runtime=onnx,
        route=Route("onnx", why, "+".join(dict.fromkeys(str(stages[s].route.framework) for s in group))),
        name="+".join(group),
    ), wiring


def _unique(spec: TensorSpec, stage: str) -> tuple:
    """Two stages may both have a column `age`; one signature may not."""
    from dataclasses import replace

    return tuple(replace(c, name=f"{stage}:{c.name}") for c in spec.columns)


def _column_suffix(consumer: str, stage: str) -> str:
    _, bracket, column = consumer.partition("[")
    return f"[{stage}:{column}" if bracket else ""


def _is_outer(feed: Feed, inside: set[str]) -> bool:
    return all(e.producer.stage not in inside for e in feed.edges)


def _partly_outer(
    plan: Plan, stages: Mapping[str, Model], s: str, feed: Feed, inside: set[str], inputs: dict, wiring: dict, group: Sequence[str]
) -> None:
    """A packed input some of whose columns come from outside: each such edge becomes an input of the fused graph."""
    for i, (e, places) in enumerate(zip(feed.edges, feed.places or ((),))):
        if e.producer.stage in inside:
            continue
        name = f"{s}:{feed.spec.name}:{i}"
        columns = tuple(c for j, c in enumerate(_unique(feed.spec, s)) if j in places)
        inputs[(s, feed.spec.name, i)] = TensorSpec(
            name, feed.spec.dtype, (feed.spec.shape[0], len(places)), columns, feed.spec.missing, feed.spec.rounding
        )
        wiring[f"{'+'.join(group)}.{name}"] = str(e.producer)


def _emit_feed(graph: Graph, feed: Feed, stage: str, inputs: Mapping[tuple, TensorSpec], values: Mapping[tuple, str]) -> str:
    if (stage, feed.spec.name) in inputs:
        return inputs[(stage, feed.spec.name)].name
    parts = []
    for i, e in enumerate(feed.edges):
        outer = inputs.get((stage, feed.spec.name, i))
        value = outer.name if outer is not None else values[(e.producer.stage, e.producer.tensor)]
        if outer is None:
            for step in e.steps:
                value = step.emit(graph, value)
        if feed.places and outer is None and not _is_matrix(e, feed, i):
            value = graph.add("Reshape", value, graph.const([-1, len(feed.places[i])], "int64"))
        parts.append(value)
    if not feed.places:
        return parts[0]
    order = [p for places in feed.places for p in places]
    packed = graph.concat(parts, axis=1)
    if order == sorted(order):
        return packed
    return graph.add("Gather", packed, graph.const(np.argsort(order), "int64"), axis=1)


def _is_matrix(edge: Any, feed: Feed, i: int) -> bool:
    return len(feed.places[i]) > 1


def _inline(graph: Graph, model: Model, stage: str, given: Mapping[str, str]) -> dict[str, str]:
    """Copy a stage's graph into ours under a prefix; returns its outputs' value names."""
    from onnx import compose, inliner, version_converter

    proto = _proto(model)
    if proto.functions:
        proto = inliner.inline_local_functions(proto)
    version = next((o.version for o in proto.opset_import if o.domain in ("", "ai.onnx")), graph.opsets[""])
    if version < graph.opsets[""]:
        proto = version_converter.convert_version(proto, graph.opsets[""])
    elif version > graph.opsets[""]:
        raise ConversionError(f"stage {stage!r} has opset {version}; fusing writes {graph.opsets['']}")
    for o in proto.opset_import:
        if o.domain not in ("", "ai.onnx"):
            graph.opsets[o.domain] = max(graph.opsets.get(o.domain, 0), o.version)
    prefix = f"{stage}/"
    proto = compose.add_prefix(proto, prefix)
    renamed = {prefix + k: v for k, v in given.items()}
    for node in proto.graph.node:
        _rename(node, renamed)
    graph.nodes.extend(proto.graph.node)
    graph.initializers.extend(i for i in proto.graph.initializer if i.name not in renamed)
    if proto.graph.sparse_initializer:
        raise ConversionError(f"stage {stage!r} has sparse initializers, which do not fuse")
    return {o.name.removeprefix(prefix): renamed.get(o.name, o.name) for o in proto.graph.output}


def _rename(node: Any, renamed: Mapping[str, str]) -> None:
    for i, name in enumerate(node.input):
        if name in renamed:
            node.input[i] = renamed[name]
    for attribute in node.attribute:
        for inner in ([attribute.g] if attribute.HasField("g") else []) + list(attribute.graphs):
            for n in inner.node:
                _rename(n, renamed)


def _proto(model: Model) -> Any:
    import onnx

    with tempfile.TemporaryDirectory(prefix="mlbridge-") as folder:
        try:
            made = runtime("onnx").save(model._session, Path(folder))
        except MlbridgeError as exc:
            raise ConversionError(f"{model.name}: its graph cannot be fused: {exc.message}") from exc
        return onnx.load(str(Path(folder) / made.path))


def _verified(pipeline: Pipeline, fused: PipelineSession, sample: Any) -> Report:
    signature = pipeline.signature
    feeds = [pipeline._coercion.feeds(sample)[0]] if sample is not None else []
    if pipeline.samples is not None:
        feeds.append(pipeline.samples[0])
    for stage in pipeline.stages.values():  # a first stage's golden rows are the pipeline's, where the names agree
        if stage.samples is not None and [s.name for s in stage.signature.inputs] == [s.name for s in signature.inputs]:
            feeds.append(stage.samples[0])
    base = stack(feeds) if signature.batched else (feeds[0] if feeds else {})
    rows = stack([f for f in (base, signature_probes(signature, base, seed=0)) if f]) if signature.batched else base
    if not rows:
        return Report(False, 0, default_tolerance(signature), against="nothing")
    return verify(pipeline._session.run, fused.run, signature, rows, against="unfused pipeline")
