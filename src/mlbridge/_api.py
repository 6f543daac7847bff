"""wrap(), convert(), load(), serve(): the glue between files, frameworks, runtimes, verification and Model.

The order of things is here and nothing else: what each step does is in its own module.
"""

from __future__ import annotations

import logging
import os
import re
import shutil
import tempfile
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from . import plugins
from .artifact import Artifact, Trust, TrustDemand, open_artifact
from .conversion.verification import Report, cache_key, default_tolerance, recall, remember, rows_hold, stack, verify, versions_of
from .errors import (
    ArtifactError,
    ConversionError,
    InputError,
    MissingDependencyError,
    MlbridgeError,
    SignatureError,
    UnsupportedError,
    UntrustedArtifactError,
    UnverifiedConversionWarning,
)
from .interfaces import Array, Framework, Runtime, Session
from .model import Model, Route
from .package import Package, read_package
from .pipeline.composed import Pipeline, PipelineRuntime, set_loader
from .pipeline.session import PipelineSession
from .signature import ROWS, Signature, TensorSpec
from .tensors import Coercion, batch_rows

__all__ = ["convert", "load", "serve", "wrap"]

_LOG = logging.getLogger("mlbridge")
_URI = re.compile(r"([a-z][a-z0-9]+)(?:\+([a-z0-9]+))?:(.*)", re.DOTALL)  # two letters at least: one is a drive
_LIBRARIES = (
    "mlbridge",
    "onnxruntime",
    "onnx",
    "numpy",
    "scikit-learn",
    "skl2onnx",
    "torch",
    "tensorflow",
    "keras",
    "tf2onnx",
    "xgboost",
    "lightgbm",
)
_GOLDEN_ROWS = 64


# ---------------------------------------------------------------- live objects


def wrap(
    model: object,
    sample: object | None = None,
    *,
    signature: Signature | None = None,
    via: str = "auto",
    device: str = "auto",
    provider: str | None = None,
    verify: str = "auto",
    options: Mapping[str, Mapping[str, Any]] | None = None,
) -> Model:
    """Make a Model of a live object: a fitted estimator, a network, a callable, an ONNX graph.

    Parameters
    ----------
    model : object
        The fitted model. A plain function from feeds to outputs needs a `signature`.
    sample : table, array or dict, optional
        A few real rows: they decide names, dtypes and levels, and the conversion is verified on them.
    signature : Signature, optional
        Overrides what would be inferred: symbols of dynamic axes, rules that inference cannot see.
    via : {'auto', 'onnx', 'native'}
        `auto` converts where the conversion verifies, else runs the model natively and says so.
    device, provider : str
        For ONNX: hardware (`auto`, `cpu`, `cuda`, `cuda:1`) and the exact execution provider.
    verify : {'auto', 'require', 'never'}
        Whether the conversion is compared with the model.
    options : dict of dict, optional
        Keywords by runtime or framework name.

    Returns
    -------
    Model

    Raises
    ------
    UnsupportedError
        If nothing knows this kind of model.
    ConversionError
        If `via='onnx'` and it cannot be converted or differs; `.report` says where.
    """
    _check_words(via=via, verify=verify)
    if isinstance(model, (str, os.PathLike, bytes)):
        raise InputError("wrap takes a live model, not a path", hint="use mlbridge.load for files and URIs")
    given = _Options(options)
    framework = plugins.framework_for(model)
    if framework is None:
        return _wrap_bare(model, sample, signature, via, device, provider, given)
    keywords = given.of_framework(framework)
    inferred = _overlay(framework.infer(model, sample, **keywords), signature)
    return _realise(
        model, framework, inferred, sample, via, device, provider, verify, given, trust="live", native=_native_of(model, framework, given)
    )


def convert(source: object, sample: object | None = None, **keywords: Any) -> Model:
    """As `wrap` or `load` with `via='onnx'`: an ONNX model or an error.

    Parameters
    ----------
    source : object, path or URI
        A live model or a file.
    sample : table, array or dict, optional
        A few real rows.
    **keywords
        As for `wrap` or `load`.
    """
    if isinstance(source, (str, os.PathLike, bytes)):
        return load(source, sample=sample, via="onnx", **keywords)
    return wrap(source, sample, via="onnx", **keywords)


def _check_words(*, via: str, verify: str) -> None:
    if via not in ("auto", "onnx", "native"):
        raise InputError(f"via is {via!r}, expected 'auto', 'onnx' or 'native'")
    if verify not in ("auto", "require", "never"):
        raise InputError(f"verify is {verify!r}, expected 'auto', 'require' or 'never'")


