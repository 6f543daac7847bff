"""Crew: the threads that answer calls, few of which are let run at once, for Python runs one at a time anyway.

Threads that all want the interpreter hinder each other: with 32 calls in flight four of them answer more than 32 do,
for a model that lets the interpreter go for some microseconds gets it back at once. A thread that is about to wait steps
aside meanwhile, and another takes its place; who stands idle without saying so (a slow client's message, an open stream)
is set aside by the foreman as soon as others wait for a hand.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Executor, Future
from queue import SimpleQueue
from time import monotonic, sleep
from typing import Any

__all__ = ["Crew"]

_HANDS = 2  # threads that run at once; more of them only wake each other for the interpreter
_PATIENCE_S = 0.005  # who takes longer over a task no longer counts as a hand
_Task = tuple[Future, Callable[..., Any], tuple, dict]


class Crew(Executor):
    """An executor whose tasks may step aside.

    Parameters
    ----------
    most : int
        Threads at once, those aside among them.
    name : str
        Of the threads.

    Attributes
    ----------
    aside : context manager
        Entered by a task around what may take long.
    """

    def __init__(self, most: int, *, name: str = "mlbridge") -> None:
        self._most, self._name = most, name
        self._lock = threading.Lock()
        self._tasks: SimpleQueue[_Task | None] = SimpleQueue()
        self._threads = self._aside = self._idle = self._spare = 0  # idle ones wait for tasks, spare ones to be needed at all
        self._needed = threading.Semaphore(0)
        self._since: dict[int, float] = {}  # threads that count as hands, and since when; who is not in it is aside
        self._short = threading.Event()  # tasks wait for a hand
        self._ended = False
        self.aside = _Aside(self)
        threading.Thread(target=self._look_after, name=f"{name}-foreman", daemon=True).start()

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future:
        """Run a task on the next thread that is free."""
        future: Future = Future()
        with self._lock:
            if self._ended:
                raise RuntimeError("the crew was sent home")
            self._tasks.put((future, fn, args, kwargs))
            if self._idle:
                self._idle -= 1
            else:
                self._call_one()
        return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Take no more tasks; threads end once those that were taken have."""
        with self._lock:
            self._ended = True
            for _ in range(self._threads):
                self._tasks.put(None)
            for _ in range(self._spare):
                self._needed.release()
            self._short.set()

    def _call_one(self) -> None:
        """Have one more thread take a task, if as many as may run do not run yet."""
        if self._threads - self._aside - self._spare >= _HANDS:
            self._short.set()
        elif self._spare:
            self._spare -= 1
            self._needed.release()
        elif self._threads < self._most and not self._ended:
            self._threads += 1
            threading.Thread(target=self._work, name=f"{self._name}-{self._threads}", daemon=True).start()

    def _step_aside(self, thread: int) -> None:
        if self._since.pop(thread, None) is not None:
            with self._lock:
                self._aside += 1
                if not self._idle and not self._tasks.empty():
                    self._call_one()

    def _step_back(self) -> None:
        with self._lock:
            self._aside -= 1

    def _work(self) -> None:
        tasks, since, me = self._tasks, self._since, threading.get_ident()
        while True:
            with self._lock:
                spare = not self._ended and self._threads - self._aside - self._spare > _HANDS
                if spare:
                    self._spare += 1
                elif tasks.empty():
                    self._idle += 1  # whoever brings a task takes it off again
            if spare:
                self._needed.acquire()
                continue
            task = tasks.get()
            if task is None:
                return
            since[me] = monotonic()
            _run(*task)
            del task  # what it holds must not wait for the next one
            if since.pop(me, None) is None:
                self._step_back()

    def _look_after(self) -> None:
        """The foreman: while tasks wait for a hand, set aside those who take long."""
        while not self._ended:
            self._short.wait()
            self._short.clear()
            while not self._ended and not self._tasks.empty():
                sleep(_PATIENCE_S)
                late = monotonic() - _PATIENCE_S
                for thread, began in list(self._since.items()):
                    if began < late:
                        self._step_aside(thread)


def _run(future: Future, fn: Callable[..., Any], args: tuple, kwargs: dict) -> None:
    if not future.set_running_or_notify_cancel():
        return
    try:
        result = fn(*args, **kwargs)
    except BaseException as exc:  # noqa: BLE001 - it belongs to the future
        future.set_exception(exc)
    else:
        future.set_result(result)


class _Aside:
    """Around what waits. It keeps nothing of who entered, so one serves all threads."""

    def __init__(self, crew: Crew) -> None:
        self._crew = crew

    def __enter__(self) -> None:
        self._crew._step_aside(threading.get_ident())

    def __exit__(self, *exc: object) -> None:
        self._crew._step_back()
        self._crew._since[threading.get_ident()] = monotonic()
