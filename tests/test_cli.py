import json

import joblib
import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner
from sklearn.compose import ColumnTransformer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

import mlbridge as mb
from mlbridge.cli import main

RNG = np.random.default_rng(2)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cli")
    frame = pd.DataFrame({"age": RNG.normal(size=50), "k": RNG.choice(["x", "1"], 50), "id": range(50)})
    y = np.where(frame["age"] > 0, "yes", "no")
    typed = frame.astype({"k": "category"})[["age", "k"]]
    fitted = make_pipeline(ColumnTransformer([("n", StandardScaler(), ["age"]), ("c", OneHotEncoder(), ["k"])]), LogisticRegression()).fit(
        typed, y
    )
    with mb.wrap(fitted, sample=typed) as m:
        m.save(folder / "m.mlb")
    joblib.dump(fitted, folder / "m.joblib")
    frame.to_csv(folder / "t.csv", index=False)
    frame.to_parquet(folder / "t.parquet")
    frame.to_json(folder / "t.jsonl", orient="records", lines=True)
    frame.assign(k="new").to_csv(folder / "bad.csv", index=False)
    joblib.dump(frame, folder / "sample.joblib")
    return folder, fitted, typed


def _run(*words):
    return CliRunner().invoke(main, [str(w) for w in words], catch_exceptions=False)


@pytest.mark.parametrize("kind", ["csv", "parquet", "jsonl"])
@pytest.mark.parametrize("out", ["csv", "parquet", "arrow", "jsonl"])
def test_predict_reads_and_writes_every_kind(place, tmp_path, kind, out):
    folder, fitted, typed = place
    done = _run("predict", folder / "m.mlb", folder / f"t.{kind}", "-o", tmp_path / f"o.{out}", "--keep", "id", "--chunk", 7)
    assert done.exit_code == 0, done.output
    read = {"csv": pd.read_csv, "parquet": pd.read_parquet, "arrow": pd.read_feather, "jsonl": lambda p: pd.read_json(p, lines=True)}[out]
    got = read(tmp_path / f"o.{out}")
    assert got["id"].tolist() == list(range(50))
    np.testing.assert_allclose(got["probabilities_yes"], fitted.predict_proba(typed)[:, 1], rtol=1e-9)


def test_predict_writes_to_standard_output(place):
    folder, _, _ = place
    done = _run("predict", folder / "m.mlb", folder / "t.csv", "--outputs", "label")
    assert done.stdout.splitlines()[0] == '"label"'
    assert len(done.stdout.splitlines()) == 51


def test_a_failed_predict_leaves_no_file(place, tmp_path):
    folder, _, _ = place
    done = _run("predict", folder / "m.mlb", folder / "bad.csv", "-o", tmp_path / "o.csv")
    assert done.exit_code == 2
    assert "unknown level 'new'" in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_inspect_shows_columns_and_json(place):
    folder, _, _ = place
    assert "age" in _run("inspect", folder / "m.mlb").output
    made = json.loads(_run("inspect", folder / "m.mlb", "--json").output)
    assert made["route"] == "onnx"
    assert mb.Signature.from_dict(made["signature"]).columns


def test_convert_and_verify(place, tmp_path):
    folder, _, _ = place
    sample = tmp_path / "s.parquet"
    typed = place[2]
    typed.to_parquet(sample)
    done = _run("convert", folder / "m.joblib", tmp_path / "c.mlb", "--trust", "code", "--sample", sample)
    assert done.exit_code == 0, done.output
    assert "golden rows" in done.output
    assert _run("verify", tmp_path / "c.mlb").exit_code == 0


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (["inspect", "nothing.mlb"], 65),
        (["inspect", "{folder}/m.joblib"], 65),
        (["inspect", "{folder}/m.mlb", "--trust", "total"], 2),
        (["nonsense"], 2),
        (["inspect", "{folder}/m.mlb", "--device", "cuda"], 69),
    ],
    ids=["absent", "untrusted", "wrong word", "no command", "no device"],
)
def test_exit_codes_say_who_can_fix_it(place, words, code):
    assert _run(*[w.format(folder=place[0]) for w in words]).exit_code == code


@pytest.mark.parametrize("command", ["convert", "inspect", "predict", "verify", "check", "serve", "bench"])
def test_help_has_an_example(command):
    assert "Example" in _run(command, "--help").output


def test_doctor_names_what_is_there_and_how_to_get_the_rest():
    found = json.loads(_run("doctor", "--json").output)
    assert {"onnxruntime", "java", "Rscript"} <= {f["what"] for f in found}
    assert all(f["install"] for f in found if not f["found"])


def test_bench_prints_a_row_a_batch_against_the_engine_and_draws_it(place, tmp_path):
    files = ["--svg", tmp_path / "b.svg", "--json", tmp_path / "b.json"]
    done = _run("bench", place[0] / "m.mlb", "--batch", "1", "--batch", "8", "--seconds", "0.05", *files)
    assert "rows/s" in done.output
    assert "against plain onnxruntime" in done.output
    made = json.loads((tmp_path / "b.json").read_text())
    assert [r["batch"] for r in made["rows"]] == [1, 8]
    assert all(r["low"] <= r["ratio"] <= r["high"] for r in made["rows"])
    assert "batch 8" in (tmp_path / "b.svg").read_text()


def test_doctor_lists_the_machine_and_every_provider_with_what_brings_it():
    found = {f["what"]: f for f in json.loads(_run("doctor", "--json").output)}
    assert {"cores", "free memory", "caches", "processor features", "device cpu"} <= set(found)
    assert found["CPUExecutionProvider"]["found"] == "built in"
    assert "onnx-gpu" in found["CUDAExecutionProvider"]["install"]
    assert "[onnx-gpu]" in "".join(_run("doctor").output.split())


def test_parquet_stays_typed(place, tmp_path):
    folder, _, _ = place
    _run("predict", folder / "m.mlb", folder / "t.parquet", "-o", tmp_path / "o.parquet", "--keep", "id")
    assert str(pq.read_schema(tmp_path / "o.parquet").field("id").type) == "int64"