class _Options:
    """`options`, keyed by runtime and framework: each gets its own keys, a misspelt one is refused."""

    def __init__(self, options: Mapping[str, Mapping[str, Any]] | None) -> None:
        self._given = {k: dict(v) for k, v in (options or {}).items()}
        known = {*plugins.runtimes(), *plugins.frameworks()}
        stray = sorted(set(self._given) - known)
        problems = [f"options are keyed by runtime or framework; {k!r} is none of {', '.join(sorted(known))}" for k in stray]
        for name, values in self._given.items():
            if name in known:
                keys = _option_keys(name)
                problems += [
                    f"options[{name!r}] has no key {k!r}; it takes {', '.join(sorted(keys)) or 'none'}"
                    for k in values
                    if keys is not None and k not in keys
                ]
        if problems:
            raise InputError("\n".join(problems), problems=problems)

    def of_framework(self, framework: Framework) -> dict[str, Any]:
        values = self._given.get(framework.name, {})
        return {k: v for k, v in values.items() if k in framework.options}

    def of_runtime(self, runtime: Runtime) -> dict[str, Any]:
        values = self._given.get(runtime.name, {})
        return {k: v for k, v in values.items() if k in runtime.options}


def _option_keys(name: str) -> frozenset[str] | None:
    keys: frozenset[str] = frozenset()
    for names, get in ((plugins.runtimes, plugins.runtime), (plugins.frameworks, plugins.framework)):
        if name in names():
            try:
                keys |= get(name).options
            except MissingDependencyError:
                return None
    return keys


def _overlay(inferred: Signature, given: Signature | None) -> Signature:
    """Take the caller's specs for the tensors they name; names must be the inferred ones."""
    if given is None:
        return inferred
    problems = []
    sides = []
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


def _wrap_bare(
    model: object, sample: object | None, signature: Signature | None, via: str, device: str, provider: str | None, given: _Options
) -> Model:
    """Wrap what no framework knows: an ONNX graph, a function with a signature, another runtime's object."""
    runtime = plugins.runtime_for(model)
    if runtime is None:
        raise UnsupportedError(
            f"no framework or runtime knows {type(model).__module__}.{type(model).__qualname__}",
            hint="pass a function from feeds to outputs with signature=…, or install the plug-in for its library",
        )
    keywords = given.of_runtime(runtime)
    if runtime.name == "onnx":
        if via == "native":
            raise UnsupportedError("an ONNX graph has no native runtime but onnx", hint="leave via='auto'")
        session = runtime.wrap(model, signature=signature, device=device, provider=provider, **keywords)  # type: ignore[arg-type]
        route = Route("onnx", "the model is ONNX", "onnx")
    else:
        if via == "onnx":
            raise ConversionError(f"{type(model).__name__} has no converter", hint="leave via='auto' to run it natively")
        if signature is None:
            signature = runtime.infer(model, sample) if hasattr(runtime, "infer") else None
        if signature is None:
            raise InputError("this model needs a signature", hint="pass signature=mlbridge.Signature([...], [...])")
        session = runtime.wrap(model, signature=signature, **keywords)
        route = Route(runtime.name, "no framework converts it; it runs in its own runtime")
    made = Model(session, runtime=runtime, route=route, name=_name_of(model))
    return _with_samples(_promise_checked(made, sample), sample)


def _promise_checked(model: Model, sample: object | None) -> Model:
    """Rename `rows` away where a batch does not equal its rows."""
    if sample is None or not model.signature.batched:
        return model
    feeds, _ = model._coercion.feeds(sample)
    if rows_hold(lambda f: model._ask(dict(f), None, None), feeds, model.signature):
        return model
    session = model._session
    session.signature = without_rows(model.signature)
    model._closed = True  # its session goes on in the next Model
    return Model(session, runtime=model._runtime, route=model.route, name=model.name)


def without_rows(signature: Signature) -> Signature:
    """Rename the symbol `rows` to `n` on inputs and to any size on outputs: rows are not independent."""

    def renamed(spec: TensorSpec, symbol: str | None) -> TensorSpec:
        return replace(spec, shape=tuple(symbol if d == ROWS else d for d in spec.shape))

    return Signature(tuple(renamed(s, "n") for s in signature.inputs), tuple(renamed(s, None) for s in signature.outputs))


