"""Unary calls that the polling thread begins itself, and brief ones that it answers: nothing else may differ."""

from __future__ import annotations

import threading

import grpc
import numpy as np
import pytest
from google.protobuf.message import DecodeError
from onnx import TensorProto, helper
from served_models import _graph, doubler, rows
from test_server_faults import INFER, Line, _until, message

import mlbridge as mb
from mlbridge.runtimes import wire
from mlbridge.server import batching, direct
from mlbridge.server.caller import Caller
from mlbridge.server.service import Failed

pb = wire.inference_pb2


@pytest.fixture(scope="module", params=["direct", "usual"])
def way(request):
    """Both ways of a call: with the inside of grpcio as expected, and with another one."""
    if request.param == "direct":
        yield request.param
        return
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(direct, "fits", lambda: False)
        yield request.param


@pytest.fixture(scope="module")
def fitted():
    from sklearn.linear_model import LogisticRegression

    x = np.random.default_rng(0).normal(size=(200, 3))
    return LogisticRegression().fit(x, (x[:, 0] > x[:, 1]).astype(int)), x


@pytest.fixture(scope="module")
def server(way, fitted, tmp_path_factory):
    """A converted model, a graph that fails on some values, and a model in Python; all of them count as brief."""
    make, path = helper.make_node, tmp_path_factory.mktemp("m") / "pick.onnx"
    table = helper.make_tensor("table", TensorProto.DOUBLE, [4], [10.0, 11.0, 12.0, 13.0])
    pick = [make("Constant", [], ["t"], value=table), make("Gather", ["t", "at"], ["y"])]
    path.write_bytes(_graph(pick, [("at", TensorProto.INT64, ["rows"])], [("y", TensorProto.DOUBLE, ["rows"])]).SerializeToString())
    picker = mb.load(path, signature=mb.Signature([mb.TensorSpec("at", "int64", ("rows",))], [mb.TensorSpec("y", "float64", ("rows",))]))
    model, session = doubler(slow_s=0.0)
    logistic = mb.wrap(fitted[0], sample=fitted[1])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(batching, "_SHORTER_THAN_WAITING_S", 60.0)
        with mb.serve({"logistic": logistic, "pick": picker, "double": model}, grpc="127.0.0.1:0") as running:
            running.session = session
            yield running
    for each in (model, logistic, picker):
        each.close()


@pytest.fixture
def line(server):
    with Line(server) as line:
        yield line


@pytest.fixture
def at_once(server, monkeypatch):
    """Whether each call was the polling thread's: an answer, or an error."""
    service, seen = server._service, []
    inner = service.infer_at_once

    def watched(message, left_s):
        seen.append(True)
        seen[-1] = (answer := inner(message, left_s)) is not None
        return answer

    monkeypatch.setattr(service, "infer_at_once", watched)
    return seen


def _logistic(x, request_id=""):
    request = pb.ModelInferRequest(model_name="logistic", id=request_id)
    request.inputs.add(name="features", datatype="FP64", shape=x.shape)
    request.raw_input_contents.append(x.tobytes())
    return request


def _pick(at):
    request = pb.ModelInferRequest(model_name="pick")
    request.inputs.add(name="at", datatype="INT64", shape=[len(at)])
    request.raw_input_contents.append(np.array(at, np.int64).tobytes())
    return request.SerializeToString()


def test_the_grpcio_that_is_installed_has_the_inside_that_is_used():
    assert direct.fits()


def test_another_inside_is_noticed(monkeypatch):
    monkeypatch.setattr(direct._server, "_status", lambda rpc_event, state: None)
    assert not direct.fits()
    monkeypatch.delattr(direct._server, "_status")
    assert not direct.fits()


def test_brief_requests_get_the_models_own_answers(line, fitted, way, at_once):
    estimator, x = fitted
    for i in range(100):
        sample = x[i : i + 1 + i % 3]
        answer = pb.ModelInferResponse.FromString(line.raw(_logistic(sample, f"r{i}").SerializeToString(), timeout=30))
        found = {o.name: (o, raw) for o, raw in zip(answer.outputs, answer.raw_output_contents)}
        spec, raw = found["probabilities"]
        np.testing.assert_allclose(np.frombuffer(raw).reshape(spec.shape), estimator.predict_proba(sample), rtol=1e-12)
        np.testing.assert_array_equal(np.frombuffer(found["label"][1], np.int64), estimator.predict(sample))
        assert answer.id == f"r{i}"
    assert at_once == ([False] * 3 + [True] * 97 if way == "direct" else [])  # the first of each number of rows was not known yet


