"""Lanes: what is written into bound buffers and read from them answers as the long way does, shares nothing, and fails as it."""

from __future__ import annotations

import threading

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import mlbridge as mb
from mlbridge.conversion.graph import Graph
from mlbridge.errors import ClosedError, InferenceError, InputError, MlbridgeError
from mlbridge.interfaces import Prebound
from mlbridge.model import Model
from mlbridge.signature import Column, Field, Signature, TensorSpec, blocks, classifier_outputs

CLASSES = ("no", "yes")
SIGNATURE = Signature(
    blocks(
        [
            Field(Column("age"), missing="refuse"),
            Field(Column("income"), missing="allow"),
            Field(Column("sex", categories=("f", "m")), "int32", "allow"),
            Field(Column("n", categories=(1, 2, 3)), "int32"),
        ]
    ),
    (*classifier_outputs(CLASSES), TensorSpec("sum", "float64", ("rows",), missing="allow")),
)


@pytest.fixture(scope="module")
def mixed(tmp_path_factory):
    """Four blocks in, a label, a row and a number out."""
    g = Graph(SIGNATURE)
    total = g.column("age")
    for name in ("income", "sex", "n"):
        other = g.column(name)
        total = g.add("Add", total, g.cast(other, "float64") if name in ("sex", "n") else other)
    both = g.concat([g.add("Neg", total), total])
    flat = g.add("Squeeze", total, g.const([1], "int64"))
    label = g.add("Where", g.add("IsNaN", flat), g.const(np.int64(-1)), g.add("ArgMax", both, axis=1, keepdims=0))
    g.output("label", g.cast(label, "int32"))
    g.output("probabilities", both)
    g.output("sum", flat)
    with mb.load(str(g.save(tmp_path_factory.mktemp("mixed"))), verify="never") as model:
        yield model


@pytest.fixture(scope="module")
def numbers(tmp_path_factory):
    """One block of numbers that refuses missing values; a label and a row out."""
    columns = tuple(Column(c) for c in "ab")
    g = Graph(Signature([TensorSpec("x", "float64", ("rows", 2), columns=columns)], classifier_outputs(CLASSES)))
    g.output("label", g.cast(g.add("ArgMax", "x", axis=1, keepdims=0), "int32"))
    g.output("probabilities", g.add("Neg", "x"))
    with mb.load(str(g.save(tmp_path_factory.mktemp("numbers"))), verify="never") as model:
        yield model


RECORD = {"age": 30.0, "income": 2.5, "sex": "m", "n": 2}


def bind(model, x):
    for _ in range(3):
        model.predict(x)
    assert model._lanes[type(x)](x) is not None, "the lane is not taken: the test would prove nothing"


def outcome(ask, x):
    try:
        return ask(x)
    except MlbridgeError as exc:
        return exc


def long_way(model):
    """Ask as `predict` does, with neither lane nor quick record."""
    coercion, quick = model._coercion, model._coercion.record

    def ask(x):
        coercion.record = None
        try:
            feeds, opened = coercion.feeds(x)
        finally:
            coercion.record = quick
        return coercion.answer(model._ask(feeds, None, None), opened)

    return ask


def same(got, want):
    if isinstance(want, Exception):
        assert type(got) is type(want)
        assert str(got) == str(want)
        return
    assert list(got) == list(want)
    for name, value in want.items():
        assert type(got[name]) is type(value)
        np.testing.assert_array_equal(got[name], value)


_NUMBER = st.one_of(
    st.floats(), st.integers(-(2**55), 2**55), st.floats().map(np.float64), st.sampled_from([None, True, "1", np.float32(0.1)])
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    age=_NUMBER,
    income=_NUMBER,
    sex=st.sampled_from(["f", "m", "x", None, 1, np.str_("m"), float("nan")]),
    n=st.sampled_from([1, 2, 3, 4, True, 2.0, "2", None, np.int64(3)]),
)
def test_a_record_is_answered_or_refused_as_the_long_way_does(mixed, age, income, sex, n):
    bind(mixed, RECORD)
    record = {"n": n, "age": age, "sex": sex, "income": income}
    same(outcome(mixed.predict, record), outcome(long_way(mixed), record))


@pytest.mark.parametrize("record", [{**RECORD, "more": 1}, {k: v for k, v in RECORD.items() if k != "n"}, {}], ids=["more", "less", "none"])
def test_a_record_of_other_columns_is_refused_by_name(mixed, record):
    bind(mixed, RECORD)
    same(outcome(mixed.predict, record), outcome(long_way(mixed), record))


