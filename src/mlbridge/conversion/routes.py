"""Which implementation runs, and why: convert and verify, else run natively, else say what is missing.

Here are the caller's wishes (`Wishes`), the checked `Options`, and the choice itself (`realise`). Files, URIs and packages
are `_api.py`'s.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from .. import plugins
from ..artifact import open_artifact
from ..errors import (
    ConversionError,
    InputError,
    MissingDependencyError,
    MlbridgeError,
    SignatureError,
    UnavailableError,
    UnsupportedError,
    UnverifiedConversionWarning,
)
from ..interfaces import Array, Framework, Runtime, Session
from ..model import Model, Route
from ..signature import ROWS, Signature, TensorSpec
from ..tensors import Coercion, batch_rows
from .kept import recall, remember, versions_of
from .verification import Report, default_tolerance, rows_hold, stack, verify

__all__ = [
    "Golden",
    "Native",
    "Options",
    "Source",
    "Wishes",
    "judge",
    "overlay",
    "promise_checked",
    "realise",
    "signature_of",
    "verify_golden",
    "with_samples",
]

Golden = tuple[dict[str, Array], dict[str, Array]]
Native = Callable[[Signature], tuple[Runtime, Session]]

_LOG = logging.getLogger("mlbridge")
_GOLDEN_ROWS = 64
LIBRARIES = (
    "mlbridge", "onnxruntime", "onnx", "numpy", "scikit-learn", "skl2onnx", "torch", "tensorflow", "keras", "tf2onnx", "xgboost", "lightgbm",
)  # fmt: skip


class Options:
    """`options`, keyed by runtime and framework: each gets its own keys, a misspelt one is refused."""

    def __init__(self, options: Mapping[str, Mapping[str, Any]] | None) -> None:
        self._given = {k: dict(v) for k, v in (options or {}).items()}
        known = {*plugins.runtimes(), *plugins.frameworks()}
        problems = [
            f"options are keyed by runtime or framework; {k!r} is none of {', '.join(sorted(known))}" for k in self._given if k not in known
        ]
        for name, values in self._given.items():
            keys = _option_keys(name) if name in known else None
            if keys is not None:
                takes = ", ".join(sorted(keys)) or "none"
                problems += [f"options[{name!r}] has no key {k!r}; it takes {takes}" for k in values if k not in keys]
        if problems:
            raise InputError("\n".join(problems), problems=problems)

    def of(self, part: Framework | Runtime) -> dict[str, Any]:
        """Return what was given for a runtime or a framework, only the keys it declares."""
        return {k: v for k, v in self._given.get(part.name, {}).items() if k in part.options}

    def over(self, name: str, saved: Mapping[str, Any]) -> Options:
        """Return these options with what a package saved for `name` beneath them."""
        return Options(self._given | {name: dict(saved) | self._given.get(name, {})})


def _option_keys(name: str) -> frozenset[str] | None:
    keys: frozenset[str] = frozenset()
    for names, get in ((plugins.runtimes, plugins.runtime), (plugins.frameworks, plugins.framework)):
        if name in names():
            try:
                keys |= get(name).options
            except MissingDependencyError:
                return None
    return keys


@dataclass(frozen=True, slots=True)
class Wishes:
    """What the caller asked for, checked."""

    via: str = "auto"
    verify: str = "auto"
    device: str = "auto"
    provider: str | None = None
    options: Options = field(default_factory=lambda: Options(None))

    def __post_init__(self) -> None:
        if self.via not in ("auto", "onnx", "native"):
            raise InputError(f"via is {self.via!r}, expected 'auto', 'onnx' or 'native'")
        if self.verify not in ("auto", "require", "never"):
            raise InputError(f"verify is {self.verify!r}, expected 'auto', 'require' or 'never'")

    @property
    def placing(self) -> dict[str, Any]:
        """Device and provider, as the ONNX runtime takes them."""
        return {"device": self.device, "provider": self.provider}


@dataclass(frozen=True)
class Source:
    """A model a framework knows, and all that is known about it.

    Attributes
    ----------
    model : object
        As the framework read or recognised it.
    framework : Framework
        Which knows it.
    signature : Signature
        Decided once.
    name, trust : str
        For messages and the route.
    native : callable or None
        How to run it natively; None where trust or the framework forbids.
    golden : pair of dicts or None
        A package's golden samples.
    key : str or None
        Under which its verification is kept.
    refusal : MlbridgeError or None
        Why it cannot run natively.
    reload, provenance
        For the Model.
    """

    model: object
    framework: Framework
    signature: Signature
    name: str
    trust: str = "live"
    native: Native | None = None
    golden: Golden | None = None
    key: str | None = None
    refusal: MlbridgeError | None = None
    reload: tuple | None = None


def overlay(inferred: Signature, given: Signature | None) -> Signature:
    """Take the caller's specs for the tensors they name; names must be the inferred ones."""
    if given is None:
        return inferred
    problems, sides = [], []
    for side in ("inputs", "outputs"):
        specs = {s.name: s for s in getattr(inferred, side)}
        for s in getattr(given, side):
            if s.name not in specs:
                problems.append(f"the model has no {side[:-1]} {s.name!r}; it has {', '.join(map(repr, specs))}")
            else:
                specs[s.name] = s
        sides.append(tuple(specs.values()))
    if problems:
        raise SignatureError("; ".join(problems), problems=problems)
    return Signature(*sides)


