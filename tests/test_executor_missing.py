"""Missing values are refused wherever they sit, whether the array or the smaller answer is searched for them."""

from __future__ import annotations

import warnings

import numpy as np
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.neural_network import MLPRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import mlbridge as mb
from mlbridge.errors import InputError
from mlbridge.executor.missing import carrying_outputs, showing_output
from mlbridge.executor.plans import Plan
from mlbridge.signature import Signature, TensorSpec

ROWS, WIDTH = 150, 30  # 4,500 values: the answer is searched where NaN shows in it


@pytest.fixture(scope="module")
def data():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(ROWS, WIDTH))
    return X, X @ rng.normal(size=WIDTH) + X[:, 0] * X[:, 1]


FAMILIES = {
    "linear regression": (LinearRegression(), True),
    "logistic regression": (LogisticRegression(), True),
    "scaler + logistic regression": (make_pipeline(StandardScaler(), LogisticRegression()), True),
    "network": (MLPRegressor(hidden_layer_sizes=(8,), max_iter=5, random_state=0), False),
    "forest": (RandomForestClassifier(5, max_depth=3, random_state=0), False),
}


@pytest.fixture(scope="module", params=FAMILIES)
def family(request, data):
    """A model that refuses missing values, its estimator, its rows, and whether its answer is searched."""
    X, y = data
    estimator, shows = FAMILIES[request.param]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # five rounds do not converge, and need not
        estimator.fit(X, y > 0 if hasattr(estimator, "predict_proba") else y)
    with mb.wrap(estimator, sample=X) as found:
        inputs = [TensorSpec(s.name, s.dtype, s.shape, s.columns, "refuse", s.rounding) for s in found.signature.inputs]
        found._session.signature = found.signature.replace(inputs=tuple(inputs))  # a forest of scikit-learn's own takes NaN
        with mb.Model(found._session, runtime=found._runtime) as model:
            yield model, estimator, X.astype(inputs[0].dtype), shows


def _refused(model, x, row, column):
    value, x[row, column] = x[row, column], np.nan
    with pytest.raises(InputError, match=rf"1 missing value.*\({row}, {column}\)|1 missing value.*row {row}"):
        model.predict(x)
    x[row, column] = value


def test_the_answer_is_searched_only_where_a_nan_must_show(family):
    model, _, x, shows = family
    assert (model._session.shows_missing() is not None) == shows
    assert isinstance(model._exact[1](x), str) == shows
    assert model._exact[1](x[:4]) is True  # few values are searched as quickly themselves


