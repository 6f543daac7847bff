"""The runtime `grpc`: a model served elsewhere on the Open Inference Protocol, as a Session.

It takes the signature from mlbridge's own Describe, else from the metadata's properties, else makes one of the plain
metadata (Triton, MLServer, KServe). Retrying is left to gRPC's own service config, for calls surely not processed.
"""

from __future__ import annotations

import ipaddress
import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np

from .. import errors
from ..artifact import Artifact, Implementation
from ..errors import (
    AccessError,
    BridgeError,
    BridgeTimeoutError,
    CancelledError,
    ClosedError,
    InferenceError,
    InputError,
    MlbridgeError,
    NotFoundError,
    OverloadedError,
    StatusCode,
    UnsupportedError,
)
from ..interfaces import UNBOUNDED, Array, Deadline, Session
from ..plugins import require
from ..signature import DTYPES, Signature, TensorSpec

__all__ = ["GrpcRuntime", "GrpcSession", "Place"]

_PLACE = re.compile(
    r"(?P<host>\[[0-9A-Fa-f:.]+\]|[\w.\-]+):(?P<port>[0-9]{1,5})/(?P<model>[^/@?#\s]+)(@(?P<version>[0-9]{1,18}))?", re.ASCII
)
_DTYPE = {d.oip: d.name for d in DTYPES.values()}
_RETRY = {  # RESOURCE_EXHAUSTED is refused before any work; gRPC itself repeats what never left, and nothing else is safe to repeat
    "methodConfig": [
        {
            "name": [{"service": "inference.GRPCInferenceService"}, {"service": "mlbridge.v1.Bridge"}],
            "retryPolicy": {
                "maxAttempts": 4,
                "initialBackoff": "0.02s",
                "maxBackoff": "1s",
                "backoffMultiplier": 2,
                "retryableStatusCodes": ["RESOURCE_EXHAUSTED"],
            },
        }
    ]
}
_BY_CODE: dict[StatusCode, type[MlbridgeError]] = {
    StatusCode.INVALID_ARGUMENT: InputError,
    StatusCode.NOT_FOUND: NotFoundError,
    StatusCode.DEADLINE_EXCEEDED: BridgeTimeoutError,
    StatusCode.RESOURCE_EXHAUSTED: OverloadedError,
    StatusCode.UNIMPLEMENTED: UnsupportedError,
    StatusCode.UNAVAILABLE: BridgeError,
    StatusCode.PERMISSION_DENIED: AccessError,
    StatusCode.UNAUTHENTICATED: AccessError,
    StatusCode.CANCELLED: CancelledError,
}


class Place(NamedTuple):
    """Where a served model is: `host:port/model[@version]`."""

    target: str
    model: str
    version: str

    @classmethod
    def parse(cls, text: str) -> Place:
        """Read what follows `grpc://`; InputError if it holds anything else, a secret for example."""
        found = _PLACE.fullmatch(text.removeprefix("//"))
        if found is None or int(found["port"]) > 65535:
            raise InputError(
                "a served model is written grpc://host:port/model or grpc://host:port/model@version",
                hint="tokens go into options={'grpc': {'token': …}} or the environment variable MLBRIDGE_TOKEN",
            )
        return cls(f"{found['host']}:{found['port']}", found["model"], found["version"] or "")


