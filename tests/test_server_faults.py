"""Faults and abuse: failures inside models, shutdown, swaps, access, limits, garbage on the wire, overload."""

from __future__ import annotations

import logging
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import grpc
import numpy as np
import pytest
from served_models import Doubler, doubler, rows
from test_wire import _random_request

import mlbridge as mb
from mlbridge.errors import InputError, UnavailableError
from mlbridge.model import Model
from mlbridge.runtimes import wire
from mlbridge.server.access import TABLE, Access, check_address
from mlbridge.server.replies import HTTP_STATUS, inside

pb = wire.inference_pb2
INFER = "/inference.GRPCInferenceService/ModelInfer"


def message(x, name="double", version="", request_id=""):
    request = pb.ModelInferRequest(model_name=name, model_version=version, id=request_id)
    request.inputs.add(name="x", datatype="FP64", shape=x.shape)
    request.raw_input_contents.append(x.tobytes())
    return request


class Line:
    """A bare channel: bytes in, messages out."""

    def __init__(self, server, kind="grpc", **keywords):
        self.channel = grpc.insecure_channel(server if isinstance(server, str) else server.addresses[kind], **keywords)
        self.raw = self.channel.unary_unary(INFER)

    def ask(self, x, timeout=30, **keywords):
        answer = pb.ModelInferResponse.FromString(self.raw(message(x, **keywords).SerializeToString(), timeout=timeout))
        return np.frombuffer(answer.raw_output_contents[0]).reshape(answer.outputs[0].shape), answer

    def code(self, data, **keywords):
        try:
            self.raw(data, timeout=30, **keywords)
        except grpc.RpcError as exc:
            return exc
        return None

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.channel.close()


@pytest.fixture
def served():
    model, session = doubler(poison=666.0)
    with mb.serve({"double": model}, grpc="127.0.0.1:0", http="127.0.0.1:0") as server, Line(server) as line:
        yield server, line, session
        session.open.set()
    model.close()


# ---------------------------------------------------------------- failures inside


def test_a_failure_inside_the_model_is_internal_and_tells_nothing(served, caplog):
    _, line, _ = served
    with caplog.at_level(logging.ERROR, "mlbridge.server"):
        failure = line.code(message(np.full((1, 3), 666.0)).SerializeToString())
    assert failure.code() is grpc.StatusCode.INTERNAL
    assert "secret" not in failure.details()
    assert "poison" not in failure.details()
    trailing = dict(failure.trailing_metadata())
    assert trailing["mlbridge-error"] == "InferenceError"
    record = next(r for r in caplog.records if getattr(r, "correlation_id", None) == trailing["mlbridge-correlation-id"])
    assert "poisoned" in record.exc_text or "poisoned" in str(record.exc_info)


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (mb.errors.InputError("/secret"), "INTERNAL"),
        (mb.errors.WorkerDiedError("/secret"), "UNAVAILABLE"),
        (mb.errors.BridgeTimeoutError("/secret"), "DEADLINE_EXCEEDED"),
        (mb.errors.CancelledError("/secret"), "CANCELLED"),
        (mb.errors.OverloadedError("/secret"), "RESOURCE_EXHAUSTED"),
        (mb.errors.UntrustedArtifactError("/secret"), "INTERNAL"),
        (KeyError("/secret"), "INTERNAL"),
    ],
    ids=lambda v: getattr(v, "__class__", v).__name__ if isinstance(v, Exception) else v,
)
def test_failures_inside_are_told_by_place_and_class(error, code):
    reply = inside(error, "m", "1")
    assert reply.code.name == code
    assert "secret" not in reply.text
    assert reply.code in HTTP_STATUS


def test_a_malformed_message_is_an_invalid_argument(served):
    _, line, _ = served
    for data in (b"\xff", b"\x0a\xff", b"\x0a\x02\xff\xfe", os.urandom(50)):
        failure = line.code(data)
        assert failure is None or failure.code() in (grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.NOT_FOUND)


