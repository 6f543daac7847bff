"""REST: the v2 paths with JSON and the binary tensor extension, on the same service as gRPC.

A starlette application; `server.py` runs it with uvicorn on a thread of its own.
"""

from __future__ import annotations

import asyncio
import json
import zlib
from collections.abc import Callable, Hashable
from concurrent.futures import ThreadPoolExecutor
from time import perf_counter_ns
from typing import Any

from ..errors import InputError, MlbridgeError, OverloadedError, UnsupportedError
from ..interfaces import Deadline
from ..runtimes.wire import clip
from .access import Access
from .caller import Caller
from .json_tensors import read_request, write_answer
from .metrics import render
from .replies import HTTP_STATUS, Reply, inside, refusal
from .service import Failed, Service

__all__ = ["application"]

_HEADER_LENGTH = "inference-header-content-length"


class _HttpCaller(Caller):
    __slots__ = ("_cancelled", "_request", "deadline")

    def __init__(self, request: Any) -> None:
        self._request = request
        self.deadline: Deadline | None = None
        self._cancelled = False

    def name(self) -> Hashable:
        client = self._request.client
        return f"http:{client.host}:{client.port}" if client else "http"

    def tie(self, deadline: Deadline) -> None:
        self.deadline = deadline
        if self._cancelled:
            deadline.cancel()

    def gone(self) -> None:
        """The client hung up."""
        self._cancelled = True
        if self.deadline is not None:
            self.deadline.cancel()

    def header(self, name: str) -> str | None:
        return self._request.headers.get(name)


class _Rest:
    def __init__(self, service: Service, access: Access, *, max_bytes: int, threads: int) -> None:
        self._service, self._access, self._max_bytes, self._threads = service, access, max_bytes, threads
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="mlbridge-http")
        self._running = 0

    # -------------------------------------------------- plumbing

    def route(self, role: str, answer: Callable) -> Callable:
        """Wrap an endpoint: access first, replies for what fails."""

        async def endpoint(request: Any) -> Any:
            try:
                self._access.check(role, request.headers.get("authorization"))
                return await answer(request)
            except Failed as failed:
                return _error(failed.reply)
            except MlbridgeError as exc:
                return _error(refusal(exc))
            except Exception as exc:  # noqa: BLE001 - a client must never see a trace
                return _error(inside(exc, "", ""))

        return endpoint

    async def _off_loop(self, work: Callable, *args: Any) -> Any:
        if self._running >= self._threads:
            raise OverloadedError("too many calls at once", hint="try again later")
        self._running += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._pool, work, *args)
        finally:
            self._running -= 1

    async def _body(self, request: Any) -> bytes:
        parts, size = [], 0
        async for part in request.stream():
            size += len(part)
            if size > self._max_bytes:
                raise OverloadedError(f"the body is larger than {self._max_bytes} bytes")
            parts.append(part)
        body = b"".join(parts)
        encoding = request.headers.get("content-encoding", "identity")
        return body if encoding == "identity" else _inflate(body, encoding, self._max_bytes)

    # -------------------------------------------------- endpoints

    async def live(self, request: Any) -> Any:
        from starlette.responses import Response

        return Response(status_code=200)

    async def ready(self, request: Any) -> Any:
        from starlette.responses import Response

        return Response(status_code=200 if self._service.ready() else 400)

    async def model_ready(self, request: Any) -> Any:
        from starlette.responses import Response

        name, version = _target(request)
        return Response(status_code=200 if self._service.model_ready(name, version) else 400)

    async def server_metadata(self, request: Any) -> Any:
        return _message(self._service.server_metadata())

    async def model_metadata(self, request: Any) -> Any:
        return _message(self._service.model_metadata(*_target(request)))

    async def model_config(self, request: Any) -> Any:
        return _message(self._service.model_config(*_target(request)).config)

    async def statistics(self, request: Any) -> Any:
        return _message(self._service.statistics(*_target(request)))

    async def statistics_of_all(self, request: Any) -> Any:
        return _message(self._service.statistics("", ""))

    async def describe(self, request: Any) -> Any:
        return _message(self._service.describe(*_target(request)))

    async def metrics(self, request: Any) -> Any:
        from starlette.responses import Response

        body, media_type = render(self._service)
        return Response(body, media_type=media_type)

    async def infer(self, request: Any) -> Any:
        from starlette.responses import Response

        name, version = _target(request)
        length = request.headers.get(_HEADER_LENGTH)
        if length is not None and not (length.isascii() and length.isdigit() and len(length) < 12):
            raise InputError("Inference-Header-Content-Length must be a whole number")
        caller = _HttpCaller(request)
        body = await self._body(request)
        watch = asyncio.create_task(_watch(request, caller))
        try:
            answer, head = await self._off_loop(self._infer, name, version, body, None if length is None else int(length), caller)
        finally:
            watch.cancel()
        headers = {} if head is None else {"Inference-Header-Content-Length": str(head)}
        kind = "application/json" if head is None else "application/octet-stream"
        wants = request.headers.get("accept-encoding", "")
        if "gzip" in wants or "deflate" in wants:
            coding = "gzip" if "gzip" in wants else "deflate"
            answer = await self._off_loop(_deflate, answer, coding)
            headers["Content-Encoding"] = coding
        return Response(answer, media_type=kind, headers=headers)

    def _infer(self, name: str, version: str, body: bytes, head: int | None, caller: _HttpCaller) -> tuple[bytes, int | None]:
        began = perf_counter_ns()
        service = self._service
        served = service.hold(name, version)
        try:
            try:
                wanted = read_request(body, head, served.codec)
            except (InputError, UnsupportedError) as exc:
                raise service._refused(served, exc, began) from None
            decoded = perf_counter_ns()
            results, queued = service.compute(served, wanted.how, wanted.timeout_s, caller, began)
            computed = perf_counter_ns()
            try:
                answer = write_answer(served.codec.outgoing(results, wanted.how.codes), served.codec, wanted)
            except Exception as exc:
                raise service._failed(served, exc, began) from exc
            ended = perf_counter_ns()
            served.statistics.answered(wanted.how.rows or 1, ended - began, queued, decoded - began, ended - computed)
            return answer
        finally:
            served.release()


