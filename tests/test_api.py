"""wrap, load, convert: routes, trust, options, and what they say."""

import asyncio
import logging
import multiprocessing
import pickle

import joblib
import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import LocalOutlierFactor

import mlbridge as mb
from mlbridge.errors import (
    ArtifactError,
    ClosedError,
    ConversionError,
    InputError,
    NotFoundError,
    SignatureError,
    UnsupportedError,
    UntrustedArtifactError,
)

RNG = np.random.default_rng(11)
X = RNG.normal(size=(80, 3))
Y = np.where(X[:, 0] + X[:, 1] > 0, "yes", "no")


@pytest.fixture(scope="module")
def fitted():
    return LogisticRegression().fit(X, Y)


@pytest.fixture
def model(fitted):
    with mb.wrap(fitted, sample=X) as m:
        yield m


def test_the_public_names_are_these():
    assert mb.__all__ == [
        "Column",
        "MlbridgeError",
        "Model",
        "Pipeline",
        "Signature",
        "TensorSpec",
        "__version__",
        "cast",
        "convert",
        "load",
        "serve",
        "wrap",
    ]


def test_wrap_converts_and_verifies(model, fitted):
    assert model.route.runtime == "onnx"
    assert model.report.verified
    np.testing.assert_allclose(model.predict(X)["probabilities"], fitted.predict_proba(X), rtol=1e-9)
    assert model.predict(X)["label"].tolist() == fitted.predict(X).tolist()


def test_one_output_comes_alone_and_several_as_a_subset(model):
    assert model.predict(X[:2], outputs="label").shape == (2,)
    assert list(model.predict(X[:2], outputs=["probabilities"])) == ["probabilities"]
    with pytest.raises(InputError, match="did you mean 'label'"):
        model.predict(X, outputs="lable")


def test_native_is_native(fitted):
    with mb.wrap(fitted, sample=X, via="native") as m:
        assert (m.route.runtime, m.device) == ("python", "cpu")
        np.testing.assert_array_equal(m.predict(X)["probabilities"], fitted.predict_proba(X))


def test_a_model_that_does_not_convert_runs_natively_and_says_so(caplog):
    odd = LocalOutlierFactor(novelty=True).fit(X)
    with caplog.at_level(logging.WARNING, "mlbridge"):
        m = mb.wrap(odd, sample=X)
    with m:
        if m.route.runtime == "python":
            assert m.route.considered
            assert len([r for r in caplog.records if r.name == "mlbridge"]) == 1
        assert m.predict(X)["label"].shape == (80,)


class Unknown:
    pass


def test_an_unknown_object_is_refused_with_a_remedy():
    with pytest.raises(UnsupportedError, match="signature"):
        mb.wrap(Unknown())


def test_a_function_needs_a_signature_and_runs():
    signature = mb.Signature([mb.TensorSpec("x", "float64", ("rows",))], [mb.TensorSpec("y", "float64", ("rows",))])
    with pytest.raises(InputError, match="signature"):
        mb.wrap(lambda feeds: feeds)
    with mb.wrap(lambda feeds: {"y": feeds["x"] + 1}, signature=signature) as m:
        assert m.predict(np.array([1.0]))["y"].tolist() == [2.0]


def test_a_model_whose_rows_depend_on_each_other_loses_the_promise():
    signature = mb.Signature([mb.TensorSpec("x", "float64", ("rows",))], [mb.TensorSpec("y", "float64", ("rows",))])
    with mb.wrap(lambda feeds: {"y": feeds["x"] - feeds["x"].mean()}, np.arange(6.0), signature=signature) as m:
        assert not m.signature.batched
        assert m.predict(np.array([1.0, 3.0]))["y"].tolist() == [-1.0, 1.0]


def test_options_are_checked_by_name(fitted):
    with pytest.raises(InputError, match="none of"):
        mb.wrap(fitted, X, options={"sklaern": {}})
    with pytest.raises(InputError, match="has no key"):
        mb.wrap(fitted, X, options={"onnx": {"thraeds": 1}})


@pytest.mark.parametrize("word", [dict(via="magic"), dict(verify="maybe")])
def test_words_are_checked(fitted, word):
    with pytest.raises(InputError):
        mb.wrap(fitted, X, **word)


def test_check_lists_problems_without_running(model):
    assert model.check(X) == []
    assert len(model.check(np.full((1, 3), np.nan))) == 1


