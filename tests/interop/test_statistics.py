"""What R's and the JVM's servers tell of their models, and streams of requests: by a stock client and by Python's own."""

from __future__ import annotations

import queue
import shutil
import time
from dataclasses import dataclass

import grpc
import jvm_host
import numpy as np
import pytest
import r_host
import tritonclient.grpc as tg
from tritonclient.utils import InferenceServerException

import mlbridge as mb
from mlbridge import errors
from mlbridge.runtimes import wire
from mlbridge.runtimes.jvm.command import JAR

pb = wire.inference_pb2
PARTS = ("queue", "compute_input", "compute_infer", "compute_output")


@dataclass
class Place:
    """A server with an echo of doubles, and a model that fails as asked."""

    language: str
    address: str
    output: str  # the echo's; its input and itself are called float64
    failing: pb.ModelInferRequest
    slow: pb.ModelInferRequest  # takes ten seconds or more

    def uri(self):
        return f"grpc://{self.address}/float64"


def request_of(model, name, datatype, array):
    request = pb.ModelInferRequest(model_name=model)
    request.inputs.add(name=name, datatype=datatype, shape=array.shape)
    request.raw_input_contents.append(wire.pack_array(array, datatype))
    return request


@pytest.fixture(scope="module", params=[pytest.param("r", marks=pytest.mark.r), pytest.param("jvm", marks=pytest.mark.jvm)])
def place(request, tmp_path_factory):
    if request.param == "r":
        if r_host.missing():
            pytest.skip(r_host.missing())
        with r_host.Host() as host:
            bad, slow = (request_of(m, "x", "FP64", np.array([x])) for m, x in (("bad", 1.0), ("slow", 30.0)))
            yield Place("r", host.address, "float64", bad, slow)
        return
    if shutil.which("java") is None or not (JAR.is_file() and jvm_host.EXAMPLES.is_file()):
        pytest.skip("Java is not installed, or the jars are not built: make jvm")
    models = [f"float64={jvm_host.example('Echo')}", "--option", "float64.dtypes=float64", f"bad={jvm_host.example('Misbehaving')}"]
    with jvm_host.Host(tmp_path_factory.mktemp("host"), *models) as host:
        bad, slow = (request_of("bad", "what", "BYTES", np.array([w], object)) for w in ("throw", "sleep"))
        yield Place("jvm", host.address, "float64_out", bad, slow)


@pytest.fixture
def stock(place):
    with tg.InferenceServerClient(place.address) as client:
        yield client


def told(client, model):
    """Return what the stock client reads of a model's statistics."""
    (stats,) = client.get_inference_statistics(model).model_stats
    return stats


# ---------------------------------------------------------------- statistics


def test_every_request_is_counted_once_with_its_parts(place, stock):
    before = told(stock, "float64")
    with mb.load(place.uri()) as model:
        for rows in (1, 1, 5):
            model.run({"float64": np.zeros((rows, 2))})
        with pytest.raises(errors.InputError):
            model.run({"float64": np.full((1, 2), "x", object)})
    with grpc.insecure_channel(place.address) as channel, pytest.raises(grpc.RpcError):
        infer(channel, request_of("float64", "float64", "BYTES", np.array([["x"]], object)))
    after = told(stock, "float64")

    def more(field):
        return getattr(after, field) - getattr(before, field)

    assert (more("inference_count"), more("execution_count")) == (7, 3)
    assert after.last_inference > 1_600_000_000_000
    new, old = after.inference_stats, before.inference_stats
    assert (new.success.count - old.success.count, new.fail.count - old.fail.count) == (3, 1)  # one was refused by the client itself
    assert new.fail.ns > old.fail.ns
    spent = 0
    for part in PARTS:
        assert getattr(new, part).count == new.success.count
        spent += getattr(new, part).ns
    assert new.compute_infer.ns > old.compute_infer.ns
    assert spent == pytest.approx(new.success.ns, rel=0.01)  # R reads its clock once more at the end
    sizes = {b.batch_size: b.compute_infer.count for b in after.batch_stats}
    earlier = {b.batch_size: b.compute_infer.count for b in before.batch_stats}
    assert {s: n - earlier.get(s, 0) for s, n in sizes.items() if n != earlier.get(s, 0)} == {1: 2, 5: 1}


def infer(channel, request, **keywords):
    pack, read = pb.ModelInferRequest.SerializeToString, pb.ModelInferResponse.FromString
    return channel.unary_unary("/inference.GRPCInferenceService/ModelInfer", pack, read)(request, timeout=30, **keywords)


def test_a_failure_inside_is_counted(place, stock):
    before = told(stock, "bad")
    with grpc.insecure_channel(place.address) as channel, pytest.raises(grpc.RpcError):
        infer(channel, place.failing)
    after = told(stock, "bad")
    assert after.inference_stats.fail.count == before.inference_stats.fail.count + 1
    assert (after.execution_count, after.inference_stats.success.count) == (before.execution_count, before.inference_stats.success.count)


