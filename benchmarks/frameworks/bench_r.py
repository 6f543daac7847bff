"""One row through a converted R model against R's own predict, over the catalogue the conversion is tested on.

R is timed in its own process, so rounds are not interleaved; the bar leaves room for that. Needs R and its packages.
"""

from __future__ import annotations

import importlib.util
import tempfile
import time
from pathlib import Path

import numpy as np

from benchmarks.harness import Bar, Section, geometric_mean, ratio_row

HERE = Path(__file__).resolve().parents[2]
LIMIT = 50.0
_ROUNDS, _CALLS = 15, 30


def parity():
    """Return the tests' module of parity with R."""
    spec = importlib.util.spec_from_file_location("r_models_parity", HERE / "tests" / "r_models" / "parity.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def one_row_seconds(case) -> np.ndarray:
    """Return seconds a call of the converted model for one row, one value a round."""
    from mlbridge.artifact import open_artifact
    from mlbridge.plugins import runtime

    feeds = {k: np.ascontiguousarray(v[:1]) for k, v in case.feeds["train"].items()}
    session = runtime("onnx").load(open_artifact(case.path))
    out = np.empty(_ROUNDS)
    for _ in range(_CALLS):
        session.run(feeds)
    for i in range(_ROUNDS):
        start = time.perf_counter()
        for _ in range(_CALLS):
            session.run(feeds)
        out[i] = (time.perf_counter() - start) / _CALLS
    session.close()
    return out


def bench(quick: bool) -> Section:
    """Time every model of the catalogue; `quick` changes nothing, R's fits are most of the time."""
    section = Section("r", "R models", "one row: the converted model's session against R's predict")
    module = parity()
    absent = module.missing_tools()
    if absent:
        section.skipped = absent
        return section
    with tempfile.TemporaryDirectory() as folder:
        cases, _ = module.fit_all(Path(folder))
        module.run_r("time.R", folder)
        for case in cases:
            # the two processes are timed one after the other: quiet rounds are compared with quiet rounds
            ours, reference = (np.sort(t)[: _ROUNDS // 2] for t in (one_row_seconds(case), np.fromfile(f"{case.stem}.seconds.bin")))
            section.rows.append(ratio_row(case.name, "onnx", ours, reference))
    middle, low, high = geometric_mean(section.rows)
    section.bars.append(Bar("one row, geometric mean over the models, of R's time", middle, low, high, 1 / LIMIT))
    return section