@pytest.mark.parametrize(
    "x",
    [
        np.array([[1.0, 2.0]]),
        np.array([[1.0, np.nan]]),
        np.array([[np.inf, 2.0]]),
        np.asfortranarray([[1.0, 2.0], [4.0, 3.0]]),
        np.arange(8.0).reshape(2, 4)[:, ::2],
        np.array([[1.0, 2.0]], ">f8"),
        np.array([[1, 2]]),
        np.ones((1, 3)),
        np.ones((0, 2)),
    ],
    ids=["plain", "missing", "infinite", "fortran", "strided", "big-endian", "whole", "wide", "empty"],
)
def test_an_array_is_answered_or_refused_as_the_long_way_does(numbers, x):
    for n in (1, 2):
        bind(numbers, np.ones((n, 2)))
    before = x.copy()
    for _ in range(3):
        same(outcome(numbers.predict, x), outcome(long_way(numbers), x))
    np.testing.assert_array_equal(x, before)


def test_answers_of_two_calls_share_no_memory(mixed, numbers):
    bind(mixed, RECORD)
    first = mixed.predict(RECORD)["probabilities"]
    kept = first.copy()
    assert not np.shares_memory(first, mixed.predict({**RECORD, "age": 1.0})["probabilities"])
    np.testing.assert_array_equal(first, kept)
    x = np.array([[1.0, 2.0]])
    bind(numbers, x)
    a = numbers.predict(x)
    b = numbers.predict(-x)
    assert not any(np.shares_memory(a[k], b[k]) for k in a)
    assert a["label"].tolist() == ["yes"]
    assert b["label"].tolist() == ["no"]


def test_threads_share_a_lane_without_mixing_answers(mixed):
    bind(mixed, RECORD)
    wrong = []

    def ask(seed):
        for value in np.random.default_rng(seed).normal(size=500).tolist():
            got = mixed.predict({**RECORD, "age": value})
            if got["sum"] != value + 2.5 + 1 + 1 or got["probabilities"][0] != -got["sum"]:
                wrong.append((value, got))

    threads = [threading.Thread(target=ask, args=(seed,)) for seed in range(4)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert not wrong


@pytest.mark.parametrize("x", [{"a": 1.0}, np.ones((1, 1))], ids=["record", "array"])
def test_a_call_that_fails_is_an_inference_error_and_the_next_one_is_answered(x, tmp_path):
    signature = Signature([TensorSpec("x", "float64", ("rows", 1), columns=(Column("a"),))], [TensorSpec("y", "float64", ("rows", 1))])
    g = Graph(signature)
    place = g.cast(g.add("Squeeze", "x", g.const([1], "int64")), "int64")
    g.output("y", g.add("Gather", g.const(np.array([[5.0], [7.0]])), place, axis=0))
    with mb.load(str(g.save(tmp_path)), verify="never") as model:
        bind(model, x)
        with pytest.raises(InferenceError):
            model.predict({"a": 9.0} if isinstance(x, dict) else x * 9)
        for _ in range(3):
            assert model.predict(x)["y"] == 7.0


def test_a_closed_model_refuses_records_and_arrays(tmp_path):
    g = Graph(Signature([TensorSpec("x", "float64", ("rows", 1), columns=(Column("a"),))], [TensorSpec("y", "float64", ("rows", 1))]))
    g.output("y", g.add("Neg", "x"))
    model = mb.load(str(g.save(tmp_path)), verify="never")
    x = np.ones((1, 1))
    bind(model, x)
    bind(model, {"a": 1.0})
    model.close()
    for asked in (x, {"a": 1.0}):
        with pytest.raises(ClosedError):
            model.predict(asked)


def test_a_session_behind_a_semaphore_lends_no_lane():
    class OneAtATime:
        device, max_concurrency = "cpu", 1
        signature = Signature([TensorSpec("x", "float64", ("rows", 1))], [TensorSpec("y", "float64", ("rows", 1))])

        def run(self, feeds, /, *, outputs=None, deadline=None):
            return {"y": -feeds["x"]}

        def lane(self, key, write, read, /):
            return lambda x: pytest.fail("the lane passes the semaphore by")

        def close(self):
            pass

    session = OneAtATime()
    assert isinstance(session, Prebound)
    with Model(session) as model:
        assert model.predict(np.ones((1, 1)))["y"] == -1.0
        with pytest.raises(InputError):
            model.predict(np.full((1, 1), np.nan))
