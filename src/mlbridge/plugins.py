"""Names to Runtimes and Frameworks: a built-in table and entry points, kept as strings until used; install hints.

A plug-in is one class and one entry point in the group `mlbridge.runtimes` or `mlbridge.frameworks`. It never replaces
a built-in. Called by `_api.py` and `cli.py`.
"""

from __future__ import annotations

import functools
import importlib
import importlib.util
import logging
from collections.abc import Iterator, Mapping
from types import ModuleType
from typing import Any

from .errors import MissingDependencyError, NotFoundError
from .interfaces import Framework, Runtime

__all__ = [
    "EXTRAS",
    "framework",
    "framework_for",
    "frameworks",
    "frameworks_of_format",
    "install_hint",
    "require",
    "runtime",
    "runtimes",
    "server",
]

_LOG = logging.getLogger("mlbridge")

_BUILT_IN: Mapping[str, Mapping[str, str]] = {
    "mlbridge.runtimes": {
        "onnx": "mlbridge.runtimes.onnx:OnnxRuntime",
        "python": "mlbridge.runtimes.python:PythonRuntime",
        "r": "mlbridge.runtimes.r:RRuntime",
        "jvm": "mlbridge.runtimes.jvm:JvmRuntime",
        "grpc": "mlbridge.runtimes.grpc:GrpcRuntime",
        "pipeline": "mlbridge.pipeline:PipelineRuntime",
    },
    "mlbridge.frameworks": {
        "xgboost": "mlbridge.frameworks.xgboost:XgboostFramework",
        "lightgbm": "mlbridge.frameworks.lightgbm:LightgbmFramework",
        "sklearn": "mlbridge.frameworks.sklearn:SklearnFramework",  # after those whose classes derive from its own
        "torch": "mlbridge.frameworks.torch:TorchFramework",
        "tensorflow": "mlbridge.frameworks.tensorflow:TensorflowFramework",
        "r": "mlbridge.frameworks.r:RFramework",
        "spark": "mlbridge.frameworks.spark:SparkFramework",
    },
}
_SERVER = "mlbridge.server:serve"

EXTRAS: Mapping[str, str] = {
    "onnx": "onnx",
    "onnxruntime": "onnx",
    "sklearn": "sklearn",
    "skl2onnx": "sklearn",
    "skops": "sklearn",
    "torch": "torch",
    "onnxscript": "torch",
    "safetensors": "torch",
    "tensorflow": "tensorflow",
    "tf2onnx": "tensorflow",
    "keras": "tensorflow",
    "xgboost": "xgboost",
    "lightgbm": "lightgbm",
    "pyarrow": "spark",
    "rpy2": "r",
    "py4j": "jvm",
    "grpc": "grpc",
    "google": "grpc",
    "starlette": "server",
    "uvicorn": "server",
    "prometheus_client": "server",
}


def install_hint(module: str) -> str:
    """Return the command that installs a module mlbridge uses.

    Examples
    --------
    >>> install_hint("onnxruntime")
    "pip install 'mlbridge[onnx]'"
    """
    root = module.split(".")[0]
    return f"pip install 'mlbridge[{EXTRAS[root]}]'" if root in EXTRAS else f"pip install {root}"


def require(module: str) -> ModuleType:
    """Import an optional dependency.

    Raises
    ------
    MissingDependencyError
        With the command that installs it.
    """
    try:
        return importlib.import_module(module)
    except ImportError as exc:
        raise missing(exc, module) from exc


def missing(exc: ImportError, module: str | None = None) -> MissingDependencyError:
    """Turn an ImportError into one that names the command to run."""
    name = exc.name or module or "a package"
    if importlib.util.find_spec(name.split(".")[0]) is not None:
        return MissingDependencyError(
            f"{name} is installed but cannot be imported: {exc}", hint=f"pip install --force-reinstall {name.split('.')[0]}"
        )
    return MissingDependencyError(f"{name} is not installed", hint=install_hint(name))


@functools.cache
def _table(group: str) -> dict[str, str]:
    from importlib import metadata  # it brings email and zipfile: a quarter of `import mlbridge`

    table = dict(_BUILT_IN[group])
    for point in metadata.entry_points(group=group):
        if point.name in _BUILT_IN[group]:
            _LOG.warning("the plug-in %s wants the name %r, which is built in; it is ignored", point.value, point.name)
        else:
            table[point.name] = point.value
    return table


@functools.cache
def _load(group: str, name: str) -> Any:
    table = _table(group)
    if name not in table:
        kind = group.removeprefix("mlbridge.").removesuffix("s")
        raise NotFoundError(f"there is no {kind} {name!r}", hint=f"there are {', '.join(sorted(table))}")
    return _resolve(table[name])()


def _resolve(target: str) -> Any:
    module, _, attribute = target.partition(":")
    try:
        return getattr(importlib.import_module(module), attribute)
    except ImportError as exc:
        raise missing(exc, module) from exc


def runtime(name: str) -> Runtime:
    """Return the runtime of that name; NotFoundError or MissingDependencyError otherwise."""
    return _load("mlbridge.runtimes", name)


def framework(name: str) -> Framework:
    """Return the framework of that name; NotFoundError or MissingDependencyError otherwise."""
    return _load("mlbridge.frameworks", name)


def runtimes() -> tuple[str, ...]:
    """Return the names of all runtimes, built-in first."""
    return tuple(_table("mlbridge.runtimes"))


def frameworks() -> tuple[str, ...]:
    """Return the names of all frameworks, built-in first."""
    return tuple(_table("mlbridge.frameworks"))


def _usable(names: tuple[str, ...], get: Any) -> Iterator[Any]:
    for name in names:
        try:
            yield get(name)
        except MissingDependencyError as exc:
            _LOG.debug("%s is not usable here: %s", name, exc)


def framework_for(model: object) -> Framework | None:
    """Return the framework that knows this live object, or None; imports no library."""
    return next((f for f in _usable(frameworks(), framework) if f.accepts(model)), None)


def runtime_for(model: object) -> Runtime | None:
    """Return the runtime that can run this live object by itself, or None."""
    return next((r for r in _usable(runtimes(), runtime) if r.accepts(model)), None)


def frameworks_of_format(kind: str) -> list[Framework]:
    """Return the frameworks that read files of this format."""
    return [f for f in _usable(frameworks(), framework) if kind in f.formats]


def runtimes_of_format(kind: str) -> list[Runtime]:
    """Return the runtimes that run files of this format natively."""
    return [r for r in _usable(runtimes(), runtime) if kind in r.formats]


def server() -> Any:
    """Return `mlbridge.server.serve`, found by its string; MissingDependencyError names its extra."""
    return _resolve(_SERVER)
