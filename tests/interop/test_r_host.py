"""R's server called from Python and by a stock client, and Python's server called from R: bit by bit."""

from __future__ import annotations

import re
import signal
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import grpc
import numpy as np
import pytest
import r_host
import tritonclient.grpc as tg
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from r_host import Host

import mlbridge as mb
from mlbridge import errors
from mlbridge.runtimes import wire
from mlbridge.signature import Column, Signature, TensorSpec

pytestmark = pytest.mark.r

pb = wire.inference_pb2
OIP = {name: d.oip for name, d in wire.DTYPES.items() if name != "bfloat16"}
PLANS, GRADES = ["basic", "größer", ""], [3, 1, -2]


@pytest.fixture(scope="module", autouse=True)
def installed():
    absent = r_host.missing()
    if absent:
        pytest.skip(absent)


@pytest.fixture(scope="module")
def host(installed):
    with Host("--max-queue", "4") as running:
        yield running


@pytest.fixture(scope="module")
def channel(host):
    with grpc.insecure_channel(host.address) as c:
        yield c


def method(channel):
    pack, read = pb.ModelInferRequest.SerializeToString, pb.ModelInferResponse.FromString
    return channel.unary_unary("/inference.GRPCInferenceService/ModelInfer", request_serializer=pack, response_deserializer=read)


def infer(channel, request, timeout=30, metadata=()):
    return method(channel)(request, timeout=timeout, metadata=metadata)


def refused(channel, request, **keywords):
    with pytest.raises(grpc.RpcError) as caught:
        infer(channel, request, **keywords)
    error = caught.value
    return error.code().name, dict(error.trailing_metadata() or ()).get("mlbridge-error"), error.details()


def request_of(model, **inputs):
    """Make a raw request of (datatype, array) by name."""
    request = pb.ModelInferRequest(model_name=model, id="7")
    for name, (datatype, array) in inputs.items():
        array = np.asarray(array, object if datatype == "BYTES" else wire.NUMPY[datatype])
        request.inputs.add(name=name, datatype=datatype, shape=array.shape)
        request.raw_input_contents.append(wire.pack_array(array, datatype))
    return request


def numbers(dtype, rows, seed=0):
    """Every bit pattern may come, NaN payloads among them."""
    rng = np.random.default_rng(seed)
    if dtype == "string":
        texts = np.array([["", "a", "größer"], ["日本語", None, "\U0001d11e"], ["x" * 300, '\t"\\', None]], object)
        return np.resize(texts, (rows, 3))
    if dtype == "bool":
        return rng.integers(0, 2, (rows, 3)).astype(bool)
    return np.frombuffer(rng.bytes(rows * 3 * np.dtype(dtype).itemsize), dtype).reshape(rows, 3)


def assert_same_bits(got, want):
    assert got.dtype == want.dtype
    assert got.shape == want.shape
    assert got.tolist() == want.tolist() if want.dtype == object else got.tobytes() == want.tobytes()


# ---------------------------------------------------------------- values


@pytest.mark.parametrize("rows", [0, 1, 300])
@pytest.mark.parametrize("dtype", OIP)
def test_every_datatype_comes_back_bit_by_bit(host, dtype, rows):
    with mb.load(host.uri(dtype)) as model:
        x = numbers(dtype, rows)
        assert_same_bits(model.run({dtype: x})[dtype], x)


def test_all_datatypes_in_one_request(host):
    feeds = {name: numbers(name, 5, seed=3) for name in OIP}
    with mb.load(host.uri("echo")) as model:
        answer = model.run(feeds)
        for name, x in feeds.items():
            assert_same_bits(answer[name], x)
        assert list(model.run(feeds, outputs=["string", "bool"])) == ["string", "bool"]


def test_eight_megabytes_come_back(host):
    x = np.random.default_rng(0).standard_normal((2**18, 4))
    with mb.load(host.uri("float64")) as model:
        assert_same_bits(model.run({"float64": x})["float64"], x)


@pytest.mark.parametrize("dtype", [n for n in OIP if n != "float16"])
def test_typed_requests_get_typed_answers(channel, dtype):
    x = numbers(dtype, 4, seed=5)
    if x.dtype.kind == "f":  # protobuf itself may quiet a signalling NaN in a typed field
        x = np.where(np.isnan(x), np.nan, x).astype(x.dtype)
    request = pb.ModelInferRequest(model_name=dtype)
    tensor = request.inputs.add(name=dtype, datatype=OIP[dtype], shape=x.shape)
    if dtype == "string":
        tensor.parameters["missing"].string_param = ",".join(str(i) for i, v in enumerate(x.flat) if v is None)
        wire.fill_contents(tensor.contents, "BYTES", np.array([(v or "").encode() for v in x.flat], object))
    else:
        wire.fill_contents(tensor.contents, OIP[dtype], x)
    answer = infer(channel, request)
    assert not answer.raw_output_contents
    assert answer.outputs[0] == pb.ModelInferResponse.InferOutputTensor(
        name=dtype, datatype=OIP[dtype], shape=x.shape, parameters=tensor.parameters, contents=tensor.contents
    )


def test_a_typed_request_with_half_floats_in_the_answer_is_raw(channel):
    request = request_of("float16", float16=("FP16", [[1.5]]))
    assert infer(channel, request).raw_output_contents == [np.float16(1.5).tobytes()]


# ---------------------------------------------------------------- tables


