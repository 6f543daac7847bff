"""Worker processes, for R, the JVM and another Python alike: start, ask, watch, interrupt, restart, stop.

Rooms, from below: `command` (what to start, and the limits around it) · `process` (one live process: handshake, log,
interrupt, kill) · `lane` (one connection: ask, answer, foreign errors) · `answers` (outputs checked against a
signature) · `pool` (n processes: checkout, deadlines, respawn, back-off) · `session` (a Session over a pool).
What crosses the sockets is in `proto/FRAMES.md`. Called by `runtimes/python.py`, `runtimes/r.py`, `runtimes/jvm.py`.

A runtime needs no more than this::

    command = WorkerCommand(
        argv=("Rscript", "--vanilla", str(script)), runtime="r", transport="tcp", interrupt="signal",
        memory_mb=options.get("memory_mb"),
    )
    session = open_session(
        command,
        {"path": str(artifact.path), "format": "rds", "option.type": "response"},    # the tensors of LOAD
        signature=signature,             # or None: the worker infers it and answers its JSON
        workers=options.get("workers", 1),
        keep=artifact,                   # closed with the session: the private copy must outlive every reload
    )

* The worker gets `MLBRIDGE_ADDRESS`, `MLBRIDGE_LANES`, `MLBRIDGE_CONTROL` in its environment, the token on its stdin.
* What the worker prints goes to `logging.getLogger(command.logger)`, default `mlbridge.<runtime>`.
* A failing LOAD raises what the worker said (ArtifactError, MissingDependencyError, ...) and stops the processes.
* Foreign errors have the attributes `condition` (tuple of class names) and `trace` (text), and a ForeignError as cause.
* `shared=True` puts sessions of equal commands into one pool (the JVM's way): a model each, one process.
* `session.pool.failed`, `session.pool.pids` tell tests and metrics how it is.
"""

from .answers import fit_outputs
from .command import Backoff, WorkerCommand
from .lane import ForeignError
from .pool import WorkerPool
from .session import WorkerSession, open_session

__all__ = ["Backoff", "ForeignError", "WorkerCommand", "WorkerPool", "WorkerSession", "fit_outputs", "open_session"]
