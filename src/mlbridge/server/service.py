"""What the protocol's calls do, whatever carried them: inference, metadata, statistics, repository.

`transport.py` (gRPC) and `rest.py` hand messages in and carry replies out. Everything here is thread-safe.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import nullcontext
from time import perf_counter_ns
from typing import Any

from ..errors import (
    BridgeTimeoutError,
    CancelledError,
    InputError,
    MlbridgeError,
    OverloadedError,
    StatusCode,
    UnsupportedError,
)
from ..interfaces import Deadline
from ..runtimes.wire import RAW_IN, clip, datatype_of, inference_pb2, metadata_shape, mlbridge_pb2, part
from .caller import Caller
from .codec import Decoded
from .replies import Reply, inside, refusal
from .repository import Repository, Served
from .shortcuts import Recipe
from .tracing import Tracer

__all__ = ["EXTENSIONS", "Failed", "Service"]

EXTENSIONS = ("binary_tensor_data", "parameters", "statistics", "model_configuration", "mlbridge.describe")
_MAX_HEAD = 1024  # bytes of a request before its numbers that are worth remembering
_MAX_KNOWN = 512  # heads remembered; clients that vary without end start it anew
_AMPLE_S = 0.05  # a deadline further away than this needs no watching by a call that takes a five-hundredth of it
_DATA_TYPE = {"FP16": "TYPE_FP16", "FP32": "TYPE_FP32", "FP64": "TYPE_FP64", "BYTES": "TYPE_STRING", "BOOL": "TYPE_BOOL"}


class Failed(Exception):
    """A call ends with this reply."""

    def __init__(self, reply: Reply) -> None:
        super().__init__(reply.text)
        self.reply = reply


class Service:
    """The calls.

    Parameters
    ----------
    repository : Repository
        What is served.
    write_signature : bool
        Whether ModelMetadata carries the signature as `properties` (field 6).
    """

    def __init__(self, repository: Repository, *, write_signature: bool = False, version: str = "") -> None:
        self.repository, self.version = repository, version
        self._write_signature = write_signature
        self._tracer = Tracer.found()
        self._lock = threading.Lock()
        self.rejected: dict[str, int] = {}

    # -------------------------------------------------- inference

    def infer(self, message: bytes, caller: Caller, *, final: bool = False) -> bytes:
        """Answer a serialized ModelInferRequest with a serialized ModelInferResponse.

        Parameters
        ----------
        message : bytes
            As it came.
        caller : Caller
            Who waits.
        final : bool
            Whether a request that asks for it is told which answer is its last: on streams.

        Raises
        ------
        Failed
            With the reply, already counted and logged.
        DecodeError
            If the message is not well-formed.
        """
        began = perf_counter_ns()
        parted = part(message, RAW_IN)
        known = self.repository.known
        found = None if parted is None else known.get(parted.head)
        if found is not None and self._tracer is None:
            served, recipe = found
            if parted.id.isascii() and served.hold():  # type: ignore[union-attr]
                try:
                    how = recipe.read(parted.raws)  # type: ignore[union-attr]
                    if how is not None:
                        return self._answer(served, how, parted.id, caller.remaining_s(), caller, began)  # type: ignore[union-attr]
                finally:
                    served.release()
        request = inference_pb2.ModelInferRequest.FromString(message)
        served = self.hold(request.model_name, request.model_version)
        try:
            with nullcontext() if self._tracer is None else self._tracer.span(served.name, served.version, caller):
                answer = self._infer(served, request, caller, began)
        finally:
            served.release()
        if found is None and parted is not None:
            self._remember(known, parted.head, served, request)
        return answer + _FINAL if final and _asks_for_final(request) else answer

    def infer_at_once(self, message: bytes, left_s: float) -> bytes | None:
        """Answer like `infer`, without waiting and in no time worth mentioning; None where that cannot be promised.

        Parameters
        ----------
        message : bytes
            As it came.
        left_s : float
            Seconds until the caller gives up.
        """
        began = perf_counter_ns()
        parted = part(message, RAW_IN)
        if parted is None or left_s < _AMPLE_S or self._tracer is not None:
            return None
        found = self.repository.known.get(parted.head)
        if found is None:
            return None
        served, recipe = found
        if not (served.prompt and recipe.all and served.batcher.brief(recipe.rows) and parted.id.isascii() and served.hold()):
            return None
        try:
            how = recipe.read(parted.raws)
            if how is None:
                return None
            decoded = perf_counter_ns()
            results = served.batcher.at_once(how.feeds, recipe.rows)
            return None if results is None else self._written(served, how, parted.id, results, 0, began, decoded)
        except Failed:
            raise
        except Exception as exc:
            raise self._failed(served, exc, began) from exc
        finally:
            served.release()

    def _infer(self, served: Served, request: Any, caller: Caller, began: int) -> bytes:
        try:
            how = served.codec.decode(request)
            left = caller.remaining_s()
            if request.parameters:
                left = _sooner(left, _timeout_parameter(request.parameters))
        except (InputError, UnsupportedError) as exc:
            raise self._refused(served, exc, began) from None
        return self._answer(served, how, request.id.encode(), left, caller, began)

    def _answer(self, served: Served, how: Decoded, request_id: bytes, left: float | None, caller: Caller, began: int) -> bytes:
        decoded = perf_counter_ns()
        results, queued = self.compute(served, how, left, caller, began)
        return self._written(served, how, request_id, results, queued, began, decoded)

    def _written(self, served: Served, how: Decoded, request_id: bytes, results: dict, queued: int, began: int, decoded: int) -> bytes:
        """Write the answer and count it."""
        computed = perf_counter_ns()
        try:
            answer = served.codec.encode(results, request_id, how)
        except Exception as exc:
            raise self._failed(served, exc, began) from exc
        ended = perf_counter_ns()
        served.statistics.answered(how.rows or 1, ended - began, queued, decoded - began, ended - computed)
        return answer

    @staticmethod
    def _remember(known: dict[bytes, tuple[Served, Recipe]], head: bytes, served: Served, request: Any) -> None:
        """Let the next request of this head skip the parsing; `known` is of the moment before the model was looked up."""
        recipe = served.codec.recipe(request) if len(head) <= _MAX_HEAD else None
        if recipe is not None:
            if len(known) >= _MAX_KNOWN:
                known.clear()
            known[head] = served, recipe

    def compute(self, served: Served, how: Any, left: float | None, caller: Caller, began: int) -> tuple[dict, int]:
        """Run the model on decoded feeds; returns results and the nanoseconds it waited."""
        try:
            deadline = None if left is None else Deadline(left)
            if how.rows == 0:
                return served.model.run(how.feeds, outputs=how.names), 0
            results, queued = served.batcher.submit(how.feeds, how.rows, how.names, deadline, caller)
            return results if how.names is None else {n: results[n] for n in how.names}, queued
        except Exception as exc:
            raise self._failed(served, exc, began) from exc

    def _refused(self, served: Served, exc: MlbridgeError, began: int) -> Failed:
        served.statistics.failed(exc.code.name, perf_counter_ns() - began)
        return Failed(refusal(exc))

    def _failed(self, served: Served, exc: BaseException, began: int) -> Failed:
        pushback = int(served.batcher.drain_s() * 1000) if isinstance(exc, OverloadedError) else None
        ours = isinstance(exc, (OverloadedError, BridgeTimeoutError, CancelledError)) and exc.__cause__ is None and exc.runtime is None
        reply = refusal(exc, pushback_ms=pushback) if ours else inside(exc, served.name, served.version, pushback_ms=pushback)  # type: ignore[arg-type]
        served.statistics.failed(reply.code.name, perf_counter_ns() - began)
        return Failed(reply)

    def hold(self, name: str, version: str) -> Served:
        """Take hold of a model; Failed with NOT_FOUND or UNAVAILABLE. What is held is accepted: a drain waits for it."""
        try:
            return self.repository.hold(name, version)
        except MlbridgeError as exc:
            self._count_rejected(exc.code.name)
            raise Failed(refusal(exc)) from None

    def _count_rejected(self, code: str) -> None:
        with self._lock:
            self.rejected[code] = self.rejected.get(code, 0) + 1

    @property
    def draining(self) -> bool:
        """Whether the server takes no more work."""
        return self.repository.draining

    @property
    def running(self) -> int:
        """Requests accepted and not yet answered."""
        return sum(s.held for s in self.repository.served())

    # -------------------------------------------------- about models

    def server_metadata(self) -> Any:
        """Answer ServerMetadata."""
        return inference_pb2.ServerMetadataResponse(name="mlbridge", version=self.version, extensions=EXTENSIONS)

    def ready(self) -> bool:
        """Whether all models answer and the server is not shutting down."""
        return not self.draining and self.repository.all_ready()

    def model_ready(self, name: str, version: str) -> bool:
        """Whether one model answers."""
        return not self.draining and self.repository.ready(name, version)

    def model_metadata(self, name: str, version: str) -> Any:
        """Answer ModelMetadata."""

        def answer(served: Served) -> Any:
            out = inference_pb2.ModelMetadataResponse(
                name=served.name, versions=self.repository.versions(served.name), platform=_platform(served)
            )
            for specs, side in ((served.model.signature.inputs, out.inputs), (served.model.signature.outputs, out.outputs)):
                for spec in specs:
                    side.add(name=spec.name, datatype=datatype_of(spec), shape=metadata_shape(spec))
            if self._write_signature:
                out.properties["mlbridge.signature"] = served.model.signature.to_json()
            return out

        return self._about(name, version, answer)

    def model_config(self, name: str, version: str) -> Any:
        """Answer ModelConfig with the part of it this server has."""

        def answer(served: Served) -> Any:
            signature = served.model.signature
            batched = signature.batched
            config = inference_pb2.ModelConfig(name=served.name, platform=_platform(served), backend=served.model.route.runtime)
            config.max_batch_size = served.batcher.max_rows if batched else 0
            for specs, side in ((signature.inputs, config.input), (signature.outputs, config.output)):
                for spec in specs:
                    kind = datatype_of(spec)
                    side.add(
                        name=spec.name, data_type=_DATA_TYPE.get(kind, f"TYPE_{kind}"), dims=metadata_shape(spec)[1 if batched else 0 :]
                    )
            if batched:
                config.dynamic_batching.SetInParent()
            config.model_transaction_policy.SetInParent()
            return inference_pb2.ModelConfigResponse(config=config)

        return self._about(name, version, answer)

    def describe(self, name: str, version: str) -> Any:
        """Answer mlbridge.v1 Describe."""

        def answer(served: Served) -> Any:
            model = served.model
            return mlbridge_pb2.DescribeResponse(
                name=served.name,
                version=served.version,
                signature=model.signature.to_json(),
                provenance={str(k): str(v) for k, v in model._provenance.items() if isinstance(v, (str, int, float, bool))},
                route=model.route.runtime,
                why=model.route.framework or "",
                device=model.device,
                placement=dict(model.placement),
            )

        return self._about(name, version, answer)

    def _about(self, name: str, version: str, answer: Callable[[Served], Any]) -> Any:
        served = self.hold(name, version)
        try:
            return answer(served)
        finally:
            served.release()

    def statistics(self, name: str, version: str) -> Any:
        """Answer ModelStatistics."""
        found = [s for s in self.repository.served() if (not name or s.name == name) and (not version or s.version == version)]
        if name and not found:
            self.hold(name, version).release()
        out = inference_pb2.ModelStatisticsResponse()
        for served in found:
            stats = out.model_stats.add(name=served.name, version=served.version)
            _write_statistics(stats, served.statistics)
            if (size := served.memory_bytes()) is not None:
                stats.memory_usage.add(type="CPU", byte_size=size)
        return out

    # -------------------------------------------------- the operator's calls

    def repository_index(self, ready_only: bool) -> Any:
        """Answer RepositoryIndex."""
        out = inference_pb2.RepositoryIndexResponse()
        for name, version, state, reason in self.repository.index():
            if not ready_only or state == "READY":
                out.models.add(name=name, version=version, state=state, reason=reason)
        return out

    def repository_load(self, request: Any) -> Any:
        """Load anew a model the operator named; clients bring no files and no configuration."""
        if request.parameters:
            raise Failed(refusal(UnsupportedError("load takes no parameters here")))
        try:
            self.repository.reload(request.model_name)
        except MlbridgeError as exc:
            if exc.code is StatusCode.NOT_FOUND and str(exc).startswith("there is no model"):
                raise Failed(refusal(exc)) from None
            raise Failed(inside(exc, request.model_name, "")) from exc
        except Exception as exc:
            raise Failed(inside(exc, request.model_name, "")) from exc
        return inference_pb2.RepositoryModelLoadResponse()

    def repository_unload(self, request: Any) -> Any:
        """Unload a model once its calls have ended."""
        unknown = [k for k in request.parameters if k != "unload_dependents"]
        if unknown:
            raise Failed(refusal(InputError(f"there is no parameter {clip(unknown[0])}")))
        try:
            self.repository.remove(request.model_name)
        except MlbridgeError as exc:
            raise Failed(refusal(exc)) from None
        return inference_pb2.RepositoryModelUnloadResponse()


def _platform(served: Served) -> str:
    runtime = served.model.route.runtime
    return "onnxruntime_onnx" if runtime == "onnx" else f"mlbridge_{runtime}"


_FINAL = inference_pb2.ModelInferResponse(
    parameters={"triton_final_response": inference_pb2.InferParameter(bool_param=True)}
).SerializeToString()


def _asks_for_final(request: Any) -> bool:
    return (
        "triton_enable_empty_final_response" in request.parameters and request.parameters["triton_enable_empty_final_response"].bool_param
    )


def _timeout_parameter(parameters: Any) -> float | None:
    """Read the request parameter `timeout`, in microseconds."""
    if "timeout" not in parameters:
        return None
    value = parameters["timeout"]
    kind = value.WhichOneof("parameter_choice")
    if kind not in ("int64_param", "uint64_param") or getattr(value, kind) < 0:
        raise InputError("the parameter 'timeout' must be a whole number of microseconds")
    return getattr(value, kind) * 1e-6 or None


def _sooner(a: float | None, b: float | None) -> float | None:
    return b if a is None else a if b is None else min(a, b)


def _write_statistics(out: Any, s: Any) -> None:
    out.last_inference, out.inference_count, out.execution_count = s.last_ms, s.rows, s.executions
    totals = out.inference_stats
    for field, count, ns in (
        (totals.success, s.success, s.success_ns),
        (totals.fail, s.fail, s.fail_ns),
        (totals.queue, s.success, s.queue_ns),
        (totals.compute_input, s.success, s.input_ns),
        (totals.compute_infer, s.success, s.infer_ns),
        (totals.compute_output, s.success, s.output_ns),
    ):
        field.count, field.ns = count, ns
    for rows, (count, ns) in sorted(list(s.batches.items())):
        batch = out.batch_stats.add(batch_size=rows)
        batch.compute_infer.count, batch.compute_infer.ns = count, ns
