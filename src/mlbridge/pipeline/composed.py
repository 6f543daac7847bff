"""Pipeline: a Model whose session runs other models; and `a >> b`."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import InputError, SignatureError
from ..interfaces import Deadline
from ..model import Model, Route
from .build import build
from .checking import StageCheck, check_stage
from .saved import PipelineRuntime, references
from .session import PipelineSession
from .sources import open_stages, set_loader, signature_of

__all__ = ["Pipeline", "PipelineRuntime", "StageCheck", "Trace", "chain", "set_loader"]


@dataclass(frozen=True)
class Trace:
    """One run, stage by stage.

    Attributes
    ----------
    outputs : dict
        As `predict` would return.
    times_s : dict
        Seconds a stage.
    shapes : dict
        Shapes of every stage's outputs.
    intermediates : dict or None
        The arrays themselves, where asked.
    """

    outputs: Any
    times_s: Mapping[str, float]
    shapes: Mapping[str, Mapping[str, tuple]]
    intermediates: Mapping[str, Mapping[str, np.ndarray]] | None = None

    def __repr__(self) -> str:
        total = sum(self.times_s.values()) or 1.0
        lines = [
            f"  {n:<20} {1e3 * t:9.3f} ms {100 * t / total:5.1f} %  " + ", ".join(f"{k}{s}" for k, s in self.shapes[n].items())
            for n, t in self.times_s.items()
        ]
        return "Trace\n" + "\n".join(lines)


class Pipeline(Model):
    """A typed graph of models; a Model itself.

    Parameters
    ----------
    name : str
        Its name.
    stages : mapping of str to Model, path or URI
        In order. Models stay the caller's; what is loaded here is closed with the pipeline.
    wiring : mapping of str to str, optional
        Consumer to producer: `{"fraud.features": "prep.transformed", "fraud.features[age]": "age"}`; an undotted
        producer is a pipeline input. A straight line in the order of the stages unless given.
    outputs : mapping of str to str, optional
        Output name to `stage.output`; by default what nobody reads.
    trust : str, default='data'
        For stages given as paths.
    options : dict of dict, optional
        Keywords by runtime or framework name, for stages given as paths.
    sample : table, array or dict, optional
        A few real rows, kept as the golden rows of a package.

    Raises
    ------
    SignatureError
        If stages do not fit: all problems at once, each naming both ends.

    Examples
    --------
    >>> import mlbridge as mb
    >>> pipe = mb.Pipeline("risk", {"prep": prep, "fraud": fraud})  # doctest: +SKIP
    >>> pipe.predict(table)  # doctest: +SKIP
    """

    def __init__(
        self,
        name: str,
        stages: Mapping[str, Model | str | os.PathLike],
        wiring: Mapping[str, str] | None = None,
        outputs: Mapping[str, str] | None = None,
        *,
        trust: str = "data",
        options: Mapping[str, Mapping[str, Any]] | None = None,
        sample: Any = None,
    ) -> None:
        signatures = {n: signature_of(s) for n, s in stages.items()}
        if all(s is not None for s in signatures.values()):
            build(signatures, wiring, outputs)  # type: ignore[arg-type]  # fails before anything is loaded
        models, owned = open_stages(stages, trust, options)
        try:
            plan = build({n: m.signature for n, m in models.items()}, wiring, outputs)
            session = PipelineSession(plan, models, owned)
        except BaseException:
            for m in owned:
                m.close()
            raise
        self._adopt(session, name, sample)

    def _adopt(
        self, session: PipelineSession, name: str, sample: Any = None, samples: Any = None, route: Route | None = None, **keywords: Any
    ) -> None:
        route = route or Route("pipeline", f"composed of {', '.join(session.plan.order)}")
        Model.__init__(self, session, runtime=PipelineRuntime(), route=route, name=name, samples=samples, **keywords)
        if sample is not None:
            feeds, _ = self._coercion.feeds(sample)
            feeds = {k: v[:64] for k, v in feeds.items()} if self.signature.batched else feeds
            self.samples = (feeds, session.run(feeds))

    @classmethod
    def _of(cls, session: PipelineSession, name: str, **keywords: Any) -> Pipeline:
        pipeline = cls.__new__(cls)
        pipeline._adopt(session, name, **keywords)
        return pipeline

    @property
    def plan(self):
        """The checked plan: order, edges with what was inserted, outputs."""
        return self._pipeline_session.plan

    @property
    def stages(self) -> Mapping[str, Model]:
        """The stages by name."""
        return dict(self._pipeline_session.stages)

    @property
    def _pipeline_session(self) -> PipelineSession:
        if not isinstance(self._session, PipelineSession):
            self._session.run({})  # a forked or closed stand-in says what is wrong
        return self._session  # type: ignore[return-value]

    def trace(self, x: Any, *, intermediates: bool = False, timeout_s: float | None = None) -> Trace:
        """Run once and tell what each stage did.

        Parameters
        ----------
        x : table, dict of arrays, dict of scalars, list of dicts, or array
            As for `predict`.
        intermediates : bool, default=False
            Whether to keep what each stage answered.
        timeout_s : float, optional
            As for `predict`.

        Returns
        -------
        Trace
            The outputs, and per stage its seconds, its shapes and, on request, its arrays.
        """
        feeds, opened = self._coercion.feeds(x)
        record: list = []
        results = self._pipeline_session.traced(feeds, None, Deadline(timeout_s) if timeout_s else None, record)
        return Trace(
            self._coercion.answer(results, opened),
            {s: t for s, t, _ in record},
            {s: {k: v.shape for k, v in out.items()} for s, _, out in record},
            {s: out for s, _, out in record} if intermediates else None,
        )

    def check_stage(self, stage: str, new: Model | str | os.PathLike) -> StageCheck:
        """Say whether a team's new version still fits, and what changed, without loading the others.

        Parameters
        ----------
        stage : str
            Which stage it would replace.
        new : Model, path or URI
            The new version; only data formats are loaded.

        Returns
        -------
        StageCheck
            Whether it fits, the problems, what differs in the signature, and how many golden rows answer otherwise.
        """
        session = self._pipeline_session
        signatures = {n: m.signature for n, m in session.stages.items()}
        samples = session.stages[stage].samples if stage in session.stages else None
        return check_stage(stage, new, signatures, self.plan.wiring, {k: str(v) for k, v in self.plan.outputs.items()}, samples)

    def save(self, path: str | os.PathLike, *, stages: str = "inside", **keywords: Any) -> int:
        """Write a `.mlb` package, with the stages inside or referenced by hash.

        Parameters
        ----------
        path : path
            The file or folder to make.
        stages : {'inside', 'referenced'}
            `referenced` writes each stage's path, seen from the package, and its sha256: for stages that were loaded
            from packages of their own. A stage that is absent or changed is refused when the pipeline is loaded.
        **keywords
            As for `Model.save`.

        Returns
        -------
        int
            How many golden rows were written.
        """
        if stages not in ("inside", "referenced"):
            raise InputError(f"stages is {stages!r}, expected 'inside' or 'referenced'")
        if stages == "inside":
            return super().save(path, **keywords)
        session = self._pipeline_session
        twin = PipelineSession(session.plan, session.stages, references=references(session.stages, Path(path).resolve().parent))
        with Pipeline._of(twin, self.name, samples=self.samples, route=self.route, report=self.report) as pipeline:
            return Model.save(pipeline, path, **keywords)

    def fuse(self, sample: Any = None) -> Pipeline:
        """Merge every group of adjacent ONNX stages into one graph, verified against this pipeline.

        Parameters
        ----------
        sample : table, dict or array, optional
            Rows to verify on, beside golden samples and probe rows.

        Returns
        -------
        Pipeline
            A new one; stages that cannot be fused stay as they are and stay this pipeline's.

        Raises
        ------
        ConversionError
            If the fused pipeline answers differently; `.report` says where.
        """
        from .fusing import fuse

        return fuse(self, sample)

    def svg(self) -> str:
        """Draw the graph.

        Returns
        -------
        str
            An SVG document.
        """
        from .drawing import svg

        return svg(self)


def chain(first: Model, second: Model) -> Pipeline:
    """Join two models in a straight line: `a >> b`.

    A pipeline on either side is taken apart, so that `a >> b >> c` has three stages.
    """
    if not isinstance(second, Model):
        return NotImplemented
    stages: dict[str, Model] = {}
    links: list[tuple[str, str]] = []
    for part in (first, second):
        inner = part.stages if isinstance(part, Pipeline) and _is_straight(part) else {part.name: part}
        for name, model in inner.items():
            unique, n = _stage_name(name), 1
            while unique in stages:
                n += 1
                unique = f"{_stage_name(name)}_{n}"
            stages[unique] = model
            links.append((unique, name))
    return Pipeline(" >> ".join(stages), stages)


def _is_straight(pipeline: Pipeline) -> bool:
    try:
        straight = build({n: m.signature for n, m in pipeline.stages.items()})
    except SignatureError:
        return False
    return straight.wiring == pipeline.plan.wiring and straight.outputs == pipeline.plan.outputs


def _stage_name(name: str) -> str:
    return "".join(c if c not in ".[]/\\ \t\n" else "_" for c in name) or "stage"
