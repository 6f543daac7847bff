"""Running a plan: stages in order or side by side, one deadline, arrays freed after their last reader."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from ..errors import ClosedError, InferenceError, MlbridgeError
from ..interfaces import UNBOUNDED, Array, Deadline
from ..model import Model
from .build import Feed, Plan
from .drawing import Drawing
from .graph import Endpoint
from .steps import Step

if TYPE_CHECKING:
    from concurrent.futures import ThreadPoolExecutor

__all__ = ["PipelineSession"]

_WORTH_A_THREAD_S = 300e-6  # below this a hand-over between threads costs more than it saves
_MAX_PARALLEL = 8


class _Step(NamedTuple):
    """One stage of a program."""

    stage: str
    model: Model
    feeds: tuple[tuple[str, tuple, tuple[Step, ...], Feed | None], ...]  # input, array, conversions; or a feed of several
    asked: list[str] | None  # only these outputs
    places: Mapping[str, tuple]  # output -> key of its array
    free: tuple[tuple, ...]  # arrays nobody reads afterwards
    foreign: bool  # its answers' shapes are checked: the next stage would blame itself


class _Program(NamedTuple):
    """What certain outputs of a pipeline need, and where they are found: output, array, column."""

    steps: tuple[_Step, ...]
    answers: tuple[tuple[str, tuple, int | None], ...]


class PipelineSession:
    """A session that runs other models.

    Parameters
    ----------
    plan : Plan
        Checked.
    stages : mapping of str to Model
        By name.
    owned : sequence of Model
        Those this session loaded and closes.
    references : mapping, optional
        Stages a package refers to by hash when this is saved: path and sha256.
    """

    max_concurrency = UNBOUNDED  # each stage's Model guards its own session

    def __init__(
        self,
        plan: Plan,
        stages: Mapping[str, Model],
        owned: Sequence[Model] = (),
        *,
        references: Mapping[str, dict[str, str]] | None = None,
    ) -> None:
        self.plan, self.stages, self.signature = plan, dict(stages), plan.signature
        self.references = dict(references or {})
        self._owned, self._closed = list(owned), False
        self._seconds: dict[str, float] = dict.fromkeys(plan.order, 0.0)
        self._pool: ThreadPoolExecutor | None = None
        self._lock = threading.Lock()
        self._needs = {s: {e.producer.stage for f in plan.feeds[s] for e in f.edges if e.producer.stage is not None} for s in plan.order}
        self._names = tuple(o.name for o in plan.signature.outputs)
        self._programs: dict[tuple[str, ...], _Program] = {}
        self._direct = _direct(plan, stages)
        self._chain = all(len(self._needs[s]) <= 1 for s in plan.order) and all(len(plan.readers(s)) <= 1 for s in plan.order)
        if self._direct is not None and self._direct in self._owned:  # its own closing closes this one too
            self.run = self._direct.run_checked  # type: ignore[method-assign]
        self._line = _line(self._compile(self._names).steps, plan) if self._chain else None

    @property
    def device(self) -> str:
        """Where its stages run."""
        devices = list(dict.fromkeys(m.device for m in self.stages.values()))
        return devices[0] if len(devices) == 1 else "+".join(devices)

    def run(
        self, feeds: Mapping[str, Array], /, *, outputs: Sequence[str] | None = None, deadline: Deadline | None = None
    ) -> dict[str, Array]:
        """Run the stages that the asked outputs need."""
        if not self._closed:
            if self._direct is not None:
                return self._direct.run_checked(feeds, outputs=outputs, deadline=deadline)
            if self._line is not None and outputs is None and deadline is None:
                return self._line(feeds)
        return self.traced(feeds, outputs, deadline, None)

    def traced(
        self, feeds: Mapping[str, Array], outputs: Sequence[str] | None, deadline: Deadline | None, record: list | None
    ) -> dict[str, Array]:
        """As `run`; append (stage, seconds, outputs) to `record`."""
        if self._closed:
            raise ClosedError("the pipeline is closed")
        names = self._names if outputs is None else tuple(outputs)
        program = self._programs.get(names) or self._compile(names)
        arrays: dict[tuple, Array] = {(None, k): v for k, v in feeds.items()}
        if not self._chain and sum(s > _WORTH_A_THREAD_S for s in self._seconds.values()) > 1:
            self._run_parallel(program, arrays, deadline, record)
        elif self._chain and record is None:
            _run_line(program.steps, arrays, deadline)
        else:
            for step in program.steps:
                self._run_stage(step, arrays, deadline, record)
                for key in step.free:
                    del arrays[key]
        return {name: arrays[key] if column is None else _picked(arrays[key], column) for name, key, column in program.answers}

    def _compile(self, names: tuple[str, ...]) -> _Program:
        """Work out once what these outputs need: all that a call can do without looking at the plan."""
        ends = {n: self.plan.outputs[n] for n in names}
        kept = {(e.stage, e.tensor) for e in ends.values()}
        wanted: dict[str, set[str]] = {}
        for stage, tensor in kept:
            wanted.setdefault(stage, set()).add(tensor)  # type: ignore[arg-type]
        for stage in reversed(self.plan.order):
            if stage in wanted:
                for feed in self.plan.feeds[stage]:
                    for e in feed.edges:
                        if e.producer.stage is not None:
                            wanted.setdefault(e.producer.stage, set()).add(e.producer.tensor)
        used = [s for s in self.plan.order if s in wanted]
        last = {key: s for s in used for key in self._reads(s)}
        steps = []
        for stage in used:
            model = self.stages[stage]
            every = [o.name for o in model.signature.outputs]
            some = [n for n in every if n in wanted[stage]]
            free = tuple(k for k, s in last.items() if s == stage and k not in kept)
            feeds = tuple(_compiled_feed(f) for f in self.plan.feeds[stage])
            places = {n: (stage, n) for n in every}
            foreign = model.route.runtime not in ("onnx", "pipeline")
            steps.append(_Step(stage, model, feeds, None if some == every else some, places, free, foreign))
        answers = tuple((n, (e.stage, e.tensor), self._column(e)) for n, e in ends.items())
        program = self._programs[names] = _Program(tuple(steps), answers)
        return program

    def _reads(self, stage: str) -> set[tuple]:
        return {(e.producer.stage, e.producer.tensor) for f in self.plan.feeds[stage] for e in f.edges}

    def _column(self, end: Endpoint) -> int | None:
        if end.column is None:
            return None
        spec = self.stages[end.stage].signature.output(end.tensor)  # type: ignore[index]
        return [c.name for c in spec.columns].index(end.column)

    def _run_stage(self, step: _Step, arrays: dict[tuple, Array], deadline: Deadline | None, record: list | None) -> None:
        """Run one stage and learn what it takes, which decides whether threads pay."""
        began = time.perf_counter()
        try:
            results = _ask(step, arrays, deadline)
        except MlbridgeError as exc:
            _name(step, exc)
            raise
        except Exception as exc:
            raise _failure(step, exc) from exc
        seconds = time.perf_counter() - began
        self._seconds[step.stage] += 0.2 * (seconds - self._seconds[step.stage])
        if record is not None:
            record.append((step.stage, seconds, dict(results)))

    def _run_parallel(self, program: _Program, arrays: dict[tuple, Array], deadline: Deadline | None, record: list | None) -> None:
        """Run each stage as soon as its producers are done; `arrays` ends with what is answered alone."""
        from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait

        with self._lock:
            if self._pool is None:
                self._pool = ThreadPoolExecutor(_MAX_PARALLEL, thread_name_prefix="mlbridge-stage")
        shared = Deadline(None if deadline is None else deadline.remaining_s())  # ours to cancel; the caller's stays the caller's
        forget = (lambda: None) if deadline is None else deadline.on_cancel(shared.cancel)
        steps, kept = {step.stage: step for step in program.steps}, {key for _, key, _ in program.answers}
        waiting = {s: {n for n in self._needs[s] if n in steps} for s in steps}
        reads = {s: self._reads(s) for s in steps}
        running: dict[Future, str] = {}
        failure: BaseException | None = None
        try:
            while waiting or running:
                for stage in [s for s, needs in waiting.items() if not needs and failure is None]:
                    del waiting[stage]
                    running[self._pool.submit(self._run_stage, steps[stage], arrays, shared, record)] = stage
                if not running:
                    break
                done, _ = wait(running, return_when=FIRST_COMPLETED)
                for future in done:
                    stage = running.pop(future)
                    error = future.exception()
                    if error is not None and failure is None:
                        failure = error
                        shared.cancel()  # the others' answers are of no use any more
                    for needs in waiting.values():
                        needs.discard(stage)
                    wanted = set().union(kept, *(reads[s] for s in (*waiting, *running.values())))
                    for key in reads.pop(stage) - wanted:
                        arrays.pop(key, None)
        finally:
            forget()
        if failure is not None:
            raise failure

    def describe(self) -> dict[str, Any]:
        """Return the lines of `Model.describe` that only a pipeline has: its graph, its stages, what was inserted."""
        shown: dict[str, Any] = {"graph": Drawing(self)}
        for name, m in self.stages.items():
            made = f"{m.name} ({m.route.framework})" if m.route.framework else m.name
            shown[f"stage {name}"] = f"{made}: {m.route.runtime} on {m.device} — {m.route.why}"
        inserted = [str(e) for e in self.plan.edges if e.steps]
        return shown | ({"inserted": "; ".join(inserted)} if inserted else {})

    def close(self) -> None:
        """Close what the pipeline loaded itself."""
        if not self._closed:
            self._closed = True
            if self._pool is not None:
                self._pool.shutdown(wait=True)
            for model in self._owned:
                model.close()


def _direct(plan: Plan, stages: Mapping[str, Model]) -> Model | None:
    """Return the only stage where the pipeline is that stage under its own names: a fully fused one."""
    if len(plan.order) != 1:
        return None
    name = plan.order[0]
    straight = all(not f.places and not f.edges[0].steps and f.edges[0].producer.tensor == f.spec.name for f in plan.feeds[name])
    same = [*plan.outputs] == [o.name for o in stages[name].signature.outputs] and all(e.tensor == n for n, e in plan.outputs.items())
    return stages[name] if straight and same else None


def _line(steps: tuple[_Step, ...], plan: Plan) -> Callable[[Mapping[str, Array]], dict[str, Array]] | None:
    """Compile a line of ONNX stages, one array from each to the next, to a loop with nothing else in it."""
    links: list[tuple] = []
    before: str | None = None
    for step in steps:
        name, key, converts, packed = step.feeds[0]
        if len(step.feeds) > 1 or packed is not None or key[0] != before or step.foreign or step.asked is not None:
            return None
        links.append((step, step.model, name, converts, key[1]))
        before = step.stage
    answers = [(n, e.tensor) for n, e in plan.outputs.items()]
    if any(e.stage != before or e.column is not None for e in plan.outputs.values()):
        return None

    def line(feeds: Mapping[str, Array]) -> dict[str, Array]:
        results, at = feeds, steps[0]
        try:
            for at, model, name, converts, tensor in links:  # noqa: B007 - who failed
                value = results[tensor]
                for convert in converts:
                    value = convert(value)
                results = model.run_checked({name: value})
        except MlbridgeError as exc:
            _name(at, exc)
            raise
        except Exception as exc:
            raise _failure(at, exc) from exc
        return {name: results[tensor] for name, tensor in answers}

    return line


def _run_line(steps: tuple[_Step, ...], arrays: dict[tuple, Array], deadline: Deadline | None) -> None:
    """Run stages of which at most one is ready at a time, with nothing around them: small models take microseconds."""
    step = steps[0]
    try:
        for step in steps:
            _ask(step, arrays, deadline)
            for key in step.free:
                del arrays[key]
    except MlbridgeError as exc:
        _name(step, exc)
        raise
    except Exception as exc:
        raise _failure(step, exc) from exc


def _ask(step: _Step, arrays: dict[tuple, Array], deadline: Deadline | None) -> dict[str, Array]:
    """Make a stage's inputs, run it, and put its answers among the arrays."""
    _, model, feeds, asked, places, _, foreign = step
    if deadline is not None:
        deadline.check()
    given = {}
    for name, key, steps, packed in feeds:
        if packed is not None:
            given[name] = _packed(packed, arrays)
            continue
        value = arrays[key]
        for convert in steps:
            value = convert(value)
        given[name] = value
    results = model.run_checked(given, outputs=asked, deadline=deadline)
    if foreign:
        _check_shapes(model, results, given)
    for name, value in results.items():
        arrays[places[name]] = value
    return results


