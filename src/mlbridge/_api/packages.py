"""Packages: the best implementation that opens, verifies and is trusted.

Called by `load`.
"""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import Any

from .. import plugins
from ..artifact import Implementation, Trust, TrustDemand, open_artifact
from ..conversion.kept import cache_key, recall, remember, versions_of
from ..conversion.routes import LIBRARIES, Source, explained, judge, realise, verify_golden
from ..conversion.verification import Report
from ..errors import ConversionError, MissingDependencyError, MlbridgeError, UnsupportedError, UntrustedArtifactError
from ..model import Model, Route
from ..package import Package, read_package
from ..pipeline.composed import Pipeline
from ..pipeline.session import PipelineSession
from .files import Request, native_of_file, read, run_unread
from .uris import GRAPHS

__all__ = ["load_package"]

_LOG = logging.getLogger("mlbridge")


def load_package(request: Request) -> Model:
    """Open a package's best implementation; a native one is converted where our readers can."""
    artifact, demand, wishes = request.artifact, request.demand, request.wishes
    package = read_package(artifact)
    if demand.sha256 is not None:
        if demand.sha256 != package.sha256:
            demand.check(artifact)
        request = replace(request, demand=TrustDemand(Trust.CODE))  # the pin covers every file in it: the manifest holds their hashes
    considered: list[str] = []
    refusal: MlbridgeError | None = None
    for entry in sorted(package.implementations, key=lambda i: i.runtime not in GRAPHS):
        if wishes.via in ("onnx", "native") and (entry.runtime in GRAPHS) != (wishes.via == "onnx"):
            continue
        if entry.runtime not in GRAPHS and wishes.via == "auto" and _converts_unrun(entry):
            continue
        try:
            return _open_implementation(package, entry, request, tuple(considered))
        except (ConversionError, MissingDependencyError, UntrustedArtifactError, UnsupportedError) as exc:
            refusal = refusal or exc
            considered.append(f"{entry.runtime}: {exc.message.splitlines()[0]}")
            _LOG.warning("%s: the %s implementation is not taken: %s", artifact.label, entry.runtime, considered[-1])
    for entry in package.implementations:
        if wishes.via != "native" and entry.runtime not in GRAPHS and plugins.frameworks_of_format(entry.format):
            return _convert_implementation(package, entry, request)
    raise refusal or UnsupportedError(f"{artifact.label}: it has no {wishes.via} implementation", hint="leave via='auto'")


def _converts_unrun(entry: Implementation) -> bool:
    """Whether a native implementation is of a kind our own readers convert without running it."""
    return entry.format in ("rds", "spark", "xgboost-json", "xgboost-ubj", "lightgbm-text") and bool(
        plugins.frameworks_of_format(entry.format)
    )


def _open_implementation(package: Package, entry: Implementation, request: Request, considered: tuple[str, ...]) -> Model:
    wishes, demand = request.wishes, request.demand
    runtime = plugins.runtime(entry.runtime)
    inner = open_artifact(package.folder / entry.path)
    graph = entry.runtime in GRAPHS
    # a manifest may not raise a limit on the graph it comes with: of its options only a measured plan is heard, which is checked
    stated = {k: v for k, v in entry.options.items() if k == "tuned"} if graph else dict(entry.options)
    keywords: dict[str, Any] = stated | wishes.options.of(runtime)
    if graph:
        keywords |= wishes.placing
    elif not demand.allows(inner, Trust.CODE):
        raise _refused(package, entry, request)
    if entry.runtime == "pipeline":
        keywords |= {"demand": demand, "beside": None if request.artifact.origin is None else request.artifact.origin.parent}
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
    route = Route(entry.runtime, why, package.provenance.get("framework"), "data" if graph else request.level, considered)
    known: dict[str, Any] = dict(route=route, report=report, samples=package.samples, reload=request.reload, provenance=package.provenance)
    if isinstance(session, PipelineSession):
        return Pipeline._of(session, package.name, **known)
    return Model(session, runtime=runtime, name=package.name, **known)


def _refused(package: Package, entry: Implementation, request: Request) -> UntrustedArtifactError:
    """Say what would run, and the hash that allows it: the package's, which covers every file in it."""
    return UntrustedArtifactError(
        f"{request.artifact.label}: its {entry.runtime} implementation ({entry.format}) executes code; trust is {request.level!r}",
        hint=f"if you trust where it comes from, pass trust='code' or trust='sha256:{package.sha256}'",
    )


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


def _convert_implementation(package: Package, entry: Implementation, request: Request) -> Model:
    """Convert a native implementation from its file alone and verify it against the golden samples."""
    artifact = open_artifact(package.folder / entry.path)
    request.demand.check(artifact)
    options = request.wishes.options.over(entry.runtime, entry.options)
    request = replace(request, wishes=replace(request.wishes, options=options))
    framework, model, refusal = read(plugins.frameworks_of_format(entry.format), artifact, request.wishes.options)
    native = native_of_file(artifact, model, framework, request)
    if framework is None or model is None:
        if native is None and refusal is not None and request.wishes.via != "onnx":
            raise explained(_refused(package, entry, request), refusal) from refusal
        return run_unread(replace(request, artifact=artifact, signature=package.signature, sample=None), native, refusal)
    source = Source(
        model,
        framework,
        package.signature,
        package.name,
        trust="data" if native is None else request.level,
        native=native,
        golden=package.samples,
        key=cache_key(package.sha256, versions_of(LIBRARIES), framework.name, entry.path, repr(sorted(options.of(framework).items()))),
        refusal=None if native is not None else _refused(package, entry, request),
        reload=request.reload,
    )
    return realise(source, request.sample, request.wishes)
