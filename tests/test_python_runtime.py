"""The runtime `python`, here and in another interpreter; and the worker script's own frame codec."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
import threading
import time
import venv
from pathlib import Path

import joblib
import numpy as np
import pytest
from sklearn.cluster import KMeans
from sklearn.compose import make_column_transformer
from sklearn.datasets import load_diabetes, load_iris
from sklearn.ensemble import IsolationForest
from sklearn.linear_model import LinearRegression, LogisticRegression, RidgeClassifier
from sklearn.multioutput import MultiOutputClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from mlbridge.artifact import open_artifact
from mlbridge.errors import (
    ArtifactError,
    BridgeTimeoutError,
    CancelledError,
    ClosedError,
    InferenceError,
    InputError,
    MissingDependencyError,
    NotFoundError,
    OverloadedError,
    SignatureError,
    UnavailableError,
    UnsupportedError,
)
from mlbridge.interfaces import UNBOUNDED, Deadline, Runtime, Session
from mlbridge.runtimes import python_worker
from mlbridge.runtimes.python import PythonRuntime
from mlbridge.signature import Column, Signature, TensorSpec, classifier_outputs, prediction_spec

VECTORS = Path(__file__).parent.parent / "proto" / "vectors"
LISTING = json.loads((VECTORS / "vectors.json").read_text(encoding="utf-8"))
SIGNATURE = Signature([TensorSpec("x", "float64", ("rows", 2))], [TensorSpec("y", "float64", ("rows",))])
X = np.arange(6.0).reshape(3, 2)
IRIS = load_iris(return_X_y=True)


def double_sum(feeds):
    return {"y": 2 * feeds["x"].sum(axis=1)}


@pytest.fixture
def runtime():
    return PythonRuntime()


# ---------------------------------------------------------------- in this process


def test_a_function_from_feeds_to_outputs_is_a_session(runtime):
    session = runtime.wrap(double_sum, signature=SIGNATURE)
    assert isinstance(session, Session)
    assert isinstance(runtime, Runtime)
    assert session.run({"x": X})["y"].tolist() == [2.0, 10.0, 18.0]
    assert (session.device, session.max_concurrency) == ("cpu", UNBOUNDED)


def test_a_function_may_answer_its_only_output_bare(runtime):
    session = runtime.wrap(lambda feeds: feeds["x"][:, 0], signature=SIGNATURE)
    assert session.run({"x": X})["y"].tolist() == [0.0, 2.0, 4.0]


def test_a_frameworks_native_function_is_asked(runtime):
    session = runtime.wrap(object(), signature=SIGNATURE, native=double_sum, concurrency=3)
    assert session.run({"x": X})["y"].tolist() == [2.0, 10.0, 18.0]
    assert session.max_concurrency == 3


@pytest.mark.parametrize("bad", [0, -1, 1.5, True, "2"])
def test_a_concurrency_that_is_none_is_refused(runtime, bad):
    with pytest.raises(InputError, match="concurrency"):
        runtime.wrap(double_sum, signature=SIGNATURE, concurrency=bad)


def test_an_unknown_option_is_refused_by_name(runtime):
    with pytest.raises(InputError, match="'concurency'"):
        runtime.wrap(double_sum, signature=SIGNATURE, concurency=2)


def test_an_error_inside_is_an_inference_error_with_its_cause(runtime):
    def fails(feeds):
        raise KeyError("no such thing")

    with pytest.raises(InferenceError, match="no such thing") as caught:
        runtime.wrap(fails, signature=SIGNATURE).run({"x": X})
    assert isinstance(caught.value.__cause__, KeyError)
    assert caught.value.runtime == "python"


@pytest.mark.parametrize(
    "answer",
    [{}, {"z": np.zeros(3)}, {"y": np.zeros(2)}, {"y": np.array(["a"] * 3)}, {"y": np.zeros((3, 2))}],
    ids=["nothing", "another name", "rows", "dtype", "rank"],
)
def test_an_answer_against_the_signature_is_an_inference_error(runtime, answer):
    with pytest.raises(InferenceError, match="'y'"):
        runtime.wrap(lambda feeds: answer, signature=SIGNATURE).run({"x": X})


def test_a_model_cannot_change_its_inputs(runtime):
    def writes(feeds):
        feeds["x"][:] = 0
        return {"y": feeds["x"][:, 0]}

    x = X.copy()
    with pytest.raises(InferenceError, match="read-only"):
        runtime.wrap(writes, signature=SIGNATURE).run({"x": x})
    assert x.tolist() == X.tolist()
    assert x.flags.writeable


def test_answers_alias_neither_inputs_nor_each_other(runtime):
    kept = np.zeros(3)
    for native in (lambda feeds: {"y": kept}, lambda feeds: {"y": feeds["x"][:, 0]}):
        session = runtime.wrap(native, signature=SIGNATURE)
        x = np.zeros((3, 2))
        a, b = session.run({"x": x})["y"], session.run({"x": x})["y"]
        a[:] = 7
        assert not b.any()
        assert not kept.any()
        assert not x.any()


def test_outputs_asked_for_come_in_that_order(runtime):
    two = Signature(SIGNATURE.inputs, [TensorSpec("a", "float64", ("rows",)), TensorSpec("b", "float64", ("rows",))])
    session = runtime.wrap(lambda f: {"a": f["x"][:, 0], "b": f["x"][:, 1], "c": 0}, signature=two)
    assert list(session.run({"x": X}, outputs=["b", "a"])) == ["b", "a"]
    assert list(session.run({"x": X}, outputs=["b"])) == ["b"]
    with pytest.raises(InputError, match="'d'"):
        session.run({"x": X}, outputs=["d"])


def test_a_deadline_that_passed_meanwhile_is_a_timeout(runtime):
    deadline = Deadline(LONG := 60.0)
    session = runtime.wrap(lambda feeds: double_sum(feeds), signature=SIGNATURE)
    assert session.run({"x": X}, deadline=deadline)["y"].shape == (3,)
    with pytest.raises(BridgeTimeoutError):
        session.run({"x": X}, deadline=Deadline(0.0))
    cancels = Deadline(LONG)
    session = runtime.wrap(lambda feeds: (cancels.cancel(), double_sum(feeds))[1], signature=SIGNATURE)
    with pytest.raises(Exception, match="cancelled"):
        session.run({"x": X}, deadline=cancels)


def _hanging(release):
    def hang(feeds):
        if feeds["x"][0, 0] < 0:
            release.wait(60)
        return {"y": feeds["x"].sum(axis=1)}

    return hang


def test_a_model_that_hangs_is_left_at_the_deadline_and_answers_others(runtime):
    release = threading.Event()
    session = runtime.wrap(_hanging(release), signature=SIGNATURE)
    try:
        began = time.monotonic()
        with pytest.raises(BridgeTimeoutError, match="runs on in its thread") as caught:
            session.run({"x": -X - 1}, deadline=Deadline(0.2))
        assert time.monotonic() - began < 10
        assert "python+worker" in caught.value.hint
        assert session.run({"x": X}, deadline=Deadline(60))["y"].tolist() == [1.0, 5.0, 9.0]
        deadline = Deadline()
        threading.Timer(0.1, deadline.cancel).start()
        with pytest.raises(CancelledError):
            session.run({"x": -X - 1}, deadline=deadline)
    finally:
        release.set()


def test_a_call_that_was_left_still_holds_its_place(runtime):
    release, inside, most = threading.Event(), [], []

    def one_at_a_time(feeds):
        inside.append(1)
        most.append(len(inside))
        if feeds["x"][0, 0] < 0:
            release.wait(60)
        inside.pop()
        return {"y": feeds["x"].sum(axis=1)}

    session = runtime.wrap(one_at_a_time, signature=SIGNATURE, concurrency=1)
    for x in (-X - 1, X):  # the second waits for the place of the first
        with pytest.raises(BridgeTimeoutError):
            session.run({"x": x}, deadline=Deadline(0.2))
    release.set()
    assert session.run({"x": X})["y"].tolist() == [1.0, 5.0, 9.0]
    assert max(most) == 1


def test_too_many_calls_that_never_end_are_refused(runtime):
    release = threading.Event()
    session = runtime.wrap(_hanging(release), signature=SIGNATURE)
    try:
        for _ in range(16):
            with pytest.raises(BridgeTimeoutError):
                session.run({"x": -X - 1}, deadline=Deadline(0.01))
        with pytest.raises(OverloadedError, match="never ended"):
            session.run({"x": X}, deadline=Deadline(60))
    finally:
        release.set()


def test_use_after_close_is_refused_and_close_twice_is_harmless(runtime):
    session = runtime.wrap(double_sum, signature=SIGNATURE)
    session.close()
    session.close()
    with pytest.raises(ClosedError):
        session.run({"x": X})


def test_a_fork_may_not_use_the_session(runtime):
    session = runtime.wrap(double_sum, signature=SIGNATURE)
    child = os.fork()
    if child == 0:
        try:
            session.run({"x": X})
        except ClosedError:
            os._exit(0)
        finally:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_what_is_accepted(runtime):
    assert runtime.accepts(double_sum)
    assert runtime.accepts(LogisticRegression())
    assert not runtime.accepts(LogisticRegression)
    assert not runtime.accepts("a text")
    with pytest.raises(UnavailableError):
        runtime.load("json:dumps", device="cuda")


# ---------------------------------------------------------------- estimators, here and in a worker

TABLE = Signature(
    [
        TensorSpec("features", "float64", ("rows", 1), (Column("age"),)),
        TensorSpec("categorical", "int32", ("rows", 1), (Column("size", categories=("L", "M", "S"), unknown="keep"),)),
    ],
    classifier_outputs(["no", "yes"]),
)


def estimators() -> dict:
    x, y = IRIS
    xd, yd = load_diabetes(return_X_y=True)
    names = load_iris().target_names
    regression = LinearRegression().fit(xd[:, :4], yd)
    return {
        "classifier": (LogisticRegression(max_iter=1000).fit(x, y), "predict", "label"),
        "text classes": (LogisticRegression(max_iter=1000).fit(x, names[y]), "predict", "label"),
        "bool classes": (LogisticRegression(max_iter=1000).fit(x, y == 1), "predict_proba", "probabilities"),
        "float classes": (LogisticRegression(max_iter=1000).fit(x, y.astype(float)), "predict", "label"),
        "no probabilities": (RidgeClassifier().fit(x, y), "predict", "label"),
        "regressor": (regression, "predict", "prediction"),
        "several targets": (LinearRegression().fit(x, np.c_[y, y + 1.0]), "predict", "prediction"),
        "transformer": (StandardScaler().fit(x), "transform", "transformed"),
        "clusterer": (KMeans(3, n_init=1, random_state=0).fit(x), "predict", "cluster"),
    }


ESTIMATORS = estimators()


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    folder = tmp_path_factory.mktemp("estimators")
    for name, (model, _, _) in ESTIMATORS.items():
        joblib.dump(model, folder / f"{name}.joblib")
    return folder


def expected(name: str, rows: np.ndarray, spec: TensorSpec) -> np.ndarray:
    model, method, _ = ESTIMATORS[name]
    answer = getattr(model, method)(rows)
    if spec.categorical:
        levels = list(spec.columns[0].categories)
        return np.array([levels.index(v) for v in answer.tolist()])
    return answer


_SOME = ("text classes", "several targets", "transformer")  # each worker imports scikit-learn anew; the others run in full


@pytest.mark.parametrize(
    ("name", "way"),
    [(name, None) for name in ESTIMATORS]
    + [pytest.param(name, "worker", marks=() if name in _SOME else pytest.mark.full) for name in ESTIMATORS],
)
def test_an_estimator_answers_as_scikit_learn_does(runtime, saved, name, way):
    rows = IRIS[0][::17]
    session = runtime.load(open_artifact(saved / f"{name}.joblib"), way=way)
    try:
        output = ESTIMATORS[name][2]
        got = session.run({session.signature.inputs[0].name: rows}, outputs=[output])
        np.testing.assert_array_equal(got[output], expected(name, rows, session.signature.output(output)))
        assert list(session.run({session.signature.inputs[0].name: rows})) == [s.name for s in session.signature.outputs]
    finally:
        session.close()


@pytest.mark.parametrize("way", [None, "worker"], ids=["here", "worker"])
def test_a_table_model_gets_levels_missing_and_unknown(runtime, tmp_path, way):
    pandas = pytest.importorskip("pandas")
    rng = np.random.default_rng(0)
    table = pandas.DataFrame({"size": rng.choice(["S", "M", "L"], 60), "age": rng.uniform(20, 60, 60)})
    model = make_pipeline(
        make_column_transformer((OneHotEncoder(handle_unknown="ignore"), ["size"]), (StandardScaler(), ["age"])), LogisticRegression()
    ).fit(table, np.where((table.size == "S") | (table.age > 40), "yes", "no"))
    joblib.dump(model, tmp_path / "m.joblib")
    rows = pandas.DataFrame({"size": ["S", "M", "L", "XXL"], "age": [30.0, 50.0, 41.0, 22.0]})
    session = runtime.load(open_artifact(tmp_path / "m.joblib"), signature=TABLE, way=way)
    got = session.run({"features": rows[["age"]].to_numpy(), "categorical": np.array([[2], [1], [0], [3]], np.int32)})
    session.close()
    np.testing.assert_allclose(got["probabilities"], model.predict_proba(rows), rtol=1e-15)
    assert [["no", "yes"][c] for c in got["label"]] == model.predict(rows).tolist()


@pytest.mark.parametrize("way", [None, "worker"], ids=["here", "worker"])
def test_scores_and_several_targets_by_their_names(runtime, tmp_path, way):
    x, y = IRIS
    cases = [
        (
            IsolationForest(n_estimators=5, random_state=0).fit(x),
            [*classifier_outputs([-1, 1], scores=None), prediction_spec(name="score")],
        ),
        (
            MultiOutputClassifier(LogisticRegression(max_iter=500)).fit(x, np.c_[y, y == 1]),
            [*classifier_outputs([0, 1, 2], suffix="_0"), *classifier_outputs([0, 1], suffix="_1")],
        ),
    ]
    for i, (model, outputs) in enumerate(cases if way is None else cases[1:], 0 if way is None else 1):
        joblib.dump(model, tmp_path / f"{i}.joblib")
        signature = Signature([TensorSpec("features", "float64", ("rows", 4))], outputs)
        session = runtime.load(open_artifact(tmp_path / f"{i}.joblib"), signature=signature, way=way)
        got = session.run({"features": x[::9]})
        session.close()
        if i == 0:
            assert [(-1, 1)[c] for c in got["label"]] == model.predict(x[::9]).tolist()
            np.testing.assert_array_equal(got["score"], model.decision_function(x[::9]))
        else:
            np.testing.assert_array_equal(got["label_1"], model.predict(x[::9])[:, 1])
            np.testing.assert_array_equal(got["probabilities_0"], model.predict_proba(x[::9])[0])


@pytest.mark.parametrize("way", [None, "worker"], ids=["here", "worker"])
def test_a_script_and_a_function_by_name(runtime, tmp_path, monkeypatch, way):
    (tmp_path / "mymodel.py").write_text(
        "def run(feeds):\n    return feeds['x'].sum(axis=1)\ndef other(feeds):\n    return {'y': feeds['x'][:, 1]}\n"
    )
    session = runtime.load(open_artifact(tmp_path / "mymodel.py"), signature=SIGNATURE, way=way)
    assert session.run({"x": X})["y"].tolist() == [1.0, 5.0, 9.0]
    session.close()
    session = runtime.load(open_artifact(tmp_path / "mymodel.py"), signature=SIGNATURE, way=way, entry="other")
    assert session.run({"x": X})["y"].tolist() == [1.0, 3.0, 5.0]
    session.close()
    session = runtime.load("mymodel:other", signature=SIGNATURE, way=way, pythonpath=[tmp_path])
    assert session.run({"x": X})["y"].tolist() == [1.0, 3.0, 5.0]
    session.close()
    with pytest.raises(SignatureError):
        runtime.load("mymodel:other", way=way, pythonpath=[tmp_path])


@pytest.mark.parametrize(
    ("content", "kind"),
    [(b"\x80\x04garbage", ArtifactError), (b"\x80\x04\x8c\x0dno_such_modul\x94\x8c\x01x\x94\x93\x94.", MissingDependencyError)],
)
@pytest.mark.parametrize("way", [None, "worker"], ids=["here", "worker"])
def test_a_pickle_that_does_not_load_is_a_typed_error(runtime, tmp_path, content, kind, way):
    (tmp_path / "m.pkl").write_bytes(content)
    with pytest.raises((kind, ArtifactError)) as caught:
        runtime.load(open_artifact(tmp_path / "m.pkl"), signature=SIGNATURE, way=way)
    assert caught.value.hint


def test_what_is_not_there_is_named(runtime, tmp_path):
    with pytest.raises(NotFoundError, match="no_such_module"):
        runtime.load("no_such_module:f", signature=SIGNATURE)
    with pytest.raises(NotFoundError, match="no_such_function"):
        runtime.load("json:no_such_function", signature=SIGNATURE)
    with pytest.raises(InputError, match="inproc"):
        runtime.load("json:dumps", signature=SIGNATURE, way="inproc")
    with pytest.raises(MissingDependencyError, match="no-python"):
        runtime.load("json:dumps", signature=SIGNATURE, way="worker", executable=str(tmp_path / "no-python"))
    with pytest.raises(MissingDependencyError, match="no Python"):
        runtime.load("json:dumps", signature=SIGNATURE, way="worker", executable=tmp_path)
    (tmp_path / "odd.bin").write_bytes(b"odd")
    for way in (None, "worker"):
        with pytest.raises(ArtifactError, match=r"odd\.bin"):
            runtime.load(open_artifact(tmp_path / "odd.bin"), signature=SIGNATURE, way=way)


def test_the_interpreters_own_modules_are_not_shadowed_by_the_scripts_neighbours(runtime, tmp_path):
    (tmp_path / "m.py").write_text(
        "import sys\ndef run(feeds):\n    assert not any(p.endswith('runtimes') for p in sys.path)\n    return feeds['x'][:, 0]\n"
    )
    session = runtime.load(open_artifact(tmp_path / "m.py"), signature=SIGNATURE, way="worker")
    session.run({"x": X})
    session.close()


# ---------------------------------------------------------------- saving


@pytest.mark.parametrize("way", [None, "worker"], ids=["here", "worker"])
def test_what_was_saved_loads_and_answers_the_same(runtime, saved, tmp_path, way):
    session = runtime.load(open_artifact(saved / "classifier.joblib"), way=way)
    made = runtime.save(session, tmp_path / "native")
    want = session.run({"features": IRIS[0][:9]})
    session.close()
    assert (made.runtime, made.format) == ("python", "pickle")
    again = runtime.load(open_artifact(tmp_path / "native" / made.path), signature=session.signature, **made.options)
    got = again.run({"features": IRIS[0][:9]})
    again.close()
    assert all(got[n].tobytes() == want[n].tobytes() for n in want)


def test_a_function_is_not_saved(runtime, tmp_path):
    with pytest.raises(UnsupportedError, match="double_sum"):
        runtime.save(runtime.wrap(double_sum, signature=SIGNATURE), tmp_path)


def test_requirements_are_recorded(runtime, tmp_path):
    model, *_ = ESTIMATORS["classifier"]
    made = runtime.save(runtime.wrap(model, signature=runtime.infer(model)), tmp_path)
    import sklearn

    assert made.requires["scikit-learn"] == sklearn.__version__


# ---------------------------------------------------------------- another environment

_NUMPY_ONLY = "import sys; assert 'mlbridge' not in sys.modules; import importlib.util; assert importlib.util.find_spec('mlbridge') is None"


def test_a_virtual_environment_without_mlbridge_is_enough(runtime, tmp_path):
    venv.create(tmp_path / "env", symlinks=True)
    site = next((tmp_path / "env" / "lib").glob("python*/site-packages"))
    for name in ("numpy", "numpy.libs"):  # what this environment has, lent to the other: numpy alone
        if (Path(np.__file__).parent.parent / name).exists():
            (site / name).symlink_to(Path(np.__file__).parent.parent / name)
    python = tmp_path / "env" / "bin" / "python"
    subprocess.run([python, "-c", _NUMPY_ONLY], check=True)
    (tmp_path / "m.py").write_text(f"{_NUMPY_ONLY}\ndef run(feeds):\n    return feeds['x'][:, 0] + len(sys.prefix) * 0\n")
    session = runtime.load(open_artifact(tmp_path / "m.py"), signature=SIGNATURE, way="worker", executable=tmp_path / "env")
    assert session.run({"x": X})["y"].tolist() == [0.0, 2.0, 4.0]
    session.close()
    joblib.dump(ESTIMATORS["classifier"][0], tmp_path / "m.joblib")
    with pytest.raises(MissingDependencyError, match=r"joblib|sklearn") as caught:
        runtime.load(open_artifact(tmp_path / "m.joblib"), way="worker", executable=tmp_path / "env")
    assert str(python) in caught.value.hint


_OLDER = "1.5.2"
_TRAIN = """
import joblib, json, sklearn, sys
from sklearn.datasets import load_iris
from sklearn.ensemble import RandomForestClassifier
x, y = load_iris(return_X_y=True)
model = RandomForestClassifier(20, random_state=0).fit(x, y)
joblib.dump(model, sys.argv[1])
print(json.dumps([sklearn.__version__, model.predict_proba(x[::7]).tolist()]))
"""


@pytest.mark.peers
def test_two_versions_of_scikit_learn_in_one_process(runtime, tmp_path):
    import sklearn

    env = tmp_path / "env"
    venv.create(env, with_pip=True)
    python = str(env / "bin" / "python")
    subprocess.run([python, "-m", "pip", "install", "-q", f"scikit-learn=={_OLDER}"], check=True)
    theirs = tmp_path / "older.joblib"
    version, want = json.loads(subprocess.run([python, "-c", _TRAIN, theirs], check=True, capture_output=True, text=True).stdout)
    assert version == _OLDER != sklearn.__version__
    older = runtime.load(open_artifact(theirs), way="worker", executable=env)
    model, *_ = ESTIMATORS["classifier"]
    newer = runtime.wrap(model, signature=runtime.infer(model))
    assert older.run({"features": IRIS[0][::7]})["probabilities"].tolist() == want
    np.testing.assert_array_equal(newer.run({"features": IRIS[0]})["probabilities"], model.predict_proba(IRIS[0]))
    older.close()


# ---------------------------------------------------------------- the script's codec


def _split(data: bytes) -> tuple:
    return python_worker.decode(data[:16], data[16:])


@pytest.mark.parametrize("vector", [pytest.param(v, id=v["file"]) for v in LISTING["frames"]])
def test_the_script_reads_and_writes_the_golden_frames(vector):
    data = (VECTORS / vector["file"]).read_bytes()
    kind, request_id, tensors = _split(data)
    assert request_id == vector["request_id"]
    assert list(tensors) == [t["name"] for t in vector["tensors"]]
    for described in vector["tensors"]:
        got = tensors[described["name"]]
        assert got.shape == tuple(described["shape"])
        if "hex" in described:
            assert got.tobytes().hex() == described["hex"]
        else:
            assert got.reshape(-1).tolist() == described["strings"]
    if not vector["column_major"]:
        assert b"".join(python_worker.encode(kind, tensors, request_id)) == data


@pytest.mark.parametrize("name", [v["file"] for v in LISTING["malformed"]])
def test_the_script_refuses_malformed_frames(name):
    data = (VECTORS / name).read_bytes()
    header = data[:16].ljust(16, b"\0")  # a short one is EOFError before it is decoded
    with pytest.raises(ValueError, match=r"\w"):
        python_worker.decode(header, data[16:])


def test_the_script_is_python_3_8_and_imports_numpy_alone():
    tree = ast.parse(Path(python_worker.__file__).read_text(encoding="utf-8"), feature_version=(3, 8))
    roots = {a.name.split(".")[0] for n in ast.walk(tree) if isinstance(n, ast.Import) for a in n.names}
    roots |= {n.module.split(".")[0] for n in ast.walk(tree) if isinstance(n, ast.ImportFrom)}
    assert roots - set(sys.stdlib_module_names) == {"numpy"}
