"""One row through a converted R model against R's own predict, over the catalogue the conversion is tested on.

R answers from its own process, in turns with ours: a round is the quickest of a few calls of each. Needs R and its packages.
"""

from __future__ import annotations

import importlib.util
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from benchmarks.harness import Bar, Row, Section, ratio_row

HERE = Path(__file__).resolve().parents[2]
LIMIT = 50.0
_ROUNDS, _CALLS_OF_R, _CALLS = 11, 6, 40


def parity():
    """Return the tests' module of parity with R."""
    spec = importlib.util.spec_from_file_location("r_models_parity", HERE / "tests" / "r_models" / "parity.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class OneRow(NamedTuple):
    """Seconds a call, one value a round.

    R's predict of a data frame; ours: `Model.predict` of the prepared array where all columns are numbers, else of a record; and the
    graph alone, prepared arrays in.
    """

    r: np.ndarray
    predict: np.ndarray
    graph: np.ndarray


class Clock:
    """R in a process of its own that times one row whenever it is asked."""

    def __init__(self, module, folder: Path) -> None:
        command = ["Rscript", str(module.HERE / "time.R"), str(folder)]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=module.environment()
        )

    def _say(self, line: str) -> str:
        self._process.stdin.write(line + "\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline()
        if not answer:
            raise RuntimeError(f"R ended while it was asked: {line}")
        return answer

    def one_row(self, case) -> OneRow | None:
        """Time one complete row of the training data, round by round in turns; None where R itself cannot answer one row."""
        import mlbridge as mb
        from mlbridge.artifact import open_artifact
        from mlbridge.plugins import runtime

        if self._say(f"model {case.name}").strip() == "fails":
            return None
        feeds, record = prepared(case)
        rounds = np.empty((_ROUNDS, 3))
        session = runtime("onnx").load(open_artifact(case.path))
        (first, *others) = feeds.values()
        x = record if others or first.dtype.kind == "i" else first
        with mb.load(str(case.path)) as model:
            model.predict(x)
            session.run(feeds)
            for i in range(_ROUNDS):
                rounds[i, 0] = min(float(v) for v in self._say(f"ask {_CALLS_OF_R}").split())
                rounds[i, 1] = _quickest(lambda: model.predict(x))
                rounds[i, 2] = _quickest(lambda: session.run(feeds))
        session.close()
        return OneRow(*rounds.T)

    def close(self) -> None:
        """End R."""
        self._process.stdin.close()
        self._process.wait(timeout=30)
        self._process.stdout.close()


def _quickest(call: Callable[[], object]) -> float:
    best = np.inf
    for _ in range(_CALLS):
        start = time.perf_counter()
        call()
        best = min(best, time.perf_counter() - start)
    return best


def prepared(case) -> tuple[dict[str, np.ndarray], dict[str, object]]:
    """Return the first complete row of the training data: as the arrays `run` takes, and as a record of plain values."""
    feeds = case.training()
    whole = np.ones(len(next(iter(feeds.values()))), bool)
    for spec in case.signature.inputs:
        block = feeds[spec.name]
        if block.dtype.kind == "i":  # neither missing nor unknown
            block = np.where((block >= 0) & (block < [len(c.categories) for c in spec.columns]), 0.0, np.nan)
        whole &= ~np.isnan(block).any(axis=1)
    at = int(np.flatnonzero(whole)[0])
    record = {}
    for spec in case.signature.inputs:
        for column, value in zip(spec.columns, feeds[spec.name][at]):
            record[column.name] = float(value) if column.categories is None else column.categories[int(value)]
    return {k: np.ascontiguousarray(v[at : at + 1]) for k, v in feeds.items()}, record


def bench(quick: bool) -> Section:
    """Time every model of the catalogue; `quick` changes nothing, R's fits are most of the time."""
    section = Section(
        "r",
        "R models",
        "one row: R's predict of a data frame, over Model.predict of the converted model (the reference); docs/r-models.md has each model",
    )
    module = parity()
    absent = module.missing_tools()
    if absent:
        section.skipped = absent
        return section
    with tempfile.TemporaryDirectory() as folder:
        cases, _ = module.fit_all(Path(folder))
        clock = Clock(module, Path(folder))
        times = {case.name: clock.one_row(case) for case in cases}
        clock.close()
    answered = {name: t for name, t in times.items() if t is not None}
    families = sorted({name.split("-")[0] for name in answered})
    section.rows = [_together(f, [t for n, t in answered.items() if n.split("-")[0] == f]) for f in families]
    every = _together("every model", list(answered.values()))
    section.rows.append(every)
    section.bars.append(Bar("one row, R's time over ours: geometric mean over the models", every.ratio, every.low, every.high, LIMIT, ">="))
    return section


def _together(name: str, times: list[OneRow]) -> Row:
    """Return R's time over ours, each the geometric mean over some models, round by round."""
    r, ours = (np.exp(np.log([getattr(t, of) for t in times]).mean(axis=0)) for of in ("r", "predict"))
    return ratio_row(f"{name} ({len(times)})", "R", r, ours)
