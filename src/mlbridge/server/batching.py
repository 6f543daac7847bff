"""Who runs when: one Batcher per model version, without a thread of its own and without a waiting window.

A request that finds the model idle runs on its own thread at once. Requests that come while it is busy wait; whoever
finishes takes the next batch out of the queue and wakes its first request, which runs the batch on *its* thread and
hands every other request its rows. So work is never held back, and batches form only where there is load.
"""

from __future__ import annotations

import threading
from collections import OrderedDict, deque
from collections.abc import Callable, Hashable, Mapping, Sequence
from time import perf_counter_ns
from typing import Any

import numpy as np

from ..errors import BridgeTimeoutError, CancelledError, ClosedError, InferenceError, MlbridgeError, OverloadedError
from ..interfaces import UNBOUNDED, Deadline
from .caller import Caller
from .timing import Timing

__all__ = ["Batcher", "Ticket"]

Feeds = Mapping[str, np.ndarray]
Run = Callable[[Any, "list[str] | None", "Deadline | None"], "dict[str, np.ndarray]"]

_SHORTER_THAN_WAITING_S = 1e-4  # a call this short costs less than a thread's sleep and waking
_BRIEF_S = 1e-3  # a call this short is over before another thread could make use of its place
_SHORT_S = 0.02  # a call this short is over before a cancellation could save anything
_NOBODY = Caller()
_WAITING, _LEADING, _RIDING, _DONE = range(4)
_FINAL = (BridgeTimeoutError, CancelledError, OverloadedError, ClosedError)  # of the call, not of a request's values


class Ticket:
    """One request in the queue: what it wants, and how it is told."""

    __slots__ = ("batch", "client", "deadline", "error", "feeds", "key", "names", "queued_at", "results", "rows", "state", "wake")

    def __init__(self, feeds: Feeds, rows: int | None, names: list[str] | None, deadline: Deadline | None, client: Hashable) -> None:
        self.feeds, self.rows, self.names, self.deadline, self.client = feeds, rows, names, deadline, client
        self.key: Hashable = None
        self.queued_at = perf_counter_ns()
        self.state = _WAITING
        self.wake = threading.Lock()
        self.wake.acquire()
        self.batch: list[Ticket] = []
        self.results: dict[str, np.ndarray] | None = None
        self.error: BaseException | None = None


