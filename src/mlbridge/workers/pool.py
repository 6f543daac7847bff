"""n worker processes as one: checkout, deadlines, death, respawn with reload, back-off, close."""

from __future__ import annotations

import contextlib
import os
import threading
import time
import weakref
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any

from ..errors import BridgeError, BridgeTimeoutError, CancelledError, ClosedError, MlbridgeError, WorkerDiedError
from ..frames import Frame, FrameType
from ..frames.links import LinkError, NotSentError
from ..interfaces import Deadline
from .command import Backoff, WorkerCommand
from .lane import Lane, foreign_error
from .process import WorkerProcess, check_owner

__all__ = ["WorkerPool"]

_DYING_S = 0.5  # a worker whose link ended is about to end; waiting tells its exit status
_CLOSING_S = 1.0
_ERROR = FrameType.ERROR


_pools: weakref.WeakSet[WorkerPool] = weakref.WeakSet()


class _Slot:
    """A place for one process; empty while it is started again."""

    __slots__ = ("failed", "process")

    def __init__(self) -> None:
        self.process: WorkerProcess | None = None
        self.failed = False


def _lacks(model: int, process: WorkerProcess) -> bool:
    return model not in process.loaded


class WorkerPool:
    """Processes of one command that hold the same models.

    The first is started at once, the others in the background.

    Parameters
    ----------
    command : WorkerCommand
        What to start.
    load : mapping of str to array_like
        The tensors of LOAD for model 0, without `model`.
    workers : int, default=1
        Number of processes.
    backoff : Backoff, optional
        How dying workers are started again.

    Attributes
    ----------
    loaded : Frame
        The first answer to LOAD.

    Raises
    ------
    MlbridgeError
        What the start or the LOAD failed with; then no process is left.
    """

    def __init__(self, command: WorkerCommand, load: Mapping[str, Any], *, workers: int = 1, backoff: Backoff | None = None) -> None:
        self.command = command
        self._backoff = backoff or Backoff()
        self._owner = os.getpid()
        _pools.add(self)
        self._lock = threading.Lock()
        self._changed = threading.Condition(self._lock)
        self._slots = [_Slot() for _ in range(workers)]
        self._idle: list[tuple[WorkerProcess, Lane]] = []  # only appended to, popped and removed from: each call does so without the lock
        self._seated: set[WorkerProcess] = set()  # those of the slots
        self._waiting: list[tuple[Callable[[WorkerProcess], bool] | None]] = []  # in the order they came
        self._models: dict[int, dict[str, Any]] = {0: {**load, "model": 0}}
        self._next_model = 1
        self._closed = False
        self._tells_death = False  # as do its lanes
        self._deaths = 0  # in a row, without an answer between them
        self._last_death = ""
        self._starting: set[Deadline] = set()
        self._carers: set[threading.Thread] = set()
        process, self.loaded = self._start()
        self._seat(self._slots[0], process)
        for slot in self._slots[1:]:
            self._in_background(self._revive, slot)

    # ------------------------------------------------------------ asking

    @property
    def max_concurrency(self) -> int:
        """Calls it runs at once."""
        return len(self._slots) * self.command.lanes

    @property
    def pids(self) -> tuple[int, ...]:
        """The ids of the processes that are up."""
        with self._changed:
            return tuple(s.process.pid for s in self._slots if s.process is not None)

    @property
    def device(self) -> str:
        """What the workers said they run on."""
        with self._changed:
            said = next((s.process.device for s in self._slots if s.process is not None), self.command.device)
        return self.loaded.text("device", said) or said

    @property
    def failed(self) -> bool:
        """Whether every process died too often to be started again."""
        return all(slot.failed for slot in self._slots)

    def call(self, tensors: Mapping[str, Any], deadline: Deadline | None = None, kind: FrameType = FrameType.RUN) -> Frame:
        """Ask one worker and return its RESULT.

        Raises
        ------
        InputError
            If the request has no form in a frame.
        WorkerDiedError
            If the worker died while it held the request; a request that had not reached it is sent again, once.
        BridgeError
            If the answer is not one, or the workers FAILED.
        BridgeTimeoutError, CancelledError
            If the deadline ended the call; the worker is interrupted, and killed if it does not listen.
        ClosedError
            After close or in a forked process.
        MlbridgeError
            What the worker answered.
        """
        for once_more in (True, False):
            try:  # the way of most calls, as `_take` goes it
                process, lane = idle = self._idle.pop() if self._tells_death and not self._waiting else self._take(deadline)
            except IndexError:
                process, lane = idle = self._take(deadline)
            try:
                answer = lane.ask(kind, tensors, deadline)
            except BaseException as exc:
                self._after(exc, process, lane)
                if not isinstance(exc, NotSentError):
                    raise
                if not once_more:
                    raise self._died(f"the {self.command.runtime} worker died before it had the request, twice", "") from exc
            else:
                break
        self._deaths = 0
        self._idle.append(idle)
        if self._waiting or process not in self._seated:
            self._after_return(idle)
        if answer.type is _ERROR:
            raise foreign_error(answer, self.command.runtime)
        return answer

    def _after(self, exc: BaseException, process: WorkerProcess, lane: Lane) -> None:
        """See to a worker whose call failed; raise what the caller is told where that is another error."""
        if isinstance(exc, (BridgeTimeoutError, CancelledError)):
            self._in_background(self._mend, process, lane)
        elif isinstance(exc, LinkError):
            self._lose(process, lane, _DYING_S)
            self._check_open()
            if not isinstance(exc, NotSentError):
                raise self._died(f"the {self.command.runtime} worker died during the call", process.post_mortem()) from exc
        elif isinstance(exc, BridgeError):
            self._lose(process, lane, 0.0)
            raise BridgeError(exc.message, hint="the worker was restarted", runtime=self.command.runtime) from exc
        elif lane.in_step:  # nothing was sent (InputError)
            self._give_back(process, lane)
        else:  # nobody knows how far it got
            self._lose(process, lane, 0.0)

    def _died(self, what: str, how: str) -> WorkerDiedError:
        return WorkerDiedError(
            f"{what}{how}", hint="the next call gets a new worker; was it killed, or out of memory?", runtime=self.command.runtime
        )

    def _check_open(self) -> None:
        check_owner(self._owner)
        if self._closed:
            raise ClosedError("the model is closed", runtime=self.command.runtime)

    def _take(self, deadline: Deadline | None, fits: Callable[[WorkerProcess], bool] | None = None) -> tuple[WorkerProcess, Lane]:
        """Wait for an idle lane of a live process."""
        while True:
            with self._lock:
                process, lane = self._wait_idle(deadline, fits)
            if lane.tells_death or process.alive:
                return process, lane
            self._lose(process, lane, 0.0)

    def _wait_idle(self, deadline: Deadline | None, fits: Callable[[WorkerProcess], bool] | None) -> tuple[WorkerProcess, Lane]:
        forget = None if deadline is None else deadline.on_cancel(self._notify_later)
        ticket = (fits,)
        self._waiting.append(ticket)  # first come, first served: a thread in a tight loop must not starve the others
        try:
            while True:
                self._check_open()
                for pair in self._idle.copy():
                    if next((t for t in self._waiting if t[0] is None or t[0](pair[0])), None) is ticket and self._unlist(pair):
                        return pair
                if self.failed:
                    raise BridgeError(
                        f"the model has FAILED: its {self.command.runtime} worker died {self._deaths} times in a row; {self._last_death}",
                        hint="close it, repair the cause and load it again",
                        runtime=self.command.runtime,
                    )
                if deadline is not None:
                    deadline.check()
                left = None if deadline is None else deadline.remaining_s()
                self._changed.wait(None if left is None else max(0.0, left) + 0.001)
        finally:
            self._waiting = [t for t in self._waiting if t is not ticket]
            if self._idle:
                self._changed.notify_all()
            if forget is not None:
                forget()

    def _notify_later(self) -> None:
        # an on_cancel may be called at once, by the thread that holds the lock
        threading.Thread(target=self._notify, daemon=True).start()

    def _notify(self) -> None:
        with self._changed:
            self._changed.notify_all()

    def _give_back(self, process: WorkerProcess, lane: Lane) -> None:
        idle = (process, lane)
        self._idle.append(idle)
        if self._waiting or process not in self._seated:
            self._after_return(idle)

    def _after_return(self, idle: tuple[WorkerProcess, Lane]) -> None:
        """Tell who waits, or take a lane back out whose process has been given up meanwhile."""
        with self._lock:
            stale = idle[0] not in self._seated and self._unlist(idle)
            self._changed.notify_all()
        if stale:
            idle[1].close()

    def _unlist(self, idle: tuple[WorkerProcess, Lane]) -> bool:
        """Take a lane that is idle; False where another thread was quicker."""
        try:
            self._idle.remove(idle)
        except ValueError:
            return False
        return True

    # ------------------------------------------------------------ models

    def add(self, load: Mapping[str, Any]) -> tuple[int, Frame]:
        """Load one more model into every process; return its number and the first answer."""
        with self._changed:
            model, self._next_model = self._next_model, self._next_model + 1
            self._models[model] = {**load, "model": model}
        answer = None
        try:
            while answer is None or self._lacking(model):
                fits = None if answer is None else partial(_lacks, model)
                process, lane = self._take(Deadline(self.command.load_timeout_s), fits)
                answer = self._load(process, lane, model, Deadline(self.command.load_timeout_s))
                self._give_back(process, lane)
        except BaseException:
            self.remove(model)
            raise
        return model, answer

    def remove(self, model: int) -> None:
        """Forget a model; processes that are up are told when they are idle."""
        with self._changed:
            self._models.pop(model, None)
        while (held := self._holding(model)) and not self._closed:
            try:
                process, lane = self._take(Deadline(self.command.grace_s), lambda p: p in held)
            except MlbridgeError:
                return  # busy: the number is never used again
            process.loaded.discard(model)
            try:
                lane.ask(FrameType.CLOSE, {"model": model}, deadline=Deadline(self.command.grace_s))
            except MlbridgeError:
                self._lose(process, lane, 0.0)
            else:
                self._give_back(process, lane)

    def _lacking(self, model: int) -> bool:
        with self._changed:
            return any(s.process is not None and model not in s.process.loaded for s in self._slots)

    def _holding(self, model: int) -> list[WorkerProcess]:
        with self._changed:
            return [s.process for s in self._slots if s.process is not None and model in s.process.loaded]

    def _load(self, process: WorkerProcess, lane: Lane, model: int, deadline: Deadline) -> Frame:
        try:
            answer = lane.ask(FrameType.LOAD, self._models[model], deadline=deadline)
        except BridgeError as exc:
            self._lose(process, lane, _DYING_S)
            raise type(exc)(
                f"the {self.command.runtime} worker failed while it loaded the model: {exc.message}{process.post_mortem()}",
                hint=exc.hint,
                runtime=self.command.runtime,
            ) from exc
        if answer.type is FrameType.ERROR:
            self._give_back(process, lane)
            raise foreign_error(answer, self.command.runtime)
        process.loaded.add(model)
        return answer

    # ------------------------------------------------------------ life and death

    def _start(self) -> tuple[WorkerProcess, Frame]:
        """Start a process and load every model into it."""
        answer = None
        with self._ended_by_close(self.command.start_timeout_s) as deadline:
            process = WorkerProcess(self.command, deadline)
        try:
            while missing := self._models.keys() - process.loaded:
                with self._ended_by_close(self.command.load_timeout_s) as deadline:
                    answer = self._load(process, process.lanes[0], min(missing), deadline)
        except BaseException:
            self._bury(process, 0.0)
            raise
        assert answer is not None
        return process, answer

    @contextlib.contextmanager
    def _ended_by_close(self, timeout_s: float) -> Iterator[Deadline]:
        deadline = Deadline(timeout_s)
        with self._changed:
            self._starting.add(deadline)
            closed = self._closed
        if closed:
            deadline.cancel()
        try:
            yield deadline
        finally:
            with self._changed:
                self._starting.discard(deadline)

    def _seat(self, slot: _Slot, process: WorkerProcess) -> bool:
        with self._changed:
            if self._closed:
                return False
            slot.process = process
            self._tells_death = all(lane.tells_death for lane in process.lanes)
            self._seated.add(process)
            self._idle.extend((process, lane) for lane in process.lanes)
            self._changed.notify_all()
        return True

    def _mend(self, process: WorkerProcess, lane: Lane) -> None:
        """After a call that was given up: interrupt the worker, or end it."""
        try:
            if process.interrupt(lane):
                lane.settle(Deadline(self.command.grace_s))
                self._give_back(process, lane)
                return
        except MlbridgeError:
            pass  # it does not listen
        self._lose(process, lane, 0.0, counts=False)

    def _lose(self, process: WorkerProcess, lane: Lane, within_s: float, *, counts: bool = True) -> None:
        """Give a process up, once, and start another; the lane is the caller's own."""
        with self._changed:
            slot = next((s for s in self._slots if s.process is process), None)
            if slot is not None:
                slot.process = None
            self._seated.discard(process)  # before: what comes back from now on is taken out by who brings it
            idle = [pair[1] for pair in self._idle.copy() if pair[0] is process and self._unlist(pair)]
        self._bury(process, within_s, idle)
        lane.close()
        if slot is None:
            return
        with self._changed:
            if counts and not self._closed:
                self._count_death(slot, f"the last one ended{process.post_mortem()}")
            self._changed.notify_all()
        if not slot.failed:
            self._in_background(self._revive, slot)

    def _count_death(self, slot: _Slot, how: str) -> None:
        self._deaths += 1
        self._last_death = how
        slot.failed = self._deaths >= self._backoff.attempts

    @staticmethod
    def _bury(process: WorkerProcess, within_s: float, idle: list[Lane] | None = None) -> None:
        process.end(within_s)
        process.free()
        for lane in process.lanes if idle is None else idle:
            lane.close()

    def _revive(self, slot: _Slot) -> None:
        """Start a process for an empty slot, backing off, until it works, FAILED or closed."""
        while True:
            with self._changed:
                ends_at = time.monotonic() + self._backoff.delay_s(self._deaths)
                while not self._closed and (left := ends_at - time.monotonic()) > 0:
                    self._changed.wait(left)
                if self._closed:
                    return
            try:
                process, _ = self._start()
            except MlbridgeError as exc:
                with self._changed:
                    self._count_death(slot, f"the last one: {exc.message}")
                    self._changed.notify_all()
                    if slot.failed:
                        return
                continue
            if not self._seat(slot, process):
                self._bury(process, _CLOSING_S)
            return

    def _in_background(self, work: Callable[..., object], *args: object) -> None:
        def care() -> None:
            try:
                work(*args)
            finally:
                with self._changed:
                    self._carers.discard(thread)

        thread = threading.Thread(target=care, name="mlbridge-worker-care", daemon=True)
        with self._changed:
            self._carers.add(thread)
        try:
            thread.start()
        except RuntimeError:  # the interpreter is going down
            with self._changed:
                self._carers.discard(thread)

    def close(self) -> None:
        """End every process; calls in flight raise ClosedError. Harmless when repeated."""
        if os.getpid() != self._owner:
            self._closed = True
            return
        with self._changed:
            if self._closed:
                return
            self._closed = True
            processes = [s.process for s in self._slots if s.process is not None]
            for slot in self._slots:
                slot.process = None
            self._seated.clear()
            idle = [pair for pair in self._idle.copy() if self._unlist(pair)]
            starting, carers = list(self._starting), list(self._carers)
            self._changed.notify_all()
        for deadline in starting:
            deadline.cancel()
        for process in processes:
            process.hang_up()
        ends_at = time.monotonic() + _CLOSING_S
        for process in processes:
            self._bury(process, max(0.0, ends_at - time.monotonic()), [lane for p, lane in idle if p is process])
        for thread in carers:
            if thread is not threading.current_thread() and thread.ident is not None:
                thread.join(_CLOSING_S)


def _after_fork() -> None:
    """Take from a forked child what is the parent's: no lane is idle there, and nobody holds the lock."""
    for pool in list(_pools):
        pool._lock = threading.Lock()
        pool._changed = threading.Condition(pool._lock)
        pool._idle = []


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
