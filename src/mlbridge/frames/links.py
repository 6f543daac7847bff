"""Frames over sockets: sent and received until a deadline, every failure a BridgeError."""

from __future__ import annotations

import os
import select
import socket
from collections.abc import Mapping
from typing import Any

import numpy as np

from ..errors import ArtifactError, BridgeError
from ..interfaces import Deadline
from .codec import HEADER_BYTES, Frame, FrameType, decode_header, decode_payload, encode_parts
from .layout import Layout, layout_of

__all__ = ["LinkError", "read_frame", "write_frame", "write_parts"]

_FIRST_READ = 4096  # bytes
_DONTWAIT = getattr(socket, "MSG_DONTWAIT", 0)  # Windows lacks it: wait first, send little
_GATHERS = hasattr(socket.socket, "sendmsg")  # Windows lacks it, too
_MOST_PARTS = 64  # a system takes at least 16; Linux and macOS 1024
_PIECE = None if _DONTWAIT else 1 << 12


class LinkError(BridgeError):
    """The connection ended or broke; it did not lie."""


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


def write_parts(sock: socket.socket, parts: list[Any], *, deadline: Deadline | None = None, wake: int | None = None) -> None:
    """Send the buffers of one frame over a blocking socket.

    Raises
    ------
    BridgeError
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
        raise LinkError(f"the link broke while sending: {exc}") from exc


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


def read_frame(sock: socket.socket, *, deadline: Deadline | None = None, wake: int | None = None, like: Layout | None = None) -> Frame:
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
    room = _FIRST_READ if like is None or like.size < _FIRST_READ else like.size
    first = np.empty(room, np.uint8).data  # most frames come whole in one read
    got = _receive(sock, first, 0, HEADER_BYTES, deadline, wake)
    if like is not None and got == like.size:
        frame = like.read(first[:got])
        if frame is not None:
            return frame
    try:
        kind, flags, size, request_id = decode_header(first[:HEADER_BYTES])
        end = HEADER_BYTES + size
        if got > end:
            raise ArtifactError(f"{got - end} bytes follow the frame")
        if end == room:
            _receive(sock, first, got, end, deadline, wake)
            frame = None if like is None else like.read(first)
            if frame is not None:
                return frame
            payload = first[HEADER_BYTES:]
        else:  # the rest goes where it stays: a small answer must not hold a large one's room
            inside = end < room == _FIRST_READ
            payload = first[HEADER_BYTES:end] if inside else np.empty(size, np.uint8).data
            if not inside:
                payload[: got - HEADER_BYTES] = first[HEADER_BYTES:got]
            _receive(sock, payload, got - HEADER_BYTES, size, deadline, wake)
        tensors = decode_payload(payload, flags)
        return Frame(kind, request_id, tensors, None if flags else layout_of(kind, tensors))
    except ArtifactError as exc:
        raise BridgeError(f"the other side sent a malformed frame: {exc.message}") from exc


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
        raise LinkError(f"the link broke while receiving: {exc}") from exc
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