class GrpcRuntime:
    """Opens models served on the Open Inference Protocol v2: `grpc://host:port/model[@version]`, `grpcs://` with TLS.

    Options: `token` (else the environment's MLBRIDGE_TOKEN), `root_certificates`, `client_key`, `client_certificate`
    (paths of PEM files), `timeout_s` (of a call without one, default 60), `connect_timeout_s` (default 10),
    `max_message_mib` (default 16: larger batches are sent in parts), `server_name` (the name in the certificate).
    """

    name: ClassVar[str] = "grpc"
    formats: ClassVar[frozenset[str]] = frozenset()
    options: ClassVar[frozenset[str]] = frozenset(
        {
            "token",
            "root_certificates",
            "client_key",
            "client_certificate",
            "timeout_s",
            "connect_timeout_s",
            "max_message_mib",
            "server_name",
        }
    )

    def accepts(self, model: object, /) -> bool:
        """Whether a live object can be wrapped: none can."""
        return False

    def wrap(self, model: object, /, *, signature: Signature, **options: Any) -> Session:
        """Refuse: a served model is loaded by its address."""
        raise UnsupportedError("the runtime 'grpc' wraps no objects; load a served model by its address", runtime=self.name)

    def load(
        self,
        source: Artifact | str,
        /,
        *,
        signature: Signature | None = None,
        device: str = "auto",
        way: str | None = None,
        token: str | None = None,
        root_certificates: str | None = None,
        client_key: str | None = None,
        client_certificate: str | None = None,
        timeout_s: float = 60.0,
        connect_timeout_s: float = 10.0,
        max_message_mib: float = 16,
        server_name: str | None = None,
    ) -> GrpcSession:
        """Open a served model.

        Parameters
        ----------
        source : str
            ``host:port/model[@version]``.
        signature : Signature, optional
            Instead of the one the server tells.
        device : {'auto'}
            The server's choice.
        way : {None, 'tls'}
            `tls` for grpcs.
        token, root_certificates, client_key, client_certificate, timeout_s, connect_timeout_s, max_message_mib, server_name
            As in the class.

        Raises
        ------
        NotFoundError
            If there is no such model.
        AccessError
            If the server refuses the token.
        BridgeError
            If the server cannot be reached.
        """
        if not isinstance(source, str):
            raise UnsupportedError("the runtime 'grpc' opens addresses, not files", runtime=self.name)
        if device != "auto":
            raise InputError(f"device={device!r}: a served model runs where its server put it")
        if way not in (None, "tls"):
            raise InputError(f"there is no way {way!r} of the runtime 'grpc'; grpcs:// is TLS")
        grpc = require("grpc")
        place = Place.parse(source)
        token = token if token is not None else os.environ.get("MLBRIDGE_TOKEN")
        if token is not None and way != "tls" and not _local(place.target):
            raise InputError("a token would cross the network in the clear", hint="use grpcs://")
        roots = root_certificates or os.environ.get("MLBRIDGE_ROOT_CERTIFICATES")
        options = [
            ("grpc.max_receive_message_length", -1),
            ("grpc.max_send_message_length", -1),
            ("grpc.service_config", json.dumps(_RETRY)),
            ("grpc.enable_retries", 1),
            ("grpc.keepalive_time_ms", 30_000),
            ("grpc.keepalive_timeout_ms", 10_000),
            ("grpc.initial_reconnect_backoff_ms", 100),
            ("grpc.max_reconnect_backoff_ms", 1000),  # a host that comes back is found within a second or so, not two minutes
        ]
        if way == "tls":
            if server_name is not None:
                options.append(("grpc.ssl_target_name_override", server_name))
            credentials = grpc.ssl_channel_credentials(_read(roots), _read(client_key), _read(client_certificate))
            channel = grpc.secure_channel(place.target, credentials, options)
        else:
            channel = grpc.insecure_channel(place.target, options)
        metadata = () if token is None else (("authorization", f"Bearer {token}"),)
        limit = int(max_message_mib * (1 << 20))
        try:
            return GrpcSession(
                channel, place, metadata, signature, timeout_s=timeout_s, connect_timeout_s=connect_timeout_s, max_bytes=limit
            )
        except BaseException:
            channel.close()
            raise

    def save(self, session: Session, folder: Path, /) -> Implementation:
        """Refuse: what runs elsewhere cannot be saved from here."""
        raise UnsupportedError("a served model cannot be saved from here", hint="save it where it is served", runtime=self.name)