def signature_of(
    framework: Framework, model: object, sample: object | None, given: Signature | None, keywords: Mapping[str, Any]
) -> Signature:
    """Infer a model's signature under the caller's; outputs follow the axes that the caller made dynamic, where the framework can tell."""
    signature = overlay(framework.infer(model, sample, **keywords), given)
    if given is None or sample is None or not hasattr(framework, "stretched"):
        return signature
    return framework.stretched(model, sample, signature)


def _by_name(sample: object, signature: Signature) -> object:
    """Name the arrays of a tuple in the order of the inputs."""
    if isinstance(sample, tuple) and len(sample) == len(signature.inputs) and all(hasattr(v, "shape") for v in sample):
        return {s.name: v for s, v in zip(signature.inputs, sample)}
    return sample


def realise(source: Source, sample: object | None, wishes: Wishes) -> Model:
    """Choose a route: convert and verify, else run natively.

    Raises
    ------
    ConversionError
        If ONNX is demanded, or nothing native is left, and the conversion fails or differs.
    UntrustedArtifactError, UnsupportedError, MissingDependencyError
        If it does not convert and may not, or cannot, run natively here.
    """
    golden_feeds = dict(source.golden[0]) if source.golden else None
    feeds = Coercion(source.signature).feeds(_by_name(sample, source.signature))[0] if sample is not None else golden_feeds
    running, refusal = _start_native(source, wishes)
    if running is not None and feeds is not None:
        source = replace(source, signature=_kept_promise(running, source.signature, feeds))
    considered: tuple[str, ...] = ()
    if wishes.via != "native":
        try:
            session, report, runtime = _convert(source, feeds, running, wishes)
        except UnavailableError:
            if running is not None:
                running[1].close()
            raise
        except ConversionError as exc:
            if wishes.via == "onnx" or running is None:
                if running is not None:
                    running[1].close()
                if wishes.via == "onnx" or refusal is None:
                    raise
                raise explained(refusal, exc) from exc
            reason = exc.message.splitlines()[0]
            considered = (f"onnx: {reason}",)
            _LOG.warning("%s runs natively: %s", source.name, reason)
        else:
            verified = "and verified" if report is not None and report.verified else "not verified"
            route = Route(
                "onnx", f"converted from {source.framework.name}, {verified}".replace(", and", " and"), source.framework.name, source.trust
            )
            return _finished(source, session, runtime, route, report, feeds, running)
    if running is None:
        raise refusal or UnsupportedError(f"{source.framework.name} models have no native runtime here")
    why = "asked for" if wishes.via == "native" else "the conversion was not possible or did not verify"
    route = Route(running[0].name, why, source.framework.name, source.trust, considered)
    return _finished(source, running[1], running[0], route, None, feeds, None)


