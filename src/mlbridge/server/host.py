"""Server: listeners over one repository, started, drained and stopped. `serve` makes one; `run` is for a process of its own."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any

from ..errors import ClosedError, InputError, UnavailableError
from ..model import Model
from .access import Access, Tls, check_address
from .repository import Repository
from .service import Service
from .transport import Transport

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
        self._web: _Web | None = None
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


class _Web:
    """uvicorn on a thread of its own."""

    def __init__(self, app: Any, host: str, port: int, tls: Tls | None) -> None:
        import uvicorn

        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self._socket = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)  # asyncio turns Nagle off only where it sees TCP
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            self._socket.bind((host, port))
            self._socket.listen(1024)  # before uvicorn is up: whoever knows the address may connect
        except OSError as exc:
            self._socket.close()
            raise UnavailableError(f"cannot listen on {host}:{port}: {exc.strerror}", hint="is another server using the port?") from exc
        self.port = self._socket.getsockname()[1]
        secure: dict[str, Any] = {}
        if tls is not None:
            secure = {"ssl_keyfile": tls.key, "ssl_certfile": tls.certificate}
            if tls.client_authority:
                import ssl

                secure |= {"ssl_ca_certs": tls.client_authority, "ssl_cert_reqs": ssl.CERT_REQUIRED}
        config = uvicorn.Config(
            app,
            log_config=None,
            access_log=False,
            server_header=False,
            limit_concurrency=1024,
            timeout_keep_alive=30,
            h11_max_incomplete_event_size=64 << 10,
            http="h11",
            ws="none",
            lifespan="off",
            **secure,
        )
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._serve, name="mlbridge-http", daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        asyncio.run(self._server.serve(sockets=[self._socket]))

    def stop(self) -> None:
        self._server.should_exit = True
        self._thread.join(5.0)
        if self._thread.is_alive():
            self._server.force_exit = True
            self._thread.join(5.0)
        self._socket.close()


def serve(
    models: Mapping[str, Any],
    *,
    grpc: str | None = None,
    http: str | None = None,
    operator: str | None = None,
    token: str | None = None,
    operator_token: str | None = None,
    tls: Any = None,
    insecure: bool = False,
    default: Mapping[str, str] | None = None,
    trust: str = "data",
    batching: bool = True,
    max_queue: int = 128,
    max_rows: int = 1024,
    max_message_mib: int = 16,
    max_calls: int = 256,
    max_streams: int = 32,
    always_raw: bool = False,
    write_signature: bool = False,
) -> Server:
    """Serve models on the Open Inference Protocol v2.

    Parameters
    ----------
    models : dict
        Name to a Model, a path or a URI, or to a dict of version (digits) to those. Models passed in stay the caller's.
    grpc, http : str, optional
        Addresses, ``host:port``; port 0 takes a free one. Without any, gRPC listens on 127.0.0.1:8001.
    operator : str, optional
        Address of a second gRPC listener that also takes the repository calls; off by default.
    token, operator_token : str, optional
        What callers show as ``authorization: Bearer …``.
    tls : tuple or dict, optional
        (key, certificate[, client_authority]): paths of PEM files.
    insecure : bool
        Listen beyond this machine without TLS and token.
    default : dict, optional
        Name to the version that answers where a request names none; else the highest.
    trust : str
        For paths, as in `mlbridge.load`.
    batching : bool
        Whether requests that wait may share a call of the model.
    max_queue, max_rows : int
        Requests that may wait per model; rows of one call.
    max_message_mib, max_calls, max_streams : int
        Limits: a message, calls at once, open streams.
    always_raw : bool
        Answer raw also where the request was typed.
    write_signature : bool
        Write the signature into ModelMetadata's properties.

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
    secure = Tls.of(tls)
    if grpc is None and http is None:
        grpc = "127.0.0.1:8001"
    where = {k: check_address(a, tls=secure, token=token, insecure=insecure) for k, a in (("grpc", grpc), ("http", http)) if a is not None}
    if operator is not None:
        where["operator"] = check_address(operator, tls=secure, token=operator_token or token, insecure=insecure)
    repository = Repository(_opener(trust), batching=batching, always_raw=always_raw, max_queue=max_queue, max_rows=max_rows)
    service = Service(repository, write_signature=write_signature, version=_version())
    server = Server(repository, service)
    try:
        for name, version, source in _versions(models):
            repository.add(name, source, version=version, default=(default or {}).get(name))
        limits: dict[str, Any] = {"max_message_mib": max_message_mib, "max_calls": max_calls, "max_streams": max_streams}
        for kind in ("grpc", "operator"):
            if kind in where:
                access = Access(token, operator_token=operator_token, operates=kind == "operator")
                transport = Transport(service, access, *where[kind], tls=secure, **limits)
                server._transports[kind] = transport
                transport.start()
                server.addresses[kind] = transport.address
        if "http" in where:
            from .rest import application

            host, port = where["http"]
            app = application(service, Access(token), max_bytes=max_message_mib << 20)
            server._web = _Web(app, host, port, secure)
            server.addresses["http"] = f"[{host}]:{server._web.port}" if ":" in host else f"{host}:{server._web.port}"
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
