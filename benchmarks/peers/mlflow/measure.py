"""Run in mlflow's environment: mlflow.pyfunc's ONNX flavour against Model.predict, interleaved in this process.

Usage: python measure.py ROUNDS NAME=model.onnx ...     (with the repository's root and src on PYTHONPATH)
Prints one JSON object: name to batch to variant to seconds a call.
"""

from __future__ import annotations

import json
import logging
import sys
import tempfile
from pathlib import Path

import mlflow
import numpy as np
import onnx

from benchmarks.executor.models import open_model, rows
from benchmarks.harness import interleave

logging.getLogger("mlflow").setLevel(logging.ERROR)


def main(rounds: int, files: list[str]) -> None:
    found: dict[str, dict[int, dict[str, list[float]]]] = {}
    for entry in files:
        name, _, path = entry.partition("=")
        with tempfile.TemporaryDirectory() as folder:
            mlflow.onnx.save_model(onnx.load(path), str(Path(folder, "m")), pip_requirements=[])
            peer = mlflow.pyfunc.load_model(str(Path(folder, "m")))
        model = open_model(Path(path).read_bytes())
        for batch in (1, 64):
            x = rows(batch)
            np.testing.assert_allclose(np.asarray(peer.predict(x)["probabilities"], "f4"), model.predict(x)["probabilities"], rtol=1e-5)
            times = interleave({"ours": lambda m=model, x=x: m.predict(x), "mlflow": lambda p=peer, x=x: p.predict(x)}, rounds=rounds)
            found.setdefault(name, {})[batch] = {k: v.tolist() for k, v in times.items()}
        model.close()
    print(json.dumps(found))


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2:])
