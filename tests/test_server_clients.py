"""Stock clients against the server, unmodified: gRPC and HTTP, sync, async and streaming, raw and typed, text."""

from __future__ import annotations

import asyncio
import json
import queue
import urllib.error
import urllib.request

import grpc
import numpy as np
import pytest
import tritonclient.grpc as tg
import tritonclient.grpc.aio as tg_aio
import tritonclient.http as th
import tritonclient.http.aio as th_aio
from google.protobuf import descriptor_pb2, descriptor_pool, json_format, message_factory
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from served_models import simple, simple_identity, simple_string
from tritonclient.grpc import service_pb2, service_pb2_grpc
from tritonclient.utils import InferenceServerException

import mlbridge as mb

A = np.arange(16, dtype=np.int32)[None]
B = np.full((1, 16), 3, np.int32)


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    paths = {}
    for make in (simple, simple_string, simple_identity):
        path = folder / f"{make.__name__}.onnx"
        path.write_bytes(make())
        paths[make.__name__] = path
    with mb.serve(paths, grpc="127.0.0.1:0", http="127.0.0.1:0", operator="127.0.0.1:0") as running:
        yield running


@pytest.fixture(params=["grpc", "http"])
def client(server, request):
    lib = {"grpc": tg, "http": th}[request.param]
    with lib.InferenceServerClient(server.addresses[request.param]) as c:
        yield lib, c


def feed(lib, name, array, datatype, **keywords):
    tensor = lib.InferInput(name, list(array.shape), datatype)
    tensor.set_data_from_numpy(array, **keywords)
    return tensor


def two(lib, **keywords):
    return [feed(lib, "INPUT0", A, "INT32", **keywords), feed(lib, "INPUT1", B, "INT32", **keywords)]


def test_health_and_metadata(client):
    _, c = client
    assert c.is_server_live()
    assert c.is_server_ready()
    assert c.is_model_ready("simple")
    assert c.is_model_ready("simple", "1")
    assert not c.is_model_ready("simple", "2")
    assert not c.is_model_ready("nothing")


def test_grpc_metadata_lists_the_signature(server):
    with tg.InferenceServerClient(server.addresses["grpc"]) as c:
        about = c.get_model_metadata("simple")
        assert [(t.name, t.datatype, list(t.shape)) for t in about.inputs] == [("INPUT0", "INT32", [-1, 16]), ("INPUT1", "INT32", [-1, 16])]
        assert list(about.versions) == ["1"]
        assert c.get_server_metadata().name == "mlbridge"
        assert len(c.get_model_config("simple").config.input) == 2


def test_http_metadata_lists_the_signature(server):
    with th.InferenceServerClient(server.addresses["http"]) as c:
        about = c.get_model_metadata("simple")
        assert about["inputs"][0] == {"name": "INPUT0", "datatype": "INT32", "shape": [-1, 16]}
        assert c.get_server_metadata()["name"] == "mlbridge"
        assert c.get_model_config("simple")["input"][0]["data_type"] == "TYPE_INT32"


def test_sum_and_difference(client):
    lib, c = client
    outputs = [lib.InferRequestedOutput("OUTPUT1"), lib.InferRequestedOutput("OUTPUT0")]
    result = c.infer("simple", two(lib), outputs=outputs, request_id="my id")
    np.testing.assert_array_equal(result.as_numpy("OUTPUT0"), A + B)
    np.testing.assert_array_equal(result.as_numpy("OUTPUT1"), A - B)
    answer = result.get_response()
    names = [o["name"] for o in answer["outputs"]] if isinstance(answer, dict) else [o.name for o in answer.outputs]
    assert names == ["OUTPUT1", "OUTPUT0"]
    assert (answer["id"] if isinstance(answer, dict) else answer.id) == "my id"


@pytest.mark.parametrize("binary_in", [True, False])
@pytest.mark.parametrize("binary_out", [True, False])
@pytest.mark.parametrize("compression", [None, "gzip", "deflate"])
def test_http_with_and_without_the_binary_extension(server, binary_in, binary_out, compression):
    with th.InferenceServerClient(server.addresses["http"]) as c:
        outputs = [th.InferRequestedOutput(n, binary_data=binary_out) for n in ("OUTPUT0", "OUTPUT1")]
        keywords = {"request_compression_algorithm": compression, "response_compression_algorithm": compression}
        result = c.infer("simple", two(th, binary_data=binary_in), outputs=outputs, **keywords)
        np.testing.assert_array_equal(result.as_numpy("OUTPUT0"), A + B)