class GrpcSession:
    """A served model. Any number of threads may run it; they share one connection."""

    max_concurrency = UNBOUNDED

    def __init__(
        self,
        channel: Any,
        place: Place,
        metadata: tuple,
        signature: Signature | None,
        *,
        timeout_s: float,
        connect_timeout_s: float,
        max_bytes: int,
    ) -> None:
        from . import wire

        self._grpc, self._wire, self._channel = require("grpc"), wire, channel
        self._place, self._metadata, self._timeout_s, self._max_bytes = place, metadata, timeout_s, max_bytes
        self.device = f"grpc://{place.target}"
        self._closed = False
        pb = wire.inference_pb2
        self._infer = channel.unary_unary(
            f"/{wire.SERVICE}/ModelInfer",
            request_serializer=pb.ModelInferRequest.SerializeToString,
            response_deserializer=pb.ModelInferResponse.FromString,
        )
        found, self._ours = self._find_signature(connect_timeout_s)
        self.signature = signature or found
        if signature is not None:
            _same_names(signature, found)
        self._inputs = [(s.name, "INT32" if s.categorical else DTYPES[s.dtype].oip) for s in self.signature.inputs]
        self._outputs = {s.name: s for s in self.signature.outputs}
        self._coded = frozenset(s.name for s in self.signature.outputs if s.categorical)

    # -------------------------------------------------- what it is

    def _find_signature(self, timeout_s: float) -> tuple[Signature, bool]:
        """Return the signature, and whether the server speaks codes."""
        pb, bridge = self._wire.inference_pb2, self._wire.mlbridge_pb2
        describe = self._channel.unary_unary(
            f"/{self._wire.BRIDGE}/Describe",
            request_serializer=bridge.DescribeRequest.SerializeToString,
            response_deserializer=bridge.DescribeResponse.FromString,
        )
        about = {"name": self._place.model, "version": self._place.version}
        try:
            return Signature.from_json(self._call(describe, bridge.DescribeRequest(**about), timeout_s).signature), True
        except UnsupportedError:
            pass  # not a server of ours
        metadata = self._channel.unary_unary(
            f"/{self._wire.SERVICE}/ModelMetadata",
            request_serializer=pb.ModelMetadataRequest.SerializeToString,
            response_deserializer=lambda data: pb.ModelMetadataResponse.FromString(_compatible(data)),
        )
        answer = self._call(metadata, pb.ModelMetadataRequest(**about), timeout_s)
        written = answer.properties.get("mlbridge.signature")
        if written:
            return Signature.from_json(written), True
        return _synthesised(answer), False

    # -------------------------------------------------- running

    def run(
        self, feeds: Mapping[str, Array], /, *, outputs: Sequence[str] | None = None, deadline: Deadline | None = None
    ) -> dict[str, Array]:
        """Run once on the server; a batch larger than a message is sent in parts."""
        if self._closed:
            raise ClosedError("the session is closed", runtime="grpc")
        parts = self._parts(feeds)
        if parts is None:
            return self._run(feeds, outputs, deadline)
        answers = [self._run(part, outputs, deadline) for part in parts]
        return {n: np.concatenate([a[n] for a in answers]) for n in answers[0]}

    def _parts(self, feeds: Mapping[str, Array]) -> Iterator[dict[str, Array]] | None:
        size = sum(a.nbytes if a.dtype != object else sum(len(v or "") * 4 + 4 for v in a.flat) for a in feeds.values())
        if size < self._max_bytes * 0.9 or not self.signature.batched:
            return None
        rows = len(next(iter(feeds.values())))
        step = max(1, int(rows * self._max_bytes * 0.8 / size))
        return ({n: a[i : i + step] for n, a in feeds.items()} for i in range(0, rows, step))

    def _run(self, feeds: Mapping[str, Array], outputs: Sequence[str] | None, deadline: Deadline | None) -> dict[str, Array]:
        request = self._wire.inference_pb2.ModelInferRequest(model_name=self._place.model, model_version=self._place.version)
        add, append, pack = request.inputs.add, request.raw_input_contents.append, self._wire.pack_array
        for name, datatype in self._inputs:
            array = feeds[name]
            tensor = add(name=name, datatype=datatype, shape=array.shape)
            if datatype == "BYTES":
                gone = [i for i, v in enumerate(array.ravel()) if v is None]
                if gone:
                    tensor.parameters[self._wire.MISSING].string_param = ",".join(map(str, gone))
            append(pack(array, datatype))
        if outputs is not None or (self._coded and self._ours):
            for name in outputs if outputs is not None else self._outputs:
                tensor = request.outputs.add(name=name)
                if name in self._coded and self._ours:
                    tensor.parameters["encoding"].string_param = "codes"
        answer = self._call(self._infer, request, self._timeout_s, deadline)
        return self._read(answer, outputs)

    def _read(self, answer: Any, outputs: Sequence[str] | None) -> dict[str, Array]:
        raws, found = answer.raw_output_contents, {}
        if raws and len(raws) != len(answer.outputs):
            raise InferenceError(f"{self.device}: {len(raws)} raw outputs for {len(answer.outputs)} tensors", runtime="grpc")
        for i, tensor in enumerate(answer.outputs):
            if tensor.name in self._outputs:
                found[tensor.name] = self._tensor(tensor, raws[i] if raws else None)
        names = list(self._outputs) if outputs is None else list(outputs)
        absent = [n for n in names if n not in found]
        if absent:
            raise InferenceError(f"{self.device}: the answer lacks {', '.join(map(repr, absent))}", runtime="grpc")
        return {n: found[n] for n in names}

    def _tensor(self, tensor: Any, raw: bytes | None) -> Array:
        spec = self._outputs[tensor.name]
        where = f"output {tensor.name!r}"
        try:
            array = self._wire.tensor_array(tensor, raw, where)
            if tensor.datatype == "BYTES":
                array = self._wire.text_values(array, where)
                for i in self._wire.missing_indices(tensor.parameters, array.size, where):
                    array.reshape(-1)[i] = None
        except (InputError, UnsupportedError) as exc:
            raise InferenceError(f"{self.device}: the answer is malformed: {exc.message}", runtime="grpc") from exc
        wanted = np.dtype(object) if spec.dtype == "string" else np.dtype(spec.dtype)
        if not np.can_cast(array.dtype, wanted, "safe") or len(array.shape) != len(spec.shape):
            raise InferenceError(f"{self.device}: {where} is {tensor.datatype}{list(array.shape)}, expected {spec}", runtime="grpc")
        return np.array(array, wanted, order="C")  # a copy: what came is a read-only view of the message

    def _call(self, method: Any, request: Any, timeout_s: float | None, deadline: Deadline | None = None) -> Any:
        if deadline is not None:
            deadline.check()
            left = deadline.remaining_s()
            timeout_s = timeout_s if left is None else left
        try:
            if deadline is None:
                return method(request, timeout=timeout_s, metadata=self._metadata)
            future = method.future(request, timeout=timeout_s, metadata=self._metadata)
            forget = deadline.on_cancel(future.cancel)
            try:
                return future.result()
            finally:
                forget()
        except self._grpc.FutureCancelledError as exc:
            raise CancelledError("the call was cancelled", runtime="grpc") from exc
        except self._grpc.RpcError as exc:
            raise self._error(exc) from exc
        except ValueError as exc:
            if self._closed:
                raise ClosedError("the session is closed", runtime="grpc") from exc
            raise

    def _error(self, exc: Any) -> MlbridgeError:
        code = StatusCode(exc.code().value[0])
        trailing = {k: v for k, v in exc.trailing_metadata() or () if isinstance(v, str)}
        named = getattr(errors, trailing.get("mlbridge-error", ""), None)
        right = isinstance(named, type) and issubclass(named, MlbridgeError) and not issubclass(named, errors.ArtifactError)
        kind: type[MlbridgeError] = named if right else _BY_CODE.get(code, InferenceError)  # type: ignore[assignment]
        text = exc.details() or code.name
        return kind(f"{self.device}/{self._place.model}: {text}", code=code, runtime="grpc")

    def close(self) -> None:
        """Close the connection; harmless when repeated."""
        if not self._closed:
            self._closed = True
            self._channel.close()


