"""Pipeline: a Model whose session runs other models; and the runtime `pipeline`, by which packages load it."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from ..artifact import Artifact, Implementation, TrustDemand, open_artifact
from ..errors import ArtifactError, InputError, MlbridgeError, SignatureError, UnsupportedError
from ..interfaces import Deadline, Session
from ..model import Model, Route
from ..package import read_package
from ..signature import Signature
from .build import build
from .session import PipelineSession

__all__ = ["Pipeline", "PipelineRuntime", "StageCheck", "Trace", "chain"]

_FILE = "pipeline.json"
_loader: Callable[..., Model] | None = None  # `load`, handed over by `_api`


def set_loader(load: Callable[..., Model]) -> None:
    """Take `mlbridge.load`, so that stages may be paths and URIs."""
    global _loader
    _loader = load


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


@dataclass(frozen=True)
class StageCheck:
    """Whether a new version of a stage still fits, and what changed."""

    stage: str
    problems: tuple[str, ...]
    differences: tuple[str, ...]
    changed_rows: int | None = None
    rows: int = 0

    @property
    def fits(self) -> bool:
        """Whether the pipeline still type-checks with it."""
        return not self.problems

    def __repr__(self) -> str:
        lines = [f"stage {self.stage!r}: {'fits' if self.fits else 'does NOT fit'}"]
        lines += [f"  problem: {p}" for p in self.problems] + [f"  changed: {d}" for d in self.differences]
        if self.changed_rows is not None:
            lines.append(f"  answers changed on {self.changed_rows} of {self.rows} golden rows")
        return "\n".join(lines)


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
        signatures = {n: _signature_of(s) for n, s in stages.items()}
        if all(s is not None for s in signatures.values()):
            build(signatures, wiring, outputs)  # type: ignore[arg-type]  # fails before anything is loaded
        models, owned = _opened(stages, trust, options)
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
        route = route or Route("pipeline", " >> ".join(session.plan.order))
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
        if stage not in session.stages:
            raise InputError(f"there is no stage {stage!r}", hint=f"the stages are {', '.join(session.stages)}")
        old = session.stages[stage]
        signature = _signature_of(new)
        opened = None
        if signature is None:
            opened = _load(new)
            signature = opened.signature
        problems: tuple[str, ...] = ()
        try:
            build(
                {n: signature if n == stage else m.signature for n, m in session.stages.items()},
                self.plan.wiring,
                {k: str(v) for k, v in self.plan.outputs.items()},
            )
        except SignatureError as exc:
            problems = exc.problems
        differences = tuple(signature_differences(old.signature, signature))
        changed, rows = None, 0
        if old.samples is not None and not differences:
            opened = opened or (new if isinstance(new, Model) else _load(new))
            changed, rows = _changed_rows(old, opened)
        if opened is not None and opened is not new:
            opened.close()
        return StageCheck(stage, problems, differences, changed, rows)

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

    def _repr_html_(self) -> str:
        return self.svg() + self.describe()._repr_html_()


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


def _load(source: Any, **keywords: Any) -> Model:
    if _loader is None:
        raise UnsupportedError("stages given as paths need mlbridge.load", hint="import mlbridge, not its parts")
    return _loader(source, **keywords)


def _signature_of(stage: Any) -> Signature | None:
    """Return a stage's signature without loading it, where a manifest has it."""
    if isinstance(stage, Model):
        return stage.signature
    if not isinstance(stage, (str, os.PathLike)):
        raise InputError(
            f"a stage is a Model, a path or a URI, not {type(stage).__name__}", hint="wrap functions with mlbridge.wrap(f, signature=…)"
        )
    if not os.path.exists(stage):
        return None
    artifact = open_artifact(stage)
    return read_package(artifact).signature if artifact.format == "mlb" else None


def _opened(stages: Mapping[str, Any], trust: str, options: Any, **keywords: Any) -> tuple[dict[str, Model], list[Model]]:
    models, owned = {}, []
    try:
        for name, stage in stages.items():
            if isinstance(stage, Model):
                models[name] = stage
            else:
                models[name] = _load(stage, trust=trust, options=options, **keywords)
                owned.append(models[name])
    except BaseException as exc:
        for m in owned:
            m.close()
        if isinstance(exc, MlbridgeError) and exc.args:
            exc.args = (f"stage {name!r}: {exc.message}", *exc.args[1:])
        raise
    return models, owned


