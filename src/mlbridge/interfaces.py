"""The seam: all that a third party implements (Session, Runtime, Framework) or receives (Deadline).

No behaviour lives here but Deadline's own. `runtimes/` and `frameworks/` implement these; `model.py` calls them.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Hashable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Protocol, TypeAlias, runtime_checkable

import numpy as np

from .artifact import Artifact, Implementation
from .errors import BridgeTimeoutError, CancelledError
from .signature import Signature

__all__ = ["UNBOUNDED", "Array", "Deadline", "Framework", "Placed", "Prebound", "Runtime", "Session", "ShowsMissing", "Tunable"]

Array: TypeAlias = np.ndarray  # C-contiguous, native-endian, in host memory
UNBOUNDED = sys.maxsize  # a session that any number of threads may run at once


class Deadline:
    """When a call must end, and a way to end it sooner.

    Parameters
    ----------
    timeout_s : float, optional
        Seconds from now; None never passes.

    Examples
    --------
    >>> d = Deadline(60.0)
    >>> d.cancelled, d.remaining_s() > 59
    (False, True)
    """

    __slots__ = ("_callbacks", "_cancelled", "_ends_at", "_lock")

    def __init__(self, timeout_s: float | None = None) -> None:
        self._ends_at = None if timeout_s is None else time.monotonic() + timeout_s
        self._cancelled = False
        self._callbacks: list[Callable[[], object]] = []
        self._lock = threading.Lock()

    def remaining_s(self) -> float | None:
        """Return how much time is left.

        Returns
        -------
        float or None
            Seconds, negative once passed; None where there is no limit.
        """
        return None if self._ends_at is None else self._ends_at - time.monotonic()

    @property
    def cancelled(self) -> bool:
        """Whether the caller gave up."""
        return self._cancelled

    def cancel(self) -> None:
        """End the call: run what `on_cancel` registered, once."""
        with self._lock:
            if self._cancelled:
                return
            self._cancelled = True
            callbacks, self._callbacks = self._callbacks, []
        for callback in callbacks:
            callback()

    def on_cancel(self, callback: Callable[[], object]) -> Callable[[], None]:
        """Call a function when the call is cancelled, at once if it was before.

        Parameters
        ----------
        callback : callable
            Takes nothing; runs in the thread that cancels, so it must be short.

        Returns
        -------
        callable
            Takes the registration back.
        """
        with self._lock:
            if not self._cancelled:
                self._callbacks.append(callback)
                return lambda: self._forget(callback)
        callback()
        return lambda: None

    def _forget(self, callback: Callable[[], object]) -> None:
        with self._lock:
            if callback in self._callbacks:
                self._callbacks.remove(callback)

    def check(self) -> None:
        """Raise CancelledError or BridgeTimeoutError if the call must end now."""
        if self._cancelled:
            raise CancelledError("the call was cancelled")
        if self._ends_at is not None and time.monotonic() >= self._ends_at:
            raise BridgeTimeoutError("the deadline passed", hint="give a larger timeout_s")


@runtime_checkable
class Session(Protocol):
    """A model made ready to run. Owns native resources until close."""

    signature: Signature
    max_concurrency: int  # calls allowed inside run() at once: 1; n for a pool; UNBOUNDED

    @property
    def device(self) -> str:
        """Where it really runs: `cpu`, `cuda:0`, `r`, `jvm`, `grpc://host:port`; a plain attribute will do."""
        ...

    def run(
        self, feeds: Mapping[str, Array], /, *, outputs: Sequence[str] | None = None, deadline: Deadline | None = None
    ) -> dict[str, Array]:
        """Run the model once.

        Parameters
        ----------
        feeds : mapping of str to ndarray
            Arrays that already satisfy `signature.inputs`: C-contiguous, native byte order. Must be neither modified nor kept.
        outputs : sequence of str, optional
            The outputs to compute; all without it.
        deadline : Deadline, optional
            When the call must end.

        Returns
        -------
        dict of str to ndarray
            Fresh arrays, in output order.
        """
        ...

    def close(self) -> None:
        """Free what is owned; harmless when repeated."""
        ...


@runtime_checkable
class Runtime(Protocol):
    """Runs models. `name` is its key and URI scheme; `name+way` reaches load as the keyword `way`."""

    name: ClassVar[str]
    formats: ClassVar[frozenset[str]]
    options: ClassVar[frozenset[str]]  # keys of options[name] it takes; `way` is not one

    def accepts(self, model: object, /) -> bool:
        """Whether `wrap` can run a live object.

        Parameters
        ----------
        model : object
            Anything; must not be called, only looked at.
        """
        ...

    def wrap(self, model: object, /, *, signature: Signature, **options: Any) -> Session:
        """Make a session of a live object.

        Parameters
        ----------
        model : object
            What `accepts` said yes to.
        signature : Signature
            What the session's own signature will be.
        **options
            The caller's `options[name]`; keys outside `options` never arrive.
        """
        ...

    def load(self, source: Artifact | str, /, *, signature: Signature | None = None, device: str = "auto", **options: Any) -> Session:
        """Make a session of a file, or of what follows the scheme of a URI.

        Parameters
        ----------
        source : Artifact or str
            A file of one of `formats`, its trust checked; text for what is no file.
        signature : Signature, optional
            Where the file does not tell.
        device : str, default='auto'
            Hardware: `auto`, `cpu`, `cuda`, `cuda:1`; another than `auto` is a demand.
        **options
            The caller's `options[name]`, and `way` for a URI `name+way:`.
        """
        ...

    def save(self, session: Session, folder: Path, /) -> Implementation:
        """Write the session's model, for a package.

        Parameters
        ----------
        session : Session
            One this runtime made.
        folder : Path
            Where its files go; it may have to be made.

        Raises
        ------
        UnsupportedError
            If the model has no file.
        """
        ...


@runtime_checkable
class Framework(Protocol):
    """All that mlbridge knows about one library's models."""

    name: ClassVar[str]
    formats: ClassVar[frozenset[str]]  # files that `read` turns into an object
    options: ClassVar[frozenset[str]]  # keys of options[name] it takes

    def accepts(self, model: object, /) -> bool:
        """Whether this is one of the library's models; must not import the library.

        Parameters
        ----------
        model : object
            Anything; its class's module tells.
        """
        ...

    def read(self, source: Artifact, /, **options: Any) -> object:
        """Turn a file into an object; `code` formats only after the trust check.

        Parameters
        ----------
        source : Artifact
            A file of one of `formats`.
        **options
            The caller's `options[name]`.
        """
        ...

    def infer(self, model: object, sample: object | None, /, **options: Any) -> Signature:
        """Decide names, dtypes and rules, once.

        Parameters
        ----------
        model : object
            What `accepts` said yes to.
        sample : table, dict of arrays, array or None
            Rows like those the model was trained on.
        **options
            The caller's `options[name]`.
        """
        ...

    def native(self, model: object, /, *, signature: Signature, **options: Any) -> Callable[[Mapping[str, Array]], Mapping[str, Array]]:
        """Return a function from feeds to outputs that asks the library itself.

        Parameters
        ----------
        model : object
            What `accepts` said yes to.
        signature : Signature
            The names it answers under.
        **options
            The caller's `options[name]`.
        """
        ...

    def probe(self, model: object, /, *, signature: Signature, seed: int, **options: Any) -> dict[str, Array]:
        """Make rows that would show a wrong conversion; may be empty.

        Parameters
        ----------
        model : object
            What `accepts` said yes to.
        signature : Signature
            The rows satisfy its inputs.
        seed : int
            Of the choices.
        **options
            The caller's `options[name]`.
        """
        ...

    def convert(self, model: object, folder: Path, /, *, signature: Signature, **options: Any) -> Path:
        """Write an ONNX file that emits exactly the signature's outputs.

        Parameters
        ----------
        model : object
            What `accepts` said yes to.
        folder : Path
            Where the file goes.
        signature : Signature
            What the graph takes and gives.
        **options
            The caller's `options[name]`.

        Raises
        ------
        ConversionError
            If ONNX cannot say what the model does.
        """
        ...


