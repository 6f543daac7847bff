"""Files: an ONNX graph, a file that a framework reads, a file that only a runtime runs.

Called by `load`, and by `packages` for what lies inside one.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass

from .. import plugins
from ..artifact import Artifact, Trust, TrustDemand
from ..conversion.kept import cache_key, versions_of
from ..conversion.routes import LIBRARIES, Native, Options, Source, Wishes, explained, promise_checked, realise, signature_of, with_samples
from ..errors import ArtifactError, ConversionError, InputError, MlbridgeError, SignatureError, UnsupportedError, UntrustedArtifactError
from ..interfaces import Framework, Runtime
from ..model import Model, Route
from ..signature import Signature
from .live import native_of

__all__ = ["Request", "load_framework", "load_onnx", "native_of_file", "read", "run_unread", "untrusted"]

_LOG = logging.getLogger("mlbridge")


@dataclass(frozen=True)
class Request:
    """What a caller asked of one file that is open and hashed.

    Attributes
    ----------
    artifact : Artifact
        The file.
    demand : TrustDemand
        What it may do.
    wishes : Wishes
        Route, verification, device, options.
    sample : object or None
        A few real rows.
    signature : Signature or None
        Rules the file does not hold.
    trusted_types : sequence of str
        For skops files.
    reload : tuple or None
        What unpickles the Model.
    """

    artifact: Artifact
    demand: TrustDemand
    wishes: Wishes
    sample: object | None = None
    signature: Signature | None = None
    trusted_types: Sequence[str] = ()
    reload: tuple | None = None

    @property
    def name(self) -> str:
        """The file's stem."""
        return self.artifact.origin.stem if self.artifact.origin is not None else "model"

    @property
    def level(self) -> str:
        """The trust, as the caller spelt it."""
        return self.demand.level.name.lower()


def load_onnx(request: Request) -> Model:
    """Load an ONNX graph."""
    if request.wishes.via == "native":
        raise UnsupportedError(f"{request.artifact.label}: an ONNX file has no other runtime", hint="leave via='auto'")
    runtime = plugins.runtime("onnx")
    wishes = request.wishes
    session = runtime.load(request.artifact, signature=request.signature, **wishes.placing, **wishes.options.of(runtime))
    route = Route("onnx", "the file is ONNX", "onnx", "data")
    model = Model(session, runtime=runtime, route=route, name=request.name, reload=request.reload)
    return with_samples(promise_checked(model, request.sample), request.sample)


def load_framework(request: Request) -> Model:
    """Load a file that a framework reads, or that only a runtime runs."""
    artifact, wishes = request.artifact, request.wishes
    runners = _runners(artifact)
    readers = plugins.frameworks_of_format(artifact.format)
    if not readers and not runners:
        raise _unknown(artifact)
    framework, model, refusal = read(readers, artifact, wishes.options, request.trusted_types) if readers else (None, None, None)
    native = native_of_file(artifact, model, framework, request)
    if framework is None or model is None:
        return run_unread(request, native, refusal)
    keywords = wishes.options.of(framework)
    try:
        inferred = signature_of(framework, model, request.sample, request.signature, keywords)
    except ConversionError as exc:
        if native is None or not runners:
            raise
        return run_unread(request, native, exc)
    refused = None if native is not None else untrusted(artifact, request.level)
    if wishes.via == "native" and refused is not None:
        raise refused
    source = Source(
        model,
        framework,
        inferred,
        request.name,
        trust=request.level if artifact.trust > Trust.DATA else "data",
        native=native,
        key=cache_key(artifact.sha256, versions_of(LIBRARIES), framework.name, repr(sorted(keywords.items())), inferred.to_json()),
        refusal=refused,
        reload=request.reload,
    )
    return realise(source, request.sample, wishes)


def _unknown(artifact: Artifact) -> ArtifactError:
    known = artifact.format != "unknown"
    kind = f"{artifact.format!r}, which nothing installed here reads" if known else "a format mlbridge does not know"
    hint = "name its runtime in a URI (python:, r:, jvm:), or install the plug-in for it"
    return ArtifactError(f"{artifact.label}: its format is {kind}", hint=hint)


def untrusted(artifact: Artifact, level: str) -> UntrustedArtifactError:
    """Say that a file does not convert, and may not run."""
    return UntrustedArtifactError(
        f"{artifact.label}: it does not convert, and running it natively executes code; trust is {level!r}",
        hint=f"if you trust where it comes from, pass trust='code' or trust='sha256:{artifact.sha256}'",
    )


def run_unread(request: Request, native: Native | None, refusal: MlbridgeError | None) -> Model:
    """Run a file natively that no framework of ours reads; its runtime may know its signature."""
    artifact = request.artifact
    if native is None and request.wishes.via != "onnx" and _runners(artifact) and not request.demand.allows(artifact, Trust.CODE):
        refused = untrusted(artifact, request.level)
        raise refused if refusal is None else explained(refused, refusal) from refusal
    if request.wishes.via == "onnx" or native is None:
        raise refusal or untrusted(artifact, request.level)
    try:
        runtime, session = native(request.signature)  # type: ignore[arg-type]
    except (InputError, SignatureError) as exc:
        if request.signature is not None:
            raise
        first = f"{refusal.message.splitlines()[0]}; " if refusal is not None else ""
        raise InputError(f"{artifact.label}: {first}its signature cannot be inferred: {exc.message}", hint="pass signature=…") from exc
    why = f"not converted: {refusal.message if refusal is not None else 'nothing here reads it'}"
    if refusal is not None:
        _LOG.warning("%s runs natively: %s", artifact.label, refusal.message.splitlines()[0])
    route = Route(runtime.name, why, trust=request.level)
    model = Model(session, runtime=runtime, route=route, name=request.name, reload=request.reload)
    return with_samples(promise_checked(model, request.sample), request.sample)


def _runners(artifact: Artifact) -> list[Runtime]:
    return [r for r in plugins.runtimes_of_format(artifact.format) if r.name not in ("onnx", "python")]


def read(
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
        kind = type(model)
        what = reader.named(model) if hasattr(reader, "named") else f"a {kind.__module__}.{kind.__qualname__}"
        return None, None, UnsupportedError(f"no framework knows {what}")
    return owner, model, None


def native_of_file(artifact: Artifact, model: object | None, framework: Framework | None, request: Request) -> Native | None:
    """Return how to run the file natively, or None below trust `code`."""
    options = request.wishes.options
    if not request.demand.allows(artifact, Trust.CODE):
        return None
    if runners := _runners(artifact):
        return lambda signature: (runners[0], runners[0].load(artifact, signature=signature, **options.of(runners[0])))
    return native_of(model, framework, options) if framework is not None and model is not None else None
