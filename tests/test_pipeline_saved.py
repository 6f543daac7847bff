"""Pipelines in packages, stages inside or referenced by hash; a team's new version checked from manifests alone."""

import json
import pickle

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

import mlbridge as mb
from mlbridge.cli import main
from mlbridge.errors import ArtifactError, InputError, SignatureError, UnsupportedError
from mlbridge.pipeline.checking import check_saved

RNG = np.random.default_rng(8)
X = RNG.normal(size=(60, 3))
Y = np.where(X[:, 0] > X[:, 1], "good", "bad")
SCALER = StandardScaler().fit(X)
SCORE = LogisticRegression().fit(SCALER.transform(X), Y)


@pytest.fixture
def place(tmp_path):
    """Packages of two teams, and a pipeline of them that refers to both."""
    with mb.wrap(SCALER, sample=X) as prep, mb.wrap(SCORE, sample=SCALER.transform(X)) as score:
        prep.save(tmp_path / "prep.mlb")
        score.save(tmp_path / "score.mlb")
    with mb.Pipeline("risk", {"prep": tmp_path / "prep.mlb", "score": tmp_path / "score.mlb"}, sample=X) as p:
        p.save(tmp_path / "risk.mlb", stages="referenced")
        p.save(tmp_path / "whole.mlb")
    return tmp_path


def _version(folder, name, model, x):
    with mb.wrap(model, sample=x) as m:
        m.save(folder / name)
    return folder / name


def test_stages_referenced_by_hash_load_from_beside_the_package(place):
    with mb.load(place / "risk.mlb") as p:
        assert p.report.verified
        np.testing.assert_allclose(p.predict(X)["probabilities"], SCORE.predict_proba(SCALER.transform(X)), rtol=1e-9)
    assert (place / "risk.mlb").stat().st_size < (place / "whole.mlb").stat().st_size


def test_a_reference_survives_a_move_of_all_and_another_saving(place, tmp_path_factory):
    there = tmp_path_factory.mktemp("moved")
    for name in ("risk.mlb", "prep.mlb", "score.mlb"):
        (place / name).rename(there / name)
    with mb.load(there / "risk.mlb") as p:
        (there / "deeper").mkdir()
        p.save(there / "deeper" / "again.mlb", stages="referenced")
    with mb.load(there / "deeper" / "again.mlb") as p:
        assert p.predict(X)["label"].tolist() == SCORE.predict(SCALER.transform(X)).tolist()


def test_a_referenced_stage_that_changed_is_refused_by_its_hash(place):
    changed = LogisticRegression(C=0.01).fit(SCALER.transform(X), Y)
    with mb.wrap(changed, sample=SCALER.transform(X)) as m:
        m.save(place / "score.mlb", overwrite=True)
    with pytest.raises(ArtifactError, match=r"stage 'score'.*the hash"):
        mb.load(place / "risk.mlb")


def test_a_referenced_stage_that_is_gone_is_named(place):
    (place / "prep.mlb").unlink()
    with pytest.raises(ArtifactError, match=r"stage 'prep' is referenced by hash, and prep.mlb is not there"):
        mb.load(place / "risk.mlb")
    with pytest.raises(ArtifactError, match="does not come from a path"):
        mb.load((place / "risk.mlb").read_bytes())


def test_only_stages_with_packages_of_their_own_are_referenced(place):
    with mb.wrap(SCALER, sample=X) as live, mb.Pipeline("p", {"live": live}) as p, pytest.raises(InputError, match="stage 'live'"):
        p.save(place / "p.mlb", stages="referenced")


@pytest.mark.parametrize(
    "stage",
    ["../outside.mlb", "/etc/x.mlb", {"path": "/etc/passwd", "sha256": "0"}, {"path": "/etc/x.mlb", "sha256": "0"}, {"path": "x.mlb"}, 7],
    ids=["text above", "text absolute", "no package", "absolute", "no hash", "number"],
)
def test_a_saved_pipeline_reaches_nowhere_without_a_hash(tmp_path, stage):
    from mlbridge.artifact import open_artifact
    from mlbridge.pipeline.saved import read_pipeline

    folder = tmp_path / "p"
    folder.mkdir()
    made = {"version": 2, "stages": {"a": stage}, "wiring": {}, "outputs": {}}
    (folder / "pipeline.json").write_text(json.dumps(made))
    with pytest.raises(ArtifactError, match="neither inside the package nor referenced by hash"):
        read_pipeline(open_artifact(folder), tmp_path)


def test_a_newer_pipeline_is_refused_by_name(tmp_path):
    from mlbridge.artifact import open_artifact
    from mlbridge.pipeline.saved import read_pipeline

    (tmp_path / "pipeline.json").write_text(json.dumps({"version": 3}))
    with pytest.raises(ArtifactError, match="version 3, newer than 2"):
        read_pipeline(open_artifact(tmp_path), None)


def test_a_lambda_cannot_be_saved_and_says_so(tmp_path):
    signature = mb.Signature([mb.TensorSpec("x", "float64", ("rows",))], [mb.TensorSpec("y", "float64", ("rows",))])
    with mb.wrap(lambda f: {"y": f["x"]}, signature=signature) as m, mb.Pipeline("p", {"m": m}) as p:
        with pytest.raises(UnsupportedError):
            p.save(tmp_path / "p.mlb")
        assert not (tmp_path / "p.mlb").exists()


def test_a_missing_package_is_named_with_its_stage(tmp_path):
    with pytest.raises(mb.MlbridgeError, match=r"stage 'a'.*nothing\.mlb"):
        mb.Pipeline("p", {"a": tmp_path / "nothing.mlb"})


