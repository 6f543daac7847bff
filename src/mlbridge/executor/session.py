"""OnnxSession: the hot path around one onnxruntime session.

Small calls copy into buffers bound once a shape and copy out again; large ones take onnxruntime's inner run; batches
of independent rows that take long are split over cores. Which file is safe to load is `runtimes/onnx`'s business.
"""

from __future__ import annotations

import os
import threading
import time
import weakref
from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np

from ..errors import BridgeTimeoutError, CancelledError, ClosedError, InferenceError, InputError
from ..interfaces import UNBOUNDED, Array, Deadline
from ..signature import ROWS, Signature
from .alarms import call_at
from .binding import Binder
from .engine import Engine, engine_failures
from .missing import showing_output
from .plans import Plan, Traits
from .splitting import Splitter

__all__ = ["OnnxSession"]

_SUBSETS = 4  # pruned graphs kept a session: each holds its own copy of the weights it needs

_alive: weakref.WeakSet[OnnxSession] = weakref.WeakSet()


class OnnxSession:
    """An ONNX model made ready to run; any number of threads may call `run` at once.

    Parameters
    ----------
    engine : Engine
        Makes the native session, and pruned ones for some outputs only.
    signature : Signature
        Agrees with the graph: names, dtypes, ranks and fixed sizes.
    default_timeout_s : float, optional
        Ends calls that bring no deadline; for graphs that may never end by themselves.

    Attributes
    ----------
    device : str
        Where it really runs, from the assignment record.
    placement : dict
        Share of the nodes each provider runs.
    """

    max_concurrency = UNBOUNDED

    def __init__(self, engine: Engine, signature: Signature, *, default_timeout_s: float | None = None) -> None:
        self._signature = signature
        self.engine = engine
        self.default_timeout_s = default_timeout_s
        self.tuning: Any = None
        self.measured: dict[str, Any] | None = None  # the record of a tuning, this one's or an earlier one's, to keep with the model
        self.traits = Traits(batched=signature.batched)
        self._closed: str | None = None
        self._lock = threading.Lock()
        self._subsets: dict[tuple[str, ...], tuple[Any, bool]] = {}
        self._native = engine.native()
        self._shows: tuple[Any, str | None] = (None, None)  # a native session, and what was found of it
        self.device = engine.device
        self.placement: Mapping[str, float] = engine.placement
        self._names = [s.name for s in signature.outputs]
        self._binder = Binder()
        self._splitter: Splitter | None = None
        self._arrange()
        # The compiled closure shadows the method: one Python frame a call, no attribute look-ups. Callers keep it, so
        # another plan changes what it reads (the binder's pools), never the closure itself.
        self.run = self._compile()  # type: ignore[method-assign]
        _alive.add(self)

    @property
    def plan(self) -> Plan:
        """The plan it runs by."""
        return self.engine.plan

    @property
    def signature(self) -> Signature:
        """Names, dtypes, shapes and rules; another one may rename symbols only."""
        return self._signature

    @signature.setter
    def signature(self, signature: Signature) -> None:
        self._signature = signature
        self._arrange()

    def _arrange(self) -> None:
        plan = self.engine.plan
        self._binder.serve(self._native, self._signature, plan)
        self._splitter = Splitter(plan.chunks) if self._signature.batched and plan.chunks > 1 else None

    def run(
        self, feeds: Mapping[str, Array], /, *, outputs: Sequence[str] | None = None, deadline: Deadline | None = None
    ) -> dict[str, Array]:
        """Run once.

        Parameters
        ----------
        feeds : dict of str to ndarray
            Satisfy the signature; neither kept nor modified.
        outputs : sequence of str, optional
            Compute these only.
        deadline : Deadline, optional
            When to give up.

        Returns
        -------
        dict of str to ndarray
            Fresh arrays in output order.

        Raises
        ------
        InferenceError
            If the model fails.
        BridgeTimeoutError, CancelledError
            If the deadline passed, or was cancelled.
        ClosedError
            After `close`, and in a forked child.
        """
        return self._run_any(feeds, outputs, deadline)  # replaced by _compile

    def _compile(self) -> Any:
        slow, binder = self._run_any, self._binder
        if self.default_timeout_s is None and binder.bindable:
            inputs = [s.name for s in self.signature.inputs]
            return (
                _compile_single(binder, slow, inputs[0], self._names)
                if len(inputs) == 1
                else _compile_blocks(binder, slow, inputs, self._names)
            )
        return lambda feeds, /, *, outputs=None, deadline=None: slow(feeds, outputs, deadline)

    def lane(self, key: Hashable | None, write: Any, read: Any, /) -> Any:
        """Compile a call that writes into bound buffers and reads from them; see `Prebound`."""
        return _compile_lane(self._binder, key, write, read) if self.default_timeout_s is None and self._binder.bindable else None

    # ------------------------------------------------------------ everything but the fast lane

    def _run_any(self, feeds: Mapping[str, Array], outputs: Sequence[str] | None, deadline: Deadline | None) -> dict[str, Array]:
        native = self._native
        if native is None:
            raise self._refusal()
        if deadline is None and self.default_timeout_s is not None:
            deadline = Deadline(self.default_timeout_s)
        names = self._names
        if outputs is not None:
            names = self._order(outputs)
            if len(names) < len(self._names):
                native = self._subset(tuple(names), native)
        feeds = {s.name: feeds[s.name] for s in self.signature.inputs}
        if deadline is not None:
            return _run_until(native, names, feeds, deadline)
        bucket = self.plan.bucket
        if bucket > 1 and self._signature.batched:
            return _padded(lambda f: dict(zip(names, _call(native, names, f, None))), feeds, bucket)
        splitter = self._splitter
        if splitter is None:
            result = dict(zip(names, _call(native, names, feeds, None)))
        else:
            parts = splitter.split(feeds)
            started = time.perf_counter()
            if parts > 1:
                result = splitter.run(lambda part: dict(zip(names, _call(native, names, part, None))), feeds, parts)
            else:
                result = dict(zip(names, _call(native, names, feeds, None)))
            splitter.learn(feeds, time.perf_counter() - started, parts)
            if parts > 1:
                return result
        if names is self._names and (splitter is None or splitter.settled(feeds)):
            self._binder.offer(feeds, result)
        return result

    def _order(self, outputs: Sequence[str]) -> list[str]:
        wanted = [outputs] if isinstance(outputs, str) else list(outputs)
        unknown = [n for n in wanted if n not in self._names]
        if unknown or not wanted:
            problems = [f"there is no output {n!r}" for n in unknown] or ["no output was asked for"]
            raise InputError("; ".join(problems), problems=problems, hint=f"outputs are {', '.join(map(repr, self._names))}")
        return self._names if set(wanted) == set(self._names) else [n for n in self._names if n in wanted]

    def _subset(self, names: tuple[str, ...], native: Any) -> Any:
        # onnxruntime computes every node whatever is fetched, so fewer outputs need a smaller graph.
        with self._lock:
            if names not in self._subsets:
                while len(self._subsets) >= _SUBSETS:
                    self._subsets.pop(next(iter(self._subsets)))
                self._subsets[names] = (self.engine.pruned(names), True)
            pruned = self._subsets[names][0]
        return native if pruned is None else pruned

    def _refusal(self) -> ClosedError:
        if self._closed == "forked":
            return ClosedError(
                "the session belongs to the process this one was forked from",
                hint="load the model in the child, or start children with the method 'spawn' or 'forkserver'",
                runtime="onnx",
            )
        return ClosedError("the session is closed", runtime="onnx")

    # ------------------------------------------------------------ plans, warm-up, end

    def adopt(self, plan: Plan) -> None:
        """Run by another plan from the next call on; calls in flight end on the old one."""
        with self._lock:
            if self._native is None:
                raise self._refusal()
            engine = self.engine.with_plan(plan)
            native = engine.native()
            self.engine, self._native, self._subsets = engine, native, {}
            self.device, self.placement = engine.device, engine.placement
            self._arrange()

    def warm_up(self, rows: Sequence[int] = (1,)) -> None:
        """Run zeros of these batch sizes twice, so that first requests find buffers bound and memory grown."""
        for n in rows:
            feeds = {s.name: _zeros(s, n) for s in self.signature.inputs}
            for _ in range(2):
                try:
                    self.run(feeds)
                except (InferenceError, BridgeTimeoutError):
                    return  # zeros may be outside what a model accepts; warming is only a favour

    def shows_missing(self) -> str | None:
        """Return the output in which a NaN anywhere in the input shows, proved once a plan; None where there is none."""
        native = self._native
        if native is not None and self._shows[0] is not native:
            try:
                found = showing_output(native, self.engine.model, self._signature)
            except engine_failures():
                found = None
            self._shows = (native, found)
        return self._shows[1]

    def tune(self, feeds: Mapping[str, Array], /, *, objective: str = "latency", budget_s: float = 1.0, progress: Any = None) -> Any:
        """Measure plans on a sample, adopt the best, and return the record of what was tried."""
        from .probing import tune

        return tune(self, feeds, objective=objective, budget_s=budget_s, progress=progress)

    def close(self) -> None:
        """Free the native session once calls in flight have ended; harmless when repeated."""
        with self._lock:
            self._closed = self._closed or "closed"
            self._native = None
            self._subsets, self._shows = {}, (None, None)
            self._binder.close()
            self.engine.close()

    def _forked(self) -> None:
        self._lock = threading.Lock()
        self._closed = self._closed or "forked"
        self._binder.abandon()
        self._native, self._subsets, self._shows = None, {}, (None, None)

    def describe(self) -> dict[str, Any]:
        """Return what `Model.describe` shows of it: the plan, and the last tuning with every candidate."""
        shown: dict[str, Any] = {"plan": f"{self.plan}{f' ({self.plan.why})' if self.plan.why else ''}"}
        return shown if self.tuning is None else shown | {"tuned": self.tuning}

    def __repr__(self) -> str:
        return f"OnnxSession({self.signature}; device={self.device!r})"


