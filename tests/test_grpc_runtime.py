"""The runtime `grpc`: addresses, dialects of other servers, errors, TLS and tokens, large batches."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import grpc
import numpy as np
import pytest
from served_models import Doubler, doubler, rows, simple, simple_string

import mlbridge as mb
from mlbridge.errors import (
    AccessError,
    BridgeError,
    BridgeTimeoutError,
    InferenceError,
    InputError,
    NotFoundError,
    OverloadedError,
    UnsupportedError,
)
from mlbridge.model import Model
from mlbridge.runtimes import wire
from mlbridge.runtimes.grpc import GrpcRuntime, Place
from mlbridge.server.repository import Repository
from mlbridge.server.service import Service
from mlbridge.server.settings import Settings
from mlbridge.server.transport import _Handlers

pb = wire.inference_pb2


@pytest.fixture
def double():
    model, session = doubler(poison=666.0)
    with mb.serve({"double": model}, grpc="127.0.0.1:0", max_message_mib=1) as server:
        yield server.addresses["grpc"], session
        session.open.set()
    model.close()


@pytest.mark.parametrize(
    "text",
    ["", "host/model", "host:1", "host:1/", "host:99999/m", "user:pw@host:1/m", "host:1/m?token=x", "host:1/m@x", "host:1/a/b"],
)
def test_an_address_that_is_none_is_refused(text):
    with pytest.raises(InputError, match="grpc://host:port/model"):
        Place.parse(text)


def test_addresses():
    assert Place.parse("h.example:8001/churn@12") == ("h.example:8001", "churn", "12")
    assert Place.parse("[::1]:5/m") == ("[::1]:5", "m", "")


def test_a_token_never_crosses_the_network_in_the_clear():
    with pytest.raises(InputError, match="in the clear"):
        GrpcRuntime().load("198.51.100.1:1/m", token="secret-token")


def test_nobody_there_is_a_bridge_error():
    with pytest.raises(BridgeError):
        mb.load("grpc://127.0.0.1:1/m", options={"grpc": {"connect_timeout_s": 5.0}})


def test_unknown_models_and_versions_are_not_found(double):
    for rest in ("nothing", "double@9"):
        with pytest.raises(NotFoundError):
            mb.load(f"grpc://{double[0]}/{rest}")


def test_errors_keep_their_class_and_code(double):
    with mb.load(f"grpc://{double[0]}/double") as model:
        with pytest.raises(InferenceError) as caught:
            model.run({"x": np.full((1, 3), 666.0)})
        assert "correlation id" in str(caught.value)
        assert "secret" not in str(caught.value)


def test_a_deadline_ends_the_call_and_the_connection_lives_on(double):
    address, session = double
    with mb.load(f"grpc://{address}/double") as model:
        session.open.clear()
        with pytest.raises(BridgeTimeoutError):
            model.run({"x": rows(1)}, timeout_s=0.2)
        session.open.set()
        np.testing.assert_array_equal(model.run({"x": rows(1)})["y"], rows(1) * 2)


def test_a_batch_larger_than_a_message_is_sent_in_parts(double):
    address, session = double
    x = rows(100_000)
    with mb.load(f"grpc://{address}/double", options={"grpc": {"max_message_mib": 1}}) as model:
        np.testing.assert_array_equal(model.run({"x": x})["y"], x * 2)
    assert len(session.sizes) > 2
    assert sum(session.sizes) == 100_000


def test_threads_share_one_connection(double):
    with mb.load(f"grpc://{double[0]}/double") as model, ThreadPoolExecutor(8) as pool:
        for seed, got in enumerate(pool.map(lambda s: model.run({"x": rows(2, seed=s)})["y"], range(64))):
            np.testing.assert_array_equal(got, rows(2, seed=seed) * 2)


def test_missing_values_and_infinities_arrive(double):
    x = np.array([[np.nan, np.inf, -np.inf], [0.0, -0.0, 5e-324]])
    with mb.load(f"grpc://{double[0]}/double") as model:
        assert model.run({"x": x})["y"].tobytes() == (x * 2).tobytes()


def test_what_overload_refused_is_tried_again_and_told_in_the_end():
    session = Doubler(concurrency=1)
    source = Model(session)
    with (
        mb.serve({"double": source}, grpc="127.0.0.1:0", max_queue=1) as server,
        ThreadPoolExecutor(4) as pool,
        mb.load(f"grpc://{server.addresses['grpc']}/double") as model,
    ):
        session.open.clear()
        held = [pool.submit(model.run, {"x": rows(1)}) for _ in range(2)]
        session.entered.acquire()
        batcher = server._repository.served()[0].batcher
        while batcher.waiting < 1:
            pass
        with pytest.raises(OverloadedError):
            model.run({"x": rows(1)})
        session.open.set()
        for future in held:
            future.result(30)
    source.close()


# ---------------------------------------------------------------- servers of others


class _Plain(_Handlers):
    """Our service as another server would offer it: without Describe, and with metadata of its own."""

    def __init__(self, service, metadata=None):
        super().__init__(service)
        del self._methods[f"/{wire.BRIDGE}/Describe"]
        if metadata is not None:
            self._methods[f"/{wire.SERVICE}/ModelMetadata"] = grpc.unary_unary_rpc_method_handler(lambda data, context: metadata)


@pytest.fixture
def foreign():
    servers, models = [], []

    def start(source, metadata=None, **settings):
        models.append(source)
        repository = Repository(None, Settings(always_raw=True, max_queue=10, max_rows=100))
        repository.add("m", source)
        server = grpc.server(ThreadPoolExecutor(4), handlers=(_Plain(Service(repository, **settings), metadata),))
        port = server.add_insecure_port("127.0.0.1:0")
        server.start()
        servers.append(server)
        return f"grpc://127.0.0.1:{port}/m"

    yield start
    for server in servers:
        server.stop(0).wait()
    for model in models:
        model.close()


@pytest.mark.parametrize("make", [simple, simple_string], ids=lambda f: f.__name__)
def test_a_plain_server_is_called_by_its_metadata(foreign, make):
    source = mb.load(make())
    with mb.load(foreign(source)) as model:
        assert [str(s) for s in model.signature.inputs] == [f"INPUT{i}: {'int32' if make is simple else 'string'}[?, 16]" for i in (0, 1)]
        a, b = np.arange(16)[None], np.full((1, 16), 5)
        cast = (lambda v: v.astype(np.int32)) if make is simple else (lambda v: v.astype(str).astype(object))
        got = model.run({"INPUT0": cast(a), "INPUT1": cast(b)})
        np.testing.assert_array_equal(got["OUTPUT0"].astype(np.int64), a + b)
        np.testing.assert_array_equal(got["OUTPUT1"].astype(np.int64), a - b)


def test_a_signature_in_the_properties_is_taken(foreign):
    source, _ = doubler()
    with mb.load(foreign(source, write_signature=True)) as model:
        assert model.signature == source.signature


def test_properties_of_another_dialect_are_skipped(foreign):
    source, _ = doubler()
    metadata = pb.ModelMetadataResponse(name="m", platform="other")
    metadata.inputs.add(name="x", datatype="FP64", shape=[-1, 3])
    metadata.outputs.add(name="y", datatype="FP64", shape=[-1, 3])
    entry = b"\x0a\x01k\x12\x02\x10\xff"  # a map entry whose value is a message, and not UTF-8
    data = metadata.SerializeToString() + b"\x32" + bytes([len(entry)]) + entry
    with pytest.raises(Exception, match="pars"):
        pb.ModelMetadataResponse.FromString(data)
    with mb.load(foreign(source, data)) as model:
        np.testing.assert_array_equal(model.run({"x": rows(2)})["y"], rows(2) * 2)


@pytest.mark.parametrize(
    "answer",
    [
        pb.ModelInferResponse(),
        pb.ModelInferResponse(outputs=[{"name": "y", "datatype": "FP64", "shape": [1, 3]}], raw_output_contents=[b"", b""]),
        pb.ModelInferResponse(outputs=[{"name": "y", "datatype": "FP64", "shape": [1, 3]}], raw_output_contents=[b"\0"]),
        pb.ModelInferResponse(outputs=[{"name": "y", "datatype": "BYTES", "shape": [1, 3]}], raw_output_contents=[b"\0" * 12]),
        pb.ModelInferResponse(outputs=[{"name": "y", "datatype": "FP64", "shape": [3]}], raw_output_contents=[b"\0" * 24]),
        pb.ModelInferResponse(outputs=[{"name": "y", "datatype": "FP64", "shape": [1 << 60, 3]}], raw_output_contents=[b"\0" * 24]),
    ],
    ids=["nothing", "count", "size", "text", "rank", "giant"],
)
def test_a_malformed_answer_is_an_inference_error(foreign, answer, monkeypatch):
    source, _ = doubler()
    with mb.load(foreign(source)) as model:
        monkeypatch.setattr(Service, "infer", lambda *a, **k: answer.SerializeToString())
        with pytest.raises(InferenceError):
            model.run({"x": rows(1)})


def test_bfloat16_of_others_is_refused_by_name(foreign):
    source, _ = doubler()
    metadata = pb.ModelMetadataResponse(name="m")
    metadata.inputs.add(name="x", datatype="BF16", shape=[-1])
    with pytest.raises(UnsupportedError, match="'x' is BF16"):
        mb.load(foreign(source, metadata.SerializeToString()))


# ---------------------------------------------------------------- TLS and tokens


def test_tls_and_token(certificates):
    source, _ = doubler()
    tls = (certificates["server.key"], certificates["server.pem"])
    with mb.serve({"double": source}, grpc="0.0.0.0:0", tls=tls, token="secret-token") as server:
        port = server.addresses["grpc"].rpartition(":")[2]
        uri, roots = f"grpcs://localhost:{port}/double", certificates["ca.pem"]
        with mb.load(uri, options={"grpc": {"token": "secret-token", "root_certificates": roots}}) as model:
            np.testing.assert_array_equal(model.run({"x": rows(1)})["y"], rows(1) * 2)
        with pytest.raises(AccessError):
            mb.load(uri, options={"grpc": {"token": "another-token", "root_certificates": roots}})
        with pytest.raises(AccessError):
            mb.load(uri, options={"grpc": {"root_certificates": roots}})
        with pytest.raises(BridgeError):
            mb.load(uri, options={"grpc": {"token": "secret-token", "connect_timeout_s": 3.0}})
        with pytest.raises(BridgeError):
            mb.load(f"grpc://localhost:{port}/double", options={"grpc": {"connect_timeout_s": 3.0}})
    source.close()


def test_mutual_tls(certificates):
    source, _ = doubler()
    tls = {"key": certificates["server.key"], "certificate": certificates["server.pem"], "client_authority": certificates["ca.pem"]}
    with mb.serve({"double": source}, grpc="0.0.0.0:0", tls=tls) as server:
        port = server.addresses["grpc"].rpartition(":")[2]
        options = {"root_certificates": certificates["ca.pem"], "connect_timeout_s": 3.0}
        with pytest.raises(BridgeError):
            mb.load(f"grpcs://localhost:{port}/double", options={"grpc": options})
        options |= {"client_key": certificates["client.key"], "client_certificate": certificates["client.pem"]}
        with mb.load(f"grpcs://localhost:{port}/double", options={"grpc": options}) as model:
            np.testing.assert_array_equal(model.run({"x": rows(1)})["y"], rows(1) * 2)
    source.close()
