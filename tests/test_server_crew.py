"""The crew: few hands at once, more where some wait. Events decide, not clocks."""

import threading

import pytest

from mlbridge.server.crew import Crew


@pytest.fixture
def crew():
    crew = Crew(64)
    yield crew
    crew.shutdown()


class Gate:
    """Tasks that count themselves and wait."""

    def __init__(self):
        self.entered, self.open = threading.Semaphore(0), threading.Event()

    def wait(self):
        self.entered.release()
        assert self.open.wait(60)
        return threading.get_ident()

    def meet(self, n):
        for _ in range(n):
            assert self.entered.acquire(timeout=60)


def test_tasks_answer_and_raise_as_any_executors_do(crew):
    assert [crew.submit(pow, i, 2).result(60) for i in range(200)] == [i * i for i in range(200)]
    with pytest.raises(ZeroDivisionError):
        crew.submit(divmod, 1, 0).result(60)


def test_one_after_the_other_needs_few_threads(crew):
    seen = {crew.submit(threading.get_ident).result(60) for _ in range(500)}
    assert len(seen) <= 4


def test_whoever_steps_aside_makes_room_at_once_and_hands_are_few_again_afterwards(crew):
    gate = Gate()

    def waits():
        with crew.aside:
            return gate.wait()

    futures = [crew.submit(waits) for _ in range(20)]
    gate.meet(20)
    assert crew.submit(pow, 2, 3).result(60) == 8
    gate.open.set()
    assert len({f.result(60) for f in futures}) == 20
    assert crew._aside == 0
    assert len({crew.submit(threading.get_ident).result(60) for _ in range(500)}) <= 5


def test_tasks_that_stand_still_without_a_word_do_not_stop_the_others(crew):
    gate = Gate()
    futures = [crew.submit(gate.wait) for _ in range(40)]  # as forty clients whose messages do not come
    assert crew.submit(pow, 2, 3).result(60) == 8
    gate.meet(40)
    gate.open.set()
    for future in futures:
        future.result(60)
    while crew._aside:
        threading.Event().wait(0.001)


def test_stepping_aside_after_the_foreman_saw_it_counts_once(crew):
    gate, second = Gate(), Gate()

    def task():
        gate.wait()
        with crew.aside:
            second.wait()

    futures = [crew.submit(task) for _ in range(12)]
    gate.meet(12)
    gate.open.set()
    second.meet(12)
    assert crew._aside == 12
    second.open.set()
    for future in futures:
        future.result(60)
    while crew._aside:
        threading.Event().wait(0.001)
    assert crew.submit(pow, 2, 3).result(60) == 8


def test_no_more_threads_than_allowed():
    crew, gate = Crew(6), Gate()

    def waits():
        with crew.aside:
            return gate.wait()

    futures = [crew.submit(waits) for _ in range(30)]
    gate.meet(6)
    assert not gate.entered.acquire(blocking=False)
    gate.open.set()
    assert len({f.result(60) for f in futures}) == 6
    crew.shutdown()


def test_who_was_sent_home_takes_nothing_and_finishes_what_it_had():
    crew, gate = Crew(8), Gate()
    futures = [crew.submit(gate.wait) for _ in range(3)]
    gate.meet(3)
    crew.shutdown()
    with pytest.raises(RuntimeError):
        crew.submit(pow, 2, 3)
    gate.open.set()
    for future in futures:
        future.result(60)
