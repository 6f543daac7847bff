"""Spark's saved folder is read without Spark: whole or not at all, and never as code."""

from __future__ import annotations

import json
import random
import shutil
from pathlib import Path

import numpy as np
import pytest

import mlbridge as mb
from mlbridge.artifact import open_artifact
from mlbridge.errors import ArtifactError, ConversionError, MlbridgeError, SignatureError, UnsupportedError, UntrustedArtifactError
from mlbridge.frameworks.spark import SparkFramework

pytest.importorskip("pyarrow", reason="pyarrow is not installed")

FOLDERS = Path(__file__).parent / "spark_models" / "folders"
FRAMEWORK = SparkFramework()


def read(path):
    artifact = open_artifact(path)
    try:
        return FRAMEWORK.read(artifact)
    finally:
        artifact.close()


def stage(folder: Path, name: str, package: str = "org.apache.spark.ml.feature", **params) -> Path:
    """Write the metadata of a stage without data."""
    (folder / "metadata").mkdir(parents=True)
    meta = {"class": f"{package}.{name}", "sparkVersion": "4.0.0", "uid": f"{name}_1", "paramMap": params, "defaultParamMap": {}}
    (folder / "metadata" / "part-00000").write_text(json.dumps(meta))
    return folder


def pipeline(folder: Path, *stages: tuple[str, dict]) -> Path:
    stage(folder, "PipelineModel", "org.apache.spark.ml", stageUids=[f"{n}_1" for n, _ in stages])
    for i, (name, params) in enumerate(stages):
        stage(folder / "stages" / f"{i}_{name}_1", name, **params)
    return folder


@pytest.fixture
def credit(tmp_path):
    return Path(shutil.copytree(FOLDERS / "credit-boosted", tmp_path / "credit"))


def test_a_folder_is_recognised_and_read():
    model = read(FOLDERS / "credit-boosted")
    assert [s.name for s in model.stages[-3:]] == ["StringIndexerModel", "GBTClassificationModel", "IndexToString"]
    assert FRAMEWORK.accepts(model)


def test_inputs_are_the_raw_columns_and_the_label_is_none():
    signature = FRAMEWORK.infer(read(FOLDERS / "credit-boosted"), None)
    assert [c.name for c in signature.columns] == ["duration", "amount", "age", "checking", "purpose", "savings", "employment"]
    assert [s.missing for s in signature.inputs] == ["refuse", "allow"]
    assert {c.unknown for c in signature.input("categorical").columns} == {"keep"}
    assert [s.name for s in signature.outputs] == ["label", "probabilities"]
    assert signature.output("label").columns[0].categories == ("good", "bad")
    assert [c.name for c in signature.output("probabilities").columns] == ["good", "bad"]


def test_further_columns_are_answered_only_when_asked():
    model = read(FOLDERS / "credit-boosted")
    signature = FRAMEWORK.infer(model, None, outputs=["rawPrediction"])
    assert [s.name for s in signature.outputs] == ["label", "probabilities", "rawPrediction"]
    with pytest.raises(SignatureError, match="no stage makes 'margin'"):
        FRAMEWORK.infer(model, None, outputs=["margin"])


def test_probe_rows_take_every_branch_of_every_tree():
    from mlbridge.conversion.graph import Graph
    from mlbridge.frameworks.spark.answers import run
    from mlbridge.frameworks.spark.flow import Flow
    from mlbridge.frameworks.spark.probes import _forward
    from mlbridge.frameworks.spark.schema import find_path
    from mlbridge.frameworks.trees import node_coverage

    model = read(FOLDERS / "tree-categorical")
    signature = FRAMEWORK.infer(model, None)
    feeds = FRAMEWORK.probe(model, signature=signature, seed=0)
    flow = Flow(Graph(signature), dry=True)
    run(flow, find_path(model))
    ((trees, attrs, levels),) = flow.forests
    assert node_coverage(trees, _forward(signature, feeds, attrs), levels=levels) == 1.0