def test_both_encodings_and_wrong_counts_are_invalid_arguments(served):
    _, line, _ = served
    both = message(rows(1))
    both.inputs[0].contents.fp64_contents.extend([1.0, 2.0, 3.0])
    many = message(rows(1))
    many.raw_input_contents.append(b"")
    for request in (both, many):
        assert line.code(request.SerializeToString()).code() is grpc.StatusCode.INVALID_ARGUMENT


def test_zero_rows_are_answered_with_zero_rows(served):
    _, line, session = served
    got, _ = line.ask(np.empty((0, 3)))
    assert got.shape == (0, 3)
    assert session.sizes == []


def test_a_client_that_hangs_up_frees_the_queue(served):
    server, line, session = served
    batcher = server._repository.served()[0].batcher
    batcher._lanes = 1
    session.open.clear()
    data = message(rows(1)).SerializeToString()
    running = line.raw.future(data)
    session.entered.acquire()
    waiting = [line.raw.future(data) for _ in range(5)]
    _until(lambda: batcher.waiting == 5)
    for call in waiting[1:]:
        call.cancel()
    _until(lambda: batcher.waiting == 1)
    session.open.set()
    assert running.result(timeout=30)
    assert waiting[0].result(timeout=30)


def _until(condition, limit_s=30.0):
    ends = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < ends, "it never happened"
        threading.Event().wait(0.001)


# ---------------------------------------------------------------- versions and swaps


def test_versions_the_default_and_the_version_in_the_answer():
    models = {v: Model(Doubler(factor=f)) for v, f in (("1", 1.0), ("2", 2.0), ("10", 10.0))}
    with mb.serve({"double": models}, grpc="127.0.0.1:0") as server, Line(server) as line:
        for asked, factor, version in (("", 10.0, "10"), ("1", 1.0, "1"), ("2", 2.0, "2")):
            got, answer = line.ask(np.ones((1, 3)), version=asked)
            assert got[0, 0] == factor
            assert answer.model_version == version
    with mb.serve({"double": models}, grpc="127.0.0.1:0", default={"double": "2"}) as server, Line(server) as line:
        assert line.ask(np.ones((1, 3)))[1].model_version == "2"
    for model in models.values():
        model.close()


def test_a_swap_during_traffic_answers_every_request_from_exactly_one_version():
    sessions = [Doubler(factor=float(v)) for v in range(1, 7)]
    models = [Model(s) for s in sessions]
    wrong, answers, stop = [], Counter(), threading.Event()
    with mb.serve({"double": models[0]}, grpc="127.0.0.1:0") as server, Line(server) as line:

        def traffic():
            while not stop.is_set():
                got, answer = line.ask(np.ones((2, 3)))
                answers[answer.model_version] += 1
                if not (got == float(answer.model_version)).all():
                    wrong.append((answer.model_version, got))

        with ThreadPoolExecutor(4) as pool:
            running = [pool.submit(traffic) for _ in range(4)]
            for v in range(2, 7):
                _until(lambda v=v: answers[str(v - 1)] > 20)
                server.load("double", models[v - 1], version=str(v), default=str(v))
                server.unload("double", str(v - 1))
            _until(lambda: answers["6"] > 20)
            stop.set()
            for future in running:
                future.result(30)
    assert not wrong
    for model in models:
        model.close()


def test_a_model_that_came_from_a_path_is_closed_after_its_last_request(tmp_path):
    from served_models import simple

    path = tmp_path / "simple.onnx"
    path.write_bytes(simple())
    with mb.serve({"simple": path}, grpc="127.0.0.1:0") as server:
        held = server._repository.hold("simple")
        server.unload("simple")
        assert not held.model._closed
        held.release()
        assert held.model._closed


# ---------------------------------------------------------------- shutdown

SERVER = """
import sys
sys.path[:0] = [{tests!r}]
from served_models import doubler
from mlbridge.server import run
model, session = doubler(slow_s=0.005)
code = run({{"double": model}}, grpc="127.0.0.1:0", on_ready=lambda s: print(s.addresses["grpc"], flush=True))
model.close()
sys.exit(code)
"""


