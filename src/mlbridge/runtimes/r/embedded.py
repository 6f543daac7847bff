"""R inside this process: started once, on a thread of its own, which alone touches R.

rpy2's lowest layer only: no Python object holds an R object, so none can be released on another thread. What runs on the
thread is handed over by `EmbeddedR.call`; what crosses is numpy (`values`) or text. Used by `inproc`.
"""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import functools
import importlib.metadata
import logging
import os
import re
import select
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ...errors import BridgeError, ClosedError, MissingDependencyError, UnavailableError
from ...interfaces import Deadline
from ...workers.log import LineLog

__all__ = ["EmbeddedR", "embedded_r", "misfit"]

_PARTS = Path(__file__).parent.parent.parent / "_r"
_FILES = ("frames.R", "answers.R", "frame_of.R", "outputs.R", "infer.R", "serving.R", "internals.R", "embedded.R")
_STACK_BYTES = 64 << 20  # R's own default is 8 MiB; deep trees and formulas recurse
_STACK_SHARE = 0.85  # R refuses to go deeper; the rest is for C code that does not ask
_POLL_US = 20_000  # how often R's own waits (Sys.sleep, sockets) look for an interrupt
_AGAIN_S = 0.05  # code may swallow an interrupt: it is sent again until the grace is over
_LONGEST_POLL_MS = 1e6  # who waits looks again
_ONE = (1).to_bytes(8, sys.byteorder)  # a ring
_MOST_RINGS = 1 << 12  # bytes
_START = "mlbridge-r"
_PIN = "pip install 'rpy2<3.6.6' 'rpy2-rinterface<3.6.6'"


class _Bell:
    """Wakes the thread that waits, in half a lock's time: a write lets go of the interpreter before that thread wants it.

    It may have rung for somebody before: who was woken looks whether it is for him.
    """

    __slots__ = ("_ear", "_hand", "_poll")

    def __init__(self) -> None:
        if hasattr(os, "eventfd"):
            self._ear = self._hand = os.eventfd(0)
        else:
            self._ear, self._hand = os.pipe()
        self._poll: Any = None

    def ring(self) -> None:
        """Wake the thread that waits, now or when it comes."""
        os.write(self._hand, _ONE)

    def wait(self, timeout_s: float | None = None) -> None:
        """Return when it rang, or after so many seconds."""
        if timeout_s is not None:
            if not hasattr(select, "poll"):  # Windows
                timer = threading.Timer(timeout_s, self.ring)
                timer.daemon = True
                timer.start()
            else:
                if self._poll is None:
                    self._poll = select.poll()
                    self._poll.register(self._ear, select.POLLIN)
                if not self._poll.poll(min(max(timeout_s * 1e3, 0.0), _LONGEST_POLL_MS)):
                    return
        os.read(self._ear, _MOST_RINGS)


class _Job:
    """One piece of work for the R thread, waited for by its caller."""

    __slots__ = ("abandoned", "bell", "error", "finished", "result", "work")

    def __init__(self, work: Callable[[], Any], bell: _Bell | None) -> None:
        self.work, self.bell = work, bell
        self.result: Any = None
        self.error: BaseException | None = None
        self.finished = self.abandoned = False