def _compile_single(binder: Binder, slow: Any, name: str, names: list[str]) -> Any:
    pools, direct, failures = binder.pools, binder.direct, engine_failures()
    count, first, second = len(names), names[0], names[-1]

    def run(feeds: Mapping[str, Array], /, *, outputs: Sequence[str] | None = None, deadline: Deadline | None = None) -> dict[str, Array]:
        if outputs is None and deadline is None:
            x = feeds[name]
            shape = x.shape
            pool = pools.get(shape)
            if pool:
                try:
                    binding = pool.pop()
                except IndexError:  # another thread was faster
                    return slow(feeds, None, None)
                call, io, (buffer,), results = binding
                buffer[...] = x
                try:
                    call(io, None)
                except failures:
                    binder.drop(shape)  # the inner run decides: a failing model, or sizes that depend on values
                    return slow(feeds, None, None)
                if count == 1:
                    answer = {first: results[0].copy()}
                elif count == 2:
                    answer = {first: results[0].copy(), second: results[1].copy()}
                else:
                    answer = {n: r.copy() for n, r in zip(names, results)}
                pool.append(binding)
                return answer
            call = direct.get(shape)
            if call is not None and len(feeds) == 1:
                try:
                    results = call(names, feeds, None)
                except failures:
                    return slow(feeds, None, None)
                return {first: results[0], second: results[1]} if count == 2 else dict(zip(names, results))
        return slow(feeds, outputs, deadline)

    return run


