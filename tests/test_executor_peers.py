"""Providers of another build of onnxruntime, in an environment of its own: each way they deceive is found out."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))
OPENVINO = "OpenVINOExecutionProvider"
F = TensorProto.FLOAT

_ASK = """
import json, sys
import numpy as np
from mlbridge.errors import MlbridgeError
from mlbridge.executor import list_devices
from mlbridge.runtimes.onnx import OnnxRuntime, claimed_rows

path, action = sys.argv[1:3]
options = json.loads(sys.argv[3])
runtime = OnnxRuntime()
out = {"providers": [p for d in list_devices() for p in d.providers]}
try:
    session = runtime.load(path, cache=False, **options)
    x = np.random.default_rng(0).normal(size=(64, session.signature.inputs[0].shape[1])).astype("f4")
    name = session.signature.inputs[0].name
    out |= {"device": session.device, "placement": dict(session.placement), "y": session.run({name: x})[session.signature.outputs[0].name].tolist()}
    if action == "tune":
        session = runtime.load(path, signature=claimed_rows(session.signature), cache=False)
        record = session.tune({name: x}, budget_s=40.0)  # its first session takes seconds, more on a busy machine
        out |= {"winner": record.plan.provider, "dropped": {c.plan.provider: c.dropped for c in record.candidates if c.dropped}}
        out |= {"tried": sorted({c.plan.provider for c in record.candidates if c.times})}
except MlbridgeError as exc:
    out |= {"error": type(exc).__name__, "message": exc.message, "hint": exc.hint}
print(json.dumps(out))
"""


@pytest.fixture(scope="module")
def openvino():
    from benchmarks.peers.environment import environment

    return environment("openvino")


def ask(python, path, action="run", **options):
    env = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    done = subprocess.run([python, "-c", _ASK, str(path), action, json.dumps(options)], capture_output=True, text=True, check=True, env=env)
    return json.loads(done.stdout.splitlines()[-1])


def dense(path, width=64):
    rng = np.random.default_rng(3)
    weights = [numpy_helper.from_array((rng.normal(size=(width, width)) / 8).astype("f4"), f"w{i}") for i in range(3)]
    names = ["x", "a", "b", "y"]
    nodes = []
    for i in range(3):
        nodes += [helper.make_node("MatMul", [names[i], f"w{i}"], [f"m{i}"]), helper.make_node("Tanh", [f"m{i}"], [names[i + 1]])]
    io = [helper.make_tensor_value_info(n, F, ["n", width]) for n in "xy"]
    graph = helper.make_graph(nodes, "g", io[:1], io[1:], weights)
    path.write_bytes(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10).SerializeToString())
    return path


def trees(path):
    from skl2onnx import to_onnx
    from sklearn.ensemble import RandomForestRegressor

    X = np.random.default_rng(0).normal(size=(200, 5)).astype("f4")
    path.write_bytes(to_onnx(RandomForestRegressor(5, random_state=0).fit(X, X[:, 0]), X[:1]).SerializeToString())
    return path


@pytest.mark.peers
def test_a_demanded_provider_runs_the_nodes_and_the_record_says_so(openvino, tmp_path):
    got = ask(openvino, dense(tmp_path / "m.onnx"), provider=OPENVINO)
    assert got["placement"] == {OPENVINO: 1.0}
    plain = ask(openvino, tmp_path / "m.onnx", provider="CPUExecutionProvider")
    np.testing.assert_allclose(got["y"], plain["y"], atol=2e-2)  # it may compute in half precision


@pytest.mark.peers
def test_an_unknown_provider_is_an_error(openvino, tmp_path):
    got = ask(openvino, dense(tmp_path / "m.onnx"), provider="MadeUpExecutionProvider")
    assert got["error"] == "UnavailableError"


@pytest.mark.peers
def test_a_provider_that_fails_to_start_is_an_error(openvino, tmp_path):
    got = ask(openvino, dense(tmp_path / "m.onnx"), provider=OPENVINO, provider_options={"device_type": "GPU"})
    assert got["error"] == "UnavailableError"
    assert "could not start" in got["message"]


@pytest.mark.peers
def test_a_provider_listed_but_owning_no_node_is_an_error(openvino, tmp_path):
    got = ask(openvino, trees(tmp_path / "m.onnx"), provider=OPENVINO)
    assert OPENVINO in got["providers"]
    assert got["error"] == "UnavailableError"
    assert "none of this model's nodes" in got["message"]


@pytest.mark.peers
def test_a_provider_that_changes_numbers_does_not_win_the_race(openvino, tmp_path):
    got = ask(openvino, dense(tmp_path / "m.onnx", 256), "tune")
    # On processors with half-precision units it is dropped for its numbers; elsewhere it may compete fairly.
    assert "differs from the processor's" in got["dropped"].get(OPENVINO, "") or OPENVINO in got["tried"]
    assert got["winner"] in got["tried"]


@pytest.mark.peers
def test_trees_are_tuned_on_the_processor_and_the_reason_is_said(openvino, tmp_path):
    got = ask(openvino, trees(tmp_path / "m.onnx"), "tune")
    assert got["winner"] == "CPUExecutionProvider"
    assert "none of" in got["dropped"][OPENVINO]
