"""What `doctor` finds: packages, programs, the jar, devices; each with the command that installs it."""

from __future__ import annotations

import importlib.metadata
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

from .. import errors, plugins

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
    try:
        from .. import executor

        for device in executor.list_devices():
            yield f"device {device.name}", (device.description or device.kind) if device.usable else "", device.remedy
    except (ImportError, errors.MlbridgeError):
        yield "devices", "", plugins.install_hint("onnxruntime")
    yield "cores", str(os.cpu_count()), ""


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