def _name_of(model: object) -> str:
    name = getattr(model, "__name__", None)
    return name if isinstance(name, str) else type(model).__name__


def _native_of(model: object, framework: Framework, given: _Options) -> Callable[[Signature], tuple[Runtime, Session]] | None:
    """Return how to run a live object natively, or None where its framework cannot in this process."""

    def native(signature: Signature) -> tuple[Runtime, Session]:
        other = plugins.runtime_for(model)
        if other is not None and other.name not in ("onnx", "python"):
            return other, other.wrap(model, signature=signature, **given.of_runtime(other))
        function = framework.native(model, signature=signature, **given.of_framework(framework))
        runtime = plugins.runtime("python")
        return runtime, runtime.wrap(model, signature=signature, native=function, **given.of_runtime(runtime))

    return native


Native = Callable[[Signature], tuple[Runtime, Session]]


def _realise(
    model: object,
    framework: Framework,
    signature: Signature,
    sample: object | None,
    via: str,
    device: str,
    provider: str | None,
    verify_word: str,
    given: _Options,
    *,
    trust: str,
    native: Native | None,
    golden: tuple[dict[str, Array], dict[str, Array]] | None = None,
    key: str | None = None,
    reload: tuple | None = None,
    name: str | None = None,
    refusal: MlbridgeError | None = None,
) -> Model:
    """Choose a route for an object a framework knows: convert and verify, else run it natively."""
    feeds = Coercion(signature).feeds(sample)[0] if sample is not None else dict(golden[0]) if golden else None
    source: tuple[Runtime, Session] | None = None
    if native is not None and (via == "native" or verify_word != "never"):
        try:
            source = native(signature)
        except (UnsupportedError, MissingDependencyError) as exc:
            refusal = refusal or exc
    if source is not None and feeds is not None:
        signature = _keep_promise(source, signature, feeds, native)
    what = dict(name=name or _name_of(model), reload=reload, requires=_requires(framework))
    considered: tuple[str, ...] = ()
    if via != "native":
        try:
            session, report, runtime = _converted(
                model, framework, signature, feeds, source, golden, verify_word, device, provider, given, key
            )
            return _finish(
                session,
                runtime=runtime,
                route=Route(
                    "onnx",
                    f"converted from {framework.name}" + (" and verified" if report and report.verified else ", not verified"),
                    framework.name,
                    trust,
                ),
                report=report,
                feeds=feeds,
                golden=golden,
                native=(lambda: native(signature)) if native is not None else None,
                source=source,
                **what,
            )
        except ConversionError as exc:
            if via == "onnx" or source is None:
                if source is not None:
                    source[1].close()
                if via != "onnx" and refusal is not None:
                    raise refusal from exc
                raise
            considered = (f"onnx: {exc.message.splitlines()[0]}",)
            _LOG.warning("%s runs natively: %s", what["name"], exc.message.splitlines()[0])
    if source is None and native is not None:
        source = native(signature)
    if source is None:
        raise refusal or UnsupportedError(f"{framework.name} models have no native runtime here")
    runtime, session = source
    why = "asked for" if via == "native" else "the conversion was not possible or did not verify"
    return _finish(
        session,
        runtime=runtime,
        route=Route(runtime.name, why, framework.name, trust, considered),
        report=None,
        feeds=feeds,
        golden=golden,
        native=None,
        source=None,
        **what,
    )


def _keep_promise(source: tuple[Runtime, Session], signature: Signature, feeds: dict[str, Array], native: Native | None) -> Signature:
    """Return the signature without `rows` where the source breaks that promise."""
    try:
        holds = rows_hold(lambda f: source[1].run(f), feeds, signature)
    except MlbridgeError as exc:
        raise InputError(f"the model fails on its own sample: {exc.message}", hint="pass rows like those it was trained on") from exc
    if holds:
        return signature
    changed = without_rows(signature)
    source[1].signature = changed
    return changed


