"""One ONNX graph of several stages: every maximal group of ONNX stages, verified against the unfused pipeline."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..artifact import open_artifact
from ..conversion.graph import Graph
from ..conversion.inlining import inline
from ..conversion.verification import Report, default_tolerance, signature_probes, stack, verify
from ..errors import ConversionError, MlbridgeError
from ..model import Model, Route
from ..plugins import runtime
from ..signature import Signature, TensorSpec
from .build import Feed, Plan, build
from .folding import fold
from .graph import parse_endpoint
from .session import PipelineSession

if TYPE_CHECKING:
    from .composed import Pipeline

__all__ = ["fuse", "groups"]

_LOG = logging.getLogger("mlbridge")


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

    real = _real_rows(pipeline, sample)
    rows = _probed(pipeline.signature, real)
    merged, report = None, None
    if real:
        merged = _merged(pipeline, folded=True)
        # among probes of every size the real rows' last digits do not show: folding answers for them alone too
        if _verified(pipeline, merged, real).verified:
            report = _verified(pipeline, merged, rows)
    if merged is None or report is None or not report.verified:  # as the stages compute it, step by step
        if merged is not None:
            merged.close()
        merged = _merged(pipeline, folded=False)
        report = _verified(pipeline, merged, rows)
    result = Pipeline._of(merged, pipeline.name + " (fused)", samples=pipeline.samples)
    result.report = report
    if rows and not report.verified:
        result.close()
        raise ConversionError(f"{pipeline.name}: the fused pipeline answers differently\n{report}", report=report)
    return result


def _merged(pipeline: Pipeline, *, folded: bool) -> PipelineSession:
    """Return a session with every group as one graph, its affine chains folded or not."""
    session = pipeline._pipeline_session
    plan, stages = session.plan, session.stages
    made: list[Model] = []
    moved: dict[tuple, str] = {}
    models: dict[str, Model] = {}
    wiring: dict[str, str] = {}
    try:
        graphs = _graphs(stages)
        fused = groups(plan, {n: n in graphs for n in stages})
        replaced = {s for g in fused for s in g}
        for group in fused:
            model, inner, names = _fused_model(plan, stages, group, graphs, folded)
            made.append(model)
            models[model.name] = model
            wiring |= inner
            moved |= {key: f"{model.name}.{name}" for key, name in names.items()}
        for stage in plan.order:
            if stage not in replaced:
                models[stage] = stages[stage]
        wiring |= {k: v for k, v in plan.wiring.items() if k.split(".")[0] not in replaced}
        wiring = {k: _moved(v, moved) for k, v in wiring.items()}
        outputs = {n: _moved(str(e), moved) for n, e in plan.outputs.items()}
        return PipelineSession(build({n: m.signature for n, m in models.items()}, wiring, outputs), models, made)
    except BaseException:
        for m in made:
            m.close()
        raise


def _moved(text: str, moved: Mapping[tuple, str]) -> str:
    end = parse_endpoint(text)
    place = moved.get((end.stage, end.tensor))
    return text if place is None else place + ("" if end.column is None else f"[{end.column}]")


def _graphs(stages: Mapping[str, Model]) -> dict[str, Any]:
    """Return the ONNX graphs of the stages that can be fused; the others stay stages."""
    import onnx

    found = {}
    for name, model in stages.items():
        inner = model
        if model.route.runtime == "pipeline":  # one that is fused whole is one graph under its own names
            inner = getattr(model._session, "_direct", None) or model
        if inner.route.runtime != "onnx":
            continue
        with tempfile.TemporaryDirectory(prefix="mlbridge-") as folder:
            try:
                made = runtime("onnx").save(inner._session, Path(folder))
            except MlbridgeError as exc:
                _LOG.debug("stage %r is not fused: %s", name, exc)
                continue
            proto = onnx.load(str(Path(folder) / made.path))
        if not proto.graph.sparse_initializer:
            found[name] = proto
    return found


def _fused_model(
    plan: Plan, stages: Mapping[str, Model], group: Sequence[str], graphs: Mapping[str, Any], folded: bool
) -> tuple[Model, dict[str, str], dict[tuple, str]]:
    """Write one graph; its inputs are the arrays made outside, its outputs those read outside.

    Returns the Model, the wiring of its inputs, and the names of its outputs by (stage, tensor).
    """
    inside, name = set(group), "+".join(group)
    inputs = _outer_inputs(plan, stages, inside)
    read = {(e.producer.stage, e.producer.tensor) for st in plan.order if st not in inside for f in plan.feeds[st] for e in f.edges}
    read |= {(e.stage, e.tensor) for e in plan.outputs.values()}
    whole = {(e.stage, e.tensor): n for n, e in plan.outputs.items()} if len(inside) == len(plan.order) else {}
    given = {(s, o.name): o for s in group for o in stages[s].signature.outputs if (s, o.name) in read}
    names = {key: whole.get(key, f"{key[0]}:{key[1]}") for key in given}
    graph = Graph(Signature(tuple(inputs.values()), tuple(replace(o, name=names[k]) for k, o in given.items())))
    graph.opsets[""] = max(graph.opsets[""], *(o.version for s in group for o in graphs[s].opset_import if o.domain in ("", "ai.onnx")))
    values: dict[tuple, str] = {key: spec.name for key, spec in inputs.items()}
    for s in plan.order:
        if s in inside:
            fed = {f.spec.name: _emit_feed(graph, f, values) for f in plan.feeds[s]}
            values |= {(s, k): v for k, v in inline(graph, graphs[s], f"{s}/", fed).items()}
    for key, output in names.items():
        graph.output(output, values[key])
    graph.drop_dead()
    if folded:
        fold(graph)
    onnx = runtime("onnx")
    with tempfile.TemporaryDirectory(prefix="mlbridge-") as folder:
        session = onnx.load(open_artifact(graph.save(Path(folder))), signature=graph.signature)
    frameworks = "+".join(dict.fromkeys(str(stages[s].route.framework) for s in group))
    model = Model(session, runtime=onnx, route=Route("onnx", f"{len(group)} stages fused: {', '.join(group)}", frameworks), name=name)
    wiring = {f"{name}.{spec.name}": tensor if stage is None else f"{stage}.{tensor}" for (stage, tensor), spec in inputs.items()}
    return model, wiring, names


def _outer_inputs(plan: Plan, stages: Mapping[str, Model], inside: set[str]) -> dict[tuple, TensorSpec]:
    """Return the specs of the arrays a group reads from outside, by (stage, tensor)."""
    inputs: dict[tuple, TensorSpec] = {}
    taken: set[str] = set()
    for s in plan.order:
        for e in (e for f in plan.feeds[s] for e in f.edges if s in inside and e.producer.stage not in inside):
            stage, tensor = e.producer.stage, e.producer.tensor
            if (stage, tensor) in inputs:
                continue
            spec = plan.signature.input(tensor) if stage is None else stages[stage].signature.output(tensor)
            clash = taken & {c.name for c in spec.columns}
            if clash:  # one signature may not name a column twice
                columns = tuple(replace(c, name=f"{stage}:{c.name}") for c in spec.columns) if spec.categorical else ()
                spec = replace(spec, columns=columns)
            taken |= {c.name for c in spec.columns}
            inputs[(stage, tensor)] = spec if stage is None else replace(spec, name=f"{stage}:{tensor}")
    return inputs


def _emit_feed(graph: Graph, feed: Feed, values: Mapping[tuple, str]) -> str:
    parts = []
    for e in feed.edges:
        value = values[(e.producer.stage, e.producer.tensor)]
        for step in e.steps:
            value = step.emit(graph, value)
        parts.append(value)
    if not feed.places:
        return parts[0]
    order = [p for places in feed.places for p in places]
    packed = graph.concat(parts, axis=1)
    return packed if order == sorted(order) else graph.add("Gather", packed, graph.const(np.argsort(order), "int64"), axis=1)


def _real_rows(pipeline: Pipeline, sample: Any) -> dict[str, Any]:
    """Return the sample and the golden rows; nothing where the pipeline has seen no row."""
    feeds = [pipeline._coercion.feeds(sample)[0]] if sample is not None else []
    if pipeline.samples is not None:
        feeds.append(pipeline.samples[0])
    for name, stage in pipeline.stages.items():  # a first stage's golden rows are the pipeline's, where it reads just these
        if stage.samples is not None and _reads_inputs(pipeline.plan, name):
            feeds.append(stage.samples[0])
    if pipeline.signature.batched:
        return stack(feeds)
    return dict(feeds[0]) if feeds else {}


def _probed(signature: Signature, real: dict[str, Any]) -> dict[str, Any]:
    """Add rows that try the edges, where rows may be added."""
    return stack([f for f in (real, signature_probes(signature, real, seed=0)) if f]) if signature.batched else real


def _verified(pipeline: Pipeline, fused: PipelineSession, rows: Mapping[str, Any]) -> Report:
    signature = pipeline.signature
    if not rows:
        return Report(False, 0, default_tolerance(signature), against="nothing")
    return verify(pipeline._session.run, fused.run, signature, rows, against="unfused pipeline")


def _reads_inputs(plan: Plan, stage: str) -> bool:
    """Whether a stage's inputs are the pipeline's own, under their names and as they are."""
    given = {s.name: s for s in plan.signature.inputs}
    read = {f.spec.name: f.edges[0] for f in plan.feeds[stage] if not f.places}
    return read.keys() == given.keys() and all(
        e.producer == (None, name, None) and not e.steps and e.consumer.tensor == name for name, e in read.items()
    )
