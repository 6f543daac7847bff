"""What is seen of a server from outside: metrics, traces, structured logs, Describe."""

from __future__ import annotations

import json
import logging
import urllib.request

import grpc
import numpy as np
import psutil
import pytest
from prometheus_client.parser import text_string_to_metric_families
from served_models import Doubler, doubler, rows
from test_server_faults import Line, message

import mlbridge as mb
from mlbridge.model import Model
from mlbridge.runtimes import wire
from mlbridge.server.logs import JsonFormatter
from mlbridge.server.service import Service
from mlbridge.server.tracing import Tracer


@pytest.fixture
def served():
    model, session = doubler(poison=666.0)
    with mb.serve({"double": model}, grpc="127.0.0.1:0", http="127.0.0.1:0") as server, Line(server) as line:
        yield server, line, session
    model.close()


def _metrics(server):
    with urllib.request.urlopen(f"http://{server.addresses['http']}/metrics", timeout=30) as answer:
        families = text_string_to_metric_families(answer.read().decode())
        return {(s.name, *sorted(s.labels.values())): s.value for f in families for s in f.samples}


def test_metrics_count_requests_rows_calls_and_codes(served):
    server, line, _ = served
    for n in (1, 4):
        line.ask(rows(n))
    line.code(message(np.full((1, 3), 666.0)).SerializeToString())
    line.code(message(rows(1)[:, :2]).SerializeToString())
    line.code(message(rows(1), name="nothing").SerializeToString())
    seen = _metrics(server)
    assert seen["mlbridge_requests_total", "1", "OK", "double"] == 2
    assert seen["mlbridge_requests_total", "1", "INTERNAL", "double"] == 1
    assert seen["mlbridge_requests_total", "1", "INVALID_ARGUMENT", "double"] == 1
    assert seen["mlbridge_rejected_total", "NOT_FOUND"] == 1
    assert seen["mlbridge_rows_total", "1", "double"] == 5
    assert seen["mlbridge_executions_total", "1", "double"] == 2
    assert seen["mlbridge_batch_rows_count", "1", "double"] == 2
    assert seen["mlbridge_batch_rows_bucket", "1", "1", "double"] == 1
    assert seen["mlbridge_request_seconds_count", "1", "double"] == 2
    assert seen["mlbridge_memory_bytes",] > 1e6
    assert seen["mlbridge_ready",] == 1


def test_memory_is_told_by_model_and_version(tmp_path):
    """A table of 64 MB that is opened shows in its own figure and in nobody else's; a worker shows what its process holds."""
    from onnx import TensorProto, helper
    from served_models import _graph, simple

    from mlbridge.artifact import open_artifact
    from mlbridge.runtimes.python import PythonRuntime

    table = np.random.default_rng(0).normal(size=(8_000_000,))
    table = helper.make_tensor("table", TensorProto.DOUBLE, table.shape, table.tobytes(), raw=True)
    nodes = [helper.make_node("Constant", [], ["t"], value=table), helper.make_node("Gather", ["t", "at"], ["y"])]
    large, small = tmp_path / "large.onnx", tmp_path / "small.onnx"
    large.write_bytes(_graph(nodes, [("at", TensorProto.INT64, ["N"])], [("y", TensorProto.DOUBLE, ["N"])]).SerializeToString())
    small.write_bytes(simple())
    (tmp_path / "m.py").write_text("def run(feeds):\n    return {'y': feeds['x'] * 2}\n")
    session = PythonRuntime().load(open_artifact(tmp_path / "m.py"), signature=Doubler().signature, way="worker")
    model, _ = doubler()
    models = {"small": {"1": small, "2": large}, "worker": Model(session, name="worker"), "given": model}
    with mb.serve(models, grpc="127.0.0.1:0", http="127.0.0.1:0") as server, Line(server) as line:
        seen = _metrics(server)
        ask = line.channel.unary_unary("/inference.GRPCInferenceService/ModelStatistics")
        told = wire.inference_pb2.ModelStatisticsResponse.FromString(ask(b"")).model_stats
        held = sum(psutil.Process(p).memory_info().rss for p in session.pool.pids)
    family = "mlbridge_model_memory_bytes"
    assert seen[family, "2", "small"] >= 64e6
    assert seen[family, "1", "small"] < 64e6
    assert seen[family, "1", "worker"] == pytest.approx(held, rel=0.1)
    assert not any(k[0] == family and "given" in k for k in seen)
    assert {(s.name, s.version): [m.type for m in s.memory_usage] for s in told} == {
        ("given", "1"): [],
        ("small", "1"): ["CPU"],
        ("small", "2"): ["CPU"],
        ("worker", "1"): ["CPU"],
    }
    models["worker"].close()
    model.close()


def test_describe_tells_the_signature(served):
    server, line, _ = served
    describe = line.channel.unary_unary("/mlbridge.v1.Bridge/Describe")
    request = wire.mlbridge_pb2.DescribeRequest(name="double").SerializeToString()
    answer = wire.mlbridge_pb2.DescribeResponse.FromString(describe(request, timeout=30))
    assert mb.Signature.from_json(answer.signature) == server._repository.served()[0].model.signature
    assert (answer.version, answer.device) == ("1", "cpu")


def test_a_span_continues_the_callers_trace(served, monkeypatch):
    trace = pytest.importorskip("opentelemetry.sdk.trace", reason="opentelemetry-sdk is not installed")
    from opentelemetry import trace as api
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    server, line, _ = served
    provider, exporter = trace.TracerProvider(), InMemorySpanExporter()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    service: Service = server._service
    monkeypatch.setattr(service, "_tracer", Tracer(api, provider.get_tracer("test"), TraceContextTextMapPropagator()))
    parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    line.raw(message(rows(1)).SerializeToString(), timeout=30, metadata=(("traceparent", parent),))
    line.code(message(np.full((1, 3), 666.0)).SerializeToString())
    good, bad = exporter.get_finished_spans()
    assert f"{good.context.trace_id:032x}" == parent.split("-")[1]
    assert good.attributes["mlbridge.model"] == "double"
    assert not bad.status.is_ok


def test_without_a_provider_nothing_is_traced():
    assert Tracer.found() is None


def test_logs_are_json_with_the_correlation_id():
    record = logging.makeLogRecord(
        {"msg": "model failed", "levelname": "ERROR", "name": "mlbridge.server", "correlation_id": "abc", "model": "m"}
    )
    line = json.loads(JsonFormatter().format(record))
    assert (line["message"], line["correlation_id"], line["model"], line["level"]) == ("model failed", "abc", "m", "ERROR")


def test_the_async_form_of_the_context_manager_and_predict_async():
    import asyncio

    model, _ = doubler()

    async def main():
        async with mb.serve({"double": model}, grpc="127.0.0.1:0") as server:
            with await asyncio.to_thread(mb.load, f"grpc://{server.addresses['grpc']}/double") as remote:
                answers = await asyncio.gather(*[remote.predict_async({"x": rows(2, seed=i)}) for i in range(10)])
        return answers

    for i, answer in enumerate(asyncio.run(main())):
        np.testing.assert_array_equal(answer["y"], rows(2, seed=i) * 2)
    model.close()


def test_an_unknown_call_is_unimplemented(served):
    _, line, _ = served
    with pytest.raises(grpc.RpcError) as caught:
        line.channel.unary_unary("/inference.GRPCInferenceService/SystemSharedMemoryRegister")(b"", timeout=30)
    assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED
