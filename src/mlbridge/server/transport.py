"""gRPC: the service's calls as handlers of grpcio's threaded server, with access, limits, health and reflection.

Messages are parsed in the handlers and not by grpcio, which answers a malformed one with the wrong code.
"""

from __future__ import annotations

import functools
import threading
import time
from collections.abc import Callable, Hashable, Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import Any, NoReturn

import grpc
from google.protobuf.message import DecodeError
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection, reflection_pb2, reflection_pb2_grpc

from ..errors import AccessError, InputError, OverloadedError, StatusCode, UnavailableError
from ..interfaces import Deadline
from ..runtimes.wire import BRIDGE, POOL, SERVICE, field, inference_pb2, mlbridge_pb2
from .access import TABLE, Access
from .caller import Caller
from .crew import Crew
from .direct import Direct
from .replies import Reply, inside, refusal
from .service import Failed, Service
from .settings import Settings

__all__ = ["Transport"]

_FOREVER_S = 1e9  # grpcio reports an absent deadline as some centuries
_INFER_RESPONSE = 0x12  # first byte of that field of ModelStreamInferResponse
_GRPC_CODE = {code: next(c for c in grpc.StatusCode if c.value[0] == code.value) for code in StatusCode}


class _RpcCaller(Caller):
    __slots__ = ("_context", "aside")

    def __init__(self, context: grpc.ServicerContext, aside: AbstractContextManager[Any]) -> None:
        self._context, self.aside = context, aside  # type: ignore[misc]

    def remaining_s(self) -> float | None:
        left = self._context.time_remaining()
        return None if left is None or left > _FOREVER_S else left

    def name(self) -> Hashable:
        return self._context.peer()

    def tie(self, deadline: Deadline) -> None:
        if not self._context.add_callback(deadline.cancel):
            deadline.cancel()

    def header(self, name: str) -> str | None:
        return next((v for k, v in self._context.invocation_metadata() if k == name and isinstance(v, str)), None)


class _Gate(grpc.ServerInterceptor):
    """Asks the table about every call before any handler sees it."""

    def __init__(self, service: Service, access: Access, max_streams: int) -> None:
        self._service, self._access = service, access
        self._streams = threading.BoundedSemaphore(max_streams)

    def intercept_service(self, continuation: Callable, details: Any) -> Any:
        handler = continuation(details)
        if handler is None:
            return None  # grpcio answers UNIMPLEMENTED
        role = TABLE.get(details.method, "denied")
        if role != "open":
            shown = None
            if self._access.asks:
                shown = next((v for k, v in details.invocation_metadata if k == "authorization"), None)
            try:
                self._access.check(role, shown)
            except AccessError as exc:
                return _refuse(refusal(exc))
            if self._service.draining:
                return _refuse(refusal(UnavailableError("the server is shutting down")))
        if handler.request_streaming and role != "open":
            return self._limited(handler)
        return handler

    def _limited(self, handler: Any) -> Any:
        """An open stream holds a thread: only so many are let in."""
        streams, inner = self._streams, handler.stream_stream

        def run(requests: Iterator, context: grpc.ServicerContext) -> Iterator:
            if not streams.acquire(blocking=False):
                _abort(context, refusal(OverloadedError("too many open streams", hint="close one")))
            try:
                yield from inner(requests, context)
            finally:
                streams.release()

        return grpc.stream_stream_rpc_method_handler(run, handler.request_deserializer, handler.response_serializer)


def _refuse(reply: Reply) -> Any:
    def run(requests: Iterator, context: grpc.ServicerContext) -> Iterator:
        _abort(context, reply)

    return grpc.stream_stream_rpc_method_handler(run)  # fits calls of every arity: it reads nothing and writes nothing


def _abort(context: grpc.ServicerContext, reply: Reply) -> NoReturn:
    context.set_trailing_metadata(reply.metadata())
    context.abort(_GRPC_CODE[reply.code], reply.text)
    raise AssertionError("abort raises")


