"""What a worker prints, line by line, into `logging`."""

from __future__ import annotations

import contextlib
import logging
import os
import re
import selectors
import subprocess
import threading
import weakref
from collections import deque
from collections.abc import Callable
from typing import IO, Any

__all__ = ["LineLog", "LogPump"]

_MAX_LINE = 1 << 14  # a longer line is cut in two
_TAIL = 20  # lines a post-mortem shows
# the priorities of syslog, as sd-daemon(3) lets a program prefix its lines
_LEVELS = {0: logging.CRITICAL, 1: logging.CRITICAL, 2: logging.CRITICAL, 3: logging.ERROR, 4: logging.WARNING, 5: logging.INFO}
_PREFIX = re.compile(rb"<([0-7])>")


class LogPump:
    """Reads a process's standard output and error until both end.

    Parameters
    ----------
    popen : Popen
        With pipes for both; they are closed here.
    logger : str
        Where lines go: `<3>`, `<4>`, `<6>`, `<7>` at their head set the level, else output is INFO, error WARNING.
    """

    def __init__(self, popen: subprocess.Popen[bytes], logger: str) -> None:
        assert popen.stdout is not None
        assert popen.stderr is not None
        self._lines: deque[str] = deque(maxlen=_TAIL)
        stop_read, stop_write = os.pipe()
        self._stop = weakref.finalize(self, os.close, stop_write)
        self._thread = threading.Thread(
            target=_pump,
            args=(popen.stdout, popen.stderr, stop_read, logging.getLogger(logger), popen.pid, self._lines),
            name="mlbridge-worker-log",
            daemon=True,
        )
        self._thread.start()

    def tail(self) -> str:
        """Return the last lines."""
        return "\n".join(self._lines)

    def finish(self) -> None:
        """Wait until all of a dead process's output is read; harmless when repeated."""
        if self._stop.alive:
            self._thread.join(1.0)
            self._stop()  # wakes a pump whose pipes a stray grandchild still holds
            self._thread.join(1.0)


def _pump(out: IO[bytes], err: IO[bytes], stop: int, logger: logging.Logger, pid: int, lines: deque[str]) -> None:
    with contextlib.ExitStack() as stack:
        stack.callback(os.close, stop)
        selector = stack.enter_context(selectors.DefaultSelector())
        rest: dict[Any, bytes] = {}
        stream: Any
        for stream, level in ((out, logging.INFO), (err, logging.WARNING)):
            stack.enter_context(stream)
            rest[stream] = b""
            selector.register(stream, selectors.EVENT_READ, level)
        selector.register(stop, selectors.EVENT_READ)
        while rest:
            for key, _ in selector.select():
                if key.fileobj == stop:
                    return
                stream = key.fileobj
                data = os.read(key.fd, 65536)
                *whole, left = (rest[stream] + data).split(b"\n")
                if not data or len(left) > _MAX_LINE:
                    whole, left = [*whole, left], b""
                rest[stream] = left
                for line in whole:
                    _emit(line.rstrip(b"\r"), key.data, logger, pid, lines)
                if not data:
                    selector.unregister(stream)
                    del rest[stream]


def _emit(line: bytes, level: int, logger: logging.Logger, pid: int, lines: deque[str]) -> None:
    if match := _PREFIX.match(line):
        number = int(match[1])
        level = _LEVELS.get(number, logging.INFO if number == 6 else logging.DEBUG)
        line = line[3:]
    if text := line.decode(errors="replace").strip():
        lines.append(text)
        logger.log(level, "%s", text, extra={"worker_pid": pid})


class LineLog:
    """Text that comes in pieces, from code in this process, as lines in `logging`; prefixes as `LogPump`.

    Parameters
    ----------
    logger : str
        Where lines go.
    """

    def __init__(self, logger: str) -> None:
        self._logger = logging.getLogger(logger)
        self._lines: deque[str] = deque(maxlen=_TAIL)

    def writer(self, level: int) -> Callable[[str], None]:
        """Return a function that takes pieces and logs whole lines at the level."""
        rest = ""

        def write(text: str) -> None:
            nonlocal rest
            *whole, rest = (rest + text).split("\n")
            if len(rest) > _MAX_LINE:
                whole, rest = [*whole, rest], ""
            for line in whole:
                _emit(line.encode(), level, self._logger, os.getpid(), self._lines)

        return write