@runtime_checkable
class Placed(Protocol):
    """A session that knows which provider runs which share of its nodes."""

    @property
    def placement(self) -> Mapping[str, float]:
        """Share of nodes per execution provider."""
        ...


@runtime_checkable
class ShowsMissing(Protocol):
    """A session that knows where a missing value shows, so that large inputs need not be searched for one."""

    def shows_missing(self) -> str | None:
        """Return the output in which a NaN anywhere in the only input shows as a NaN; None where there is none."""
        ...


@runtime_checkable
class Prebound(Protocol):
    """A session that lends the arrays a small call reads and writes, so that no others are made between."""

    def lane(
        self, key: Hashable | None, write: Callable[[Any, Sequence[Array]], bool], read: Callable[[Sequence[Array]], Any], /
    ) -> Callable[[Any], Any] | None:
        """Compile a call of what is written and read in place; None where the session binds nothing.

        Parameters
        ----------
        key : hashable, optional
            The size of every call: the shape of the only input, else the number of rows; by default the shape of what is asked.
        write : callable
            ``write(x, inputs)`` writes what is asked into the inputs, in the signature's order, and says whether it could.
        read : callable
            ``read(outputs)`` makes the answer of the outputs, in the signature's order, and keeps none of them.

        Returns
        -------
        callable or None
            ``ask(x)`` answers, or returns None for what must go by `run`: another size, another thread at it, a failure.
        """
        ...


@runtime_checkable
class Tunable(Protocol):
    """A session that can measure plans on a sample and take the best."""

    def tune(self, feeds: Mapping[str, Array], /, *, objective: str, budget_s: float) -> Any:
        """Measure, choose, and return the record of what was tried.

        Parameters
        ----------
        feeds : mapping of str to ndarray
            Rows as `run` takes them.
        objective : {'latency', 'throughput'}
            Shortest call, or most rows a second.
        budget_s : float
            Seconds the measurement may take.
        """
        ...
