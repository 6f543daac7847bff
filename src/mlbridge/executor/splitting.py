"""Splitter: large batches of independent rows, run in parts on several cores at once.

A single-threaded native session has no idle threads that spin, and two of its calls side by side use two cores; so
small batches stay cheap and large ones use the machine.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from ..interfaces import Array

__all__ = ["Splitter"]

_WORTH_S = 150e-6  # a hand-over to another thread costs a third of this

_pool: ThreadPoolExecutor | None = None
_pool_lock = threading.Lock()
_free = threading.BoundedSemaphore(max(1, (os.cpu_count() or 1) - 1))


def _helpers() -> ThreadPoolExecutor:
    global _pool
    if _pool is None:
        with _pool_lock:
            if _pool is None:
                _pool = ThreadPoolExecutor(max(1, (os.cpu_count() or 1) - 1), "mlbridge-rows")
    return _pool


class Splitter:
    """Decides from measured times whether a batch is worth splitting, and splits it.

    Parameters
    ----------
    parts : int
        At most this many parts.
    """

    def __init__(self, parts: int) -> None:
        self._parts = parts
        self._row_s = 0.0  # measured on the largest batch seen so far
        self._rows = 0

    def learn(self, feeds: Mapping[str, Array], seconds: float) -> None:
        """Remember what a batch took, undivided."""
        rows = next(iter(feeds.values())).shape[0]
        if rows >= self._rows and rows > 1:
            per_row = seconds / rows
            self._row_s = per_row if rows > self._rows else min(self._row_s, per_row)
            self._rows = rows

    def split(self, feeds: Mapping[str, Array], first: str) -> int:
        """Return into how many parts this batch should go."""
        rows = feeds[first].shape[0]
        if rows < 2 * self._parts or rows * self._row_s < _WORTH_S or rows * 4 < self._rows:
            return 1
        return self._parts

    def run(self, call: Callable[[dict[str, Array]], dict[str, Array]], feeds: Mapping[str, Array], parts: int) -> dict[str, Array]:
        """Run the parts side by side and join their answers; undivided where other calls hold the cores."""
        helpers = []
        while len(helpers) < parts - 1 and _free.acquire(blocking=False):
            helpers.append(None)
        if not helpers:
            return call(dict(feeds))
        rows = next(iter(feeds.values())).shape[0]
        edges = [rows * i // (len(helpers) + 1) for i in range(len(helpers) + 2)]
        pieces = [{n: a[lo:hi] for n, a in feeds.items()} for lo, hi in zip(edges, edges[1:])]
        futures = [_helpers().submit(_released, call, piece) for piece in pieces[1:]]
        try:
            answers = [call(pieces[0])]
        finally:
            errors = [f.exception() for f in futures]
        for error in errors:
            if error is not None:
                raise error
        answers += [f.result() for f in futures]
        return {name: np.concatenate([a[name] for a in answers]) for name in answers[0]}


def _released(call: Callable[[dict[str, Array]], dict[str, Array]], piece: dict[str, Array]) -> dict[str, Array]:
    try:
        return call(piece)
    finally:
        _free.release()


def _after_fork() -> None:
    global _pool, _pool_lock, _free
    _pool, _pool_lock = None, threading.Lock()
    _free = threading.BoundedSemaphore(max(1, (os.cpu_count() or 1) - 1))


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