class _Handlers(grpc.GenericRpcHandler):
    """The handlers of both services."""

    def __init__(self, service: Service, aside: AbstractContextManager[Any] | None = None) -> None:
        self._service, self._aside = service, aside or nullcontext()
        s = service
        pb, bridge = inference_pb2, mlbridge_pb2
        own = {
            "ServerLive": (pb.ServerLiveRequest, lambda r: pb.ServerLiveResponse(live=True)),
            "ServerReady": (pb.ServerReadyRequest, lambda r: pb.ServerReadyResponse(ready=s.ready())),
            "ModelReady": (pb.ModelReadyRequest, lambda r: pb.ModelReadyResponse(ready=s.model_ready(r.name, r.version))),
            "ServerMetadata": (pb.ServerMetadataRequest, lambda r: s.server_metadata()),
            "ModelMetadata": (pb.ModelMetadataRequest, lambda r: s.model_metadata(r.name, r.version)),
            "ModelConfig": (pb.ModelConfigRequest, lambda r: s.model_config(r.name, r.version)),
            "ModelStatistics": (pb.ModelStatisticsRequest, lambda r: s.statistics(r.name, r.version)),
            "RepositoryIndex": (pb.RepositoryIndexRequest, lambda r: s.repository_index(r.ready)),
            "RepositoryModelLoad": (pb.RepositoryModelLoadRequest, s.repository_load),
            "RepositoryModelUnload": (pb.RepositoryModelUnloadRequest, s.repository_unload),
        }
        self._methods = {f"/{SERVICE}/{n}": _unary(kind, answer) for n, (kind, answer) in own.items()}
        self._methods[f"/{SERVICE}/ModelInfer"] = grpc.unary_unary_rpc_method_handler(_Infer(service, self._aside))
        self._methods[f"/{SERVICE}/ModelStreamInfer"] = grpc.stream_stream_rpc_method_handler(self._stream)
        self._methods[f"/{BRIDGE}/Describe"] = _unary(bridge.DescribeRequest, lambda r: s.describe(r.name, r.version))

    def service(self, details: Any) -> Any:
        return self._methods.get(details.method)

    def _stream(self, messages: Iterator[bytes], context: grpc.ServicerContext) -> Iterator[bytes]:
        caller = _RpcCaller(context, self._aside)
        closes = caller.header("triton_grpc_error") == "true"
        for message in messages:
            try:
                yield field(_INFER_RESPONSE, self._service.infer(message, caller, final=True))
            except (Failed, DecodeError) as exc:
                reply = exc.reply if isinstance(exc, Failed) else _malformed()
                if closes or self._service.draining:
                    _abort(context, reply)
                answer = inference_pb2.ModelStreamInferResponse(error_message=reply.text)
                answer.infer_response.id = _id_of(message)
                yield answer.SerializeToString()


class _Infer:
    """The handler of ModelInfer."""

    def __init__(self, service: Service, aside: AbstractContextManager[Any]) -> None:
        self._service, self._aside = service, aside

    def __call__(self, message: bytes, context: grpc.ServicerContext) -> bytes:
        try:
            return self._service.infer(message, _RpcCaller(context, self._aside))
        except Exception as exc:  # noqa: BLE001 - a client must never see what grpcio makes of a mistake of ours
            self.failed(exc, context)

    def at_once(self, message: bytes, deadline: float) -> bytes | None:
        """Answer on the polling thread, if it takes no time worth mentioning."""
        return self._service.infer_at_once(message, deadline - time.time())

    def failed(self, exc: Exception, context: grpc.ServicerContext) -> NoReturn:
        """End the call with what an error answers."""
        if isinstance(exc, Failed):
            _abort(context, exc.reply)
        _abort(context, _malformed() if isinstance(exc, DecodeError) else inside(exc, "", ""))


def _malformed() -> Reply:
    return refusal(InputError("the message is not a well-formed protobuf message of this call"))


def _id_of(message: bytes) -> str:
    try:
        return inference_pb2.ModelInferRequest.FromString(message).id
    except DecodeError:
        return ""


def _unary(kind: Any, answer: Callable[[Any], Any]) -> Any:
    def run(data: bytes, context: grpc.ServicerContext) -> bytes:
        try:
            return answer(kind.FromString(data)).SerializeToString()
        except Failed as failed:
            _abort(context, failed.reply)
        except DecodeError:
            _abort(context, _malformed())
        except Exception as exc:
            if type(exc) is not Exception:  # grpcio's own abort is a bare Exception
                _abort(context, inside(exc, "", ""))
            raise

    return grpc.unary_unary_rpc_method_handler(run)