@pytest.mark.parametrize("seed", [*range(5), *(pytest.param(i, marks=pytest.mark.full) for i in range(5, 50))])
def test_a_drain_under_load_loses_nothing_that_was_accepted(seed):
    code = SERVER.format(tests=os.path.dirname(__file__))
    child = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    address = child.stdout.readline().strip()
    results, signalled = [], threading.Event()
    with Line(address) as line:

        def client(k):
            for i in range(10_000):
                before = not signalled.is_set()
                x = np.full((1, 3), float(k * 1000 + i))
                try:
                    results.append((before, (line.ask(x)[0] == x * 2).all()))
                except grpc.RpcError as exc:
                    results.append((before, exc.code().name))
                    return

        with ThreadPoolExecutor(8) as pool:
            clients = [pool.submit(client, k) for k in range(8)]
            _until(lambda: len(results) > 40 + 5 * seed)
            signalled.set()
            child.send_signal(signal.SIGTERM)
            for future in clients:
                future.result(60)
    assert child.wait(60) == 0
    child.stdout.close()
    tally = Counter(r for _, r in results)
    assert set(tally) == {True, "UNAVAILABLE"}, tally
    assert tally["UNAVAILABLE"] == 8


def test_a_second_sigterm_ends_the_process_at_once():
    code = SERVER.format(tests=os.path.dirname(__file__)).replace("slow_s=0.005", "slow_s=600")
    child = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    with Line(child.stdout.readline().strip()) as line:
        stuck = line.raw.future(message(rows(1)).SerializeToString())
        _until(lambda: line.code(b"\xff") is not None)
        child.send_signal(signal.SIGTERM)
        _until(lambda: line.code(message(rows(1), name="nothing").SerializeToString()).code() is grpc.StatusCode.UNAVAILABLE)
        child.send_signal(signal.SIGTERM)
        assert child.wait(30) == 128 + signal.SIGTERM
        child.stdout.close()
        assert stuck.code() is not grpc.StatusCode.OK


def test_health_says_not_serving_before_work_is_refused():
    from grpc_health.v1 import health_pb2, health_pb2_grpc

    model, session = doubler()
    server = mb.serve({"double": model}, grpc="127.0.0.1:0")
    with Line(server) as line, ThreadPoolExecutor(2) as pool:
        watch = health_pb2_grpc.HealthStub(line.channel).Watch(health_pb2.HealthCheckRequest(service=""))
        assert next(watch).status == health_pb2.HealthCheckResponse.SERVING
        session.open.clear()
        running = line.raw.future(message(rows(1)).SerializeToString())
        session.entered.acquire()
        stopping = pool.submit(server.stop, 30.0)
        assert next(watch).status == health_pb2.HealthCheckResponse.NOT_SERVING
        session.open.set()
        assert running.result(timeout=30)
        assert stopping.result(30)
        watch.cancel()
    assert server.stop()
    model.close()


def test_two_servers_live_in_one_process_and_a_taken_port_is_a_typed_error():
    model, _ = doubler()
    with mb.serve({"a": model}, grpc="127.0.0.1:0") as one, mb.serve({"b": model}, http="127.0.0.1:0") as two:
        assert one.models == {"a": ["1"]}
        assert two.models == {"b": ["1"]}
        with pytest.raises(UnavailableError, match="cannot listen"):
            mb.serve({"c": model}, grpc=one.addresses["grpc"])
        with pytest.raises(UnavailableError, match="cannot listen"):
            mb.serve({"c": model}, http=two.addresses["http"])
    model.close()


# ---------------------------------------------------------------- access


def test_every_rpc_has_a_role_and_what_is_unknown_is_denied():
    methods = {
        f"/{service.full_name}/{m.name}"
        for file in (wire.inference_pb2, wire.mlbridge_pb2)
        for service in file.DESCRIPTOR.services_by_name.values()
        for m in service.methods
    }
    assert methods <= set(TABLE)
    assert {TABLE[m] for m in methods} == {"open", "use", "operate"}
    assert {m.rpartition("/")[2] for m in methods if TABLE[m] == "operate"} == {
        "RepositoryIndex",
        "RepositoryModelLoad",
        "RepositoryModelUnload",
    }
    for access in (Access(), Access("a" * 20, operates=True)):
        with pytest.raises(mb.errors.AccessError):
            access.check("denied", b"Bearer " + b"a" * 20)


