"""Steps of XGBoost and LightGBM inside scikit-learn's estimators become part of one verified graph."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from sklearn import calibration, compose, ensemble, impute, model_selection, multiclass, multioutput, pipeline, preprocessing
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn_check import FRAMEWORK, parity

import mlbridge as mb
from mlbridge.errors import ConversionError

lgb = pytest.importorskip("lightgbm")
xgb = pytest.importorskip("xgboost")
pd = pytest.importorskip("pandas")

ROWS = 240
_RNG = np.random.default_rng(0)
X = _RNG.normal(size=(ROWS, 5))
TWO = (X[:, 0] + X[:, 1] / 2 > 0).astype(int)
THREE = np.digitize(X[:, 0] + X[:, 2], [-0.7, 0.7])
REAL = 3 * X[:, 0] + X[:, 3] ** 2
TABLE = pd.DataFrame({
    "age": _RNG.integers(18, 80, ROWS).astype(float), "income": 1000 * _RNG.normal(size=ROWS),
    "city": pd.Categorical(_RNG.choice(list("abcdefgh"), ROWS)), "job": pd.Categorical(_RNG.choice(["x", "y", "z"], ROWS)),
})  # fmt: skip
TABLE.loc[::7, "age"] = np.nan
RISK = ((TABLE["income"] > 0) ^ (TABLE["city"] == "a")).astype(int)

BOOSTERS = {
    "xgboost": (
        lambda **k: xgb.XGBClassifier(n_estimators=8, max_depth=4, n_jobs=1, **k),
        lambda **k: xgb.XGBRegressor(n_estimators=8, max_depth=4, n_jobs=1, **k),
    ),
    "lightgbm": (
        lambda **k: lgb.LGBMClassifier(n_estimators=8, num_leaves=12, min_child_samples=4, n_jobs=1, verbose=-1, **k),
        lambda **k: lgb.LGBMRegressor(n_estimators=8, num_leaves=12, min_child_samples=4, n_jobs=1, verbose=-1, **k),
    ),
}


def columns(*, sparse: float = 0.3):
    """Return the usual preprocessing of a table; with `sparse=1` it hands a sparse matrix on."""
    numbers = pipeline.make_pipeline(impute.SimpleImputer(), preprocessing.StandardScaler())
    return compose.ColumnTransformer(
        [("n", numbers, ["age", "income"]), ("c", preprocessing.OneHotEncoder(handle_unknown="ignore"), ["city", "job"])],
        sparse_threshold=sparse,
    )


def named(*, booster):
    """Return a pipeline whose steps hand pandas tables on."""
    encode = ("c", preprocessing.OneHotEncoder(handle_unknown="ignore", sparse_output=False), ["city", "job"])
    table = compose.ColumnTransformer([("n", preprocessing.StandardScaler(), ["age", "income"]), encode])
    return pipeline.Pipeline([("a", table.set_output(transform="pandas")), ("b", booster)])


SEVERAL = np.c_[TWO, THREE > 1].astype(int)
CASES = {  # (classifier, regressor) -> fitted model, sample
    "pipeline": lambda c, r: (pipeline.make_pipeline(preprocessing.StandardScaler(), c()).fit(X, TWO), X),
    "pipeline of three classes": lambda c, r: (pipeline.make_pipeline(preprocessing.MinMaxScaler(), c()).fit(X, THREE), X),
    "pipeline of a regressor": lambda c, r: (pipeline.make_pipeline(preprocessing.StandardScaler(), r()).fit(X, REAL), X),
    "table": lambda c, r: (pipeline.make_pipeline(columns(), c()).fit(TABLE, RISK), TABLE),
    "sparse table": lambda c, r: (pipeline.make_pipeline(columns(sparse=1.0), c()).fit(TABLE, RISK), TABLE),
    "table handed on with names": lambda c, r: (named(booster=c()).fit(TABLE, RISK), TABLE),
    "soft vote": lambda c, r: (ensemble.VotingClassifier([("a", c()), ("b", LogisticRegression())], voting="soft").fit(X, THREE), X),
    "hard vote": lambda c, r: (ensemble.VotingClassifier([("a", c()), ("b", LogisticRegression())]).fit(X, THREE), X),
    "mean": lambda c, r: (ensemble.VotingRegressor([("a", r()), ("b", Ridge())]).fit(X, REAL), X),
    "sigmoid calibration": lambda c, r: (calibration.CalibratedClassifierCV(c(), cv=2).fit(X, TWO), X),
    "isotonic calibration": lambda c, r: (calibration.CalibratedClassifierCV(c(), cv=2, method="isotonic").fit(X, THREE), X),
    "stack": lambda c, r: (ensemble.StackingRegressor([("a", r()), ("b", Ridge())], cv=2, passthrough=True).fit(X, REAL), X),
    "search": lambda c, r: (model_selection.GridSearchCV(c(), {"learning_rate": [0.1, 0.3]}, cv=2).fit(X, TWO), X),
    "one against the rest": lambda c, r: (multiclass.OneVsRestClassifier(c()).fit(X, THREE), X),
    "bagging": lambda c, r: (ensemble.BaggingClassifier(c(), n_estimators=2, max_features=0.6, random_state=0).fit(X, THREE), X),
    "threshold": lambda c, r: (model_selection.FixedThresholdClassifier(c(), threshold=0.3).fit(X, TWO), X),
    "chain": lambda c, r: (multioutput.ClassifierChain(c()).fit(X, SEVERAL), X),
    "transformed target": lambda c, r: (compose.TransformedTargetRegressor(r(), func=np.log1p, inverse_func=np.expm1).fit(X, np.abs(REAL)), X),
}  # fmt: skip


@pytest.mark.parametrize("library", BOOSTERS)
@pytest.mark.parametrize("case", CASES)
def test_it_verifies_as_one_graph(case, library):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model, sample = CASES[case](*BOOSTERS[library])
    report = parity(model, sample)
    assert report.verified, report
    assert report.tolerance == (1e-5 if library == "xgboost" else 1e-9)  # XGBoost adds its leaves in float32
    if case in ("pipeline", "table", "search", "table handed on with names"):
        assert report.nodes_tested >= 0.99


def test_a_vote_of_both_libraries_over_categories_verifies():
    parts = [("a", BOOSTERS["xgboost"][0](enable_categorical=True)), ("b", BOOSTERS["lightgbm"][0]())]
    model = ensemble.VotingClassifier(parts, voting="soft").fit(TABLE, RISK)
    signature = FRAMEWORK.infer(model, TABLE)
    assert {c.name: c.categories for c in signature.input("categorical").columns} == {"city": tuple("abcdefgh"), "job": ("x", "y", "z")}
    assert parity(model, TABLE).verified


def test_string_classes_of_a_lightgbm_step_keep_their_names():
    model = pipeline.make_pipeline(preprocessing.StandardScaler(), BOOSTERS["lightgbm"][0]()).fit(X, np.array(["ant", "bee", "cat"])[THREE])
    with mb.convert(model, sample=X) as converted:
        answer = converted.predict(X)
        assert converted.route.runtime == "onnx"
    np.testing.assert_array_equal(answer["label"], model.predict(X))
    np.testing.assert_allclose(answer["probabilities"], model.predict_proba(X), rtol=1e-12)


def test_zeros_of_a_sparse_matrix_are_missing_to_xgboost_and_zero_to_lightgbm():
    whole = pd.DataFrame({"k": pd.Categorical(_RNG.choice(list("abcdefghij"), ROWS))})
    y = whole["k"].isin(list("aceg")).astype(int)
    for library, (classifier, _) in BOOSTERS.items():
        model = pipeline.make_pipeline(preprocessing.OneHotEncoder(), classifier()).fit(whole, y)
        with mb.convert(model, sample=whole) as converted:
            np.testing.assert_allclose(
                converted.predict(whole, outputs="probabilities")[:, 1], model.predict_proba(whole)[:, 1], rtol=1e-5, err_msg=library
            )


def test_a_step_no_framework_knows_is_refused_by_name(tmp_path):
    class Stranger(LogisticRegression):
        pass

    model = pipeline.make_pipeline(preprocessing.StandardScaler(), Stranger()).fit(X, TWO)
    with pytest.raises(ConversionError, match="Stranger"):
        FRAMEWORK.convert(model, tmp_path, signature=FRAMEWORK.infer(model, X))