def test_text_goes_in_and_comes_out(client):
    lib, c = client
    a = np.array([[str(v).encode() for v in A[0]]], object)
    b = np.array([[str(v).encode() for v in B[0]]], object)
    result = c.infer("simple_string", [feed(lib, "INPUT0", a, "BYTES"), feed(lib, "INPUT1", b, "BYTES")])
    np.testing.assert_array_equal(result.as_numpy("OUTPUT0").astype(np.int64), A + B)
    np.testing.assert_array_equal(result.as_numpy("OUTPUT1").astype(np.int64), A - B)


def test_identity_keeps_every_text(client):
    lib, c = client
    texts = ["", "a", "é", "日本語", "x" * 1000, "tab\t", '"', "\\"] * 2
    array = np.array([[t.encode() for t in texts]], object)
    got = c.infer("simple_identity", [feed(lib, "INPUT0", array, "BYTES")]).as_numpy("OUTPUT0")
    assert [v.decode() if isinstance(v, bytes) else v for v in got[0]] == texts


def test_text_through_plain_json(server):
    with th.InferenceServerClient(server.addresses["http"]) as c:
        array = np.array([["é", ""] * 8], object)
        outputs = [th.InferRequestedOutput("OUTPUT0", binary_data=False)]
        got = c.infer("simple_identity", [feed(th, "INPUT0", array, "BYTES", binary_data=False)], outputs=outputs).as_numpy("OUTPUT0")
        assert got.tolist() == array.tolist()


def test_asynchronous_calls(server):
    with tg.InferenceServerClient(server.addresses["grpc"]) as c:
        answers: queue.Queue = queue.Queue()
        for _ in range(8):
            c.async_infer("simple", two(tg), callback=lambda result, error: answers.put((result, error)))
        for _ in range(8):
            result, error = answers.get(timeout=30)
            assert error is None
            np.testing.assert_array_equal(result.as_numpy("OUTPUT0"), A + B)
    with th.InferenceServerClient(server.addresses["http"], concurrency=4) as c:
        for pending in [c.async_infer("simple", two(th)) for _ in range(8)]:
            np.testing.assert_array_equal(pending.get_result().as_numpy("OUTPUT1"), A - B)


def test_asyncio_clients(server):
    async def ask(lib, aio, kind):
        async with aio.InferenceServerClient(server.addresses[kind]) as c:
            assert await c.is_server_ready()
            results = await asyncio.gather(*[c.infer("simple", two(lib)) for _ in range(5)])
        for result in results:
            np.testing.assert_array_equal(result.as_numpy("OUTPUT0"), A + B)

    asyncio.run(ask(tg, tg_aio, "grpc"))
    asyncio.run(ask(th, th_aio, "http"))


def test_a_stream_answers_in_order_and_outlives_a_failure(server):
    with tg.InferenceServerClient(server.addresses["grpc"]) as c:
        answers: queue.Queue = queue.Queue()
        c.start_stream(callback=lambda result, error: answers.put((result, error)))
        c.async_stream_infer("simple", two(tg), request_id="1", enable_empty_final_response=True)
        c.async_stream_infer("nothing", two(tg), request_id="2")
        c.async_stream_infer("simple", two(tg), request_id="3")
        first, failure, last = (answers.get(timeout=30) for _ in range(3))
        c.stop_stream()
    assert first[0].get_response().id == "1"
    assert first[0].get_response().parameters["triton_final_response"].bool_param
    assert "no model" in str(failure[1])
    assert last[0].get_response().id == "3"
    np.testing.assert_array_equal(last[0].as_numpy("OUTPUT0"), A + B)


def test_a_stream_that_asks_for_it_closes_with_a_status(server):
    channel = grpc.insecure_channel(server.addresses["grpc"])
    stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
    request = service_pb2.ModelInferRequest(model_name="nothing")
    with pytest.raises(grpc.RpcError) as caught:
        list(stub.ModelStreamInfer(iter([request]), metadata=(("triton_grpc_error", "true"),), timeout=30))
    assert caught.value.code() is grpc.StatusCode.NOT_FOUND
    channel.close()


