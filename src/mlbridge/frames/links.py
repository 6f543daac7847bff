"""Frames over sockets: sent and received until a deadline, every failure a BridgeError."""

from __future__ import annotations

import os
import select
import socket
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

import numpy as np

from ..errors import ArtifactError, BridgeError
from ..interfaces import Deadline
from .codec import _JOIN_BELOW, HEADER_BYTES, Frame, FrameType, decode_header, decode_payload, encode_parts
from .layout import REQUEST_ID, Layout, layout_of, new_frame, put_id

__all__ = ["Exchange", "LinkError", "NotSentError", "exchange", "read_frame", "write_frame", "write_parts"]

_FIRST_READ = 4096  # bytes
_DONTWAIT = getattr(socket, "MSG_DONTWAIT", 0)  # Windows lacks it: wait first, send little
_GATHERS = hasattr(socket.socket, "sendmsg")  # Windows lacks it, too
_MOST_PARTS = 64  # a system takes at least 16; Linux and macOS 1024
_TELLING = REQUEST_ID.start  # bytes that tell type and size
_PIECE = None if _DONTWAIT else 1 << 12

Exchange: TypeAlias = Callable[[Mapping[str, Any], int], Frame | None]


class LinkError(BridgeError):
    """The connection ended or broke; it did not lie."""


class NotSentError(LinkError):
    """The other side never had the whole frame: asking another one is safe."""


def _unsent(exc: OSError) -> NotSentError:
    return NotSentError(f"the link broke while sending: {exc}")


def _broken(sock: socket.socket, exc: OSError) -> LinkError:
    # said by a Unix socket only where the other end was closed with bytes unread: part of what was sent last
    unread = isinstance(exc, ConnectionResetError) and sock.family == getattr(socket, "AF_UNIX", None)
    return (NotSentError if unread else LinkError)(f"the link broke while receiving: {exc}")


def write_frame(
    sock: socket.socket,
    kind: FrameType,
    tensors: Mapping[str, Any] | None = None,
    *,
    request_id: int = 0,
    deadline: Deadline | None = None,
    wake: int | None = None,
) -> None:
    """Send one frame; as `encode_parts` and `write_parts`."""
    write_parts(sock, encode_parts(kind, tensors, request_id=request_id), deadline=deadline, wake=wake)


def write_parts(sock: socket.socket, parts: list[Any], deadline: Deadline | None = None, wake: int | None = None) -> None:
    """Send the buffers of one frame over a blocking socket.

    Raises
    ------
    NotSentError
        If the link broke; the other side cannot have read the whole frame.
    BridgeTimeoutError, CancelledError
        If the deadline ended it; part of the frame may have been sent, so the link is of no more use.
    """
    try:
        if deadline is not None:
            for part in parts:
                _send_until(sock, memoryview(part), deadline, wake)
        elif len(parts) == 1:
            sock.sendall(parts[0])
        else:
            _send_all(sock, parts)
    except OSError as exc:
        if isinstance(exc, BridgeError):
            raise
        raise _unsent(exc) from exc


def _send_all(sock: socket.socket, parts: list[Any]) -> None:
    """Send in one system call where it can be: a reader woken by the first bytes alone would only wait for the rest."""
    sent = sock.sendmsg(parts) if _GATHERS and len(parts) <= _MOST_PARTS else 0
    for part in parts:
        size = memoryview(part).nbytes
        if sent < size:
            sock.sendall(memoryview(part)[sent:])
        sent = max(0, sent - size)


def _send_until(sock: socket.socket, part: memoryview, deadline: Deadline, wake: int | None) -> None:
    while len(part):
        try:
            if not _DONTWAIT:
                _wait(sock, True, deadline, wake)
            part = part[sock.send(part[:_PIECE], _DONTWAIT) :]
        except BlockingIOError:
            _wait(sock, True, deadline, wake)


