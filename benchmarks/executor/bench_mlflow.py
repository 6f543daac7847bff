"""Against mlflow.pyfunc with the ONNX flavour, in an environment of its own, both in one process there."""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
from pathlib import Path

import numpy as np

from benchmarks.executor.models import DAILY, graph
from benchmarks.harness import Bar, Section, geometric_mean, ratio_row
from benchmarks.peers.environment import ROOT, environment


def bench(quick: bool) -> Section:
    section = Section(
        "mlflow", "Against mlflow.pyfunc on ONNX", "How many times longer mlflow takes than `Model.predict` on the same file."
    )
    python = environment("mlflow", make=not quick)
    if python is None:
        section.skipped = "mlflow's environment is made by `make bench`"
        return section
    with tempfile.TemporaryDirectory() as folder:
        files = []
        for name in DAILY:
            path = Path(folder, f"{len(files)}.onnx")
            path.write_bytes(graph(name))
            files.append(f"{name}={path}")
        path = os.pathsep.join([str(ROOT / "src"), str(ROOT)])
        done = subprocess.run(
            [str(python), str(ROOT / "benchmarks/peers/mlflow/measure.py"), "15" if quick else "60", *files],
            capture_output=True,
            text=True,
            check=True,
            env={**os.environ, "PYTHONPATH": path, "MLFLOW_DISABLE_TELEMETRY": "true"},
        )
    at_one = []
    for name, batches in json.loads(done.stdout.splitlines()[-1]).items():
        for batch, times in batches.items():
            row = ratio_row(f"{name}, batch {batch}", "mlflow over ours", np.asarray(times["mlflow"]), np.asarray(times["ours"]))
            section.rows.append(row)
            if batch == "1":
                at_one.append(row)
    section.bars.append(Bar("mlflow.pyfunc over ours at batch 1: geometric mean of four models", *geometric_mean(at_one), 4.0, ">="))
    return section
