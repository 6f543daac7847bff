"""Parity: run source and conversion on the sample and on probe rows, compare, and report.

Not here: which rows probe a model (its framework knows) and what to do about a failure (`routes`, `_api.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from ..errors import InferenceError, InputError, MlbridgeError
from ..interfaces import Array
from ..signature import Signature, TensorSpec
from ..tensors import batch_rows

__all__ = ["OutputParity", "Report", "compare", "default_tolerance", "rows_hold", "signature_probes", "verify"]

Function = Callable[[Mapping[str, Array]], Mapping[str, Array]]

_FLOOR = 1e-3  # share of a column's largest value below which errors count absolutely: near zero a ratio says nothing
_SINGLE_FLOOR = 1e-2  # of single precision: 1e-4 of 1e-3 is less than the rounding of the sum that cancelled
_SMALL_BATCHES = (1, 2, 7)  # sizes at which shape bugs show
_CHUNK = 8192  # probe rows a call: bounded memory on wide models


@dataclass(frozen=True, slots=True)
class OutputParity:
    """How one output compared.

    Attributes
    ----------
    name : str
        The output.
    max_error : float
        Largest relative error |a-b| / max(|b|, 1e-3 max|b| of the column); 0 for labels.
    changed : int
        Labels, texts or integers that differ outside ties.
    ties : int
        Labels that differ where the source's two best scores are equal within the tolerance.
    worst_row : int or None
        Row of the largest error or the first change.
    ok : bool
        Whether it is within the tolerance.
    """

    name: str
    max_error: float = 0.0
    changed: int = 0
    ties: int = 0
    worst_row: int | None = None
    ok: bool = True


@dataclass(frozen=True)
class Report:
    """The result of a verification.

    Attributes
    ----------
    verified : bool
        Whether every output was within the tolerance on every row.
    rows : int
        Rows compared, sample and probes together.
    tolerance : float
        The relative error allowed.
    outputs : tuple of OutputParity
        One an output.
    against : str
        What it was compared with: `source`, `golden samples` or `nothing`.
    nodes_tested : float or None
        Share of reachable tree nodes tested on both sides.
    worst_inputs : dict
        The inputs of the worst row.
    problems : tuple of str
        What went wrong in words.
    versions : dict
        Versions of what took part.
    """

    verified: bool
    rows: int
    tolerance: float
    outputs: tuple[OutputParity, ...] = ()
    against: str = "source"
    nodes_tested: float | None = None
    worst_inputs: Mapping[str, Any] = field(default_factory=dict)
    problems: tuple[str, ...] = ()
    versions: Mapping[str, str] = field(default_factory=dict)

    @property
    def max_error(self) -> float:
        """The largest relative error of any output."""
        return max((o.max_error for o in self.outputs), default=0.0)

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON form."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Report:
        """Read the JSON form."""
        return cls(
            **{**data, "outputs": tuple(OutputParity(**o) for o in data.get("outputs", ())), "problems": tuple(data.get("problems", ()))}
        )

    def __str__(self) -> str:
        if self.against == "nothing":
            return "not verified: there was nothing to compare with"
        head = f"{'verified' if self.verified else 'DIFFERS'} on {self.rows} rows against the {self.against}, tolerance {self.tolerance:g}"
        if self.nodes_tested is not None:
            head += f", {100 * self.nodes_tested:.1f} % of tree nodes tested on both sides"
        lines = [head] + [
            f"  {o.name}: max relative error {o.max_error:.2g}, changed {o.changed}, ties {o.ties}"
            + ("" if o.ok else f"  <- worst row {o.worst_row}")
            for o in self.outputs
        ]
        return "\n".join(lines + [f"  {p}" for p in self.problems])

    __repr__ = __str__

    def _repr_html_(self) -> str:
        import html

        rows = "".join(
            f"<tr><td>{html.escape(o.name)}</td><td>{o.max_error:.2g}</td><td>{o.changed}</td><td>{o.ties}</td><td>{'✓' if o.ok else '✗ row ' + str(o.worst_row)}</td></tr>"
            for o in self.outputs
        )
        return f"<p>{html.escape(str(self).splitlines()[0])}</p><table><tr><th>output</th><th>max relative error</th><th>changed</th><th>ties</th><th></th></tr>{rows}</table>"


def default_tolerance(signature: Signature) -> float:
    """Return 1e-9 for float64 graphs and 1e-4 where single precision takes part."""
    floats = {s.dtype for s in (*signature.inputs, *signature.outputs) if s.dtype.startswith(("float", "bfloat"))}
    return 1e-9 if floats <= {"float64"} else 1e-4


def relative_error(got: Array, want: Array) -> Array:
    """Return the relative error of each value; infinite where NaN or infinities do not coincide."""
    floor = _SINGLE_FLOOR if getattr(want, "dtype", None) in (np.float32, np.float16) else _FLOOR
    a, b = np.asarray(got, np.float64), np.asarray(want, np.float64)
    finite = np.isfinite(b)
    size = np.where(finite, np.abs(b), 0.0)
    largest = size.max(axis=0, keepdims=True) if b.ndim and b.size else size
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        error = np.abs(a - b) / np.maximum(np.maximum(size, floor * largest), np.finfo(np.float64).tiny)
    same = (a == b) | (np.isnan(a) & np.isnan(b))
    return np.where(same, 0.0, np.where(finite & np.isfinite(a), error, np.inf))


def compare(
    got: Mapping[str, Array], want: Mapping[str, Array], signature: Signature, *, tolerance: float, tie: float | None = None
) -> list[OutputParity]:
    """Compare two sets of outputs.

    Parameters
    ----------
    got, want : dict of str to ndarray
        The conversion's and the source's outputs.
    signature : Signature
        Names and kinds of the outputs.
    tolerance : float
        Largest relative error allowed.
    tie : float, optional
        Two best scores closer than this are a tie; the tolerance by default, larger where a library breaks ties at random.
    """
    return [
        _compare_one(got, want, s, tolerance, tolerance if tie is None else max(tie, tolerance))
        for s in signature.outputs
        if s.name in want
    ]


def _compare_one(got: Mapping[str, Array], want: Mapping[str, Array], spec: TensorSpec, tolerance: float, tie: float) -> OutputParity:
    if spec.name not in got:
        return OutputParity(spec.name, np.inf, ok=False)
    a, b = np.asarray(got[spec.name]), np.asarray(want[spec.name])
    if a.shape != b.shape:
        return OutputParity(spec.name, np.inf, ok=False)
    if spec.categorical or spec.dtype == "string" or np.dtype(spec.dtype).kind in "biu":
        differs = np.asarray(a != b)
        tied = differs & _tied(want, spec.name, differs.shape, tie)
        changed = differs & ~tied
        first = int(np.argwhere(changed)[0][0]) if changed.any() and changed.ndim else None
        return OutputParity(spec.name, 0.0, int(changed.sum()), int(tied.sum()), first, not changed.any())
    error = relative_error(a, b)
    if not error.size:
        return OutputParity(spec.name)
    worst = int(np.unravel_index(int(error.argmax()), error.shape)[0]) if error.ndim else None
    top = float(error.max())
    return OutputParity(spec.name, top, worst_row=worst, ok=top <= tolerance)


def _tied(want: Mapping[str, Array], name: str, shape: tuple, tie: float) -> Array:
    """Rows where the source's two best scores are equal within `tie`."""
    suffix = name.removeprefix("label")
    scores = next((want[k + suffix] for k in ("probabilities", "decision", "score") if k + suffix in want), None)
    if scores is None or not name.startswith("label") or len(shape) != 1:
        return np.zeros(shape, bool)
    scores = np.asarray(scores, np.float64)
    if scores.ndim == 1:
        return np.abs(scores) <= tie
    if scores.shape[1] < 2:
        return np.zeros(shape, bool)
    best = np.sort(scores, axis=1)[:, -2:]
    return np.abs(best[:, 1] - best[:, 0]) <= tie * np.maximum(1.0, np.abs(best[:, 1]))