def read_frame(sock: socket.socket, deadline: Deadline | None = None, wake: int | None = None, like: Layout | None = None) -> Frame:
    """Receive one frame from a blocking socket; the other side sends no second one before it is asked again.

    Parameters
    ----------
    sock : socket
        A blocking socket.
    deadline : Deadline, optional
        Ends the wait.
    wake : int, optional
        A file descriptor; when it becomes readable the deadline is looked at again.
    like : Layout, optional
        Of the last frame: where this one is like it, it is read in one piece and not parsed.

    Raises
    ------
    BridgeError
        If the link ended or what came is not a frame.
    BridgeTimeoutError, CancelledError
        If the deadline ended it; a later read goes on only if nothing of the frame had come.
    """
    if like is None or not _GATHERS or len(like.arrays) >= _MOST_PARTS // 2:
        return _read_any(sock, b"", deadline, wake)
    return _read_on(sock, like.rooms(), 0, deadline, wake, like)


def exchange(sock: socket.socket, question: Layout, answer: Layout) -> Exchange | None:
    """Compile, for one array asked and one answered, `write_parts` and `read_frame` of frames like these without deadline.

    Parameters
    ----------
    sock : socket
        A blocking socket.
    question, answer : Layout
        Of the last two frames.

    Returns
    -------
    callable or None
        Takes feeds and a request id and returns the answer; or None where the feeds are others, and nothing was sent.
    """
    if len(question.arrays) != 1 or len(answer.arrays) != 1 or question.turned or max(question.size, answer.size) >= _JOIN_BELOW:
        return None
    [(known, shape, dtype, end)], head = question.arrays, question.head
    [(name, *_, padding)], size, want, begin = answer.arrays, answer.size, bytearray(answer.head), len(answer.head)
    came = bytearray(size)  # one call at a time
    values = answer.values_in(came)
    kind, send, receive, join, ndarray = answer.kind, sock.sendall, sock.recv_into, b"".join, np.ndarray
    starts, ends, copy, at = came.startswith, came.endswith, values.copy, REQUEST_ID.start

    def again(feeds: Mapping[str, Any], request_id: int) -> Frame | None:
        if len(feeds) != 1:
            return None
        [(asked, array)] = feeds.items()
        if asked != known or type(array) is not ndarray or array.dtype is not dtype or array.shape != shape:
            return None
        if not array.flags.c_contiguous:
            return None
        put_id(head, at, request_id)
        put_id(want, at, request_id)
        try:
            send(join((head, array, end)))  # type: ignore[arg-type]
        except OSError as exc:
            raise _unsent(exc) from exc
        try:
            got = receive(came)
            while begin <= got < size and starts(want):
                got += (more := receive(memoryview(came)[got:]))
                if not more:
                    break
        except OSError as exc:
            raise _broken(sock, exc) from exc
        if got == size and starts(want) and ends(padding):
            return new_frame((kind, request_id, {name: copy()}, answer))
        return _read_any(sock, bytes(came[:got]), None, None)

    return again


def _read_on(sock: socket.socket, rooms: list[Any], got: int, deadline: Deadline | None, wake: int | None, like: Layout) -> Frame:
    """As `read_frame`, where so many bytes have come into a layout's rooms."""
    got = _receive_into(sock, rooms, got, deadline, wake, like)
    if got == like.size and (frame := like.read(rooms)) is not None:
        return frame
    return _read_any(sock, b"".join(rooms)[:got], deadline, wake)


