"""Two FIFOs as one connection: for languages whose files can be pipes but not Unix sockets, at half the price of loopback TCP.

`process` opens one to a worker; it answers to the calls that `frames.links` makes on a socket. Linux only: what wakes a
reader there has no counterpart elsewhere.
"""

from __future__ import annotations

import contextlib
import hmac
import os
import select
import socket
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from ..errors import BridgeError
from ..interfaces import Deadline

__all__ = ["AVAILABLE", "Fifos"]

AVAILABLE = sys.platform == "linux"
if sys.platform == "linux":
    import fcntl

_ROOM_BYTES = 1 << 20  # what a pipe may hold without privileges; 64 KiB would cost large frames a switch each
_POLL_MS = 50


class Fifos:
    """A pair of FIFOs in a folder: requests go out by one, answers come in by the other.

    Parameters
    ----------
    folder : Path
        Private to the user. The names are needed until the worker has opened both.
    """

    family = getattr(socket, "AF_UNIX", None)  # as one: what is sent to a dead worker is refused

    def __init__(self, folder: Path) -> None:
        requests, answers = folder / "requests", folder / "answers"
        os.mkfifo(requests, 0o600)
        os.mkfifo(answers, 0o600)
        self.address = f"fifo:{folder}"
        self._hung_up = False
        self._reader = os.open(answers, os.O_RDONLY | os.O_NONBLOCK)
        self._stand_in = os.open(requests, os.O_RDONLY | os.O_NONBLOCK)  # for the worker, without whom nobody may write
        self._writer = os.open(requests, os.O_WRONLY | os.O_NONBLOCK)
        for fd in (self._reader, self._writer):
            with contextlib.suppress(OSError):
                fcntl.fcntl(fd, fcntl.F_SETPIPE_SZ, _ROOM_BYTES)

    def guests(self, token: bytes, deadline: Deadline, alive: Callable[[], bool]) -> Iterator[Fifos]:
        """Yield itself once the worker has shown the token.

        Raises
        ------
        BridgeError
            If the worker ends first, or shows something else.
        """
        shown = b""
        poller = select.poll()
        poller.register(self._reader, select.POLLIN)
        while len(shown) < len(token):
            deadline.check()
            was_alive = alive()
            piece = os.read(self._reader, len(token) - len(shown)) if poller.poll(_POLL_MS) else None
            if piece == b"" or (piece is None and not was_alive):
                raise BridgeError("it ended before it connected")
            shown += piece or b""
        if not hmac.compare_digest(shown, token):
            raise BridgeError("it did not show the token")
        self._drop_stand_in()
        os.set_blocking(self._reader, True)
        yield self

    def _drop_stand_in(self) -> None:
        if self._stand_in >= 0:
            os.close(self._stand_in)
            self._stand_in = -1

    # ------------------------------------------------------------ as a socket

    def setblocking(self, flag: bool) -> None:
        """Do nothing: reading waits, and sending waits by itself."""

    def fileno(self) -> int:
        """Return the descriptor to wait for answers on."""
        return self._reader

    def sending_fileno(self) -> int:
        """Return the descriptor to wait for room on."""
        return self._writer

    def sendall(self, data: Any) -> None:
        """Send all bytes."""
        try:
            sent = os.write(self._writer, data)
        except BlockingIOError:
            sent = 0
        if sent == len(data):
            return
        view = memoryview(data).cast("B")
        poller = select.poll()
        poller.register(self._writer, select.POLLOUT)
        while sent < len(view):
            poller.poll()
            sent += self.sendmsg((view[sent:],))

    def sendmsg(self, parts: Any) -> int:
        """Send what there is room for; return how many bytes."""
        try:
            return os.writev(self._writer, parts)
        except BlockingIOError:
            return 0

    def send(self, part: Any, flags: int = 0) -> int:
        """Send what there is room for.

        Raises
        ------
        BlockingIOError
            If there is no room.
        """
        return os.write(self._writer, part)

    def recvmsg_into(self, rooms: Any) -> tuple[int]:
        """Wait for bytes and receive them; 0 when the worker is gone or the connection was ended here."""
        got = os.readv(self._reader, rooms)
        return (0,) if self._hung_up else (got,)

    def recv_into(self, view: Any) -> int:
        """Wait for bytes and receive them, as `recvmsg_into`."""
        return self.recvmsg_into((view,))[0]

    def shutdown(self, how: int) -> None:
        """End the connection: the worker reads its end, whoever waits for an answer wakes up."""
        self._hung_up = True
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, self._writer, inheritable=False)  # the number stays ours: another thread may be about to send
        os.close(nowhere)
        with contextlib.suppress(OSError):  # a pipe that is full wakes its reader by itself
            waker = os.open(f"/proc/self/fd/{self._reader}", os.O_WRONLY | os.O_NONBLOCK)
            try:
                os.write(waker, b"\0")
            finally:
                os.close(waker)

    def close(self) -> None:
        """Free the descriptors; harmless when repeated."""
        self._drop_stand_in()
        if self._writer >= 0:
            os.close(self._writer)
            os.close(self._reader)
            self._reader = self._writer = -1