def _converted(
    model: object,
    framework: Framework,
    signature: Signature,
    feeds: dict[str, Array] | None,
    source: tuple[Runtime, Session] | None,
    golden: tuple[dict[str, Array], dict[str, Array]] | None,
    verify_word: str,
    device: str,
    provider: str | None,
    given: _Options,
    key: str | None,
) -> tuple[Session, Report | None, Runtime]:
    runtime = plugins.runtime("onnx")
    keywords = given.of_framework(framework)
    folder = Path(tempfile.mkdtemp(prefix="mlbridge-"))
    try:
        path = framework.convert(model, folder, signature=signature, **keywords)
        session = runtime.load(open_artifact(path), signature=signature, device=device, provider=provider, **given.of_runtime(runtime))
    except MlbridgeError as exc:
        if isinstance(exc, (ConversionError, MissingDependencyError)):
            raise
        raise ConversionError(f"{framework.name}: the converted graph does not load: {exc.message}") from exc
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    if verify_word == "never":
        return session, None, runtime
    try:
        report = _verified(model, framework, signature, feeds, source, golden, session, keywords, key)
    except BaseException:
        session.close()
        raise
    _judge(report, verify_word, session, framework.name)
    return session, report, runtime


def _judge(report: Report, verify_word: str, session: Session, name: str) -> None:
    """Raise on a difference; warn, or raise where demanded, when there was nothing to compare with."""
    if report.against == "nothing":
        if verify_word == "require":
            session.close()
            raise ConversionError(
                f"{name}: there is nothing to verify the conversion with",
                report=report,
                hint="pass a sample, or trust that allows running the source",
            )
        warnings.warn(f"{name}: the converted model was not compared with its source", UnverifiedConversionWarning, stacklevel=5)
    elif not report.verified:
        session.close()
        raise ConversionError(f"{name}: the converted model answers differently\n{report}", report=report)


def _verified(
    model: object,
    framework: Framework,
    signature: Signature,
    feeds: dict[str, Array] | None,
    source: tuple[Runtime, Session] | None,
    golden: tuple[dict[str, Array], dict[str, Array]] | None,
    session: Session,
    keywords: Mapping[str, Any],
    key: str | None,
) -> Report:
    kept = recall(key) if key else None
    if kept is not None and kept.against != "nothing":
        return kept
    tolerance = framework.tolerance(model, signature=signature) if hasattr(framework, "tolerance") else default_tolerance(signature)
    tie = getattr(framework, "tie", None)
    versions = versions_of(_LIBRARIES)
    if source is not None:
        probes = framework.probe(model, signature=signature, seed=0, **keywords) if signature.batched or feeds is None else {}
        rows = stack([f for f in (feeds, probes) if f]) if signature.batched else (feeds or probes)
        coverage = framework.coverage(model, rows, signature=signature) if rows and hasattr(framework, "coverage") else None
        if rows:
            report = verify(
                source[1].run, session.run, signature, rows, tolerance=tolerance, tie=tie, versions=versions, nodes_tested=coverage
            )
        else:
            report = Report(False, 0, tolerance, against="nothing", versions=versions)
    elif golden is not None:
        report = verify_golden(session, signature, golden, tolerance=tolerance, tie=tie, versions=versions)
    else:
        report = Report(False, 0, tolerance, against="nothing", versions=versions)
    if key and report.verified:
        remember(key, report)
    return report


def verify_golden(
    session: Session,
    signature: Signature,
    golden: tuple[dict[str, Array], dict[str, Array]],
    *,
    tolerance: float | None = None,
    tie: float | None = None,
    versions: Mapping[str, str] | None = None,
) -> Report:
    """Compare a session with a package's golden samples."""
    inputs, outputs = golden

    def recorded(feeds: Mapping[str, Array]) -> Mapping[str, Array]:
        return outputs

    return verify(recorded, session.run, signature, inputs, tolerance=tolerance, tie=tie, against="golden samples", versions=versions)


def _requires(framework: Framework) -> dict[str, str]:
    names = {"sklearn": "scikit-learn", "r": "", "spark": "pyspark"}
    versions = versions_of([names.get(framework.name, framework.name)])
    return {k: v for k, v in versions.items() if k not in ("machine",)}


def _finish(
    session: Session,
    *,
    runtime: Runtime,
    route: Route,
    report: Report | None,
    feeds: dict[str, Array] | None,
    golden: Any,
    native: Any,
    source: tuple[Runtime, Session] | None,
    name: str,
    reload: tuple | None,
    requires: Mapping[str, str],
) -> Model:
    samples = golden
    if samples is None and feeds is not None:
        few = {k: v[:_GOLDEN_ROWS] for k, v in feeds.items()} if session.signature.batched else feeds
        samples = (few, (source[1] if source is not None else session).run(few))  # the source's own answers, where there is one
    if source is not None:
        source[1].close()
    return Model(
        session, runtime=runtime, route=route, report=report, samples=samples, name=name, native=native, reload=reload, requires=requires
    )