TABLE = {
    "age": [30.0, None, 71.25], "calls": [2.0, 0.5, np.inf], "plan": ["größer", None, ""], "grade": [3, -2, None], "member": [True, None, False],
    "note": ["日本語", "", None],
}  # fmt: skip


def test_levels_of_every_type_and_missing_values_come_back(host):
    with mb.load(host.uri("table")) as model:
        assert [c.categories for c in model.signature.columns[2:5]] == [tuple(PLANS), tuple(GRADES), (False, True)]
        answer = model.predict(TABLE)
        assert answer["plan_label"].tolist() == TABLE["plan"]
        assert answer["grade_label"].tolist() == TABLE["grade"]
        assert answer["member_label"].tolist() == TABLE["member"]
        assert answer["text"].reshape(-1).tolist() == TABLE["note"]
        codes = model.run({"features": [[1.0, 2.0]], "categorical": np.array([[-1, 2, 0]], np.int32), "text": [["x"]]})
        assert codes["categorical"].tolist() == [[-1, 2, 0]]
        assert codes["grade_label"].tolist() == [2]


def test_one_tensor_a_column_and_levels_as_text(channel):
    request = request_of(
        "table", age=("FP64", [1.0, 2.0]), calls=("INT32", [[3], [4]]), plan=("BYTES", ["größer", ""]), grade=("INT64", [1, 3]),
        member=("BOOL", [True, False]), note=("BYTES", ["a", ""]),
    )  # fmt: skip
    request.inputs[2].parameters["missing"].string_param = "1"
    request.inputs[5].parameters["missing"].string_param = "1"
    answer = infer(channel, request)
    by_name = {t.name: (t, raw) for t, raw in zip(answer.outputs, answer.raw_output_contents)}
    assert answer.id == "7"
    tensor, raw = by_name["categorical"]
    assert (tensor.datatype, list(tensor.shape), tensor.parameters["missing"].string_param) == ("BYTES", [2, 3], "3")
    assert wire.split_bytes(raw, 6, "") == ["größer".encode(), b"1", b"true", b"", b"3", b"false"]
    assert (by_name["grade_label"][0].datatype, by_name["grade_label"][1]) == ("INT64", np.array([1, 3]).tobytes())
    assert (by_name["member_label"][0].datatype, by_name["member_label"][1]) == ("BOOL", b"\1\0")
    assert by_name["text"][0].parameters["missing"].string_param == "1"


def test_a_block_of_levels_and_a_block_of_codes_mean_the_same(channel):
    levels = request_of("table", features=("FP32", [[1.5, 2.0]]), categorical=("BYTES", [["basic", "-2", "true"]]), text=("BYTES", [["t"]]))
    codes = request_of("table", features=("FP64", [[1.5, 2.0]]), categorical=("INT32", [[0, 2, 1]]), text=("BYTES", [["t"]]))
    for request in (levels, codes):
        for name in ("features", "categorical"):
            request.outputs.add(name=name).parameters["encoding"].string_param = "values" if name == "features" else "codes"
    one, other = infer(channel, levels), infer(channel, codes)
    assert one == other
    assert one.raw_output_contents[1] == np.array([0, 2, 1], np.int32).tobytes()


ASKED = {
    "numbers": request_of(
        "echo", **{n: (OIP[n], numbers(n, 3, seed=7)) for n in OIP if n != "string"}, string=("BYTES", [["", "é", "z"]] * 3)
    ),
    "one dtype": request_of("float32", float32=("FP32", [[1.5, np.nan], [np.inf, -0.0]])),
    "table": request_of("table", features=("FP64", [[1, np.nan]]), categorical=("INT32", [[-1, 2, 0]]), text=("BYTES", [["é"]])),
    "label": request_of("tree", features=("FP64", [[1, 1], [60, 5]]), categorical=("INT32", [[1], [2]])),
    "number": request_of("churn", features=("FP64", [[20, np.nan], [30, 5]]), categorical=("INT32", [[1, 0], [2, 1]])),
    "no rows": request_of("tree", features=("FP64", np.zeros((0, 2))), categorical=("INT32", np.zeros((0, 1)))),
    "a code too large": request_of("tree", features=("FP64", [[1, 1]]), categorical=("INT32", [[3]])),
    "a missing level": request_of("tree", features=("FP64", [[1, 1]]), categorical=("INT32", [[-1]])),
    "rows that differ": request_of("tree", features=("FP64", [[1, 1]]), categorical=("INT32", [[1], [1]])),
    "no such output": request_of("bad", x=("FP64", [2.0])),
    "text for numbers": request_of("bad", x=("FP64", [3.0])),
}


@pytest.mark.parametrize("asked", [(), ("values",), ("codes",)], ids=["all", "values", "codes"])
@pytest.mark.parametrize("name", ASKED)
def test_usual_requests_are_answered_as_unusual_ones(host, channel, name, asked):
    """C++ answers what is usual; a parameter that means nothing makes R look at it all."""
    usual, unusual = pb.ModelInferRequest(), pb.ModelInferRequest()
    usual.CopyFrom(ASKED[name])
    if asked:
        with mb.load(host.uri(usual.model_name)) as model:
            specs = model.signature.outputs[::-1]
        for spec in specs:
            output = usual.outputs.add(name=spec.name)
            if asked == ("codes",) and spec.categorical:
                output.parameters["encoding"].string_param = "codes"
    unusual.CopyFrom(usual)
    unusual.parameters["priority"].int64_param = 1

    def said(request):
        try:
            return infer(channel, request)
        except grpc.RpcError as exc:
            return exc.code(), re.sub("id [0-9a-f]+", "id", exc.details())

    assert said(usual) == said(unusual)