def _compile_blocks(binder: Binder, slow: Any, inputs: list[str], names: list[str]) -> Any:
    pools, direct, failures = binder.pools, binder.direct, engine_failures()
    key, width = inputs[0], len(inputs)

    def run(feeds: Mapping[str, Array], /, *, outputs: Sequence[str] | None = None, deadline: Deadline | None = None) -> dict[str, Array]:
        if outputs is None and deadline is None:
            rows = feeds[key].shape[0]
            pool = pools.get(rows)
            if pool:
                try:
                    binding = pool.pop()
                except IndexError:
                    return slow(feeds, None, None)
                call, io, buffers, results = binding
                for name, buffer in zip(inputs, buffers):
                    buffer[...] = feeds[name]
                try:
                    call(io, None)
                except failures:
                    binder.drop(rows)
                    return slow(feeds, None, None)
                answer = {n: r.copy() for n, r in zip(names, results)}
                pool.append(binding)
                return answer
            call = direct.get(rows)
            if call is not None and len(feeds) == width:
                try:
                    return dict(zip(names, call(names, feeds, None)))
                except failures:
                    return slow(feeds, None, None)
        return slow(feeds, outputs, deadline)

    return run


def _compile_lane(binder: Binder, key: Hashable | None, write: Any, read: Any) -> Any:
    pools, failures = binder.pools, engine_failures()

    def ask(x: Any) -> Any:
        pool = pools.get(key or x.shape)
        if not pool:
            return None
        try:
            binding = pool.pop()
        except IndexError:  # another thread was faster
            return None
        call, io, buffers, results = binding
        answer = None
        if write(x, buffers):
            try:
                call(io, None)
            except failures:
                binder.drop(key or x.shape)
                return None
            answer = read(results)
        pool.append(binding)
        return answer

    return ask


