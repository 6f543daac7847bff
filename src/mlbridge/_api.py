"""wrap(), convert(), load(), serve(): the glue between files, URIs, packages, frameworks, runtimes and Model.

The order of things is here and nothing else: what each step does is in its own module, the choice of route in
`conversion/routes.py`.
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from . import plugins
from .artifact import Artifact, Implementation, Trust, TrustDemand, open_artifact
from .conversion.kept import cache_key, recall, remember, versions_of
from .conversion.routes import (
    LIBRARIES,
    Native,
    Options,
    Source,
    Wishes,
    judge,
    overlay,
    promise_checked,
    realise,
    verify_golden,
    with_samples,
)
from .conversion.verification import Report
from .errors import (
    ArtifactError,
    ConversionError,
    InputError,
    MissingDependencyError,
    MlbridgeError,
    SignatureError,
    UnsupportedError,
    UntrustedArtifactError,
)
from .interfaces import Framework, Runtime
from .model import Model, Route
from .package import Package, read_package
from .pipeline.composed import Pipeline, PipelineRuntime, set_loader
from .pipeline.session import PipelineSession
from .signature import Signature

__all__ = ["convert", "load", "serve", "wrap"]

_LOG = logging.getLogger("mlbridge")
# two letters at least, for one is a drive; but `r`, unless a backslash follows
_URI = re.compile(r"([a-z][a-z0-9]+|r(?!:\\))(?:\+([a-z0-9]+))?:(.*)", re.DOTALL)
_FUNCTION = re.compile(r"[\w.]+:[\w.]+")  # module:name
_GRAPHS = ("onnx", "pipeline")  # runtimes whose files are data


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
        Converted and verified, else running natively; `describe()` says which and why.

    Raises
    ------
    UnsupportedError
        If nothing knows this kind of model.
    ConversionError
        If `via='onnx'` and it cannot be converted or differs; `.report` says where.
    """
    wishes = Wishes(via, verify, device, provider, Options(options))
    if isinstance(model, (str, os.PathLike, bytes)):
        raise InputError("wrap takes a live model, not a path", hint="use mlbridge.load for files and URIs")
    framework = plugins.framework_for(model)
    if framework is None:
        return _wrap_bare(model, sample, signature, wishes)
    try:
        inferred = overlay(framework.infer(model, sample, **wishes.options.of(framework)), signature)
    except ConversionError as exc:  # a stage the framework does not know; its own runtime may
        if wishes.via == "onnx" or getattr(plugins.runtime_for(model), "name", "python") == "python":
            raise
        _LOG.warning("%s runs natively: %s", _name_of(model), exc.message.splitlines()[0])
        return _wrap_bare(model, sample, signature, wishes)
    native = _native_of(model, framework, wishes.options)
    return realise(Source(model, framework, inferred, _name_of(model), native=native), sample, wishes)


def convert(source: object, sample: object | None = None, **keywords: Any) -> Model:
    """Convert to ONNX and verify, or raise: `wrap` or `load` with `via='onnx'`.

    Parameters
    ----------
    source : object, path or URI
        A live model or a file.
    sample : table, array or dict, optional
        A few real rows.
    **keywords
        As for `wrap` or `load`.

    Returns
    -------
    Model
        It runs on ONNX Runtime.

    Raises
    ------
    ConversionError
        If ONNX cannot say what the model does, or the outputs differ; `.report` shows where.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn.linear_model import LinearRegression
    >>> X = np.array([[0.0], [1.0], [2.0]])
    >>> with convert(LinearRegression().fit(X, X[:, 0] * 3), X) as model:
    ...     model.report.verified, model.predict(np.array([[5.0]]))["prediction"].round(6).tolist()
    (True, [15.0])
    """
    if isinstance(source, (str, os.PathLike, bytes)):
        return load(source, sample=sample, via="onnx", **keywords)
    return wrap(source, sample, via="onnx", **keywords)


