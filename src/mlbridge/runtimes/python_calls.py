"""Calls of a native Python model that their caller can leave: nothing can interrupt a thread, but nobody must wait for it."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Mapping
from typing import Any

from ..errors import BridgeTimeoutError, CancelledError, OverloadedError
from ..interfaces import UNBOUNDED, Array, Deadline

__all__ = ["Calls"]

_MOST_LEFT = 16  # calls that run on with nobody waiting; each holds a thread


class Calls:
    """Runs calls, at most so many at once; one with a deadline runs on a thread of its own, which its caller may leave.

    Parameters
    ----------
    concurrency : int
        Calls at once, those that were left included.
    """

    def __init__(self, concurrency: int) -> None:
        self._slots: Any = contextlib.nullcontext() if concurrency >= UNBOUNDED else threading.BoundedSemaphore(concurrency)
        self._lock = threading.Lock()
        self._left = 0

    def ask(self, native: Callable[[Mapping[str, Array]], Any], feeds: Mapping[str, Array], deadline: Deadline | None) -> Any:
        """Return what `native(feeds)` returns, or raise what it raises.

        Raises
        ------
        BridgeTimeoutError, CancelledError
            If the deadline passed or was cancelled; the call runs on, and its answer is dropped.
        OverloadedError
            If too many calls that were left still run.
        """
        if deadline is None:
            with self._slots:
                return native(feeds)
        deadline.check()
        if self._left >= _MOST_LEFT:
            raise OverloadedError(f"{self._left} earlier calls of this model never ended", hint=_HINT, runtime="python")
        ended = threading.Event()
        answer: list[tuple[Any, BaseException | None]] = []
        left: list[bool] = []

        def work() -> None:
            try:
                with self._slots:
                    if not left:
                        answer.append((native(feeds), None))
            except BaseException as exc:  # noqa: BLE001 - handed to the caller's thread, which raises it
                answer.append((None, exc))
            finally:
                with self._lock:
                    self._left -= len(left)
                    ended.set()

        threading.Thread(target=work, name="mlbridge-python-call", daemon=True).start()
        forget = deadline.on_cancel(ended.set)
        ended.wait(deadline.remaining_s())
        forget()
        with self._lock:
            if not answer:
                left.append(True)
                self._left += 1
        if left:
            kind = CancelledError if deadline.cancelled else BridgeTimeoutError
            words = "the call was cancelled" if deadline.cancelled else "the deadline passed"
            raise kind(f"{words}; the model runs on in its thread, and its answer is dropped", hint=_HINT, runtime="python")
        result, error = answer[0]
        if error is not None:
            raise error
        deadline.check()  # who gave up meanwhile wants no answer
        return result


_HINT = "open the model with python+worker:, whose process is ended at the deadline"