def test_a_loaded_pipeline_pickles_as_its_path(place):
    with mb.load(place / "risk.mlb") as p, pickle.loads(pickle.dumps(p)) as again:
        np.testing.assert_array_equal(again.predict(X)["label"], p.predict(X)["label"])


# ---------------------------------------------------------------- a team's new version


@pytest.fixture
def versions(place):
    z = SCALER.transform(X)
    return {
        "same": _version(place, "same.mlb", SCORE, z),
        "changed": _version(place, "changed.mlb", LogisticRegression(C=0.01).fit(z, Y), z),
        "narrow": _version(place, "narrow.mlb", LogisticRegression().fit(z[:, :2], Y), z[:, :2]),
        "renamed": _version(place, "renamed.mlb", LogisticRegression().fit(z, np.where(Y == "bad", "awful", Y)), z),
    }


@pytest.mark.parametrize("saved", ["risk.mlb", "whole.mlb"])
@pytest.mark.parametrize(
    ("version", "words", "plain", "strict"),
    [
        ("same", "answers changed on 0 of 60 golden rows", 0, 0),
        ("changed", "of 60 golden rows", 0, 70),
        ("narrow", "size 3 and the consumer wants 2", 2, 2),
        ("renamed", "levels of 'label' changed", 0, 70),
    ],
)
def test_check_says_whether_a_new_version_fits_and_its_exit_code_too(place, versions, saved, version, words, plain, strict):
    command = ["check", str(place / saved), "score", str(versions[version])]
    done = CliRunner().invoke(main, command)
    assert words in done.output
    assert done.exit_code == plain
    assert CliRunner().invoke(main, [*command, "--strict"]).exit_code == strict


def test_no_other_stage_is_loaded_for_a_check(place, versions, monkeypatch):
    from mlbridge.pipeline import checking

    opened = []
    load = checking.load_stage
    monkeypatch.setattr(checking, "load_stage", lambda source, **k: opened.append(source) or load(source, **k))
    assert check_saved(place / "risk.mlb", "score", versions["changed"]).changed_rows > 0
    assert opened == [versions["changed"]]


def test_check_works_on_a_toml_and_refuses_what_is_no_pipeline(place, versions):
    (place / "p.toml").write_text('[stages]\nprep = "prep.mlb"\nscore = "score.mlb"\n')
    assert check_saved(place / "p.toml", "score", versions["same"]).fits
    assert CliRunner().invoke(main, ["check", str(place / "prep.mlb"), "prep", str(versions["same"])]).exit_code == 2
    assert CliRunner().invoke(main, ["check", str(place / "gone.mlb"), "prep", str(versions["same"])]).exit_code == 65
    assert CliRunner().invoke(main, ["check", str(place / "risk.mlb"), "nobody", str(versions["same"])]).exit_code == 2


# ---------------------------------------------------------------- pipeline.toml


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[stages]\na = 1\n", ["line 2: stages.a is int"]),
        ('[stages]\na = "x.mlb"\n[colours]\n', ["line 3: unknown key 'colours'"]),
        ('name = 3\n[stages]\na = "x.mlb"\n', ["line 1: name is int, expected str"]),
        ('wiring = "a"\n[stages]\na = "x.mlb"\n', ["line 1: wiring is str, expected dict"]),
        ('stages = ["x.mlb"]\n', ["line 1: stages is list"]),
        ('[stages]\na = "x.mlb"\n[outputs]\nrisk = ["a.y"]\n', ["line 4: outputs.risk is list"]),
        ('[stages]\na = "x.mlb"\na = "y.mlb"\n', ["not TOML", "line 3"]),
        ("[stages\n", ["not TOML", "line 1"]),
        ("[stages]\n", ["there are no [stages]"]),
        ('[stages]\na = 1\n[colours]\n[wiring]\n"a.x" = 2\n', ["line 2", "line 3", "line 5"]),
    ],
    ids=["stage", "table", "name", "wiring", "stages", "output", "one name twice", "syntax", "empty", "three at once"],
)
def test_a_wrong_toml_names_every_mistake_and_its_line(tmp_path, text, words):
    (tmp_path / "p.toml").write_text(text)
    with pytest.raises(ArtifactError) as caught:
        mb.load(tmp_path / "p.toml")
    assert all(w in str(caught.value) for w in words)


def test_a_tampered_stage_of_a_toml_is_refused(place):
    data = bytearray((place / "prep.mlb").read_bytes())
    data[len(data) // 2] ^= 1
    (place / "prep.mlb").write_bytes(data)
    (place / "p.toml").write_text('[stages]\nprep = "prep.mlb"\nscore = "score.mlb"\n')
    with pytest.raises(ArtifactError, match="prep"):
        mb.load(place / "p.toml")


def test_stages_by_path_that_do_not_fit_fail_before_anything_is_loaded(place, monkeypatch):
    from mlbridge.pipeline import sources

    monkeypatch.setattr(sources, "_loader", lambda *a, **k: pytest.fail("it was loaded"))
    with pytest.raises(SignatureError):
        mb.Pipeline("p", {"a": place / "score.mlb", "b": place / "score.mlb"})


def test_a_table_goes_in_and_out_of_a_loaded_pipeline(place):
    frame = pd.DataFrame(X, columns=list("abc"))
    scaler = StandardScaler().fit(frame)
    with (
        mb.wrap(scaler, sample=frame) as prep,
        mb.load(place / "score.mlb") as score,
        mb.Pipeline("p", {"prep": prep, "score": score}) as p,
    ):
        assert p.predict(frame)["label"].tolist() == SCORE.predict(scaler.transform(frame)).tolist()
