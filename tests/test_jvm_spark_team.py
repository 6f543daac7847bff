"""`Packages.save`, `Models.load` and `MlbridgeTransformer`, driven from Java alone; Python reads the package without Spark."""

from __future__ import annotations

import csv
import importlib.util
import os
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

import mlbridge as mb
from mlbridge.runtimes.jvm.command import JAR, JvmOptions, worker_command
from mlbridge.signature import Signature

ROOT = Path(__file__).parents[1]
CREDIT = ROOT / "examples/credit/german.csv"
ONNXRUNTIME = sorted(Path.home().glob(".m2/repository/com/microsoft/onnxruntime/onnxruntime/*/onnxruntime-*.jar"))
pytestmark = [
    pytest.mark.jvm,
    pytest.mark.timeout(600),
    pytest.mark.skipif(not (JAR.is_file() and ONNXRUNTIME), reason="the jar, or onnxruntime's, is not there: make jvm"),
    pytest.mark.skipif(importlib.util.find_spec("pyspark") is None, reason="pyspark is not installed"),
    pytest.mark.skipif(shutil.which("javac") is None, reason="a JDK is not installed"),
]


def team(*arguments: object) -> tuple[Signature, np.ndarray]:
    *flags, path, _ = [
        a for a in worker_command(JvmOptions(spark=True)).argv if not a.startswith("-Djdk.serialFilter=")
    ]  # the worker's own
    command = [
        *flags,
        f"{path}{os.pathsep}{ONNXRUNTIME[-1]}",
        str(ROOT / "jvm-bindings/interop/spark/SparkTeam.java"),
        *map(str, arguments),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env={**os.environ, "SPARK_LOCAL_IP": "127.0.0.1"})
    assert done.returncode == 0, done.stderr[-4000:]
    said = dict(line.split("\t", 1) for line in done.stdout.splitlines() if "\t" in line)
    return Signature.from_json(said["signature"]), np.array(said["answers"].split(","), float)


def test_what_java_saves_python_verifies_without_spark_and_what_python_converts_java_scores(tmp_path):
    written, spark = team("save", CREDIT, tmp_path)
    with mb.load(tmp_path / "gbt.mlb") as model:
        assert model.route.runtime == "onnx"
        assert model.report.verified
        assert model.signature == written
        names = [c.name for c in written.columns]
        with open(CREDIT, newline="") as f:
            rows = list(csv.DictReader(f))
        numbers = {c.name for c in written.input("features").columns}
        table = {n: [float(r[n]) if n in numbers else r[n] for r in rows] for n in names}
        mine = model.predict(table)["probabilities"][:, 1]
        np.testing.assert_allclose(mine, spark, rtol=1e-9)
        model.save(tmp_path / "onnx.mlb")
    read, scored = team("score", CREDIT, tmp_path / "onnx.mlb")
    assert read == model.signature
    np.testing.assert_allclose(scored, spark, rtol=1e-9)
