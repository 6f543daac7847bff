"""Splitter: large batches of independent rows, run in parts on several cores at once.

A single-threaded native session has no idle threads that spin, and two of its calls side by side use two cores; so
small batches stay cheap and large ones use the machine.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Mapping
from itertools import pairwise
from queue import SimpleQueue
from typing import Any

import numpy as np

from ..interfaces import Array
from .devices import cores

__all__ = ["Splitter"]

_WORTH_S = 300e-6  # a hand-over to another thread and back costs a tenth of this, or all of it where the core is taken

_TRIES = 3
_AGAIN = 32  # calls between two trials of the way that was slower
_FADE = 1.03  # of a fastest time, at each call that went its way

Call = Callable[[dict[str, Array]], dict[str, Array]]


class _Helpers:
    """One thread a core beside the caller's own; a bare queue hands over in a third of an executor's time."""

    def __init__(self) -> None:
        self._jobs: SimpleQueue = SimpleQueue()
        self._count = max(1, cores() - 1)
        self._free = threading.Semaphore(self._count)
        self._lock = threading.Lock()
        self._started = False

    def take(self, wanted: int) -> int:
        """Reserve up to `wanted` helpers that are free now."""
        taken = 0
        while taken < wanted and self._free.acquire(blocking=False):
            taken += 1
        if taken and not self._started:
            with self._lock:
                if not self._started:
                    for i in range(self._count):
                        threading.Thread(target=self._serve, name=f"mlbridge-rows-{i}", daemon=True).start()
                    self._started = True
        return taken

    def start(self, call: Call, piece: dict[str, Array]) -> tuple[threading.Lock, list]:
        """Run `call(piece)` on a reserved helper; the lock opens when the list holds its answer or its error."""
        done = threading.Lock()
        box: list = []
        done.acquire()
        self._jobs.put((call, piece, done, box))
        return done, box

    def _serve(self) -> None:
        while True:
            call, piece, done, box = self._jobs.get()
            try:
                box.append((call(piece), None))
            except BaseException as exc:  # noqa: BLE001 - handed to the caller's thread, which raises it
                box.append((None, exc))
            finally:
                self._free.release()
                done.release()
            del call, piece, done, box


_helpers = _Helpers()


class Splitter:
    """Decides from measured times whether a batch is worth splitting, and splits it.

    Batches within a factor of two share what was learnt. Each kind is run undivided a few times, then split a few
    times if it takes long enough, then whichever was faster; the fastest times count, for neighbours only add. They fade,
    and now and then the other way is tried: who held the second core while a model was young need not hold it for ever.

    Parameters
    ----------
    parts : int
        At most this many parts.
    """

    def __init__(self, parts: int) -> None:
        self._parts = parts
        self._known: dict[int, list] = {}  # bit length of rows: [runs, s a row] undivided, then the same split

    def split(self, feeds: Mapping[str, Array]) -> int:
        """Return into how many parts this batch should go."""
        rows = next(iter(feeds.values())).shape[0]
        if rows < 4 * self._parts:
            return 1
        known = self._known.get(rows.bit_length())
        if known is None or known[0] < _TRIES or known[1] * rows < _WORTH_S:
            return 1
        if known[2] < _TRIES:
            return self._parts
        faster = known[3] < known[1]
        return self._parts if faster != ((known[0] + known[2]) % _AGAIN == 0) else 1

    def settled(self, feeds: Mapping[str, Array]) -> bool:
        """Whether batches of this size are too quick ever to be worth splitting."""
        rows = next(iter(feeds.values())).shape[0]
        known = self._known.get(rows.bit_length())
        return rows < 4 * self._parts or (known is not None and known[0] >= 2 * _TRIES and known[1] * rows < _WORTH_S)

    def learn(self, feeds: Mapping[str, Array], seconds: float, parts: int) -> None:
        """Remember what a batch took."""
        rows = next(iter(feeds.values())).shape[0]
        if rows < 4 * self._parts:
            return
        known = self._known.setdefault(rows.bit_length(), [0, 1e9, 0, 1e9])
        at = 0 if parts == 1 else 2
        known[at] += 1
        known[at + 1] = min(_FADE * known[at + 1], seconds / rows)

    def run(self, call: Call, feeds: Mapping[str, Array], parts: int) -> dict[str, Array]:
        """Run the parts side by side and join their answers; undivided where other calls hold the cores."""
        taken = _helpers.take(parts - 1)
        if not taken:
            return call(dict(feeds))
        rows = next(iter(feeds.values())).shape[0]
        edges = [rows * i // (taken + 1) for i in range(taken + 2)]
        pieces: list[dict[str, Any]] = [{n: a[lo:hi] for n, a in feeds.items()} for lo, hi in pairwise(edges)]
        jobs = [_helpers.start(call, piece) for piece in pieces[1:]]
        try:
            answers = [call(pieces[0])]
        finally:
            for done, _ in jobs:
                done.acquire()  # a part must not outlive the call: it reads the caller's arrays
        for _, box in jobs:
            answer, error = box[0]
            if error is not None:
                raise error
            answers.append(answer)
        return {name: np.concatenate([a[name] for a in answers]) for name in answers[0]}


def _after_fork() -> None:
    global _helpers
    _helpers = _Helpers()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