def _local(target: str) -> bool:
    host = target.rpartition(":")[0].strip("[]")
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _read(path: str | None) -> bytes | None:
    try:
        return None if path is None else Path(path).read_bytes()
    except OSError as exc:
        raise InputError(f"{path}: {exc.strerror}") from exc


def _same_names(given: Signature, told: Signature) -> None:
    problems = [
        f"the server has no {side} {s.name!r}"
        for side, mine, theirs in (("input", given.inputs, told.inputs), ("output", given.outputs, told.outputs))
        for s in mine
        if s.name not in {t.name for t in theirs}
    ]
    if problems:
        raise errors.SignatureError("; ".join(problems), problems=problems)


def _synthesised(metadata: Any) -> Signature:
    """Make a signature of plain metadata: no columns, no promise about rows, missing values are the model's affair."""

    def specs(tensors: Any, is_input: bool) -> list[TensorSpec]:
        out = []
        for t in tensors:
            dtype = _DTYPE.get(t.datatype)
            if dtype is None or dtype == "bfloat16":
                raise UnsupportedError(f"the served model's tensor {t.name!r} is {t.datatype}, which mlbridge cannot carry", runtime="grpc")
            rounds = is_input and dtype in ("float32", "float16")
            shape = [None if d < 0 else d for d in t.shape]
            out.append(TensorSpec(t.name, dtype, shape, missing="allow", rounding="nearest" if rounds else "refuse"))  # type: ignore[arg-type]
        return out

    return Signature(specs(metadata.inputs, True), specs(metadata.outputs, False))  # type: ignore[arg-type]


def _compatible(data: bytes) -> bytes:
    """Drop field 6 of a ModelMetadataResponse where it is another dialect's map of messages and not of strings."""
    if b"mlbridge.signature" in data:
        return data
    out, at = [], 0
    while at < len(data):
        start = at
        tag, at = _varint(data, at)
        if tag & 7 == 2:
            size, at = _varint(data, at)
            at += size
        elif tag & 7 == 0:
            _, at = _varint(data, at)
        else:
            return data  # protobuf says what is wrong
        if tag >> 3 != 6:
            out.append(data[start:at])
    return b"".join(out)


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while at < len(data) and shift < 64:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if not byte & 0x80:
            break
        shift += 7
    return value, at