async def _watch(request: Any, caller: _HttpCaller) -> None:
    """Notice that the client hung up while the model works."""
    message = await request.receive()
    while message["type"] != "http.disconnect":
        message = await request.receive()
    caller.gone()


def _target(request: Any) -> tuple[str, str]:
    return request.path_params["name"], request.path_params.get("version", "")


def _error(reply: Reply) -> Any:
    from starlette.responses import JSONResponse

    headers = {k: v for k, v in reply.metadata() if k != "grpc-retry-pushback-ms"}
    if reply.pushback_ms is not None:
        headers["Retry-After"] = str(max(1, reply.pushback_ms // 1000))
    return JSONResponse({"error": reply.text}, status_code=HTTP_STATUS.get(reply.code, 500), headers=headers)


def _no_such_path(request: Any, exc: Exception) -> Any:
    from starlette.responses import JSONResponse

    status = getattr(exc, "status_code", 404)
    text = f"there is nothing at {clip(request.url.path)}" + (f" for {clip(request.method)}" if status == 405 else "")
    return JSONResponse({"error": text}, status_code=status, headers=getattr(exc, "headers", None))


def _message(message: Any) -> Any:
    """Write a protobuf message as the protocol's JSON: snake case, 64-bit numbers as numbers."""
    from starlette.responses import Response

    return Response(json.dumps(_plain(message), ensure_ascii=False), media_type="application/json")


def _plain(message: Any) -> Any:
    out: dict[str, Any] = {}
    for field in message.DESCRIPTOR.fields:
        value = getattr(message, field.name)
        is_map = field.message_type is not None and field.message_type.GetOptions().map_entry
        if is_map:
            if value:
                out[field.name] = dict(value)
        elif field.is_repeated:
            out[field.name] = [_plain(v) if field.message_type else v for v in value]
        elif field.message_type is not None:
            if message.HasField(field.name):
                out[field.name] = _plain(value)
        elif field.enum_type is not None:
            out[field.name] = field.enum_type.values_by_number[value].name
        else:
            out[field.name] = value
    return out


def _inflate(body: bytes, encoding: str, most: int) -> bytes:
    bits = {"gzip": 31, "deflate": 15}.get(encoding)
    if bits is None:
        raise InputError("Content-Encoding must be gzip, deflate or identity")
    try:
        engine = zlib.decompressobj(bits)
        out = engine.decompress(body, most + 1)
    except zlib.error as exc:
        raise InputError(f"the body is not {encoding}") from exc
    if len(out) > most:
        raise OverloadedError(f"the body is larger than {most} bytes once decompressed")
    if not engine.eof:
        raise InputError(f"the {encoding} body is cut short")
    return out


def _deflate(body: bytes, coding: str) -> bytes:
    engine = zlib.compressobj(1, zlib.DEFLATED, 31 if coding == "gzip" else 15)
    return engine.compress(body) + engine.flush()


def application(service: Service, access: Access, *, max_bytes: int, threads: int = 64) -> Any:
    """Make the ASGI application."""
    from starlette.applications import Starlette
    from starlette.routing import Route

    rest = _Rest(service, access, max_bytes=max_bytes, threads=threads)
    model, versioned = "/v2/models/{name}", "/v2/models/{name}/versions/{version}"
    routes = [
        Route("/v2/health/live", rest.route("open", rest.live)),
        Route("/v2/health/ready", rest.route("open", rest.ready)),
        Route("/v2", rest.route("use", rest.server_metadata)),
        Route("/v2/", rest.route("use", rest.server_metadata)),
        Route("/v2/models/stats", rest.route("use", rest.statistics_of_all)),
        Route("/metrics", rest.route("use", rest.metrics)),
    ]
    for base in (model, versioned):
        routes += [
            Route(base, rest.route("use", rest.model_metadata)),
            Route(f"{base}/ready", rest.route("use", rest.model_ready)),
            Route(f"{base}/config", rest.route("use", rest.model_config)),
            Route(f"{base}/stats", rest.route("use", rest.statistics)),
            Route(f"{base}/describe", rest.route("use", rest.describe)),
            Route(f"{base}/infer", rest.route("use", rest.infer), methods=["POST"]),
        ]
    return Starlette(routes=routes, exception_handlers={404: _no_such_path, 405: _no_such_path})