def _with_samples(model: Model, sample: object | None) -> Model:
    if sample is not None:
        feeds, _ = model._coercion.feeds(sample)
        if batch_rows(feeds, model.signature) is not None and model.signature.batched:
            feeds = {k: v[:_GOLDEN_ROWS] for k, v in feeds.items()}
        model.samples = (feeds, model._ask(feeds, None, None))
    return model


# ---------------------------------------------------------------- files and URIs


def load(
    source: str | os.PathLike | bytes,
    *,
    trust: str = "data",
    via: str = "auto",
    device: str = "auto",
    provider: str | None = None,
    verify: str = "auto",
    sample: object | None = None,
    signature: Signature | None = None,
    trusted_types: Sequence[str] = (),
    options: Mapping[str, Mapping[str, Any]] | None = None,
) -> Model:
    """Open a model: a file, a folder, a package, bytes, or a URI.

    Parameters
    ----------
    source : path, URI or bytes
        A bare path is free to convert; a URI demands its runtime: `onnx:`, `python:`, `python+worker:`, `r:`,
        `r+inproc:`, `jvm:`, `jvm+py4j:`, `grpc://host:port/model[@version]`, `grpcs://`.
    trust : {'data', 'audited', 'code', 'sha256:…'}
        What the file may do. `data` never executes anything of it.
    via : {'auto', 'onnx', 'native'}
        A route demanded, or the best one.
    device, provider : str
        For ONNX: hardware and the exact execution provider.
    verify : {'auto', 'require', 'never'}
        Whether a conversion is compared with its source or with golden samples.
    sample : table, array or dict, optional
        A few real rows.
    signature : Signature, optional
        Rules the file does not hold.
    trusted_types : sequence of str
        For skops files: type names you have read and accept.
    options : dict of dict, optional
        Keywords by runtime or framework name.

    Returns
    -------
    Model

    Raises
    ------
    NotFoundError, ArtifactError, UntrustedArtifactError, MissingDependencyError, ConversionError
        As their names say; each with a hint.

    Examples
    --------
    >>> import mlbridge as mb
    >>> model = mb.load("churn.mlb")  # doctest: +SKIP
    >>> model.predict({"age": 41, "plan": "basic"})  # doctest: +SKIP
    {'label': 'stays', 'probabilities': array([0.91, 0.09])}
    """
    _check_words(via=via, verify=verify)
    demand, given = TrustDemand.parse(trust), _Options(options)
    keywords = dict(
        trust=trust,
        via=via,
        device=device,
        provider=provider,
        verify=verify,
        signature=signature,
        trusted_types=tuple(trusted_types),
        options=options,
    )
    if isinstance(source, str) and (uri := _URI.fullmatch(source)) and uri[1] in {*plugins.runtimes(), "grpcs"}:
        return _load_uri(source, uri[1], uri[2], uri[3], demand, sample, signature, device, provider, given)
    artifact = open_artifact(source)
    try:
        again = None if artifact.origin is None else (_reload, (os.path.abspath(artifact.origin), artifact.sha256, keywords))
        if artifact.format == "mlb":
            return _load_package(artifact, demand, via, device, provider, verify, sample, given, again)
        if artifact.format in ("pipeline", "pipeline-toml"):
            session = PipelineRuntime().load(artifact, demand=demand)
            return Pipeline._of(session, _stem(artifact), reload=again, sample=sample)
        if artifact.format == "onnx":
            return _load_onnx(artifact, via, device, provider, sample, signature, given, again)
        return _load_framework(artifact, demand, via, device, provider, verify, sample, signature, trusted_types, given, again)
    finally:
        # sessions that still read the private copy hold the artifact itself; nothing else may keep it
        del artifact


def _reload(path: str, sha256: str, keywords: Mapping[str, Any]) -> Model:
    """Load a pickled Model again: the same path must still hold the same bytes."""
    with_hash = open_artifact(path)
    if with_hash.sha256 != sha256:
        raise ArtifactError(f"{path}: not the file this model was pickled from: its sha256 differs", hint="load the new file in words")
    return load(path, **keywords)


def _stem(artifact: Artifact) -> str:
    return artifact.origin.stem if artifact.origin is not None else "model"


