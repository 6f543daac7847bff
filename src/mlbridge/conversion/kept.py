"""What was verified once: reports kept under a key of the artifact, the versions that took part and the machine."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Iterable, Mapping

from ..executor.cache import cache_folder, machine
from .verification import Report

__all__ = ["cache_key", "recall", "remember", "versions_of"]


def versions_of(names: Iterable[str]) -> dict[str, str]:
    """Return the installed versions of some distributions, with Python's and the processor's names."""
    from importlib import metadata  # a quarter of `import mlbridge`

    out = {"python": platform.python_version(), "machine": platform.machine() or "unknown"}
    for name in filter(None, names):  # R has no distribution here
        try:
            out[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return out


def cache_key(artifact: str, versions: Mapping[str, str], *extra: str) -> str:
    """Return the name under which a verification is kept."""
    import hashlib

    return hashlib.sha256(json.dumps([artifact, dict(versions), dict(machine()), *extra], sort_keys=True, default=str).encode()).hexdigest()


def recall(key: str) -> Report | None:
    """Return a kept report; a damaged one counts as none."""
    try:
        return Report.from_dict(json.loads((cache_folder() / "verified" / f"{key}.json").read_text("utf-8")))
    except (OSError, ValueError, TypeError):
        return None


def remember(key: str, report: Report) -> None:
    """Keep a report; a folder that cannot be written is no error."""
    folder = cache_folder() / "verified"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        temporary = folder / f".{key}.{os.getpid()}"
        temporary.write_text(json.dumps(report.to_dict(), default=str), "utf-8")
        temporary.replace(folder / f"{key}.json")
    except OSError:
        return