def _wrap_bare(model: object, sample: object | None, signature: Signature | None, wishes: Wishes) -> Model:
    """Wrap what no framework knows: an ONNX graph, a function with a signature, another runtime's object."""
    runtime = plugins.runtime_for(model)
    if runtime is None:
        raise UnsupportedError(
            f"no framework or runtime knows {type(model).__module__}.{type(model).__qualname__}",
            hint="pass a function from feeds to outputs with signature=…, or install the plug-in for its library",
        )
    keywords: dict[str, Any] = wishes.options.of(runtime)
    if runtime.name == "onnx":
        if wishes.via == "native":
            raise UnsupportedError("an ONNX graph has no native runtime but onnx", hint="leave via='auto'")
        session = runtime.wrap(model, signature=signature, **wishes.placing, **keywords)  # type: ignore[arg-type]
        route = Route("onnx", "the model is ONNX", "onnx")
    else:
        if wishes.via == "onnx":
            raise ConversionError(f"{type(model).__name__} has no converter", hint="leave via='auto' to run it natively")
        if signature is None and hasattr(runtime, "infer"):
            signature = runtime.infer(model, sample)
        if signature is None:
            raise InputError("this model needs a signature", hint="pass signature=mlbridge.Signature([...], [...])")
        session = runtime.wrap(model, signature=signature, **keywords)
        route = Route(runtime.name, "no framework converts it; it runs in its own runtime")
    made = Model(session, runtime=runtime, route=route, name=_name_of(model))
    return with_samples(promise_checked(made, sample), sample)


def _name_of(model: object) -> str:
    name = getattr(model, "__name__", None)
    return name if isinstance(name, str) else type(model).__name__


def _native_of(model: object, framework: Framework, options: Options) -> Native:
    """Return how to run a live object natively: in the runtime that knows it, else through its framework."""

    def native(signature: Signature) -> tuple:
        other = plugins.runtime_for(model)
        if other is not None and other.name not in ("onnx", "python"):
            return other, other.wrap(model, signature=signature, **options.of(other))
        function = framework.native(model, signature=signature, **options.of(framework))
        runtime = plugins.runtime("python")
        return runtime, runtime.wrap(model, signature=signature, native=function, **options.of(runtime))

    return native


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
        `describe()` shows its route, its trust and its parity.

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
    keywords: dict[str, Any] = dict(trust=trust, via=via, device=device, provider=provider, verify=verify, signature=signature)
    keywords |= {"trusted_types": tuple(trusted_types), "options": options}
    if isinstance(source, str) and (uri := _URI.fullmatch(source)) and uri[1] in {*plugins.runtimes(), "grpcs"}:
        wishes = Wishes(via, verify, device, provider, Options(options))
        return _load_uri(source, uri, TrustDemand.parse(trust), sample, signature, wishes)
    return _load_artifact(open_artifact(source), sample, keywords)


def _load_artifact(artifact: Artifact, sample: object | None, keywords: Mapping[str, Any]) -> Model:
    """Load a file that is open and hashed already; keywords as of `load`."""
    k = dict(keywords)
    wishes, demand = Wishes(k["via"], k["verify"], k["device"], k["provider"], Options(k["options"])), TrustDemand.parse(k["trust"])
    origin = artifact.origin
    reload = None if origin is None else (_reload, (os.path.abspath(origin), artifact.sha256, k))
    if artifact.format == "mlb":
        return _load_package(artifact, demand, sample, wishes, reload)
    demand.check(artifact)
    if artifact.format in PipelineRuntime.formats:
        if demand.sha256 is not None and artifact.format == "pipeline-toml":
            demand = TrustDemand(Trust.DATA)  # the pin covers the text, not the stages it names
        session = PipelineRuntime().load(artifact, demand=demand)
        return Pipeline._of(session, _stem(artifact), reload=reload, sample=sample)
    if artifact.format == "onnx":
        return _load_onnx(artifact, sample, k["signature"], wishes, reload)
    return _load_framework(artifact, demand, sample, k["signature"], k["trusted_types"], wishes, reload)


def _reload(path: str, sha256: str, keywords: Mapping[str, Any]) -> Model:
    """Load a pickled Model again: the same path must still hold the same bytes."""
    artifact = open_artifact(path)
    if artifact.sha256 != sha256:
        raise ArtifactError(f"{path}: not the file this model was pickled from: its sha256 differs", hint="load the new file in words")
    return _load_artifact(artifact, None, keywords)


def _stem(artifact: Artifact) -> str:
    return artifact.origin.stem if artifact.origin is not None else "model"