def _load_onnx(
    artifact: Artifact,
    via: str,
    device: str,
    provider: str | None,
    sample: object | None,
    signature: Signature | None,
    given: _Options,
    again: tuple | None,
) -> Model:
    if via == "native":
        raise UnsupportedError(f"{artifact.label}: an ONNX file has no other runtime", hint="leave via='auto'")
    runtime = plugins.runtime("onnx")
    session = runtime.load(artifact, signature=signature, device=device, provider=provider, **given.of_runtime(runtime))
    model = Model(session, runtime=runtime, route=Route("onnx", "the file is ONNX", "onnx", "data"), name=_stem(artifact), reload=again)
    return _with_samples(_promise_checked(model, sample), sample)


def _load_framework(
    artifact: Artifact,
    demand: TrustDemand,
    via: str,
    device: str,
    provider: str | None,
    verify_word: str,
    sample: object | None,
    signature: Signature | None,
    trusted_types: Sequence[str],
    given: _Options,
    again: tuple | None,
) -> Model:
    readers = plugins.frameworks_of_format(artifact.format)
    runners = [r for r in plugins.runtimes_of_format(artifact.format) if r.name not in ("onnx", "python")]
    if not readers and not runners:
        kind = (
            "a format mlbridge does not know"
            if artifact.format == "unknown"
            else f"of format {artifact.format!r}, which nothing installed here reads"
        )
        raise ArtifactError(
            f"{artifact.label}: {kind}", hint="name its runtime in a URI (python:, r:, jvm:), or install the plug-in for it"
        )
    demand.check(artifact)
    refusal: MlbridgeError | None = None
    framework, model = None, None
    if readers:
        framework, model, refusal = _read(readers, artifact, given, trusted_types)
    native = _native_of_file(artifact, model, framework, runners, demand, given)
    if framework is None or model is None:
        if via == "onnx" or native is None or signature is None:
            raise refusal or ArtifactError(f"{artifact.label}: nothing reads it")
        runtime, session = native(signature)
        return Model(
            session,
            runtime=runtime,
            route=Route(runtime.name, f"not converted: {refusal.message if refusal else 'no reader'}", trust=demand.level.name.lower()),
            name=_stem(artifact),
            reload=again,
        )
    keywords = given.of_framework(framework)
    inferred = _overlay(framework.infer(model, sample, **keywords), signature)
    versions = versions_of(_LIBRARIES)
    key = cache_key(artifact.sha256, versions, framework.name, repr(sorted(keywords.items())), inferred.to_json())
    untrusted = None
    if native is None:
        untrusted = UntrustedArtifactError(
            f"{artifact.label}: it does not convert, and running it natively executes code; trust is {demand.level.name.lower()!r}",
            hint=f"if you trust where it comes from, pass trust='code' or trust='sha256:{artifact.sha256}'",
        )
    if via == "native" and untrusted is not None:
        raise untrusted
    return _realise(
        model, framework, inferred, sample, via, device, provider, verify_word, given,
        trust=demand.level.name.lower() if artifact.trust > Trust.DATA else "data",
        native=native, key=key, reload=again, name=_stem(artifact), refusal=untrusted,
    )  # fmt: skip


def _read(
    readers: list[Framework], artifact: Artifact, given: _Options, trusted_types: Sequence[str]
) -> tuple[Framework | None, object | None, MlbridgeError | None]:
    """Read a file with the framework of its format; a pickle belongs to whoever knows the object in it."""
    reader = readers[0]
    keywords = given.of_framework(reader)
    if artifact.format == "skops":
        keywords["trusted_types"] = tuple(trusted_types)
    try:
        model = reader.read(artifact, **keywords)
    except (UnsupportedError, ConversionError) as exc:
        return None, None, exc
    owner = reader if reader.accepts(model) else plugins.framework_for(model)
    if owner is None:
        return (
            None,
            None,
            UnsupportedError(f"{artifact.label}: holds a {type(model).__module__}.{type(model).__qualname__}, which no framework knows"),
        )
    return owner, model, None


def _native_of_file(
    artifact: Artifact, model: object | None, framework: Framework | None, runners: list[Runtime], demand: TrustDemand, given: _Options
) -> Native | None:
    """Return how to run the file natively, or None below trust `code`."""
    if not demand.allows(artifact, Trust.CODE):
        return None
    if runners:
        return lambda signature: (runners[0], runners[0].load(artifact, signature=signature, **given.of_runtime(runners[0])))
    return _native_of(model, framework, given) if framework is not None and model is not None else None