def explained(refusal: MlbridgeError, reason: MlbridgeError) -> MlbridgeError:
    """Return the refusal to run natively with the reason why ONNX will not do."""
    line = reason.message.splitlines()[0]
    return type(refusal)(f"{refusal.message}\n  ONNX will not do: {line}", hint=refusal.hint, runtime=refusal.runtime)


def _start_native(source: Source, wishes: Wishes) -> tuple[tuple[Runtime, Session] | None, MlbridgeError | None]:
    if source.native is None:
        return None, source.refusal
    try:
        return source.native(source.signature), None
    except (UnsupportedError, MissingDependencyError) as exc:
        if wishes.via == "native":
            raise
        return None, source.refusal or exc


def _kept_promise(running: tuple[Runtime, Session], signature: Signature, feeds: dict[str, Array]) -> Signature:
    """Return the signature without `rows` where the source breaks that promise, or has outputs without rows."""
    try:
        holds = rows_hold(running[1].run, feeds, signature) and (signature.batched or not any(s.batched for s in signature.inputs))
    except MlbridgeError as exc:
        raise InputError(f"the model fails on its own sample: {exc.message}", hint="pass rows like those it was trained on") from exc
    if not holds:
        signature = running[1].signature = without_rows(signature)
    return signature


def without_rows(signature: Signature) -> Signature:
    """Rename the symbol `rows` to `n` on inputs and to any size on outputs: rows are not independent."""

    def renamed(spec: TensorSpec, symbol: str | None) -> TensorSpec:
        return replace(spec, shape=tuple(symbol if d == ROWS else d for d in spec.shape))

    return Signature(tuple(renamed(s, "n") for s in signature.inputs), tuple(renamed(s, None) for s in signature.outputs))


def promise_checked(model: Model, sample: object | None) -> Model:
    """Return the Model without `rows` where a batch does not equal its rows, and with it where a foreign graph keeps it unsaid."""
    if sample is None:
        return model
    session, before = model._session, model.signature
    feeds, _ = model._coercion.feeds(sample)
    if before.batched:
        after = before if rows_hold(session.run, feeds, before) else without_rows(before)
    else:
        claim = getattr(model._runtime, "claimed_rows", None)
        claimed = claim(before) if claim is not None else None
        after = claimed if claimed is not None and batch_rows(feeds, claimed) and rows_hold(session.run, feeds, claimed) else before
    if after is before:
        return model
    session.signature = after
    model._closed = True  # its session goes on in the next Model
    return Model(session, runtime=model._runtime, route=model.route, name=model.name, reload=model._reload)


def with_samples(model: Model, sample: object | None) -> Model:
    """Give a Model golden rows: the sample's first, and its own answers."""
    if sample is not None:
        feeds, _ = model._coercion.feeds(sample)
        if model.signature.batched and batch_rows(feeds, model.signature) is not None:
            feeds = {k: v[:_GOLDEN_ROWS] for k, v in feeds.items()}
        model.samples = (feeds, model._ask(feeds, None, None))
    return model


