"""What mlbridge adds of its own: `predict` over a session that does nothing, and `import mlbridge` over `import numpy`."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np

import mlbridge as mb
from benchmarks.harness import Bar, Row, Section, interleave, ratio_row
from mlbridge.interfaces import UNBOUNDED

_ALLOWED_S = 2e-6  # of our own, a call
_IMPORTS = {"numpy": "import numpy", "import": "import mlbridge", "import and mlbridge.load": "import mlbridge; mlbridge.load"}
_TIMED = "import time; t = time.perf_counter(); {}; print(time.perf_counter() - t)"


class Nothing:
    """A session that answers one array it made long ago."""

    device, max_concurrency = "cpu", UNBOUNDED
    signature = mb.Signature((mb.TensorSpec("x", "float64", ("rows", 30), missing="allow"),), (mb.TensorSpec("y", "float64", ("rows",)),))

    def __init__(self) -> None:
        self._answer = np.zeros(1)

    def run(self, feeds, /, *, outputs=None, deadline=None):
        """Answer."""
        return {"y": self._answer}

    def close(self):
        """Own nothing."""


def bench(quick: bool) -> Section:
    section = Section(
        "overhead",
        "What mlbridge adds of its own",
        "`predict` of one exact row over a session that does nothing, less the bare call, against 2 us; imports in processes of their own.",
    )
    session, x = Nothing(), np.zeros((1, 30))
    feeds = {"x": x}
    with mb.Model(session) as model:
        times = interleave({"bare": lambda: session.run(feeds), "ours": lambda: model.predict(x)}, rounds=30 if quick else 100)
    row = ratio_row("predict over nothing", "added, over 2 us", times["ours"] - times["bare"], np.full_like(times["bare"], _ALLOWED_S))
    section.rows.append(row)
    section.bars.append(Bar("predict adds less than 2 us", row.ratio, row.low, row.high, 1.0))
    imports = _imports(8 if quick else 25)
    section.rows += imports
    alone = imports[0]
    section.bars.append(Bar("import mlbridge over import numpy", alone.ratio, alone.low, alone.high, 1.5))
    return section


def _imports(rounds: int) -> list[Row]:
    times: dict[str, list[float]] = {name: [] for name in _IMPORTS}
    usual = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}  # whose sources are compiled anew is no import
    for i in range(rounds + 1):
        for name, kept in times.items():
            code = _TIMED.format(_IMPORTS[name])
            out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=usual).stdout
            if i:  # the first writes the bytecode and fills the file cache
                kept.append(float(out))
    numpy = np.array(times.pop("numpy"))
    return [ratio_row(name, "over import numpy", np.array(kept), numpy) for name, kept in times.items()]
