"""Parameters and combinations that plain converters get wrong: each is exact, or refused by type; none is silently wrong."""

from __future__ import annotations

import itertools
import random
import warnings

import numpy as np
import pytest
from sklearn import (
    calibration,
    compose,
    decomposition,
    discriminant_analysis,
    ensemble,
    feature_selection,
    gaussian_process,
    impute,
    isotonic,
    kernel_approximation,
    linear_model,
    manifold,
    mixture,
    multiclass,
    multioutput,
    naive_bayes,
    neighbors,
    neural_network,
    preprocessing,
    semi_supervised,
    svm,
    tree,
)
from sklearn.pipeline import make_pipeline
from sklearn_check import parity

from mlbridge.errors import ConversionError

rng = np.random.default_rng(0)
X = rng.normal(size=(150, 4))
HOLES = np.where(rng.random(X.shape) < 0.15, np.nan, X)
TARGET = X[:, 0] * 2 - X[:, 1] + 0.3 * rng.normal(size=150)
TWO = np.where(TARGET > 0, "yes", "no")
THREE = np.array(["ant", "bee", "cat"])[np.digitize(TARGET, [-1, 1])]
SEVERAL = np.stack([TARGET, X[:, 2]], axis=1)
LABELS = np.stack([TARGET > 0, X[:, 2] > 0, X[:, 3] > 1], axis=1).astype(int)
LOGIT = linear_model.LogisticRegression(max_iter=500)
TREE = tree.DecisionTreeClassifier(max_depth=3, random_state=0)
gp = gaussian_process.kernels


def _case(model, y=THREE, x=X):
    return pytest.param(model, x, y, id=repr(model).replace("\n", "").replace(" ", "")[:60])


