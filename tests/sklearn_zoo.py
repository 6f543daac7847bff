"""Fitted scikit-learn estimators for tests: every one of `all_estimators()` that answers new rows, on small seeded data."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np

METHODS = ("predict", "predict_proba", "decision_function", "transform")
_COUNTS = {
    "MultinomialNB",
    "ComplementNB",
    "CategoricalNB",
    "NMF",
    "MiniBatchNMF",
    "LatentDirichletAllocation",
    "AdditiveChi2Sampler",
    "TfidfTransformer",
}
_POSITIVE = {"GammaRegressor", "PoissonRegressor", "TweedieRegressor"}
_SEVERAL_TARGETS = {
    "MultiOutputRegressor", "MultiTaskElasticNet", "MultiTaskElasticNetCV", "MultiTaskLasso", "MultiTaskLassoCV", "RegressorChain",
    "CCA", "PLSCanonical", "PLSRegression",
}  # fmt: skip


def names() -> list[str]:
    """Return every estimator with a method that answers rows."""
    from sklearn.experimental import enable_halving_search_cv  # noqa: F401
    from sklearn.utils import all_estimators

    return [n for n, c in all_estimators() if any(hasattr(c, m) for m in METHODS)]


def data(seed: int = 0, rows: int = 120, width: int = 5) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return numbers, three string classes, and a real target."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(rows, width))
    target = x[:, 0] * 2 - x[:, 1] + 0.3 * rng.normal(size=rows)
    y = np.array(["ant", "bee", "cat"])[np.digitize(target, [-1.0, 1.0])]
    return x, y, target


def make(name: str) -> tuple[Any, Any]:
    """Return a fitted estimator and the sample it was fitted on."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return _make(name)


def _make(name: str) -> tuple[Any, Any]:
    from sklearn.base import is_classifier
    from sklearn.utils import all_estimators

    x, y, target = data()
    if name in _COUNTS:
        x = np.floor(np.abs(x) * 2)
        if name == "CategoricalNB":
            x = np.minimum(x, 4)
    special = _special(name, x, y, target)
    if special is not None:
        return special
    kind = dict(all_estimators())[name]
    model = kind(**_arguments(name))
    if name in _SEVERAL_TARGETS:
        return model.fit(x, np.stack([target, x[:, 2] - target], axis=1)), x
    if is_classifier(model):
        return model.fit(x, y), x
    if name in _POSITIVE:
        return model.fit(x, np.exp(target / 4)), x
    supervised = (
        hasattr(model, "predict") or name in ("NeighborhoodComponentsAnalysis", "PLSSVD", "TargetEncoder") or name.startswith("Select")
    )
    if name in (
        "NeighborhoodComponentsAnalysis",
        "SelectFdr",
        "SelectFpr",
        "SelectFwe",
        "SelectKBest",
        "SelectPercentile",
        "GenericUnivariateSelect",
    ):
        return model.fit(x, y), x
    return model.fit(x, target) if supervised else model.fit(x), x


def _arguments(name: str) -> dict[str, Any]:
    few = {"n_estimators": 8, "random_state": 0}
    table: dict[str, dict[str, Any]] = {
        "AdaBoostClassifier": few, "AdaBoostRegressor": few, "BaggingClassifier": few, "BaggingRegressor": few,
        "RandomForestClassifier": few, "RandomForestRegressor": few, "ExtraTreesClassifier": few, "ExtraTreesRegressor": few,
        "GradientBoostingClassifier": few, "GradientBoostingRegressor": few, "IsolationForest": few, "RandomTreesEmbedding": few,
        "HistGradientBoostingClassifier": {"max_iter": 8}, "HistGradientBoostingRegressor": {"max_iter": 8},
        "LocalOutlierFactor": {"novelty": True}, "MLPClassifier": {"max_iter": 40, "random_state": 0},
        "MLPRegressor": {"max_iter": 40, "random_state": 0}, "RadiusNeighborsClassifier": {"radius": 5.0, "outlier_label": "most_frequent"},
        "RadiusNeighborsRegressor": {"radius": 3.0}, "RadiusNeighborsTransformer": {"radius": 2.0},
        "NMF": {"n_components": 2, "max_iter": 500}, "MiniBatchNMF": {"n_components": 2}, "FastICA": {"random_state": 0},
        "SparsePCA": {"random_state": 0, "max_iter": 20}, "MiniBatchSparsePCA": {"random_state": 0, "max_iter": 5},
        "DictionaryLearning": {"n_components": 4, "max_iter": 5, "random_state": 0},
        "MiniBatchDictionaryLearning": {"n_components": 4, "max_iter": 5, "random_state": 0},
        "GaussianRandomProjection": {"n_components": 3, "random_state": 0}, "SparseRandomProjection": {"n_components": 3, "random_state": 0},
        "QuantileTransformer": {"n_quantiles": 50}, "Nystroem": {"n_components": 20, "random_state": 0},
        "KernelPCA": {"n_components": 3, "kernel": "rbf"}, "TruncatedSVD": {"n_components": 3}, "Isomap": {"n_components": 2},
        "BisectingKMeans": {"n_clusters": 4, "random_state": 0}, "KMeans": {"n_clusters": 4, "random_state": 0},
        "MiniBatchKMeans": {"n_clusters": 4, "random_state": 0}, "GaussianMixture": {"n_components": 3, "random_state": 0},
        "BayesianGaussianMixture": {"n_components": 3, "random_state": 0, "max_iter": 30}, "LatentDirichletAllocation": {"n_components": 3},
        "SkewedChi2Sampler": {"skewedness": 50.0, "random_state": 0}, "RBFSampler": {"random_state": 0, "n_components": 10},
        "PolynomialCountSketch": {"random_state": 0, "n_components": 10}, "DummyClassifier": {"strategy": "prior"},
        "AffinityPropagation": {"random_state": 0}, "FeatureAgglomeration": {"n_clusters": 3}, "HuberRegressor": {"max_iter": 1000},
        "GenericUnivariateSelect": {"mode": "k_best", "param": 3}, "SelectKBest": {"k": 3}, "LinearSVC": {"max_iter": 10000},
        "EllipticEnvelope": {"random_state": 0}, "BernoulliRBM": {"n_iter": 2, "random_state": 0}, "SelfTrainingClassifier": {},
        "GaussianProcessRegressor": {"alpha": 0.1}, "Birch": {"n_clusters": 3}, "TheilSenRegressor": {"random_state": 0, "max_subpopulation": 200},
    }  # fmt: skip
    return table.get(name, {})


