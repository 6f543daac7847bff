"""`mlbridge bench`: a user's own model against what runs under it, in interleaved rounds on golden rows."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from .. import errors
from ..measuring import Row, chart, interleave, machine_line, ratio_row, time_text
from ..model import Model
from ..pipeline import Pipeline

__all__ = ["Found", "measure", "show"]

_ROUNDS = 40


@dataclass(frozen=True)
class Found:
    """What a benchmark found.

    Attributes
    ----------
    title : str
        The model, and what it is compared with.
    machine : str
        Where.
    rows : tuple of Row
        One a batch size.
    batches : tuple of int
        Rows a call, one for each Row.
    """

    title: str
    machine: str
    rows: tuple[Row, ...]
    batches: tuple[int, ...]

    def chart(self) -> str:
        """Return the ratios as SVG."""
        return chart(self.title, self.rows)

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON form."""
        rows = [{k: v for k, v in asdict(r).items() if k != "samples"} | {"batch": n} for r, n in zip(self.rows, self.batches)]
        return {"title": self.title, "machine": self.machine, "rows": rows}


def measure(model: Model, batches: Sequence[int], seconds: float) -> Found:
    """Time the public call against what is under it.

    Parameters
    ----------
    model : Model
        With golden rows.
    batches : sequence of int
        Rows a call; golden rows are repeated. One size where rows depend on each other.
    seconds : float
        Spent on each batch size, about.
    """
    if model.samples is None:
        raise errors.InputError("the model has no golden rows to run on", hint="pass --sample")
    golden = model.samples[0]
    if not model.signature.batched:
        batches = (next(iter(golden.values())).shape[0] if next(iter(golden.values())).ndim else 1,)
    name, reference, close = _reference(model)
    rows = []
    try:
        for n in batches:
            feeds = (
                {k: np.ascontiguousarray(np.resize(v, (n, *v.shape[1:]))) for k, v in golden.items()} if model.signature.batched else golden
            )
            variants: Mapping[str, Callable] = {"reference": lambda f=feeds: reference(f), "ours": _ours(model, feeds)}
            times = interleave(variants, rounds=_ROUNDS, block_s=seconds / (2 * _ROUNDS))
            rows.append(ratio_row(f"batch {n}", "mlbridge", times["ours"], times["reference"]))
    finally:
        close()
    return Found(f"{model.name} against {name}", machine_line(), tuple(rows), tuple(batches))


def _ours(model: Model, feeds: Mapping[str, Any]) -> Callable[[], Any]:
    """Return the public call for these feeds: `predict` where one array is all, else `run`, which speaks level codes too."""
    spec, *more = model.signature.inputs
    if more or spec.categorical:
        return lambda: model.run(feeds)
    x = feeds[spec.name]
    return lambda: model.predict(x)


def _reference(model: Model) -> tuple[str, Callable, Callable[[], None]]:
    """Return what a model is compared with: plain onnxruntime, its fused form, or its session without our checks."""
    engine = getattr(model._session, "engine", None)
    if engine is not None:
        import onnxruntime

        source = engine.model if isinstance(engine.model, bytes) else str(engine.model)
        raw = onnxruntime.InferenceSession(source, providers=["CPUExecutionProvider"])
        return "plain onnxruntime", lambda feeds: raw.run(None, feeds), lambda: None
    if isinstance(model, Pipeline):
        fused = model.fuse()
        return f"itself fused ({', '.join(fused.stages)})", fused.run, fused.close
    return "its session without our checks", model._session.run, lambda: None


def show(found: Found) -> None:
    """Print the table, with the rate as bars."""
    from rich.console import Console
    from rich.table import Table

    table = Table("batch", "mlbridge", "reference", "ratio", "95 % interval", "rows/s", "", title=found.title, caption=found.machine)
    rates = [1e6 * n / r.us for n, r in zip(found.batches, found.rows)]
    for n, r, rate in zip(found.batches, found.rows, rates):
        bar = "█" * max(1, round(10 * rate / max(rates)))
        table.add_row(
            str(n), time_text(r.us), time_text(r.reference_us), f"{r.ratio:.2f}", f"{r.low:.2f} – {r.high:.2f}", f"{rate:,.0f}", bar
        )
    Console().print(table)
