"""Requests whose head was seen before skip the parsing; nothing else may differ."""

from __future__ import annotations

import numpy as np
import pytest
from google.protobuf.message import DecodeError
from served_models import doubler, rows
from test_server_faults import message
from test_wire import SIGNATURES, _random_request

from mlbridge.runtimes import wire
from mlbridge.server.caller import Caller
from mlbridge.server.repository import Repository
from mlbridge.server.service import Failed, Service
from mlbridge.server.settings import Settings

pb = wire.inference_pb2
ASK = Caller()


@pytest.fixture
def service():
    service = Service(Repository(None, Settings()))
    models = [doubler(), doubler(factor=3.0)]
    service.repository.add("double", models[0][0])
    service.models = models
    yield service
    for model, _ in models:
        model.close()


def _ask(service, x, **keywords):
    answer = pb.ModelInferResponse.FromString(service.infer(message(x, **keywords).SerializeToString(), ASK))
    return np.frombuffer(answer.raw_output_contents[0]).reshape(answer.outputs[0].shape), answer


def test_a_known_head_answers_as_the_first_time(service):
    for i in range(5):
        x = rows(2, seed=i)
        got, answer = _ask(service, x, request_id=f"r{i}")
        np.testing.assert_array_equal(got, x * 2)
        assert (answer.id, answer.model_name, answer.model_version) == (f"r{i}", "double", "1")
    assert len(service.repository.known) == 1


@pytest.mark.parametrize("request_id", ["", "x" * 300, "é", "日本"])
def test_ids_are_echoed(service, request_id):
    for _ in range(2):
        assert _ask(service, rows(1), request_id=request_id)[1].id == request_id


def test_another_model_or_default_forgets_the_heads(service):
    _ask(service, rows(1))
    service.repository.add("double", service.models[1][0], version="2")
    assert not service.repository.known
    got, answer = _ask(service, rows(1))
    np.testing.assert_array_equal(got, rows(1) * 3)
    assert answer.model_version == "2"
    service.repository.remove("double", "2")
    np.testing.assert_array_equal(_ask(service, rows(1))[0], rows(1) * 2)


def test_what_was_unloaded_or_drains_is_not_known_any_more(service):
    _ask(service, rows(1))
    known = dict(service.repository.known)
    service.repository.remove("double")
    service.repository.known = known  # as a request that read it just before
    with pytest.raises(Failed, match="not ready"):
        _ask(service, rows(1))
    service.repository.add("double", service.models[0][0])
    _ask(service, rows(1))
    service.repository.drain(1.0)
    with pytest.raises(Failed, match="shutting down"):
        _ask(service, rows(1))


def test_a_value_that_is_refused_is_refused_by_name_behind_a_known_head():
    from mlbridge.model import Model
    from mlbridge.signature import Signature, TensorSpec

    class Still:
        device, max_concurrency = "cpu", 1
        signature = Signature([TensorSpec("x", "float64", ("rows", 3))], [TensorSpec("y", "float64", ("rows", 3))])

        def run(self, feeds, /, *, outputs=None, deadline=None):
            return {"y": feeds["x"] * 2}

        def close(self):
            pass

    service = Service(Repository(None, Settings()))
    with Model(Still()) as model:
        service.repository.add("double", model)
        for n in (1, 100):
            x = rows(n)
            _ask(service, x)
            bad = x.copy()
            bad[0, 1] = np.nan
            with pytest.raises(Failed, match="'x'"):
                _ask(service, bad)
            bad[0] = np.inf, -np.inf, 0
            np.testing.assert_array_equal(_ask(service, bad)[0], bad * 2)


@pytest.mark.parametrize("dtype", ["f2", "f4", "f8"])
def test_a_nan_is_found_among_few_numbers_and_many_and_nothing_else_is_taken_for_one(dtype):
    from mlbridge.server.shortcuts import _holds_nan

    rng, width = np.random.default_rng(11), np.dtype(dtype).itemsize
    found = 0
    for i in range(3_000):
        n = int(rng.integers(1, 130))
        raw = bytearray(rng.integers(0, 256, n * width, dtype=np.uint8) if i % 2 else rng.normal(size=n).astype(dtype).tobytes())
        numbers = np.frombuffer(raw, dtype)
        if i % 3 == 0:
            numbers[rng.integers(n)] = rng.choice([np.nan, -np.nan, np.inf, -np.inf, np.finfo(dtype).max])
        want = bool(np.isnan(numbers).any())
        assert _holds_nan(bytes(raw), numbers) is want
        found += want
    assert 300 < found < 2_700


def test_heads_are_bounded(service):
    for n in range(1, 700):
        _ask(service, np.ones((n, 3)))
    assert len(service.repository.known) <= 512


@pytest.mark.parametrize("cases", [3_000, pytest.param(300_000, marks=pytest.mark.full)])
def test_parting_agrees_with_protobuf_or_says_nothing(cases):
    rng = np.random.default_rng(5)
    parted = 0
    for _ in range(cases):
        request = _random_request(rng, SIGNATURES[str(rng.choice(list(SIGNATURES)))])
        request.id = "i" * int(rng.integers(0, 3))
        data = bytearray(request.SerializeToString())
        for i in rng.integers(0, len(data), rng.integers(0, 3)):
            data[i] = int(rng.integers(0, 256))
        found = wire.part(bytes(data), wire.RAW_IN)
        if found is None:
            continue
        try:
            whole = pb.ModelInferRequest.FromString(bytes(data))
            head = pb.ModelInferRequest.FromString(found.head)
        except DecodeError:
            continue
        parted += 1
        assert list(whole.raw_input_contents) == found.raws
        assert whole.id.encode() == found.id
        whole.ClearField("raw_input_contents")
        whole.ClearField("id")
        assert whole.SerializeToString(deterministic=True) == head.SerializeToString(deterministic=True)
    assert parted > cases / 10