def _load_onnx(artifact: Artifact, sample: object | None, signature: Signature | None, wishes: Wishes, reload: tuple | None) -> Model:
    if wishes.via == "native":
        raise UnsupportedError(f"{artifact.label}: an ONNX file has no other runtime", hint="leave via='auto'")
    runtime = plugins.runtime("onnx")
    session = runtime.load(artifact, signature=signature, **wishes.placing, **wishes.options.of(runtime))
    model = Model(session, runtime=runtime, route=Route("onnx", "the file is ONNX", "onnx", "data"), name=_stem(artifact), reload=reload)
    return with_samples(promise_checked(model, sample), sample)


def _load_framework(
    artifact: Artifact,
    demand: TrustDemand,
    sample: object | None,
    signature: Signature | None,
    trusted_types: Sequence[str],
    wishes: Wishes,
    reload: tuple | None,
) -> Model:
    """Load a file that a framework reads, or that only a runtime runs."""
    runners = _runners(artifact)
    readers = plugins.frameworks_of_format(artifact.format)
    if not readers and not runners:
        kind = (
            "a format mlbridge does not know"
            if artifact.format == "unknown"
            else f"{artifact.format!r}, which nothing installed here reads"
        )
        hint = "name its runtime in a URI (python:, r:, jvm:), or install the plug-in for it"
        raise ArtifactError(f"{artifact.label}: its format is {kind}", hint=hint)
    framework, model, refusal = _read(readers, artifact, wishes.options, trusted_types) if readers else (None, None, None)
    native = _native_of_file(artifact, model, framework, runners, demand, wishes.options)
    level = demand.level.name.lower()
    if framework is None or model is None:
        return _run_unread(artifact, native, signature, refusal, wishes, level, reload, sample)
    keywords = wishes.options.of(framework)
    try:
        inferred = overlay(framework.infer(model, sample, **keywords), signature)
    except ConversionError as exc:
        if native is None or not runners:
            raise
        return _run_unread(artifact, native, signature, exc, wishes, level, reload, sample)
    untrusted = None if native is not None else _untrusted(artifact, level)
    if wishes.via == "native" and untrusted is not None:
        raise untrusted
    source = Source(
        model,
        framework,
        inferred,
        _stem(artifact),
        trust=level if artifact.trust > Trust.DATA else "data",
        native=native,
        key=cache_key(artifact.sha256, versions_of(LIBRARIES), framework.name, repr(sorted(keywords.items())), inferred.to_json()),
        refusal=untrusted,
        reload=reload,
    )
    return realise(source, sample, wishes)


def _untrusted(artifact: Artifact, level: str) -> UntrustedArtifactError:
    return UntrustedArtifactError(
        f"{artifact.label}: it does not convert, and running it natively executes code; trust is {level!r}",
        hint=f"if you trust where it comes from, pass trust='code' or trust='sha256:{artifact.sha256}'",
    )


def _run_unread(
    artifact: Artifact,
    native: Native | None,
    signature: Signature | None,
    refusal: MlbridgeError | None,
    wishes: Wishes,
    level: str,
    reload: tuple | None,
    sample: object | None = None,
) -> Model:
    """Run a file natively that no framework of ours reads; its runtime may know its signature."""
    if wishes.via == "onnx" or native is None:
        raise refusal or _untrusted(artifact, level)
    try:
        runtime, session = native(signature)  # type: ignore[arg-type]
    except (InputError, SignatureError) as exc:
        if signature is not None:
            raise
        raise refusal or InputError(f"{artifact.label}: its signature cannot be inferred: {exc.message}", hint="pass signature=…") from exc
    why = f"not converted: {refusal.message if refusal is not None else 'nothing here reads it'}"
    if refusal is not None:
        _LOG.warning("%s runs natively: %s", artifact.label, refusal.message.splitlines()[0])
    model = Model(session, runtime=runtime, route=Route(runtime.name, why, trust=level), name=_stem(artifact), reload=reload)
    return with_samples(promise_checked(model, sample), sample)


def _runners(artifact: Artifact) -> list[Runtime]:
    return [r for r in plugins.runtimes_of_format(artifact.format) if r.name not in ("onnx", "python")]