class Transport:
    """A gRPC listener.

    Parameters
    ----------
    service : Service
        What answers.
    access : Access
        Who may.
    host, port
        Where; port 0 takes a free one.
    settings : Settings
        TLS, and the limits of messages, calls and streams.
    """

    def __init__(self, service: Service, access: Access, host: str, port: int, settings: Settings) -> None:
        self._service = service
        most, tls = settings.max_calls + settings.max_streams, settings.tls
        self._crew = Crew(most, name="mlbridge-grpc")
        size = settings.max_message_mib << 20
        options = (
            ("grpc.max_receive_message_length", size),
            ("grpc.max_send_message_length", -1),
            ("grpc.so_reuseport", 0),  # a second server on the port must fail, not share it
            ("grpc.max_concurrent_streams", settings.max_calls),
            ("grpc.max_metadata_size", 8 << 10),
            ("grpc.absolute_max_metadata_size", 16 << 10),
            ("grpc.keepalive_time_ms", 60_000),
            ("grpc.keepalive_timeout_ms", 20_000),
            ("grpc.server_handshake_timeout_ms", 10_000),
            ("grpc.http2.min_ping_interval_without_data_ms", 10_000),
        )
        self._server = grpc.server(
            Direct(self._crew),
            handlers=(_Handlers(service, self._crew.aside),),
            interceptors=(_Gate(service, access, settings.max_streams),),
            options=options,
            maximum_concurrent_rpcs=most,
        )
        self._health = health.HealthServicer()
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        for file in (health_pb2, reflection_pb2):
            _share(file.DESCRIPTOR.serialized_pb)
        names = (SERVICE, BRIDGE, health.SERVICE_NAME, reflection.SERVICE_NAME)
        _reflect(reflection.ReflectionServicer(names, pool=POOL), self._server)
        where = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        try:
            self.port = self._server.add_secure_port(where, _credentials(tls)) if tls else self._server.add_insecure_port(where)
        except RuntimeError as exc:
            self._crew.shutdown(wait=False)
            raise UnavailableError(f"cannot listen on {where}", hint="is another server using the port?") from exc
        self.address = f"[{host}]:{self.port}" if ":" in host else f"{host}:{self.port}"

    def start(self) -> None:
        """Answer calls."""
        self._server.start()
        self.serving(self._service.ready())

    def serving(self, yes: bool) -> None:
        """Tell health's watchers."""
        status = health_pb2.HealthCheckResponse.SERVING if yes else health_pb2.HealthCheckResponse.NOT_SERVING
        for name in ("", SERVICE):
            self._health.set(name, status)

    def stop(self, grace_s: float) -> None:
        """Close the listener; what still runs has `grace_s`."""
        self._server.stop(grace_s).wait()
        self._crew.shutdown(wait=False)


def _credentials(tls: Any) -> grpc.ServerCredentials:
    key, certificate, authority = tls.read()
    return grpc.ssl_server_credentials([(key, certificate)], root_certificates=authority, require_client_auth=authority is not None)


def _reflect(servicer: Any, server: grpc.Server) -> None:
    """Offer reflection as v1alpha, which grpcio's package knows, and as v1, whose messages are the same."""
    reflection_pb2_grpc.add_ServerReflectionServicer_to_server(servicer, server)
    handler = grpc.stream_stream_rpc_method_handler(
        servicer.ServerReflectionInfo,
        request_deserializer=reflection_pb2.ServerReflectionRequest.FromString,
        response_serializer=reflection_pb2.ServerReflectionResponse.SerializeToString,
    )
    server.add_generic_rpc_handlers(
        (grpc.method_handlers_generic_handler("grpc.reflection.v1.ServerReflection", {"ServerReflectionInfo": handler}),)
    )


@functools.cache
def _share(serialized: bytes) -> None:
    """Let reflection find a file that lives in protobuf's default pool."""
    POOL.AddSerializedFile(serialized)