def test_explicit_typed_contents_are_answered_typed_and_raw_ones_raw(server):
    channel = grpc.insecure_channel(server.addresses["grpc"])
    stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
    request = service_pb2.ModelInferRequest(model_name="simple")
    for name, array in (("INPUT0", A), ("INPUT1", B)):
        tensor = request.inputs.add(name=name, datatype="INT32", shape=[1, 16])
        tensor.contents.int_contents.extend(array[0].tolist())
    answer = stub.ModelInfer(request, timeout=30)
    assert list(answer.outputs[0].contents.int_contents) == (A + B)[0].tolist()
    assert not answer.raw_output_contents
    channel.close()


def test_always_raw_answers_a_typed_request_raw(tmp_path):
    path = tmp_path / "simple.onnx"
    path.write_bytes(simple())
    with mb.serve({"simple": path}, grpc="127.0.0.1:0", always_raw=True) as s, grpc.insecure_channel(s.addresses["grpc"]) as channel:
        request = service_pb2.ModelInferRequest(model_name="simple")
        for name, array in (("INPUT0", A), ("INPUT1", B)):
            request.inputs.add(name=name, datatype="INT32", shape=[1, 16]).contents.int_contents.extend(array[0].tolist())
        answer = tg.InferResult(service_pb2_grpc.GRPCInferenceServiceStub(channel).ModelInfer(request, timeout=30))
        np.testing.assert_array_equal(answer.as_numpy("OUTPUT0"), A + B)


def test_statistics_count_what_happened(client):
    lib, c = client
    before = c.get_inference_statistics("simple")
    c.infer("simple", two(lib))
    with pytest.raises(InferenceServerException):
        c.infer("simple", [feed(lib, "INPUT0", A, "INT32")])
    after = c.get_inference_statistics("simple")

    def counts(s):
        m = s["model_stats"][0] if isinstance(s, dict) else s.model_stats[0]
        t = m["inference_stats"] if isinstance(m, dict) else m.inference_stats
        return (int(t["success"]["count"]), int(t["fail"]["count"])) if isinstance(t, dict) else (t.success.count, t.fail.count)

    assert [a - b for a, b in zip(counts(after), counts(before))] == [1, 1]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda lib: [feed(lib, "INPUT0", A, "INT32")], "INPUT1"),
        (lambda lib: [*two(lib), feed(lib, "INPUT2", A, "INT32")], "INPUT2"),
        (lambda lib: [*two(lib), feed(lib, "INPUT0", A, "INT32")], "twice"),
        (lambda lib: [feed(lib, "INPUT0", A[:, :8], "INT32"), feed(lib, "INPUT1", B, "INT32")], "shape"),
        (lambda lib: [feed(lib, "INPUT0", A.astype(np.float32) + 0.5, "FP32"), feed(lib, "INPUT1", B, "INT32")], "INPUT0"),
        (lambda lib: [feed(lib, "INPUT0", np.vstack([A, A]), "INT32"), feed(lib, "INPUT1", B, "INT32")], "INPUT1"),
    ],
    ids=["too few", "unknown", "twice", "shape", "dtype", "rows"],
)
def test_a_bad_request_is_refused_by_name(client, change, says):
    lib, c = client
    with pytest.raises(InferenceServerException, match=says):
        c.infer("simple", change(lib))


def test_outputs_unknown_or_asked_for_twice_are_refused(client):
    lib, c = client
    with pytest.raises(InferenceServerException, match="OUTPUT9"):
        c.infer("simple", two(lib), outputs=[lib.InferRequestedOutput("OUTPUT9")])
    with pytest.raises(InferenceServerException, match="twice"):
        c.infer("simple", two(lib), outputs=[lib.InferRequestedOutput("OUTPUT0")] * 2)


def test_unknown_models_and_versions_are_not_found(server):
    with tg.InferenceServerClient(server.addresses["grpc"]) as c:
        for name, version in (("nothing", ""), ("simple", "7"), ("x" * 5000, "")):
            with pytest.raises(InferenceServerException) as caught:
                c.infer(name, two(tg), model_version=version)
            assert "NOT_FOUND" in caught.value.status()