class EmbeddedR:
    """The embedded R and its thread; one a process, never stopped, because R cannot be started twice.

    Raises
    ------
    MissingDependencyError
        If rpy2 is absent or does not fit the installed R; names the versions that do.
    UnavailableError
        If R runs in this process already, on a thread that is not ours.
    """

    def __init__(self) -> None:
        self._owner = os.getpid()
        self._jobs: deque[_Job] = deque()
        self._come = _Bell()
        self._bells: deque[_Bell] = deque()  # of calls that ended
        self._lock = threading.Lock()  # of what runs now, against late interrupts
        self._current: _Job | None = None
        self._stuck: _Job | None = None
        self.kept_names: dict[tuple[str, ...], Any] = {}  # R vectors, preserved; touched on the R thread only
        self.rlib, self.ffi, embedded, callbacks = _rinterface()
        if embedded.isinitialized() or self.rlib.R_NilValue != self.ffi.NULL:
            raise UnavailableError(
                "R already runs in this process, on a thread that is not mlbridge's", hint="use r:, which runs R on its own", runtime="r"
            )
        with _stack_size(_STACK_BYTES):
            threading.Thread(target=self._work, name=_START, daemon=True).start()
        self.methods = self.call(lambda: self._start(embedded, callbacks))

    def call(self, work: Callable[[], Any], *, deadline: Deadline | None = None, grace_s: float = 2.0) -> Any:
        """Run something on the R thread and return what it returns.

        Raises
        ------
        BridgeTimeoutError, CancelledError
            If the deadline ended the call; R is interrupted, and goes on until it looks.
        BridgeError
            If R is still busy with a call that was given up and does not listen.
        ClosedError
            In a forked process.
        """
        if os.getpid() != self._owner:
            raise ClosedError("R runs in the process this one was forked from", hint="use r:, or start processes by spawn", runtime="r")
        if self._stuck is not None and not self._stuck.finished:
            raise _busy()
        try:
            bell = self._bells.pop()
        except IndexError:
            bell = _Bell()
        job = _Job(work, bell)
        forget = None if deadline is None else deadline.on_cancel(bell.ring)
        self._submit(job)
        try:
            while True:
                bell.wait(None if deadline is None else deadline.remaining_s())
                if job.finished:
                    break
                if deadline is not None:
                    deadline.check()
        except BaseException:
            self._give_up(job, grace_s)
            raise
        finally:
            if forget is not None:
                forget()
            self._bells.append(bell)
        if job.error is not None:
            raise job.error
        return job.result

    def later(self, work: Callable[[], Any]) -> None:
        """Run something on the R thread when its turn comes; nobody waits for it."""
        self._submit(_Job(work, None))

    def _submit(self, job: _Job) -> None:
        self._jobs.append(job)
        self._come.ring()

    # ------------------------------------------------------------ interrupts

    def _give_up(self, job: _Job, grace_s: float) -> None:
        job.abandoned = True
        threading.Thread(target=self._interrupt, args=(job, grace_s), name="mlbridge-r-interrupt", daemon=True).start()

    def _interrupt(self, job: _Job, grace_s: float) -> None:
        """Ask R to end the job until it does; past the grace, refuse what waits behind it."""
        ends_at = None
        while not job.finished:
            with self._lock:
                if self._current is job:
                    self.rlib.R_interrupts_pending = 1
                    ends_at = ends_at or time.monotonic() + grace_s
            if ends_at is not None and time.monotonic() > ends_at:
                break
            time.sleep(_AGAIN_S)
        else:
            return
        self._stuck = job
        with contextlib.suppress(IndexError):
            while True:
                waiting = self._jobs.popleft()
                waiting.error = _busy()
                _finish(waiting)

    # ------------------------------------------------------------ the thread

    def _work(self) -> None:
        while True:
            self._come.wait()
            try:
                while True:
                    self._do(self._jobs.popleft())
            except IndexError:
                pass  # none left

    def _do(self, job: _Job) -> None:
        with self._lock:
            self._current = None if job.abandoned else job
        if not job.abandoned:
            try:
                job.result = job.work()
            except BaseException as exc:  # noqa: BLE001 - handed to the caller
                job.error = exc
        with self._lock:
            self._current = None
            self.rlib.R_interrupts_pending = 0  # one that came too late is nobody's
        _finish(job)

    def _start(self, embedded: Any, callbacks: Any) -> Any:
        """Start R and load mlbridge's methods; return the environment they are in."""
        rlib, ffi = self.rlib, self.ffi
        embedded.set_initoptions((_START, "--quiet", "--no-save", "--no-restore", "--no-init-file", "--no-site-file"))
        embedded._initr(interactive=False)  # rinterface's own would end R at exit, from the main thread
        _bound_stack(rlib, ffi)
        # R_tryEval that prints no error: what went wrong is told by the exception
        self._try = ffi.cast("SEXP(*)(SEXP, SEXP, int *)", _address("R_tryEvalSilent"))
        self.holders = ffi.cast("int(*)(SEXP)", _address("REFCNT"))  # how many hold an R object; 0 where R (< 4) does not count
        self.type_of = ffi.cast("int(*)(SEXP)", _address("TYPEOF"))
        self.allocate_matrix = ffi.cast("SEXP(*)(unsigned int, int, int)", _address("Rf_allocMatrix"))
        self.names_symbol = rlib.Rf_install(b"names")
        rlib.ptr_R_ProcessEvents = ffi.NULL  # there is no window; a call into Python each time R looks up would cost a third
        rlib.R_wait_usec = _POLL_US
        self._failed = ffi.new("int *")
        self._clean_up = rlib.ptr_R_CleanUp
        self._jump = ffi.cast(ffi.typeof(rlib.ptr_R_CleanUp), _address("Rf_jump_to_toplevel"))
        log = LineLog("mlbridge.r")
        callbacks.consolewrite_print = log.writer(logging.INFO)
        callbacks.consolewrite_warnerror = log.writer(logging.WARNING)
        callbacks.showmessage = log.writer(logging.WARNING)
        callbacks.consoleread = lambda prompt: ""
        here, files = _PARTS.as_posix(), ", ".join(f'"{f}"' for f in _FILES)
        methods = self.evaluate_text(
            f"""local({{
                options(warn = 1, keep.source = FALSE, error = NULL)
                part <- new.env(parent = globalenv())
                for (f in c({files})) sys.source(file.path({_quoted(here)}, f), part)
                part$write_out(part, c("run_model", "embedded_ask", "embedded_load"))
                part$guard_host()
                attach(part, name = "mlbridge")
                .Internal(seterrmessage(""))
                part
            }})"""
        )
        if methods is None:
            raise BridgeError("R does not start: mlbridge's own methods do not load", hint="see the logger mlbridge.r", runtime="r")
        rlib.R_PreserveObject(methods)
        atexit.register(self._leave)
        return methods

    def evaluate_text(self, text: str) -> Any:
        """Evaluate R text on the R thread; return the R object, unprotected."""
        rlib, ffi = self.rlib, self.ffi
        status = ffi.new("ParseStatus *")
        source = rlib.Rf_protect(rlib.Rf_mkString(text.encode()))
        expressions = rlib.Rf_protect(rlib.R_ParseVector(source, -1, status, rlib.R_NilValue))
        try:
            return self.evaluate(rlib.VECTOR_ELT(expressions, 0), rlib.R_GlobalEnv)
        finally:
            rlib.Rf_unprotect(2)

    def evaluate(self, call: Any, environment: Any) -> Any:
        """Evaluate an R call on the R thread; return the R object, unprotected, or None where R jumped out of it."""
        failed = self._failed
        # .Internal(quit()) comes back here instead of exit(0); with no call to come back to, the jump would never end
        self.rlib.ptr_R_CleanUp = self._jump
        got = self._try(call, environment, failed)
        self.rlib.ptr_R_CleanUp = self._clean_up
        return None if failed[0] else got

    def _leave(self) -> None:
        """Remove R's temporary folder; R itself ends with the process."""
        if os.getpid() == self._owner and self._current is None:
            with contextlib.suppress(Exception):
                self.call(lambda: self.evaluate_text("unlink(tempdir(), recursive = TRUE)"), deadline=Deadline(2.0))


