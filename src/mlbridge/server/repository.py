"""Which models are served: names, versions, defaults; loading, swapping and unloading during traffic.

A request takes hold of one version and lets it go; a version that was replaced is closed when the last request has
let go, so every answer is from exactly one version.
"""

from __future__ import annotations

import logging
import os
import re
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

from ..errors import InputError, MlbridgeError, NotFoundError, UnavailableError
from ..interfaces import Deadline
from ..model import Model
from ..runtimes.wire import clip
from .batching import Batcher
from .codec import Codec
from .memory import resident_bytes, worker_bytes
from .settings import Settings
from .shortcuts import Recipe
from .statistics import Statistics

__all__ = ["Repository", "Served"]

_LOG = logging.getLogger("mlbridge.server")
_VERSION = re.compile(r"[0-9]{1,18}", re.ASCII)
_NAME = re.compile(r"[\w.\-]{1,128}")


class Served:
    """One version of one model, ready to answer."""

    def __init__(self, name: str, version: str, model: Model, settings: Settings, *, owned: bool, opening_bytes: int | None = None) -> None:
        self.name, self.version, self.model, self._owned = name, version, model, owned
        self._opening_bytes = opening_bytes
        self.codec = Codec(model, name, version, always_raw=settings.always_raw)
        self.statistics = Statistics()
        self.batcher = Batcher(
            self._run,
            batched=settings.batching and model.signature.batched,
            concurrency=model._session.max_concurrency,
            # Models in this interpreter run one at a time whatever one does: side by side they would only halve the batches.
            cores=1 if model.route.runtime == "python" and model.signature.batched else _cores(),
            max_queue=settings.max_queue,
            max_rows=settings.max_rows,
            on_batch=self.statistics.executed,
        )
        # Whether a short call may be trusted to stay short: a graph on the processor that ends by itself.
        self.prompt = model.route.runtime == "onnx" and model.device == "cpu" and getattr(model._session, "default_timeout_s", 0.0) is None
        self._lock = threading.Lock()
        self.held = 0
        self._retired = self._draining = False

    def _run(self, feeds: dict[str, Any], names: list[str] | None, deadline: Deadline | None) -> dict[str, Any]:
        """Run decoded feeds of at least one row: what `Model.run` would check is known to hold."""
        if names is None and deadline is None:
            return self.model.run_checked(feeds)
        return self.model.run_checked(feeds, outputs=names, deadline=deadline)

    def memory_bytes(self) -> int | None:
        """Return what opening it here added to this process, and its workers' memory now; None where neither is known."""
        known = [n for n in (self._opening_bytes, worker_bytes(self.model._session)) if n is not None]
        return sum(known) if known else None

    def hold(self) -> bool:
        """Take hold; False where it has been replaced meanwhile or the server is shutting down."""
        with self._lock:
            if self._retired or self._draining:
                return False
            self.held += 1
            return True

    def release(self) -> None:
        """Let go; the last one closes a version that was replaced."""
        with self._lock:
            self.held -= 1
            ends = self._retired and not self.held
        if ends:
            self._close()

    def drain(self) -> None:
        """Take no more requests; what is held goes on."""
        with self._lock:
            self._draining = True

    def retire(self) -> None:
        """Take no more requests; close once those that hold it have ended."""
        with self._lock:
            if self._retired:
                return
            self._retired = True
            ends = not self.held
        if ends:
            self._close()

    def _close(self) -> None:
        if self._owned:
            self.model.close()


class _Versions:
    """The versions of one name; replaced as a whole, so readers need no lock."""

    __slots__ = ("by_version", "default")

    def __init__(self, by_version: Mapping[str, Served], default: str | None = None) -> None:
        self.by_version = dict(by_version)
        self.default = default if default in self.by_version else max(self.by_version, key=int)