def r_answers(expression):
    """Ask R itself: the fitted models of r_server.R, without a server; a missing label is None."""
    script = r_host.SERVER
    code = f'lines <- readLines("{script}"); eval(parse(text = lines[seq_len(grep("^slow", lines)[1] - 1)])); cat(format({expression}, digits = 17))'
    return [None if v == "NA" else v for v in r_host.run(code).split()]


def test_fitted_models_answer_as_they_do_in_r(host):
    rows = {
        "age": [20.0, 35.5, np.nan, 80.0],
        "calls": [0.0, 3.0, 9.0, 1.0],
        "plan": ["basic", "größer", "plus", None],
        "member": [True, False, True, None],
    }
    frame = 'data.frame(age = c(20, 35.5, NA, 80), calls = c(0, 3, 9, 1), plan = factor(c("basic", "gr\\u00f6\\u00dfer", "plus", NA)), member = c(TRUE, FALSE, TRUE, NA))'
    with mb.load(host.uri("churn")) as churn, mb.load(host.uri("churn@1")) as first, mb.load(host.uri("tree")) as tree:
        want = [np.nan if v is None else float(v) for v in r_answers(f'predict(churn, {frame}, type = "response")')]
        for model in (churn, first):
            np.testing.assert_array_equal(model.predict(rows)["prediction"], want)
        answer = tree.predict({k: v for k, v in rows.items() if k != "member"})
        assert answer["label"].tolist() == r_answers(f'as.character(predict(tree, {frame}, type = "class"))')
        want = [float(v) for v in r_answers(f'predict(tree, {frame}, type = "prob")')]
        np.testing.assert_array_equal(answer["probabilities"].ravel("F"), want)


def test_a_served_r_model_is_a_pipeline_stage(host):
    def percent(feeds):
        return {"percent": feeds["chance"] * 100.0}

    vector = [mb.TensorSpec(n, "float64", ("rows",), missing="allow") for n in ("chance", "percent")]
    rows = {"age": [20.0, np.nan], "calls": [0.0, 3.0], "plan": ["basic", "größer"], "member": [True, False]}
    with mb.load(host.uri("churn")) as churn, mb.wrap(percent, signature=mb.Signature(vector[:1], vector[1:])) as after:
        wiring = {"churn.features": "features", "churn.categorical": "categorical", "after.chance": "churn.prediction"}
        with mb.Pipeline("value", stages={"churn": churn, "after": after}, wiring=wiring, outputs={"percent": "after.percent"}) as pipeline:
            got = pipeline.predict(rows)["percent"]
        np.testing.assert_array_equal(got, churn.predict(rows)["prediction"] * 100.0)


def test_an_unknown_level_is_refused_by_name(host, channel):
    with mb.load(host.uri("tree")) as model, pytest.raises(errors.InputError, match="'rose'"):
        model.predict({"age": 1.0, "calls": 1.0, "plan": "rose"})
    code, kind, text = refused(channel, request_of("tree", features=("FP64", [[1, 1]]), categorical=("BYTES", [["rose"]])))
    assert (code, kind) == ("INVALID_ARGUMENT", "InputError")
    assert "'plan'" in text
    assert "'rose'" in text
    code, kind, text = refused(channel, request_of("tree", features=("FP64", [[1, 1]]), categorical=("INT32", [[3]])))
    assert (code, kind) == ("INVALID_ARGUMENT", "InputError")
    assert "the code 3" in text


# ---------------------------------------------------------------- a stock client


def test_a_stock_client_works_unchanged(host):
    a, b = np.arange(16, dtype=np.int32)[None], np.full((1, 16), 3, np.int32)
    with tg.InferenceServerClient(host.address) as client:
        assert client.is_server_live()
        assert client.is_server_ready()
        assert client.is_model_ready("simple")
        assert not client.is_model_ready("nothing")
        assert not client.is_model_ready("churn", "3")
        assert client.get_server_metadata().name == "mlbridge"
        about = client.get_model_metadata("churn")
        assert list(about.versions) == ["1", "7"]
        assert [(t.name, t.datatype, list(t.shape)) for t in about.inputs] == [
            ("features", "FP64", [-1, 2]),
            ("categorical", "BYTES", [-1, 2]),
        ]
        tensors = [tg.InferInput(n, [1, 16], "INT32") for n in ("INPUT0", "INPUT1")]
        for tensor, values in zip(tensors, (a, b)):
            tensor.set_data_from_numpy(values)
        answer = client.infer(
            "simple", tensors, outputs=[tg.InferRequestedOutput("OUTPUT1"), tg.InferRequestedOutput("OUTPUT0")], request_id="q"
        )
        np.testing.assert_array_equal(answer.as_numpy("OUTPUT0"), a + b)
        np.testing.assert_array_equal(answer.as_numpy("OUTPUT1"), a - b)
        assert answer.get_response().id == "q"
        for model, outputs in (("simple_string", {"OUTPUT0": a + b, "OUTPUT1": a - b}),):
            tensors = [tg.InferInput(n, [1, 16], "BYTES") for n in ("INPUT0", "INPUT1")]
            for tensor, values in zip(tensors, (a, b)):
                tensor.set_data_from_numpy(np.array([[str(v).encode() for v in values[0]]], object))
            answer = client.infer(model, tensors)
            for name, want in outputs.items():
                assert [int(v) for v in answer.as_numpy(name)[0]] == want[0].tolist()