def _convert(
    source: Source, feeds: dict[str, Array] | None, running: tuple[Runtime, Session] | None, wishes: Wishes
) -> tuple[Session, Report | None, Runtime]:
    import shutil
    import tempfile

    runtime = plugins.runtime("onnx")
    keywords = wishes.options.of(source.framework)
    folder = Path(tempfile.mkdtemp(prefix="mlbridge-"))
    try:
        path = source.framework.convert(source.model, folder, signature=source.signature, **keywords)
        session = runtime.load(open_artifact(path), signature=source.signature, **wishes.placing, **wishes.options.of(runtime))
    except (ConversionError, UnavailableError):  # a device that was demanded and is not there is no matter of conversion
        raise
    except MlbridgeError as exc:
        raise ConversionError(f"{source.framework.name}: the converted graph does not load: {exc.message}") from exc
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    if wishes.verify == "never":
        return session, None, runtime
    try:
        report = _verified(source, feeds, running, session, keywords)
        judge(report, wishes.verify, source.name)
    except BaseException:
        session.close()
        raise
    return session, report, runtime


def judge(report: Report, word: str, name: str) -> None:
    """Raise on a difference; where there was nothing to compare with, warn, or raise if that was demanded."""
    if report.against == "nothing":
        if word == "require":
            hint = "pass a sample, or trust that allows running the source"
            raise ConversionError(f"{name}: there is nothing to verify the conversion with", report=report, hint=hint)
        warnings.warn(f"{name}: the converted model was not compared with its source", UnverifiedConversionWarning, stacklevel=6)
    elif not report.verified:
        raise ConversionError(f"{name}: the converted model answers differently\n{report}", report=report)


def _verified(
    source: Source, feeds: dict[str, Array] | None, running: tuple[Runtime, Session] | None, session: Session, keywords: Mapping[str, Any]
) -> Report:
    kept = recall(source.key) if source.key else None
    if kept is not None and kept.against != "nothing":
        return kept
    framework, signature = source.framework, source.signature
    tolerance = framework.tolerance(source.model, signature=signature) if hasattr(framework, "tolerance") else default_tolerance(signature)
    known: dict[str, Any] = {"tolerance": tolerance, "tie": getattr(framework, "tie", None), "versions": versions_of(LIBRARIES)}
    report = Report(False, 0, tolerance, against="nothing", versions=known["versions"])
    if running is not None:
        probes = framework.probe(source.model, signature=signature, seed=0, **keywords) if signature.batched or feeds is None else {}
        rows = stack([f for f in (feeds, probes) if f]) if signature.batched else (feeds or probes)
        if rows:
            coverage = framework.coverage(source.model, rows, signature=signature) if hasattr(framework, "coverage") else None
            report = verify(running[1].run, session.run, signature, rows, nodes_tested=coverage, **known)
    elif source.golden is not None:
        report = verify_golden(session, signature, source.golden, **known)
    if source.key and report.verified:
        remember(source.key, report)
    return report


def verify_golden(session: Session, signature: Signature, golden: Golden, **known: Any) -> Report:
    """Compare a session with a package's golden samples; keywords as `verify`."""
    return verify(lambda feeds: golden[1], session.run, signature, golden[0], against="golden samples", **known)


_DISTRIBUTIONS = {"sklearn": "scikit-learn", "spark": "pyspark", "r": ""}


def _finished(
    source: Source,
    session: Session,
    runtime: Runtime,
    route: Route,
    report: Report | None,
    feeds: dict[str, Array] | None,
    running: tuple[Runtime, Session] | None,
) -> Model:
    """Make the Model; its golden rows are the sample's, answered by the source where it runs."""
    samples = source.golden
    if samples is None and feeds is not None:
        few = {k: v[:_GOLDEN_ROWS] for k, v in feeds.items()} if session.signature.batched else feeds
        samples = (few, (running[1] if running is not None else session).run(few))
    if running is not None:
        running[1].close()
    versions = versions_of([_DISTRIBUTIONS.get(source.framework.name, source.framework.name)])
    native = source.native
    return Model(
        session,
        runtime=runtime,
        route=route,
        report=report,
        samples=samples,
        name=source.name,
        native=None if native is None or running is None else lambda: native(source.signature),
        reload=source.reload,
        requires={k: v for k, v in versions.items() if k != "machine"},
    )
