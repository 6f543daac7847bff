"""Alarms: one thread that calls functions at given times, to end calls that outlive their deadline.

A timer thread a call would cost more than most models; this one sleeps until the earliest alarm.
"""

from __future__ import annotations

import heapq
import itertools
import os
import threading
import time
from collections.abc import Callable

__all__ = ["call_at"]


class _Clock:
    def __init__(self) -> None:
        self._wake = threading.Condition()
        self._heap: list[tuple[float, int, list]] = []
        self._count = itertools.count()
        self._thread: threading.Thread | None = None

    def add(self, when: float, function: Callable[[], object]) -> Callable[[], None]:
        entry = [function]
        with self._wake:
            if self._thread is None:
                self._thread = threading.Thread(target=self._loop, name="mlbridge-alarms", daemon=True)
                self._thread.start()
            heapq.heappush(self._heap, (when, next(self._count), entry))
            if self._heap[0][2] is entry:
                self._wake.notify()
        return entry.clear

    def _loop(self) -> None:
        while True:
            with self._wake:
                while not self._heap or (self._heap[0][2] and self._heap[0][0] > time.monotonic()):
                    self._wake.wait(None if not self._heap else max(0.0, self._heap[0][0] - time.monotonic()))
                entry = heapq.heappop(self._heap)[2]
            for function in tuple(entry):
                function()


_clock = _Clock()


def call_at(when: float, function: Callable[[], object]) -> Callable[[], None]:
    """Call `function` on the alarm thread at `when`, and return what takes it back.

    Parameters
    ----------
    when : float
        Seconds on the clock of `time.monotonic`.
    function : callable
        Must be quick and must not raise.
    """
    return _clock.add(when, function)


def _after_fork() -> None:
    # The thread did not survive the fork, and the lock may have been held.
    global _clock
    _clock = _Clock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