def _call(native: Any, names: list[str], feeds: dict[str, Array], options: Any) -> list[Array]:
    try:
        return native.run(names, feeds, options)
    except engine_failures() as exc:
        raise InferenceError(f"onnxruntime failed: {_first_line(exc)}", runtime="onnx") from exc


def _run_until(native: Any, names: list[str], feeds: dict[str, Array], deadline: Deadline) -> dict[str, Array]:
    import onnxruntime

    deadline.check()
    options = onnxruntime.RunOptions()

    def end() -> None:
        options.terminate = True

    left = deadline.remaining_s()
    forget = deadline.on_cancel(end)
    disarm = None if left is None else call_at(time.monotonic() + left, end)
    try:
        answers = _call(native, names, feeds, options)
        deadline.check()
    except (InferenceError, BridgeTimeoutError, CancelledError) as exc:
        if deadline.cancelled:
            raise CancelledError("the call was cancelled", runtime="onnx") from exc
        left = deadline.remaining_s()
        if left is not None and left <= 0:
            raise BridgeTimeoutError("the deadline passed; the run was ended", hint="give a larger timeout_s", runtime="onnx") from exc
        raise
    finally:
        forget()
        if disarm is not None:
            disarm()
    return dict(zip(names, answers))


def _padded(call: Any, feeds: dict[str, Array], bucket: int) -> dict[str, Array]:
    """Repeat the last row up to the next bucket, so that a device meets few shapes, and cut the answer."""
    rows = next(iter(feeds.values())).shape[0]
    extra = -rows % bucket
    if not extra:
        return call(feeds)
    padded = {n: np.concatenate([a, np.repeat(a[-1:], extra, axis=0)]) for n, a in feeds.items()}
    return {n: a[:rows].copy() for n, a in call(padded).items()}


def _zeros(spec: Any, rows: int) -> Array:
    shape = tuple(d if isinstance(d, int) else rows if d == ROWS or i == 0 else 1 for i, d in enumerate(spec.shape))
    return np.full(shape, "", dtype=object) if spec.dtype == "string" else np.zeros(shape, dtype=spec.dtype)


def _first_line(exc: BaseException) -> str:
    text = str(exc).strip()
    return text.splitlines()[0][:500] if text else type(exc).__name__


def _after_fork() -> None:
    for session in list(_alive):
        session._forked()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
