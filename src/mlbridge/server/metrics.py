"""Prometheus metrics, read from the statistics when somebody scrapes: requests themselves pay nothing for them."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

from .memory import resident_bytes
from .repository import Served
from .service import Service

__all__ = ["render"]

_LABELS = ["model", "version"]


class _Collector:
    def __init__(self, service: Service) -> None:
        self._service = service

    def collect(self) -> Iterator[Any]:
        """Yield every metric family."""
        from prometheus_client import core

        served = self._service.repository.served()
        yield from self._counters(core, served)
        yield from self._histograms(core, served)
        depth = core.GaugeMetricFamily("mlbridge_queue_depth", "Requests that wait now.", labels=_LABELS)
        active = core.GaugeMetricFamily("mlbridge_active_calls", "Calls of the model that run now.", labels=_LABELS)
        memory = core.GaugeMetricFamily("mlbridge_model_memory_bytes", "Resident memory of the model, where known.", labels=_LABELS)
        for s in served:
            depth.add_metric([s.name, s.version], s.batcher.waiting)
            active.add_metric([s.name, s.version], s.batcher.active)
            if (size := s.memory_bytes()) is not None:
                memory.add_metric([s.name, s.version], size)
        yield depth
        yield active
        yield memory
        rejected = core.CounterMetricFamily("mlbridge_rejected", "Requests for models that are not served, by code.", labels=["code"])
        for code, n in list(self._service.rejected.items()):
            rejected.add_metric([code], n)
        yield rejected
        yield core.GaugeMetricFamily("mlbridge_running_requests", "Requests accepted and not yet answered.", value=self._service.running)
        ready = self._service.ready()
        yield core.GaugeMetricFamily("mlbridge_ready", "Whether every model answers.", value=float(ready))
        yield core.GaugeMetricFamily("mlbridge_memory_bytes", "Resident memory of the process.", value=float(resident_bytes()))
        yield core.GaugeMetricFamily("mlbridge_scrape_time_seconds", "When this was read.", value=time.time())

    def _counters(self, core: Any, served: list[Served]) -> Iterator[Any]:
        requests = core.CounterMetricFamily("mlbridge_requests", "Requests by status code.", labels=[*_LABELS, "code"])
        rows = core.CounterMetricFamily("mlbridge_rows", "Rows answered.", labels=_LABELS)
        parts = core.CounterMetricFamily("mlbridge_request_part_seconds", "Time of answered requests, by part.", labels=[*_LABELS, "part"])
        executed = core.CounterMetricFamily("mlbridge_executions", "Calls of the model.", labels=_LABELS)
        compute = core.CounterMetricFamily("mlbridge_execution_seconds", "Time in the model.", labels=_LABELS)
        for s in served:
            who, t = [s.name, s.version], s.statistics
            requests.add_metric([*who, "OK"], t.success)
            for code, n in list(t.codes.items()):
                requests.add_metric([*who, code], n)
            rows.add_metric(who, t.rows)
            executed.add_metric(who, t.executions)
            compute.add_metric(who, t.execution_ns * 1e-9)
            for part, ns in (("queue", t.queue_ns), ("input", t.input_ns), ("infer", t.infer_ns), ("output", t.output_ns)):
                parts.add_metric([*who, part], ns * 1e-9)
        yield from (requests, rows, parts, executed, compute)

    def _histograms(self, core: Any, served: list[Served]) -> Iterator[Any]:
        latency = core.HistogramMetricFamily("mlbridge_request_seconds", "Time of answered requests.", labels=_LABELS)
        batch = core.HistogramMetricFamily("mlbridge_batch_rows", "Rows of one call of the model.", labels=_LABELS)
        for s in served:
            who = [s.name, s.version]
            for family, (buckets, total) in ((latency, s.statistics.latency_buckets()), (batch, s.statistics.batch_buckets())):
                family.add_metric(who, buckets=buckets, sum_value=total)
        yield latency
        yield batch


def render(service: Service) -> tuple[bytes, str]:
    """Return the exposition text and its media type."""
    from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest

    registry = CollectorRegistry()
    registry.register(_Collector(service))  # type: ignore[arg-type]
    return generate_latest(registry), CONTENT_TYPE_LATEST