def _load_uri(
    uri: str,
    scheme: str,
    way: str | None,
    rest: str,
    demand: TrustDemand,
    sample: object | None,
    signature: Signature | None,
    device: str,
    provider: str | None,
    given: _Options,
) -> Model:
    runtime = plugins.runtime("grpc" if scheme == "grpcs" else scheme)
    keywords = given.of_runtime(runtime)
    if way is not None:
        keywords["way"] = way
    if scheme in ("grpc", "grpcs"):
        session = runtime.load(rest.removeprefix("//"), signature=signature, **({"way": "tls"} if scheme == "grpcs" else {}), **keywords)
        return _with_samples(
            Model(
                session, runtime=runtime, route=Route("grpc", f"served at {session.device}", trust="remote"), name=rest.rsplit("/", 1)[-1]
            ),
            sample,
        )
    place = rest.partition("#")[0]
    if scheme == "python" and not Path(place).exists() and re.fullmatch(r"[\w.]+:[\w.]+", rest):
        if demand.level < Trust.CODE:
            raise UntrustedArtifactError(
                f"{uri}: importing a module runs its code, and trust is {demand.level.name.lower()!r}",
                hint="pass trust='code' if you trust it",
            )
        session = runtime.load(rest, signature=signature, **keywords)
    else:
        artifact = open_artifact(place)
        needed = Trust.DATA if scheme in ("onnx", "pipeline") else Trust.CODE
        demand.check(artifact, needed)
        if scheme == "onnx":
            keywords |= {"device": device, "provider": provider}
        if "#" in rest:
            keywords["member"] = rest.partition("#")[2]
        if sample is not None and signature is None:
            signature = _signature_of_file(artifact, sample, given)
        session = runtime.load(artifact, signature=signature, **keywords)
    route = Route(runtime.name, f"asked for by the URI {scheme}{'+' + way if way else ''}:", trust=demand.level.name.lower())
    return _with_samples(_promise_checked(Model(session, runtime=runtime, route=route, name=Path(place).stem or scheme), sample), sample)


def _signature_of_file(artifact: Artifact, sample: object, given: _Options) -> Signature | None:
    """Ask the framework that reads a file for the signature a demanded runtime needs."""
    for framework in plugins.frameworks_of_format(artifact.format):
        try:
            return framework.infer(framework.read(artifact, **given.of_framework(framework)), sample, **given.of_framework(framework))
        except (UnsupportedError, ConversionError, ArtifactError) as exc:
            _LOG.debug("%s does not read %s: %s", framework.name, artifact.label, exc)
    return None


# ---------------------------------------------------------------- packages


def _load_package(
    artifact: Artifact,
    demand: TrustDemand,
    via: str,
    device: str,
    provider: str | None,
    verify_word: str,
    sample: object | None,
    given: _Options,
    again: tuple | None,
) -> Model:
    package = read_package(artifact)
    sample_feeds = Coercion(package.signature).feeds(sample)[0] if sample is not None else None
    considered: list[str] = []
    refusal: MlbridgeError | None = None
    for entry in sorted(package.implementations, key=lambda i: i.runtime not in ("onnx", "pipeline")):
        is_graph = entry.runtime in ("onnx", "pipeline")
        if (via == "onnx" and not is_graph) or (via == "native" and is_graph):
            continue
        try:
            return _open_implementation(
                package, entry, artifact, demand, verify_word, device, provider, given, again, tuple(considered), sample_feeds
            )
        except (ConversionError, MissingDependencyError, UntrustedArtifactError, UnsupportedError) as exc:
            refusal = refusal or exc
            considered.append(f"{entry.runtime}: {exc.message.splitlines()[0]}")
            _LOG.warning("%s: the %s implementation is not taken: %s", artifact.label, entry.runtime, exc.message.splitlines()[0])
    if via != "native":
        for entry in package.implementations:
            if entry.runtime not in ("onnx", "pipeline") and plugins.frameworks_of_format(entry.format):
                return _convert_implementation(package, entry, demand, via, device, provider, verify_word, sample, given, again)
    raise refusal or UnsupportedError(f"{artifact.label}: it has no {via} implementation", hint="leave via='auto'")


