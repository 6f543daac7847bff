"""One live worker process: started, greeted, heard, interrupted, ended."""

from __future__ import annotations

import contextlib
import hmac
import os
import queue
import secrets
import selectors
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from functools import partial
from pathlib import Path
from typing import Any

from ..errors import BridgeError, ClosedError, UnavailableError
from ..frames import FRAME_VERSION, Frame, FrameType
from ..frames.links import read_frame
from ..interfaces import Deadline
from . import fifo
from .command import WorkerCommand
from .lane import Lane
from .log import LogPump

__all__ = ["WorkerProcess"]

_TOKEN_BYTES = 64
_MAX_PATH = 100  # bytes; sun_path holds 104 to 108
_MAX_GUESTS = 64  # connections that have not shown the token yet
_live: weakref.WeakSet[WorkerProcess] = weakref.WeakSet()


class WorkerProcess:
    """A started worker whose connections have all shown the token and said HELLO.

    Parameters
    ----------
    command : WorkerCommand
        What to start.
    deadline : Deadline, optional
        Ends the wait for the handshake; default `command.start_timeout_s` from now.

    Raises
    ------
    MissingDependencyError, UnavailableError
        If the program is absent or does not start.
    BridgeError
        If it ends, is silent or says something else than HELLO.
    """

    def __init__(self, command: WorkerCommand, deadline: Deadline | None = None) -> None:
        self.command = command
        self._owner = os.getpid()
        self._control: Lane | None = None
        self._control_lock = threading.Lock()
        self.lanes: list[Lane] = []
        self._popen: subprocess.Popen[bytes] | None = None
        token = secrets.token_hex(_TOKEN_BYTES // 2).encode()
        with _listener(command.transport) as (listener, address):
            self._popen = _starter.call(lambda: _spawn(command, address, token))
            self._finalizer = weakref.finalize(self, _end, self._popen, self._owner)
            self.log = LogPump(self._popen, command.logger)
            self.loaded: set[int] = set()
            try:
                self._greet(listener, token, deadline or Deadline(command.start_timeout_s))
            except BaseException as exc:
                self.kill()
                self.free()
                for lane in self.lanes:
                    lane.close()
                if isinstance(exc, BridgeError):
                    raise type(exc)(
                        f"the {command.runtime} worker did not start: {exc.message}{self.post_mortem()}",
                        hint=exc.hint,
                        runtime=command.runtime,
                    ) from exc
                raise
        self.device = next((d for lane in self.lanes if (d := lane.hello.text("device"))), command.device)
        _live.add(self)

    @property
    def pid(self) -> int:
        """The process's id; with a wrapper program, the same after exec."""
        assert self._popen is not None
        return self._popen.pid

    @property
    def alive(self) -> bool:
        """Whether the process runs."""
        return self._popen is not None and not _ended(self._popen)

    def interrupt(self, lane: Lane) -> bool:
        """Ask the worker to end the lane's call; False where there is no way but to kill."""
        if self.command.interrupt == "signal" and hasattr(os, "killpg"):
            with contextlib.suppress(ProcessLookupError, PermissionError):
                if self.alive:
                    os.killpg(self.pid, signal.SIGINT)
            return True
        if self.command.interrupt == "control" and self._control is not None:
            with self._control_lock:
                # ids count per connection: the worker's own number of the lane tells which one is meant
                number = lane.hello.integer("lane")
                self._control.tell(FrameType.CANCEL, {"request": lane.request_id} | ({} if number is None else {"lane": number}))
            return True
        return False

    def hang_up(self) -> None:
        """End the connections: the worker ends itself, callers see their call end."""
        for lane in self._every_lane():
            lane.hang_up()

    def end(self, within_s: float) -> None:
        """Wait for the process to end by itself, then kill it; free everything."""
        if self._popen is not None and os.getpid() == self._owner:
            ends_at, pause_s = time.monotonic() + within_s, 0.0005
            while not _ended(self._popen) and (left := ends_at - time.monotonic()) > 0:
                time.sleep(min(pause_s, left))
                pause_s = min(pause_s * 2, 0.02)
        self.kill()

    def kill(self) -> None:
        """Kill the process and its children, collect it, free everything; harmless when repeated."""
        if os.getpid() != self._owner:
            return
        if self._popen is not None:
            _end(self._popen, self._owner)
            self._finalizer.detach()
            self.log.finish()
        for lane in self._every_lane():
            lane.hang_up()

    def free(self) -> None:
        """Close the control connection's descriptors; lanes are closed by who holds them."""
        if self._control is not None:
            with self._control_lock:
                self._control.close()

    def post_mortem(self) -> str:
        """Say how a dead process ended and what it printed last, as the end of a message."""
        status = None if self._popen is None else self._popen.poll()
        if status is None:
            how = ""
        elif status < 0:
            how = f" (killed by {signal.Signals(-status).name if -status in signal.valid_signals() else -status})"
        else:
            how = f" (exit status {status})"
        tail = self.log.tail()
        return how + (f"; it printed last:\n{tail}" if tail else "")

    def _every_lane(self) -> Iterator[Lane]:
        yield from self.lanes
        if self._control is not None:
            yield self._control

    # ------------------------------------------------------------ the handshake

    def _greet(self, listener: Any, token: bytes, deadline: Deadline) -> None:
        wants_control = self.command.interrupt == "control"
        guests: Callable[..., Iterator[Any]] = listener.guests if isinstance(listener, fifo.Fifos) else partial(_guests, listener)
        for sock in guests(token, deadline, lambda: self.alive):
            sock.setblocking(True)
            if sock.family != getattr(socket, "AF_UNIX", None):
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            try:
                hello = _check_hello(read_frame(sock, deadline=deadline))
            except BaseException:
                sock.close()
                raise
            lane = Lane(sock, hello, self.command.max_payload, self.command.column_major)
            if hello.text("role", "lane") == "control" and wants_control and self._control is None:
                self._control = lane
            else:
                self.lanes.append(lane)
            if len(self.lanes) >= self.command.lanes and (self._control is not None or not wants_control):
                return


def _check_hello(hello: Frame) -> Frame:
    if hello.type is not FrameType.HELLO:
        raise BridgeError(f"its first frame is {hello.type.name}, not HELLO")
    version = hello.integer("protocol")
    if version is None or not 1 <= version <= FRAME_VERSION:
        raise BridgeError(f"it speaks frames of version {version}; this mlbridge speaks {FRAME_VERSION}", hint="install matching versions")
    return hello


def _guests(listener: socket.socket, token: bytes, deadline: Deadline, alive: Callable[[], bool]) -> Iterator[socket.socket]:
    """Yield connections that showed the token; others are dropped, slow ones hold up nobody."""
    listener.setblocking(False)
    shown: dict[socket.socket, bytes] = {}
    try:
        with selectors.DefaultSelector() as selector:
            selector.register(listener, selectors.EVENT_READ)
            while True:
                deadline.check()
                was_alive = alive()
                events = selector.select(0.05)
                if not events and not was_alive:
                    raise BridgeError("it ended before it connected")
                for key, _ in events:
                    sock = key.fileobj
                    assert isinstance(sock, socket.socket)
                    if sock is listener:
                        with contextlib.suppress(BlockingIOError):
                            guest = listener.accept()[0]
                            if len(shown) >= _MAX_GUESTS:
                                guest.close()
                                continue
                            guest.setblocking(False)
                            shown[guest] = b""
                            selector.register(guest, selectors.EVENT_READ)
                        continue
                    with contextlib.suppress(BlockingIOError):
                        piece = _receive(sock, _TOKEN_BYTES - len(shown[sock]))
                        shown[sock] += piece
                        if piece and len(shown[sock]) < _TOKEN_BYTES:
                            continue
                        selector.unregister(sock)
                        if hmac.compare_digest(shown.pop(sock), token):
                            yield sock
                        else:
                            sock.close()
    finally:
        for sock in shown:
            sock.close()


def _receive(sock: socket.socket, size: int) -> bytes:
    try:
        return sock.recv(size)
    except BlockingIOError:
        raise
    except OSError:
        return b""


@contextlib.contextmanager
def _listener(transport: str) -> Iterator[tuple[Any, str]]:
    """Listen until the block ends; nothing is left behind."""
    folder = None
    try:
        if transport == "fifo" and fifo.AVAILABLE:
            folder = tempfile.mkdtemp(prefix="mlb-")
            fifos = fifo.Fifos(Path(folder))
            try:
                yield fifos, fifos.address
            except BaseException:
                fifos.close()
                raise
            return
        if transport == "unix" and hasattr(socket, "AF_UNIX"):
            folder = tempfile.mkdtemp(prefix="mlb-")  # 0700: other users cannot even connect
        path = None if folder is None else str(Path(folder) / "s")
        if path is not None and len(os.fsencode(path)) <= _MAX_PATH:
            listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            listener.bind(path)
            address = f"unix:{path}"
        else:
            listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
            listener.bind(("127.0.0.1", 0))
            address = f"tcp:127.0.0.1:{listener.getsockname()[1]}"
        with listener:
            listener.listen(16)
            yield listener, address
    finally:
        if folder is not None:
            shutil.rmtree(folder, ignore_errors=True)


# ---------------------------------------------------------------- start and end


def _spawn(command: WorkerCommand, address: str, token: bytes) -> subprocess.Popen[bytes]:
    """Start the process; runs on the starter's thread."""
    env = command.environment(
        {"MLBRIDGE_ADDRESS": address, "MLBRIDGE_LANES": str(command.lanes), "MLBRIDGE_CONTROL": str(int(command.interrupt == "control"))}
    )
    try:
        popen = subprocess.Popen(
            command.wrapped(env),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=env,
            cwd=command.cwd,
            start_new_session=True,  # Ctrl-C is for the parent; killpg reaches the worker's own children
        )
    except OSError as exc:
        raise UnavailableError(f"the program {command.argv[0]!r} does not start: {exc}", runtime=command.runtime) from exc
    assert popen.stdin is not None
    with contextlib.suppress(OSError):  # already dead: the handshake says so
        popen.stdin.write(token + b"\n")
        popen.stdin.close()
    return popen


def _ended(popen: subprocess.Popen[bytes]) -> bool:
    """Look without collecting: while it is not collected, its id and its group's are no other process's."""
    if popen.returncode is not None:
        return True
    if not hasattr(os, "waitid"):
        return popen.poll() is not None
    try:
        return os.waitid(os.P_PID, popen.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None
    except ChildProcessError:  # collected by somebody else's wait()
        return popen.poll() is not None


def _end(popen: subprocess.Popen[bytes], owner: int) -> None:
    if os.getpid() != owner:
        return  # a fork's copy: the worker is the parent's
    if popen.returncode is None:  # not collected yet, so the id cannot belong to another process
        with contextlib.suppress(ProcessLookupError, PermissionError):
            if hasattr(os, "killpg"):
                os.killpg(popen.pid, signal.SIGKILL)
            else:
                popen.kill()
    popen.wait()


class _Starter:
    """One thread that starts every worker: PDEATHSIG kills a child when the *thread* that started it ends."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._queue: queue.SimpleQueue[tuple[Callable[[], Any], Future]] | None = None

    def call(self, start: Callable[[], Any]) -> Any:
        future: Future = Future()
        with self._lock:
            if self._queue is None:
                self._queue = queue.SimpleQueue()
                threading.Thread(target=self._work, args=(self._queue,), name="mlbridge-starter", daemon=True).start()
            self._queue.put((start, future))
        return future.result()

    @staticmethod
    def _work(jobs: queue.SimpleQueue[tuple[Callable[[], Any], Future]]) -> None:
        while True:
            start, future = jobs.get()
            try:
                future.set_result(start())
            except BaseException as exc:  # noqa: BLE001 - handed to the caller
                future.set_exception(exc)
            del start, future  # else the thread keeps the last worker alive until the next one


_starter = _Starter()


def _after_fork() -> None:
    """Give up, in a forked child, what belongs to the parent."""
    global _starter
    _starter = _Starter()
    for process in list(_live):
        for lane in process._every_lane():
            lane.close()
        for stream in (process._popen.stdout, process._popen.stderr) if process._popen else ():
            if stream is not None:
                stream.close()
    _live.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


def check_owner(owner: int) -> None:
    """Raise ClosedError in any process but the one that opened the pool."""
    if os.getpid() != owner:
        raise ClosedError(
            "this model belongs to the process this one was forked from", hint="load it again in this process, or start processes by spawn"
        )