def _finish(job: _Job) -> None:
    job.finished = True
    if job.bell is not None:
        job.bell.ring()


def _busy() -> BridgeError:
    return BridgeError(
        "R is still busy with a call that was given up and does not listen to interrupts",
        hint="wait, or use r:, whose workers are killed and started again",
        runtime="r",
    )


_starting = threading.Lock()
_running: EmbeddedR | None = None


def embedded_r() -> EmbeddedR:
    """Return this process's embedded R, started on first use."""
    global _running
    with _starting:
        if _running is None:
            _running = EmbeddedR()
        return _running


def _after_fork() -> None:
    global _starting
    _starting = threading.Lock()  # may have been copied locked; the R itself stays, and refuses


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


# ---------------------------------------------------------------- rpy2 and the stack


def _rinterface() -> tuple[Any, Any, Any, Any]:
    """Import rpy2's lowest layer; whatever it fails with names the remedy."""
    try:
        from rpy2.rinterface_lib import callbacks, embedded, openrlib
    except Exception as exc:  # it fails in a class of its own for each reason: no R, another R, no compiler
        raise MissingDependencyError(_why_not(exc), hint=_PIN, runtime="r") from exc
    if said := _installed_misfit():
        raise MissingDependencyError(said, hint=_PIN, runtime="r")
    return openrlib.rlib, openrlib.ffi, embedded, callbacks