def test_a_given_signature_must_name_what_is_there(fitted):
    with pytest.raises(SignatureError, match="no input 'y'"):
        mb.wrap(
            fitted, X, signature=mb.Signature([mb.TensorSpec("y", "float64", ("rows", 3))], [mb.TensorSpec("label", "int64", ("rows",))])
        )


# ---- files and trust


@pytest.fixture
def pickled(fitted, tmp_path):
    joblib.dump(fitted, tmp_path / "m.joblib")
    return tmp_path / "m.joblib"


def test_a_pickle_needs_trust_in_words(pickled):
    with pytest.raises(UntrustedArtifactError, match="sha256") as caught:
        mb.load(pickled)
    digest = caught.value.hint.split("sha256:")[1][:64]
    with mb.load(pickled, trust=f"sha256:{digest}", sample=X) as m:
        assert m.report.verified
    with pytest.raises(UntrustedArtifactError, match="the trusted one"):
        mb.load(pickled, trust="sha256:" + "0" * 64)


def test_skops_names_the_types_it_trusts(fitted, tmp_path):
    import skops.io

    skops.io.dump(fitted, tmp_path / "m.skops")
    with pytest.raises(UntrustedArtifactError, match="audited"):
        mb.load(tmp_path / "m.skops")
    with mb.load(tmp_path / "m.skops", trust="audited", sample=X, verify="never") as m:
        np.testing.assert_allclose(m.predict(X)["probabilities"], fitted.predict_proba(X), rtol=1e-9)


def test_what_is_not_there_is_not_found(tmp_path):
    with pytest.raises(NotFoundError):
        mb.load(tmp_path / "nothing.mlb")


@pytest.mark.parametrize("data", [b"", b"hello", b"\x00" * 100, b"{}", b"PK\x03\x04broken"])
def test_a_foreign_file_is_refused_by_name(tmp_path, data):
    (tmp_path / "x.bin").write_bytes(data)
    with pytest.raises(ArtifactError):
        mb.load(tmp_path / "x.bin")
    with pytest.raises((ArtifactError, UnsupportedError)):
        mb.load(tmp_path / "x.bin", trust="code")


def test_a_loaded_model_pickles_as_path_and_hash(model, tmp_path):
    with pytest.raises(TypeError, match="save it"):
        pickle.dumps(model)
    model.save(tmp_path / "m.mlb")
    with mb.load(tmp_path / "m.mlb") as first, pickle.loads(pickle.dumps(first)) as second:
        np.testing.assert_array_equal(first.predict(X)["probabilities"], second.predict(X)["probabilities"])
        data = pickle.dumps(first)
    model.save(tmp_path / "m.mlb", overwrite=True, samples=3)
    with pytest.raises(ArtifactError, match="not the file"):
        pickle.loads(data)


def test_verification_is_kept_and_a_second_load_verifies_nothing(model, tmp_path, monkeypatch):
    monkeypatch.setenv("MLBRIDGE_CACHE", str(tmp_path / "cache"))
    model.save(tmp_path / "m.mlb")
    mb.load(tmp_path / "m.mlb").close()
    assert len(list((tmp_path / "cache" / "verified").glob("*.json"))) == 1
    monkeypatch.setattr("mlbridge._api.packages.verify_golden", lambda *a, **k: pytest.fail("verified again"))
    mb.load(tmp_path / "m.mlb", verify="require").close()


def test_a_wrong_golden_sample_is_caught(model, tmp_path, monkeypatch):
    monkeypatch.setenv("MLBRIDGE_CACHE", str(tmp_path / "cache"))
    feeds, outputs = model.samples
    model.samples = (feeds, outputs | {"probabilities": outputs["probabilities"] * 0.999})
    model.save(tmp_path / "m.mlb")
    with pytest.raises(ConversionError):
        mb.load(tmp_path / "m.mlb", via="onnx")


# ---- life


def test_close_twice_is_harmless_and_use_afterwards_refused(fitted):
    m = mb.wrap(fitted, X)
    m.close()
    m.close()
    with pytest.raises(ClosedError):
        m.predict(X)


def test_predict_async_answers_and_cancels(model):
    async def ask():
        both = await asyncio.gather(model.predict_async(X), model.predict_async(X[:1]))
        return both[0]["label"].shape, both[1]["label"].shape

    assert asyncio.run(ask()) == ((80,), (1,))


def _in_child(queue, model):
    try:
        model.predict(X)
        queue.put("answered")
    except ClosedError:
        queue.put("closed")


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_forked_child_is_told_so(model):
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    child = context.Process(target=_in_child, args=(queue, model))
    child.start()
    assert queue.get(timeout=60) == "closed"
    child.join(60)


