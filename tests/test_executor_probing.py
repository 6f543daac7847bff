"""Tuning: what wins is right, measured and remembered; what lies or crashes is dropped and said so."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from mlbridge.errors import InputError
from mlbridge.executor import probing
from mlbridge.executor.parity import differs
from mlbridge.executor.plans import Plan
from mlbridge.executor.trial import try_in_child
from mlbridge.executor.tuning import Candidate
from mlbridge.runtimes.onnx import OnnxRuntime, claimed_rows

F = TensorProto.FLOAT


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("MLBRIDGE_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def path(tmp_path):
    weight = numpy_helper.from_array(np.random.default_rng(0).normal(size=(8, 8)).astype("f4"), "w")
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        "g",
        [helper.make_tensor_value_info("x", F, ["n", 8])],
        [helper.make_tensor_value_info("y", F, ["n", 8])],
        [weight],
    )
    target = tmp_path / "net.onnx"
    target.write_bytes(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10).SerializeToString())
    return str(target)


def open_batched(path, **options):
    session = OnnxRuntime().load(path)
    signature = claimed_rows(session.signature)
    session.close()
    return OnnxRuntime().load(path, signature=signature, **options)


def rows(n):
    return {"x": np.random.default_rng(1).normal(size=(n, 8)).astype("f4")}


@pytest.mark.parametrize("objective", ["latency", "throughput"])
def test_tuning_adopts_a_plan_that_answers_alike_and_keeps_to_its_budget(path, objective):
    session = open_batched(path)
    before = session.run(rows(64))["y"]
    told = []
    record = session.tune(rows(64), objective=objective, budget_s=0.5, progress=lambda done, text: told.append(done))
    np.testing.assert_allclose(session.run(rows(64))["y"], before, rtol=1e-5)
    assert record.plan.provider == session.plan.provider
    assert record.winner.dropped is None
    assert record.candidates[0].plan.why == "plain onnxruntime"
    assert record.candidates[0].times
    assert told == sorted(told)
    assert told[-1] == 1.0
    assert "tuned for" in repr(record)
    assert "<svg" in record._repr_html_()
    assert "tuned" in session.describe()
    session.close()


def test_a_tuned_plan_is_remembered_for_the_same_bytes(path, monkeypatch):
    session = open_batched(path)
    wanted = Plan(threads=1, spin_us=0, route="bound")
    monkeypatch.setattr(probing, "_decide", lambda tried: Candidate(wanted, [1e-6]))
    session.tune(rows(4), budget_s=0.2)
    session.close()
    again = open_batched(path)
    assert (again.plan.threads, again.plan.route) == (1, "bound")
    assert "measured on 4 rows" in again.plan.why
    again.close()
    other = open_batched(path, threads=2)  # said in words: nothing measured overrides it
    assert other.plan.threads == 2
    other.close()


@pytest.fixture
def tuned(path, monkeypatch):
    """The record and the hash of a model that was tuned to one bound thread."""
    session = open_batched(path)
    wanted = Plan(threads=1, spin_us=0, route="bound")
    monkeypatch.setattr(probing, "_decide", lambda tried: Candidate(wanted, [1e-6]))
    session.tune(rows(4), budget_s=0.2)
    record, digest = session.measured, session.engine.sha256
    session.close()
    return record, digest


@pytest.mark.parametrize("fact", ["onnxruntime", "build", "providers", "flags", "machine", "cores"])
def test_a_measured_plan_is_forgotten_when_any_key_changes(tuned, monkeypatch, fact):
    record, digest = tuned
    here = dict(probing.cache.machine())
    assert probing.recall(digest, Plan()) is not None
    assert probing.recall("0" * 64, Plan(), record) is None
    monkeypatch.setattr(probing.cache, "machine", lambda: here | {fact: "another"})
    assert probing.recall(digest, Plan()) is None
    assert probing.recall(digest, Plan(), record) is None


def test_a_measured_plan_travels_in_a_package_and_counts_on_the_same_machine_only(path, tuned, tmp_path, monkeypatch):
    import mlbridge as mb

    with mb.load(path, sample=rows(4)["x"]) as model:
        assert model._session.plan.route == "bound"
        model.save(tmp_path / "m.mlb")
    monkeypatch.setenv("MLBRIDGE_CACHE", str(tmp_path / "empty"))
    with mb.load(tmp_path / "m.mlb") as model:
        assert model._session.plan.route == "bound"
        assert "measured on 4 rows" in model._session.plan.why
    monkeypatch.setattr(probing, "plan_key", lambda sha256: "another machine's")
    with mb.load(tmp_path / "m.mlb") as model:
        assert model._session.plan.route == "auto"


@pytest.mark.parametrize(
    "change",
    [
        {"provider_options": {"load": "x.so"}},
        {"threads": -1},
        {"threads": "many"},
        {"spin_us": 10**9},
        {"chunks": 10**9},
        {"device": "cuda:0"},
        {"colour": 1},
    ],
    ids=["options", "negative", "text", "spins", "huge", "a lie", "unknown"],
)
def test_a_packaged_plan_may_not_ask_for_more_than_a_place_and_small_numbers(tuned, monkeypatch, change):
    record, digest = tuned
    monkeypatch.setattr(probing.cache, "read_json", lambda *a: None)
    assert probing.recall(digest, Plan(), record) is not None
    assert probing.recall(digest, Plan(), record | {"plan": record["plan"] | change}) is None


def test_describe_shows_every_candidate_and_draws_them_in_a_notebook(path):
    from mlbridge.model import Model

    with Model(open_batched(path), runtime=OnnxRuntime()) as model:
        record = model.tune(rows(8)["x"], budget_s=0.3)
        assert all(str(c.plan) in repr(model.describe()) for c in record.candidates)
        assert "<svg" in model.describe()._repr_html_()


def test_a_plan_no_faster_than_plain_beyond_doubt_does_not_win():
    rng = np.random.default_rng(0)
    plain, same = Candidate(Plan()), Candidate(Plan(threads=1))
    plain.times, same.times = list(1 + 0.1 * rng.random(30)), list(0.999 + 0.1 * rng.random(30))
    assert probing._decide([plain, same]) is plain
    same.times = [0.5 * t for t in plain.times]
    assert probing._decide([plain, same]) is same
    assert same.ratio[2] < 0.6


def test_the_slower_half_is_dropped_with_its_ratio_and_plain_stays():
    plain, *others = [Candidate(Plan(threads=i), [t]) for i, t in enumerate([9.0, 1.0, 2.0, 3.0, 4.0])]
    left = probing._better_half([plain, *others])
    assert left == [plain, others[0], others[1]]
    assert others[3].dropped == "slower: 4.00x of the best at its last round"
    assert plain.dropped is None


@pytest.mark.parametrize(
    ("got", "want", "word"),
    [
        ([1.0, 2.0], [1.0, 2.0], None),
        ([1.0, 2.001], [1.0, 2.0], "differs"),
        ([1.0, np.nan], [1.0, 2.0], "differs"),
        ([np.nan, 2.0], [np.nan, 2.0], None),
        ([np.inf, 2.0], [-np.inf, 2.0], "differs"),
    ],
    ids=["equal", "another number", "NaN", "both NaN", "other infinity"],
)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_parity_tells_numbers_apart(got, want, word, dtype):
    verdict = differs({"y": np.array(got, dtype)}, {"y": np.array(want, dtype)})
    assert (verdict is None) if word is None else word in verdict


def test_parity_counts_changed_labels_and_shapes():
    assert "2 values" in differs({"l": np.array([1, 2, 3])}, {"l": np.array([3, 2, 1])})
    assert differs({}, {"y": np.zeros(2)})


def test_a_provider_that_changes_numbers_is_dropped_from_the_race(path, monkeypatch):
    session = open_batched(path)
    honest = probing._answer

    def lying(s, candidate, feeds, ends):
        answer = honest(s, candidate, feeds, ends)
        if answer is not None and candidate.plan.route == "bound":
            answer = {k: v * np.float32(1.01) for k, v in answer.items()}
        return answer

    monkeypatch.setattr(probing, "_answer", lying)
    record = session.tune(rows(8), budget_s=0.3)
    liars = [c for c in record.candidates if c.plan.route == "bound"]
    assert liars
    assert all("differs from the processor's" in (c.dropped or "budget") or "budget" in c.dropped for c in liars)
    assert record.plan.route != "bound"
    session.close()


def test_a_provider_that_takes_the_process_with_it_takes_only_a_child(path, tmp_path, monkeypatch):
    crash = tmp_path / "crash"
    crash.mkdir()
    (crash / "onnxruntime.py").write_text("import os, signal\nos.kill(os.getpid(), signal.SIGSEGV)\n")
    monkeypatch.setenv("PYTHONPATH", str(crash))
    verdict = try_in_child(Path(path).read_bytes(), Plan("OpenVINOExecutionProvider"), rows(1), 60)
    assert verdict == "OpenVINOExecutionProvider ended the process it was tried in: signal 11"


def test_a_child_reports_a_provider_that_is_absent_and_one_that_works(path):
    data = Path(path).read_bytes()
    assert "UnavailableError" in try_in_child(data, Plan("MadeUpExecutionProvider"), rows(1), 60)
    assert try_in_child(data, Plan(), rows(1), 60) is None


@pytest.mark.parametrize(
    ("feeds", "keywords"),
    [
        ({}, {}),
        ({"x": np.zeros((2, 8))}, {}),
        ({"x": np.zeros((2,), "f4")}, {}),
        (rows(2), {"objective": "speed"}),
        (rows(2), {"budget_s": 0}),
    ],
    ids=["no input", "dtype", "rank", "objective", "budget"],
)
def test_what_cannot_be_tuned_for_is_the_callers_error(path, feeds, keywords):
    session = open_batched(path)
    with pytest.raises(InputError):
        session.tune(feeds, **keywords)
    session.close()
