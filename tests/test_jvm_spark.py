"""Spark folders in a JVM worker, and joined live: expected values are what Spark's own transform answered when they were fitted."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import jvm_host
import numpy as np
import pytest

import mlbridge as mb
from mlbridge import errors
from mlbridge.artifact import open_artifact
from mlbridge.frameworks.spark import SparkFramework
from mlbridge.runtimes.jvm import JvmRuntime
from mlbridge.runtimes.jvm.command import JAR, JvmOptions, spark_jars, worker_command
from mlbridge.signature import Signature

FIT = Path(__file__).parent / "spark_models" / "fit.py"
UNEXPRESSED = ["runs-of-empty-words", "embedded-words", "topics"]
CASES = ["credit-boosted", "indexer-keep", "indexer-skip", "glr-gamma", "tree-categorical", "svc", "kmeans", "pca"]

pytestmark = [
    pytest.mark.jvm,
    pytest.mark.timeout(900),
    pytest.mark.skipif(not JAR.is_file(), reason="the jar is not built: make jvm"),
    pytest.mark.skipif(importlib.util.find_spec("pyspark") is None, reason="pyspark is not installed"),
    pytest.mark.skipif(shutil.which("java") is None, reason="Java is not installed"),
]


@pytest.fixture(scope="module")
def fitted(tmp_path_factory):
    given = os.environ.get("MLBRIDGE_TEST_SPARK_FITTED")
    if given:
        return Path(given)
    folder = tmp_path_factory.mktemp("spark")
    done = subprocess.run([sys.executable, str(FIT), str(folder), *CASES, *UNEXPRESSED], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-4000:]
    return folder


def case(fitted, name):
    folder = fitted / name
    signature = Signature.from_json((folder / "signature.json").read_text())
    expected = json.loads((folder / "expected.json").read_text())
    feeds = {k: v.astype(object) if v.dtype.kind == "U" else v for k, v in np.load(folder / "feeds.npz", allow_pickle=False).items()}
    return folder / "model", signature, feeds, expected


def compare(signature, expected, got):
    """Spark against itself: equal to the last bits of a sum."""
    rows = np.array(expected["rows"], int)
    total = len(next(iter(got.values())))
    gone = np.setdiff1d(np.arange(total), rows)
    for spec in signature.outputs:
        cells, mine = expected["outputs"][spec.name], got[spec.name]
        if spec.categorical:
            levels = list(spec.columns[0].categories)
            assert [levels[i] for i in mine[rows]] == [c[0] if isinstance(c[0], str) else int(c[0]) for c in cells]
            assert (mine[gone] == -1).all()
            continue
        want = np.array([np.concatenate([np.atleast_1d(np.nan if v is None else v) for v in row]) for row in cells], dtype=float)
        if spec.name == "decision" and len(spec.shape) == 1:
            want = want[:, 1]
        np.testing.assert_allclose(mine[rows].reshape(want.shape), want, rtol=1e-12, err_msg=spec.name)
        if mine.dtype.kind == "f":
            assert np.isnan(mine[gone]).all()


@pytest.fixture(scope="module")
def runtime():
    """One process for all folders: it lives as long as one session does."""
    held = []
    yield lambda path, signature: held.append(JvmRuntime().load(open_artifact(path), signature=signature)) or held[-1]
    for session in held:
        session.close()


@pytest.mark.parametrize("name", [*CASES, *UNEXPRESSED])
def test_a_saved_folder_answers_what_spark_answered(fitted, runtime, name):
    model, signature, feeds, expected = case(fitted, name)
    compare(signature, expected, runtime(model, signature).run(feeds))


@pytest.mark.parametrize("name", UNEXPRESSED)
def test_what_onnx_cannot_say_is_refused_by_name(fitted, name, tmp_path):
    refused = {"runs-of-empty-words": "NGram", "embedded-words": "Word2Vec", "topics": "LDAModel"}
    model, signature, _, _ = case(fitted, name)
    framework = SparkFramework()
    with pytest.raises(errors.ConversionError, match=refused[name]):
        framework.convert(framework.read(open_artifact(model)), tmp_path, signature=signature)


def test_zero_rows_in_zero_rows_out(fitted, runtime):
    model, signature, feeds, _ = case(fitted, "tree-categorical")
    got = runtime(model, signature).run({k: v[:0] for k, v in feeds.items()})
    assert all(len(v) == 0 for v in got.values())


def test_outputs_asked_for_come_alone(fitted, runtime):
    model, signature, feeds, _ = case(fitted, "credit-boosted")
    assert list(runtime(model, signature).run({k: v[:2] for k, v in feeds.items()}, outputs=["label"])) == ["label"]


def test_the_uri_takes_the_signature_from_a_sample(fitted, runtime):
    model, signature, feeds, expected = case(fitted, "tree-categorical")
    runtime(model, signature)  # keeps the process
    sample = {}
    for spec in signature.inputs:
        for i, column in enumerate(spec.columns):
            values = feeds[spec.name][:3, i]
            sample[column.name] = values if column.categories is None else [column.categories[v] for v in np.clip(values, 0, 1)]
    with mb.load(f"jvm:{model}", trust="code", sample=sample) as native:
        compare(native.signature, expected, native.run(feeds))
        assert native.device == "jvm"


def test_a_folder_without_input_types_says_so(fitted):
    with pytest.raises(errors.InputError, match="input types"):
        JvmRuntime().load(open_artifact(fitted / "kmeans" / "model"))


def test_a_folder_never_runs_in_a_jvm_below_trust_code(fitted):
    with pytest.raises(errors.UntrustedArtifactError):
        mb.load(f"jvm:{fitted / 'kmeans' / 'model'}")


def test_the_jvms_server_hosts_folders_and_python_asks_it(fitted, tmp_path):
    """By the command that docs/interop.md names: spark-submit brings Spark's class path and what it opens of Java."""
    import pyspark

    submit = Path(pyspark.__file__).parent / "bin/spark-submit"
    launch = [str(submit), "--class", "dev.mlbridge.server.Main", str(JAR)]
    names = ["credit-boosted", "topics"]
    arguments = []
    for name in names:
        arguments += [f"{name}={fitted / name / 'model'}", "--signature", f"{name}={fitted / name / 'signature.json'}"]
    environment = {k: v for k, v in os.environ.items() if k != "SPARK_HOME"} | {
        "SPARK_LOCAL_IP": "127.0.0.1",
        "PYSPARK_PYTHON": sys.executable,
    }
    with jvm_host.Host(tmp_path, *arguments, launch=launch, environment=environment) as host:
        for name in names:
            _, signature, feeds, expected = case(fitted, name)
            with mb.load(host.uri(name)) as model:
                assert model.signature == signature
                compare(signature, expected, model.run(feeds))
        host.process.terminate()
        assert host.process.wait(60) == 0  # drained


def test_a_damaged_folder_is_an_artifact_error(fitted, runtime, tmp_path):
    model, signature, _, _ = case(fitted, "kmeans")
    broken = shutil.copytree(model, tmp_path / "broken")
    for part in broken.rglob("*.parquet"):
        part.write_bytes(part.read_bytes()[:40])
    for crc in broken.rglob("*.crc"):
        crc.unlink()
    with pytest.raises(errors.ArtifactError, match="Spark"):
        runtime(broken, signature)


def test_a_missing_spark_names_the_command(tmp_path):
    with pytest.raises(errors.MissingDependencyError) as caught:
        spark_jars(str(tmp_path))
    assert "SPARK_HOME" in caught.value.hint


def test_spark_home_is_taken_where_pyspark_is_absent(monkeypatch, tmp_path):
    (tmp_path / "jars").mkdir()
    (tmp_path / "jars/spark-mllib_2.13-9.jar").write_bytes(b"")
    monkeypatch.setenv("SPARK_HOME", str(tmp_path))
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    command = worker_command(JvmOptions(spark=True))
    assert str(tmp_path / "jars" / "*") in " ".join(command.argv)
