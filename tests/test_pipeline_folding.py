"""Folding: chains of affine steps of a fused graph become one product, with the answers of the steps themselves."""

import contextlib

import numpy as np
import onnx
import onnxruntime
import pytest
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.preprocessing import StandardScaler

import mlbridge as mb
from mlbridge.conversion.graph import Graph
from mlbridge.pipeline.folding import fold
from mlbridge.signature import Signature, TensorSpec

RNG = np.random.default_rng(11)
X = RNG.normal(size=(80, 6))


def _ops(model):
    (stage,) = model.stages.values()
    return [n.op_type for n in onnx.load_model_from_string(stage._session.engine.model).graph.node]


@contextlib.contextmanager
def _line(x, *steps):
    stages = {}
    for i, (step, target) in enumerate(steps):
        fitted = step.fit(x) if target is None else step.fit(x, target)
        stages[f"s{i}"] = mb.wrap(fitted, sample=x)
        x = fitted.transform(x) if target is None else x
    with contextlib.ExitStack() as kept:
        for stage in stages.values():
            kept.enter_context(stage)
        with mb.Pipeline("line", stages) as p:
            yield p


def test_scalers_components_and_a_linear_model_become_one_product():
    y = X[:, 0] + X[:, 1] > 0
    line = _line(X, (StandardScaler(), None), (PCA(4), None), (StandardScaler(), None), (LogisticRegression(), y))
    with line as p, p.fuse(X) as fused:
        ops = _ops(fused)
        assert ops.count("MatMul") == 1
        assert not {"Sub", "Div"} & set(ops[: ops.index("MatMul") + 2])
        assert fused.report.verified
        fresh = RNG.normal(size=(300, 6)) * 3
        np.testing.assert_allclose(fused.predict(fresh)["probabilities"], p.predict(fresh)["probabilities"], rtol=1e-9)
        np.testing.assert_array_equal(fused.predict(fresh)["label"], p.predict(fresh)["label"])


def test_far_from_the_origin_the_steps_stay_apart():
    # x·s - mean·s loses the digits that x - mean keeps: the verification sees it, and the unfolded graph is taken
    far = X + 1e9
    with _line(far, (StandardScaler(), None), (Ridge(), X[:, 0])) as p, p.fuse(far) as fused:
        assert _ops(fused)[:2] == ["Sub", "Div"]
        assert fused.report.verified
        np.testing.assert_array_equal(fused.predict(far)["prediction"], p.predict(far)["prediction"])


def test_without_rows_to_verify_on_nothing_is_folded():
    with _line(X, (StandardScaler(), None), (Ridge(), X[:, 0])) as p:
        for stage in p.stages.values():
            stage.samples = None
        p.samples = None
        with p.fuse() as fused:
            assert _ops(fused)[:2] == ["Sub", "Div"]
            np.testing.assert_array_equal(fused.predict(X)["prediction"], p.predict(X)["prediction"])


def test_a_bottleneck_is_not_multiplied_out():
    g = _graph(200, 200)
    narrow = g.add("MatMul", "x", g.const(RNG.normal(size=(200, 3))))
    g.output("y", g.add("MatMul", narrow, g.const(RNG.normal(size=(3, 200)))))
    fold(g)
    assert [n.op_type for n in g.nodes].count("MatMul") == 2


def test_a_value_read_twice_is_still_made():
    g = _graph(6, 6)
    centred = g.add("Sub", "x", g.const(np.arange(6.0)))
    scaled = g.add("Div", centred, g.const(np.arange(1.0, 7.0)))
    g.output("y", g.add("Add", g.add("Mul", scaled, g.const(3.0)), centred))
    _same_after_folding(g)
    assert [n.op_type for n in g.nodes] == ["Sub", "Mul", "Add", "Identity"]


def test_a_column_widened_by_a_row_is_left_alone():
    g = _graph(1, 6)
    wide = g.add("Sub", "x", g.const(np.arange(6.0)))
    g.output("y", g.add("MatMul", g.add("Mul", wide, g.const(2.0)), g.const(RNG.normal(size=(6, 6)))))
    _same_after_folding(g)


def test_division_by_zero_and_missing_values_stay_what_they_were():
    g = _graph(2, 2)
    scaled = g.add("Div", g.add("Sub", "x", g.const(np.array([1.0, 2.0]))), g.const(np.array([0.0, 4.0])))
    g.output("y", g.add("Add", scaled, g.const(1.0)))
    _same_after_folding(g, rows=np.array([[1.0, 2.0], [2.0, np.nan], [np.inf, -np.inf], [-1.0, 0.0]]))


@pytest.mark.parametrize("seed", range(25))
def test_random_chains_answer_as_before(seed):
    rng = np.random.default_rng(seed)
    width = int(rng.integers(1, 6))
    g = _graph(width, None)
    value = "x"
    for _ in range(rng.integers(2, 8)):
        kind = rng.choice(["Add", "Sub", "Mul", "Div", "MatMul", "from", "Neg"])
        shape = [(), (1,), (width,), (1, width)][rng.integers(4)]
        constant = g.const(rng.uniform(0.5, 2.0, size=shape) * rng.choice([-1, 1]))
        if kind == "MatMul":
            into = int(rng.integers(1, 6))
            value, width = g.add("MatMul", value, g.const(rng.normal(size=(width, into)))), into
        elif kind == "from":
            value = g.add("Sub", constant, value)
        elif kind == "Neg":
            value = g.add("Neg", value)  # ends a chain
        else:
            value = g.add(kind, value, constant)
    g.signature = Signature(g.signature.inputs, [TensorSpec("y", "float64", ("rows", width))])
    g.output("y", value)
    _same_after_folding(g)


def _graph(width, out):
    outputs = [TensorSpec("y", "float64", ("rows", out or 1))]
    return Graph(Signature([TensorSpec("x", "float64", ("rows", width))], outputs))


def _same_after_folding(graph, rows=None):
    x = RNG.normal(size=(40, graph.signature.inputs[0].shape[1])) if rows is None else rows
    want = _run(graph, x)
    before = len(graph.nodes)
    fold(graph)
    assert len(graph.nodes) <= before
    np.testing.assert_allclose(_run(graph, x), want, rtol=1e-11, atol=1e-12)


def _run(graph, x):
    made = graph.model()
    onnx.checker.check_model(made)
    return onnxruntime.InferenceSession(made.SerializeToString(), providers=["CPUExecutionProvider"]).run(None, {"x": x})[0]