def test_a_near_deadline_several_outputs_or_a_trace_is_not_for_the_polling_thread(server, fitted, line, monkeypatch):
    ask = server._service.infer_at_once
    data = _logistic(fitted[1][:1]).SerializeToString()
    for _ in range(20):
        line.raw(data, timeout=30)
    assert ask(data, 30.0) is not None
    assert ask(data, 0.01) is None
    some = _logistic(fitted[1][:1])
    some.outputs.add(name="label")
    answer = pb.ModelInferResponse.FromString(line.raw(some.SerializeToString(), timeout=30))
    assert [o.name for o in answer.outputs] == ["label"]
    assert ask(some.SerializeToString(), 30.0) is None
    monkeypatch.setattr(server._service, "_tracer", object())
    assert ask(data, 30.0) is None


@pytest.mark.parametrize("cases", [2_000, pytest.param(100_000, marks=pytest.mark.full)])
def test_what_is_answered_at_once_is_what_the_usual_way_answers(server, fitted, cases):
    """Bytes changed, cut off and put in: where the polling thread has an answer, it is the other's, to the bit."""
    service, rng, alike = server._service, np.random.default_rng(7), 0

    def outcome(ask, data, *how):
        try:
            return ask(data, *how)
        except Failed as failed:
            return failed.reply.code
        except DecodeError:
            return "malformed"

    bases = [_logistic(fitted[1][:n], "id" * (n % 2)).SerializeToString() for n in (1, 2, 3)] + [_pick([1, 2])]
    for base in bases:
        service.infer(base, Caller())
    for i in range(cases):
        data = bytearray(bases[i % len(bases)])
        for _ in range(int(rng.integers(0, 4))):
            at, kind = int(rng.integers(0, len(data))), rng.random()
            data[at : at + (kind < 0.8)] = b"" if kind < 0.1 else bytes([rng.integers(0, 256)])
        usual, once = outcome(service.infer, bytes(data), Caller()), outcome(service.infer_at_once, bytes(data), 30.0)
        if once is not None:
            assert once == usual, bytes(data)
            alike += 1
    assert alike > cases / 4


def test_a_brief_request_that_fails_inside_is_internal_with_a_correlation_id(line, at_once, way):
    for _ in range(20):
        answer = pb.ModelInferResponse.FromString(line.raw(_pick([3]), timeout=30))
        assert np.frombuffer(answer.raw_output_contents[0]) == [13.0]
    for _ in range(5):
        error = line.code(_pick([99]))
        assert error.code() is grpc.StatusCode.INTERNAL
        trailing = dict(error.trailing_metadata())
        assert trailing["mlbridge-error"] == "InferenceError"
        assert trailing["mlbridge-correlation-id"] in error.details()
        assert "Gather" not in error.details()
    assert at_once[-5:] == ([True] * 5 if way == "direct" else [])
    assert np.frombuffer(pb.ModelInferResponse.FromString(line.raw(_pick([1]), timeout=30)).raw_output_contents[0]) == [11.0]


def test_models_in_python_and_graphs_with_loops_never_run_on_the_polling_thread(server, line, at_once):
    assert [s.prompt for s in server._repository.served()] == [False, True, True]
    names, run = set(), server.session.run

    def watched(feeds, /, **keywords):
        names.add(threading.current_thread().name)
        return run(feeds, **keywords)

    served = server._repository.hold("double")
    served.release()
    before, served.model.run_checked = served.model.run_checked, watched
    try:
        for _ in range(30):
            line.ask(rows(1))
    finally:
        served.model.run_checked = before
    assert all(n.startswith("mlbridge-grpc") for n in names)
    assert not any(at_once)


