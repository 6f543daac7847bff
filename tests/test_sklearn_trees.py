"""Trees of scikit-learn: exact on rows that take every branch of every node, missing values included."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.ensemble import (
    ExtraTreesClassifier,
    ExtraTreesRegressor,
    GradientBoostingClassifier,
    GradientBoostingRegressor,
    HistGradientBoostingClassifier,
    HistGradientBoostingRegressor,
    IsolationForest,
    RandomForestClassifier,
    RandomForestRegressor,
    RandomTreesEmbedding,
)
from sklearn.tree import DecisionTreeClassifier, DecisionTreeRegressor, ExtraTreeClassifier
from sklearn_check import FRAMEWORK, parity

rng = np.random.default_rng(0)
X = rng.normal(size=(400, 6))
HOLES = np.where(rng.random(X.shape) < 0.15, np.nan, X)
TARGET = X[:, 0] - X[:, 1] * X[:, 2] + 0.2 * rng.normal(size=400)
CLASSES = np.digitize(TARGET, [-0.5, 0.5])

BOTH = [
    DecisionTreeClassifier(random_state=0),
    DecisionTreeRegressor(random_state=0),
    ExtraTreeClassifier(random_state=0),
    RandomForestClassifier(30, random_state=0),
    RandomForestRegressor(20, random_state=0),
    ExtraTreesClassifier(20, random_state=0),
    ExtraTreesRegressor(20, random_state=0),
    HistGradientBoostingClassifier(max_iter=30),
    HistGradientBoostingRegressor(max_iter=30),
    IsolationForest(n_estimators=20, random_state=0),
    IsolationForest(n_estimators=20, max_features=0.5, random_state=0),
]
WHOLE = [
    GradientBoostingClassifier(n_estimators=20, random_state=0),
    GradientBoostingClassifier(n_estimators=20, init="zero", random_state=0),
    GradientBoostingRegressor(n_estimators=20, loss="huber", random_state=0),
    RandomTreesEmbedding(n_estimators=5, random_state=0),
    HistGradientBoostingRegressor(max_iter=20, loss="poisson"),
    HistGradientBoostingRegressor(max_iter=20, loss="gamma"),
]


def _target(model):
    if "poisson" in repr(model) or "gamma" in repr(model):
        return np.exp(TARGET)
    return TARGET if "Regressor" in type(model).__name__ else CLASSES


@pytest.mark.parametrize("model", [*BOTH, *WHOLE], ids=lambda m: type(m).__name__)
def test_trees_are_exact_on_path_rows(model):
    report = parity(model.fit(X, _target(model)))
    assert report.verified, report
    assert report.nodes_tested >= 0.99


@pytest.mark.parametrize("model", BOTH, ids=lambda m: type(m).__name__)
def test_trees_with_missing_values_are_exact_on_path_rows(model):
    model.fit(HOLES, _target(model))
    assert FRAMEWORK.infer(model, HOLES).input("features").missing == "allow"
    report = parity(model, HOLES)
    assert report.verified, report
    assert report.nodes_tested >= 0.99


def test_two_classes_and_exponential_loss_are_exact():
    model = GradientBoostingClassifier(n_estimators=15, loss="exponential", random_state=0).fit(X, CLASSES > 0)
    assert parity(model).verified


def test_several_outputs_are_exact():
    both = np.stack([CLASSES, CLASSES > 1], axis=1)
    report = parity(RandomForestClassifier(10, random_state=0).fit(X, both))
    assert report.verified, report
    assert [o.name for o in report.outputs] == ["label_0", "probabilities_0", "label_1", "probabilities_1"]
    assert parity(RandomForestRegressor(10, random_state=0).fit(X, np.stack([TARGET, -TARGET], axis=1))).verified


def test_a_forest_rounds_its_input_and_says_so():
    spec = FRAMEWORK.infer(RandomForestClassifier(5).fit(X, CLASSES), None).input("features")
    assert (spec.dtype, spec.rounding) == ("float32", "nearest")


def test_a_histogram_booster_does_not_round():
    spec = FRAMEWORK.infer(HistGradientBoostingClassifier(max_iter=3).fit(X, CLASSES), None).input("features")
    assert (spec.dtype, spec.rounding) == ("float64", "refuse")


def test_a_booster_with_categories_in_an_array_is_exact():
    inputs = X.copy()
    inputs[:, 1] = rng.integers(0, 6, len(X))
    model = HistGradientBoostingClassifier(max_iter=20, min_samples_leaf=3, categorical_features=[1]).fit(inputs, CLASSES)
    report = parity(model, inputs)
    assert report.verified, report


def test_a_single_leaf_converts():
    assert parity(DecisionTreeClassifier(max_depth=1).fit(X, np.zeros(len(X)))).verified


def test_trees_behind_steps_are_tested_on_both_sides_of_nearly_every_node():
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    report = parity(make_pipeline(StandardScaler(), RandomForestClassifier(20, random_state=0)).fit(X, CLASSES))
    assert report.verified, report
    assert report.nodes_tested >= 0.99


@pytest.mark.parametrize("damage", ["swap", "threshold", "classes"])
def test_path_rows_catch_a_damaged_pipeline(damage, tmp_path):
    import copy

    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    from mlbridge.conversion.verification import verify
    from mlbridge.frameworks.sklearn import tree_models

    model = make_pipeline(StandardScaler(), DecisionTreeClassifier(random_state=0)).fit(X, CLASSES)
    signature = FRAMEWORK.infer(model, None)
    feeds = FRAMEWORK.probe(model, signature=signature, seed=0)
    (tree,) = tree_models.forest_of(model[-1]).trees
    node = int(np.flatnonzero(tree.feature >= 0)[-1])
    wrong = {k: copy.copy(getattr(tree, k)) for k in ("left", "right", "threshold", "value")}
    if damage == "swap":
        wrong["left"][node], wrong["right"][node] = tree.right[node], tree.left[node]
    elif damage == "threshold":
        wrong["threshold"][node] += 1e-6
    else:
        wrong["value"] = tree.value[:, ::-1]
    from dataclasses import replace

    from sklearn_check import session

    right = tree_models.forest_of
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tree_models, "forest_of", lambda est: right(est)._replace(trees=[replace(tree, **wrong)]) if right(est) else None)
        path = FRAMEWORK.convert(model, tmp_path, signature=signature)
    report = verify(FRAMEWORK.native(model, signature=signature), session(path), signature, feeds, tolerance=1e-9)
    assert not report.verified