@pytest.mark.parametrize(
    "metadata", [(), (("authorization", "Bearer wrong-token"),), (("authorization", "secret-token"),)], ids=["none", "wrong", "bare"]
)
def test_without_the_right_token_every_call_but_health_is_unauthenticated(metadata):
    model, _ = doubler()
    with mb.serve({"double": model}, grpc="127.0.0.1:0", http="127.0.0.1:0", token="secret-token") as server, Line(server) as line:
        for method, role in TABLE.items():
            call = line.channel.stream_stream(method)
            try:
                list(call(iter([b""]), metadata=metadata, timeout=10) if "Watch" not in method else [])
                code = grpc.StatusCode.OK
            except grpc.RpcError as exc:
                code = exc.code()
            if role == "use":
                assert code is grpc.StatusCode.UNAUTHENTICATED, method
            if role == "operate":
                assert code is grpc.StatusCode.PERMISSION_DENIED, method
        assert line.code(message(rows(1)).SerializeToString(), metadata=(("authorization", "Bearer secret-token"),)) is None
    model.close()


def test_an_address_others_can_reach_needs_protection_or_a_word():
    for address in ("0.0.0.0:0", "[::]:0", "example.org:1"):
        with pytest.raises(InputError, match="other machines"):
            check_address(address, tls=None, token="t" * 20, insecure=False)
        assert check_address(address, tls=None, token=None, insecure=True)
    for address in ("localhost", "127.0.0.1", "a:b", ":1", "h:99999"):
        with pytest.raises(InputError):
            check_address(address, tls=None, token=None, insecure=False)
    assert check_address("[::1]:5", tls=None, token=None, insecure=False) == ("::1", 5)


def test_a_short_token_is_refused():
    model, _ = doubler()
    with pytest.raises(InputError, match="8 printable"):
        mb.serve({"double": model}, grpc="127.0.0.1:0", token="short")
    model.close()


# ---------------------------------------------------------------- limits and garbage


def test_a_message_over_the_limit_is_refused_and_a_larger_limit_takes_it():
    model, _ = doubler()
    x = rows(60_000)
    for limit, fits in ((1, False), (2, True)):
        with mb.serve({"double": model}, grpc="127.0.0.1:0", max_message_mib=limit) as server, Line(server) as line:
            failure = line.code(message(x).SerializeToString())
            assert (failure is None) == fits
            assert fits or failure.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    model.close()


def test_a_hundred_thousand_metadata_entries_are_refused_and_the_server_lives_on(served):
    server, line, _ = served
    with Line(server, options=(("grpc.max_metadata_size", 1 << 30),)) as other:
        assert other.code(message(rows(1)).SerializeToString(), metadata=[(f"k{i}", "v") for i in range(100_000)]) is not None
    assert line.ask(rows(1))[0].shape == (1, 3)


def test_half_open_connections_do_not_stop_the_others(served):
    server, line, _ = served
    host, _, port = server.addresses["grpc"].rpartition(":")
    idle = [socket.create_connection((host, int(port))) for _ in range(50)]
    try:
        idle[0].sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
        idle[1].sendall(os.urandom(1000))
        idle[2].sendall(b"GET / HTTP/1.1\r\n\r\n")
        assert line.ask(rows(2))[0].shape == (2, 3)
    finally:
        for s in idle:
            s.close()


def test_streams_beyond_the_limit_are_refused():
    model, _ = doubler()
    with mb.serve({"double": model}, grpc="127.0.0.1:0", max_streams=2) as server, Line(server) as line:
        method = line.channel.stream_stream("/inference.GRPCInferenceService/ModelStreamInfer")
        gates = [threading.Event() for _ in range(3)]

        def requests(gate):
            yield message(rows(1)).SerializeToString()
            gate.wait()

        calls = [method(requests(g), timeout=30) for g in gates[:2]]
        assert next(calls[0])
        assert next(calls[1])
        third = method(requests(gates[2]), timeout=30)  # only now: which of three at once is refused would be a race
        with pytest.raises(grpc.RpcError) as caught:
            next(third)
        assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        for gate in gates:
            gate.set()
    model.close()