def test_repository_calls_are_denied_here_and_work_for_the_operator(server):
    with tg.InferenceServerClient(server.addresses["grpc"]) as c:
        for call in (c.get_model_repository_index, lambda: c.load_model("simple"), lambda: c.unload_model("simple")):
            with pytest.raises(InferenceServerException, match="not offered here"):
                call()
    with tg.InferenceServerClient(server.addresses["operator"]) as c:
        c.unload_model("simple_identity")
        states = {m.name: m.state for m in c.get_model_repository_index().models}
        assert states == {"simple": "READY", "simple_string": "READY", "simple_identity": "UNAVAILABLE"}
        assert not c.is_model_ready("simple_identity")
        assert not c.is_server_ready()
        c.load_model("simple_identity")
        assert c.is_model_ready("simple_identity")
        with pytest.raises(InferenceServerException, match="no parameters"):
            c.load_model("simple", config="{}")


def test_health_service_answers_check_and_watch(server):
    with grpc.insecure_channel(server.addresses["grpc"]) as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        for name in ("", "inference.GRPCInferenceService"):
            assert stub.Check(health_pb2.HealthCheckRequest(service=name), timeout=30).status == health_pb2.HealthCheckResponse.SERVING
        watch = stub.Watch(health_pb2.HealthCheckRequest(service=""), timeout=30)
        assert next(iter(watch)).status == health_pb2.HealthCheckResponse.SERVING
        watch.cancel()


def test_reflection_tells_services_and_their_files(server):
    with grpc.insecure_channel(server.addresses["grpc"]) as channel:
        stub = reflection_pb2_grpc.ServerReflectionStub(channel)
        ask = reflection_pb2.ServerReflectionRequest
        requests = [
            ask(list_services=""),
            *(ask(file_containing_symbol=n) for n in ("inference.GRPCInferenceService", "grpc.health.v1.Health")),
        ]
        listed, *files = stub.ServerReflectionInfo(iter(requests), timeout=30)
    names = {s.name for s in listed.list_services_response.service}
    assert {"inference.GRPCInferenceService", "mlbridge.v1.Bridge", "grpc.health.v1.Health"} <= names
    assert all(f.file_descriptor_response.file_descriptor_proto for f in files)


class Walker:
    """A client that knows no message of the server but reflection's own, as grpcurl: list, describe, call."""

    def __init__(self, channel, version):
        self.channel, self.pool, self._seen = channel, descriptor_pool.DescriptorPool(), set()
        self._ask = channel.stream_stream(
            f"/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo",
            request_serializer=reflection_pb2.ServerReflectionRequest.SerializeToString,
            response_deserializer=reflection_pb2.ServerReflectionResponse.FromString,
        )

    def _one(self, **question):
        (answer,) = self._ask(iter([reflection_pb2.ServerReflectionRequest(**question)]), timeout=30)
        assert not answer.HasField("error_response"), answer
        return answer

    def services(self):
        return [s.name for s in self._one(list_services="").list_services_response.service]

    def describe(self, name):
        self._learn(self._one(file_containing_symbol=name))
        return self.pool.FindServiceByName(name)

    def _learn(self, answer):
        for data in answer.file_descriptor_response.file_descriptor_proto:
            file = descriptor_pb2.FileDescriptorProto.FromString(data)
            if file.name in self._seen:
                continue
            self._seen.add(file.name)
            for other in file.dependency:
                self._learn(self._one(file_by_filename=other))
            self.pool.AddSerializedFile(data)

    def call(self, service, method, text="{}"):
        found = self.describe(service).FindMethodByName(method)
        question = json_format.Parse(text, message_factory.GetMessageClass(found.input_type)(), descriptor_pool=self.pool)
        raw = self.channel.unary_unary(f"/{service}/{method}")(question.SerializeToString(), timeout=30)
        answer = message_factory.GetMessageClass(found.output_type).FromString(raw)
        return json_format.MessageToDict(answer, preserving_proto_field_name=True, descriptor_pool=self.pool)