def _name(step: _Step, exc: MlbridgeError) -> None:
    """Put the stage's name before the message; an inner pipeline's stage keeps the blame."""
    if exc.args and not getattr(exc, "stage", None):
        exc.args = (f"stage {step.stage!r}: {exc.message}", *exc.args[1:])
        exc.stage = step.stage  # type: ignore[attr-defined]


def _failure(step: _Step, exc: Exception) -> InferenceError:
    return InferenceError(f"stage {step.stage!r}: the model failed: {type(exc).__name__}: {exc}", runtime=step.model.route.runtime)


def _compiled_feed(feed: Feed) -> tuple[str, tuple, tuple[Step, ...], Feed | None]:
    first = feed.edges[0].producer
    return feed.spec.name, (first.stage, first.tensor), feed.edges[0].steps, feed if feed.places else None


def _picked(value: Array, column: int) -> Array:
    return np.ascontiguousarray(value[:, column : column + 1]) if value.ndim == 2 else value


def _packed(feed: Feed, arrays: Mapping[tuple, Array]) -> Array:
    parts = [np.asarray(e(arrays[(e.producer.stage, e.producer.tensor)])) for e in feed.edges]
    out = np.empty((parts[0].shape[0], len(feed.spec.columns)), object if feed.spec.dtype == "string" else feed.spec.dtype)
    for part, places in zip(parts, feed.places):
        out[:, list(places)] = part.reshape(part.shape[0], len(places))
    return out


def _check_shapes(model: Model, results: Mapping[str, Array], given: Mapping[str, Array]) -> None:
    """A foreign stage's answer must have the shape it declared; the next stage would blame itself."""
    for spec in model.signature.outputs:
        value = results.get(spec.name)
        if value is None:
            continue
        fits = value.ndim == len(spec.shape) and all(not isinstance(d, int) or d == s for d, s in zip(spec.shape, value.shape))
        if fits and spec.batched and model.signature.batched:
            fits = value.shape[0] == next(iter(given.values())).shape[0]
        if not fits:
            raise InferenceError(f"output {spec.name!r} has shape {value.shape}, declared {spec}", runtime=model.route.runtime)
