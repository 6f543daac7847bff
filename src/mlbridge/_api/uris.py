"""URIs: a scheme demands its runtime.

Called by `load`.
"""

from __future__ import annotations

import logging
import re
from pathlib import Path
from typing import Any

from .. import plugins
from ..artifact import Artifact, Trust, TrustDemand, open_artifact
from ..conversion.routes import Options, Wishes, promise_checked, with_samples
from ..errors import ArtifactError, ConversionError, MissingDependencyError, UnsupportedError, UntrustedArtifactError
from ..model import Model, Route
from ..signature import Signature

__all__ = ["GRAPHS", "load_uri", "parse_uri"]

GRAPHS = ("onnx", "pipeline")  # runtimes whose files are data
_LOG = logging.getLogger("mlbridge")
# two letters at least, for one is a drive; but `r`, unless a backslash follows
_URI = re.compile(r"([a-z][a-z0-9]+|r(?!:\\))(?:\+([a-z0-9]+))?:(.*)", re.DOTALL)
_FUNCTION = re.compile(r"[\w.]+:[\w.]+")  # module:name


def parse_uri(source: object) -> re.Match | None:
    """Return scheme, way and rest where `source` is a URI of a runtime; None for a path."""
    found = _URI.fullmatch(source) if isinstance(source, str) else None
    return found if found is not None and found[1] in {*plugins.runtimes(), "grpcs"} else None


def load_uri(parts: re.Match, demand: TrustDemand, sample: object | None, signature: Signature | None, wishes: Wishes) -> Model:
    """Load what follows a scheme in the runtime it names."""
    uri, scheme, way, rest = parts[0], parts[1], parts[2], parts[3]
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
        demand.check(artifact, Trust.DATA if scheme in GRAPHS else Trust.CODE)
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