def signature_differences(old: Signature, new: Signature) -> list[str]:
    """List in words what changed between two signatures."""
    out = []
    for side in ("inputs", "outputs"):
        a, b = {s.name: s for s in getattr(old, side)}, {s.name: s for s in getattr(new, side)}
        word = side[:-1]
        out += [f"{word} {n!r} is gone" for n in a if n not in b] + [f"{word} {n!r} is new" for n in b if n not in a]
        for n in (n for n in a if n in b and a[n] != b[n]):
            if str(a[n]) != str(b[n]):
                out.append(f"{word} {a[n]} became {b[n]}")
            ca, cb = {c.name: c for c in a[n].columns}, {c.name: c for c in b[n].columns}
            out += [f"{word} {n!r}: column {c!r} is gone" for c in ca if c not in cb] + [
                f"{word} {n!r}: column {c!r} is new" for c in cb if c not in ca
            ]
            out += [
                f"{word} {n!r}: levels of {c!r} changed from {ca[c].categories} to {cb[c].categories}"
                for c in ca
                if c in cb and ca[c].categories != cb[c].categories
            ]
            if (a[n].missing, a[n].rounding) != (b[n].missing, b[n].rounding):
                out.append(f"{word} {n!r}: missing {a[n].missing}→{b[n].missing}, rounding {a[n].rounding}→{b[n].rounding}")
    return out


def _changed_rows(old: Model, new: Model) -> tuple[int, int]:
    from ..conversion.verification import default_tolerance, relative_error

    feeds, want = old.samples  # type: ignore[misc]
    got = new.run(feeds)
    rows = next(iter(feeds.values())).shape[0]
    changed = np.zeros(rows, bool)
    for name, value in want.items():
        if value.dtype.kind == "f":
            bad = relative_error(got[name], value) > default_tolerance(old.signature)
        else:
            bad = np.asarray(got[name] != value)
        changed |= bad.reshape(rows, -1).any(axis=1)
    return int(changed.sum()), rows


class PipelineRuntime:
    """Runs pipelines; packages hold them as `pipeline.json` and one package a stage."""

    name: ClassVar[str] = "pipeline"
    formats: ClassVar[frozenset[str]] = frozenset({"pipeline", "pipeline-toml"})
    options: ClassVar[frozenset[str]] = frozenset()

    def accepts(self, model: object, /) -> bool:
        """Pipelines are Models already; nothing is wrapped."""
        return False

    def wrap(self, model: object, /, *, signature: Signature, **options: Any) -> Session:
        """Pipelines are composed, not wrapped."""
        raise UnsupportedError("a pipeline is composed, not wrapped", hint="use mlbridge.Pipeline")

    def load(
        self,
        source: Artifact | str,
        /,
        *,
        signature: Signature | None = None,
        device: str = "auto",
        demand: TrustDemand | None = None,
        **options: Any,
    ) -> PipelineSession:
        """Open a saved pipeline, or a `pipeline.toml`."""
        if isinstance(source, str):
            source = open_artifact(source)
        folder = source.path if source.path.is_dir() else None
        if folder is None:
            from .declared import read_toml

            made = read_toml(source)
        else:
            made = _read_json(folder, source.label)
        trust = "data" if demand is None else demand.level.name.lower()
        base = folder if folder is not None else (source.origin or source.path).parent
        stages = {n: s if ":" in s and not os.path.exists(base / s) else base / s for n, s in made["stages"].items()}
        # a saved pipeline has golden rows of its own, which verify all stages at once
        models, owned = _opened(stages, trust, None, verify="auto" if folder is None else "never")
        try:
            plan = build({n: m.signature for n, m in models.items()}, made.get("wiring"), made.get("outputs"))
        except BaseException:
            for m in owned:
                m.close()
            raise
        return PipelineSession(plan, models, owned)

    def save(self, session: Session, folder: Path, /) -> Implementation:
        """Write the graph and every stage, each as a package of its own."""
        assert isinstance(session, PipelineSession)
        (folder / "stages").mkdir()
        stages = {}
        for name, model in session.stages.items():
            model.save(folder / "stages" / f"{name}.mlb")
            stages[name] = f"stages/{name}.mlb"
        made = {
            "version": 1,
            "stages": stages,
            "wiring": dict(session.plan.wiring),
            "outputs": {k: str(v) for k, v in session.plan.outputs.items()},
        }
        (folder / _FILE).write_text(json.dumps(made, indent=1, ensure_ascii=False), "utf-8")
        return Implementation("pipeline", ".", "pipeline")


def _read_json(folder: Path, label: str) -> dict[str, Any]:
    try:
        made = json.loads((folder / _FILE).read_text("utf-8"))
    except (OSError, ValueError) as exc:
        raise ArtifactError(f"{label}: a broken pipeline: {exc}") from exc
    ok = isinstance(made, dict) and made.get("version") == 1 and set(made) <= {"version", "stages", "wiring", "outputs"}
    ok = ok and all(
        isinstance(made.get(k), dict) and all(isinstance(v, str) for v in made[k].values()) for k in ("stages", "wiring", "outputs")
    )
    if not ok:
        raise ArtifactError(f"{label}: {_FILE} is malformed or of a newer version")
    strange = [s for s in made["stages"].values() if s.startswith(("/", "~")) or ".." in s.split("/")]
    if strange:
        raise ArtifactError(f"{label}: stages outside the package: {strange}")
    return made