def stack(parts: Iterable[Mapping[str, Array]]) -> dict[str, Array]:
    """Join feeds along the rows."""
    parts = [p for p in parts if p]
    return {} if not parts else {k: np.concatenate([p[k] for p in parts]) for k in parts[0]}


def _take(feeds: Mapping[str, Array], rows: Any) -> dict[str, Array]:
    return {k: np.ascontiguousarray(v[rows]) for k, v in feeds.items()}


def _answers(function: Function, feeds: Mapping[str, Array], rows: int | None, dropped: list[Any]) -> dict[str, Array]:
    """Run in chunks; rows the source itself refuses are found by halving, and left out."""
    if rows is None or rows <= 1:
        return dict(function(feeds))
    parts = []
    for start in range(0, rows, _CHUNK):
        index = np.arange(start, min(start + _CHUNK, rows))
        parts += _halved(function, feeds, index, dropped)
    return stack(parts)


def _halved(function: Function, feeds: Mapping[str, Array], index: Array, dropped: list[Any]) -> list[Mapping[str, Array]]:
    try:
        return [dict(function(_take(feeds, index)))]
    except Exception as exc:
        if isinstance(exc, MlbridgeError) and not isinstance(exc, (InferenceError, InputError)):
            raise
        if len(dropped) > 64:
            raise InferenceError(f"the source model refuses its own probe rows: {exc}") from exc
        if len(index) == 1:
            dropped.append((int(index[0]), str(exc)))
            return []
        middle = len(index) // 2
        return _halved(function, feeds, index[:middle], dropped) + _halved(function, feeds, index[middle:], dropped)