def _wire_fuzz(served, cases, seed):
    _, line, _ = served
    rng = np.random.default_rng(seed)
    stop, wrong, right = threading.Event(), [], Counter()

    def valid(k):
        i = 0
        while not stop.is_set():
            i += 1
            x = np.random.default_rng(k * 100_000 + i).normal(size=(1 + i % 4, 3))
            got, answer = line.ask(x, request_id=f"{k}/{i}")
            if answer.id != f"{k}/{i}" or not (got == x * 2).all():
                wrong.append(i)
            right[k] += 1

    from mlbridge.signature import Signature

    signature: Signature = Doubler().signature
    codes: Counter = Counter()
    with ThreadPoolExecutor(3) as pool:
        traffic = [pool.submit(valid, k) for k in range(2)]
        for _ in range(cases):
            request = _random_request(rng, signature)
            request.model_name = str(rng.choice(["double", "double", "double", "", "x"]))
            data = bytearray(request.SerializeToString())
            if rng.random() < 0.4 and data:
                for i in rng.integers(0, len(data), 3):
                    data[i] = int(rng.integers(0, 256))
            failure = line.code(bytes(data))
            codes["OK" if failure is None else failure.code().name] += 1
        stop.set()
        for future in traffic:
            future.result(60)
    assert set(codes) <= {"OK", "INVALID_ARGUMENT", "NOT_FOUND", "UNIMPLEMENTED"}, codes
    assert not wrong
    assert right.total() > 100


@pytest.mark.timeout(280)
def test_five_thousand_fuzzed_requests_beside_valid_traffic(served):
    _wire_fuzz(served, 5_000, 21)


@pytest.mark.full
@pytest.mark.timeout(3600)
def test_a_hundred_thousand_fuzzed_requests_beside_valid_traffic(served):
    _wire_fuzz(served, 100_000, 22)


@pytest.mark.parametrize("resets", [2_000, pytest.param(100_000, marks=[pytest.mark.full, pytest.mark.timeout(3600)])])
def test_resetting_streams_over_and_over_leaves_the_server_well(served, resets):
    server, line, _ = served
    with Line(server) as other:
        data = message(rows(1)).SerializeToString()
        for _ in range(resets):
            other.raw.future(data).cancel()

    def answers():
        try:
            return line.ask(rows(1))[0].shape == (1, 3)
        except grpc.RpcError as exc:  # while the resets drain, gRPC itself may refuse a stream; nothing else may happen
            if exc.code() is not grpc.StatusCode.UNAVAILABLE:
                raise
            return False

    _until(answers)
    _until(lambda: server._service.running == 0)


def test_a_compressed_bomb_is_refused(served):
    _, line, _ = served
    bomb = message(np.zeros((2_000_000, 3))).SerializeToString()
    failure = line.code(bomb, compression=grpc.Compression.Gzip)
    assert failure.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert line.ask(rows(1))[0].shape == (1, 3)


def test_a_compressed_bomb_over_rest_is_refused(served):
    import urllib.error
    import urllib.request
    import zlib

    server, _, _ = served
    engine = zlib.compressobj(9, zlib.DEFLATED, 31)
    body = engine.compress(b" " * (64 << 20)) + engine.flush()
    request = urllib.request.Request(
        f"http://{server.addresses['http']}/v2/models/double/infer", data=body, headers={"Content-Encoding": "gzip"}
    )
    with pytest.raises(urllib.error.HTTPError) as caught:
        urllib.request.urlopen(request, timeout=30)
    assert caught.value.code == 429
    caught.value.close()