def _why_not(exc: Exception) -> str:
    try:
        return _installed_misfit() or f"rpy2-rinterface {importlib.metadata.version('rpy2-rinterface')} cannot be imported: {exc}"
    except importlib.metadata.PackageNotFoundError:
        return "r+inproc: needs rpy2, which is not installed"


def _installed_misfit() -> str | None:
    return misfit(importlib.metadata.version("rpy2-rinterface"), _r_version())


def misfit(rpy2: str, r: str | None) -> str | None:
    """Say so where a version of rpy2-rinterface wants a newer R than that version of R.

    Examples
    --------
    >>> misfit("3.6.6", "4.2.2")
    'rpy2-rinterface 3.6.6 needs R >= 4.5, and this is R 4.2.2'
    """
    if r is not None and _numbers(rpy2) >= (3, 6, 6) and _numbers(r) < (4, 5):
        return f"rpy2-rinterface {rpy2} needs R >= 4.5, and this is R {r}"
    return None


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(n) for n in re.findall(r"\d+", version)[:3])


@functools.cache
def _r_version() -> str | None:
    try:
        said = subprocess.run(["R", "--version"], capture_output=True, text=True, check=False, timeout=30).stdout
    except (OSError, subprocess.TimeoutExpired):
        return None
    found = re.search(r"R version (\d+\.\d+\.\d+)", said)
    return found[1] if found else None


def _quoted(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


@contextlib.contextmanager
def _stack_size(size: int) -> Any:
    before = threading.stack_size(size)
    try:
        yield
    finally:
        threading.stack_size(before)


def _address(symbol: str) -> int:
    """Find a function of libR that rpy2 does not declare; the library is loaded by now."""
    home = Path(os.environ["R_HOME"])
    names = ("lib/libR.so", "lib/libR.dylib", "bin/x64/R.dll")
    library = ctypes.CDLL(str(next(home / n for n in names if (home / n).exists())))
    return ctypes.cast(getattr(library, symbol), ctypes.c_void_p).value or 0


def _bound_stack(rlib: Any, ffi: Any) -> None:
    """Tell R where this thread's stack is: it looked at the main thread's, and recursion would be a segfault."""
    libc = ctypes.CDLL(None)
    if sys.platform != "linux":
        return  # rpy2 switched the check off; R's limit on nested expressions is what is left
    attributes = ctypes.create_string_buffer(256)
    libc.pthread_self.restype = ctypes.c_ulong
    lowest, size = ctypes.c_void_p(), ctypes.c_size_t()
    if libc.pthread_getattr_np(ctypes.c_ulong(libc.pthread_self()), attributes):
        return
    libc.pthread_attr_getstack(attributes, ctypes.byref(lowest), ctypes.byref(size))
    libc.pthread_attr_destroy(attributes)
    rlib.R_CStackStart = ffi.cast("uintptr_t", (lowest.value or 0) + size.value)
    rlib.R_CStackLimit = ffi.cast("uintptr_t", int(size.value * _STACK_SHARE))