def _read(
    readers: list[Framework], artifact: Artifact, options: Options, trusted_types: Sequence[str] = ()
) -> tuple[Framework | None, object | None, MlbridgeError | None]:
    """Read a file with the framework of its format; a pickle belongs to whoever knows the object in it."""
    reader = readers[0]
    keywords = options.of(reader)
    if artifact.format == "skops":
        keywords["trusted_types"] = tuple(trusted_types)
    try:
        model = reader.read(artifact, **keywords)
    except (UnsupportedError, ConversionError) as exc:
        return None, None, exc
    owner = reader if reader.accepts(model) else plugins.framework_for(model)
    if owner is None:
        what = f"{type(model).__module__}.{type(model).__qualname__}"
        return None, None, UnsupportedError(f"{artifact.label}: holds a {what}, which no framework knows")
    return owner, model, None


def _native_of_file(
    artifact: Artifact, model: object | None, framework: Framework | None, runners: list[Runtime], demand: TrustDemand, options: Options
) -> Native | None:
    """Return how to run the file natively, or None below trust `code`."""
    if not demand.allows(artifact, Trust.CODE):
        return None
    if runners:
        return lambda signature: (runners[0], runners[0].load(artifact, signature=signature, **options.of(runners[0])))
    return _native_of(model, framework, options) if framework is not None and model is not None else None


def _load_uri(uri: str, parts: re.Match, demand: TrustDemand, sample: object | None, signature: Signature | None, wishes: Wishes) -> Model:
    scheme, way, rest = parts[1], parts[2], parts[3]
    runtime = plugins.runtime("grpc" if scheme == "grpcs" else scheme)
    keywords: dict[str, Any] = wishes.options.of(runtime) | ({} if way is None else {"way": way})
    if runtime.name == "grpc":
        if scheme == "grpcs":
            keywords["way"] = "tls"
        session = runtime.load(rest.removeprefix("//"), signature=signature, **keywords)
        route = Route("grpc", f"served at {session.device}", trust="remote")
        return with_samples(Model(session, runtime=runtime, route=route, name=rest.rsplit("/", 1)[-1]), sample)
    place, sign, member = rest.partition("#")
    if scheme == "python" and not Path(place).exists() and _FUNCTION.fullmatch(rest):
        if demand.level < Trust.CODE:
            trust = demand.level.name.lower()
            raise UntrustedArtifactError(
                f"{uri}: importing a module runs its code, and trust is {trust!r}", hint="pass trust='code' if you trust it"
            )
        session = runtime.load(rest, signature=signature, **keywords)
    else:
        artifact = open_artifact(place)
        demand.check(artifact, Trust.DATA if scheme in _GRAPHS else Trust.CODE)
        keywords |= wishes.placing if scheme == "onnx" else {}
        keywords |= {"member": member} if sign else {}
        if sample is not None and signature is None:
            signature = _signature_of_file(artifact, sample, wishes.options)
        session = runtime.load(artifact, signature=signature, **keywords)
    route = Route(runtime.name, f"asked for by the URI {scheme}{'+' + way if way else ''}:", trust=demand.level.name.lower())
    return with_samples(promise_checked(Model(session, runtime=runtime, route=route, name=Path(place).stem or scheme), sample), sample)


def _signature_of_file(artifact: Artifact, sample: object, options: Options) -> Signature | None:
    """Ask the framework that reads a file for the signature a demanded runtime needs."""
    for framework in plugins.frameworks_of_format(artifact.format):
        try:
            keywords = options.of(framework)
            return framework.infer(framework.read(artifact, **keywords), sample, **keywords)
        except (UnsupportedError, ConversionError, ArtifactError, MissingDependencyError) as exc:
            _LOG.debug("%s does not read %s: %s", framework.name, artifact.label, exc)
    return None


# ---------------------------------------------------------------- packages


def _load_package(artifact: Artifact, demand: TrustDemand, sample: object | None, wishes: Wishes, reload: tuple | None) -> Model:
    package = read_package(artifact)
    if demand.sha256 is not None:
        if demand.sha256 != package.sha256:
            demand.check(artifact)
        demand = TrustDemand(Trust.CODE)  # the pin covers every file in it: the manifest holds their hashes
    considered: list[str] = []
    refusal: MlbridgeError | None = None
    for entry in sorted(package.implementations, key=lambda i: i.runtime not in _GRAPHS):
        if wishes.via in ("onnx", "native") and (entry.runtime in _GRAPHS) != (wishes.via == "onnx"):
            continue
        if entry.runtime not in _GRAPHS and wishes.via == "auto" and _converts_unrun(entry):
            continue
        try:
            return _open_implementation(package, entry, artifact, demand, wishes, reload, tuple(considered))
        except (ConversionError, MissingDependencyError, UntrustedArtifactError, UnsupportedError) as exc:
            refusal = refusal or exc
            considered.append(f"{entry.runtime}: {exc.message.splitlines()[0]}")
            _LOG.warning("%s: the %s implementation is not taken: %s", artifact.label, entry.runtime, considered[-1])
    for entry in package.implementations:
        if wishes.via != "native" and entry.runtime not in _GRAPHS and plugins.frameworks_of_format(entry.format):
            return _convert_implementation(package, entry, demand, sample, wishes, reload)
    raise refusal or UnsupportedError(f"{artifact.label}: it has no {wishes.via} implementation", hint="leave via='auto'")


