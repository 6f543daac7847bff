"""wrap(), convert(), load(), serve(): the glue between files, URIs, packages, frameworks, runtimes and Model.

The order of things is here; what each step does is in its own room: `live` (objects of this process), `files`, `uris`,
`packages`. The choice of route is in `conversion/routes.py`.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from typing import Any

from .. import plugins
from ..artifact import Artifact, Trust, TrustDemand, open_artifact
from ..conversion.routes import Options, Source, Wishes, realise, signature_of
from ..errors import ArtifactError, ConversionError, InputError
from ..model import Model
from ..pipeline.composed import Pipeline, PipelineRuntime, set_loader
from ..signature import Signature
from .files import Request, load_framework, load_onnx
from .live import arrays_of, name_of, native_of, wrap_bare
from .packages import load_package
from .uris import load_uri, parse_uri

__all__ = ["convert", "load", "serve", "wrap"]

_LOG = logging.getLogger("mlbridge")


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
    sample = arrays_of(sample)
    framework = plugins.framework_for(model)
    if framework is None:
        return wrap_bare(model, sample, signature, wishes)
    try:
        inferred = signature_of(framework, model, sample, signature, wishes.options.of(framework))
    except ConversionError as exc:  # a stage the framework does not know; its own runtime may
        if wishes.via == "onnx" or getattr(plugins.runtime_for(model), "name", "python") == "python":
            raise
        _LOG.warning("%s runs natively: %s", name_of(model), exc.message.splitlines()[0])
        return wrap_bare(model, sample, signature, wishes)
    native = native_of(model, framework, wishes.options)
    return realise(Source(model, framework, inferred, name_of(model), native=native), sample, wishes)


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
    sample = arrays_of(sample)
    keywords: dict[str, Any] = dict(trust=trust, via=via, device=device, provider=provider, verify=verify, signature=signature)
    keywords |= {"trusted_types": tuple(trusted_types), "options": options}
    uri = parse_uri(source)
    if uri is not None:
        wishes = Wishes(via, verify, device, provider, Options(options))
        return load_uri(uri, TrustDemand.parse(trust), sample, signature, wishes)
    return _load_artifact(open_artifact(source), sample, keywords)


def _load_artifact(artifact: Artifact, sample: object | None, keywords: Mapping[str, Any]) -> Model:
    """Load a file that is open and hashed already; keywords as of `load`."""
    k = dict(keywords)
    wishes, demand = Wishes(k["via"], k["verify"], k["device"], k["provider"], Options(k["options"])), TrustDemand.parse(k["trust"])
    origin = artifact.origin
    reload = None if origin is None else (_reload, (os.path.abspath(origin), artifact.sha256, k))
    request = Request(artifact, demand, wishes, sample, k["signature"], k["trusted_types"], reload)
    if artifact.format == "mlb":
        return load_package(request)
    demand.check(artifact)
    if artifact.format in PipelineRuntime.formats:
        if demand.sha256 is not None and artifact.format == "pipeline-toml":
            demand = TrustDemand(Trust.DATA)  # the pin covers the text, not the stages it names
        session = PipelineRuntime().load(artifact, demand=demand)
        return Pipeline._of(session, request.name, reload=reload, sample=sample)
    return load_onnx(request) if artifact.format == "onnx" else load_framework(request)


def _reload(path: str, sha256: str, keywords: Mapping[str, Any]) -> Model:
    """Load a pickled Model again: the same path must still hold the same bytes."""
    artifact = open_artifact(path)
    if artifact.sha256 != sha256:
        raise ArtifactError(f"{path}: not the file this model was pickled from: its sha256 differs", hint="load the new file in words")
    return _load_artifact(artifact, None, keywords)


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