def test_without_a_name_all_models_are_told_and_unknown_ones_are_not_found(stock):
    names = {(s.name, s.version) for s in stock.get_inference_statistics().model_stats}
    assert {("float64", "1"), ("bad", "1")} <= names
    with pytest.raises(InferenceServerException) as caught:
        stock.get_inference_statistics("nothing")
    assert caught.value.status() == "StatusCode.NOT_FOUND"


def test_the_server_names_what_it_tells(stock):
    assert {"statistics", "model_configuration"} <= set(stock.get_server_metadata().extensions)


# ---------------------------------------------------------------- configuration


def test_the_configuration_is_that_of_the_metadata(place, stock):
    config, metadata = stock.get_model_config("float64").config, stock.get_model_metadata("float64")
    assert (config.name, config.platform) == ("float64", metadata.platform)
    assert config.backend == metadata.platform.removeprefix("mlbridge_")
    assert config.max_batch_size > 1000  # rows are independent
    assert [(t.name, t.data_type) for t in config.input] == [("float64", pb.DataType.Value("TYPE_FP64"))]
    assert [(t.name, t.data_type) for t in config.output] == [(place.output, pb.DataType.Value("TYPE_FP64"))]
    for mine, its in ((config.input, metadata.inputs), (config.output, metadata.outputs)):
        assert [list(t.dims) for t in mine] == [list(t.shape)[1:] for t in its]
    with pytest.raises(InferenceServerException) as caught:
        stock.get_model_config("nothing")
    assert caught.value.status() == "StatusCode.NOT_FOUND"


# ---------------------------------------------------------------- streams


def tensor(array):
    made = tg.InferInput("float64", list(array.shape), "FP64")
    made.set_data_from_numpy(array)
    return [made]


def test_a_stream_answers_in_order_and_outlives_a_refusal(place, stock):
    answers: queue.Queue = queue.Queue()
    stock.start_stream(lambda result, error: answers.put((result, error)))
    for i in range(20):
        name = "nothing" if i == 7 else "float64"
        stock.async_stream_infer(name, tensor(np.full((1, 2), float(i))), request_id=str(i), enable_empty_final_response=i == 3)
    for i in range(20):
        result, error = answers.get(timeout=60)
        if i == 7:
            assert "nothing" in error.message()
            continue
        assert error is None
        assert result.get_response().id == str(i)
        assert ("triton_final_response" in result.get_response().parameters) == (i == 3)
        assert result.as_numpy(place.output).tolist() == [[float(i)] * 2]
    stock.stop_stream()


def stream(channel, requests, **keywords):
    pack, read = pb.ModelInferRequest.SerializeToString, pb.ModelStreamInferResponse.FromString
    return channel.stream_stream("/inference.GRPCInferenceService/ModelStreamInfer", pack, read)(iter(requests), timeout=60, **keywords)


def test_a_stream_ends_at_an_error_where_its_header_asks_so(place):
    fine = request_of("float64", "float64", "FP64", np.ones((1, 1)))
    unknown = pb.ModelInferRequest(model_name="nothing", id="u")
    with grpc.insecure_channel(place.address) as channel:
        answers = list(stream(channel, [unknown, fine]))
        assert [bool(a.error_message) for a in answers] == [True, False]
        assert answers[0].infer_response.id == "u"
        call = stream(channel, [fine, unknown, fine], metadata=[("triton_grpc_error", "true")])
        assert next(call).infer_response.raw_output_contents == [np.float64(1.0).tobytes()]
        with pytest.raises(grpc.RpcError) as caught:
            next(call)
        assert caught.value.code() is grpc.StatusCode.NOT_FOUND
        assert dict(caught.value.trailing_metadata())["mlbridge-error"] == "NotFoundError"


def test_a_malformed_message_in_a_stream_is_told(place):
    with grpc.insecure_channel(place.address) as channel:
        read = pb.ModelStreamInferResponse.FromString
        call = channel.stream_stream("/inference.GRPCInferenceService/ModelStreamInfer", None, read)(iter([b"\xff\xff"]), timeout=60)
        (answer,) = list(call)
    assert "well-formed" in answer.error_message


def test_a_stream_that_is_cancelled_ends_its_request(place, stock):
    name = place.slow.model_name
    before = told(stock, name).inference_stats.fail.count
    with grpc.insecure_channel(place.address) as channel:
        call = stream(channel, [place.slow])
        time.sleep(0.5)  # the model is asleep in it now
        call.cancel()
        until = time.monotonic() + 20  # not as long as the model wants
        while told(stock, name).inference_stats.fail.count == before:
            assert time.monotonic() < until
            time.sleep(0.02)
    with mb.load(place.uri()) as echo:
        assert echo.run({"float64": [[4.0]]}, timeout_s=20)[place.output].tolist() == [[4.0]]
