"""Pipelines that run: expected values are scikit-learn's own, chained by hand."""

import threading
import time

import numpy as np
import pandas as pd
import pytest
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

import mlbridge as mb
from mlbridge.errors import ArtifactError, BridgeTimeoutError, InferenceError, SignatureError
from mlbridge.pipeline import mean, select, vote, weighted

RNG = np.random.default_rng(4)
FRAME = pd.DataFrame({"age": RNG.normal(size=80), "income": RNG.normal(size=80), "k": pd.Categorical(RNG.choice(["x", "y"], 80))})
Y = np.where(FRAME["age"] > FRAME["income"], "good", "bad")


@pytest.fixture(scope="module")
def teams():
    prep = ColumnTransformer([("n", StandardScaler(), ["age", "income"]), ("c", OneHotEncoder(sparse_output=False), ["k"])]).fit(FRAME)
    x = prep.transform(FRAME)
    logit, forest = LogisticRegression().fit(x, Y), RandomForestClassifier(20, random_state=0).fit(x, Y)
    made = {"prep": mb.wrap(prep, sample=FRAME), "logit": mb.wrap(logit, sample=x), "forest": mb.wrap(forest, sample=x)}
    yield made, (prep, logit, forest)
    for m in made.values():
        m.close()


@pytest.fixture
def diamond(teams):
    made, _ = teams
    blend = weighted([3, 1], classes=["bad", "good"])
    wiring = {"prep.features": "features", "prep.categorical": "categorical", "logit.features": "prep.transformed", "forest.features": "prep.transformed",
              "blend.a": "logit.probabilities", "blend.b": "forest.probabilities"}  # fmt: skip
    with mb.Pipeline(
        "risk", {**made, "blend": blend}, wiring, {"label": "blend.label", "probabilities": "blend.probabilities"}, sample=FRAME
    ) as p:
        yield p
    blend.close()


def _by_hand(natives, frame):
    prep, logit, forest = natives
    x = prep.transform(frame)
    return (3 * logit.predict_proba(x) + forest.predict_proba(x.astype(np.float32))) / 4


def test_a_straight_line_equals_the_stages_by_hand(teams):
    made, (prep, logit, _) = teams
    with made["prep"] >> made["logit"] as p:
        np.testing.assert_allclose(
            p.predict(FRAME)[["probabilities_bad", "probabilities_good"]], logit.predict_proba(prep.transform(FRAME)), rtol=1e-9
        )


def test_three_stages_chain_into_one_pipeline(teams):
    made, _ = teams
    tail = mb.wrap(LinearRegression().fit(RNG.normal(size=(9, 2)), np.arange(9.0)), sample=RNG.normal(size=(9, 2)))
    with made["prep"] >> made["logit"] as two, pytest.raises(SignatureError, match="nothing feeds"):
        two >> tail
    tail.close()


def test_a_graph_with_a_join_equals_the_stages_by_hand(diamond, teams):
    np.testing.assert_allclose(diamond.predict(FRAME)[["probabilities_bad", "probabilities_good"]], _by_hand(teams[1], FRAME), rtol=1e-9)
    assert diamond.predict({"age": 1.0, "income": 0.0, "k": "x"})["label"] in ("good", "bad")


def test_fused_equals_unfused_and_is_one_graph(diamond, teams):
    with diamond.fuse(FRAME) as fused:
        assert fused.report.verified
        assert len(fused.stages) == 1
        np.testing.assert_allclose(fused.predict(FRAME)[["probabilities_bad", "probabilities_good"]], _by_hand(teams[1], FRAME), rtol=1e-9)
        assert [c.name for c in fused.signature.columns] == ["age", "income", "k"]


def test_a_native_stage_stays_and_the_rest_fuses(teams):
    made, (prep, logit, _) = teams
    with mb.wrap(logit, sample=prep.transform(FRAME), via="native") as native:
        tail = mb.wrap(LinearRegression().fit(RNG.normal(size=(9, 2)), np.arange(9.0)), sample=RNG.normal(size=(9, 2)))
        double = weighted([1.0], width=None)
        stages = {"prep": made["prep"], "logit": native, "tail": tail, "double": double}
        wiring = {
            "prep.features": "features",
            "prep.categorical": "categorical",
            "logit.features": "prep.transformed",
            "tail.features": "logit.probabilities",
            "double.a": "tail.prediction",
        }
        with mb.Pipeline("mixed", stages, wiring) as p, p.fuse(FRAME) as fused:
            assert list(fused.stages) == ["tail+double", "prep", "logit"] or set(fused.stages) == {"tail+double", "prep", "logit"}
            np.testing.assert_allclose(fused.predict(FRAME)["prediction"], p.predict(FRAME)["prediction"], rtol=1e-9)
        tail.close()
        double.close()


