"""Probing: measure plans on the user's own sample, drop those whose answers differ, and keep the best.

Successive halving: every candidate gets a little time, the better half twice as much, and so on within the budget.
Plain onnxruntime is never dropped, and wins unless another is faster beyond doubt.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import InputError, MlbridgeError
from ..interfaces import Array
from ..progress import Tell, bar
from . import cache
from .devices import Facts, cores, facts
from .engine import Engine
from .parity import differs
from .plans import CPU, Plan, candidates
from .trial import try_in_child
from .tuning import Candidate, Tuning

if TYPE_CHECKING:
    from .session import OnnxSession

__all__ = ["plan_key", "recall", "tune"]

_BLOCK_S = 2e-3  # one timed block; shorter ones measure the clock, longer ones the neighbours
_MIN_BLOCKS = 5
_CERTAIN = 0.95
_RESAMPLES = 300


def plan_key(sha256: str) -> str:
    """Return the key a measured plan is kept under: the model's bytes, onnxruntime, its providers, processor, cores."""
    return cache.key_of("plan", sha256)


def recall(sha256: str, default: Plan, packaged: Any = None) -> tuple[Plan, dict[str, Any]] | None:
    """Return the plan measured for these bytes on this machine, and its record; None where there is none.

    Parameters
    ----------
    sha256 : str
        Of the model.
    default : Plan
        What would run otherwise; a demanded device or provider is kept to.
    packaged : dict, optional
        A record that came with the model's package; taken only where its key is this machine's.
    """
    key = plan_key(sha256)
    for data in (cache.read_json("plans", key), packaged):
        if not isinstance(data, Mapping) or data.get("key") != key:
            continue
        try:
            plan = Plan.from_dict(data["plan"])
        except (KeyError, TypeError):
            continue
        if data is packaged and not _harmless(plan):
            continue
        if default.demanded and (plan.device, plan.provider) != (default.device, default.provider):
            continue
        why = f"measured on {data.get('rows', '?')} rows for {data.get('objective', 'latency')}"
        return replace(plan, demanded=default.demanded, why=why), dict(data)
    return None


def _harmless(plan: Plan) -> bool:
    """Whether a plan from a file asks for nothing but a provider, its device and small numbers: options may name libraries."""
    numbers = all(isinstance(n, int) and 0 <= n <= 4096 for n in (plan.threads, plan.chunks, plan.bucket, plan.spin_us or 0))
    return numbers and set(plan.provider_options) <= {"device_id"} and (plan.provider != CPU or plan.device == "cpu")


def tune(
    session: OnnxSession, feeds: Mapping[str, Array], *, objective: str = "latency", budget_s: float = 1.0, progress: Tell | None = None
) -> Tuning:
    """Measure plans on a sample and have the session adopt the best.

    Parameters
    ----------
    session : OnnxSession
        Its calls go on meanwhile.
    feeds : dict of str to ndarray
        Satisfy the signature; their number of rows is the batch size that is tuned for.
    objective : {'latency', 'throughput'}
        The time of one call, or of as many callers at once as there are cores.
    budget_s : float
        Seconds, making the sessions included.
    progress : callable, optional
        Called with a fraction and a text, in place of the bar on a terminal or in a notebook.

    Returns
    -------
    Tuning
        Every candidate with its times, and why it was dropped.

    Raises
    ------
    InputError
        If the objective, the budget or the sample cannot be used.
    """
    _check(session, feeds, objective, budget_s)
    with bar("tuning", 1.0, patience_s=0.2) if progress is None else nullcontext(progress) as tell:
        ends = time.perf_counter() + budget_s
        machine = facts()
        tried = _opened(session, feeds, machine, ends, budget_s, tell)
        _race(tried, feeds, objective, ends, budget_s, tell)
        tell(1.0, "done")
    winner = _decide(tried)
    result = Tuning(objective, _rows(feeds), budget_s, budget_s - (ends - time.perf_counter()), tuple(tried), winner)
    for c in tried:
        c.close()
    session.adopt(replace(winner.plan, demanded=session.plan.demanded, why=f"measured on {result.rows} rows for {objective}"))
    session.tuning = result
    key = plan_key(_sha256(session))
    session.measured = {"key": key, "plan": session.plan.to_dict(), "rows": result.rows, "objective": objective}
    cache.write_json("plans", key, session.measured)
    return result


