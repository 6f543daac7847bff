"""The hot path: right answers whatever the route, no aliasing, bounded memory, ends when told to."""

from __future__ import annotations

import gc
import os
import pickle
import signal
import threading
import time
import tracemalloc

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from mlbridge.errors import CancelledError, ClosedError, InferenceError, InputError
from mlbridge.executor.engine import Engine
from mlbridge.executor.plans import Plan
from mlbridge.executor.session import OnnxSession
from mlbridge.executor.splitting import Splitter
from mlbridge.interfaces import Deadline, Placed, Session, Tunable
from mlbridge.signature import Signature, TensorSpec

F, I64, S = TensorProto.FLOAT, TensorProto.INT64, TensorProto.STRING


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("MLBRIDGE_CACHE", str(tmp_path / "cache"))


def proto(nodes, inputs, outputs, weights=()):
    info = helper.make_tensor_value_info
    graph = helper.make_graph(nodes, "g", [info(*i) for i in inputs], [info(*o) for o in outputs], list(weights))
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10).SerializeToString()


def spec(name, dtype="float32", shape=("rows", 4), **rules):
    return TensorSpec(name, dtype, shape, **rules)


WEIGHT = numpy_helper.from_array(np.random.default_rng(0).normal(size=(4, 4)).astype("f4"), "w")
NET = proto(
    [
        helper.make_node("MatMul", ["x", "w"], ["h"]),
        helper.make_node("Tanh", ["h"], ["y"]),
        helper.make_node("ReduceSum", ["h", "ax"], ["s"], keepdims=0),
    ],
    [("x", F, ["n", 4])],
    [("y", F, ["n", 4]), ("s", F, ["n"])],
    [WEIGHT, numpy_helper.from_array(np.array([1]), "ax")],
)
SIGNATURE = Signature([spec("x")], [spec("y"), spec("s", shape=("rows",))])
PLANS = {
    "auto": Plan(threads=1),
    "bound": Plan(threads=1, route="bound"),
    "inner": Plan(threads=1, route="inner"),
    "split": Plan(threads=1, chunks=2),
    "bucket": Plan(threads=1, bucket=8),
}


def open_net(plan=PLANS["auto"], model=NET, signature=SIGNATURE, **more):
    return OnnxSession(Engine(model, plan), signature, **more)


def rows(n, seed=0):
    return np.random.default_rng(seed).normal(size=(n, 4)).astype("f4")


def raw(model, feeds):
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    return dict(zip([o.name for o in session.get_outputs()], session.run(None, feeds)))


def same(got, want):
    assert list(got) == list(want)
    for name, value in want.items():
        assert got[name].dtype == value.dtype
        np.testing.assert_allclose(got[name], value, rtol=2e-6, atol=1e-6)  # another number of rows sums in another order


@pytest.mark.parametrize("plan", PLANS.values(), ids=PLANS)
@pytest.mark.parametrize("n", [1, 2, 7, 64, 5000])
def test_every_route_answers_as_onnxruntime_does(plan, n):
    session = open_net(plan)
    for seed in range(8):  # the route changes as shapes come again
        x = rows(n, seed)
        same(session.run({"x": x}), raw(NET, {"x": x}))
    session.close()


def test_a_session_satisfies_the_protocols():
    session = open_net()
    assert isinstance(session, Session)
    assert isinstance(session, Placed)
    assert isinstance(session, Tunable)
    assert session.device == "cpu"
    assert session.placement == {"CPUExecutionProvider": 1.0}
    session.close()


@pytest.mark.parametrize("n", [1, 5000])
def test_answers_of_two_calls_share_no_memory_and_inputs_stay_as_they_were(n):
    session = open_net()
    x = rows(n)
    x.flags.writeable = False
    first = [session.run({"x": x}) for _ in range(4)]
    kept = [{k: v.copy() for k, v in a.items()} for a in first]
    session.run({"x": rows(n, 9)})
    for a, b in zip(first, kept):
        for name in a:
            np.testing.assert_array_equal(a[name], b[name])
    assert not any(np.shares_memory(first[i]["y"], first[j]["y"]) for i in range(4) for j in range(i))
    session.close()


def test_an_output_that_is_an_input_or_a_constant_is_copied():
    model = proto([helper.make_node("Identity", ["w"], ["c"])], [("x", F, ["n", 4])], [("x", F, ["n", 4]), ("c", F, [4, 4])], [WEIGHT])
    session = open_net(model=model, signature=Signature([spec("x")], [spec("x"), spec("c", shape=(4, 4))]))
    for _ in range(4):
        x = rows(3)
        answer = session.run({"x": x})
        answer["x"][:] = 7.0
        answer["c"][:] = 7.0
        assert not (x == 7.0).any()
    np.testing.assert_array_equal(session.run({"x": x})["c"], numpy_helper.to_array(WEIGHT))
    session.close()


