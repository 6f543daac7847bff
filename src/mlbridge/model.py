"""Model: what a user holds. It is handed a session and knows neither plug-ins nor conversion.

Here: predict and run with their checks, concurrency, deadlines, describing, closing. What of it a package holds is
`saving`'s. Made by `_api` and by `pipeline/`.
"""

from __future__ import annotations

import os
import threading
import warnings
import weakref
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from .chunks import chunk_rows, run_in_chunks
from .description import Description, Route
from .errors import BridgeTimeoutError, CancelledError, ClosedError, InferenceError, MlbridgeError, UnsupportedError
from .interfaces import UNBOUNDED, Array, Deadline, Placed, Prebound, Runtime, Session, ShowsMissing, Tunable
from .package import write_package
from .saving import Parts, card, kept_samples, write_implementations
from .signature import Signature
from .tensors import Coercion, batch_rows
from .tensors.compiled import holds_nan

__all__ = ["Description", "Model", "Route"]

_LIVE: weakref.WeakSet[Model] = weakref.WeakSet()
_PARITY = {"onnx": "not verified", "pipeline": "not verified", "grpc": "not known here: another process serves it"}


class Model:
    """A model ready to use: predict, run, check, save, describe, tune, close.

    Made by `mlbridge.wrap`, `mlbridge.load` and `mlbridge.convert`; by hand only over a session of one's own. Threads may
    share it.

    Parameters
    ----------
    session : Session
        What runs the model; closed with it.
    runtime : Runtime, optional
        The runtime that made the session; needed to save it.
    route : Route, optional
        The implementation chosen, and why.
    report : Report, optional
        The verification, where one was made.
    samples : tuple of two dicts, optional
        Golden inputs and outputs, as `run` speaks them.
    name : str, default='model'
        For messages and for packages.
    native : callable, optional
        Opens the source's own runtime, to save it beside a conversion.
    reload : tuple, optional
        What unpickles the model in another process.
    provenance : mapping, optional
        For the manifest: the framework and the versions the model came from.
    requires : mapping, optional
        For the manifest: packages a native implementation needs.

    Attributes
    ----------
    signature : Signature
        Names, dtypes, shapes and rules of inputs and outputs.
    report : Report or None
        The verification, where one was made.
    samples : tuple of two dicts, or None
        Golden inputs and outputs, as `run` speaks them.
    run_checked : callable
        ``run_checked(feeds, outputs=None, deadline=None)``: `Session.run` within `max_concurrency`, for servers and
        pipelines, whose feeds satisfy the signature already.

    Examples
    --------
    >>> import mlbridge as mb
    >>> with mb.wrap(fitted, sample=X) as model:  # doctest: +SKIP
    ...     model.predict(X)["label"]
    """

    def __init__(
        self,
        session: Session,
        *,
        runtime: Runtime | None = None,
        route: Route | None = None,
        report: Any = None,
        samples: tuple[dict[str, Array], dict[str, Array]] | None = None,
        name: str = "model",
        native: Callable[[], tuple[Runtime, Session]] | None = None,
        reload: tuple | None = None,
        provenance: Mapping[str, Any] | None = None,
        requires: Mapping[str, str] | None = None,
    ) -> None:
        self.signature: Signature = session.signature
        self.name = name
        self.report = report
        self.samples = samples
        self.route = route or Route(getattr(runtime, "name", "custom"), "a session was given")
        self._session, self._runtime, self._native, self._reload = session, runtime, native, reload
        self._provenance, self._requires = dict(provenance or {}), dict(requires or {})
        self._coercion = Coercion(self.signature, session.shows_missing if isinstance(session, ShowsMissing) else None)
        self._exact, self._record, self._one_row = self._coercion.exact, self._coercion.record, self._coercion.one_row
        self._decoders = tuple(self._coercion.decoders.items())
        self._chunk = chunk_rows(self.signature)
        limit = session.max_concurrency
        self._slots = None if limit >= UNBOUNDED else threading.BoundedSemaphore(limit)
        self.run_checked = session.run if self._slots is None else self._run_in_slot
        self._lanes: dict[type, Callable[[Any], Any]] = {}
        if self._slots is None and isinstance(session, Prebound):
            made = {kind: session.lane(*how) for kind, how in self._coercion.lanes().items()}
            self._lanes = {kind: ask for kind, ask in made.items() if ask is not None}
        self._closed = False
        _LIVE.add(self)

    # -------------------------------------------------- asking

    def predict(self, x: Any, *, outputs: str | Sequence[str] | None = None, timeout_s: float | None = None) -> Any:
        """Answer for user values; categories go in and come out as their values.

        Large tables of independent rows run in bounded chunks, in order, with a progress bar where it takes long.

        Parameters
        ----------
        x : table, dict of arrays, dict of scalars, list of dicts, or array
            A table may hold extra columns, a dict may not; order never matters.
        outputs : str or sequence of str, optional
            One name returns that array alone; several return a subset.
        timeout_s : float, optional
            Seconds until the call ends with BridgeTimeoutError.

        Returns
        -------
        table, dict or array
            The same kind of table for a table; scalars for one record; else a dict of arrays by output name.

        Raises
        ------
        InputError
            If `x` does not fit; `.problems` lists everything.
        InferenceError
            If the model fails.
        """
        if outputs is None and timeout_s is None:
            ask = self._lanes.get(type(x))
            if ask is not None:
                answer = ask(x)
                if answer is not None:
                    return answer
            feeds: dict[str, Any] | None = None
            fits: bool | str = False
            if self._exact is not None:
                name, test = self._exact
                fits = test(x)
                if fits:
                    feeds = {name: x}
            if feeds is None and type(x) is dict and self._record is not None:
                feeds = self._record(x)
            if feeds is not None:
                try:
                    results = self.run_checked(feeds)
                except MlbridgeError:
                    raise
                except Exception as exc:
                    raise self._failure(exc) from exc
                if not fits:
                    return self._one_row(results)
                if fits is True or not holds_nan(results[fits]) or not holds_nan(x):  # the long way names the NaN
                    for output, decode in self._decoders:
                        results[output] = decode(results[output])
                    return results
        names = self._coercion.select(outputs)
        feeds, opened = self._coercion.feeds(x)
        return self._coercion.answer(self._ask(feeds, names, timeout_s), opened, outputs)

    def run(self, feeds: Mapping[str, Any], *, outputs: str | Sequence[str] | None = None, timeout_s: float | None = None) -> Any:
        """Answer for arrays by input name; categories are int32 codes in and out.

        Parameters
        ----------
        feeds : dict of str to array_like
            Exactly the signature's inputs.
        outputs : str or sequence of str, optional
            As for `predict`.
        timeout_s : float, optional
            As for `predict`.

        Returns
        -------
        dict of str to ndarray, or ndarray
            The outputs in the signature's order; one array where `outputs` is one name.

        Raises
        ------
        InputError
            If an array is absent, unknown, or does not satisfy its spec; `.problems` lists everything.
        InferenceError
            If the model fails.
        """
        names = self._coercion.select(outputs)
        results = self._ask(self._coercion.run_feeds(feeds), names, timeout_s)
        return results[outputs] if isinstance(outputs, str) else results

    async def predict_async(self, x: Any, *, outputs: str | Sequence[str] | None = None, timeout_s: float | None = None) -> Any:
        """Await the answer of `predict`; cancelling the task cancels the call.

        Parameters
        ----------
        x : table, dict of arrays, dict of scalars, list of dicts, or array
            As for `predict`.
        outputs : str or sequence of str, optional
            As for `predict`.
        timeout_s : float, optional
            As for `predict`.

        Returns
        -------
        table, dict or array
            As for `predict`.
        """
        import asyncio  # who awaits has it already; it costs a fifth of `import mlbridge`

        names = self._coercion.select(outputs)
        feeds, opened = self._coercion.feeds(x)
        deadline = Deadline(timeout_s)
        task = asyncio.get_running_loop().run_in_executor(None, self._ask, feeds, names, deadline)
        try:
            results = await asyncio.shield(task)
        except asyncio.CancelledError:
            deadline.cancel()
            task.add_done_callback(lambda t: t.cancelled() or t.exception())  # its error has nobody to go to
            raise
        return self._coercion.answer(results, opened, outputs)

    def check(self, x: Any) -> list[str]:
        """List the problems `predict` would raise, without running the model.

        Parameters
        ----------
        x : table, dict of arrays, dict of scalars, list of dicts, or array
            As for `predict`.

        Returns
        -------
        list of str
            One sentence a problem; empty if `x` fits.
        """
        return self._coercion.check(x)

    def _ask(self, feeds: dict[str, Array], names: list[str] | None, timeout: float | Deadline | None) -> dict[str, Array]:
        if self._closed:
            raise ClosedError(f"{self.name}: the model is closed")
        nothing = self._coercion.empty(feeds, names)
        if nothing is not None:
            return nothing
        deadline = timeout if timeout is None or isinstance(timeout, Deadline) else Deadline(timeout)
        if deadline is not None:
            deadline.check()
        try:
            if self._chunk and next(iter(feeds.values())).shape[0] > self._chunk:
                return run_in_chunks(lambda part: self.run_checked(part, outputs=names, deadline=deadline), feeds, self._chunk, self.name)
            return self.run_checked(feeds, outputs=names, deadline=deadline)
        except MlbridgeError:
            raise
        except Exception as exc:
            raise self._failure(exc) from exc

    def _failure(self, exc: Exception) -> InferenceError:
        return InferenceError(f"{self.name}: the model failed: {type(exc).__name__}: {exc}", runtime=self.route.runtime)

    def _run_in_slot(
        self, feeds: Mapping[str, Array], /, *, outputs: Sequence[str] | None = None, deadline: Deadline | None = None
    ) -> dict[str, Array]:
        slots = self._slots
        assert slots is not None
        if deadline is None:
            with slots:
                return self._session.run(feeds, outputs=outputs)
        while not slots.acquire(timeout=min(max(deadline.remaining_s() or 0.05, 0.0), 0.05)):
            if deadline.cancelled:
                raise CancelledError("the call was cancelled while it waited")
            left = deadline.remaining_s()
            if left is not None and left <= 0:
                raise BridgeTimeoutError(
                    "the deadline passed while the call waited for the model", hint="raise max concurrency or timeout_s"
                )
        try:
            return self._session.run(feeds, outputs=outputs, deadline=deadline)
        finally:
            slots.release()

    # -------------------------------------------------- what it is

    @property
    def device(self) -> str:
        """Where it really runs: `cpu`, `cuda:0`, `r`, `jvm`, `grpc://host:port`."""
        return self._session.device

    @property
    def placement(self) -> Mapping[str, float]:
        """Share of nodes per execution provider; empty where the runtime has none."""
        return self._session.placement if isinstance(self._session, Placed) else {}

    def describe(self) -> Description:
        """Say what the model is and how it runs.

        Returns
        -------
        Description
            Signature, route and why, device, trust and parity, to print or to show in a notebook.
        """
        parity = str(self.report) if self.report is not None else _PARITY.get(self.route.runtime, "the native model itself")
        extra = self._session.describe() if hasattr(self._session, "describe") else {}
        return Description(self.name, self.signature, self.route, self.device, parity, self.placement, extra)

    def __repr__(self) -> str:
        state = " (closed)" if self._closed else ""
        return f"<Model {self.name!r}{state}: {self.signature} | {self.route.runtime} on {self.device}>"

    def _repr_html_(self) -> str:
        return self.describe()._repr_html_()

    def tune(self, sample: Any, *, objective: str = "latency", budget_s: float = 1.0) -> Any:
        """Measure ways to run the model on a sample and take the best.

        Parameters
        ----------
        sample : table, dict of arrays, or array
            Rows like those to come; their number is the batch the plan is for.
        objective : {'latency', 'throughput'}
            Shortest call, or most rows a second.
        budget_s : float, default=1.0
            Seconds the measurement may take.

        Returns
        -------
        Tuning
            Every candidate, its times, what was dropped and why; prints, and draws a chart in notebooks.

        Raises
        ------
        UnsupportedError
            If the runtime has nothing to tune.
        """
        if not isinstance(self._session, Tunable):
            raise UnsupportedError(f"{self.name}: the runtime {self.route.runtime!r} has nothing to tune")
        feeds, _ = self._coercion.feeds(sample)
        return self._session.tune(feeds, objective=objective, budget_s=budget_s)

    # -------------------------------------------------- keeping and ending

    def save(
        self,
        path: str | os.PathLike,
        *,
        native: bool | str = "auto",
        samples: int = 64,
        form: str = "file",
        overwrite: bool = False,
        version: str = "1",
        description: str = "",
    ) -> int:
        """Write a `.mlb` package.

        Parameters
        ----------
        path : path
            The file or folder to make; its stem is the package's name.
        native : {'auto', True, False}
            Whether to keep the native implementation; `auto` keeps it only where no verified ONNX exists.
        samples : int, default=64
            Golden rows to keep, real rows of the sample; 0 writes none.
        form : {'file', 'folder'}
            One zip, or the same tree as a folder.
        overwrite : bool
            Whether an existing package may be replaced.
        version, description : str
            For the manifest.

        Returns
        -------
        int
            How many golden rows were written.

        Raises
        ------
        InputError
            If the path exists.
        UnsupportedError
            If neither implementation can be saved.
        ArtifactError
            If it cannot be written; an old package is intact.
        """
        kept = kept_samples(self.samples, self.signature, samples)
        parts = Parts(self.name, self._session, self._runtime, self._native, self.route, self.report, self._requires)
        write_package(
            path,
            name=Path(path).stem,
            version=version,
            description=description,
            signature=self.signature,
            write_implementations=lambda tree: write_implementations(parts, tree, native),
            samples=kept,
            report=self.report.to_dict() if self.report is not None else None,
            provenance=self._provenance | {"framework": self.route.framework, "route": self.route.why},
            card=card(self.describe(), Path(path).stem, description),
            form=form,
            overwrite=overwrite,
        )
        return 0 if kept is None else batch_rows(kept[0], self.signature) or 1

    def close(self) -> None:
        """Free what the model owns; harmless when repeated."""
        if not self._closed:
            self._closed = True
            self._exact, self._lanes = None, {}
            self._session.close()

    def __enter__(self) -> Model:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def __del__(self) -> None:
        if not getattr(self, "_closed", True):
            warnings.warn(f"unclosed {self!r}", ResourceWarning, stacklevel=2, source=self)
            self.close()

    def __reduce__(self) -> tuple:
        if self._reload is None:
            raise TypeError(f"{self.name}: only a model loaded from a path pickles, as its path and hash; save it and load it first")
        return self._reload


class _Forked:
    """Stands in for a session in a forked child: its native resources belong to the parent."""

    device, max_concurrency = "none", UNBOUNDED

    def __init__(self, signature: Signature) -> None:
        self.signature = signature

    def run(self, feeds: Mapping[str, np.ndarray], /, *, outputs: Any = None, deadline: Any = None) -> dict[str, np.ndarray]:
        raise ClosedError(
            "the model belongs to the process this one was forked from", hint="load it again after the fork, or start processes by spawn"
        )

    def close(self) -> None:
        """Nothing is owned here."""


def _after_fork() -> None:
    for model in list(_LIVE):
        model._session = _Forked(model.signature)
        model._slots, model.run_checked = None, model._session.run


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