CASES = [
    _case(LOGIT, TWO), _case(linear_model.LogisticRegression(solver="liblinear"), TWO), _case(linear_model.LogisticRegression(), THREE),
    _case(linear_model.SGDClassifier(loss="log_loss"), THREE), _case(linear_model.SGDClassifier(loss="modified_huber"), THREE),
    _case(linear_model.SGDClassifier(loss="modified_huber"), TWO), _case(linear_model.SGDClassifier(loss="log_loss"), TWO),
    _case(linear_model.RidgeClassifier(), LABELS), _case(linear_model.LinearRegression(), SEVERAL), _case(linear_model.Ridge(), SEVERAL),
    _case(linear_model.TweedieRegressor(power=1.5), np.exp(TARGET / 4)), _case(linear_model.TweedieRegressor(power=0), TARGET),
    _case(linear_model.LogisticRegression(), np.array([0.0, 1.0, 2.0])[np.digitize(TARGET, [-1, 1])]),
    _case(linear_model.LogisticRegression(), TARGET > 0), _case(svm.LinearSVC(), TWO),
    _case(discriminant_analysis.LinearDiscriminantAnalysis(), TWO), _case(discriminant_analysis.LinearDiscriminantAnalysis(), THREE),
    _case(discriminant_analysis.LinearDiscriminantAnalysis(solver="lsqr", shrinkage="auto"), TWO),
    _case(discriminant_analysis.QuadraticDiscriminantAnalysis(), TWO), _case(neighbors.NearestCentroid(priors="empirical"), THREE),
    _case(neighbors.NearestCentroid(shrink_threshold=0.1), TWO), _case(naive_bayes.GaussianNB(), TWO),
    _case(naive_bayes.ComplementNB(norm=True), TWO, np.abs(X)), _case(naive_bayes.BernoulliNB(binarize=0.3), THREE),
    _case(neighbors.KNeighborsClassifier(weights="distance"), THREE), _case(neighbors.KNeighborsClassifier(p=1), THREE),
    _case(neighbors.KNeighborsClassifier(p=3, algorithm="brute"), TWO), _case(neighbors.KNeighborsClassifier(metric="chebyshev"), TWO),
    _case(neighbors.KNeighborsClassifier(), LABELS), _case(neighbors.KNeighborsRegressor(weights="distance"), SEVERAL),
    _case(neighbors.RadiusNeighborsClassifier(radius=2.0, outlier_label="ant", weights="distance"), THREE),
    _case(neighbors.RadiusNeighborsRegressor(radius=2.0, weights="distance"), TARGET),
    _case(neighbors.KNeighborsTransformer(mode="connectivity")), _case(neighbors.RadiusNeighborsTransformer(mode="connectivity")),
    _case(impute.KNNImputer(weights="distance"), None, HOLES), _case(impute.KNNImputer(add_indicator=True), None, HOLES),
    _case(impute.SimpleImputer(strategy="median", add_indicator=True), None, HOLES),
    _case(impute.SimpleImputer(strategy="constant", fill_value=-5), None, HOLES),
    _case(impute.SimpleImputer(missing_values=0.0), None, np.floor(X)),
    _case(preprocessing.StandardScaler(with_mean=False), None, HOLES), _case(preprocessing.MinMaxScaler(clip=True)),
    _case(preprocessing.RobustScaler(), None, HOLES), _case(preprocessing.Normalizer("max")), _case(preprocessing.Normalizer("l1")),
    _case(preprocessing.PowerTransformer("box-cox"), None, np.exp(X)), _case(preprocessing.PowerTransformer(standardize=False), None, HOLES),
    _case(preprocessing.QuantileTransformer(n_quantiles=20), None, np.round(X)), _case(preprocessing.QuantileTransformer(n_quantiles=30), None, HOLES),
    _case(preprocessing.KBinsDiscretizer(4, encode="ordinal")), _case(preprocessing.KBinsDiscretizer(3, encode="onehot", strategy="uniform")),
    _case(preprocessing.PolynomialFeatures(3, interaction_only=True)), _case(preprocessing.PolynomialFeatures((2, 3), include_bias=False)),
    _case(preprocessing.SplineTransformer(n_knots=4, degree=2, include_bias=False)),
    _case(preprocessing.SplineTransformer(knots="quantile")), _case(preprocessing.FunctionTransformer(np.log1p), None, np.exp(X)),
    _case(preprocessing.OneHotEncoder(handle_unknown="ignore", drop="first"), None, np.round(X)),
    _case(preprocessing.OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=-1), None, np.round(HOLES)),
    _case(preprocessing.TargetEncoder(), TARGET, np.round(X)), _case(preprocessing.TargetEncoder(), THREE, np.round(X)),
    _case(decomposition.PCA(2, whiten=True)), _case(decomposition.IncrementalPCA(2)), _case(decomposition.FastICA(2, random_state=0)),
    _case(decomposition.KernelPCA(2, kernel="poly")), _case(decomposition.KernelPCA(2, kernel="cosine")),
    _case(decomposition.KernelPCA(2, kernel="sigmoid")), _case(manifold.Isomap(n_components=2)),
    _case(kernel_approximation.Nystroem("poly", n_components=10, random_state=0, degree=2, coef0=1)),
    _case(kernel_approximation.Nystroem("laplacian", n_components=10, random_state=0)),
    _case(svm.SVC(), TWO), _case(svm.SVC(), THREE), _case(svm.SVC(decision_function_shape="ovo"), THREE), _case(svm.SVC(break_ties=True), THREE),
    _case(svm.SVC(kernel="poly", degree=2), THREE), _case(svm.SVC(kernel="sigmoid"), TWO), _case(svm.NuSVC(kernel="linear"), THREE),
    _case(svm.SVR(kernel="poly"), TARGET),
    # away from the origin: around it terms of 225 cancel to 1e-5, and libsvm itself is wrong by 2.8e-9 of that (ours by 5e-10)
    _case(svm.OneClassSVM(kernel="linear"), None, X + 5),
    _case(gaussian_process.GaussianProcessRegressor(gp.Matern(nu=1.5) + gp.WhiteKernel(0.1)), TARGET),
    _case(gaussian_process.GaussianProcessRegressor(gp.RationalQuadratic() + gp.WhiteKernel(0.1), normalize_y=True), SEVERAL),
    _case(gaussian_process.GaussianProcessRegressor(2.0 * gp.DotProduct() ** 2 + gp.WhiteKernel(), alpha=0.1), TARGET),
    _case(gaussian_process.GaussianProcessClassifier(), TWO),
    _case(mixture.GaussianMixture(3, covariance_type="tied", random_state=0)), _case(mixture.GaussianMixture(3, covariance_type="diag", random_state=0)),
    _case(mixture.GaussianMixture(2, covariance_type="spherical", random_state=0)),
    _case(neural_network.MLPClassifier(max_iter=20, random_state=0), TWO), _case(neural_network.MLPClassifier(max_iter=20, random_state=0), LABELS),
    _case(neural_network.MLPRegressor(activation="tanh", max_iter=20, random_state=0), SEVERAL),
    _case(neural_network.MLPClassifier(activation="logistic", max_iter=20, random_state=0), THREE),
    _case(calibration.CalibratedClassifierCV(TREE, method="isotonic"), THREE), _case(calibration.CalibratedClassifierCV(svm.LinearSVC(), ensemble=False), TWO),
    _case(calibration.CalibratedClassifierCV(LOGIT, method="isotonic"), TWO), _case(isotonic.IsotonicRegression(out_of_bounds="nan"), TARGET, X[:, :1]),
    _case(multiclass.OneVsRestClassifier(svm.LinearSVC()), THREE), _case(multiclass.OneVsRestClassifier(LOGIT), LABELS),
    _case(multiclass.OneVsRestClassifier(LOGIT), TWO), _case(multiclass.OneVsOneClassifier(LOGIT), TWO), _case(multiclass.OneVsOneClassifier(TREE), THREE),
    _case(multiclass.OutputCodeClassifier(TREE, random_state=0), THREE), _case(multioutput.MultiOutputClassifier(TREE), LABELS),
    _case(multioutput.ClassifierChain(LOGIT, order=[2, 0, 1], chain_method="predict_proba"), LABELS),
    _case(multioutput.RegressorChain(linear_model.Ridge(), order=[1, 0]), SEVERAL),
    _case(ensemble.VotingClassifier([("a", LOGIT), ("b", TREE)], voting="hard", weights=[1, 2]), THREE),
    _case(ensemble.StackingClassifier([("a", LOGIT), ("b", svm.SVC())], passthrough=True, cv=2), THREE),
    _case(ensemble.StackingClassifier([("a", LOGIT), ("b", TREE)], cv=2), TWO),
    _case(ensemble.BaggingClassifier(svm.LinearSVC(), 4, max_features=0.5, random_state=0), THREE),
    _case(ensemble.BaggingClassifier(LOGIT, 4, max_features=0.5, random_state=0), TWO),
    _case(ensemble.AdaBoostClassifier(TREE, n_estimators=5, random_state=0), TWO), _case(ensemble.AdaBoostRegressor(n_estimators=5, random_state=0), TARGET),
    _case(feature_selection.RFE(svm.LinearSVC(), n_features_to_select=2), THREE), _case(feature_selection.RFECV(TREE, cv=2), TWO),
    _case(semi_supervised.LabelSpreading(kernel="knn"), LABELS[:, 0]),
    _case(compose.TransformedTargetRegressor(linear_model.Ridge(), transformer=preprocessing.StandardScaler()), SEVERAL),
    _case(compose.TransformedTargetRegressor(linear_model.Ridge(), transformer=preprocessing.QuantileTransformer(n_quantiles=20)), TARGET),
    _case(tree.DecisionTreeClassifier(random_state=0), LABELS, HOLES), _case(ensemble.RandomForestClassifier(10, random_state=0), TWO, HOLES),
    _case(make_pipeline(preprocessing.StandardScaler(), tree.DecisionTreeClassifier(random_state=0)), THREE, HOLES),
]  # fmt: skip