def test_overload_is_refused_with_a_pushback_and_what_is_accepted_is_right():
    session = Doubler(concurrency=1, slow_s=0.002)
    model = Model(session, name="double")
    codes, wrong, pushed = Counter(), [], []
    with mb.serve({"double": model}, grpc="127.0.0.1:0", max_queue=8, batching=False) as server, Line(server) as line:

        def client(k):
            for i in range(60):
                x = np.full((1, 3), float(k * 100 + i))
                try:
                    got, _ = line.ask(x)
                    codes["OK"] += 1
                    if not (got == x * 2).all():
                        wrong.append(k)
                except grpc.RpcError as exc:
                    codes[exc.code().name] += 1
                    pushed.append("grpc-retry-pushback-ms" in dict(exc.trailing_metadata()))

        with ThreadPoolExecutor(32) as pool:
            list(pool.map(client, range(32)))
    model.close()
    assert not wrong
    assert set(codes) <= {"OK", "RESOURCE_EXHAUSTED"}
    assert codes["OK"] > 100
    assert codes["RESOURCE_EXHAUSTED"] > 100
    assert all(pushed)


@pytest.mark.parametrize("calls", [1_000, pytest.param(60_000, marks=[pytest.mark.full, pytest.mark.timeout(3600)])])
def test_cancels_deadlines_and_disconnects_over_the_wire_touch_nobody_else(calls):
    model, session = doubler(concurrency=1, slow_s=0.0005)

    def client(k):
        rng, line, answered = np.random.default_rng(k), Line(server), 0
        for i in range(calls // 100):
            sent = []
            for j in range(25):
                x = np.full((int(rng.integers(1, 5)), 3), float(((k * 10_000) + i) * 100 + j))
                kind = rng.random()
                timeout = float(rng.uniform(0.001, 0.02)) if kind < 0.2 else 120
                sent.append((kind, x, line.raw.future(message(x).SerializeToString(), timeout=timeout)))
            for kind, _, call in sent:
                if 0.2 <= kind < 0.4:
                    call.cancel()
            if rng.random() < 0.1:  # hang up on all that is still open
                line.channel.close()
                line = Line(server)
                continue
            for kind, x, call in sent:
                if kind >= 0.4:
                    got = pb.ModelInferResponse.FromString(call.result(120))
                    assert got.raw_output_contents[0] == (x * 2).tobytes()
                    answered += 1
        line.channel.close()
        return answered

    with mb.serve({"double": model}, grpc="127.0.0.1:0", max_queue=1000) as server:
        with ThreadPoolExecutor(4) as pool:
            answered = sum(pool.map(client, range(4)))
        _until(lambda: server._service.running == 0)
    assert answered > calls / 4
    assert max(session.sizes) > 4
    model.close()


# ---------------------------------------------------------------- workers that die


@pytest.mark.parametrize("kills", [4, pytest.param(50, marks=pytest.mark.full)])
def test_workers_killed_under_load_give_typed_errors_and_never_a_wrong_answer(kills, tmp_path):
    from mlbridge.artifact import open_artifact
    from mlbridge.runtimes.python import PythonRuntime

    (tmp_path / "m.py").write_text("def run(feeds):\n    return {'y': feeds['x'] * 2}\n")
    session = PythonRuntime().load(open_artifact(tmp_path / "m.py"), signature=Doubler().signature, way="worker")
    codes, wrong, stop = Counter(), [], threading.Event()

    def client(k):
        i = 0
        with Line(server) as line:
            while not stop.is_set():
                i += 1
                x = np.full((1, 3), float(k * 100_000 + i))
                try:
                    got = line.ask(x)[0]
                except grpc.RpcError as exc:
                    codes[exc.code().name] += 1
                else:
                    codes["OK"] += 1
                    if not (got == x * 2).all():
                        wrong.append(x)

    with Model(session, name="double") as model, mb.serve({"double": model}, grpc="127.0.0.1:0") as server, ThreadPoolExecutor(4) as pool:
        clients = [pool.submit(client, k) for k in range(4)]
        try:
            for _ in range(kills):
                answered = codes["OK"]
                _until(lambda n=answered: codes["OK"] > n + 20, 120.0)
                os.kill(session.pool.pids[0], signal.SIGKILL)
            answered = codes["OK"]
            _until(lambda: codes["OK"] > answered + 20, 120.0)
        finally:
            stop.set()
        for future in clients:
            future.result(60)
    assert not wrong
    assert set(codes) <= {"OK", "UNAVAILABLE"}, codes
