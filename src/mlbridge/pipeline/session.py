"""Running a plan: stages in order or side by side, one deadline, arrays freed after their last reader."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from typing import Any

import numpy as np

from ..errors import ClosedError, InferenceError, MlbridgeError
from ..interfaces import UNBOUNDED, Array, Deadline
from ..model import Model
from .build import Feed, Plan

__all__ = ["PipelineSession"]

_WORTH_A_THREAD_S = 300e-6  # below this a hand-over between threads costs more than it saves
_MAX_PARALLEL = 8


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
    """

    max_concurrency = UNBOUNDED  # each stage's Model guards its own session

    def __init__(self, plan: Plan, stages: Mapping[str, Model], owned: Sequence[Model] = ()) -> None:
        self.plan, self.stages, self.signature = plan, dict(stages), plan.signature
        self._owned, self._closed = list(owned), False
        self._seconds: dict[str, float] = dict.fromkeys(plan.order, 0.0)
        self._pool: ThreadPoolExecutor | None = None
        self._lock = threading.Lock()
        self._needs = {s: {e.producer.stage for f in plan.feeds[s] for e in f.edges if e.producer.stage is not None} for s in plan.order}
        self._programs: dict[tuple[str, ...], list] = {}
        self._direct = _direct(plan, stages)
        self._chain = all(len(self._needs[s]) <= 1 for s in plan.order) and all(len(plan.readers(s)) <= 1 for s in plan.order)

    @property
    def device(self) -> str:
        """Where its stages run."""
        devices = list(dict.fromkeys(m.device for m in self.stages.values()))
        return devices[0] if len(devices) == 1 else "+".join(devices)

    def run(
        self, feeds: Mapping[str, Array], /, *, outputs: Sequence[str] | None = None, deadline: Deadline | None = None
    ) -> dict[str, Array]:
        """Run the stages that the asked outputs need."""
        if self._direct is not None and not self._closed:
            return self._direct._run(feeds, outputs=outputs, deadline=deadline)
        return self.traced(feeds, outputs, deadline, None)

    def traced(
        self, feeds: Mapping[str, Array], outputs: Sequence[str] | None, deadline: Deadline | None, record: list | None
    ) -> dict[str, Array]:
        """As `run`; append (stage, seconds, outputs) to `record`."""
        if self._closed:
            raise ClosedError("the pipeline is closed")
        names = tuple(outputs) if outputs is not None else tuple(self.signature.outputs[i].name for i in range(len(self.signature.outputs)))
        program = self._programs.get(names) or self._compile(names)
        arrays: dict[tuple, Array] = {(None, k): v for k, v in feeds.items()}
        if not self._chain and sum(s > _WORTH_A_THREAD_S for s in self._seconds.values()) > 1:
            kept = {(self.plan.outputs[n].stage, self.plan.outputs[n].tensor) for n in names}
            self._run_parallel(program, arrays, deadline, record, kept)
        else:
            for step in program:
                self._run_stage(step, arrays, deadline, record)
                for key in step[4]:
                    del arrays[key]
        ends = self.plan.outputs
        out = {}
        for n in names:
            value = arrays[(ends[n].stage, ends[n].tensor)]
            if ends[n].column is not None:
                index = [c.name for c in self.stages[ends[n].stage].signature.output(ends[n].tensor).columns].index(ends[n].column)
                value = np.ascontiguousarray(value[:, index : index + 1]) if value.ndim == 2 else value
            out[n] = value
        return out

    def _compile(self, names: tuple[str, ...]) -> list:
        """For these outputs: per stage its feeds, the outputs it must give, and the arrays nobody reads afterwards."""
        kept = {(self.plan.outputs[n].stage, self.plan.outputs[n].tensor) for n in names}
        wanted: dict[str, set[str]] = {}
        for stage, tensor in kept:
            wanted.setdefault(stage, set()).add(tensor)  # type: ignore[arg-type]
        for stage in reversed(self.plan.order):
            if stage in wanted:
                for feed in self.plan.feeds[stage]:
                    for e in feed.edges:
                        if e.producer.stage is not None:
                            wanted.setdefault(e.producer.stage, set()).add(e.producer.tensor)
        program, used = [], [s for s in self.plan.order if s in wanted]
        last = {(e.producer.stage, e.producer.tensor): s for s in used for f in self.plan.feeds[s] for e in f.edges}
        for stage in used:
            free = tuple(k for k, s in last.items() if s == stage and k not in kept)
            model = self.stages[stage]
            outs = [o.name for o in model.signature.outputs if o.name in wanted[stage]]
            asked = None if len(outs) == len(model.signature.outputs) else outs
            program.append((stage, model, self.plan.feeds[stage], asked, free))
        self._programs[names] = program
        return program

    def _run_stage(self, step: tuple, arrays: dict[tuple, Array], deadline: Deadline | None, record: list | None) -> None:
        stage, model, feeds, asked, _ = step
        if deadline is not None:
            deadline.check()
        began = time.perf_counter()
        try:
            given = {f.spec.name: _assemble(f, arrays) for f in feeds}
            results = model._run(given, outputs=asked, deadline=deadline)
            if model.route.runtime != "onnx":
                _check_shapes(model, results, given)
        except MlbridgeError as exc:
            if exc.args and not getattr(exc, "stage", None):
                exc.args = (f"stage {stage!r}: {exc.message}", *exc.args[1:])
                exc.stage = stage  # type: ignore[attr-defined]
            raise
        except Exception as exc:
            raise InferenceError(f"stage {stage!r}: the model failed: {type(exc).__name__}: {exc}", runtime=model.route.runtime) from exc
        seconds = time.perf_counter() - began
        self._seconds[stage] += 0.2 * (seconds - self._seconds[stage])
        for name, value in results.items():
            arrays[(stage, name)] = value
        if record is not None:
            record.append((stage, seconds, dict(results)))

    def _run_parallel(
        self, program: list, arrays: dict[tuple, Array], deadline: Deadline | None, record: list | None, kept: set[tuple]
    ) -> None:
        """Run each stage as soon as its producers are done; `arrays` ends with those in `kept` alone."""
        with self._lock:
            if self._pool is None:
                self._pool = ThreadPoolExecutor(_MAX_PARALLEL, thread_name_prefix="mlbridge-stage")
        shared = Deadline(None if deadline is None else deadline.remaining_s())  # ours to cancel; the caller's stays the caller's
        forget = (lambda: None) if deadline is None else deadline.on_cancel(shared.cancel)
        steps = {step[0]: step for step in program}
        waiting = {s: {n for n in self._needs[s] if n in steps} for s in steps}
        reads = {s: {(e.producer.stage, e.producer.tensor) for f in steps[s][2] for e in f.edges} for s in steps}
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
        """Return the lines of `Model.describe` that only a pipeline has."""
        stages = {f"stage {n}": f"{m.route.runtime} on {m.device} — {m.route.why}" for n, m in self.stages.items()}
        inserted = [str(e) for e in self.plan.edges if e.steps]
        return stages | ({"inserted": "; ".join(inserted)} if inserted else {})

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


def _assemble(feed: Feed, arrays: Mapping[tuple, Array]) -> Array:
    if not feed.places:
        edge = feed.edges[0]
        value = arrays[(edge.producer.stage, edge.producer.tensor)]
        return edge(value) if edge.steps else value
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