class Repository:
    """Models by name and version.

    Parameters
    ----------
    opener : callable
        Turns a path or URI into a Model.
    settings : Settings
        Batching, queue and encoding.

    Attributes
    ----------
    known : dict of bytes to (Served, Recipe)
        Heads of requests seen, and who reads them how: another dict after every change of what is served, so whoever
        wrote into the old one has changed nothing.
    """

    def __init__(self, opener: Callable[[Any], Model], settings: Settings) -> None:
        self._open, self._settings = opener, settings
        self._models: dict[str, _Versions] = {}
        self.known: dict[bytes, tuple[Served, Recipe]] = {}
        self._sources: dict[str, dict[str, Any]] = {}  # what the operator named: all that a repository call may load
        self._pins: dict[str, str] = {}  # defaults the operator chose; else the highest version
        self._failed: dict[tuple[str, str], str] = {}
        self._lock = threading.Lock()
        self._loading = threading.Lock()
        self.draining = False

    # -------------------------------------------------- asking

    def hold(self, name: str, version: str = "") -> Served:
        """Return a version, held: `release` it. NotFoundError or UnavailableError otherwise."""
        while True:
            versions = self._models.get(name)
            if versions is None:
                raise UnavailableError("the server is shutting down") if self.draining else self._absent(name, version)
            served = versions.by_version.get(version or versions.default)
            if served is None:
                raise self._absent(name, version)
            if served.hold():
                return served
            if self.draining:
                raise UnavailableError("the server is shutting down")

    def _absent(self, name: str, version: str) -> MlbridgeError:
        if name in self._sources and (not version or version in self._sources[name]):
            return UnavailableError(f"model {clip(name)} is not ready")
        return NotFoundError(f"there is no model {clip(name)}" + (f" of version {clip(version)}" if version else ""))

    def ready(self, name: str, version: str = "") -> bool:
        """Whether that model would answer."""
        versions = self._models.get(name)
        return versions is not None and (version or versions.default) in versions.by_version

    def all_ready(self) -> bool:
        """Whether every model that was named answers."""
        return all(self.ready(n, v) for n, vs in self._sources.items() for v in vs)

    def versions(self, name: str) -> list[str]:
        """Return the versions of a name, ascending."""
        versions = self._models.get(name)
        return sorted(versions.by_version, key=int) if versions else []

    def served(self) -> list[Served]:
        """Return everything that is served now, by name and version."""
        return [v.by_version[k] for _, v in sorted(self._models.items()) for k in sorted(v.by_version, key=int)]

    def index(self) -> list[tuple[str, str, str, str]]:
        """Return (name, version, state, reason) of all models."""
        out = []
        for name in sorted({*self._sources, *self._models}):
            for version in sorted({*self._sources.get(name, ()), *self.versions(name)}, key=int):
                ready = self.ready(name, version)
                out.append(
                    (name, version, "READY" if ready else "UNAVAILABLE", "" if ready else self._failed.get((name, version), "unloaded"))
                )
        return out

    # -------------------------------------------------- changing

    def add(self, name: str, source: Any, *, version: str = "1", default: str | None = None) -> None:
        """Serve a model under a name and version, replacing what was there; the old one ends with its last request.

        Raises
        ------
        InputError
            If the name or version is not one.
        """
        if not isinstance(name, str) or not _NAME.fullmatch(name):
            raise InputError(f"model name {name!r}: letters, digits, '_', '-' and '.', at most 128")
        if not isinstance(version, str) or not _VERSION.fullmatch(version):
            raise InputError(f"model {name!r}: version {version!r} is not a string of digits")
        with self._loading:
            owned = not isinstance(source, Model)
            try:
                before = resident_bytes()
                model = self._open(source) if owned else source
                opening = max(resident_bytes() - before, 0) if owned and before else None
            except Exception as exc:
                with self._lock:
                    self._failed[name, version] = type(exc).__name__
                raise
            served = Served(name, version, model, self._settings, owned=owned, opening_bytes=opening)
            with self._lock:
                old = self._models.get(name)
                by_version = dict(old.by_version) if old else {}
                replaced = by_version.get(version)
                by_version[version] = served
                if default is not None:
                    self._pins[name] = default
                self._models[name] = _Versions(by_version, self._pins.get(name))
                self.known = {}
                self._sources.setdefault(name, {})[version] = source
                self._failed.pop((name, version), None)
        if replaced is not None:
            replaced.retire()
        _LOG.info("model loaded", extra={"model": name, "version": version})

    def reload(self, name: str) -> None:
        """Load anew what the operator named; NotFoundError for anything else."""
        sources = self._sources.get(name)
        if not sources:
            raise NotFoundError(f"there is no model {clip(name)}")
        for version, source in list(sources.items()):
            self.add(name, source, version=version)

    def remove(self, name: str, version: str | None = None) -> None:
        """Stop serving a model or one version of it; it closes when its last request has ended."""
        with self._lock:
            old = self._models.get(name)
            if old is None or (version is not None and version not in old.by_version):
                raise NotFoundError(f"there is no model {clip(name)}" + (f" of version {clip(version)}" if version else ""))
            gone = [old.by_version[version]] if version else list(old.by_version.values())
            left = {k: s for k, s in old.by_version.items() if s not in gone}
            if left:
                self._models[name] = _Versions(left, self._pins.get(name))
            else:
                del self._models[name]
            self.known = {}
        for served in gone:
            served.retire()
        _LOG.info("model unloaded", extra={"model": name, "version": version or "all"})

    def drain(self, timeout_s: float) -> bool:
        """Take no more requests and wait for those that were accepted; whether all ended."""
        with self._lock:
            self.draining = True
            served = self.served()
        for s in served:
            s.drain()
        ends_at = time.monotonic() + timeout_s
        while any(s.held for s in served):
            if time.monotonic() >= ends_at:
                return False
            time.sleep(0.002)
        return True

    def close(self) -> None:
        """Retire everything."""
        for name in list(self._models):
            with suppress(NotFoundError):
                self.remove(name)


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