def test_saved_loaded_and_verified(diamond, tmp_path, teams):
    diamond.save(tmp_path / "p.mlb")
    with mb.load(tmp_path / "p.mlb") as back:
        np.testing.assert_allclose(back.predict(FRAME)[["probabilities_bad", "probabilities_good"]], _by_hand(teams[1], FRAME), rtol=1e-9)
        assert back.report.verified
    with diamond.fuse(FRAME) as fused:
        fused.save(tmp_path / "f.mlb")
    with mb.load(tmp_path / "f.mlb") as back:
        np.testing.assert_allclose(back.predict(FRAME)[["probabilities_bad", "probabilities_good"]], _by_hand(teams[1], FRAME), rtol=1e-9)


def test_declared_in_toml(teams, tmp_path):
    made, (prep, logit, _) = teams
    made["prep"].save(tmp_path / "prep.mlb")
    made["logit"].save(tmp_path / "logit.mlb")
    (tmp_path / "pipeline.toml").write_text(
        'name = "risk"\n[stages]\nprep = "prep.mlb"\nlogit = "logit.mlb"\n[wiring]\n"prep.features" = "features"\n"prep.categorical" = "categorical"\n'
        '"logit.features" = "prep.transformed"\n[outputs]\nrisk = "logit.probabilities"\n'
    )
    with mb.load(tmp_path / "pipeline.toml") as p:
        np.testing.assert_allclose(p.predict(FRAME, outputs="risk"), logit.predict_proba(prep.transform(FRAME)), rtol=1e-9)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[stages]\na = 1\n", "line 2"),
        ('[stages]\na = "x.mlb"\n[colours]\n', "line 3: unknown key 'colours'"),
        ("[stages\n", "not TOML"),
        ("[stages]\n", "no [stages]"),
        ('[stages]\na="nothing.mlb"\n', "nothing.mlb"),
    ],
)
def test_a_wrong_toml_is_refused_with_its_place(tmp_path, text, words):
    (tmp_path / "p.toml").write_text(text)
    with pytest.raises(mb.MlbridgeError) as caught:
        mb.load(tmp_path / "p.toml")
    assert words in str(caught.value)


def test_trace_tells_times_shapes_and_intermediates(diamond):
    t = diamond.trace(FRAME, intermediates=True)
    assert set(t.times_s) == {"prep", "logit", "forest", "blend"}
    assert t.shapes["prep"]["transformed"] == (80, 4)
    assert t.intermediates["logit"]["probabilities"].shape == (80, 2)
    assert "ms" in repr(t)


def test_a_new_version_is_checked_without_the_others(diamond, teams, tmp_path):
    _, (prep, _, _) = teams
    x = prep.transform(FRAME)
    with mb.wrap(LogisticRegression(C=0.01).fit(x, Y), sample=x) as changed:
        changed.save(tmp_path / "v2.mlb")
    with mb.wrap(LogisticRegression().fit(x[:, :3], Y), sample=x[:, :3]) as narrow:
        narrow.save(tmp_path / "v3.mlb")
    ok = diamond.check_stage("logit", tmp_path / "v2.mlb")
    assert ok.fits
    assert ok.changed_rows > 0
    bad = diamond.check_stage("logit", tmp_path / "v3.mlb")
    assert not bad.fits
    assert "size 4 and the consumer wants 3" in repr(bad)


def test_paths_are_checked_before_anything_is_loaded(teams, tmp_path):
    made, _ = teams
    made["prep"].save(tmp_path / "prep.mlb")
    with pytest.raises(SignatureError):
        mb.Pipeline("p", {"a": tmp_path / "prep.mlb", "b": tmp_path / "prep.mlb"})


