"""Errors as clients see them: a status code, a fixed text with the caller's own names, and trailing metadata.

One table for gRPC and REST. What went wrong inside is logged under a correlation id and never sent.
"""

from __future__ import annotations

import logging
import secrets
from typing import NamedTuple

from ..errors import (
    BridgeTimeoutError,
    CancelledError,
    InferenceError,
    MlbridgeError,
    OverloadedError,
    StatusCode,
    UnavailableError,
    UnsupportedError,
)

__all__ = ["HTTP_STATUS", "Reply", "inside", "refusal"]

_LOG = logging.getLogger("mlbridge.server")
_MAX_TEXT = 2000  # UTF-8 bytes: percent-encoded it still fits into the 8 KiB of metadata that clients accept

HTTP_STATUS = {
    StatusCode.OK: 200,
    StatusCode.INVALID_ARGUMENT: 400,
    StatusCode.UNAUTHENTICATED: 401,
    StatusCode.PERMISSION_DENIED: 403,
    StatusCode.NOT_FOUND: 404,
    StatusCode.RESOURCE_EXHAUSTED: 429,
    StatusCode.CANCELLED: 499,
    StatusCode.INTERNAL: 500,
    StatusCode.UNIMPLEMENTED: 501,
    StatusCode.UNAVAILABLE: 503,
    StatusCode.DEADLINE_EXCEEDED: 504,
}

_INSIDE = (  # what may cross the wire of a failure inside a model, by its class; everything else is INTERNAL
    (BridgeTimeoutError, StatusCode.DEADLINE_EXCEEDED, "the deadline passed"),
    (CancelledError, StatusCode.CANCELLED, "the call was cancelled"),
    (OverloadedError, StatusCode.RESOURCE_EXHAUSTED, "the model is overloaded; try again later"),
    (UnsupportedError, StatusCode.UNIMPLEMENTED, "the model does not support this request"),
    (ConnectionError, StatusCode.UNAVAILABLE, "the model's worker failed; try again"),
    (UnavailableError, StatusCode.UNAVAILABLE, "the model is not available"),
)


class Reply(NamedTuple):
    """What a failed call answers."""

    code: StatusCode
    text: str
    error: str  # class name, for the trailing metadata `mlbridge-error`
    correlation: str | None = None
    pushback_ms: int | None = None

    def metadata(self) -> tuple[tuple[str, str], ...]:
        """Return the trailing metadata."""
        out = [("mlbridge-error", self.error)]
        if self.correlation:
            out.append(("mlbridge-correlation-id", self.correlation))
        if self.pushback_ms is not None:
            out.append(("grpc-retry-pushback-ms", str(self.pushback_ms)))
        return tuple(out)


def refusal(exc: MlbridgeError, *, pushback_ms: int | None = None) -> Reply:
    """Reply to an error raised at the boundary, about the caller's own request: its text is for the caller."""
    return Reply(exc.code, _cut(str(exc)), type(exc).__name__, None, pushback_ms if exc.code is StatusCode.RESOURCE_EXHAUSTED else None)


def inside(exc: BaseException, model: str, version: str, *, pushback_ms: int | None = None) -> Reply:
    """Reply to a failure while the model ran: by place, whatever class the engine raised.

    The cause goes to the log with the correlation id that the client gets.
    """
    for kind, code, text in _INSIDE:
        if isinstance(exc, kind):
            if code in (StatusCode.UNAVAILABLE, StatusCode.UNIMPLEMENTED):
                break
            return Reply(code, text, kind.__name__, None, pushback_ms if code is StatusCode.RESOURCE_EXHAUSTED else None)
    else:
        code, text = StatusCode.INTERNAL, "the model failed"
    correlation = secrets.token_hex(8)
    _LOG.error("model failed", exc_info=exc, extra={"model": model, "version": version, "correlation_id": correlation})
    known = isinstance(exc, MlbridgeError) and code is not StatusCode.INTERNAL
    name = type(exc).__name__ if known else InferenceError.__name__
    return Reply(code, f"{text} (correlation id {correlation})", name, correlation)


def _cut(text: str) -> str:
    octets = text.encode()
    return text if len(octets) <= _MAX_TEXT else octets[:_MAX_TEXT].decode(errors="ignore") + " …"
