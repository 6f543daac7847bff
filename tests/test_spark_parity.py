"""Converted Spark models answer what Spark's own transform answers, on real rows and on probe rows."""

from __future__ import annotations

import importlib.util
import json
import os
import random
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from mlbridge.artifact import open_artifact
from mlbridge.signature import Signature

pytest.importorskip("pyarrow", reason="pyarrow is not installed")
ort = pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")

FIT = Path(__file__).parent / "spark_models" / "fit.py"
TOLERANCE = 1e-9
IN_CI = 64  # of the cases; all of them under `full`


def _cases():
    spec = importlib.util.spec_from_file_location("spark_cases", FIT.with_name("cases.py"))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


_MODULE = _cases()
CASES, RAISES, RIVALS = _MODULE.CASES, _MODULE.RAISES, _MODULE.RIVALS
# these carry the claims of the tests below; the others are drawn
_ALWAYS = [
    "tree-categorical", "forest-class-categorical", "glr-binomial-probit", "credit-boosted", "indexer-keep", "indexer-skip", "words-runs",
    "words-tokenizer", "words-classified", "scalers-idle", "polynomial-missing", "interaction-missing", "logistic-one-class",
    "logistic-multi-infinite", "logistic-thresholds-zero", "one-vs-rest-missing", "one-vs-rest-of-two", "isotonic-element",
    "assembler-missing-inside", *RIVALS,
]  # fmt: skip
_DRAWN = random.Random(20).sample(sorted(set(CASES) - set(_ALWAYS)), IN_CI - len(_ALWAYS))
SAMPLE = sorted({*_ALWAYS, *_DRAWN})

pytestmark = [
    pytest.mark.jvm,
    pytest.mark.timeout(1800),  # the first test waits for Spark to fit all of them
    pytest.mark.skipif(importlib.util.find_spec("pyspark") is None, reason="pyspark is not installed"),
    pytest.mark.skipif(shutil.which("java") is None, reason="Java is not installed: Spark fits the models of this test"),
]


def _fit(folder: Path, names: list[str]) -> Path:
    given = os.environ.get("MLBRIDGE_TEST_SPARK_FITTED")  # a folder of an earlier run, while working on the converter
    if given:
        return Path(given)
    done = subprocess.run([sys.executable, str(FIT), str(folder), *names], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-4000:]
    return folder


@pytest.fixture(scope="session")
def fitted(tmp_path_factory):
    """One Spark session fits the sample and answers."""
    return _fit(tmp_path_factory.mktemp("spark"), [*SAMPLE, *RAISES])


@pytest.fixture(scope="session")
def fitted_rest(tmp_path_factory):
    """One more, under `full`, does the rest."""
    return _fit(tmp_path_factory.mktemp("spark"), sorted(set(CASES) - set(SAMPLE)))


def converted(folder: Path, tmp_path: Path, signature: Signature):
    from mlbridge.frameworks.spark import SparkFramework

    framework = SparkFramework()
    artifact = open_artifact(folder / "model")
    path = framework.convert(framework.read(artifact), tmp_path, signature=signature)
    artifact.close()
    return ort.InferenceSession(str(path), providers=["CPUExecutionProvider"])


def relative_error(got: np.ndarray, want: np.ndarray) -> float:
    """Design section 7: |a-b| / max(|b|, 1e-3 max|b| of the column); infinities and NaN must coincide."""
    got, want = got.reshape(len(got), -1), want.reshape(len(want), -1)
    assert got.shape == want.shape
    special = ~np.isfinite(want)
    np.testing.assert_array_equal(got[special], want[special])
    got, want = np.where(special, 0, got), np.where(special, 0, want)
    scale = np.maximum(np.abs(want), 1e-3 * np.abs(want).max(axis=0, initial=0))
    return float((np.abs(got - want) / np.where(scale == 0, 1, scale)).max(initial=0))


def flat(cells):
    return np.array([np.concatenate([np.atleast_1d(np.nan if v is None else v) for v in row]) for row in cells], dtype=float)


