"""What to start as a worker, and the limits around it: plain values, no process yet."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from ..errors import InputError, MissingDependencyError
from ..frames import MAX_PAYLOAD

__all__ = ["Backoff", "WorkerCommand"]

# every library that starts a thread a core by itself; n workers of them would fight
_THREAD_VARIABLES = (
    "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "BLIS_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS", "NUMEXPR_NUM_THREADS", "RAYON_NUM_THREADS", "LOKY_MAX_CPU_COUNT",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Backoff:
    """How fast a dying worker is started again, and when to give up.

    Parameters
    ----------
    first_s : float, default=0.1
        Wait before the second start in a row; the first is at once. Doubles each time.
    most_s : float, default=30.0
        The longest wait.
    attempts : int, default=10
        Deaths in a row, without one answer between them, that make the model FAILED.
    """

    first_s: float = 0.1
    most_s: float = 30.0
    attempts: int = 10

    def delay_s(self, deaths: int) -> float:
        """Return the wait after that many deaths in a row.

        Examples
        --------
        >>> [Backoff().delay_s(n) for n in (0, 1, 2, 3, 12)]
        [0.0, 0.0, 0.1, 0.2, 30.0]
        """
        return 0.0 if deaths < 2 else min(self.most_s, self.first_s * 2 ** min(deaths - 2, 60))


@dataclass(frozen=True, slots=True)
class WorkerCommand:
    """A program that speaks frames, and how to treat it. Equal commands may share processes.

    Parameters
    ----------
    argv : sequence of str
        Program and arguments.
    runtime : str
        The runtime's name, in errors and HELLO.
    env : mapping of str to str or None, optional
        Changes to this process's environment; None removes a variable.
    cwd : str, optional
        Its working directory.
    transport : {'unix', 'fifo', 'tcp'}, default='unix'
        Named pipes (one lane, no control) or loopback TCP for languages without Unix sockets; TCP also where the machine
        lacks the other.
    interrupt : {'signal', 'control', 'none'}, default='signal'
        How a call is ended: SIGINT, a CANCEL frame on a connection of its own, or only by killing.
    lanes : int, default=1
        Calls one process runs at once.
    device : str, optional
        What `Session.device` says unless the worker says otherwise; default the runtime's name.
    threads : int, default=1
        Value of OMP_NUM_THREADS and its kin, unless `env` sets them.
    memory_mb : int, optional
        Limit of the address space in MiB (not for a JVM, which reserves more than it uses).
    logger : str, optional
        Where the worker's output goes; default `mlbridge.<runtime>`.
    start_timeout_s, load_timeout_s, grace_s : float
        How long a start, a LOAD, and an interrupted call may take before the process is killed.
    max_payload : int
        Bytes one frame to the worker may hold; what is larger is sent by rows, where the signature allows.
    column_major : bool, default=False
        Whether the worker holds matrices column by column, as R does: then they are sent so.
    """

    argv: tuple[str, ...]
    runtime: str
    env: tuple[tuple[str, str | None], ...] = ()
    cwd: str | None = None
    transport: Literal["unix", "fifo", "tcp"] = "unix"
    interrupt: Literal["signal", "control", "none"] = "signal"
    lanes: int = 1
    device: str = ""
    threads: int = 1
    memory_mb: int | None = None
    logger: str = ""
    start_timeout_s: float = 60.0
    load_timeout_s: float = 300.0
    grace_s: float = 2.0
    max_payload: int = MAX_PAYLOAD
    column_major: bool = False

    def __post_init__(self) -> None:
        env = self.env.items() if isinstance(self.env, Mapping) else self.env
        object.__setattr__(self, "argv", tuple(map(str, self.argv)))
        object.__setattr__(self, "env", tuple(sorted((str(k), None if v is None else str(v)) for k, v in env)))
        object.__setattr__(self, "device", self.device or self.runtime)
        object.__setattr__(self, "logger", self.logger or f"mlbridge.{self.runtime}")
        for name in ("lanes", "threads", "memory_mb"):
            value = getattr(self, name)
            if value is not None and (not isinstance(value, int) or isinstance(value, bool) or value < 1):
                raise InputError(f"{name} must be a positive integer, not {value!r}")

    def environment(self, extra: Mapping[str, str]) -> dict[str, str]:
        """Return the worker's whole environment: ours, capped threads, `env`, then `extra`."""
        env = {**os.environ, **dict.fromkeys(_THREAD_VARIABLES, str(self.threads))}
        for name, value in self.env:
            if value is None:
                env.pop(name, None)
            else:
                env[name] = value
        return {**env, **extra}

    def wrapped(self, env: Mapping[str, str]) -> list[str]:
        """Return argv behind the programs that tie its life to ours and limit its memory.

        Raises
        ------
        MissingDependencyError
            If the program is not installed.
        """
        program = shutil.which(self.argv[0], path=env.get("PATH"))
        if program is None:
            raise MissingDependencyError(
                f"the program {self.argv[0]!r} is not installed or not executable",
                hint="install it, or put its folder on PATH",
                runtime=self.runtime,
            )
        argv = [program, *self.argv[1:]]
        if self.memory_mb is not None:
            argv = [*_memory_limit(self.memory_mb), *argv]
        if sys.platform == "linux" and (setpriv := shutil.which("setpriv")):
            argv = [setpriv, "--pdeathsig", "KILL", "--", *argv]
        return argv


def _memory_limit(memory_mb: int) -> Sequence[str]:
    # by a wrapper program: code between fork and exec is not safe in a process with threads
    if prlimit := shutil.which("prlimit"):
        return [prlimit, f"--as={memory_mb << 20}", "--"]
    if sh := shutil.which("sh"):
        return [sh, "-c", 'ulimit -v "$0" && exec "$@"', str(memory_mb << 10)]
    raise MissingDependencyError("memory_mb needs the program 'prlimit' or 'sh'", hint="apt-get install util-linux")
