"""Batches: who shares one, who pays for whose failure, who is served next. No clocks decide here, events do."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from served_models import Doubler, rows

from mlbridge.errors import BridgeTimeoutError, CancelledError, OverloadedError
from mlbridge.interfaces import Deadline
from mlbridge.server.batching import Batcher
from mlbridge.server.caller import Caller
from mlbridge.server.timing import Timing


def make(session=None, **keywords):
    session = session or Doubler(concurrency=1)

    def run(feeds, names, deadline):
        return session.run(feeds, outputs=names, deadline=deadline)

    keywords = {"batched": True, "concurrency": session.max_concurrency, "max_queue": 1000} | keywords
    return Batcher(run, **keywords), session


def submit(batcher, x, **keywords):
    return batcher.submit({"x": x}, len(x), **keywords)[0]["y"]


class Client(Caller):
    def __init__(self, name):
        self._name = name

    def name(self):
        return self._name


class Held:
    """A batcher whose model is busy with a first request until let go."""

    def __init__(self, **keywords):
        session = keywords.pop("session", None) or Doubler(concurrency=1)
        self.batcher, self.session = make(session, **keywords)
        self.pool = ThreadPoolExecutor(64)
        session.open.clear()
        self.first = self.pool.submit(submit, self.batcher, rows(1, session.signature.inputs[0].shape[1]))
        session.entered.acquire()

    def queue(self, x, **keywords):
        before = self.batcher.waiting
        future = self.pool.submit(submit, self.batcher, x, **keywords)
        while self.batcher.waiting == before and not future.done():
            threading.Event().wait(0.0005)
        return future

    def go(self):
        self.session.open.set()

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.go()
        self.pool.shutdown()


def test_an_idle_model_runs_the_request_on_its_own_thread():
    threads = []
    batcher = Batcher(
        lambda feeds, names, deadline: threads.append(threading.get_ident()) or {"y": feeds["x"]}, batched=True, concurrency=1
    )
    batcher.submit({"x": rows(1)}, 1)
    assert threads == [threading.get_ident()]


def test_what_waits_shares_one_call_and_gets_its_own_rows():
    with Held() as held:
        xs = [rows(n, seed=n) for n in (1, 3, 2, 5)]
        futures = [held.queue(x) for x in xs]
        held.go()
        for x, future in zip(xs, futures):
            np.testing.assert_array_equal(future.result(30), x * 2)
    assert held.session.sizes == [1, 11]


def test_other_outputs_and_other_shapes_never_share_a_call():
    class Pick(Doubler):
        def run(self, feeds, /, *, outputs=None, deadline=None):
            y = super().run(feeds, deadline=deadline)
            return y if outputs is None else {n: y[n] for n in outputs}

    with Held(session=Pick(concurrency=1)) as held:
        a = held.queue(rows(2))
        b = held.queue(rows(3), names=["y"])
        c = held.queue(rows(4)[:, :2])
        held.go()
        assert [len(f.result(30)) for f in (a, b, c)] == [2, 3, 4]
    assert sorted(held.session.sizes) == [1, 2, 3, 4]


def test_a_model_without_the_promise_of_rows_is_never_batched():
    with Held(batched=False) as held:
        futures = [held.queue(rows(2, seed=i)) for i in range(3)]
        held.go()
        assert [len(f.result(30)) for f in futures] == [2, 2, 2]
    assert held.session.sizes == [1, 2, 2, 2]


def test_a_batch_stays_within_its_row_limit():
    with Held(max_rows=4) as held:
        futures = [held.queue(rows(2, seed=i)) for i in range(4)]
        held.go()
        for i, future in enumerate(futures):
            np.testing.assert_array_equal(future.result(30), rows(2, seed=i) * 2)
    assert held.session.sizes == [1, 4, 4]


def test_a_poisoned_request_fails_alone():
    with Held(session=Doubler(concurrency=1, poison=666.0)) as held:
        xs = [rows(2, seed=i) for i in range(7)]
        xs[3] = xs[3].copy()
        xs[3][0, 0] = 666.0
        futures = [held.queue(x) for x in xs]
        held.go()
        for i, future in enumerate(futures):
            if i == 3:
                with pytest.raises(ValueError, match="poisoned"):
                    future.result(30)
            else:
                np.testing.assert_array_equal(future.result(30), xs[i] * 2)


def test_a_model_that_answers_too_few_rows_for_a_batch_is_asked_one_by_one():
    class Drops(Doubler):
        def run(self, feeds, /, *, outputs=None, deadline=None):
            y = super().run(feeds, deadline=deadline)["y"]
            return {"y": y[: 2 if len(y) > 2 else None]}

    with Held(session=Drops(concurrency=1)) as held:
        futures = [held.queue(rows(2, seed=i)) for i in range(3)]
        held.go()
        for i, future in enumerate(futures):
            np.testing.assert_array_equal(future.result(30), rows(2, seed=i) * 2)


def test_a_cancelled_request_leaves_the_queue_and_its_neighbours_alone():
    with Held() as held:
        deadline = Deadline()
        keep = held.queue(rows(1, seed=1))
        gone = held.queue(rows(1, seed=2), deadline=deadline)
        deadline.cancel()
        with pytest.raises(CancelledError):
            gone.result(30)
        assert held.batcher.waiting == 1
        held.go()
        np.testing.assert_array_equal(keep.result(30), rows(1, seed=1) * 2)
    assert held.session.sizes == [1, 1]


@pytest.mark.parametrize("victim", [0, 1, 3])
def test_cancelling_one_of_a_running_batch_answers_the_others(victim):
    with Held() as held:
        deadlines = [Deadline() for _ in range(4)]
        futures = [held.queue(rows(1, seed=i), deadline=deadlines[i]) for i in range(4)]
        held.session.open.set()
        held.first.result(30)
        held.session.entered.acquire()
        deadlines[victim].cancel()
        for i, future in enumerate(futures):
            if i != victim:
                np.testing.assert_array_equal(future.result(30), rows(1, seed=i) * 2)


def test_a_deadline_that_passes_while_waiting_ends_the_wait():
    with Held() as held:
        late = held.queue(rows(1), deadline=Deadline(0.05))
        with pytest.raises(BridgeTimeoutError):
            late.result(30)
        assert held.batcher.waiting == 0


def test_a_deadline_that_cannot_be_met_is_refused_before_it_costs_anything():
    batcher, session = make()
    for _ in range(10):
        batcher.timing.add(1, 2_000_000_000)
    with pytest.raises(BridgeTimeoutError, match="shorter than the model needs"):
        submit(batcher, rows(1), deadline=Deadline(1.0))
    assert session.sizes == []


def test_an_estimate_that_refuses_everybody_is_doubted_in_the_end():
    batcher, _ = make()
    for _ in range(10):
        batcher.timing.add(1, 2_000_000_000)
    for _ in range(200):
        try:
            submit(batcher, rows(1), deadline=Deadline(1.0))
            return
        except BridgeTimeoutError:
            continue
    raise AssertionError("the model was never tried again")


def test_a_full_queue_refuses_at_once():
    with Held(max_queue=2) as held:
        kept = [held.queue(rows(1, seed=i)) for i in range(2)]
        with pytest.raises(OverloadedError):
            submit(held.batcher, rows(1))
        held.go()
        assert [len(f.result(30)) for f in kept] == [1, 1]


def test_a_greedy_client_makes_room_for_another_one():
    with Held(max_queue=4) as held:
        greedy = [held.queue(rows(1, seed=i), caller=Client("greedy")) for i in range(4)]
        modest = held.pool.submit(submit, held.batcher, rows(1, seed=9), caller=Client("modest"))
        with pytest.raises(OverloadedError):
            greedy[3].result(30)
        held.go()
        np.testing.assert_array_equal(modest.result(30), rows(1, seed=9) * 2)
        assert [len(f.result(30)) for f in greedy[:3]] == [1, 1, 1]


def test_clients_take_turns():
    with Held(max_rows=2) as held:
        a = [held.queue(rows(1, seed=i), caller=Client("a")) for i in range(3)]
        b = held.queue(rows(1, seed=5), caller=Client("b"))
        held.go()
        for future in (*a, b):
            future.result(30)
    np.testing.assert_array_equal(held.session.seen[1], np.vstack([rows(1, seed=0), rows(1, seed=5)]))


def test_a_pool_runs_as_many_calls_as_it_has_workers():
    session = Doubler(concurrency=3)
    batcher, _ = make(session)
    session.open.clear()
    with ThreadPoolExecutor(8) as pool:
        futures = [pool.submit(submit, batcher, rows(1)) for _ in range(3)]
        for _ in range(3):
            session.entered.acquire()
        assert batcher.active == 3
        session.open.set()
        for future in futures:
            future.result(30)
    assert batcher.active == 0


def _storm(batches, seed):
    """Random batches with random cancels, deadlines and disconnects: whoever did not give up gets its own rows."""
    rng = np.random.default_rng(seed)
    batcher, session = make(Doubler(concurrency=1, slow_s=0.0002), max_queue=10_000)
    answered = given_up = 0

    def one(seed):
        own = np.random.default_rng(seed)
        x, deadline, kind = own.normal(size=(int(own.integers(1, 6)), 3)), Deadline(), own.random()
        if kind < 0.15:
            deadline = Deadline(float(own.uniform(0, 0.003)))
        elif kind < 0.3:
            timer = threading.Timer(float(own.uniform(0, 0.003)), deadline.cancel)
            timer.start()
        try:
            got = submit(batcher, x, deadline=deadline if kind < 0.6 else None, caller=Client(seed % 5))
        except (BridgeTimeoutError, CancelledError):
            return kind < 0.3, False
        return bool((got == x * 2).all()), True

    with ThreadPoolExecutor(16) as pool:
        while len(session.sizes) < batches:
            for right, was_answered in pool.map(one, rng.integers(0, 2**62, 400).tolist()):
                assert right
                answered += was_answered
                given_up += not was_answered
    assert batcher.active == batcher.waiting == 0
    return answered, given_up


def test_cancels_and_deadlines_never_touch_a_neighbour():
    answered, given_up = _storm(500, 11)
    assert answered > 500
    assert given_up > 10


@pytest.mark.full
@pytest.mark.timeout(3600)
def test_ten_thousand_batches_with_cancels_and_deadlines():
    _storm(10_000, 12)


@pytest.mark.parametrize("total", [5_000, pytest.param(100_000, marks=pytest.mark.full)])
def test_no_row_is_swapped_in_ragged_batches(total):
    batcher, session = make(Doubler(concurrency=1, slow_s=0.0002))

    def one(start):
        n = 1 + start % 17
        x = (start * 20 + np.arange(n * 3, dtype=float)).reshape(n, 3)
        return n, bool((submit(batcher, x) == x * 2).all())

    seen = 0
    with ThreadPoolExecutor(16) as pool:
        for n, right in pool.map(one, range(total // 9)):
            assert right
            seen += n
    assert seen >= total * 0.95
    assert max(session.sizes) > 17


# ---------------------------------------------------------------- T(n)


def test_the_line_through_measurements_predicts():
    timing = Timing()
    for n in (1, 8, 64, 1, 8, 64):
        timing.add(n, 1_000_000 + 50_000 * n)
    assert timing.predict_s(32) == pytest.approx(1.05 * 2.6e-3, rel=1e-6)
    assert timing.rows_within(2.1e-3, 1000) == pytest.approx(20, abs=1)
    assert timing.rows_within(1e-9, 1000) == 1


def test_one_stall_does_not_poison_the_line():
    timing = Timing()
    for _ in range(30):
        timing.add(1, 1_000_000)
    timing.add(1, 60_000_000_000)
    assert timing.predict_s(1) < 2e-3