def test_a_graph_with_a_loop_is_not_prompt(tmp_path):
    make, info = helper.make_node, helper.make_tensor_value_info
    body = helper.make_graph(
        [make("Identity", ["go"], ["go_on"]), make("Add", ["a", "a"], ["b"])],
        "body",
        [info("i", TensorProto.INT64, []), info("go", TensorProto.BOOL, []), info("a", TensorProto.DOUBLE, ["N"])],
        [info("go_on", TensorProto.BOOL, []), info("b", TensorProto.DOUBLE, ["N"])],
    )
    three = helper.make_tensor("three", TensorProto.INT64, [], [3])
    nodes = [make("Constant", [], ["n"], value=three), make("Loop", ["n", "", "x"], ["y"], body=body)]
    path = tmp_path / "loop.onnx"
    path.write_bytes(_graph(nodes, [("x", TensorProto.DOUBLE, ["N"])], [("y", TensorProto.DOUBLE, ["N"])]).SerializeToString())
    with mb.serve({"loop": path}, grpc="127.0.0.1:0") as server:
        assert not server._repository.served()[0].prompt


def test_all_outputs_asked_for_by_name_are_as_if_none_was(server, line, fitted):
    request = _logistic(fitted[1][:1])
    without = line.raw(request.SerializeToString(), timeout=30)
    for name in ("label", "probabilities"):  # as stock clients ask
        request.outputs.add(name=name)
    data = request.SerializeToString()
    assert [line.raw(data, timeout=30) for _ in range(20)] == [without] * 20
    assert server._service.infer_at_once(data, 30.0) == without


def test_a_call_without_a_message_is_unimplemented_and_the_server_lives_on(server, line, fitted):
    with pytest.raises(grpc.RpcError) as caught:
        line.channel.stream_unary(INFER)(iter([]), timeout=30)
    assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED
    line.raw(_logistic(fitted[1][:1]).SerializeToString(), timeout=30)


def test_clients_that_keep_their_message_to_themselves_take_no_thread(line, fitted, way):
    gate, calls = threading.Event(), []

    class Silent:
        def __iter__(self):
            return self

        def __next__(self):
            gate.wait(60)
            raise StopIteration

    for _ in range(40):
        calls.append(line.channel.stream_unary(INFER).future(Silent(), timeout=60))
    for _ in range(50):
        line.raw(_logistic(fitted[1][:1]).SerializeToString(), timeout=30)
    for call in calls[:20]:
        call.cancel()
    gate.set()
    for call in calls[20:]:
        assert call.exception(timeout=60).code() is grpc.StatusCode.UNIMPLEMENTED
    line.raw(_logistic(fitted[1][:1]).SerializeToString(), timeout=30)


def test_a_drain_refuses_what_would_be_answered_at_once(fitted, monkeypatch):
    monkeypatch.setattr(batching, "_SHORTER_THAN_WAITING_S", 60.0)
    logistic = mb.wrap(fitted[0], sample=fitted[1])
    data = _logistic(fitted[1][:1]).SerializeToString()
    server = mb.serve({"logistic": logistic}, grpc="127.0.0.1:0")
    with Line(server) as line:
        for _ in range(20):
            line.raw(data, timeout=30)
        ask = server._service.infer_at_once
        assert ask(data, 30.0) is not None
        assert server.stop(10.0)
        assert ask(data, 30.0) is None
    logistic.close()


def test_calls_beyond_the_limit_are_refused_and_those_that_ended_make_room(way):
    model, session = doubler()
    with mb.serve({"double": model}, grpc="127.0.0.1:0", max_calls=4, max_streams=1) as server:
        apart = {"options": [("grpc.use_local_subchannel_pool", 1)]}
        with Line(server, **apart) as line, Line(server, **apart) as other:
            session.open.clear()
            data, state = message(rows(1)).SerializeToString(), server._transports["grpc"]._server._state
            held = [each.raw.future(data, timeout=60) for each in (line, line, line, line, other)]
            _until(lambda: state.active_rpc_count == 5)
            assert other.code(data).code() is grpc.StatusCode.RESOURCE_EXHAUSTED
            session.open.set()
            for call in held:
                call.result(60)
            for _ in range(50):
                line.ask(rows(1))
            _until(lambda: state.active_rpc_count == 0)
    model.close()