def _open_implementation(
    package: Package,
    entry: Any,
    artifact: Artifact,
    demand: TrustDemand,
    verify_word: str,
    device: str,
    provider: str | None,
    given: _Options,
    again: tuple | None,
    considered: tuple[str, ...],
    feeds: dict[str, Array] | None,
) -> Model:
    runtime = plugins.runtime(entry.runtime)
    inner = open_artifact(package.folder / entry.path)
    keywords = dict(entry.options) | given.of_runtime(runtime)
    graph = entry.runtime in ("onnx", "pipeline")
    if graph:
        keywords |= {"device": device, "provider": provider}
    else:
        if package_pin := (demand.sha256 is not None and demand.sha256 in (artifact.sha256, package.sha256)):
            _LOG.debug("%s is pinned by its hash", artifact.label)
        if not package_pin:
            demand.check(inner, Trust.CODE)
        if plugins.frameworks_of_format(entry.format) and via_convert(entry, package):
            raise ConversionError("it is converted first")
    if entry.runtime == "pipeline":
        keywords["demand"] = demand
    session = runtime.load(inner, signature=package.signature, **keywords)
    report = None
    if graph and verify_word != "never":
        key = cache_key(package.sha256, versions_of(_LIBRARIES), entry.path)
        report = recall(key)
        if report is None:
            report = (
                verify_golden(
                    session,
                    package.signature,
                    package.samples,
                    versions=versions_of(_LIBRARIES),
                    tolerance=(entry.parity or {}).get("tolerance") if _sane(entry.parity) else None,
                )
                if package.samples
                else Report(False, 0, 0.0, against="nothing")
            )
            if report.verified:
                remember(key, report)
        _judge(report, verify_word, session, package.name)
    why = (
        ("the package's verified ONNX" if report is not None and report.verified else "the package's ONNX")
        if graph
        else "the package has no usable ONNX"
    )
    route = Route(entry.runtime, why, package.provenance.get("framework"), "data" if graph else demand.level.name.lower(), considered)
    known = dict(route=route, report=report, samples=package.samples, reload=again, provenance=package.provenance)
    if isinstance(session, PipelineSession):
        return Pipeline._of(session, package.name, **known)
    return Model(session, runtime=runtime, name=package.name, **known)


def _sane(parity: Mapping[str, Any] | None) -> bool:
    """Whether a manifest's stated tolerance may be used: never a laxer one than single precision allows."""
    value = (parity or {}).get("tolerance")
    return isinstance(value, float) and 0.0 < value <= 1e-4


def via_convert(entry: Any, package: Package) -> bool:
    """Whether a native implementation is of a kind that converts without running it."""
    return entry.format in ("rds", "spark") and package.samples is not None


def _convert_implementation(
    package: Package,
    entry: Any,
    demand: TrustDemand,
    via: str,
    device: str,
    provider: str | None,
    verify_word: str,
    sample: object | None,
    given: _Options,
    again: tuple | None,
) -> Model:
    """Convert a native implementation from its file alone and verify it against the golden samples."""
    artifact = open_artifact(package.folder / entry.path)
    demand.check(artifact)
    framework, model, refusal = _read(plugins.frameworks_of_format(entry.format), artifact, given, ())
    runners = [r for r in plugins.runtimes_of_format(entry.format) if r.name not in ("onnx", "python")]
    native = _native_of_file(artifact, model, framework, runners, demand, given)
    if framework is None or model is None:
        if native is None or via == "onnx":
            raise refusal or ArtifactError(f"{package.name}: nothing reads its {entry.format} implementation")
        runtime, session = native(package.signature)
        return Model(
            session,
            runtime=runtime,
            route=Route(runtime.name, f"not converted: {refusal.message if refusal else ''}", trust=demand.level.name.lower()),
            samples=package.samples,
            name=package.name,
            reload=again,
        )
    key = cache_key(package.sha256, versions_of(_LIBRARIES), framework.name, entry.path)
    return _realise(model, framework, package.signature, sample, via, device, provider, verify_word, given, trust="data" if native is None else demand.level.name.lower(), native=native, golden=package.samples, key=key, reload=again, name=package.name)  # fmt: skip


# ---------------------------------------------------------------- serving


def serve(models: Mapping[str, Any], **keywords: Any) -> Any:
    """Serve models on the Open Inference Protocol v2 over gRPC and REST.

    Parameters
    ----------
    models : dict
        Name to a Model, a path or a URI; or to a dict of version to those.
    **keywords
        As for `mlbridge.server.serve`: `grpc`, `http`, `batching`, `token`, `tls`, ….

    Returns
    -------
    Server
        Running; a context manager with `stop`, `wait` and its addresses.
    """
    return plugins.server()(models, **keywords)


set_loader(load)  # stages given as paths are opened by `load`; pipeline imports nothing above itself
