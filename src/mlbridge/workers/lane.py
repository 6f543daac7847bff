"""One connection to a worker: ask, answer, and what a foreign error becomes here."""

from __future__ import annotations

import contextlib
import os
import socket
import threading
import weakref
from collections.abc import Mapping
from typing import Any

from .. import errors
from ..errors import BridgeError, InferenceError, MlbridgeError, StatusCode
from ..frames import MAX_PAYLOAD, Frame, FrameType, Layout, encode_parts
from ..frames.layout import layout_of
from ..frames.links import Exchange, exchange, read_frame, write_parts
from ..interfaces import Deadline

__all__ = ["ForeignError", "Lane", "foreign_error"]

_MAX_ID = 2**32 - 1
_RUN = FrameType.RUN
_ANSWERS = (FrameType.RESULT, FrameType.ERROR, FrameType.PONG)


class ForeignError(Exception):
    """What went wrong inside the worker, as text: the cause of the error mlbridge raises.

    Attributes
    ----------
    condition : tuple of str
        The foreign classes, most special first.
    trace : str
        The foreign stack trace, or ''.
    """

    def __init__(self, message: str = "", condition: tuple[str, ...] = (), trace: str = "") -> None:
        super().__init__(message, condition, trace)
        self.condition, self.trace = condition, trace

    def __str__(self) -> str:
        head = f"{self.condition[0]}: {self.args[0]}" if self.condition else str(self.args[0])
        return f"{head}\n{self.trace}" if self.trace else head


