"""What `doctor` finds: packages, programs, the jar, devices; each with the command that installs it."""

from __future__ import annotations

import importlib.metadata
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

from .. import plugins

__all__ = ["findings"]

_PACKAGES = (
    "onnx",
    "onnxruntime",
    "scikit-learn",
    "skl2onnx",
    "skops",
    "torch",
    "onnxscript",
    "tensorflow",
    "tf2onnx",
    "keras",
    "xgboost",
    "lightgbm",
    "pyarrow",
    "rpy2",
    "py4j",
    "grpcio",
    "protobuf",
    "starlette",
    "uvicorn",
    "prometheus-client",
)
_MODULES = {"scikit-learn": "sklearn", "prometheus-client": "prometheus_client", "grpcio": "grpc", "protobuf": "google"}


def findings() -> Iterator[tuple[str, str, str]]:
    for name in _PACKAGES:
        yield name, _version(name), plugins.install_hint(_MODULES.get(name, name))
    for program, flag, hint in (
        ("Rscript", "--version", "apt-get install r-base-core"),
        ("java", "-version", "apt-get install openjdk-17-jre-headless"),
        ("setpriv", "--version", "apt-get install util-linux"),
    ):
        yield program, _program(program, flag), hint
    yield "the JVM jar", _jar(), "make jvm"
    yield from _machine()


def _machine() -> Iterator[tuple[str, str, str]]:
    """The processor, its memory and features, GPUs also when absent, onnxruntime and every provider it names."""
    from ..executor.devices import facts
    from ..executor.plans import remedies

    found = facts()
    yield "cores", str(found.cores), ""
    if found.memory_bytes is not None:
        yield "free memory", f"{found.memory_bytes / 2**30:.1f} GiB", ""
    yield "caches", ", ".join(f"{k} {v >> 10} KiB" for k, v in found.caches.items()) or "not told by this system", ""
    yield "processor features", ", ".join(found.flags) or "none that kernels care about", ""
    for device in found.devices:
        about = device.description or device.kind
        memory = f", {device.memory_bytes / 2**30:.1f} GiB free" if device.memory_bytes and device.kind != "cpu" else ""
        yield f"device {device.name}", f"{about}{memory}" if device.usable else "", device.remedy
    if not any(d.kind != "cpu" for d in found.devices):
        yield "GPU", "", f"no GPU is seen; with NVIDIA's card and driver: {remedies()['CUDAExecutionProvider']}"
    for provider, remedy in remedies().items():
        have = "built in" if provider in found.providers else "plug-in" if provider in found.plugins else ""
        yield provider, have, remedy
    for provider in (*found.providers, *found.plugins):
        if provider not in remedies():
            yield provider, "plug-in" if provider in found.plugins else "built in", ""


def _version(name: str) -> str:
    for candidate in (name, f"{name}-cpu", f"{name}-gpu"):
        try:
            return importlib.metadata.version(candidate)
        except importlib.metadata.PackageNotFoundError:
            continue
    return ""


def _program(name: str, flag: str) -> str:
    path = shutil.which(name)
    if path is None:
        return ""
    try:
        done = subprocess.run([path, flag], capture_output=True, text=True, timeout=20, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return (done.stdout or done.stderr).strip().splitlines()[0] if (done.stdout or done.stderr).strip() else "yes"


def _jar() -> str:
    jars = sorted((Path(__file__).parent.parent / "_jvm").glob("*.jar"))
    return jars[0].name if jars else ""