def check(folder: Path, tmp_path: Path) -> float:
    failures = json.loads((folder.parent / "failures.json").read_text())
    assert folder.name not in failures, failures[folder.name]
    signature = Signature.from_json((folder / "signature.json").read_text())
    expected = json.loads((folder / "expected.json").read_text())
    feeds = dict(np.load(folder / "feeds.npz"))
    session = converted(folder, tmp_path, signature)
    got = dict(zip((s.name for s in signature.outputs), session.run(None, feeds), strict=True))
    rows = np.array(expected["rows"], int)
    gone = np.setdiff1d(np.arange(len(next(iter(feeds.values())))), rows)
    assert len(rows)
    worst = 0.0
    scores = next((n for n in ("probabilities", "decision") if n in expected["outputs"]), None)
    tied = ties(flat(expected["outputs"][scores])) if scores else np.zeros(len(rows), bool)
    for spec in signature.outputs:
        cells, mine = expected["outputs"][spec.name], got[spec.name]
        if spec.categorical:
            levels = [*spec.columns[0].categories]
            want = np.array([levels.index(c[0]) if isinstance(c[0], str) else int(c[0]) for c in cells])  # -1: OneVsRest without scores
            assert (mine[rows] == want)[~tied].all(), f"{spec.name}: {(mine[rows] != want)[~tied].sum()} of {len(rows)} differ"
            assert (mine[gone] == -1).all()
            continue
        want = flat(cells)
        if spec.name == "decision" and len(spec.shape) == 1:
            want = want[:, 1]  # Spark's (-m, m)
        if spec.name == "cluster":
            assert (mine[rows] == want.ravel()).all()
            continue
        worst = max(worst, relative_error(mine[rows], want))
        assert np.isnan(mine[gone]).all()
    assert worst <= TOLERANCE
    return worst


def ties(scores: np.ndarray) -> np.ndarray:
    top = np.sort(scores, axis=1)[:, -2:]
    return np.abs(top[:, 1] - top[:, 0]) <= TOLERANCE


@pytest.mark.parametrize("name", SAMPLE)
def test_the_onnx_form_answers_as_spark(fitted, name, tmp_path):
    check(fitted / name, tmp_path)


@pytest.mark.full
@pytest.mark.parametrize("name", sorted(set(CASES) - set(SAMPLE)))
def test_the_onnx_form_of_the_rest_answers_as_spark(fitted_rest, name, tmp_path):
    check(fitted_rest / name, tmp_path)


@pytest.mark.parametrize("name", sorted(RAISES))
def test_rows_that_raise_in_spark_raise_in_onnx(fitted, name, tmp_path):
    from mlbridge.frameworks.spark import SparkFramework

    said = json.loads((fitted / name / "raises.json").read_text())
    assert all(said["raised"])
    framework, artifact = SparkFramework(), open_artifact(fitted / name / "model")
    signature = framework.infer(framework.read(artifact), None)
    session = converted(fitted / name, tmp_path, signature)
    for row in said["rows"]:
        feeds = {s.name: np.array([[row[c.name] for c in s.columns]]) for s in signature.inputs}
        with pytest.raises(Exception, match="out of data bounds"):
            session.run(None, feeds)


def test_a_live_model_is_read_as_its_saved_folder(fitted):
    live = json.loads((fitted / "credit-boosted" / "live.json").read_text())
    assert live == {"accepts": True, "estimator": False, "same": True}


@pytest.mark.parametrize("name", sorted(RIVALS))
def test_ours_is_right_where_onnxmltools_is_wrong(fitted, name, tmp_path):
    """Categorical splits, and the link of a generalised linear model."""
    check(fitted / name, tmp_path)
    expected = json.loads((fitted / name / "expected.json").read_text())
    want, theirs = flat(expected["outputs"]["prediction"]).ravel(), np.load(fitted / name / "onnxmltools.npy")[expected["rows"]]
    wrong = np.abs(theirs - want) > 1e-3 * np.abs(want).max()  # far beyond its float32
    assert wrong.mean() > 0.1