def _special(name: str, x: np.ndarray, y: np.ndarray, target: np.ndarray) -> tuple[Any, Any] | None:
    """Return estimators that need others inside, or data of their own."""
    import sklearn.ensemble as ens
    import sklearn.linear_model as lin
    import sklearn.model_selection as sel
    from sklearn import calibration, compose, feature_selection, multiclass, multioutput, semi_supervised
    from sklearn.cross_decomposition import PLSSVD
    from sklearn.decomposition import PCA, SparseCoder
    from sklearn.experimental import enable_halving_search_cv  # noqa: F401
    from sklearn.feature_extraction import DictVectorizer, FeatureHasher
    from sklearn.feature_extraction.image import PatchExtractor
    from sklearn.isotonic import IsotonicRegression
    from sklearn.metrics.pairwise import rbf_kernel
    from sklearn.pipeline import FeatureUnion, Pipeline
    from sklearn.preprocessing import (
        KernelCenterer,
        LabelBinarizer,
        LabelEncoder,
        MultiLabelBinarizer,
        OneHotEncoder,
        OrdinalEncoder,
        StandardScaler,
        TargetEncoder,
    )
    from sklearn.tree import DecisionTreeClassifier

    clf, reg = lin.LogisticRegression(max_iter=500), lin.Ridge()
    pairs = [("a", lin.LogisticRegression(max_iter=500)), ("b", DecisionTreeClassifier(max_depth=3, random_state=0))]
    reals = [("a", lin.Ridge()), ("b", lin.Lasso())]
    binary = np.where(y == "ant", "no", "yes")
    several = np.stack([y == "ant", target > 0], axis=1).astype(int)
    grid = {"C": [0.1, 1.0]}
    whole = np.floor(np.abs(x))
    makers: dict[str, Any] = {
        "CalibratedClassifierCV": lambda: calibration.CalibratedClassifierCV(clf).fit(x, y),
        "ClassifierChain": lambda: multioutput.ClassifierChain(clf, order=[1, 0]).fit(x, several),
        "MultiOutputClassifier": lambda: multioutput.MultiOutputClassifier(clf).fit(x, several),
        "MultiOutputRegressor": lambda: multioutput.MultiOutputRegressor(reg).fit(x, np.stack([target, x[:, 2]], 1)),
        "RegressorChain": lambda: multioutput.RegressorChain(reg, order=[1, 0]).fit(x, np.stack([target, x[:, 2]], 1)),
        "ColumnTransformer": lambda: compose.ColumnTransformer([("a", StandardScaler(), [0, 2]), ("b", PCA(1), [1, 3])], remainder="passthrough").fit(x),
        "FeatureUnion": lambda: FeatureUnion([("a", StandardScaler()), ("b", PCA(2))]).fit(x),
        "Pipeline": lambda: Pipeline([("a", StandardScaler()), ("b", clf)]).fit(x, y),
        "FixedThresholdClassifier": lambda: sel.FixedThresholdClassifier(clf, threshold=0.3, pos_label="yes").fit(x, binary),
        "TunedThresholdClassifierCV": lambda: sel.TunedThresholdClassifierCV(clf).fit(x, (binary == "yes").astype(int)),
        "GridSearchCV": lambda: sel.GridSearchCV(clf, grid, cv=2).fit(x, y),
        "RandomizedSearchCV": lambda: sel.RandomizedSearchCV(clf, grid, n_iter=2, cv=2, random_state=0).fit(x, y),
        "HalvingGridSearchCV": lambda: sel.HalvingGridSearchCV(clf, grid, cv=2, random_state=0).fit(x, y),
        "HalvingRandomSearchCV": lambda: sel.HalvingRandomSearchCV(clf, grid, cv=2, random_state=0).fit(x, y),
        "OneVsRestClassifier": lambda: multiclass.OneVsRestClassifier(clf).fit(x, y),
        "OneVsOneClassifier": lambda: multiclass.OneVsOneClassifier(clf).fit(x, y),
        "OutputCodeClassifier": lambda: multiclass.OutputCodeClassifier(clf, random_state=0).fit(x, y),
        "RFE": lambda: feature_selection.RFE(clf, n_features_to_select=3).fit(x, y),
        "RFECV": lambda: feature_selection.RFECV(clf, cv=2).fit(x, y),
        "SelectFromModel": lambda: feature_selection.SelectFromModel(lin.Lasso(alpha=0.1)).fit(x, target),
        "SequentialFeatureSelector": lambda: feature_selection.SequentialFeatureSelector(reg, n_features_to_select=2, cv=2).fit(x, target),
        "SelfTrainingClassifier": lambda: semi_supervised.SelfTrainingClassifier(clf).fit(x, np.where(np.arange(len(y)) % 5 == 0, -1, several[:, 0])),
        "LabelPropagation": lambda: semi_supervised.LabelPropagation(gamma=1.0).fit(x, several[:, 0]),
        "LabelSpreading": lambda: semi_supervised.LabelSpreading(gamma=1.0).fit(x, several[:, 0]),
        "StackingClassifier": lambda: ens.StackingClassifier(pairs, clf, cv=2).fit(x, y),
        "StackingRegressor": lambda: ens.StackingRegressor(reals, reg, cv=2).fit(x, target),
        "VotingClassifier": lambda: ens.VotingClassifier(pairs, voting="soft").fit(x, y),
        "VotingRegressor": lambda: ens.VotingRegressor(reals, weights=[1, 2]).fit(x, target),
        "TransformedTargetRegressor": lambda: compose.TransformedTargetRegressor(reg, func=np.log1p, inverse_func=np.expm1).fit(x, np.abs(target)),
        "SparseCoder": lambda: SparseCoder(np.eye(x.shape[1]), transform_algorithm="threshold", transform_alpha=0.2).fit(x),
        "PLSSVD": lambda: PLSSVD(n_components=2).fit(x, x[:, :2] + target[:, None]),
        "TargetEncoder": lambda: TargetEncoder().fit(whole, target),
        "OneHotEncoder": lambda: OneHotEncoder(handle_unknown="ignore").fit(whole),
        "OrdinalEncoder": lambda: OrdinalEncoder().fit(whole),
    }  # fmt: skip
    if name in makers:
        return makers[name](), whole if name in ("TargetEncoder", "OneHotEncoder", "OrdinalEncoder") else x
    if name == "IsotonicRegression":
        return IsotonicRegression(out_of_bounds="clip").fit(x[:, :1], target), x[:, :1]
    if name == "KernelCenterer":
        k = rbf_kernel(x)
        return KernelCenterer().fit(k), k
    if name in ("LabelEncoder", "LabelBinarizer"):
        return {"LabelEncoder": LabelEncoder, "LabelBinarizer": LabelBinarizer}[name]().fit([1, 3, 7, 3]), np.array([1.0, 7.0])
    if name == "MissingIndicator" or name in ("SimpleImputer", "KNNImputer"):
        from sklearn import impute

        holes = np.where(np.random.default_rng(1).random(x.shape) < 0.2, np.nan, x)
        return getattr(impute, name)().fit(holes), holes
    if name in ("CountVectorizer", "TfidfVectorizer", "HashingVectorizer"):
        from sklearn.feature_extraction import text

        words = ["a cat sat", "the dog sat down", "cats and dogs"]
        return getattr(text, name)(**({"n_features": 16} if name.startswith("Hash") else {})).fit(words), words
    if name in ("DictVectorizer", "FeatureHasher"):
        records = [{"age": 1.5, "city": "a", "b=x": 2.0}, {"age": 3.0, "city": "b=c", "b=x": 0.0}, {"age": -1.0, "city": "d", "b=x": 1.0}]
        return (DictVectorizer() if name == "DictVectorizer" else FeatureHasher(n_features=8)).fit(records), records
    if name == "MultiLabelBinarizer":
        return MultiLabelBinarizer().fit([["ant", "bee"], ["cat"], []]), np.array([["ant", "bee"], ["cat", None]], dtype=object)
    if name == "PatchExtractor":
        return PatchExtractor(patch_size=(2, 3)), np.random.default_rng(0).normal(size=(2, 6, 7))
    return None
