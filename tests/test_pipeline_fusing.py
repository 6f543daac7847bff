"""Fusing: every maximal group of ONNX stages becomes one graph, verified; what cannot fuse stays as it is."""

import numpy as np
import pytest
from onnx import TensorProto, helper
from sklearn.decomposition import PCA
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.preprocessing import StandardScaler

import mlbridge as mb
from mlbridge.errors import ConversionError
from mlbridge.pipeline import mean, select, steps, vote, weighted
from mlbridge.signature import Signature, TensorSpec

RNG = np.random.default_rng(3)
X = RNG.normal(size=(50, 4))
Y = np.where(X[:, 0] > 0, "yes", "no")
Z = np.where(X[:, 1] > 0, "yes", "no")
W = np.where(X[:, 2] > 0, "yes", "no")
LOGITS = [LogisticRegression().fit(X, y) for y in (Y, Z, W)]
SLOPES = [LinearRegression().fit(X, X[:, i]) for i in (0, 1)]


@pytest.fixture
def closing():
    """Wrap models that close with the test."""
    made = []
    yield lambda m, x=X, **k: made.append(m if isinstance(m, mb.Model) else mb.wrap(m, sample=x, **k)) or made[-1]
    for m in made:
        m.close()


def _fan(closing, models, last, names="abc", output="probabilities"):
    stages = {f"m{i}": closing(m) for i, m in enumerate(models)} | {"last": closing(last)}
    wiring = {f"m{i}.features": "features" for i in range(len(models))}
    wiring |= {f"last.{names[i]}": f"m{i}.{output}" for i in range(len(models))}
    return stages, wiring


def _one_graph(p):
    with p, p.fuse(X) as fused:
        assert fused.report.verified
        assert [m.route.runtime for m in fused.stages.values()] == ["onnx"]
        return p.predict(X), fused.predict(X)


@pytest.mark.parametrize("kind", ["mean", "weighted"])
def test_averaging_ensembles_fuse_and_answer_as_by_hand(closing, kind):
    shares = [1.0] * 3 if kind == "mean" else [3.0, 1.0, 0.5]
    made = mean(3, classes=["no", "yes"]) if kind == "mean" else weighted(shares, classes=["no", "yes"])
    want = sum(w * m.predict_proba(X) for w, m in zip(shares, LOGITS)) / sum(shares)
    for got in _one_graph(mb.Pipeline("e", *_fan(closing, LOGITS, made))):
        np.testing.assert_allclose(got["probabilities"], want, rtol=1e-9)
        assert got["label"].tolist() == np.array(["no", "yes"])[want.argmax(axis=1)].tolist()


def test_a_vote_of_labels_fuses_and_answers_as_by_hand(closing):
    labels = np.array([m.predict(X) for m in LOGITS])
    want = np.where((labels == "yes").sum(axis=0) > 1, "yes", "no")
    for got in _one_graph(mb.Pipeline("v", *_fan(closing, LOGITS, vote(3, ["no", "yes"]), output="label"))):
        assert got["label"].tolist() == want.tolist()


def test_labels_in_another_order_are_recoded_in_the_graph_too(closing):
    labels = np.array([m.predict(X) for m in LOGITS])
    want = np.where((labels == "yes").sum(axis=0) > 1, "yes", "no")
    p = mb.Pipeline("v", *_fan(closing, LOGITS, vote(3, ["yes", "no"]), output="label"))
    assert sum("recode" in str(e) for e in p.plan.edges) == 3
    for got in _one_graph(p):
        assert got["label"].tolist() == want.tolist()


def test_a_selector_by_category_takes_each_row_from_its_model(closing):
    stages, wiring = _fan(closing, SLOPES, select(["yes", "no"]), output="prediction")
    stages = {"gate": closing(LOGITS[0]), **stages}
    wiring |= {"gate.features": "features", "last.by": "gate.label"}
    want = np.where(LOGITS[0].predict(X) == "yes", SLOPES[0].predict(X), SLOPES[1].predict(X))
    for got in _one_graph(mb.Pipeline("s", stages, wiring, {"prediction": "last.prediction"})):
        np.testing.assert_allclose(got["prediction"], want, rtol=1e-9)


def test_a_selector_by_a_boolean_tensor_takes_a_where_it_is_true(closing):
    node = [helper.make_node("Greater", ["x", "zero"], ["by"])]
    graph = helper.make_graph(
        node,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.DOUBLE, ["rows"])],
        [helper.make_tensor_value_info("by", TensorProto.BOOL, ["rows"])],
        [helper.make_tensor("zero", TensorProto.DOUBLE, [], [0.0])],
    )
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    signature = Signature([TensorSpec("x", "float64", ("rows",))], [TensorSpec("by", "bool", ("rows",))])
    stages, wiring = _fan(closing, SLOPES, select(), output="prediction")
    stages["gate"] = closing(mb.wrap(proto, signature=signature))
    wiring |= {"gate.x": "m0.prediction", "last.by": "gate.by"}
    first, second = (m.predict(X) for m in SLOPES)
    for got in _one_graph(mb.Pipeline("s", stages, wiring, {"prediction": "last.prediction"})):
        np.testing.assert_allclose(got["prediction"], np.where(first > 0, first, second), rtol=1e-9)