@pytest.mark.parametrize(("model", "x", "y"), CASES)
def test_a_variant_is_exact(model, x, y):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model.fit(x) if y is None else model.fit(x, y)
    report = parity(model, x)
    assert report.verified, report


REFUSALS = [
    (svm.SVC(probability=True), THREE), (preprocessing.QuantileTransformer(n_quantiles=20, output_distribution="normal"), None),
    (preprocessing.FunctionTransformer(np.linalg.det), None), (neighbors.KNeighborsClassifier(weights=lambda d: d + 1), TWO),
    (svm.SVC(kernel=lambda a, b: a @ b.T), TWO), (calibration.CalibratedClassifierCV(LOGIT, method="temperature"), TWO),
    (ensemble.GradientBoostingRegressor(n_estimators=3, init=linear_model.Ridge()), TARGET),
    (neighbors.KNeighborsClassifier(metric="canberra"), TWO), (preprocessing.SplineTransformer(extrapolation="linear"), None),
]  # fmt: skip


@pytest.mark.parametrize(("model", "y"), REFUSALS, ids=lambda v: type(v).__name__)
def test_what_has_no_exact_form_is_refused_by_type(model, y):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        inputs = X if not isinstance(getattr(model, "func", None), type(np.linalg.det)) else X[:4]
        if isinstance(model, preprocessing.FunctionTransformer):
            model = make_pipeline(preprocessing.StandardScaler(), preprocessing.FunctionTransformer(_squash))
        model.fit(inputs) if y is None else model.fit(inputs, y)
        with pytest.raises(ConversionError):
            parity(model, inputs)


