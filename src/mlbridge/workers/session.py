"""A Session over a pool of workers: what a runtime for another language returns."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from ..errors import ClosedError, InputError, MlbridgeError, SignatureError, StatusCode
from ..frames import Frame
from ..interfaces import Array, Deadline
from ..signature import Signature
from .answers import fit_outputs, rows_of
from .command import Backoff, WorkerCommand
from .pool import WorkerPool

__all__ = ["WorkerSession", "open_session"]

_shared: dict[tuple[WorkerCommand, int], tuple[WorkerPool, int]] = {}  # pool and its number of sessions
_shared_lock = threading.Lock()


def open_session(
    command: WorkerCommand,
    load: Mapping[str, Any],
    *,
    signature: Signature | None = None,
    workers: int = 1,
    shared: bool = False,
    backoff: Backoff | None = None,
    keep: Any = None,
) -> WorkerSession:
    """Start workers, load a model into each, and return the Session.

    Parameters
    ----------
    command : WorkerCommand
        What to start.
    load : mapping of str to array_like
        The tensors of LOAD: `path`, `format`, `option.<key>`; `model` and `signature` are added here.
    signature : Signature, optional
        The model's; without it the worker must answer one.
    workers : int, default=1
        Processes.
    shared : bool, default=False
        Whether sessions of equal commands share processes.
    backoff : Backoff, optional
        How dying workers are started again.
    keep : object with close(), optional
        What the worker needs for every reload (the artifact's private copy); closed with the session.

    Returns
    -------
    WorkerSession

    Raises
    ------
    MlbridgeError
        What the start or the LOAD failed with; no process is left then, and `keep` is the caller's still.
    """
    if not isinstance(workers, int) or isinstance(workers, bool) or workers < 1:
        raise InputError(f"workers must be a positive integer, not {workers!r}", runtime=command.runtime)
    tensors = dict(load)
    if signature is not None:
        tensors["signature"] = signature.to_json()
    if shared:
        pool, model, answer, release = _join(command, tensors, workers, backoff)
    else:
        pool = WorkerPool(command, tensors, workers=workers, backoff=backoff)
        model, answer, release = 0, pool.loaded, pool.close
    try:
        if signature is None:
            text = answer.text("signature")
            if text is None:
                raise SignatureError(
                    f"the {command.runtime} worker cannot tell the model's signature",
                    hint="pass signature=..., or a sample to infer it from",
                    runtime=command.runtime,
                )
            signature = Signature.from_json(text)
        notes = {name[5:]: answer.text(name) for name in answer.tensors if name.startswith("note.")}
        return WorkerSession(pool, signature, model=model, release=release, keep=keep, device=answer.text("device"), notes=notes)
    except BaseException:
        release()
        raise


def _join(command: WorkerCommand, tensors: dict[str, Any], workers: int, backoff: Backoff | None) -> tuple:
    key = (command, workers)
    with _shared_lock:
        pool, users = _shared.get(key, (None, 0))
        if pool is None or pool.failed or pool._owner != os.getpid():
            pool, users = WorkerPool(command, tensors, workers=workers, backoff=backoff), 0
            model, answer = 0, pool.loaded
        else:
            model, answer = pool.add(tensors)
        _shared[key] = (pool, users + 1)
    return pool, model, answer, lambda: _leave(key, pool, model)


def _leave(key: tuple[WorkerCommand, int], pool: WorkerPool, model: int) -> None:
    with _shared_lock:
        held, users = _shared.get(key, (None, 0))
        if held is pool and users > 1:
            _shared[key] = (pool, users - 1)
        else:
            if held is pool:
                del _shared[key]
            pool.close()
            return
    pool.remove(model)


class WorkerSession:
    """A model in worker processes; implements `interfaces.Session`.

    Parameters
    ----------
    pool : WorkerPool
        Its processes.
    signature : Signature
        The model's.
    model : int
        Its number in the processes.
    release : callable
        Gives the processes up.
    keep : object with close(), optional
        Closed behind the processes.
    device : str, optional
        Where it runs.
    notes : mapping of str to str, optional
        What the worker said about the model when it loaded it.
    """

    def __init__(
        self,
        pool: WorkerPool,
        signature: Signature,
        *,
        model: int = 0,
        release: Callable[[], None] | None = None,
        keep: Any = None,
        device: str | None = None,
        notes: Mapping[str, str | None] | None = None,
    ) -> None:
        reserved = [s.name for s in (*signature.inputs, *signature.outputs) if s.name.startswith("@")]
        if reserved:
            raise SignatureError(
                f"names that start with '@' cannot cross to a worker: {', '.join(map(repr, reserved))}", hint="rename them"
            )
        self.pool, self.signature = pool, signature
        self.device = device or pool.device
        self.max_concurrency = pool.max_concurrency
        self.notes: Mapping[str, str | None] = notes or {}
        self.keep = keep
        self._release = release or pool.close
        self._extra = {"@model": np.array(model)} if model else {}
        self._closed = False

    def run(
        self, feeds: Mapping[str, Array], /, *, outputs: Sequence[str] | None = None, deadline: Deadline | None = None
    ) -> dict[str, Array]:
        """Run once in a worker; feeds too large for a frame go by rows where the signature allows.

        Raises
        ------
        InferenceError
            What the model raised, with the foreign error as cause.
        WorkerDiedError, BridgeTimeoutError, BridgeError, CancelledError, ClosedError
            As `WorkerPool.call`.
        InputError
            If the feeds are too large for a frame and may not be split.
        """
        if self._closed:
            raise ClosedError("the model is closed", runtime=self.pool.command.runtime)
        tensors: Mapping[str, Any] = {**feeds, **self._extra} if self._extra else feeds
        if outputs is not None:
            tensors = {**tensors, "@outputs": np.array(list(outputs), object)}
        try:
            answer = self.pool.call(tensors, deadline)
        except MlbridgeError as exc:
            if exc.code is not StatusCode.OUT_OF_RANGE or not self.signature.batched:
                raise
            rows = rows_of(self.signature, feeds)
            if rows is None or rows < 2:
                raise
        else:
            layout = answer.layout
            if layout is not None and layout.fits is self:
                return answer.tensors
            return self._fitted(answer, outputs, rows_of(self.signature, feeds))
        half = rows // 2
        first = self.run({n: a[:half] for n, a in feeds.items()}, outputs=outputs, deadline=deadline)
        second = self.run({n: a[half:] for n, a in feeds.items()}, outputs=outputs, deadline=deadline)
        return {name: np.concatenate([first[name], second[name]]) for name in first}

    def _fitted(self, answer: Frame, outputs: Sequence[str] | None, rows: int | None) -> dict[str, Array]:
        out = fit_outputs(self.signature, answer.tensors, wanted=outputs, rows=rows, runtime=self.pool.command.runtime)
        same = list(out) == list(answer.tensors) and all(out[n] is a for n, a in answer.tensors.items())
        if answer.layout is not None and same:
            answer.layout.fits = self  # as will one of this layout, whose question has the layout of this one's
        return out

    def close(self) -> None:
        """End the processes, or leave those that others share; harmless when repeated."""
        if self._closed:
            return
        self._closed = True
        self._release()
        if hasattr(self.keep, "close"):
            self.keep.close()