def test_a_tampered_stage_is_refused(teams, tmp_path):
    made, _ = teams
    made["prep"].save(tmp_path / "prep.mlb")
    data = bytearray((tmp_path / "prep.mlb").read_bytes())
    data[len(data) // 2] ^= 1
    (tmp_path / "prep.mlb").write_bytes(data)
    with pytest.raises(ArtifactError):
        mb.Pipeline("p", {"a": tmp_path / "prep.mlb"})


SIGNATURE = mb.Signature([mb.TensorSpec("x", "float64", ("rows",))], [mb.TensorSpec("x", "float64", ("rows",))])


def _function(f):
    return mb.wrap(f, signature=SIGNATURE)


def test_a_failing_stage_is_named():
    def broken(feeds):
        raise ZeroDivisionError("no")

    a, b = _function(lambda f: {"x": f["x"] + 1}), _function(broken)
    with mb.Pipeline("p", {"first": a, "second": b}) as p, pytest.raises(InferenceError, match="stage 'second'"):
        p.predict(np.ones(2))
    a.close()
    b.close()


def test_a_wrong_shape_is_blamed_on_the_stage_that_made_it():
    a, b = _function(lambda f: {"x": f["x"][:1]}), _function(lambda f: {"x": f["x"]})
    with mb.Pipeline("p", {"first": a, "second": b}) as p, pytest.raises(InferenceError, match="first"):
        p.predict(np.ones(3))
    a.close()
    b.close()


def test_one_deadline_spans_all_stages():
    def slow(feeds):
        time.sleep(0.2)
        return {"x": feeds["x"]}

    stages = {f"s{i}": _function(slow) for i in range(4)}
    with mb.Pipeline("p", stages) as p, pytest.raises(BridgeTimeoutError):
        p.predict(np.ones(1), timeout_s=0.3)
    for m in stages.values():
        m.close()


def test_ready_stages_answer_as_their_names_say():
    a, b = np.array([[0.2, 0.8]]), np.array([[0.6, 0.4]])
    with mean(2, width=2) as m:
        np.testing.assert_allclose(m.predict({"a": a, "b": b})["prediction"], (a + b) / 2)
    with vote(3, ["no", "yes"]) as m:
        got = m.predict({"a": ["no", "yes"], "b": ["yes", "yes"], "c": ["no", "no"]})
        assert got["label"].tolist() == ["no", "yes"]
    with select(["x", "y"]) as m:
        assert m.predict({"by": ["x", "y"], "a": [1.0, 1.0], "b": [2.0, 2.0]})["prediction"].tolist() == [1.0, 2.0]
    with mb.cast("float32", width=1) as m:
        assert m.predict(np.array([[0.1]]))["transformed"].tolist() == [[np.float32(0.1)]]


def test_the_drawing_names_every_stage(diamond):
    picture = diamond.svg()
    assert picture.startswith("<svg")
    for name in ("prep", "logit", "forest", "blend", "features", "probabilities"):
        assert f">{name}<" in picture


def test_make_pipeline_and_a_composed_pipeline_agree(teams):
    made, (prep, logit, _) = teams
    whole = make_pipeline(prep, logit)
    with made["prep"] >> made["logit"] as p:
        assert p.predict(FRAME)["label"].tolist() == whole.predict(FRAME).tolist()


def _branches(fail=False):
    """Three slow branches from one source, joined: enough for threads to pay."""

    def slow(feeds):
        time.sleep(0.01)
        return {"x": feeds["x"] + 1}

    def broken(feeds):
        time.sleep(0.01)
        raise ZeroDivisionError("no")

    two = mb.Signature([mb.TensorSpec("x", "float64", ("rows",)), mb.TensorSpec("z", "float64", ("rows",))], SIGNATURE.outputs)
    join = mb.wrap(lambda f: {"x": f["x"] + f["z"]}, signature=two)
    return {"source": _function(slow), "a": _function(slow), "b": _function(broken if fail else slow), "join": join}, {
        "source.x": "x", "a.x": "source.x", "b.x": "source.x", "join.x": "a.x", "join.z": "b.x",
    }  # fmt: skip


def test_stages_side_by_side_free_what_nobody_reads_any_more():
    stages, wiring = _branches()
    with mb.Pipeline("p", stages, wiring) as p:
        session, x = p._session, {"x": np.ones(2)}
        assert p.predict(np.ones(2))["x"].tolist() == [6.0, 6.0]
        arrays = {(None, "x"): x["x"]}
        session._run_parallel(session._compile(("x",)), arrays, None, None)
        assert set(arrays) == {("join", "x")}
    for m in stages.values():
        m.close()


def test_a_failure_side_by_side_leaves_the_callers_deadline_alone():
    stages, wiring = _branches(fail=True)
    with mb.Pipeline("p", stages, wiring) as p:
        deadline = mb.interfaces.Deadline(30)
        for _ in range(2):  # the second run knows the stages are slow
            with pytest.raises(InferenceError, match="stage 'b'"):
                p._session.traced({"x": np.ones(2)}, None, deadline, None)
        assert not deadline.cancelled
    for m in stages.values():
        m.close()


def _endless():
    """An ONNX graph that loops while its first value is positive."""
    from onnx import TensorProto, helper, numpy_helper

    value = helper.make_tensor_value_info
    double, flag = TensorProto.DOUBLE, TensorProto.BOOL
    body = helper.make_graph(
        [helper.make_node("Identity", ["go_in"], ["go_out"]), helper.make_node("Identity", ["v_in"], ["v_out"])],
        "body",
        [value("i", TensorProto.INT64, []), value("go_in", flag, []), value("v_in", double, ["rows"])],
        [value("go_out", flag, []), value("v_out", double, ["rows"])],
    )
    nodes = [
        helper.make_node("ReduceMax", ["x"], ["m"], keepdims=0),
        helper.make_node("Greater", ["m", "zero"], ["go"]),
        helper.make_node("Loop", ["", "go", "x"], ["y"], body=body),
    ]
    zero = [numpy_helper.from_array(np.array(0.0), "zero")]
    graph = helper.make_graph(nodes, "g", [value("x", double, ["rows"])], [value("y", double, ["rows"])], zero)
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    return mb.wrap(proto, signature=mb.Signature([mb.TensorSpec("x", "float64", ("n",))], [mb.TensorSpec("y", "float64", ("n",))]))


def test_a_stage_that_hangs_is_ended_at_the_deadline_and_named():
    with _endless() as endless, mb.Pipeline("p", {"endless": endless}, {"endless.x": "x"}, {"z": "endless.y"}) as p:
        with pytest.raises(BridgeTimeoutError, match="stage 'endless'"):
            p.predict(np.ones(2), timeout_s=0.3)
        assert p.predict(-np.ones(2), timeout_s=60)["z"].tolist() == [-1.0, -1.0]


def test_a_python_stage_that_hangs_is_left_at_the_deadline_and_named():
    release = threading.Event()
    a, b = _function(lambda f: {"x": f["x"] + 1}), _function(lambda f: release.wait(60) and {"x": f["x"]})
    with mb.Pipeline("p", {"a": a, "b": b}) as p:
        try:
            with pytest.raises(BridgeTimeoutError, match="stage 'b': the deadline passed"):
                p.predict(np.ones(2), timeout_s=0.2)
        finally:
            release.set()
    a.close()
    b.close()


def test_only_the_stages_that_an_output_needs_are_run():
    asked = []
    stages = {n: _function(lambda f, n=n: asked.append(n) or {"x": f["x"]}) for n in "abc"}
    wiring = {"a.x": "x", "b.x": "a.x", "c.x": "a.x"}
    with mb.Pipeline("p", stages, wiring, {"left": "b.x", "right": "c.x"}) as p:
        asked.clear()
        p.predict(np.ones(2), outputs="left")
        assert asked == ["a", "b"]
    for m in stages.values():
        m.close()


def test_one_model_twice_in_a_chain_gets_two_names():
    with _function(lambda f: {"x": f["x"] + 1}) as a, a >> a as p:
        assert len(p.stages) == 2
        assert p.predict(np.ones(2))["x"].tolist() == [3.0, 3.0]


def test_what_is_no_model_is_refused_with_the_way():
    with pytest.raises(mb.errors.InputError, match="a stage is a Model") as caught:
        mb.Pipeline("p", {"f": lambda feeds: feeds})
    assert "mlbridge.wrap" in caught.value.hint