def _read_any(sock: socket.socket, begun: bytes, deadline: Deadline | None, wake: int | None) -> Frame:
    """Receive a frame of which these bytes have come."""
    got = len(begun)
    first = np.empty(max(_FIRST_READ, got), np.uint8).data  # most frames come whole in one read
    first[:got] = begun
    got = _receive(sock, first, got, HEADER_BYTES, deadline, wake)
    try:
        kind, flags, size, request_id = decode_header(first[:HEADER_BYTES])
        end = HEADER_BYTES + size
        if got > end:
            raise ArtifactError(f"{got - end} bytes follow the frame")
        inside = end <= _FIRST_READ  # else the rest goes where it stays
        payload = first[HEADER_BYTES:end] if inside else np.empty(size, np.uint8).data
        if not inside:
            payload[: got - HEADER_BYTES] = first[HEADER_BYTES:got]
        _receive(sock, payload, got - HEADER_BYTES, size, deadline, wake)
        tensors = decode_payload(payload, flags)
        return Frame(kind, request_id, tensors, None if flags else layout_of(kind, tensors))
    except ArtifactError as exc:
        raise BridgeError(f"the other side sent a malformed frame: {exc.message}") from exc


def _receive_into(sock: socket.socket, rooms: list[Any], got: int, deadline: Deadline | None, wake: int | None, like: Layout) -> int:
    """Receive a frame into its rooms, or the beginning of one that is not like it; return how many bytes came."""
    try:
        while got < _TELLING and like.begins(got):
            got += _receive_some(sock, _behind(rooms, got) if got else rooms, got > 0, deadline, wake)
        if not like.begins(got):
            return got
        for room in _behind(rooms, got):
            while room:
                n = _receive_some(sock, [room], True, deadline, wake)
                room, got = room[n:], got + n
    except OSError as exc:
        if isinstance(exc, BridgeError):
            raise
        raise _broken(sock, exc) from exc
    return got


def _receive_some(sock: socket.socket, rooms: list[Any], inside: bool, deadline: Deadline | None, wake: int | None) -> int:
    if deadline is not None:
        _wait(sock, False, deadline, wake)
    n = sock.recvmsg_into(rooms)[0]
    if n == 0:
        raise LinkError("the other side closed the link" + (" inside a frame" if inside else ""))
    return n


def _behind(rooms: list[Any], got: int) -> list[memoryview]:
    """Return the rooms that are empty yet."""
    left = []
    for room in rooms:
        view = memoryview(room).cast("B")
        if got < len(view):
            left.append(view[got:])
        got = max(0, got - len(view))
    return left


def _receive(sock: socket.socket, view: memoryview, got: int, want: int, deadline: Deadline | None, wake: int | None) -> int:
    """Receive into the view until it holds `want` bytes or more; return how many it holds."""
    inside = got > 0
    try:
        while got < want:
            if deadline is not None:
                _wait(sock, False, deadline, wake)
            n = sock.recv_into(view[got:] if got else view)
            if n == 0:
                raise LinkError("the other side closed the link" + (" inside a frame" if got or inside else ""))
            got += n
    except OSError as exc:
        if isinstance(exc, BridgeError):
            raise
        raise _broken(sock, exc) from exc
    return got


def _wait(sock: socket.socket, writing: bool, deadline: Deadline, wake: int | None) -> None:
    """Return when the socket is ready; raise what the deadline says when it ends first."""
    own = getattr(sock, "sending_fileno", sock.fileno)() if writing else sock.fileno()  # pipes have one for each way
    poller = select.poll()
    poller.register(own, select.POLLOUT if writing else select.POLLIN)
    if wake is not None:
        poller.register(wake, select.POLLIN)
    while True:
        deadline.check()
        left = deadline.remaining_s()
        ready = poller.poll(None if left is None else max(0.0, left) * 1000 + 1)
        for fd, _ in ready:
            if fd == own:
                return
        if ready and wake is not None and not deadline.cancelled:
            os.read(wake, 4096)  # a late wake of an earlier call


def _wait_in_turns(sock: socket.socket, writing: bool, deadline: Deadline, wake: int | None) -> None:
    """As `_wait`, for systems without poll, where a pipe cannot be waited for beside a socket."""
    own = [sock]
    while True:
        deadline.check()
        left = deadline.remaining_s()
        ready = select.select([] if writing else own, own if writing else [], [], 0.02 if left is None else min(max(0.0, left), 0.02))
        if ready[0] or ready[1]:
            return


if not hasattr(select, "poll"):
    _wait = _wait_in_turns
