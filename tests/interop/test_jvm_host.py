"""The JVM's server called from Python and by a stock client, and Python's server called from Java: bit by bit."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import grpc
import numpy as np
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from jvm_host import EXAMPLES, ONNXRUNTIME, Host, example

import mlbridge as mb
from mlbridge import errors
from mlbridge.artifact import open_artifact
from mlbridge.interfaces import Deadline
from mlbridge.runtimes import wire
from mlbridge.runtimes.grpc import GrpcRuntime
from mlbridge.runtimes.jvm import JvmRuntime
from mlbridge.runtimes.jvm.command import JAR

pytestmark = [
    pytest.mark.jvm,
    pytest.mark.skipif(shutil.which("java") is None, reason="Java is not installed"),
    pytest.mark.skipif(not (JAR.is_file() and EXAMPLES.is_file()), reason="the jars are not built: make jvm"),
]

pb = wire.inference_pb2
INFER = "/inference.GRPCInferenceService/ModelInfer"
OIP = {name: d.oip for name, d in wire.DTYPES.items() if name != "bfloat16"}
ROWS = [{"age": 30, "calls": 2.0, "plan": "pro"}, {"age": None, "calls": 0.5, "plan": "plus"}, {"age": 71.25, "calls": 9, "plan": "basic"}]


@pytest.fixture(scope="module")
def host(tmp_path_factory):
    models = {"churn": "Churn", "churn@7": "Churn", "text": "EchoText", "bad": "Misbehaving", "echo": "Echo"}
    models |= dict.fromkeys(OIP, "Echo")  # of one dtype each
    arguments = [f"{name}={example(cls)}" for name, cls in models.items()]
    for dtype in OIP:
        arguments += ["--option", f"echo.dtypes={dtype}", "--option", f"{dtype}.dtypes={dtype}"]
    with Host(tmp_path_factory.mktemp("host"), *arguments, "--max-queue", "4", "--default", "churn=1") as running:
        yield running


@pytest.fixture(scope="module")
def channel(host):
    with grpc.insecure_channel(host.address) as c:
        yield c


def every_dtype(rows, seed=0):
    """Every bit pattern may come, NaN payloads among them."""
    rng = np.random.default_rng(seed)
    feeds = {}
    for name in OIP:
        if name == "string":
            texts = np.array([["", "a", "größer"], ["日本語", None, "\U0001d11e"], ["x" * 300, '\t"\\', None]], object)
            feeds[name] = np.resize(texts, (rows, 3))
        elif name == "bool":
            feeds[name] = rng.integers(0, 2, (rows, 3)).astype(bool)
        else:
            dtype = np.dtype(name)
            feeds[name] = np.frombuffer(rng.bytes(rows * 3 * dtype.itemsize), dtype).reshape(rows, 3)
    return feeds


def assert_same_bits(got, want):
    assert got.dtype == want.dtype
    assert got.shape == want.shape
    assert got.tolist() == want.tolist() if want.dtype == object else got.tobytes() == want.tobytes()


def churn_request(**keywords):
    request = pb.ModelInferRequest(**{"model_name": "churn"} | keywords)
    for name, datatype, array in (("features", "FP64", np.array([[30.0, 2.0]])), ("categorical", "INT32", np.array([[2]], np.int32))):
        request.inputs.add(name=name, datatype=datatype, shape=array.shape)
        request.raw_input_contents.append(array.tobytes())
    return request


def column(request, name, datatype, raw, missing=None):
    tensor = request.inputs.add(name=name, datatype=datatype, shape=[1])
    request.raw_input_contents.append(raw)
    if missing is not None:
        tensor.parameters["missing"].string_param = missing


def text(*values):
    return wire.join_bytes(v.encode() for v in values)


def ask(channel, request):
    return pb.ModelInferResponse.FromString(channel.unary_unary(INFER)(request.SerializeToString(), timeout=30))


def failure(channel, request, timeout=30, **keywords):
    """Return what a call fails with; a request is a message or bytes."""
    data = request if isinstance(request, bytes) else request.SerializeToString()
    with pytest.raises(grpc.RpcError) as caught:
        channel.unary_unary(INFER)(data, timeout=timeout, **keywords)
    return caught.value


# ---------------------------------------------------------------- values


def test_a_served_class_answers_as_in_its_worker(host):
    with mb.load(example("Churn"), trust="code") as worker, mb.load(host.uri("churn")) as served:
        assert served.signature == worker.signature
        assert served.device == f"grpc://{host.address}"
        want, got = worker.predict(ROWS), served.predict(ROWS)
    assert_same_bits(got["probabilities"], want["probabilities"])
    assert list(got["label"]) == list(want["label"]) == ["leaves", "stays", "leaves"]


@pytest.mark.parametrize("rows", [0, 1, 5])
def test_every_dtype_comes_back_bit_by_bit(host, rows):
    feeds = every_dtype(rows)
    session = GrpcRuntime().load(f"{host.address}/echo")
    try:
        got = session.run(feeds)
    finally:
        session.close()
    for name, array in feeds.items():
        assert_same_bits(got[f"{name}_out"], array)


def test_eight_megabytes_come_back_bit_by_bit(host):
    array = np.random.default_rng(3).normal(size=(1 << 20, 1))
    with mb.load(host.uri("float64")) as model:
        assert_same_bits(model.run({"float64": array})["float64_out"], array)


@pytest.mark.parametrize("dtype", [d for d in OIP if d != "float16"])
def test_typed_requests_are_answered_typed(channel, dtype):
    array = every_dtype(4)[dtype]
    flat = np.array([b"" if v is None else v.encode() for v in array.ravel()], object) if dtype == "string" else array.ravel()
    request = pb.ModelInferRequest(model_name=dtype, id="é 1")
    tensor = request.inputs.add(name=dtype, datatype=OIP[dtype], shape=array.shape)
    wire.fill_contents(tensor.contents, OIP[dtype], flat)
    answer = ask(channel, request)
    assert (answer.id, answer.model_name, answer.model_version) == ("é 1", dtype, "1")
    assert not answer.raw_output_contents
    got = wire.contents_array(answer.outputs[0].contents, answer.outputs[0].datatype, answer.outputs[0].shape, "x")
    assert_same_bits(got, flat.reshape(array.shape))


def test_half_precision_has_no_typed_form(channel):
    request = pb.ModelInferRequest(model_name="float16")
    request.inputs.add(name="float16", datatype="FP16", shape=[0, 3]).contents.SetInParent()
    assert failure(channel, request).code() is grpc.StatusCode.INVALID_ARGUMENT


def test_columns_blocks_levels_and_codes_are_the_same(channel):
    want = ask(channel, churn_request())
    block = pb.ModelInferRequest(model_name="churn")
    block.inputs.add(name="features", datatype="FP32", shape=[1, 2])
    block.inputs.add(name="categorical", datatype="BYTES", shape=[1, 1])
    block.raw_input_contents.extend([np.array([30, 2], "f4").tobytes(), text("pro")])
    single = pb.ModelInferRequest(model_name="churn")
    column(single, "plan", "BYTES", text("pro"))
    column(single, "age", "INT8", bytes([30]))
    column(single, "calls", "FP16", np.array([2], "f2").tobytes())
    for request in (block, single):
        got = ask(channel, request)
        assert list(got.raw_output_contents) == list(want.raw_output_contents)
    assert [(o.name, o.datatype, list(o.shape)) for o in want.outputs] == [("label", "BYTES", [1]), ("probabilities", "FP64", [1, 2])]
    assert want.raw_output_contents[0] == text("leaves")


def test_missing_values_travel_as_a_parameter(channel, host):
    request = pb.ModelInferRequest(model_name="churn")
    column(request, "plan", "BYTES", text("plus"))
    column(request, "age", "INT64", bytes(8), missing="0")
    column(request, "calls", "FP64", np.array([0.5]).tobytes())
    got = np.frombuffer(ask(channel, request).raw_output_contents[1])
    with mb.load(host.uri("churn")) as model:
        np.testing.assert_array_equal(got, model.predict(ROWS[1:2])["probabilities"][0])
    request = pb.ModelInferRequest(model_name="text")
    tensor = request.inputs.add(name="text", datatype="BYTES", shape=[3, 1])
    tensor.parameters["missing"].string_param = "1"
    request.raw_input_contents.append(text("", "", "é"))
    answer = ask(channel, request)
    assert answer.outputs[0].parameters["missing"].string_param == "1"
    assert answer.raw_output_contents[0] == text("", "", "é")


def test_outputs_come_in_the_order_asked_and_as_codes_where_asked(channel):
    request = churn_request()
    request.outputs.add(name="probabilities")
    request.outputs.add(name="label").parameters["encoding"].string_param = "codes"
    answer = ask(channel, request)
    assert [(o.name, o.datatype) for o in answer.outputs] == [("probabilities", "FP64"), ("label", "INT32")]
    assert answer.raw_output_contents[1] == np.array([1], np.int32).tobytes()


# ---------------------------------------------------------------- what is refused


def wrong(change):
    request = churn_request()
    change(request)
    return request


REFUSED = {
    "raw and typed": lambda r: r.inputs[0].contents.fp64_contents.append(1.0),
    "a raw entry too many": lambda r: r.raw_input_contents.append(b""),
    "too few bytes": lambda r: r.raw_input_contents.__setitem__(0, b"1234567"),
    "a wrong shape": lambda r: r.inputs[0].shape.__setitem__(slice(None), [2, 1]),
    "a negative size": lambda r: r.inputs[0].shape.__setitem__(slice(None), [-1, 2]),
    "a wrong name": lambda r: setattr(r.inputs[0], "name", "feature"),
    "a name twice": lambda r: setattr(r.inputs[1], "name", "features"),
    "a wrong datatype": lambda r: setattr(r.inputs[0], "datatype", "BYTES"),
    "no datatype": lambda r: setattr(r.inputs[0], "datatype", "FP63"),
    "an unknown code": lambda r: r.raw_input_contents.__setitem__(1, np.array([3], "i4").tobytes()),
    "a missing code": lambda r: r.raw_input_contents.__setitem__(1, np.array([-1], "i4").tobytes()),
    "codes and missing": lambda r: r.inputs[1].parameters["missing"].MergeFrom(pb.InferParameter(string_param="0")),
    "a missing index beyond": lambda r: r.inputs[0].parameters["missing"].MergeFrom(pb.InferParameter(string_param="2")),
    "an unknown output": lambda r: r.outputs.add(name="score"),
    "an output twice": lambda r: [r.outputs.add(name="label"), r.outputs.add(name="label")],
    "codes of numbers": lambda r: (
        r.outputs.add(name="probabilities").parameters["encoding"].MergeFrom(pb.InferParameter(string_param="codes"))
    ),
    "a timeout that is no number": lambda r: r.parameters["timeout"].MergeFrom(pb.InferParameter(string_param="1")),
}


@pytest.mark.parametrize("change", REFUSED.values(), ids=REFUSED)
def test_a_request_that_does_not_fit_is_an_invalid_argument(channel, change):
    refused = failure(channel, wrong(change))
    assert refused.code() is grpc.StatusCode.INVALID_ARGUMENT, refused.details()
    assert dict(refused.trailing_metadata())["mlbridge-error"] == "InputError"


@pytest.mark.parametrize("name", ["shared_memory_region", "classification"])
def test_a_parameter_that_is_not_offered_is_unimplemented(channel, name):
    refused = failure(channel, wrong(lambda r: r.inputs[0].parameters[name].MergeFrom(pb.InferParameter(string_param="x"))))
    assert refused.code() is grpc.StatusCode.UNIMPLEMENTED
    assert dict(refused.trailing_metadata())["mlbridge-error"] == "UnsupportedError"


@pytest.mark.parametrize("data", [b"\xff", b"\x0a\xff", b"\x0a\x02\xff\xfe", b"\x3a\x05ab"])
def test_a_message_that_does_not_parse_is_an_invalid_argument(channel, data):
    assert failure(channel, data).code() is grpc.StatusCode.INVALID_ARGUMENT


def test_damaged_messages_never_find_a_hole(channel):
    """Whatever is damaged is answered or refused: never INTERNAL or UNKNOWN."""
    rng = np.random.default_rng(0)
    good, call, codes = churn_request(id="x").SerializeToString(), channel.unary_unary(INFER), Counter()
    for _ in range(1500):
        data = bytearray(good)
        for at in rng.integers(0, len(good), rng.integers(1, 4)):
            data[at] = rng.integers(0, 256)
        if rng.random() < 0.2:
            data = data[: rng.integers(0, len(data))]
        try:
            call(bytes(data), timeout=30)
            codes["OK"] += 1
        except grpc.RpcError as exc:
            codes[exc.code().name] += 1
    assert set(codes) <= {"OK", "INVALID_ARGUMENT", "NOT_FOUND", "UNIMPLEMENTED", "DEADLINE_EXCEEDED"}, codes
    assert codes["OK"] > 50
    assert codes["INVALID_ARGUMENT"] > 200


def test_all_problems_are_told_and_names_are_cut(host):
    with mb.load(host.uri("churn")) as model, pytest.raises(errors.InputError, match="gold"):
        model.predict({"age": 1.0, "calls": 1.0, "plan": "gold"})
    request = pb.ModelInferRequest(model_name="churn")
    for i in range(100):
        column(request, f"{i}" + "x" * 1000, "FP63", b"")
    with grpc.insecure_channel(host.address) as channel:
        refused = failure(channel, request)
    assert "more" in refused.details() or refused.details().endswith("…")
    assert len(refused.details().encode()) < 2100


@pytest.mark.parametrize(("name", "version"), [("nothing", ""), ("churn", "9"), ("churn", "x"), ("", ""), ("n" * 3000, "")])
def test_unknown_models_and_versions_are_not_found(channel, name, version):
    refused = failure(channel, churn_request(model_name=name, model_version=version))
    assert refused.code() is grpc.StatusCode.NOT_FOUND
    assert dict(refused.trailing_metadata())["mlbridge-error"] == "NotFoundError"


@pytest.mark.parametrize("what", ["throw", "error", "overflow", "missing class"])
def test_a_failure_inside_is_internal_and_tells_nothing(host, channel, what):
    request = pb.ModelInferRequest(model_name="bad")
    column(request, "what", "BYTES", text(what))
    failed = failure(channel, request)
    trailing = dict(failed.trailing_metadata())
    assert failed.code() is grpc.StatusCode.INTERNAL
    assert trailing["mlbridge-error"] == "InferenceError"
    assert failed.details() == f"the model failed (correlation id {trailing['mlbridge-correlation-id']})"
    log = host.log.read_text()
    assert trailing["mlbridge-correlation-id"] in log
    assert "Misbehaving" in log  # the trace is there


# ---------------------------------------------------------------- time and load


def test_a_deadline_ends_the_model_and_the_next_is_answered(host):
    session = GrpcRuntime().load(f"{host.address}/bad")
    for what in ("sleep", "patient loop"):
        with pytest.raises(errors.BridgeTimeoutError):
            session.run({"what": np.array([what], object)}, deadline=Deadline(0.3))
    assert session.run({"what": np.array(["fine"], object)})["y"] == 1.0
    session.close()


def test_the_timeout_parameter_is_a_deadline(channel):
    request = pb.ModelInferRequest(model_name="bad")
    request.parameters["timeout"].int64_param = 200_000
    column(request, "what", "BYTES", text("sleep"))
    late = failure(channel, request, timeout=250)
    assert late.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    assert dict(late.trailing_metadata())["mlbridge-error"] == "BridgeTimeoutError"  # the server's word, not the client's own clock


def test_a_full_queue_refuses_with_a_pushback_and_cancelled_calls_free_it(channel):
    sleeping = pb.ModelInferRequest(model_name="bad")
    column(sleeping, "what", "BYTES", text("sleep"))
    call = channel.unary_unary(INFER)
    waiting = [call.future(sleeping.SerializeToString(), timeout=60) for _ in range(5)]  # one runs, four wait
    request = pb.ModelInferRequest(model_name="bad")
    column(request, "what", "BYTES", text("fine"))
    refused, late = None, (grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.CANCELLED)  # the second where the server saw it first
    while refused is None or refused.code() in late:  # until all five have arrived
        refused = failure(channel, request, timeout=0.2)
    trailing = dict(refused.trailing_metadata())
    assert refused.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert trailing["mlbridge-error"] == "OverloadedError"
    assert 10 <= int(trailing["grpc-retry-pushback-ms"]) <= 10_000
    for one in waiting:
        one.cancel()
    assert np.frombuffer(ask_when_free(channel, request).raw_output_contents[0]) == [1.0]


def ask_when_free(channel, request):
    while True:
        try:
            return ask(channel, request)
        except grpc.RpcError as exc:
            assert exc.code() is grpc.StatusCode.RESOURCE_EXHAUSTED  # noqa: PT017 - the cancellations are on their way


def test_a_message_too_large_is_resource_exhausted(channel):
    request = pb.ModelInferRequest(model_name="float64")
    request.inputs.add(name="float64", datatype="FP64", shape=[3 << 20, 1])
    request.raw_input_contents.append(bytes(24 << 20))
    for compression in (grpc.Compression.NoCompression, grpc.Compression.Gzip):  # the second is small until it is unpacked
        refused = failure(channel, request, compression=compression)
        assert refused.code() is grpc.StatusCode.RESOURCE_EXHAUSTED, refused


def test_many_threads_get_their_own_answers(host):
    with mb.load(host.uri("float64")) as model, ThreadPoolExecutor(16) as pool:
        feeds = [np.full((1 + i % 7, 2), float(i)) for i in range(600)]
        for x, got in zip(feeds, pool.map(lambda x: model.run({"float64": x})["float64_out"], feeds)):
            assert_same_bits(got, x)


# ---------------------------------------------------------------- the protocol's other calls


def test_a_stock_client_asks_everything(host):
    tritonclient = pytest.importorskip("tritonclient.grpc")
    with tritonclient.InferenceServerClient(host.address) as c:
        assert c.is_server_live()
        assert c.is_server_ready()
        assert c.is_model_ready("churn")
        assert c.is_model_ready("churn", "7")
        assert not c.is_model_ready("churn", "2")
        assert not c.is_model_ready("nothing")
        assert c.get_server_metadata().name == "mlbridge"
        about = c.get_model_metadata("churn")
        assert list(about.versions) == ["1", "7"]
        assert about.platform == "mlbridge_jar"
        assert [(t.name, t.datatype, list(t.shape)) for t in about.inputs] == [
            ("features", "FP64", [-1, 2]),
            ("categorical", "BYTES", [-1, 1]),
        ]
        inputs = [tritonclient.InferInput("features", [1, 2], "FP64"), tritonclient.InferInput("categorical", [1, 1], "BYTES")]
        inputs[0].set_data_from_numpy(np.array([[30.0, 2.0]]))
        inputs[1].set_data_from_numpy(np.array([[b"pro"]], object))
        result = c.infer("churn", inputs, model_version="7", request_id="my id")
        assert result.as_numpy("label").tolist() == [b"leaves"]
        with mb.load(host.uri("churn")) as model:
            assert_same_bits(result.as_numpy("probabilities"), model.predict(ROWS[:1])["probabilities"])
        assert (result.get_response().id, result.get_response().model_version) == ("my id", "7")


def test_a_stock_client_streams(host):
    tritonclient = pytest.importorskip("tritonclient.grpc")
    answers, done = [], threading.Semaphore(0)

    def hear(result, error):
        answers.append(error or result.as_numpy("float64_out"))
        done.release()

    with tritonclient.InferenceServerClient(host.address) as c:
        c.start_stream(hear)
        for name, value in (("float64", 1.0), ("nothing", 2.0), ("float64", 3.0)):
            tensor = tritonclient.InferInput("float64", [1, 1], "FP64")
            tensor.set_data_from_numpy(np.array([[value]]))
            c.async_stream_infer(name, [tensor])
        for _ in range(3):
            assert done.acquire(timeout=30)
        c.stop_stream()
    assert (answers[0], answers[2]) == (1.0, 3.0)
    assert "nothing" in str(answers[1])


def test_health_and_reflection(host, channel):
    health = health_pb2_grpc.HealthStub(channel)
    for service in ("", "inference.GRPCInferenceService"):
        assert health.Check(health_pb2.HealthCheckRequest(service=service)).status == health_pb2.HealthCheckResponse.SERVING
    watch = health.Watch(health_pb2.HealthCheckRequest())
    assert next(watch).status == health_pb2.HealthCheckResponse.SERVING
    watch.cancel()
    ask = reflection_pb2.ServerReflectionRequest(list_services="")
    answer = next(reflection_pb2_grpc.ServerReflectionStub(channel).ServerReflectionInfo(iter([ask])))
    names = {s.name for s in answer.list_services_response.service}
    assert {"inference.GRPCInferenceService", "mlbridge.v1.Bridge", "grpc.health.v1.Health"} <= names
    ask = reflection_pb2.ServerReflectionRequest(file_containing_symbol="inference.GRPCInferenceService")
    answer = next(reflection_pb2_grpc.ServerReflectionStub(channel).ServerReflectionInfo(iter([ask])))
    assert answer.file_descriptor_response.file_descriptor_proto


def test_what_the_jvm_does_not_offer_is_unimplemented_by_name(channel):
    call = channel.unary_unary("/inference.GRPCInferenceService/RepositoryModelLoad")
    with pytest.raises(grpc.RpcError) as caught:
        call(b"", timeout=30)
    assert caught.value.code() is grpc.StatusCode.PERMISSION_DENIED


# ---------------------------------------------------------------- pipelines


def test_a_served_jvm_model_is_a_pipeline_stage(host):
    def worth(feeds):
        return {"worth": feeds["chance"][:, 1] * 100.0}

    signature = mb.Signature(
        [mb.TensorSpec("chance", "float64", ("rows", 2))], [mb.TensorSpec("worth", "float64", ("rows",), missing="allow")]
    )
    with mb.load(host.uri("churn")) as churn, mb.wrap(worth, signature=signature) as after:
        wiring = {"churn.features": "features", "churn.categorical": "categorical", "after.chance": "churn.probabilities"}
        with mb.Pipeline("value", stages={"churn": churn, "after": after}, wiring=wiring, outputs={"worth": "after.worth"}) as pipeline:
            got = pipeline.predict(ROWS)["worth"]
        np.testing.assert_array_equal(got, churn.predict(ROWS)["probabilities"][:, 1] * 100.0)


# ---------------------------------------------------------------- Java calls Python


def relay(uri, **parameters):
    """Open a Java session that opens a served model and hands on what it answers, in a process of its own."""
    given = {"uri": uri, "connect_timeout_s": "60"} | parameters
    return JvmRuntime().load(open_artifact(EXAMPLES), member="dev.mlbridge.examples.Relay", parameters=given, heap_mb=256)


@pytest.fixture(scope="module")
def python_server(tmp_path_factory):
    with (
        mb.load(example("Echo"), trust="code", options={"jvm": {"parameters": {"dtypes": list(OIP)}}}) as echo,
        mb.load(example("Churn"), trust="code") as churn,
        mb.serve({"echo": echo, "churn": {"1": churn, "3": churn}}, grpc="127.0.0.1:0", max_message_mib=1) as server,
    ):
        yield server.addresses["grpc"]


@pytest.mark.parametrize("rows", [0, 1, 5, 4000])
def test_java_sends_and_reads_every_dtype_bit_by_bit(python_server, rows):
    session = relay(f"grpc://{python_server}/echo")
    feeds = every_dtype(rows, seed=4)
    try:
        got = session.run(feeds)
    finally:
        session.close()
    for name, array in feeds.items():
        assert_same_bits(got[f"{name}_out"], array)


def test_java_knows_the_signature_and_the_errors_of_python(python_server):
    session = relay(f"grpc://{python_server}/churn@3")
    with mb.load(f"grpc://{python_server}/churn") as direct:
        assert session.signature == direct.signature
        feeds = {"features": np.array([[30.0, np.nan]]), "categorical": np.array([[2]], np.int32)}
        for name, array in direct.run(feeds).items():
            assert_same_bits(session.run(feeds)[name], array)
    with pytest.raises(errors.InputError, match="unknown level"):
        session.run({"features": np.zeros((1, 2)), "categorical": np.array([[3]], np.int32)})
    session.close()
    with pytest.raises(errors.NotFoundError, match="no model 'nothing'"):  # a constructor's typed error keeps its type
        relay(f"grpc://{python_server}/nothing")


def test_tls_and_token_between_python_and_the_jvm(certificates, tmp_path):
    arguments = [f"churn={example('Churn')}", "--tls-key", certificates["server.key"], "--tls-cert", certificates["server.pem"]]
    environment = os.environ | {"MLBRIDGE_TOKEN": "correct-horse"}
    right = {"token": "correct-horse", "root_certificates": certificates["ca.pem"]}
    with Host(tmp_path, *arguments, address="0.0.0.0:0", environment=environment) as host:
        uri = f"grpcs://localhost:{host.port}/churn"
        with mb.load(uri, options={"grpc": right}) as model:
            want = model.predict(ROWS)
        for token in ({}, {"token": "wrong-horse"}):
            with pytest.raises(errors.AccessError) as caught:
                mb.load(uri, options={"grpc": {"root_certificates": certificates["ca.pem"]} | token})
            assert caught.value.code is errors.StatusCode.UNAUTHENTICATED
        with pytest.raises(errors.BridgeError):
            mb.load(f"grpc://localhost:{host.port}/churn", options={"grpc": {"connect_timeout_s": 3.0}})
        session = relay(uri, **right)  # Java's client against Java's server
        feeds = {"features": np.array([[30.0, 2.0]]), "categorical": np.array([[2]], np.int32)}
        np.testing.assert_array_equal(session.run(feeds)["probabilities"], want["probabilities"][:1])
        session.close()


def test_mutual_tls_between_java_and_both_servers(certificates, tmp_path):
    arguments = [f"churn={example('Churn')}", "--tls-key", certificates["server.key"], "--tls-cert", certificates["server.pem"]]
    arguments += ["--tls-client-ca", certificates["ca.pem"]]
    identity = {"client_key": certificates["client.key"], "client_certificate": certificates["client.pem"]}
    roots = {"root_certificates": certificates["ca.pem"]}
    tls = {"key": certificates["server.key"], "certificate": certificates["server.pem"], "client_authority": certificates["ca.pem"]}
    with (
        Host(tmp_path, *arguments, address="0.0.0.0:0") as host,
        mb.load(example("Churn"), trust="code") as churn,
        mb.serve({"churn": churn}, grpc="0.0.0.0:0", tls=tls) as server,
    ):
        for port in (host.port, int(server.addresses["grpc"].rpartition(":")[2])):
            uri = f"grpcs://localhost:{port}/churn"
            relay(uri, **roots, **identity).close()
            with pytest.raises(errors.BridgeError):
                relay(uri, **roots)


# ---------------------------------------------------------------- other models


@pytest.mark.skipif(not ONNXRUNTIME, reason="onnxruntime's jar is not in Maven's cache: jvm-bindings/build.sh --test")
def test_an_onnx_package_is_served_by_the_jvm(tmp_path):
    sklearn = pytest.importorskip("sklearn.ensemble")
    rng = np.random.default_rng(0)
    x = rng.normal(size=(200, 4))
    model = mb.wrap(sklearn.RandomForestClassifier(10, random_state=0).fit(x, x[:, 0] > x[:, 1] ** 2), sample=x)
    model.save(tmp_path / "forest.mlb")
    with (
        Host(tmp_path, f"forest={tmp_path / 'forest.mlb'}", "--trust", "data", classpath=f"{JAR}{os.pathsep}{ONNXRUNTIME[0]}") as host,
        mb.load(host.uri("forest")) as served,
    ):
        assert served.signature == model.signature
        want, got = model.predict(x), served.predict(x)
        np.testing.assert_array_equal(got["label"], want["label"])
        np.testing.assert_allclose(got["probabilities"], want["probabilities"], rtol=1e-12)  # another release of onnxruntime
    model.close()


def test_a_pmml_file_is_served_at_trust_data(tmp_path):
    from test_jvm_pmml import LOGISTIC

    path = tmp_path / "logistic.pmml"
    path.write_text(LOGISTIC, encoding="utf-8")
    rows = [{"age": 30.0, "visits": 3, "plan": "plüs"}, {"age": None, "visits": 0, "plan": "basic"}]
    with (
        Host(tmp_path, f"logistic={path}", "--trust", "data") as host,
        mb.load(host.uri("logistic")) as served,
        mb.load(f"jvm:{path}", trust="code") as worker,
    ):
        want, got = worker.predict(rows), served.predict(rows)
        assert list(got["label"]) == list(want["label"])
        assert_same_bits(got["probabilities"], want["probabilities"])


# ---------------------------------------------------------------- the command line and the end


def run_main(*arguments):
    return subprocess.run(["java", "-jar", str(JAR), *arguments], capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["--help"], 0, "Usage: java -jar mlbridge-jvm.jar serve"),
        (["serve"], 64, "no model"),
        (["sing", "x=y"], 64, "serve"),
        (["serve", "x"], 64, "NAME[@VERSION]=SOURCE"),
        (["serve", "x=a", "x@1=b"], 64, "twice"),
        (["serve", "x=a", "--max-queue", "many"], 64, "whole number"),
        (["serve", "x=a", "--colour", "red"], 64, "--colour"),
        (["serve", "x=/absent.mlb"], 1, "NotFoundError"),
        (["serve", f"x={example('Churn')}"], 1, "UntrustedArtifactError"),
        (["serve", f"x={example('Churn')}", "--trust", "code", "--grpc", "0.0.0.0:0"], 1, "insecure"),
    ],
    ids=lambda v: "_".join(map(str, v))[:30] if isinstance(v, list) else None,
)
def test_the_command_line_says_what_is_wrong(arguments, code, says):
    done = run_main(*arguments)
    assert done.returncode == code, done.stderr
    assert says in done.stdout + done.stderr
    assert "\tat " not in done.stderr


def test_sigterm_answers_what_was_accepted_and_exits_with_zero(tmp_path):
    with (
        Host(tmp_path, f"echo={example('Echo')}", f"bad={example('Misbehaving')}", "--grace-s", "20") as host,
        grpc.insecure_channel(host.address) as channel,
    ):
        watch = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest())
        assert next(watch).status == health_pb2.HealthCheckResponse.SERVING
        request = pb.ModelInferRequest(model_name="bad")
        request.parameters["timeout"].int64_param = 1_500_000
        column(request, "what", "BYTES", text("sleep"))
        accepted = channel.unary_unary(INFER).future(request.SerializeToString(), timeout=60)
        quick, seen, stop = pb.ModelInferRequest(model_name="echo"), Counter(), threading.Event()
        column(quick, "float64", "FP64", bytes(8))
        quick.inputs[0].shape.append(1)

        def load():
            call = channel.unary_unary(INFER)
            while not stop.is_set():
                try:
                    call(quick.SerializeToString(), timeout=30)
                    seen["OK"] += 1
                except grpc.RpcError as exc:
                    seen[exc.code().name] += 1

        threads = [threading.Thread(target=load) for _ in range(4)]
        for thread in threads:
            thread.start()
        while seen["OK"] < 50:
            time.sleep(0.001)
        host.process.send_signal(signal.SIGTERM)
        assert next(watch).status == health_pb2.HealthCheckResponse.NOT_SERVING
        assert accepted.exception(timeout=60).code() is grpc.StatusCode.DEADLINE_EXCEEDED  # its own deadline ended it, not the stop
        assert host.process.wait(60) == 0
        stop.set()
        for thread in threads:
            thread.join()
    assert set(seen) == {"OK", "UNAVAILABLE"}, seen


# ---------------------------------------------------------------- kills


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def killed_under_load(folder, kills):
    """Kill the host again and again under load; return what callers saw, and the seconds from ready to answered."""
    address, arguments = f"127.0.0.1:{free_port()}", [f"churn={example('Churn')}"]
    seen, wrong, waits, stop = Counter(), [], [], threading.Event()
    host = Host(folder, *arguments, address=address)
    model = mb.load(host.uri("churn"))
    want = model.predict(ROWS)["probabilities"].tobytes()

    def load():
        while not stop.is_set():
            try:
                if model.predict(ROWS)["probabilities"].tobytes() != want:
                    wrong.append("another answer")
                seen["OK"] += 1
            except errors.MlbridgeError as exc:
                seen[type(exc).__name__] += 1
                time.sleep(0.002)
            except Exception as exc:  # noqa: BLE001 - that is what the test looks for
                wrong.append(repr(exc))

    threads = [threading.Thread(target=load) for _ in range(4)]
    for thread in threads:
        thread.start()
    try:
        for _ in range(kills):
            before = seen["OK"]
            while seen["OK"] < before + 5:
                time.sleep(0.001)
            host.kill()
            time.sleep(0.02)
            host = Host(folder, *arguments, address=address)
            ready, answered = time.monotonic(), seen["OK"]
            while seen["OK"] == answered and time.monotonic() < ready + 60:
                time.sleep(0.001)
            waits.append(time.monotonic() - ready)
    finally:
        stop.set()
        for thread in threads:
            thread.join()
        host.kill()
        model.close()
    return seen, wrong, waits


def check_kills(folder, kills):
    seen, wrong, waits = killed_under_load(folder, kills)
    print(f"{kills} kills: {dict(seen)}; reconnected within {max(waits):.2f} s, median {sorted(waits)[len(waits) // 2]:.2f} s")
    assert not wrong
    assert set(seen) <= {"OK", "BridgeError"}, seen
    assert len(waits) == kills
    assert max(waits) < 60  # all came back; how fast is printed


def test_ten_kills_under_load_are_typed_errors_and_the_client_comes_back(tmp_path):
    check_kills(tmp_path, 10)


@pytest.mark.full
@pytest.mark.timeout(1800)
def test_two_hundred_kills_under_load(tmp_path):
    check_kills(tmp_path, 200)
