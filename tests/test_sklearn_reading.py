"""Files: skops with named types, joblib and pickle; what is broken is an ArtifactError."""

from __future__ import annotations

import pickle

import joblib
import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import FunctionTransformer
from sklearn_check import FRAMEWORK
from skops import io

from mlbridge.artifact import open_artifact
from mlbridge.errors import ArtifactError, UntrustedArtifactError

X = np.random.default_rng(0).normal(size=(30, 3))
MODEL = LogisticRegression().fit(X, X[:, 0] > 0)


@pytest.mark.parametrize("kind", ["skops", "joblib", "joblib-compressed", "pickle"])
def test_a_saved_model_reads_back(tmp_path, kind):
    path = tmp_path / "model.bin"
    if kind == "skops":
        io.dump(MODEL, path)
    elif kind == "pickle":
        path.write_bytes(pickle.dumps(MODEL))
    else:
        joblib.dump(MODEL, path, compress=3 if "compressed" in kind else 0)
    source = open_artifact(path)
    assert source.format == ("skops" if kind == "skops" else "pickle")
    np.testing.assert_array_equal(FRAMEWORK.read(source).predict_proba(X), MODEL.predict_proba(X))


def test_a_skops_file_with_other_types_names_them(tmp_path):
    path = tmp_path / "model.skops"
    io.dump(FunctionTransformer(np.linalg.norm).fit(X), path)
    with pytest.raises(UntrustedArtifactError, match="norm"):
        FRAMEWORK.read(open_artifact(path))


def test_named_types_are_trusted(tmp_path):
    path = tmp_path / "model.skops"
    io.dump(FunctionTransformer(np.linalg.norm).fit(X), path)
    types = io.get_untrusted_types(file=path)
    assert FRAMEWORK.read(open_artifact(path), trusted_types=types).func is np.linalg.norm


@pytest.mark.parametrize("kind", ["skops", "pickle"])
def test_a_truncated_file_is_an_artifact_error(tmp_path, kind):
    path = tmp_path / "model.bin"
    if kind == "skops":
        io.dump(MODEL, path)
    else:
        path.write_bytes(pickle.dumps(MODEL))
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(ArtifactError):
        FRAMEWORK.read(open_artifact(path))


def test_recognising_a_model_needs_only_its_class_name():
    assert FRAMEWORK.accepts(MODEL)
    assert not FRAMEWORK.accepts(object())
    assert not FRAMEWORK.accepts(LogisticRegression)


def test_boosters_with_the_same_interface_are_left_to_their_own_framework():
    xgboost = pytest.importorskip("xgboost")
    assert not FRAMEWORK.accepts(xgboost.XGBClassifier())


class _Ours(LogisticRegression):
    pass


def test_a_subclass_of_ones_own_is_accepted():
    assert FRAMEWORK.accepts(_Ours())