def test_native_is_refused_with_a_way_out():
    with pytest.raises(UnsupportedError, match="jvm"):
        FRAMEWORK.native(read(FOLDERS / "credit-boosted"), signature=None)


WORDS = {"inputCol": "text", "outputCol": "words"}
REGEX = {**WORDS, "pattern": "\\s+", "gaps": True, "minTokenLength": 1, "toLowercase": True}


@pytest.mark.parametrize(("name", "params"), [("Tokenizer", WORDS), ("RegexTokenizer", REGEX)], ids=["Tokenizer", "RegexTokenizer"])
def test_a_pipeline_that_ends_in_words_is_refused_by_name(name, params, tmp_path):
    model = read(stage(tmp_path / "m", name, **params))
    signature = FRAMEWORK.infer(model, None)
    assert signature.input("text").dtype == "string"
    with pytest.raises(ConversionError, match=name):
        FRAMEWORK.convert(model, tmp_path, signature=signature)


def test_a_refused_file_says_which_stage_and_which_trust(tmp_path):
    folder = stage(tmp_path / "m", "Tokenizer", **WORDS)
    with pytest.raises(UntrustedArtifactError, match="Tokenizer answers lists of words") as caught:
        mb.load(folder)
    assert "trust='code'" in caught.value.hint


HASHING = {"inputCol": "last", "outputCol": "tf", "numFeatures": 16, "binary": False}


def hashing(folder: Path, *stages: tuple[str, dict], version: str = "4.1.0"):
    pipeline(folder, *stages, ("HashingTF", HASHING))
    meta = folder / "stages" / f"{len(stages)}_HashingTF_1" / "metadata" / "part-00000"
    meta.write_text(meta.read_text().replace('"4.0.0"', f'"{version}"'))
    model = read(folder)
    return model, FRAMEWORK.infer(model, None)


def test_hashed_words_say_where_the_case_of_a_sigma_is_unclear(tmp_path):
    """Java asks for the word's boundaries, which its releases draw by rules of their own: no answer is better than a wrong one."""
    ort = pytest.importorskip("onnxruntime")
    model, signature = hashing(tmp_path / "m", ("Tokenizer", {**WORDS, "outputCol": "last"}))
    assert str(signature) == "text: string[rows, 1] -> transformed: float64[rows, 16]"
    session = ort.InferenceSession(str(FRAMEWORK.convert(model, tmp_path, signature=signature)), providers=["CPUExecutionProvider"])
    (got,) = session.run(None, {"text": np.array([["\u0391\u03a3 a  A"], [""], [" "]], dtype=object)})
    assert got.sum(axis=1).tolist() == [4.0, 1.0, 0.0]
    with pytest.raises(Exception, match="out of data bounds"):
        session.run(None, {"text": np.array([["\u0391\u03a3."]], dtype=object)})


@pytest.mark.parametrize(
    ("stages", "version", "match"),
    [
        ([("Tokenizer", {**WORDS, "outputCol": "last"})], "2.4.8", "before 3.0"),
        ([("RegexTokenizer", {**REGEX, "outputCol": "last", "minTokenLength": 0})], "4.1.0", "may be empty"),
        ([("RegexTokenizer", {**REGEX, "outputCol": "last", "minTokenLength": 2})], "4.1.0", "by their length"),
        ([], "4.1.0", "whose words have no ONNX form"),
    ],
    ids=["old-hash", "ragged", "length", "raw-words"],
)
def test_hashes_without_an_exact_form_are_refused_by_name(stages, version, match, tmp_path):
    model, signature = hashing(tmp_path / "m", *stages, version=version)
    with pytest.raises(ConversionError, match=match):
        FRAMEWORK.convert(model, tmp_path, signature=signature)