def test_health_is_checked_and_watched_and_reflection_lists_the_services(host, channel):
    stub = health_pb2_grpc.HealthStub(channel)
    for service in ("", "inference.GRPCInferenceService"):
        assert stub.Check(health_pb2.HealthCheckRequest(service=service)).status == health_pb2.HealthCheckResponse.SERVING
    with pytest.raises(grpc.RpcError) as caught:
        stub.Check(health_pb2.HealthCheckRequest(service="nothing"))
    assert caught.value.code() is grpc.StatusCode.NOT_FOUND
    watch = stub.Watch(health_pb2.HealthCheckRequest())
    assert next(watch).status == health_pb2.HealthCheckResponse.SERVING
    watch.cancel()
    answers = reflection_pb2_grpc.ServerReflectionStub(channel).ServerReflectionInfo(
        iter([reflection_pb2.ServerReflectionRequest(list_services="")])
    )
    listed = {s.name for s in next(answers).list_services_response.service}
    assert {"inference.GRPCInferenceService", "mlbridge.v1.Bridge", "grpc.health.v1.Health"} <= listed


# ---------------------------------------------------------------- refusals

WRONG = {
    "unknown model": (request_of("none"), "NOT_FOUND", "NotFoundError", "'none'"),
    "no input": (request_of("float64"), "INVALID_ARGUMENT", "InputError", "'float64'"),
    "unknown input": (request_of("float64", y=("FP64", [[1.0]])), "INVALID_ARGUMENT", "InputError", "'y'"),
    "wrong rank": (request_of("tree", features=("FP64", [1.0]), categorical=("INT32", [[0]])), "INVALID_ARGUMENT", "InputError", "rank 1"),
    "wrong width": (request_of("tree", features=("FP64", [[1.0]]), categorical=("INT32", [[0]])), "INVALID_ARGUMENT", "InputError", "1 x 1"),
    "other rows": (request_of("tree", features=("FP64", [[1, 2]]), categorical=("INT32", [[0], [0]])), "INVALID_ARGUMENT", "InputError", "rows"),
    "wrong datatype": (request_of("float64", float64=("BYTES", [["1"]])), "INVALID_ARGUMENT", "InputError", "BYTES"),
    "rounding": (request_of("float32", float32=("FP64", [[0.1]])), "INVALID_ARGUMENT", "InputError", "rounded"),
    "out of range": (request_of("int8", int8=("INT32", [[200]])), "INVALID_ARGUMENT", "InputError", "range"),
    "fraction": (request_of("int32", int32=("FP64", [[0.5]])), "INVALID_ARGUMENT", "InputError", "fraction"),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
def test_wrong_requests_are_refused_by_the_table(channel, name):
    request, code, kind, word = WRONG[name]
    got = refused(channel, request)
    assert got[:2] == (code, kind)
    assert word in got[2]


def broken(change):
    request = request_of("float64", float64=("FP64", [[1.0, 2.0]]))
    change(request)
    return request


MALFORMED = {
    "short": lambda r: r.raw_input_contents.__setitem__(0, b"1234"),
    "negative": lambda r: r.inputs[0].shape.__setitem__(0, -1),
    "huge": lambda r: r.inputs[0].shape.extend([2**40, 2**40]),
    "two raws": lambda r: r.raw_input_contents.append(b""),
    "both": lambda r: r.inputs[0].contents.fp64_contents.append(1.0),
    "no datatype": lambda r: setattr(r.inputs[0], "datatype", "FP65"),
    "bad index": lambda r: setattr(r.inputs[0].parameters["missing"], "string_param", "7"),
    "bad indices": lambda r: setattr(r.inputs[0].parameters["missing"], "string_param", "0,,1"),
    "output": lambda r: r.outputs.add(name="none"),
    "twice": lambda r: [r.outputs.add(name="float64") for _ in range(2)],
    "codes": lambda r: setattr(r.outputs.add(name="float64").parameters["encoding"], "string_param", "codes"),
    "timeout": lambda r: setattr(r.parameters["timeout"], "string_param", "soon"),
}


@pytest.mark.parametrize("name", MALFORMED)
def test_malformed_tensors_are_invalid_arguments(channel, name):
    assert refused(channel, broken(MALFORMED[name]))[:2] == ("INVALID_ARGUMENT", "InputError")


def test_what_is_not_offered_is_unimplemented(channel):
    assert refused(channel, broken(lambda r: setattr(r.inputs[0], "datatype", "BF16")))[:2] == ("UNIMPLEMENTED", "UnsupportedError")
    for change in (
        lambda r: setattr(r.parameters["sequence_id"], "int64_param", 3),
        lambda r: setattr(r.inputs[0].parameters["shared_memory_region"], "string_param", "m"),
    ):
        assert refused(channel, broken(change))[:2] == ("UNIMPLEMENTED", "UnsupportedError")
    with pytest.raises(grpc.RpcError) as caught:
        channel.unary_unary("/inference.GRPCInferenceService/RepositoryIndex")(b"")
    assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED


def test_a_message_that_does_not_parse_is_an_invalid_argument(channel):
    for method in ("ModelInfer", "ModelMetadata", "ModelReady"):
        with pytest.raises(grpc.RpcError) as caught:
            channel.unary_unary(f"/inference.GRPCInferenceService/{method}")(b"\xff\xff\xff")
        assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT


def test_bytes_that_are_no_text_are_refused(channel):
    for octets, word in ((b"\xff\xfe", "UTF-8"), (b"a\0b", "zero byte")):
        code, _, text = refused(channel, request_of("string", string=("BYTES", [[octets]])))
        assert code == "INVALID_ARGUMENT"
        assert word in text


def test_large_messages_and_metadata_are_refused(host):
    with grpc.insecure_channel(host.address, [("grpc.max_send_message_length", -1)]) as wide:
        request = request_of("float64", float64=("FP64", np.zeros((1, 3 << 20))))
        with pytest.raises(grpc.RpcError) as caught:
            infer(wide, request)
        assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    # a channel of its own: gRPC C++ may close the connection behind such a refusal
    with grpc.insecure_channel(host.address) as own, pytest.raises(grpc.RpcError) as caught:
        infer(own, request_of("float64", float64=("FP64", [[1.0]])), metadata=[("x-large", "v" * 40_000)])
    assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED


def test_failures_inside_are_internal_and_tell_nothing(host, channel):
    for value, log in ((1.0, "secret"), (2.0, "gives no output x"), (3.0, "does not fit its signature")):
        code, kind, text = refused(channel, request_of("bad", x=("FP64", [value])))
        assert (code, kind) == ("INTERNAL", "InferenceError")
        assert "secret" not in text
        identity = text.split("correlation id ")[1].rstrip(")")
        assert host.logged(identity, log), host.log[-5:]
    for value in (4.0, 5.0):
        assert infer(channel, request_of("bad", x=("FP64", [value]))).raw_output_contents == [np.float64(value).tobytes()]
    assert host.logged("careful")


# ---------------------------------------------------------------- deadlines, cancelling, the queue


def marks(channel):
    """Ask the model that counts its own runs."""
    return np.frombuffer(infer(channel, request_of("marks", x=("FP64", [0.0]))).raw_output_contents[0])[0]


@pytest.mark.parametrize("model", ["slow", "busy"])
def test_a_deadline_interrupts_r_and_the_host_lives(host, model):
    with mb.load(host.uri(model)) as slow, mb.load(host.uri("float64")) as echo:
        with pytest.raises(errors.BridgeTimeoutError):
            slow.run({"x": [60.0]}, timeout_s=0.5)
        began = time.monotonic()
        assert echo.run({"float64": [[1.0]]}, timeout_s=20)["float64"].tolist() == [[1.0]]
        assert time.monotonic() - began < 20  # not the minute the model wanted


def test_the_parameter_timeout_is_a_deadline(channel):
    request = request_of("slow", x=("FP64", [30.0]))
    request.parameters["timeout"].int64_param = 300_000
    assert refused(channel, request)[:2] == ("DEADLINE_EXCEEDED", "BridgeTimeoutError")


def test_a_cancelled_request_that_waits_is_not_run(channel):
    before = marks(channel)
    call = method(channel)
    running = call.future(request_of("slow", x=("FP64", [1.0])), timeout=30)
    time.sleep(0.3)  # R is asleep in it now
    waiting = call.future(request_of("marks", x=("FP64", [1.0])), timeout=30)
    time.sleep(0.2)
    waiting.cancel()
    assert running.result().raw_output_contents == [np.float64(1.0).tobytes()]
    assert marks(channel) == before + 1


def test_a_full_queue_refuses_at_once(channel):
    call = method(channel)
    futures = [call.future(request_of("slow", x=("FP64", [0.4])), timeout=30) for _ in range(12)]
    codes = Counter(f.code().name for f in futures)
    assert set(codes) == {"OK", "RESOURCE_EXHAUSTED"}
    assert 4 <= codes["OK"] <= 6  # four wait; one or two were taken meanwhile
    late = next(f for f in futures if f.code() is grpc.StatusCode.RESOURCE_EXHAUSTED)
    assert dict(late.trailing_metadata())["mlbridge-error"] == "OverloadedError"


# ---------------------------------------------------------------- access


def test_a_token_is_asked_for(tmp_path):
    with Host("--token", "open-sesame") as guarded:
        with pytest.raises(errors.AccessError):
            mb.load(guarded.uri("float64"))
        with pytest.raises(errors.AccessError):
            mb.load(guarded.uri("float64"), options={"grpc": {"token": "open-sesamo"}})
        with mb.load(guarded.uri("float64"), options={"grpc": {"token": "open-sesame"}}) as model:
            assert model.run({"float64": [[2.0]]})["float64"].tolist() == [[2.0]]
        with grpc.insecure_channel(guarded.address) as c:
            assert health_pb2_grpc.HealthStub(c).Check(health_pb2.HealthCheckRequest()).status == health_pb2.HealthCheckResponse.SERVING
            with pytest.raises(grpc.RpcError) as caught:
                list(
                    reflection_pb2_grpc.ServerReflectionStub(c).ServerReflectionInfo(
                        iter([reflection_pb2.ServerReflectionRequest(list_services="")])
                    )
                )
            assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED


# ---------------------------------------------------------------- the end


def test_drain_says_not_serving_finishes_and_leaves():
    with Host() as leaving, grpc.insecure_channel(leaving.address) as c:
        watch = health_pb2_grpc.HealthStub(c).Watch(health_pb2.HealthCheckRequest())
        assert next(watch).status == health_pb2.HealthCheckResponse.SERVING
        call = method(c)
        accepted = [call.future(request_of("slow", x=("FP64", [0.6])), timeout=30) for _ in range(3)]
        time.sleep(0.3)
        leaving.process.send_signal(signal.SIGTERM)
        assert next(watch).status == health_pb2.HealthCheckResponse.NOT_SERVING
        late = refused(c, request_of("float64", float64=("FP64", [[1.0]])))
        assert late[:2] == ("UNAVAILABLE", "UnavailableError")
        assert [f.result().raw_output_contents for f in accepted] == [[np.float64(0.6).tobytes()]] * 3
        assert leaving.stop() == 0


def test_an_interrupt_drains_too():
    with Host() as leaving:
        assert leaving.stop(signal.SIGINT) == 0


@pytest.mark.parametrize("kills", [10, pytest.param(200, marks=[pytest.mark.full, pytest.mark.timeout(3600)])])
def test_killing_the_host_under_load_gives_typed_errors_and_a_quick_return(kills):
    rng = np.random.default_rng(1)
    port = None
    seen: Counter[str] = Counter()
    lock, over = threading.Lock(), threading.Event()

    def ask(model, x):
        while not over.is_set():
            try:
                answer = model.run({"float64": x}, timeout_s=5)["float64"]
                what = "right" if answer.tobytes() == x.tobytes() else "wrong"
            except errors.MlbridgeError as exc:
                what = type(exc).__name__
                time.sleep(0.01)
            with lock:
                seen[what] += 1

    host = Host()
    port = host.address.rpartition(":")[2]
    with mb.load(host.uri("float64")) as model, ThreadPoolExecutor(3) as pool:
        work = [pool.submit(ask, model, rng.standard_normal((20, 5))) for _ in range(3)]
        waits = []
        try:
            for _ in range(kills):
                time.sleep(rng.uniform(0.05, 0.3))
                host.stop(signal.SIGKILL)
                host = Host("--port", port)
                back = time.monotonic()
                while True:
                    try:
                        model.run({"float64": np.zeros((1, 1))}, timeout_s=5)
                        break
                    except errors.MlbridgeError:
                        time.sleep(0.01)
                waits.append(time.monotonic() - back)
        finally:
            over.set()
            for w in work:
                w.result()
            host.stop(signal.SIGKILL)
    assert seen["right"] > kills
    assert set(seen) <= {"right", "BridgeError", "BridgeTimeoutError", "UnavailableError", "WorkerDiedError"}
    print(f"{kills} kills: {dict(seen)}, back after {np.median(waits):.2f} s, at most {max(waits):.2f} s")


def test_workers_share_the_port_and_are_replaced():
    with Host("--workers", "2") as host:
        listed = r_host.subprocess.run(["pgrep", "-P", str(host.process.pid)], capture_output=True, text=True, check=True)
        workers = [int(p) for p in listed.stdout.split()]
        assert len(workers) == 2
        with mb.load(host.uri("float64")) as model:
            assert model.run({"float64": [[1.0]]})["float64"].tolist() == [[1.0]]
        r_host.os.kill(workers[0], signal.SIGKILL)
        assert host.logged("ended by signal 9", "starting another")
        with mb.load(host.uri("float64")) as model:
            assert model.run({"float64": [[2.0]]})["float64"].tolist() == [[2.0]]
        assert host.stop() == 0


# ---------------------------------------------------------------- R calls Python


class Echo:
    """Answers what it is asked, of every dtype."""

    device = "cpu"
    max_concurrency = 1

    def __init__(self):
        specs = [TensorSpec(n, n, ("rows", 3), missing="allow" if n.startswith(("float", "string")) else "refuse") for n in OIP]
        self.signature = Signature(specs, specs)

    def run(self, feeds, /, *, outputs=None, deadline=None):
        return {n: feeds[n].copy() for n in outputs or feeds}

    def close(self):
        """Own nothing."""


@pytest.fixture(scope="module")
def python_server():
    from mlbridge.model import Model

    columns = [Column("plan", categories=PLANS), Column("grade", categories=GRADES), Column("member", categories=(False, True))]
    inputs = [
        TensorSpec("features", "float64", ("rows", 1), (Column("age"),), missing="allow"),
        TensorSpec("categorical", "int32", ("rows", 3), columns, missing="allow"),
        TensorSpec("text", "string", ("rows", 1), (Column("note"),), missing="allow"),
    ]
    labels = [TensorSpec(f"{c.name}_label", "int32", ("rows",), (c,), missing="allow") for c in columns]

    class Table(Echo):
        def __init__(self):
            self.signature = Signature(inputs, [inputs[0], inputs[2], *labels])

        def run(self, feeds, /, *, outputs=None, deadline=None):
            codes = feeds["categorical"]
            answer = {"features": feeds["features"], "text": feeds["text"]} | {s.name: codes[:, i].copy() for i, s in enumerate(labels)}
            return {n: answer[n] for n in outputs or answer}

    with (
        Model(Echo(), name="echo") as echo,
        Model(Table(), name="table") as table,
        mb.serve({"echo": echo, "table": table}, grpc="127.0.0.1:0", max_message_mib=1) as server,
    ):
        yield server.addresses["grpc"]


def test_r_sends_and_reads_every_dtype_bit_by_bit(host, python_server):
    """R asks Python's server and R's own through one connection each: what it sends is what it gets, to R's last bit."""
    code = r"""
      target <- commandArgs(TRUE)[1]
      na <- c(NA_real_, NaN, Inf, -Inf, -0.0, 5e-324, 1.7976931348623157e308, pi, 1/3)
      whole <- function(...) matrix(c(...), ncol = 3L)
      feeds <- list(bool = whole(TRUE, FALSE, TRUE), int8 = whole(-128L, 0L, 127L), int16 = whole(-32768L, 0L, 32767L),
        int32 = whole(-2147483648, 0, 2147483647), int64 = whole("-9223372036854775808", "0", "9223372036854775807"), uint8 = whole(0L, 1L, 255L),
        uint16 = whole(0L, 1L, 65535L), uint32 = whole(0, 1, 4294967295), uint64 = whole("18446744073709551615", "0", "1"),
        float16 = whole(65504, -0.0, 2^-24), float32 = whole(1.5, NaN, -Inf), float64 = whole(NA_real_, -0.0, 5e-324),
        string = whole("", NA, "gr\u00f6\u00dfer \U0001d11e"))
      model <- mlbridge::mlb_load(target)
      run <- model$session$run
      bytes <- function(x) if (is.double(x)) writeBin(as.vector(x), raw()) else x
      check <- function(feeds) {
        answer <- run(feeds, names(feeds), NULL)
        for (n in names(feeds)) if (!identical(bytes(answer[[n]]), bytes(feeds[[n]])) || !identical(dim(answer[[n]]), dim(feeds[[n]])))
          stop(n, ": ", paste(format(bytes(answer[[n]])), collapse = " "), " instead of ", paste(format(bytes(feeds[[n]])), collapse = " "))
      }
      check(feeds)
      many <- lapply(feeds, function(x) x[rep(1L, 5000L), , drop = FALSE])
      many$float64[] <- rep(na, length.out = 15000L)
      many$int64 <- matrix(trunc(seq(-2^53, 2^53, length.out = 15000L)), ncol = 3L)
      check(many)
      none <- lapply(feeds, function(x) x[0L, , drop = FALSE])  # no element says that 32 or 64 bits are needed
      none$int32 <- matrix(integer(), 0L, 3L)
      none$int64 <- none$uint64 <- matrix(double(), 0L, 3L)
      check(none)
      wrong <- tryCatch(run(replace(feeds, "int8", list(whole(1L, 2L, 128L))), names(feeds), NULL), mlbridge_invalid_argument = function(e) conditionMessage(e))
      stopifnot(grepl("128", wrong))
      cat("same")
    """
    for target in (f"grpc://{python_server}/echo", host.uri("echo")):
        assert r_host.run(code, target) == "same"


def test_data_frames_with_factors_and_missing_values(host, python_server):
    code = r"""
      library(mlbridge)
      model <- mlb_load(commandArgs(TRUE)[1])
      rows <- data.frame(age = c(30, NA, 71.25), calls = 1:3, plan = factor(c("gr\u00f6\u00dfer", NA, "")), grade = c(3L, -2L, NA), member = c(TRUE, NA, FALSE),
        note = c("\u65e5\u672c\u8a9e", "", NA), more = 1:3, row.names = c("x", "y", "z"))
      got <- predict(model, rows, outputs = c("plan_label", "grade_label", "member_label"))
      stopifnot(identical(rownames(got), rownames(rows)), identical(as.character(got$plan_label), as.character(rows$plan)),
        identical(levels(got$plan_label), c("basic", "gr\u00f6\u00dfer", "")), identical(as.integer(got$grade_label), rows$grade), identical(got$member_label, rows$member))
      stopifnot(identical(as.vector(predict(model, rows, outputs = "text")), rows$note))
      age <- predict(model, rows, outputs = "features")[, 1]
      stopifnot(identical(age, rows$age), is.na(age[2]), !is.nan(age[2]))
      none <- predict(model, rows[0, ], outputs = "plan_label")
      stopifnot(is.factor(none), length(none) == 0L)
      said <- tryCatch(predict(model, transform(rows, plan = "rose")), mlbridge_invalid_argument = function(e) conditionMessage(e))
      stopifnot(grepl("rose", said))
      cat("same")
    """
    for target in (f"grpc://{python_server}/table", host.uri("table")):
        assert r_host.run(code, target) == "same"


def test_a_foreign_server_is_asked_by_its_metadata(host):
    """R's client without Describe: the metadata of a server that does not know mlbridge."""
    code = r"""
      library(mlbridge)
      ns <- asNamespace("mlbridge")
      place <- ns$.place_of(commandArgs(TRUE)[1])
      connection <- .Call(ns$C_mlb_connect, place$target, "", NULL, ns$.retry)
      told <- .Call(ns$C_mlb_metadata, connection, place$model, "", 10)
      signature <- ns$.plain_signature(told)
      session <- ns$.served_session(connection, place, "there", list(signature = signature, codes = FALSE, about = list()), ns$.client_options(list()))
      rows <- matrix(c("1", NA, ""), 3L, 16L)
      stopifnot(identical(session$run(list(string = rows), "string", NULL)$string, rows))
      cat("same")
    """
    assert r_host.run(code, host.uri("string")) == "same"


def test_conditions_tell_the_status_and_the_class(host):
    code = r"""
      library(mlbridge)
      base <- commandArgs(TRUE)[1]
      said <- function(expr) tryCatch(expr, mlbridge_error = function(e) paste(class(e)[1], e$code, e$class_name))
      cat(said(mlb_load(paste0(base, "none"))), said(mlb_load(paste0(base, "churn@9"))), said(mlb_load("grpc://127.0.0.1:1/x")),
        said(predict(mlb_load(paste0(base, "bad")), list(x = 1))), said(predict(mlb_load(paste0(base, "slow")), list(x = 30), timeout_s = 0.3)),
        said(mlb_load("grpc://user:secret@host:1/m")), said(mlb_load("grpc://example.org:1/m", options = list(grpc = list(token = "x")))),
        said(mlb_load(paste0(base, "slow"), options = list(grpc = list(tokn = "x")))),
        said({ closed <- mlb_load(paste0(base, "slow")); close(closed); close(closed); predict(closed, list(x = 1)) }), sep = "\n")
    """
    assert r_host.run(code, host.uri("")).splitlines() == [
        "mlbridge_not_found NOT_FOUND NotFoundError",
        "mlbridge_not_found NOT_FOUND NotFoundError",
        "mlbridge_unavailable UNAVAILABLE BridgeError",
        "mlbridge_internal INTERNAL InferenceError",
        "mlbridge_deadline_exceeded DEADLINE_EXCEEDED BridgeTimeoutError",
        "mlbridge_invalid_argument INVALID_ARGUMENT InputError",
        "mlbridge_invalid_argument INVALID_ARGUMENT InputError",
        "mlbridge_invalid_argument INVALID_ARGUMENT InputError",
        "mlbridge_failed_precondition FAILED_PRECONDITION ClosedError",
    ]


def test_an_interrupt_ends_a_waiting_call(host):
    code = """
      model <- mlbridge::mlb_load(commandArgs(TRUE)[1])
      cat("waiting\\n")
      flush(stdout())
      cat(tryCatch({ predict(model, list(x = 60)); "answered" }, interrupt = function(e) "interrupted"))
      invisible(predict(model, list(x = 0)))
      cat(" and well")
    """
    waiting = r_host.subprocess.Popen(
        ["Rscript", "-e", code, host.uri("slow")],
        env=r_host.environment(),
        stdout=r_host.subprocess.PIPE,
        stderr=r_host.subprocess.PIPE,
        text=True,
    )
    assert waiting.stdout.readline() == "waiting\n"
    time.sleep(0.5)
    waiting.send_signal(signal.SIGINT)
    out, err = waiting.communicate(timeout=60)
    assert out == "interrupted and well", err


def test_tls_with_a_token_and_with_client_certificates(certificates):
    code = """
      arguments <- commandArgs(TRUE)
      options <- as.list(stats::setNames(arguments[c(FALSE, TRUE)], arguments[c(TRUE, FALSE)]))
      said <- tryCatch(predict(mlbridge::mlb_load(options$uri, options = list(grpc = options[-1])), list(x = 0.25))$x, mlbridge_error = function(e) e$code)
      cat(said)
    """
    keys = ["--key", certificates["server.key"], "--certificate", certificates["server.pem"], "--host", "0.0.0.0"]
    roots = ["root_certificates", certificates["ca.pem"]]
    mine = ["client_key", certificates["client.key"], "client_certificate", certificates["client.pem"]]
    cases = {
        ("--token", "correct-horse"): (["token", "correct-horse"], ["token", "wrong-horse"], "UNAUTHENTICATED"),
        ("--authority", certificates["ca.pem"]): (mine, [], "UNAVAILABLE"),
    }
    for protection, (right, wrong, code_of_wrong) in cases.items():
        with Host(*keys, *protection) as secure:
            uri = f"grpcs://localhost:{secure.address.rpartition(':')[2]}/slow"
            assert r_host.run(code, "uri", uri, *roots, *right) == "0.25"
            assert r_host.run(code, "uri", uri, *roots, *wrong) == code_of_wrong
            pairs = [*roots, *right]
            with mb.load(uri, options={"grpc": dict(zip(pairs[::2], pairs[1::2]))}) as model:
                assert model.run({"x": [0.5]})["x"].tolist() == [0.5]


def test_an_address_that_others_reach_needs_protection():
    code = """
      model <- mlbridge::mlb_wrap(lm(dist ~ speed, cars))
      said <- function(...) tryCatch(mlbridge::mlb_serve(list(m = model), ...), mlbridge_error = function(e) cat(e$code, ""))
      said("0.0.0.0:0"); said("0.0.0.0:0", token = "long-enough"); said("127.0.0.1:0", token = "short"); said("nowhere"); said("127.0.0.1:70000")
    """
    assert r_host.run(code).split() == ["INVALID_ARGUMENT"] * 5


def test_a_taken_port_is_refused(host):
    code = "tryCatch(mlbridge::mlb_serve(list(m = lm(dist ~ speed, cars)), commandArgs(TRUE)[1]), mlbridge_error = function(e) cat(e$code))"
    assert r_host.run(code, host.address) == "UNAVAILABLE"