def _converts_unrun(entry: Implementation) -> bool:
    """Whether a native implementation is of a kind our own readers convert without running it."""
    return entry.format in ("rds", "spark", "xgboost-json", "xgboost-ubj", "lightgbm-text") and bool(
        plugins.frameworks_of_format(entry.format)
    )


def _open_implementation(
    package: Package,
    entry: Implementation,
    artifact: Artifact,
    demand: TrustDemand,
    wishes: Wishes,
    reload: tuple | None,
    considered: tuple[str, ...],
) -> Model:
    runtime = plugins.runtime(entry.runtime)
    inner = open_artifact(package.folder / entry.path)
    keywords: dict[str, Any] = dict(entry.options) | wishes.options.of(runtime)
    graph = entry.runtime in _GRAPHS
    if graph:
        keywords |= wishes.placing
    else:
        demand.check(inner, Trust.CODE)
    if entry.runtime == "pipeline":
        keywords["demand"] = demand
    session = runtime.load(inner, signature=package.signature, **keywords)
    report = None
    if graph and wishes.verify != "never":
        try:
            report = _package_report(package, entry, session)
            judge(report, wishes.verify, package.name)
        except BaseException:
            session.close()
            raise
    verified = "verified " if report is not None and report.verified else ""
    why = f"the package's {verified}{'ONNX' if entry.runtime == 'onnx' else 'pipeline'}" if graph else "the package has no usable ONNX"
    route = Route(entry.runtime, why, package.provenance.get("framework"), "data" if graph else demand.level.name.lower(), considered)
    known: dict[str, Any] = dict(route=route, report=report, samples=package.samples, reload=reload, provenance=package.provenance)
    if isinstance(session, PipelineSession):
        return Pipeline._of(session, package.name, **known)
    return Model(session, runtime=runtime, name=package.name, **known)


def _package_report(package: Package, entry: Implementation, session: Any) -> Report:
    """Verify against the golden samples, once: the result is kept under the package's hash."""
    versions = versions_of(LIBRARIES)
    key = cache_key(package.sha256, versions, entry.path)
    report = recall(key)
    if report is not None:
        return report
    if package.samples is None:
        return Report(False, 0, 0.0, against="nothing")
    stated = (entry.parity or {}).get("tolerance")
    sane = stated if isinstance(stated, float) and 0.0 < stated <= 1e-4 else None  # a manifest may not loosen the comparison
    report = verify_golden(session, package.signature, package.samples, tolerance=sane, versions=versions)
    if report.verified:
        remember(key, report)
    return report


def _convert_implementation(
    package: Package, entry: Implementation, demand: TrustDemand, sample: object | None, wishes: Wishes, reload: tuple | None
) -> Model:
    """Convert a native implementation from its file alone and verify it against the golden samples."""
    artifact = open_artifact(package.folder / entry.path)
    demand.check(artifact)
    framework, model, refusal = _read(plugins.frameworks_of_format(entry.format), artifact, wishes.options)
    native = _native_of_file(artifact, model, framework, _runners(artifact), demand, wishes.options)
    level = demand.level.name.lower()
    if framework is None or model is None:
        return _run_unread(artifact, native, package.signature, refusal, wishes, level, reload)
    source = Source(
        model,
        framework,
        package.signature,
        package.name,
        trust="data" if native is None else level,
        native=native,
        golden=package.samples,
        key=cache_key(package.sha256, versions_of(LIBRARIES), framework.name, entry.path),
        refusal=None if native is not None else _untrusted(artifact, level),
        reload=reload,
    )
    return realise(source, sample, wishes)


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