def test_a_cast_on_purpose_rounds_in_the_graph_too(closing):
    prep, cast, model = closing(StandardScaler().fit(X)), closing(mb.cast("float32", width=4)), closing(LOGITS[0])
    p = mb.Pipeline("c", {"prep": prep, "cast": cast, "model": model})
    want = LOGITS[0].predict_proba(StandardScaler().fit(X).transform(X).astype("f4"))
    for got in _one_graph(p):
        np.testing.assert_allclose(got["probabilities"], want, rtol=1e-9)


def test_what_nobody_reads_is_not_in_the_graph(closing):
    stages = {"logit": closing(LOGITS[0]), "tail": closing(LinearRegression().fit(X[:, :2], X[:, 0]), X[:, :2])}
    wiring = {"logit.features": "features", "tail.features": "logit.probabilities"}
    with mb.Pipeline("p", stages, wiring) as p, p.fuse(X) as fused:
        import onnx

        (stage,) = fused.stages.values()
        names = {o for n in onnx.load_model_from_string(stage._session.engine.model).graph.node for o in n.output}
        assert not any("label" in n for n in names)
        assert fused.report.verified


def test_a_newer_opset_raises_the_graphs(closing):
    graph = helper.make_graph(
        [helper.make_node("Neg", ["x"], ["features"])],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.DOUBLE, ["rows", 4])],
        [helper.make_tensor_value_info("features", TensorProto.DOUBLE, ["rows", 4])],
    )
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 22)], ir_version=10)
    signature = Signature([TensorSpec("x", "float64", ("rows", 4))], [TensorSpec("features", "float64", ("rows", 4))])
    first = closing(mb.wrap(proto, signature=signature))
    for got in _one_graph(mb.Pipeline("p", {"first": first, "model": closing(LOGITS[0])})):
        np.testing.assert_allclose(got["probabilities"], LOGITS[0].predict_proba(-X), rtol=1e-9)


def test_a_native_stage_between_two_groups_keeps_them_apart(closing):
    reduced = PCA(2, random_state=0).fit(X)
    z = reduced.transform(X)
    signature = Signature([TensorSpec("features", "float64", ("rows", 2))], [TensorSpec("features", "float64", ("rows", 2))])
    twice = closing(mb.wrap(lambda f: {"features": 2 * f["features"]}, signature=signature))
    stages = {"prep": closing(StandardScaler().fit(X)), "reduce": closing(reduced), "twice": twice}
    stages |= {"again": closing(StandardScaler().fit(z), z), "score": closing(LogisticRegression().fit(z, Y), z)}
    with mb.Pipeline("p", stages) as p, p.fuse(X) as fused:
        assert sorted(fused.stages) == ["again+score", "prep+reduce", "twice"]
        np.testing.assert_allclose(fused.predict(X)["probabilities"], p.predict(X)["probabilities"], rtol=1e-9)


def test_a_fused_pipeline_is_a_stage_that_fuses_again(closing):
    with mb.Pipeline("inner", {"a": closing(StandardScaler().fit(X)), "b": closing(PCA(4).fit(X))}) as inner, inner.fuse(X) as stage:
        for got in _one_graph(mb.Pipeline("outer", {"inner": stage, "model": closing(LOGITS[0])})):
            want = LOGITS[0].predict_proba(inner.predict(X)["transformed"])
            np.testing.assert_allclose(got["probabilities"], want, rtol=1e-9)


def test_a_pipeline_is_a_stage_of_another(closing):
    inner = closing(mb.Pipeline("inner", {"a": closing(StandardScaler().fit(X)), "b": closing(PCA(4).fit(X))}))
    with mb.Pipeline("outer", {"inner": inner, "model": closing(LOGITS[0])}) as p, p.fuse(X) as fused:
        assert set(fused.stages) == {"inner", "model"}
        np.testing.assert_allclose(fused.predict(X)["probabilities"], p.predict(X)["probabilities"], rtol=1e-12)


def test_a_fused_graph_that_answers_differently_is_refused_with_a_report(closing, monkeypatch):
    labels = _fan(closing, LOGITS, vote(3, ["yes", "no"]), output="label")
    honest = steps.Recode.emit

    def swapped(self, graph, value):
        tables = tuple(t[:1] + t[1:-1][::-1] + t[-1:] for t in self.tables)
        return honest(steps.Recode(self.names, tables), graph, value)

    monkeypatch.setattr(steps.Recode, "emit", swapped)
    with mb.Pipeline("v", *labels) as p, pytest.raises(ConversionError, match="answers differently") as caught:
        p.fuse(X)
    assert not caught.value.report.verified
    assert caught.value.report.rows > 0


def test_golden_rows_of_a_later_stage_are_not_fed_to_the_pipeline(closing):
    reduced = PCA(2).fit(X)
    z = reduced.transform(X)
    p = mb.Pipeline("p", {"reduce": closing(reduced), "score": closing(LogisticRegression().fit(z, Y), z)})
    for got in _one_graph(p):
        assert got["label"].shape == (50,)