def verify(
    source: Function,
    converted: Function,
    signature: Signature,
    feeds: Mapping[str, Array],
    *,
    tolerance: float | None = None,
    tie: float | None = None,
    against: str = "source",
    versions: Mapping[str, str] | None = None,
    nodes_tested: float | None = None,
) -> Report:
    """Run source and conversion on the same rows and compare.

    Parameters
    ----------
    source, converted : callable
        From feeds to outputs.
    signature : Signature
        Of both.
    feeds : dict of str to ndarray
        Sample and probe rows.
    tolerance : float, optional
        Largest relative error; `default_tolerance` of the signature unless given.
    tie : float, optional
        As in `compare`.

    Returns
    -------
    Report
        `verified` says whether all is within the tolerance.
    """
    limit = default_tolerance(signature) if tolerance is None else tolerance
    rows = batch_rows(feeds, signature) if signature.batched else None
    dropped: list[tuple[int, str]] = []
    want = _answers(source, feeds, rows, dropped)
    if dropped:
        keep = np.setdiff1d(np.arange(rows or 0), [i for i, _ in dropped])
        feeds, rows = _take(feeds, keep), len(keep)
        if not rows:
            return Report(False, 0, limit, against=against, problems=(f"the source refused every row: {dropped[0][1]}",))
    problems: list[str] = []
    try:
        got = _run_converted(converted, feeds, rows)
        outputs = compare(got, want, signature, tolerance=limit, tie=tie)
        problems += _small_batches(converted, feeds, got, signature, rows, limit)
    except MlbridgeError as exc:
        outputs, problems = [], [f"the conversion fails to run: {exc.message}"]
    problems += [
        f"{o.name}: shape {np.shape(got[o.name])} instead of {np.shape(want[o.name])}"
        for o in outputs
        if not o.ok and o.name in got and np.shape(got[o.name]) != np.shape(want[o.name])
    ]
    worst = next((o.worst_row for o in outputs if not o.ok and o.worst_row is not None), None)
    inputs = {} if worst is None or rows is None else {k: v[worst].tolist() for k, v in feeds.items()}
    return Report(
        verified=bool(outputs) and all(o.ok for o in outputs) and not problems,
        rows=rows if rows is not None else 1,
        tolerance=limit,
        outputs=tuple(outputs),
        against=against,
        nodes_tested=nodes_tested,
        worst_inputs=inputs,
        problems=tuple(problems),
        versions=dict(versions or {}),
    )


def _run_converted(converted: Function, feeds: Mapping[str, Array], rows: int | None) -> dict[str, Array]:
    if rows is None or rows <= _CHUNK:
        return dict(converted(feeds))
    return stack(converted(_take(feeds, np.arange(i, min(i + _CHUNK, rows)))) for i in range(0, rows, _CHUNK))


def _small_batches(
    converted: Function, feeds: Mapping[str, Array], whole: Mapping[str, Array], signature: Signature, rows: int | None, limit: float
) -> list[str]:
    if not rows:
        return []
    problems = []
    for n in _SMALL_BATCHES:
        index = np.linspace(0, rows - 1, n).astype(int)
        part = converted(_take(feeds, index))
        bad = [o.name for o in compare(part, {k: v[index] for k, v in whole.items()}, signature, tolerance=limit) if not o.ok]
        if bad:
            problems.append(f"a batch of {n} answers differently from the same rows in a large batch: {', '.join(bad)}")
    return problems