def _squash(x):
    return x / 3


class _Ours(linear_model.Ridge):
    def predict(self, X):
        return super().predict(X) + 1


def test_a_subclass_with_its_own_predict_is_refused():
    with pytest.raises(ConversionError):
        parity(_Ours().fit(X, TARGET))


STEPS = [
    preprocessing.StandardScaler(), preprocessing.MinMaxScaler(), preprocessing.MaxAbsScaler(), preprocessing.RobustScaler(), preprocessing.Normalizer(),
    preprocessing.PolynomialFeatures(2), preprocessing.PowerTransformer(), preprocessing.QuantileTransformer(n_quantiles=30), preprocessing.KBinsDiscretizer(4, encode="onehot-dense"),
    preprocessing.SplineTransformer(n_knots=4), decomposition.PCA(3), decomposition.FastICA(3, random_state=0), decomposition.TruncatedSVD(3),
    feature_selection.SelectKBest(k=3), feature_selection.VarianceThreshold(), kernel_approximation.Nystroem(n_components=20, random_state=0),
    kernel_approximation.RBFSampler(n_components=20, random_state=0), preprocessing.Binarizer(), impute.SimpleImputer(add_indicator=True),
]  # fmt: skip
MODELS = [
    LOGIT, linear_model.RidgeClassifier(), linear_model.SGDClassifier(random_state=0), svm.SVC(), svm.LinearSVC(), naive_bayes.GaussianNB(),
    discriminant_analysis.LinearDiscriminantAnalysis(), neighbors.KNeighborsClassifier(), neighbors.NearestCentroid(), TREE,
    ensemble.RandomForestClassifier(5, random_state=0), ensemble.ExtraTreesClassifier(5, random_state=0),
    ensemble.GradientBoostingClassifier(n_estimators=4, random_state=0), ensemble.HistGradientBoostingClassifier(max_iter=4),
    ensemble.AdaBoostClassifier(n_estimators=4, random_state=0), ensemble.BaggingClassifier(n_estimators=3, random_state=0),
    neural_network.MLPClassifier(hidden_layer_sizes=(8,), max_iter=15, random_state=0), calibration.CalibratedClassifierCV(linear_model.RidgeClassifier(), cv=2),
    multiclass.OneVsRestClassifier(LOGIT), ensemble.StackingClassifier([("a", LOGIT), ("b", TREE)], cv=2), linear_model.Ridge(),
    linear_model.Lasso(alpha=0.01), svm.SVR(), neighbors.KNeighborsRegressor(), ensemble.RandomForestRegressor(5, random_state=0),
    ensemble.HistGradientBoostingRegressor(max_iter=4), neural_network.MLPRegressor(hidden_layer_sizes=(8,), max_iter=15, random_state=0),
]  # fmt: skip
PAIRS = list(itertools.product(range(len(STEPS)), range(len(MODELS))))
CHEAP = set(random.Random(0).sample(PAIRS, 120))
TIED = {"KBinsDiscretizer", "Binarizer"}  # few distinct rows: many stored rows are equally near, and which are taken is the library's whim


@pytest.mark.parametrize(
    "pair",
    [p if p in CHEAP else pytest.param(p, marks=pytest.mark.full) for p in PAIRS],
    ids=lambda p: f"{type(STEPS[p[0]]).__name__}-{type(MODELS[p[1]]).__name__}",
)
def test_a_step_before_a_model_is_exact(pair):
    from sklearn.base import clone, is_regressor

    step, model = clone(STEPS[pair[0]]), clone(MODELS[pair[1]])
    x = HOLES if isinstance(step, impute.SimpleImputer) else X
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        whole = make_pipeline(step, model).fit(x, TARGET if is_regressor(model) else THREE)
    report = parity(whole, x)
    if type(step).__name__ in TIED and type(model).__name__.startswith("KNeighbors"):
        assert not report.verified  # seen, hence never silent: the native route answers
    else:
        assert report.verified, report