def counting(folder: Path, vocabulary: list[str], *stages: tuple[str, dict], **params) -> Path:
    """Write a pipeline that ends in a CountVectorizer over the column `last`."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    given = {"inputCol": "last", "outputCol": "tf", "minTF": 1.0, "binary": False, **params}
    pipeline(folder, *stages, ("CountVectorizerModel", given))
    data = folder / "stages" / f"{len(stages)}_CountVectorizerModel_1" / "data"
    data.mkdir()
    pq.write_table(pa.table({"vocabulary": [vocabulary]}), data / "part-00000.parquet")
    return folder


STOP = {"inputCol": "words", "outputCol": "last", "stopWords": ["the"], "caseSensitive": False, "locale": "en_US"}


@pytest.mark.parametrize(
    ("vocabulary", "stages", "match"),
    [
        (["a", ""], [("Tokenizer", {**WORDS, "outputCol": "last"})], "the empty word"),
        (["\u03c3\u03bf\u03c6\u03cc\u03c2"], [("Tokenizer", {**WORDS, "outputCol": "last"})], "sigma"),
        (["i\u0307"], [("Tokenizer", {**WORDS, "outputCol": "last"})], "lower case"),
        (["\ua7cd"], [("Tokenizer", {**WORDS, "outputCol": "last"})], "lower case"),
        (["a"], [("RegexTokenizer", {**REGEX, "outputCol": "last", "pattern": "(?<=a)b"})], "RegexTokenizer with the pattern"),
        (["a"], [("RegexTokenizer", {**REGEX, "outputCol": "last", "pattern": "\\w", "gaps": False})], "RegexTokenizer with the pattern"),
        (
            ["a b"],
            [("Tokenizer", WORDS), ("NGram", {"inputCol": "words", "outputCol": "last", "n": 2})],
            "NGram of words that may be empty",
        ),
        (["a"], [("Tokenizer", WORDS), ("StopWordsRemover", {**STOP, "locale": "tr_TR"})], "locale tr_TR"),
        (["a"], [], "whose words have no ONNX form"),
    ],
    ids=["empty", "sigma", "dotted", "young", "pattern", "single", "ngram", "turkish", "raw-words"],
)
def test_words_without_an_exact_form_are_refused_by_name(vocabulary, stages, match, tmp_path):
    model = read(counting(tmp_path / "m", vocabulary, *stages))
    signature = FRAMEWORK.infer(model, None)
    with pytest.raises(ConversionError, match=match):
        FRAMEWORK.convert(model, tmp_path, signature=signature)


def test_a_share_of_all_words_is_refused(tmp_path):
    model = read(counting(tmp_path / "m", ["a"], ("Tokenizer", {**WORDS, "outputCol": "last"}), minTF=0.5))
    with pytest.raises(ConversionError, match=r"minTF=0\.5"):
        FRAMEWORK.convert(model, tmp_path, signature=FRAMEWORK.infer(model, None))


@pytest.mark.skipif(shutil.which("javac") is None, reason="a JDK is not installed")
def test_java_has_the_lower_case_that_words_are_matched_by(tmp_path):
    """Over all of Unicode, but for the letters that no vocabulary may hold."""
    import subprocess

    from mlbridge.frameworks.spark.text import _YOUNG_CHARACTERS

    source = tmp_path / "Lower.java"
    source.write_text(
        "public class Lower { public static void main(String[] a) { for (int c = 0; c < 0x110000; c++) {"
        "String s = new String(Character.toChars(c)).toLowerCase(); if (c < 0xD800 || c > 0xDFFF)"
        'System.out.println(s.codePointAt(0) + (s.codePointCount(0, s.length()) > 1 ? "+" : "")); } } }'
    )
    done = subprocess.run(["java", "-Duser.language=en", str(source)], capture_output=True, text=True, check=True)
    every = [c for c in range(0x110000) if not 0xD800 <= c <= 0xDFFF]
    differ = {chr(c).lower() for c, said in zip(every, done.stdout.split(), strict=True) if said != str(ord(chr(c).lower()[0]))}
    assert differ <= _YOUNG_CHARACTERS | {"i\u0307"}


def test_sql_is_refused_wherever_it_stands(tmp_path):
    model = read(
        pipeline(
            tmp_path / "m",
            ("SQLTransformer", {"statement": "SELECT *, a + b AS c FROM __THIS__"}),
            ("VectorAssembler", {"inputCols": ["a", "c"], "outputCol": "v", "handleInvalid": "error"}),
        )
    )
    with pytest.raises(ConversionError, match="SQLTransformer"):
        FRAMEWORK.infer(model, None)


def test_an_unknown_stage_is_refused_by_name(tmp_path):
    with pytest.raises(ConversionError, match="GizmoModel"):
        FRAMEWORK.infer(read(stage(tmp_path / "m", "GizmoModel", inputCol="a", outputCol="b")), None)


def test_an_estimator_is_refused(tmp_path):
    with pytest.raises(ArtifactError, match="not a fitted model"):
        read(stage(tmp_path / "m", "Pipeline", "org.apache.spark.ml", stageUids=[]))


def test_a_vector_without_a_width_asks_for_a_sample(tmp_path):
    model = read(stage(tmp_path / "m", "Normalizer", inputCol="v", outputCol="o", p=2.0))
    with pytest.raises(SignatureError, match="no stage says how wide") as caught:
        FRAMEWORK.infer(model, None)
    assert "sample" in caught.value.hint
    assert FRAMEWORK.infer(model, {"v": [[1.0, 2.0, 3.0]]}).input("v").shape == ("rows", 3)


def test_a_missing_stage_is_refused(credit):
    shutil.rmtree(next((credit / "stages").glob("1_*")))
    with pytest.raises(ArtifactError, match="copy the folder whole"):
        read(credit)


def test_pipelines_nested_without_end_are_refused(tmp_path):
    folder = tmp_path / "m"
    for _ in range(20):
        stage(folder, "PipelineModel", "org.apache.spark.ml", stageUids=["PipelineModel_1"])
        folder = folder / "stages" / "0_PipelineModel_1"
    stage(folder, "Normalizer", inputCol="v", outputCol="o", p=2.0)
    with pytest.raises(ArtifactError, match="nested deeper"):
        read(tmp_path / "m")


def test_a_sparse_vector_of_absurd_size_is_refused(tmp_path):
    model = read(
        stage(
            tmp_path / "m",
            "ElementwiseProduct",
            inputCol="v",
            outputCol="o",
            scalingVec={"type": 0, "size": 2**40, "indices": [], "values": []},
        )
    )
    with pytest.raises(ArtifactError, match="a vector of"):
        FRAMEWORK.infer(model, None)


@pytest.mark.parametrize("seed", range(40))
def test_damaged_files_raise_our_errors_only(seed, credit, tmp_path):
    rng = random.Random(seed)
    files = sorted(p for p in credit.rglob("*") if p.is_file())
    victim = rng.choice(files)
    data = bytearray(victim.read_bytes())
    if seed % 4 == 0:
        data = data[: rng.randrange(len(data))]
    else:
        for _ in range(rng.choice([1, 4, 30])):
            data[rng.randrange(len(data))] = rng.randrange(256)
    victim.write_bytes(bytes(data))
    try:
        model = read(credit)
        signature = FRAMEWORK.infer(model, None)
        FRAMEWORK.convert(model, tmp_path, signature=signature)
    except MlbridgeError:
        pass
    except UnicodeDecodeError as exc:  # pragma: no cover
        pytest.fail(f"{victim}: {exc}")


def test_importing_the_framework_imports_no_library():
    import subprocess
    import sys

    code = "import sys, mlbridge.frameworks.spark; print([m for m in ('pyarrow','pyspark','onnx','onnxruntime') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_documented_table_of_stages_is_the_code():
    import importlib.util

    docs = Path(__file__).parents[1] / "docs"
    spec = importlib.util.spec_from_file_location("make_spark_stages", docs / "make_spark_stages.py")
    page = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(page)
    assert (docs / "spark-stages.md").read_text(encoding="utf-8") == page.text()