@pytest.mark.parametrize("version", ["v1", "v1alpha"])
def test_a_client_that_knows_reflection_alone_lists_describes_and_calls(server, version):
    with grpc.insecure_channel(server.addresses["grpc"]) as channel:
        walker = Walker(channel, version)
        services = {n: sorted(m.name for m in walker.describe(n).methods) for n in walker.services()}
        oip = "inference.GRPCInferenceService"
        assert {"ModelInfer", "ModelMetadata", "ModelReady", "ServerLive", "ServerMetadata", "ServerReady"} <= set(services[oip])
        assert services["mlbridge.v1.Bridge"] == ["Describe"]
        assert services["grpc.health.v1.Health"]
        assert walker.call(oip, "ServerLive") == {"live": True}
        assert walker.call("grpc.health.v1.Health", "Check") == {"status": "SERVING"}
        about = walker.call(oip, "ModelMetadata", '{"name": "simple"}')
        assert [(t["name"], t["datatype"], t["shape"]) for t in about["inputs"]] == [
            (n, "INT32", ["-1", "16"]) for n in ("INPUT0", "INPUT1")
        ]
        assert "INPUT0" in walker.call("mlbridge.v1.Bridge", "Describe", '{"name": "simple"}')["signature"]
        tensors = [
            {"name": n, "datatype": "INT32", "shape": [1, 16], "contents": {"int_contents": a.ravel().tolist()}}
            for n, a in (("INPUT0", A), ("INPUT1", B))
        ]
        answer = walker.call(oip, "ModelInfer", json.dumps({"model_name": "simple", "inputs": tensors}))
    got = {o["name"]: o["contents"]["int_contents"] for o in answer["outputs"]}
    assert got == {"OUTPUT0": (A + B).ravel().tolist(), "OUTPUT1": (A - B).ravel().tolist()}


# ---------------------------------------------------------------- REST by hand


def rest(server, path, body=None, headers=None):
    request = urllib.request.Request(f"http://{server.addresses['http']}{path}", data=body, headers=headers or {})
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as exc:
        with exc:
            return exc.code, exc.read()


def simple_json(**changes):
    inputs = [{"name": n, "datatype": "INT32", "shape": [1, 16], "data": a.tolist()} for n, a in (("INPUT0", A), ("INPUT1", B))]
    return json.dumps({"inputs": inputs} | changes).encode()


def test_rest_paths_and_statuses(server):
    assert rest(server, "/v2/health/live")[0] == 200
    assert rest(server, "/v2/models/simple/ready")[0] == 200
    assert rest(server, "/v2/models/nothing/ready")[0] == 400
    assert rest(server, "/v2/models/nothing")[0] == 404
    assert rest(server, "/v2/models/simple/versions/1")[0] == 200
    assert rest(server, "/v2/models/simple/versions/9/infer", simple_json())[0] == 404
    assert b"mlbridge_requests_total" in rest(server, "/metrics")[1]
    status, body = rest(server, "/v2/nothing")[:2]
    assert (status, json.loads(body)) == (404, {"error": "there is nothing at '/v2/nothing'"})
    assert rest(server, "/v2", b"{}")[0] == 405


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b"[" * 100_000,
        b'{"inputs": 3}',
        b'{"inputs": [1]}',
        simple_json(inputs=[]),
        simple_json(inputs=[{"name": "INPUT0", "datatype": "INT32", "shape": [1, 16], "data": [1.5] * 16}]),
        simple_json(inputs=[{"name": "INPUT0", "datatype": "INT32", "shape": [1, 16], "data": [2**40] * 16}]),
        simple_json(inputs=[{"name": "INPUT0", "datatype": "INT32", "shape": [1, 1 << 61], "data": []}]),
        simple_json(outputs=[{"name": "nothing"}]),
        simple_json(id=7),
        b'{"inputs": [{"name": "INPUT0", "datatype": "FP32", "shape": [1], "data": [NaN]}]}',
        "\ud800".encode("utf-16-le", "surrogatepass"),
    ],
    ids=range(15),
)
def test_rest_refuses_bad_bodies_with_400_and_an_error_text(server, body):
    status, answer = rest(server, "/v2/models/simple/infer", body, {"Content-Type": "application/json"})
    assert status == 400
    assert set(json.loads(answer)) == {"error"}


@pytest.mark.parametrize("length", ["-1", "x", "99999", "0", "99999999999999"])
def test_rest_refuses_a_wrong_header_length(server, length):
    assert rest(server, "/v2/models/simple/infer", simple_json(), {"Inference-Header-Content-Length": length})[0] == 400