class Lane:
    """A connection that carries one request at a time.

    Parameters
    ----------
    sock : socket
        Connected and past the token; blocking. Owned from here on.
    hello : Frame
        What the worker said about itself.
    max_payload : int
        Bytes that one frame to the worker may hold.
    column_major : bool
        Whether matrices are sent column by column.
    """

    def __init__(self, sock: socket.socket, hello: Frame, max_payload: int = MAX_PAYLOAD, column_major: bool = False) -> None:
        self.sock, self.hello, self.max_payload, self.column_major = sock, hello, max_payload, column_major
        self._last_id = 0
        self._asked: Layout | None = None  # of the last question
        self._like: Layout | None = None  # of the last answer, where its question was as the one before
        self._exchange: Exchange | None = None
        # a Unix socket refuses what a dead worker would not read, so nobody needs to look before each call
        self.tells_death = sock.family == getattr(socket, "AF_UNIX", None)
        self.in_step = True  # False while an answer is due
        self._wake_lock = threading.Lock()
        self._wake_read, self._wake_write = os.pipe()
        self._close_pipe = weakref.finalize(self, _close_all, self._wake_read, self._wake_write)

    def ask(self, kind: FrameType, tensors: Mapping[str, Any] | None = None, deadline: Deadline | None = None) -> Frame:
        """Send a request and wait for its answer.

        Raises
        ------
        InputError
            If the request has no form in a frame; nothing was sent.
        NotSentError
            If the link broke before all of it was sent.
        BridgeError
            If the link broke afterwards, or the answer is not one.
        BridgeTimeoutError, CancelledError
            The answer is still to come: see `settle`.
        """
        self._last_id = request_id = self._last_id % _MAX_ID + 1
        if self._exchange is not None and deadline is None and kind is _RUN:
            self.in_step = False
            if (frame := self._exchange(tensors or {}, request_id)) is not None:
                if frame.layout is not self._like:
                    return self._heard(frame, request_id)
                self.in_step = True
                return frame
            self.in_step = True
        asked = self._asked
        if asked is None or asked.kind is not kind or (parts := asked.write(tensors or {}, request_id)) is None:
            parts = self._encode(kind, tensors or {}, request_id)
        self.in_step = False
        if deadline is None:
            self._send(parts, None)
            return self._receive(request_id, None)
        forget = deadline.on_cancel(self._wake)
        try:
            self._send(parts, deadline)
            return self._receive(request_id, deadline)
        finally:
            forget()

    def _encode(self, kind: FrameType, tensors: Mapping[str, Any], request_id: int) -> list[Any]:
        parts = encode_parts(kind, tensors, request_id=request_id, max_payload=self.max_payload, column_major=self.column_major)
        self._asked = layout_of(kind, tensors, self.column_major)
        self._like = self._exchange = None  # so that an answer like the last one tells that its question was, too
        return parts

    def settle(self, deadline: Deadline) -> None:
        """Wait for the answer a call left behind, then make sure the worker listens again."""
        self._receive(self._last_id, deadline)
        self.ask(FrameType.PING, deadline=deadline)

    def tell(self, kind: FrameType, tensors: Mapping[str, Any] | None = None) -> None:
        """Send a frame that has no answer; a broken link is no matter."""
        with contextlib.suppress(BridgeError):
            write_parts(self.sock, encode_parts(kind, tensors), deadline=Deadline(1.0))

    @property
    def request_id(self) -> int:
        """The id of the last request."""
        return self._last_id

    def hang_up(self) -> None:
        """End the connection; whoever waits for an answer sees it end."""
        with contextlib.suppress(OSError):
            self.sock.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Free the descriptors; only when nobody waits any more. Harmless when repeated."""
        self.sock.close()
        with self._wake_lock:
            self._close_pipe()

    def _send(self, parts: list[Any], deadline: Deadline | None) -> None:
        try:
            write_parts(self.sock, parts, deadline, self._wake_read)
        except (errors.BridgeTimeoutError, errors.CancelledError):
            self.hang_up()  # half a request: no answer will ever come
            raise

    def _receive(self, request_id: int, deadline: Deadline | None) -> Frame:
        return self._heard(read_frame(self.sock, deadline, self._wake_read, self._like), request_id)

    def _heard(self, frame: Frame, request_id: int) -> Frame:
        if frame.request_id != request_id:
            raise BridgeError(f"the worker answered request {frame.request_id}, request {request_id} was asked")
        if frame.type not in _ANSWERS:
            raise BridgeError(f"the worker answered with {frame.type.name}")
        self.in_step = True
        if frame.layout is not self._like:
            self._like, self._exchange = frame.layout, None
            if self._asked is not None and frame.layout is not None and self._asked.kind is _RUN:
                self._exchange = exchange(self.sock, self._asked, frame.layout)
        return frame

    def _wake(self) -> None:
        with self._wake_lock:  # a cancel may come late; the descriptor must not be another file's by then
            if self._close_pipe.alive:
                os.write(self._wake_write, b"x")


def _close_all(*descriptors: int) -> None:
    for fd in descriptors:
        os.close(fd)


# ---------------------------------------------------------------- foreign errors

_CLASSES: dict[str, type[MlbridgeError]] = {
    name: value
    for name, value in vars(errors).items()
    if isinstance(value, type)
    and issubclass(value, MlbridgeError)
    and name not in ("MlbridgeError", "UntrustedArtifactError", "WorkerDiedError")
}


def foreign_error(frame: Frame, runtime: str) -> MlbridgeError:
    """Turn an ERROR frame into the exception it names, with a ForeignError as cause.

    Parameters
    ----------
    frame : Frame
        Of type ERROR.
    runtime : str
        The runtime's name.

    Returns
    -------
    MlbridgeError
        Of the class named; InferenceError where the name is not one that may cross a wire.
    """
    message = frame.text("message") or "the worker gave no reason"
    kind = _CLASSES.get(frame.text("class") or "", InferenceError)
    context: dict[str, Any] = {"hint": frame.text("hint"), "runtime": runtime}
    code = frame.integer("code")
    if code is not None and code in StatusCode._value2member_map_:
        context["code"] = StatusCode(code)
    problems = frame.texts("problems")
    if problems and kind in (errors.InputError, errors.SignatureError):
        context["problems"] = problems
    error = kind(message, **context)
    error.condition = frame.texts("condition")  # type: ignore[attr-defined]
    error.trace = frame.text("trace") or ""  # type: ignore[attr-defined]
    error.__cause__ = ForeignError(message, error.condition, error.trace)  # type: ignore[attr-defined]
    return error
