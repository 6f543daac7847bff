"""Signatures of scikit-learn's estimators: names, shapes, rules; and what cannot have one."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from sklearn.cluster import DBSCAN, KMeans
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import IsolationForest, RandomForestClassifier
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LinearRegression, LogisticRegression, Perceptron
from sklearn.mixture import GaussianMixture
from sklearn.neighbors import KernelDensity
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler
from sklearn.svm import LinearSVC
from sklearn_check import FRAMEWORK, parity

from mlbridge.errors import SignatureError

X = np.random.default_rng(0).normal(size=(60, 3))
TARGET = X[:, 0] - X[:, 1]
CLASSES = np.array(["ant", "bee", "cat"])[np.digitize(TARGET, [-0.5, 0.5])]


def _outputs(model):
    return [str(s) for s in FRAMEWORK.infer(model, None).outputs]


@pytest.mark.parametrize(
    ("model", "y", "want"),
    [
        (LinearRegression(), TARGET, ["prediction: float64[rows]"]),
        (LinearRegression(), np.stack([TARGET, TARGET], 1), ["prediction: float64[rows, 2]"]),
        (LogisticRegression(), CLASSES, ["label: int32[rows]", "probabilities: float64[rows, 3]"]),
        (Perceptron(), CLASSES, ["label: int32[rows]", "decision: float64[rows, 3]"]),
        (LinearSVC(), TARGET > 0, ["label: int32[rows]", "decision: float64[rows]"]),
        (KMeans(2), None, ["cluster: int64[rows]"]),
        (GaussianMixture(2), None, ["cluster: int64[rows]", "probabilities: float64[rows, 2]"]),
        (IsolationForest(n_estimators=3), None, ["label: int32[rows]", "score: float64[rows]"]),
        (StandardScaler(), None, ["transformed: float64[rows, 3]"]),
        (KernelDensity(), None, ["score: float64[rows]"]),
    ],
    ids=lambda v: type(v).__name__ if hasattr(v, "get_params") else "",
)
def test_outputs_are_named_by_kind(model, y, want):
    assert _outputs(model.fit(X, y) if y is not None else model.fit(X)) == want


def test_labels_are_the_classes_in_the_models_order():
    label, probabilities = FRAMEWORK.infer(LogisticRegression().fit(X, CLASSES), None).outputs
    assert label.columns[0].categories == ("ant", "bee", "cat")
    assert [c.name for c in probabilities.columns] == ["ant", "bee", "cat"]


def test_a_missing_value_is_allowed_only_where_the_model_answers_one():
    holes = np.where(np.random.default_rng(1).random(X.shape) < 0.2, np.nan, X)
    imputed = make_pipeline(SimpleImputer(), LogisticRegression()).fit(holes, CLASSES)
    assert FRAMEWORK.infer(imputed, None).inputs[0].missing == "allow"
    assert FRAMEWORK.infer(LogisticRegression().fit(X, CLASSES), None).inputs[0].missing == "refuse"


def test_a_missing_value_that_passes_through_is_allowed_on_the_output():
    assert FRAMEWORK.infer(StandardScaler().fit(X), None).outputs[0].missing == "allow"


def test_the_missing_rule_is_tried_in_each_column():
    table = pd.DataFrame(X, columns=list("abc"))
    columns = ColumnTransformer([("a", SimpleImputer(), ["a"])], remainder="passthrough")
    model = make_pipeline(columns, LogisticRegression()).fit(table, CLASSES)
    rules = {c.name: s.missing for s in FRAMEWORK.infer(model, table).inputs for c in s.columns}
    assert rules == {"a": "allow", "b": "refuse", "c": "refuse"}


@pytest.mark.parametrize(
    ("model", "match"),
    [(LogisticRegression(), "not fitted"), (DBSCAN().fit(X), "neither predicts"), (FunctionTransformer(), "how many features")],
    ids=["unfitted", "no new rows", "any width"],
)
def test_what_has_no_signature_says_why(model, match):
    with pytest.raises(SignatureError, match=match):
        FRAMEWORK.infer(model, None)


def test_a_sample_of_another_width_is_refused():
    with pytest.raises(SignatureError, match="takes 3 features"):
        FRAMEWORK.infer(LogisticRegression().fit(X, CLASSES), X[:, :2])


def test_fractional_classes_are_a_plain_output():
    model = RandomForestClassifier(5, random_state=0).fit(X, np.array([0.5, 1.5])[(TARGET > 0).astype(int)].astype(str))
    assert parity(model).verified
    numbers = LinearSVC().fit(X, TARGET > 0)
    assert FRAMEWORK.infer(numbers, None).outputs[0].columns[0].categories == (False, True)


def test_native_outputs_come_in_the_declared_order_and_dtypes():
    model = LogisticRegression().fit(X, CLASSES)
    signature = FRAMEWORK.infer(model, None)
    answers = FRAMEWORK.native(model, signature=signature)({"features": X})
    assert [(k, v.dtype.name, v.shape) for k, v in answers.items()] == [("label", "int32", (60,)), ("probabilities", "float64", (60, 3))]
    np.testing.assert_array_equal(answers["probabilities"], model.predict_proba(X))