def test_describe_shows_what_a_person_asks(fitted):
    frame = pd.DataFrame(X, columns=["age", "income", "debt"])
    with mb.wrap(LogisticRegression().fit(frame, Y), sample=frame) as m:
        text, page = repr(m.describe()), m._repr_html_()
        for words in ("age", "income", "onnx: converted from sklearn and verified", "cpu", "verified on"):
            assert words in text
            assert words in page or words == "verified on"


def _foreign(op, *, axis=None):
    from onnx import TensorProto, helper

    nodes = [helper.make_node(op, ["x"], ["y"], **({} if axis is None else {"axis": axis}))]
    side = lambda name: helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", 3])  # noqa: E731
    graph = helper.make_graph(nodes, "g", [side("x")], [side("y")])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)


def test_a_foreign_graph_whose_rows_are_independent_gets_the_promise():
    x = RNG.normal(size=(6, 3)).astype(np.float32)
    with mb.wrap(_foreign("Softmax", axis=1), x) as m:
        assert m.signature.batched
    with mb.wrap(_foreign("Softmax", axis=0), x) as m:
        assert not m.signature.batched


# ---- a pin is a pin, whatever the format


def _forest(folder, **keywords):
    from sklearn.neighbors import LocalOutlierFactor

    with mb.wrap(LocalOutlierFactor(novelty=True).fit(X), sample=X, via="native") as m:
        m.save(folder / "native.mlb", **keywords)
    return folder / "native.mlb"


@pytest.mark.parametrize("kind", ["onnx", "mlb"])
def test_a_wrong_pin_is_refused_for_data_formats_too(model, tmp_path, kind):
    model.save(tmp_path / "m.mlb", form="folder")
    path = tmp_path / "m.mlb" if kind == "mlb" else tmp_path / "m.mlb" / "model" / "onnx" / "model.onnx"
    with pytest.raises(UntrustedArtifactError, match="the trusted one"):
        mb.load(path, trust="sha256:" + "0" * 64)


@pytest.mark.parametrize("of", ["file", "manifest"])
def test_a_pinned_package_may_run_what_is_in_it(tmp_path, of):
    path = _forest(tmp_path)
    with pytest.raises(UntrustedArtifactError):
        mb.load(path)
    artifact = mb.artifact.open_artifact(path)
    digest = artifact.sha256 if of == "file" else mb.package.read_package(artifact).sha256
    with mb.load(path, trust=f"sha256:{digest}", via="native") as m:
        assert m.predict(X)["label"].shape == (80,)


def test_a_pinned_toml_does_not_vouch_for_stages_its_hash_does_not_cover(tmp_path):
    _forest(tmp_path)
    toml = tmp_path / "pipeline.toml"
    toml.write_text('[stages]\nodd = "native.mlb"\n')
    mb.load(toml, trust="code").close()
    with pytest.raises(UntrustedArtifactError):
        mb.load(toml, trust=f"sha256:{mb.artifact.open_artifact(toml).sha256}")


def test_unpickling_loads_the_bytes_it_hashed(model, tmp_path, monkeypatch):
    model.save(tmp_path / "m.mlb")
    with mb.load(tmp_path / "m.mlb") as first:
        data = pickle.dumps(first)
    opened = []
    real = mb._api.open_artifact
    monkeypatch.setattr(mb._api, "open_artifact", lambda source, **k: opened.append(str(source)) or real(source, **k))
    pickle.loads(data).close()
    assert opened.count(str(tmp_path / "m.mlb")) == 1


@pytest.mark.parametrize("via", ["auto", "onnx"])
def test_a_device_that_was_demanded_is_not_replaced_by_the_native_route(via):
    x = np.zeros((4, 2))
    with pytest.raises(mb.errors.UnavailableError):
        mb.wrap(LogisticRegression().fit(x, [0, 1, 0, 1]), sample=x, via=via, provider="NoSuchExecutionProvider")


def test_a_class_is_told_from_a_model():
    with pytest.raises(InputError, match="LogisticRegression is a class"):
        mb.wrap(LogisticRegression)


def test_a_file_that_is_no_model_is_not_called_one(tmp_path):
    (tmp_path / "table.csv").write_text("a,b\n1,2\n")
    with pytest.raises(mb.errors.UntrustedArtifactError, match="not a model file that mlbridge knows"):
        mb.load(tmp_path / "table.csv")