def _check(session: OnnxSession, feeds: Mapping[str, Array], objective: str, budget_s: float) -> None:
    problems = []
    if objective not in ("latency", "throughput"):
        problems.append(f"objective is {objective!r}, expected 'latency' or 'throughput'")
    if not budget_s > 0:
        problems.append(f"budget_s is {budget_s!r}, expected a positive number of seconds")
    for spec in session.signature.inputs:
        value = feeds.get(spec.name)
        if value is None or len(value.shape) != len(spec.shape) or (spec.dtype != "string" and value.dtype != spec.dtype):
            problems.append(f"the sample's {spec.name!r} is {None if value is None else (str(value.dtype), value.shape)}, expected {spec}")
    if problems:
        raise InputError("; ".join(problems), problems=problems)


def _sha256(session: OnnxSession) -> str:
    if session.engine.sha256 is not None:
        return session.engine.sha256
    model = session.engine.model
    return hashlib.sha256(model if isinstance(model, bytes) else model.read_bytes()).hexdigest()


def _rows(feeds: Mapping[str, Array]) -> int:
    first = next(iter(feeds.values()), None)
    return int(first.shape[0]) if first is not None and first.ndim else 1


# ---------------------------------------------------------------- candidates that start and answer the same


def _opened(session: OnnxSession, feeds: Mapping[str, Array], machine: Facts, ends: float, budget_s: float, tell: Tell) -> list[Candidate]:
    plans = candidates(machine, session.traits, _rows(feeds), [session.plan])
    slow = 0.0  # the longest a candidate has taken to open: what the next may take
    if session.plan.demanded:
        plans = [p for p in plans if p.device == session.plan.device and (session.plan.provider in (p.provider, CPU))]
    tried: list[Candidate] = []
    reference: dict[str, Array] | None = None
    barred: dict[tuple[str, str], str] = {}  # what failed in a child, or runs no node, does so by every route
    for i, plan in enumerate(plans):
        candidate = Candidate(plan)
        tried.append(candidate)
        began = time.perf_counter()
        if (plan.provider, plan.device) in barred:
            candidate.dropped = barred[plan.provider, plan.device]
            continue
        if i and began + slow > ends - 0.4 * budget_s:
            candidate.dropped = "the budget was spent before its turn"
            continue
        tell(0.5 * i / len(plans), str(plan))
        answer = _answer(session, candidate, feeds, ends)
        slow = max(slow, time.perf_counter() - began)
        if answer is None:
            if plan.provider != CPU and candidate.dropped:
                barred[plan.provider, plan.device] = candidate.dropped
            continue
        if reference is None:
            reference = answer
        else:
            candidate.dropped = differs(answer, reference)
    return tried


def _answer(session: OnnxSession, candidate: Candidate, feeds: Mapping[str, Array], ends: float) -> dict[str, Array] | None:
    from .session import OnnxSession

    plan, engine = candidate.plan, session.engine
    try:
        if plan.provider != CPU and plan.route == "inner" and plan.bucket == 1:  # the first of its provider
            # A provider may take the whole process with it; its first run is somebody else's.
            trouble = try_in_child(engine.model, plan, feeds, max(0.5, ends - time.perf_counter()))
            if trouble:
                candidate.dropped = trouble
                return None
        made = OnnxSession(Engine(engine.model, plan, sha256=engine.sha256), session.signature, default_timeout_s=session.default_timeout_s)
        candidate.session = made
        candidate.placement = dict(made.placement)
        if plan.provider != CPU and not made.placement.get(plan.provider):
            candidate.dropped = f"{plan.provider} runs none of the nodes"
            return None
        answer = made.run(feeds)
        for _ in range(7):  # grow memory, bind buffers, learn what a row takes undivided and split
            if time.perf_counter() > ends:
                break
            answer = made.run(feeds)
    except MlbridgeError as exc:
        candidate.dropped = f"{type(exc).__name__}: {exc.message}"
        return None
    return answer