def test_sizes_that_depend_on_values_are_right_though_buffers_are_bound():
    model = proto([helper.make_node("NonZero", ["x"], ["y"])], [("x", F, ["n", 4])], [("y", I64, [2, "k"])])
    session = open_net(model=model, signature=Signature([spec("x", shape=("n", 4))], [spec("y", "int64", (2, "k"))]))
    for seed in range(30):
        x = (rows(3, seed) > 0.3).astype("f4")
        np.testing.assert_array_equal(session.run({"x": x})["y"], np.stack(np.nonzero(x)))
    session.close()


def test_several_blocks_are_bound_by_rows():
    nodes = [helper.make_node("Cast", ["c"], ["cf"], to=F), helper.make_node("Concat", ["x", "cf"], ["y"], axis=1)]
    model = proto(nodes, [("x", F, ["n", 4]), ("c", TensorProto.INT32, ["n", 2])], [("y", F, ["n", 6])])
    session = open_net(model=model, signature=Signature([spec("x"), spec("c", "int32", ("rows", 2))], [spec("y", shape=("rows", 6))]))
    for n in (1, 1, 1, 5, 5, 5, 3000, 3000, 3000):
        feeds = {"x": rows(n), "c": np.arange(2 * n, dtype="i4").reshape(n, 2)}
        same(session.run(feeds), raw(model, feeds))
    assert session._binder.pools
    session.close()


def test_blocks_whose_rows_differ_are_never_broadcast():
    model = proto([helper.make_node("Add", ["a", "b"], ["y"])], [("a", F, ["n", 4]), ("b", F, ["m", 4])], [("y", F, ["k", 4])])
    signature = Signature([spec("a", shape=("n", 4)), spec("b", shape=("m", 4))], [spec("y", shape=("k", 4))])
    session = open_net(model=model, signature=signature)
    for n, m in [(3, 3), (3, 3), (3, 3), (3, 1), (1, 3), (3, 1)]:
        feeds = {"a": rows(n), "b": rows(m, 1)}
        same(session.run(feeds), raw(model, feeds))
    session.close()


def test_text_goes_in_and_out():
    model = proto([helper.make_node("StringConcat", ["x", "x"], ["y"])], [("x", S, ["n", 1])], [("y", S, ["n", 1])])
    text = Signature([spec("x", "string", ("rows", 1))], [spec("y", "string", ("rows", 1))])
    session = open_net(model=model, signature=text)
    for _ in range(3):
        assert session.run({"x": np.array([["a"], [""], ["žluť"]], object)})["y"].tolist() == [["aa"], [""], ["žluťžluť"]]
    session.close()


# ---------------------------------------------------------------- only what is asked


def test_outputs_returns_those_in_output_order():
    session = open_net()
    x = rows(3)
    assert list(session.run({"x": x}, outputs=["s"])) == ["s"]
    assert list(session.run({"x": x}, outputs=["s", "y"])) == ["y", "s"]
    np.testing.assert_allclose(session.run({"x": x}, outputs=["s"])["s"], raw(NET, {"x": x})["s"], rtol=1e-6)
    session.close()


def test_outputs_does_not_compute_the_others():
    # The other branch would fail on this input, so an answer proves that it did not run.
    nodes = [helper.make_node("Relu", ["x"], ["y"]), helper.make_node("Reshape", ["x", "shape"], ["z"])]
    model = proto(nodes, [("x", F, ["n", 4])], [("y", F, ["n", 4]), ("z", F, [2, 2])], [numpy_helper.from_array(np.array([2, 2]), "shape")])
    dear = [helper.make_node("MatMul", ["z", "z"], ["q"])]
    loaded = onnx.load_model_from_string(model)
    loaded.graph.node.extend(dear)
    loaded.graph.output.append(helper.make_tensor_value_info("q", F, [2, 2]))
    signature = Signature([spec("x")], [spec("y"), spec("z", shape=(2, 2)), spec("q", shape=(2, 2))])
    session = open_net(model=loaded.SerializeToString(), signature=signature)
    with pytest.raises(InferenceError):
        session.run({"x": rows(3)})
    np.testing.assert_array_equal(session.run({"x": rows(3)}, outputs=["y"])["y"], np.maximum(rows(3), 0))
    session.close()


def test_an_unknown_output_is_refused_by_name():
    session = open_net()
    with pytest.raises(InputError, match="nonsense") as caught:
        session.run({"x": rows(1)}, outputs=["y", "nonsense"])
    assert "'y', 's'" in caught.value.hint
    session.close()