class Batcher:
    """Queue, admission and batches of one model.

    Parameters
    ----------
    run : callable
        ``run(feeds, names, deadline) -> results``; may be called from many threads.
    batched : bool
        Whether rows are independent and requests may share a call.
    concurrency : int
        Calls the model takes at once.
    cores : int
        Calls worth making at once on this machine.
    max_queue : int
        Requests that may wait; more are refused at once.
    max_rows : int
        Rows of one call.
    on_batch : callable, optional
        Told the number of requests, their rows and the nanoseconds of every call.
    """

    def __init__(
        self,
        run: Run,
        *,
        batched: bool,
        concurrency: int,
        cores: int = 1,
        max_queue: int = 128,
        max_rows: int = 1024,
        on_batch: Callable[[int, int, int], None] | None = None,
    ) -> None:
        self._run, self._batched, self._max_queue = run, batched, max_queue
        self._concurrency, self._on_batch = concurrency, on_batch
        self._lanes = min(concurrency, cores) if concurrency >= UNBOUNDED else concurrency
        self.max_rows = max_rows
        self.timing = Timing()
        self._lock = threading.Lock()
        self._active = 0
        self._queue: OrderedDict[Hashable, deque[Ticket]] = OrderedDict()  # client -> its requests; the first client is served next
        self._waiting = 0

    @property
    def waiting(self) -> int:
        """How many requests wait now."""
        return self._waiting

    @property
    def active(self) -> int:
        """How many calls run now."""
        return self._active

    def _idle(self, rows: int) -> bool:
        """Whether a request of that many rows may run now."""
        if self._waiting:
            return False
        if self._active < self._lanes:
            return True
        return self.brief(rows)

    def brief(self, rows: int) -> bool:
        """Whether a call of that many rows is over before a thread could go to sleep, however many run beside it."""
        return self._concurrency >= UNBOUNDED and 0 < self.timing.shortest_s(rows) < _SHORTER_THAN_WAITING_S

    # -------------------------------------------------- the way of one request

    def submit(
        self,
        feeds: Feeds,
        rows: int | None,
        names: list[str] | None = None,
        deadline: Deadline | None = None,
        caller: Caller = _NOBODY,
    ) -> tuple[dict[str, np.ndarray], int]:
        """Run a request, alone or in company.

        Parameters
        ----------
        feeds, rows, names, deadline
            What to run, its rows (None where rows are not independent), the outputs, when to give up.
        caller : Caller
            Who asks: clients share the queue fairly, and one that gives up is not worked for.

        Returns
        -------
        results : dict of str to ndarray
        queued_ns : int
            How long it waited.

        Raises
        ------
        OverloadedError
            If the queue is full.
        BridgeTimeoutError
            If the deadline passed, or cannot be met.
        CancelledError
            If the caller gave up.
        """
        if deadline is not None:
            self._refuse_hopeless(deadline, rows)
        with self._lock:
            if self._idle(rows or 1):
                self._active += 1
                ticket = None
            else:
                deadline = deadline or Deadline()
                ticket = self._enqueue(Ticket(feeds, rows, names, deadline, caller.name()))
        if ticket is not None:
            assert deadline is not None
            caller.tie(deadline)
            with caller.aside:
                return self._wait(ticket)
        expected = self.timing.predict_s(rows or 1)
        if 0 < expected < _BRIEF_S:
            return self._alone(feeds, rows, names, deadline), 0
        if not 0 < expected < _SHORT_S:
            deadline = deadline or Deadline()
            caller.tie(deadline)
        with caller.aside:
            return self._alone(feeds, rows, names, deadline), 0

    def at_once(self, feeds: Feeds, rows: int) -> dict[str, np.ndarray] | None:
        """Run a brief request now; None where others wait."""
        with self._lock:
            if self._waiting:
                return None
            self._active += 1
        return self._alone(feeds, rows, None, None)

    def _alone(self, feeds: Feeds, rows: int | None, names: list[str] | None, deadline: Deadline | None) -> dict[str, np.ndarray]:
        try:
            began = perf_counter_ns()
            results = self._run(feeds, names, deadline)
            took = perf_counter_ns() - began
            self.timing.add(rows or 1, took)
            if self._on_batch is not None:
                self._on_batch(1, rows or 1, took)
            return results
        finally:
            self._next()

    def _refuse_hopeless(self, deadline: Deadline, rows: int | None) -> None:
        left = deadline.remaining_s()
        if left is None:
            return
        need = self.timing.predict_s(rows or 1)
        if left < need:
            self.timing.doubt()  # an estimate that refuses everybody must not last for ever
            raise BridgeTimeoutError("the deadline is shorter than the model needs", hint="give a larger timeout")

    def _enqueue(self, ticket: Ticket) -> Ticket:
        if self._waiting >= self._max_queue:
            self._make_room(ticket.client)
        if self._batched and ticket.rows:
            ticket.key = _shape_key(ticket)
        self._queue.setdefault(ticket.client, deque()).append(ticket)
        self._waiting += 1
        return ticket

    def _make_room(self, client: Hashable) -> None:
        """Take the newest request of the client that has most in the queue, or refuse."""
        longest = max(self._queue, key=lambda c: len(self._queue[c]))
        mine = len(self._queue.get(client, ()))
        if mine + 1 >= len(self._queue[longest]):
            raise OverloadedError("the model's queue is full", hint="try again later")
        victim = self._queue[longest].pop()
        self._waiting -= 1
        victim.error = OverloadedError("the model's queue is full", hint="try again later")
        victim.state = _DONE
        victim.wake.release()

    def _wait(self, ticket: Ticket) -> tuple[dict[str, np.ndarray], int]:
        deadline = ticket.deadline
        assert deadline is not None
        forget = deadline.on_cancel(lambda: self._withdraw(ticket, CancelledError("the caller cancelled")))
        try:
            while True:
                left = deadline.remaining_s()
                if ticket.wake.acquire(timeout=-1 if left is None else max(left, 0.0)):
                    break
                self._withdraw(ticket, BridgeTimeoutError("the deadline passed while the request waited"))
                if ticket.state == _RIDING:
                    raise BridgeTimeoutError("the deadline passed while the model ran")
            queued = perf_counter_ns() - ticket.queued_at
            if ticket.state == _LEADING:
                self._lead(ticket)
            if ticket.error is not None:
                raise ticket.error
            assert ticket.results is not None
            return ticket.results, queued
        finally:
            forget()

    def _withdraw(self, ticket: Ticket, error: MlbridgeError) -> None:
        """Take a waiting request out of the queue; one that runs already is left to its batch."""
        with self._lock:
            if ticket.state == _RIDING and isinstance(error, CancelledError):
                ticket.state, ticket.error = _DONE, error
                ticket.wake.release()
                return
            if ticket.state != _WAITING:
                return
            own = self._queue[ticket.client]
            own.remove(ticket)
            if not own:
                del self._queue[ticket.client]
            self._waiting -= 1
            ticket.state, ticket.error = _DONE, error
        ticket.wake.release()

    # -------------------------------------------------- the way of a batch

    def _next(self) -> None:
        """A call has ended: hand its place to the next batch, or leave it empty."""
        with self._lock:
            while self._waiting:
                batch = self._pick()
                if batch:
                    for t in batch:
                        t.state = _RIDING
                    batch[0].state, batch[0].batch = _LEADING, batch
                    batch[0].wake.release()
                    if self._active >= self._lanes or not self._waiting:
                        return
                    self._active += 1
                    continue
            self._active -= 1

    def _pick(self) -> list[Ticket]:
        """Take the next batch out of the queue: one client after the other, equal shapes only, within T(n)."""
        first = self._take_first()
        if first is None:
            return []
        batch, rows = [first], first.rows or 1
        if first.key is None:
            return batch
        slack = first.deadline.remaining_s() if first.deadline is not None else None
        budget = self.timing.rows_within(slack, self.max_rows)
        while rows < budget and self._waiting:
            added = False
            for client in list(self._queue):
                head = self._queue[client][0]
                if head.key != first.key or rows + (head.rows or 1) > budget:
                    continue
                self._pop(client)
                if self._hopeless(head):
                    added = True
                    continue
                batch.append(head)
                rows += head.rows or 1
                added = True
                left = head.deadline.remaining_s() if head.deadline is not None else None
                if left is not None and (slack is None or left < slack):
                    slack = left
                    budget = min(budget, max(rows, self.timing.rows_within(slack, self.max_rows)))
            if not added:
                break
        return batch

    def _take_first(self) -> Ticket | None:
        while self._queue:
            client = next(iter(self._queue))
            ticket = self._pop(client)
            if not self._hopeless(ticket):
                return ticket
        return None

    def _pop(self, client: Hashable) -> Ticket:
        own = self._queue[client]
        ticket = own.popleft()
        self._waiting -= 1
        if own:
            self._queue.move_to_end(client)
        else:
            del self._queue[client]
        return ticket

    def _hopeless(self, ticket: Ticket) -> bool:
        """Drop a request that cannot be answered in time, so that its time goes to others."""
        left = ticket.deadline.remaining_s() if ticket.deadline is not None else None
        if left is None or left >= self.timing.predict_s(ticket.rows or 1):
            return False
        self.timing.doubt()
        ticket.state = _DONE
        ticket.error = BridgeTimeoutError("the deadline could not be met after waiting")
        ticket.wake.release()
        return True

    def _lead(self, ticket: Ticket) -> None:
        batch = ticket.batch
        ticket.batch = []
        try:
            self._run_batch(batch)
        except BaseException as exc:  # the leader's thread must never leave the others waiting
            for t in batch:
                self._finish(t, None, exc if isinstance(exc, Exception) else InferenceError("the server is stopping"))
            if not isinstance(exc, Exception):
                raise
        finally:
            self._next()

    def _run_batch(self, batch: Sequence[Ticket]) -> None:
        """Run some requests as one call; where that fails, halves of it, down to the one at fault."""
        live = [t for t in batch if not (t.deadline is not None and t.deadline.cancelled)]
        for t in batch:
            if t not in live:
                self._finish(t, None, CancelledError("the caller cancelled"))
        if not live:
            return
        rows = sum(t.rows or 1 for t in live)
        try:
            feeds = live[0].feeds if len(live) == 1 else _joined(live)
            began = perf_counter_ns()
            results = self._run(feeds, live[0].names, _latest(live))
            took = perf_counter_ns() - began
            if len(live) > 1 and any(len(a) != rows for a in results.values()):
                raise InferenceError("the model answered another number of rows than it was asked for")
        except Exception as exc:  # noqa: BLE001 - any failure of the model is its requests' failure
            if len(live) == 1 or isinstance(exc, _FINAL):
                for t in live:
                    self._finish(t, None, exc)
                return
            half = len(live) // 2
            self._run_batch(live[:half])
            self._run_batch(live[half:])
            return
        self.timing.add(rows, took)
        if self._on_batch is not None:
            self._on_batch(len(live), rows, took)
        if len(live) == 1:
            self._finish(live[0], results, None)
            return
        at = 0
        for t in live:
            n = t.rows or 1
            self._finish(t, {k: a[at : at + n] for k, a in results.items()}, None)
            at += n

    def _finish(self, ticket: Ticket, results: dict[str, np.ndarray] | None, error: BaseException | None) -> None:
        with self._lock:
            if ticket.state == _DONE:
                return  # cancelled while it ran
            leading = ticket.state == _LEADING
            ticket.results, ticket.error, ticket.state = results, error, _DONE
        if not leading:
            ticket.wake.release()

    def drain_s(self) -> float:
        """Estimate how long the queue takes: what a refused client should wait."""
        return min(max((self._waiting + 1) * self.timing.one_s, 0.01), 10.0)


def _shape_key(ticket: Ticket) -> Hashable:
    names = None if ticket.names is None else tuple(ticket.names)
    return names, tuple((n, a.shape[1:]) for n, a in sorted(ticket.feeds.items()))


def _joined(batch: Sequence[Ticket]) -> dict[str, np.ndarray]:
    return {n: np.concatenate([t.feeds[n] for t in batch]) for n in batch[0].feeds}


def _latest(batch: Sequence[Ticket]) -> Deadline | None:
    """A batch may run until its last member gives up; one member's end must not end the others."""
    if len(batch) == 1:
        return batch[0].deadline
    left = [t.deadline.remaining_s() if t.deadline is not None else None for t in batch]
    return None if any(v is None for v in left) else Deadline(max(v for v in left if v is not None))
