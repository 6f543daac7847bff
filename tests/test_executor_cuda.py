"""On a GPU: right answers, true placement, a typed error when memory ends, two sessions on one device."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from mlbridge.artifact import open_artifact
from mlbridge.errors import MlbridgeError
from mlbridge.executor.devices import list_devices
from mlbridge.runtimes.onnx import OnnxRuntime

CUDA = "CUDAExecutionProvider"
_GPUS = [d for d in list_devices() if d.kind == "cuda"]
_WHY = "" if any(d.usable for d in _GPUS) else (_GPUS[0].remedy if _GPUS else "this machine has no NVIDIA GPU")
pytestmark = pytest.mark.skipif(bool(_WHY), reason=f"needs CUDA: {_WHY}")


def network(width=256):
    rng = np.random.default_rng(3)
    weights = [numpy_helper.from_array((rng.normal(size=(width, width)) / 16).astype("f4"), f"w{i}") for i in range(2)]
    nodes = [
        helper.make_node("MatMul", ["x", "w0"], ["a"]),
        helper.make_node("Tanh", ["a"], ["b"]),
        helper.make_node("MatMul", ["b", "w1"], ["y"]),
    ]
    io = [helper.make_tensor_value_info(n, TensorProto.FLOAT, ["n", width]) for n in "xy"]
    graph = helper.make_graph(nodes, "g", io[:1], io[1:], weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10).SerializeToString()


def load(model, **options):
    return OnnxRuntime().load(open_artifact(model), cache=False, **options)


def rows(n, width=256):
    return {"x": np.random.default_rng(0).normal(size=(n, width)).astype("f4")}


def test_a_demanded_gpu_runs_every_node_and_answers_as_the_processor():
    session, reference = load(network(), device="cuda"), load(network(), device="cpu")
    assert session.device == "cuda:0"
    assert session.placement == {CUDA: 1.0}
    for n in (1, 7, 512):
        np.testing.assert_allclose(session.run(rows(n))["y"], reference.run(rows(n))["y"], rtol=1e-2, atol=1e-3)  # TF32 products
    session.close()
    reference.close()


def test_two_sessions_share_a_gpu():
    first, second = load(network(), device="cuda:0"), load(network(), device="cuda:0")
    np.testing.assert_array_equal(first.run(rows(8))["y"], second.run(rows(8))["y"])
    first.close()
    np.testing.assert_array_equal(second.run(rows(8))["y"].shape, (8, 256))
    second.close()


def test_buffers_bound_on_the_device_answer_as_the_inner_run_and_share_nothing():
    bound, inner = load(network(), device="cuda", route="bound"), load(network(), device="cuda", route="inner")
    for _ in range(4):  # the second call of a shape binds it
        answers = [bound.run(rows(n)) for n in (1, 7, 1)]
    assert set(bound._binder.pools) == {(1, 256), (7, 256)}
    np.testing.assert_allclose(answers[1]["y"], inner.run(rows(7))["y"], rtol=1e-5, atol=1e-6)
    assert not np.shares_memory(answers[0]["y"], answers[2]["y"])
    assert bound.placement == {CUDA: 1.0}
    bound.close()
    inner.close()


def test_a_tuned_plan_for_a_gpu_answers_as_the_processor():
    session = load(network(), device="cuda")
    record = session.tune(rows(64), budget_s=5.0)
    reference = load(network(), device="cpu")
    np.testing.assert_allclose(session.run(rows(64))["y"], reference.run(rows(64))["y"], rtol=1e-2, atol=1e-3)
    assert record.winner.dropped is None
    session.close()
    reference.close()


def test_memory_that_ends_is_a_typed_error_and_the_session_lives_on():
    session = load(network(), provider=CUDA, provider_options={"gpu_mem_limit": str(8 << 20)})
    with pytest.raises(MlbridgeError):
        session.run(rows(1 << 16))
    assert session.run(rows(4))["y"].shape == (4, 256)
    session.close()