# ---------------------------------------------------------------- the race


def _race(tried: list[Candidate], feeds: Mapping[str, Array], objective: str, ends: float, budget_s: float, tell: Tell) -> None:
    alive = [c for c in tried if c.dropped is None]
    if not alive:
        return
    pool = ThreadPoolExecutor(cores(), "mlbridge-probe") if objective == "throughput" else None
    try:
        clock = _clock(feeds, pool)
        for c in alive:
            c.calls = max(1, int(_BLOCK_S / max(clock(c, 1), 1e-7)))
        rng = np.random.default_rng(0)
        stages = max(1, int(np.ceil(np.log2(len(alive)))) + 1)
        for stage in range(stages):
            stops = ends - (ends - time.perf_counter()) * (1 - 1 / (stages - stage))
            rounds = 0
            while rounds < _MIN_BLOCKS or time.perf_counter() < stops:
                for i in rng.permutation(len(alive)):
                    alive[i].times.append(clock(alive[i], alive[i].calls))
                rounds += 1
                if time.perf_counter() > ends:
                    break
            if time.perf_counter() > ends:
                break
            tell(0.5 + 0.5 * (stage + 1) / stages, f"{len(alive)} plans left")
            if len(alive) > 2:
                alive = _better_half(alive)
    finally:
        if pool is not None:
            pool.shutdown()


def _clock(feeds: Mapping[str, Array], pool: ThreadPoolExecutor | None) -> Callable[[Candidate, int], float]:
    width = cores()

    def alone(c: Candidate, calls: int) -> float:
        run = c.session.run
        for _ in range(calls // 4):
            run(feeds)  # idle threads of the one before still spin
        began = time.perf_counter()
        for _ in range(calls):
            run(feeds)
        return (time.perf_counter() - began) / calls

    def together(c: Candidate, calls: int) -> float:
        assert pool is not None
        began = time.perf_counter()
        for done in [pool.submit(alone, c, calls) for _ in range(width)]:
            done.result()
        return (time.perf_counter() - began) / (calls * width)

    return alone if pool is None else together


def _better_half(alive: list[Candidate]) -> list[Candidate]:
    plain, others = alive[0], sorted(alive[1:], key=lambda c: c.quick_s)
    keep = others[: max(1, len(others) // 2)]
    for c in others[len(keep) :]:
        c.dropped = f"slower: {c.quick_s / min(o.quick_s for o in keep):.2f}x of the best at its last round"
    return [plain, *keep]


def _decide(tried: list[Candidate]) -> Candidate:
    """Return the fastest, unless it may be no faster than plain onnxruntime."""
    alive = [c for c in tried if c.dropped is None and c.times]
    if not alive:
        raise InputError("no plan ran the sample", problems=[f"{c.plan}: {c.dropped}" for c in tried], hint="see .problems for each plan")
    plain, best = alive[0], min(alive, key=lambda c: c.quick_s)
    if best is plain:
        return plain
    count = min(len(best.times), len(plain.times))
    # Blocks of one round ran side by side, so what disturbed one disturbed the other: compare them in pairs.
    ratios = np.asarray(best.times[-count:]) / np.asarray(plain.times[-count:])
    rng = np.random.default_rng(0)
    medians = np.median(rng.choice(ratios, (_RESAMPLES, count)), axis=1)
    best.ratio = float(np.median(ratios)), float(np.quantile(medians, 1 - _CERTAIN)), float(np.quantile(medians, _CERTAIN))
    return best if best.ratio[2] < 1.0 else plain