def rows_hold(function: Function, feeds: Mapping[str, Array], signature: Signature, *, tolerance: float | None = None) -> bool:
    """Check the promise `rows`: a batch equals its rows, and shuffled rows give shuffled answers.

    Parameters
    ----------
    function : callable
        From feeds to outputs.
    feeds : dict of str to ndarray
        A few rows; fewer than seven are repeated, for a model may act by the size of its batch.
    signature : Signature
        Which inputs and outputs claim `rows`.
    tolerance : float, optional
        For batch-size dependent rounding of the engine.
    """
    rows = batch_rows(feeds, signature)
    if not signature.batched or not rows:
        return True
    few = max(min(rows, 32), _SMALL_BATCHES[-1])
    feeds, rows = _take(feeds, np.arange(few) % rows), few
    limit = default_tolerance(signature) if tolerance is None else tolerance
    whole = dict(function(feeds))
    if any(np.shape(v)[:1] != (rows,) for v in whole.values()):
        return False
    order = np.random.default_rng(0).permutation(rows)
    shuffled = function(_take(feeds, order))
    if not all(o.ok for o in compare(shuffled, {k: v[order] for k, v in whole.items()}, signature, tolerance=limit)):
        return False
    seen = min(rows, 4)
    try:
        parts = stack(function(_take(feeds, [i])) for i in range(seen))
    except InferenceError:  # some sources stop at a single row, as R does at poly(a, b): halves tell as much
        seen = rows
        parts = stack(function(_take(feeds, half)) for half in np.array_split(np.arange(rows), 2))
    return all(o.ok for o in compare(parts, {k: v[:seen] for k, v in whole.items()}, signature, tolerance=limit))


def signature_probes(signature: Signature, feeds: Mapping[str, Array], *, seed: int, rows: int = 64) -> dict[str, Array]:
    """Make probe rows from a signature alone: levels, unknown and missing where allowed, columns at and beyond their range.

    Parameters
    ----------
    signature : Signature
        Batched; others give no rows.
    feeds : dict of str to ndarray
        Real rows that give each column its range; a standard normal range without them.
    seed : int
        Of the choices.
    rows : int
        How many.
    """
    if not signature.batched or any(not isinstance(d, int) for s in signature.inputs for d in s.shape[1:]):
        return {}
    rng, out = np.random.default_rng(seed), {}
    for spec in signature.inputs:
        real = feeds.get(spec.name)
        shape = (rows, *(d for d in spec.shape[1:] if isinstance(d, int)))
        if spec.categorical:
            out[spec.name] = _probe_codes(spec, shape, rng)
        elif spec.dtype == "string":
            pool = np.append(real.ravel()[:256], ["", "é"]) if real is not None and real.size else np.array(["", "a", "é"], object)
            out[spec.name] = rng.choice(np.array([v for v in pool if v is not None], object), shape)
        elif np.dtype(spec.dtype).kind == "f":
            out[spec.name] = _probe_numbers(spec, real, shape, rng)
        else:
            low, high = (0, 1) if real is None or not real.size else (int(real.min()), int(real.max()))
            out[spec.name] = rng.integers(low, high + 1, shape).astype(spec.dtype)
    return out


def _probe_codes(spec: TensorSpec, shape: tuple, rng: np.random.Generator) -> Array:
    out = np.empty(shape, np.int32)
    wide = out.reshape(shape[0], -1)
    for j in range(wide.shape[1]):
        column = spec.columns[j if j < len(spec.columns) else 0]
        k = len(column.categories or ())
        pool = list(range(k)) + ([k] if column.unknown == "keep" else []) + ([-1] if spec.missing == "allow" else [])
        wide[:, j] = rng.permutation(np.resize(np.array(pool or [-1]), shape[0]))
    return out


def _probe_numbers(spec: TensorSpec, real: Array | None, shape: tuple, rng: np.random.Generator) -> Array:
    if real is None or not real.size:
        out = rng.standard_normal(shape)
    else:
        flat = real.reshape(len(real), -1).astype(np.float64)
        with np.errstate(all="ignore"):
            low, high = (
                np.nanmin(np.where(np.isfinite(flat), flat, np.nan), axis=0),
                np.nanmax(np.where(np.isfinite(flat), flat, np.nan), axis=0),
            )
        low, high = np.nan_to_num(low), np.nan_to_num(high)
        out = low + (high - low) * rng.random((shape[0], flat.shape[1]))
        extreme = rng.random(out.shape)
        out = np.where(
            extreme < 0.1, low, np.where(extreme < 0.2, high, np.where(extreme < 0.3, 10 * high, np.where(extreme < 0.4, 10 * low, out)))
        )
        out = out.reshape(shape)
    if spec.missing == "allow":
        out = np.where(rng.random(shape) < 0.05, np.nan, out)
    return out.astype(spec.dtype)
