"""Server: listeners over one repository, started, drained and stopped. `serve` makes one; `run` is for a process of its own."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any

from ..errors import ClosedError, InputError
from ..model import Model
from .access import Access
from .logs import log_to_stderr
from .repository import Repository
from .service import Service
from .settings import Settings
from .transport import Transport
from .web import Web

__all__ = ["Server", "run", "serve"]

_LOG = logging.getLogger("mlbridge.server")
_LINGER_S = 0.2  # refusals go out for this long after the last call, so that late callers read UNAVAILABLE and not a torn stream


class Server:
    """A running server. Several fit into one process.

    Attributes
    ----------
    addresses : dict of str to str
        `grpc`, `http` and `operator` to host:port, as far as they are on.
    """

    def __init__(self, repository: Repository, service: Service) -> None:
        self._repository, self._service = repository, service
        self._transports: dict[str, Transport] = {}
        self._web: Web | None = None
        self.addresses: dict[str, str] = {}
        self._stopped = threading.Event()
        self._stopping = threading.Lock()

    # -------------------------------------------------- models

    def load(self, name: str, model: Any, *, version: str = "1", default: str | None = None) -> None:
        """Serve a model, or replace one during traffic: every answer is from exactly one version, named in it."""
        if self._stopped.is_set():
            raise ClosedError("the server was stopped")
        self._repository.add(name, model, version=str(version), default=default)
        self._announce()

    def unload(self, name: str, version: str | None = None) -> None:
        """Stop serving a model, or one version of it, once its calls have ended."""
        self._repository.remove(name, version)

    @property
    def models(self) -> dict[str, list[str]]:
        """Names to versions, as served now."""
        out: dict[str, list[str]] = {}
        for served in self._repository.served():
            out.setdefault(served.name, []).append(served.version)
        return out

    def _listen(self, kind: str, host: str, port: int, settings: Settings) -> None:
        """Open one listener: `grpc`, `operator` or `http`."""
        if kind == "http":
            from .rest import application

            app = application(self._service, Access(settings.token), max_bytes=settings.max_message_mib << 20)
            self._web = Web(app, host, port, settings.tls)
            self.addresses[kind] = self._web.address
            return
        access = Access(settings.token, operator_token=settings.operator_token, operates=kind == "operator")
        transport = self._transports[kind] = Transport(self._service, access, host, port, settings)
        transport.start()
        self.addresses[kind] = transport.address

    def _announce(self) -> None:
        for transport in self._transports.values():
            transport.serving(self._service.ready())

    # -------------------------------------------------- life

    def stop(self, grace_s: float = 30.0) -> bool:
        """Drain and stop: NOT_SERVING first, then no new work, then the end of what was accepted.

        Parameters
        ----------
        grace_s : float, default=30
            Seconds that accepted calls have.

        Returns
        -------
        bool
            Whether everything accepted was answered.
        """
        with self._stopping:
            if self._stopped.is_set():
                return True
            for transport in self._transports.values():
                transport.serving(False)
            drained = self._repository.drain(grace_s)
            self._stopped.wait(_LINGER_S)
            for transport in self._transports.values():
                transport.stop(1.0 if drained else 0.0)
            if self._web is not None:
                self._web.stop()
            self._repository.close()
            self._stopped.set()
            _LOG.info("server stopped", extra={"drained": drained})
            return drained

    def wait(self, timeout_s: float | None = None) -> bool:
        """Wait until the server was stopped; False where the time ran out first."""
        return self._stopped.wait(timeout_s)

    def __enter__(self) -> Server:
        return self

    def __exit__(self, *exc: object) -> None:
        self.stop()

    async def __aenter__(self) -> Server:
        return self

    async def __aexit__(self, *exc: object) -> None:
        await asyncio.to_thread(self.stop)

    def __repr__(self) -> str:
        where = ", ".join(f"{k} {v}" for k, v in self.addresses.items())
        return f"<Server {'stopped' if self._stopped.is_set() else where}: {', '.join(self.models) or 'no models'}>"


def serve(models: Mapping[str, Any], **settings: Any) -> Server:
    """Serve models on the Open Inference Protocol v2.

    Parameters
    ----------
    models : dict
        Name to a Model, a path or a URI, or to a dict of version (digits) to those. Models passed in stay the caller's.
    **settings
        As in `Settings`: `grpc`, `http`, `token`, `tls`, `batching`, ….

    Returns
    -------
    Server
        Running; a context manager, also with ``async with``.

    Raises
    ------
    InputError
        If a name, address or setting does not fit.
    UnavailableError
        If an address is taken.
    """
    if not isinstance(models, Mapping):
        raise InputError("models must be a dict of name to model")
    wanted, named = Settings.of(settings), _versions(models)
    _check_defaults(wanted.default or {}, named)
    where = wanted.addresses()
    repository = Repository(_opener(wanted.trust), wanted)
    service = Service(repository, write_signature=wanted.write_signature, version=_version())
    server = Server(repository, service)
    try:
        for name, version, source in named:
            repository.add(name, source, version=version, default=(wanted.default or {}).get(name))
        for kind, (host, port) in where.items():
            server._listen(kind, host, port, wanted)
    except BaseException:
        server.stop(0.0)
        raise
    _LOG.info("serving", extra={"address": ", ".join(f"{k}={v}" for k, v in server.addresses.items())})
    return server


def run(models: Mapping[str, Any], *, on_ready: Callable[[Server], object] | None = None, grace_s: float = 30.0, **settings: Any) -> int:
    """Serve until SIGTERM or SIGINT, drain, and return the exit code; a second signal ends the process at once.

    Parameters
    ----------
    models, **settings
        As for `serve`.
    on_ready : callable, optional
        Called with the server once it answers.
    grace_s : float
        Seconds that accepted calls have after the signal.

    Returns
    -------
    int
        0 where everything accepted was answered, else 70.
    """
    asked = threading.Event()

    def on_signal(number: int, frame: object) -> None:
        if asked.is_set():
            os._exit(128 + number)
        asked.set()

    log_to_stderr()
    before = {s: signal.signal(s, on_signal) for s in (signal.SIGTERM, signal.SIGINT)}
    try:
        server = serve(models, **settings)
        if on_ready is not None:
            on_ready(server)
        while not asked.wait(0.5):  # a plain wait() would keep Python from running the signal handler on some systems
            pass
        return 0 if server.stop(grace_s) else 70
    finally:
        for number, handler in before.items():
            with suppress(ValueError, TypeError):
                signal.signal(number, handler)


def _versions(models: Mapping[str, Any]) -> Sequence[tuple[str, str, Any]]:
    out = []
    for name, source in models.items():
        for version, model in source.items() if isinstance(source, Mapping) else [("1", source)]:
            out.append((name, str(version), model))
    return out


def _check_defaults(defaults: Mapping[str, str], named: Sequence[tuple[str, str, Any]]) -> None:
    served = {(name, version) for name, version, _ in named}
    problems = [f"default: there is no version {v!r} of a model {n!r}" for n, v in defaults.items() if (n, v) not in served]
    if problems:
        raise InputError("; ".join(problems), problems=problems, hint="default is name to one of its versions, as text")


def _opener(trust: str) -> Callable[[Any], Model]:
    def open_model(source: Any) -> Model:
        from .._api import load

        return load(source, trust=trust)

    return open_model


def _version() -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("mlbridge")
    except PackageNotFoundError:
        return "0"