def test_a_nan_in_any_column_is_refused(family):
    model, _, x, _ = family
    for row in (0, 1, ROWS // 2, ROWS - 1):
        for column in range(WIDTH):
            _refused(model, x, row, column)


def test_a_nan_in_any_row_is_refused(family):
    model, _, x, _ = family
    for row in range(ROWS):
        _refused(model, x, row, row % WIDTH)


@pytest.mark.parametrize("rows", [1, 2, 7, 64])
def test_a_nan_in_a_small_batch_is_refused(family, rows):
    model, _, x, _ = family
    for column in range(WIDTH):
        _refused(model, x[:rows].copy(), rows - 1, column)


def test_a_nan_in_an_array_with_gaps_is_refused(family):
    model, _, x, _ = family
    _refused(model, np.repeat(x, 2, axis=0)[::2], ROWS - 1, WIDTH - 1)
    _refused(model, np.asfortranarray(x), 3, 5)


def test_clean_rows_are_answered_as_the_estimator_answers(family):
    model, estimator, x, _ = family
    answer = model.predict(x)
    np.testing.assert_allclose(
        answer["probabilities"] if "probabilities" in answer else answer["prediction"],
        estimator.predict_proba(x) if "probabilities" in answer else estimator.predict(x),
        rtol=1e-9,
        atol=1e-12,
    )


def test_infinities_that_make_a_nan_in_the_answer_pass(family):
    model, _, x, _ = family
    x = x.copy()
    x[5, 0], x[5, 1] = np.inf, -np.inf
    assert all(len(v) == ROWS for v in model.predict(x).values())


def test_zero_rows_are_answered(family):
    model, _, x, _ = family
    assert all(len(v) == 0 for v in model.predict(x[:0]).values())


def test_another_plan_is_proved_anew_and_a_closed_session_shows_nothing(data):
    X, y = data
    with mb.wrap(LinearRegression().fit(X, y), sample=X) as model:
        session = model._session
        assert session.shows_missing() == "prediction"
        session.adopt(Plan(threads=1, spin_us=0))
        assert session.shows_missing() == "prediction"
        _refused(model, X.copy(), 4, 4)
    assert session.shows_missing() is None


# ---------------------------------------------------------------- the proof from the graph


def _graph(*nodes, outputs=("y",), kind=TensorProto.FLOAT, weights=(), inputs=("x",)):
    made = helper.make_graph(
        list(nodes),
        "g",
        [helper.make_tensor_value_info(n, TensorProto.FLOAT, ["rows", 8]) for n in inputs],
        [helper.make_tensor_value_info(n, kind, None) for n in outputs],
        [numpy_helper.from_array(np.asarray(v), k) for k, v in weights],
    )
    opsets = [helper.make_opsetid("", 21), helper.make_opsetid("ai.onnx.ml", 5)]
    return helper.make_model(made, opset_imports=opsets, ir_version=10)


def _one(op, *inputs, **attributes):
    return helper.make_node(op, list(inputs) or ["x"], ["y"], **attributes)


def _ml(op, **attributes):
    return helper.make_node(op, ["x"], ["y"], domain="ai.onnx.ml", **attributes)


V, M = ("v", np.linspace(0, 2, 8, dtype="f4")), ("m", np.eye(8, 3, dtype="f4"))  # zeros among the weights
SCORES = {"coefficients": [0.0, 1.0] * 8, "intercepts": [0.0, 1.0], "classlabels_ints": [0, 1]}

SHOWING = {
    **{op: _graph(_one(op)) for op in ("Identity", "Neg", "Abs", "Exp", "Log", "Sqrt", "Sigmoid", "Tanh", "Erf", "Softplus")},
    **{op: _graph(_one(op)) for op in ("Softmax", "LogSoftmax", "Flatten", "Transpose")},
    **{op: _graph(_one(op, "x", "v"), weights=[V]) for op in ("Add", "Sub", "Mul", "Div")},
    **{f"{op} by it": _graph(_one(op, "v", "x"), weights=[V]) for op in ("Sub", "Mul", "Div")},
    "MatMul": _graph(_one("MatMul", "x", "m"), weights=[M]),
    "Gemm": _graph(_one("Gemm", "x", "m"), weights=[M]),
    "Concat": _graph(_one("Concat", "x", "x", axis=1)),
    "Reshape": _graph(_one("Reshape", "x", "s"), weights=[("s", np.array([-1]))]),
    "ReduceSum": _graph(_one("ReduceSum", "x", "a"), weights=[("a", np.array([1]))]),
    "ReduceMean": _graph(_one("ReduceMean", "x", "a"), weights=[("a", np.array([1]))]),
    "LayerNormalization": _graph(_one("LayerNormalization", "x", "v"), weights=[V]),
    "Cast": _graph(_one("Cast", to=TensorProto.DOUBLE), kind=TensorProto.DOUBLE),
    "Scaler": _graph(_ml("Scaler", offset=[0.5] * 8, scale=[0.0, 2.0] * 4)),
    "LinearRegressor": _graph(_ml("LinearRegressor", coefficients=[0.0, 1.0] * 4, intercepts=[1.0])),
    "Normalizer": _graph(_ml("Normalizer", norm="L1")),
    **{
        f"LinearClassifier {p}": _graph(
            helper.make_node("LinearClassifier", ["x"], ["label", "y"], domain="ai.onnx.ml", post_transform=p, **SCORES)
        )
        for p in ("NONE", "LOGISTIC", "SOFTMAX", "SOFTMAX_ZERO", "PROBIT")
    },
}


@pytest.mark.parametrize("model", SHOWING.values(), ids=SHOWING)
def test_onnxruntime_shows_a_nan_wherever_the_proof_says_so(model):
    assert carrying_outputs(model) == ["y"]
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    for rows in (1, 5, 33):  # whole vectors, and what remains of them
        for row in {0, rows // 2, rows - 1}:
            for column in range(8):
                x = np.linspace(0.1, 1, rows * 8, dtype="f4").reshape(rows, 8)
                x[row, column] = np.nan
                assert np.isnan(session.run(["y"], {"x": x})[0]).any(), (rows, row, column)


SWALLOWING = {
    "Relu": _graph(_one("Relu")),
    "Clip": _graph(_one("Clip", "x", "low"), weights=[("low", np.float32(0))]),
    "Max": _graph(_one("Max", "x", "v"), weights=[V]),
    "Pow": _graph(_one("Pow", "x", "zero"), weights=[("zero", np.float32(0))]),
    "one column of several": _graph(_one("Gather", "x", "i", axis=1), weights=[("i", np.array([1]))]),
    "some columns of several": _graph(
        _one("Slice", "x", "from", "to", "axes"), weights=[("from", np.array([0])), ("to", np.array([7])), ("axes", np.array([1]))]
    ),
    "label": _graph(_one("ArgMax"), kind=TensorProto.INT64),
    "integers": _graph(_one("Cast", to=TensorProto.INT64), kind=TensorProto.INT64),
    "comparison": _graph(_one("Greater", "x", "v"), weights=[V], kind=TensorProto.BOOL),
    "choice": _graph(
        helper.make_node("IsNaN", ["x"], ["missing"]),
        helper.make_node("Where", ["missing", "v", "x"], ["filled"]),
        _one("MatMul", "filled", "m"),
        weights=[V, M],
    ),
    "product scaled by zero": _graph(_one("Gemm", "x", "m", "c", alpha=0.0), weights=[M, ("c", np.ones(3, "f4"))]),
    "added after a Gemm that does not read it": _graph(_one("Gemm", "w", "m", "x", beta=0.0), weights=[M, ("w", np.ones((8, 8), "f4"))]),
    "greatest norm": _graph(_ml("Normalizer", norm="MAX")),
    "imputer": _graph(_ml("Imputer", imputed_value_floats=[0.0], replaced_value_float=float("nan"))),
    "a namesake": _graph(helper.make_node("Add", ["x", "x"], ["y"], domain="com.example")),
    "one of two inputs": _graph(_one("Add", "x", "z"), inputs=("x", "z")),
    "nothing of it": _graph(_one("Add", "v", "v"), weights=[V]),
}


@pytest.mark.parametrize("model", SWALLOWING.values(), ids=SWALLOWING)
def test_a_graph_that_may_swallow_a_nan_is_not_believed(model):
    assert carrying_outputs(model) == []


class _Kernel:
    """A native session whose product drops NaN."""

    def run(self, names, feeds, options):
        return [np.nan_to_num(feeds["x"])[:, :1]]


def test_an_engine_that_drops_nan_is_found_out():
    signature = Signature([TensorSpec("x", "float32", ("rows", 8))], [TensorSpec("y", "float32", ("rows", 1))])
    model = _graph(_one("MatMul", "x", "m"), weights=[("m", np.ones((8, 1), "f4"))]).SerializeToString()
    native = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])._sess
    assert showing_output(native, model, signature) == "y"
    assert showing_output(_Kernel(), model, signature) is None