# ---------------------------------------------------------------- many threads, many shapes


@pytest.mark.parametrize("plan", [PLANS["auto"], PLANS["split"]], ids=["auto", "split"])
def test_threads_share_a_session_without_mixing_answers(plan):
    session = open_net(plan)
    wrong = []

    def work(seed):
        for n in (1, 1, 3, 3, 700, 1, 3, 700) * 6:
            x = rows(n, seed)
            if not np.allclose(session.run({"x": x})["y"], np.tanh(x @ numpy_helper.to_array(WEIGHT)), atol=1e-5):
                wrong.append((seed, n))

    threads = [threading.Thread(target=work, args=(i,)) for i in range(6)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert not wrong
    session.close()


def test_a_thousand_shapes_keep_memory_flat():
    session = open_net()
    for n in range(1, 200):
        session.run({"x": rows(n)})
        session.run({"x": rows(n)})
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    for n in range(1, 1001):
        session.run({"x": rows(n)})
        session.run({"x": rows(n)})
    grown = tracemalloc.get_traced_memory()[0] - before
    tracemalloc.stop()
    assert len(session._binder.pools) <= 64
    assert len(session._binder.direct) <= 64
    assert grown < 4 << 20  # 64 bindings of at most 48 KiB, and what numpy keeps
    session.close()


def test_splitting_is_learnt_and_stays_right():
    splitter = Splitter(2)
    feeds = {"x": rows(1000)}
    for _ in range(3):
        assert splitter.split(feeds) == 1
        splitter.learn(feeds, 0.010, 1)
    assert splitter.split(feeds) == 2
    for _ in range(3):
        splitter.learn(feeds, 0.006, 2)
    assert splitter.split(feeds) == 2
    assert splitter.split({"x": rows(2)}) == 1


def test_splitting_stops_where_it_does_not_pay():
    splitter = Splitter(2)
    feeds = {"x": rows(1000)}
    for _ in range(3):
        splitter.learn(feeds, 0.010, 1)
    for _ in range(3):
        splitter.learn(feeds, 0.012, 2)
    assert splitter.split(feeds) == 1


def test_a_part_that_fails_fails_the_call():
    splitter = Splitter(2)

    def call(part):
        if part["x"][0, 0] > 4:
            raise InferenceError("boom")
        return part

    with pytest.raises(InferenceError, match="boom"):
        splitter.run(call, {"x": np.arange(20.0).reshape(10, 2)}, 2)
    done = splitter.run(lambda p: {"y": p["x"] * 2}, {"x": np.arange(20.0).reshape(10, 2)}, 2)
    np.testing.assert_array_equal(done["y"], 2 * np.arange(20.0).reshape(10, 2))


# ---------------------------------------------------------------- plans change, symbols are renamed


def test_another_plan_reaches_callers_that_kept_run():
    session = open_net()
    kept = session.run
    for _ in range(3):
        kept({"x": rows(2)})
    session.adopt(Plan(threads=1, route="inner"))
    assert not session._binder.pools
    same(kept({"x": rows(2)}), raw(NET, {"x": rows(2)}))
    session.close()
    with pytest.raises(ClosedError):
        kept({"x": rows(2)})


def test_without_the_promise_of_rows_nothing_is_split():
    session = open_net(PLANS["split"])
    assert session._splitter is not None
    session.signature = Signature([spec("x", shape=("n", 4))], [spec("y", shape=(None, 4)), spec("s", shape=(None,))])
    assert session._splitter is None
    same(session.run({"x": rows(9)}), raw(NET, {"x": rows(9)}))
    session.close()


def test_warming_up_binds_buffers_before_the_first_request():
    session = open_net()
    session.warm_up((1, 64))
    assert set(session._binder.pools) == {(1, 4), (64, 4)}
    session.close()


# ---------------------------------------------------------------- ends


def _endless():
    body = helper.make_graph(
        [helper.make_node("Identity", ["c_in"], ["c_out"]), helper.make_node("Identity", ["v_in"], ["v_out"])],
        "body",
        [helper.make_tensor_value_info("i", I64, []), helper.make_tensor_value_info("c_in", TensorProto.BOOL, [])]
        + [helper.make_tensor_value_info("v_in", F, ["n", 4])],
        [helper.make_tensor_value_info("c_out", TensorProto.BOOL, []), helper.make_tensor_value_info("v_out", F, ["n", 4])],
    )
    # It loops only while the first value is positive, so the same session can also answer.
    nodes = [
        helper.make_node("ReduceMax", ["x"], ["m"], keepdims=0),
        helper.make_node("Greater", ["m", "zero"], ["go"]),
        helper.make_node("Loop", ["", "go", "x"], ["y"], body=body),
    ]
    return proto(nodes, [("x", F, ["n", 4])], [("y", F, ["n", 4])], [numpy_helper.from_array(np.array(0, "f4"), "zero")])


@pytest.mark.parametrize("how", ["timeout", "cancel"])
def test_a_call_ends_and_the_session_works_afterwards(how):
    session = open_net(model=_endless(), signature=Signature([spec("x")], [spec("y")]))
    deadline = Deadline(0.2 if how == "timeout" else None)
    if how == "cancel":
        threading.Timer(0.2, deadline.cancel).start()
    with pytest.raises(TimeoutError if how == "timeout" else CancelledError):
        session.run({"x": np.ones((1, 4), "f4")}, deadline=deadline)
    quiet = -np.ones((1, 4), "f4")
    np.testing.assert_array_equal(session.run({"x": quiet}, deadline=Deadline(60))["y"], quiet)
    session.close()


def test_a_deadline_that_has_passed_starts_nothing():
    session = open_net()
    with pytest.raises(TimeoutError):
        session.run({"x": rows(1)}, deadline=Deadline(-1.0))
    session.close()


def test_a_failure_inside_is_an_inference_error_with_its_cause_and_pickles():
    model = proto(
        [helper.make_node("Reshape", ["x", "shape"], ["y"])],
        [("x", F, ["n", 4])],
        [("y", F, [2, 2])],
        [numpy_helper.from_array(np.array([2, 2]), "shape")],
    )
    session = open_net(model=model, signature=Signature([spec("x", shape=("n", 4))], [spec("y", shape=(2, 2))]))
    for _ in range(3):
        with pytest.raises(InferenceError) as caught:
            session.run({"x": rows(3)})
    assert caught.value.__cause__ is not None
    assert caught.value.runtime == "onnx"
    assert pickle.loads(pickle.dumps(caught.value)).runtime == "onnx"
    np.testing.assert_array_equal(session.run({"x": rows(1)})["y"].ravel(), rows(1).ravel())
    session.close()


def test_close_twice_is_harmless_and_use_after_close_is_refused():
    session = open_net()
    for _ in range(3):
        session.run({"x": rows(1)})
    session.close()
    session.close()
    for call in (lambda: session.run({"x": rows(1)}), lambda: session.adopt(Plan()), lambda: session.run({"x": rows(1)}, outputs=["y"])):
        with pytest.raises(ClosedError):
            call()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_after_a_fork_the_child_is_refused_and_the_parent_goes_on():
    session = open_net(PLANS["split"])
    for _ in range(8):
        session.run({"x": rows(1)})
        session.run({"x": rows(4000)})
    child = os.fork()
    if child == 0:
        try:
            session.run({"x": rows(1)})
        except ClosedError:
            session.close()
            os._exit(7)
        os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
    same(session.run({"x": rows(1)}), raw(NET, {"x": rows(1)}))
    session.close()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_sessions_that_are_garbage_do_not_hold_up_a_forked_child():
    # A destructor would wait in the child for pool threads that only the parent has; every object made there may collect.
    threshold = gc.get_threshold()
    gc.disable()
    for _ in range(4):
        session = open_net(Plan(threads=2, spin_us=100))
        session.run({"x": rows(4000)})
        session.itself = session
    del session
    gc.set_threshold(1)
    gc.enable()
    try:
        child = os.fork()
        if child == 0:
            gc.collect()
            os._exit(7)
    finally:
        gc.set_threshold(*threshold)
    until = time.monotonic() + 30
    while (ended := os.waitpid(child, os.WNOHANG))[0] == 0 and time.monotonic() < until:
        time.sleep(0.05)
    if ended[0] == 0:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    assert ended[0] == child, "the child waits for threads it does not have"
    assert os.waitstatus_to_exitcode(ended[1]) == 7


def test_many_sessions_share_one_pool_where_asked():
    # In a process of its own: onnxruntime's shared pool is for the whole process, for good.
    code = """
import numpy as np, threading, pathlib
from mlbridge.executor import share_threads
from mlbridge.runtimes.onnx import OnnxRuntime
share_threads(2)
share_threads(2)
before = len(list(pathlib.Path("/proc/self/task").iterdir()))
sessions = [OnnxRuntime().load("net.onnx", cache=False, threads=4) for _ in range(8)]
for s in sessions:
    s.run({"x": np.ones((3, 4), "f4")})
after = len(list(pathlib.Path("/proc/self/task").iterdir()))
assert after - before < 8, (before, after)  # a pool each would have been 24
"""
    import subprocess
    import sys
    import tempfile
    from pathlib import Path

    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "net.onnx").write_bytes(NET)
        done = subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
