"""OpenTelemetry spans, where the API is installed and somebody set up a provider; nothing else pays for it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

__all__ = ["Tracer"]


class Tracer:
    """Makes one server span per request, as child of the caller's `traceparent`."""

    def __init__(self, api: Any, tracer: Any, propagator: Any) -> None:
        self._api, self._tracer, self._propagator = api, tracer, propagator

    @classmethod
    def found(cls) -> Tracer | None:
        """Return a tracer if a real provider is set up in this process."""
        try:
            from opentelemetry import trace
            from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
        except ImportError:
            return None
        provider = trace.get_tracer_provider()
        if type(provider).__module__.startswith("opentelemetry.trace"):  # the API's own stand-in: nobody listens
            return None
        return cls(trace, trace.get_tracer("mlbridge.server"), TraceContextTextMapPropagator())

    @contextmanager
    def span(self, model: str, version: str, caller: Any) -> Iterator[None]:
        """Span one request; a failure marks it."""
        carrier = {n: v for n in ("traceparent", "tracestate") if (v := caller.header(n))}
        attributes = {"mlbridge.model": model, "mlbridge.version": version}
        with self._tracer.start_as_current_span(
            "mlbridge.infer", context=self._propagator.extract(carrier), kind=self._api.SpanKind.SERVER, attributes=attributes
        ):
            yield
