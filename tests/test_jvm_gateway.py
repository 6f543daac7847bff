"""`jvm+py4j:`: a live PySpark joined. Expected values are what Spark's own transform answers."""

from __future__ import annotations

import datetime
import importlib.util
import os
import shutil
import socket
import sys
from pathlib import Path

import numpy as np
import pytest

import mlbridge as mb
from mlbridge import errors
from mlbridge.interfaces import Deadline
from mlbridge.model import Model
from mlbridge.runtimes.jvm.command import JAR
from mlbridge.runtimes.jvm.gateway import GatewaySession, infer_signature
from mlbridge.runtimes.jvm.transformer import make_transformer, save_package
from mlbridge.testing import ModelKit

HERE = Path(__file__).parent
PACKAGES = HERE.parent / "jvm-bindings/core/src/test/resources"
# building the jar put it there; users name it by its coordinates
ONNXRUNTIME = sorted(Path.home().glob(".m2/repository/com/microsoft/onnxruntime/onnxruntime/*/onnxruntime-*.jar"))
needs_jar = pytest.mark.skipif(not (JAR.is_file() and ONNXRUNTIME), reason="the jar, or onnxruntime's, is not there: make jvm")
pytestmark = [
    pytest.mark.jvm,
    pytest.mark.timeout(900),
    pytest.mark.skipif(importlib.util.find_spec("pyspark") is None, reason="pyspark is not installed"),
    pytest.mark.skipif(shutil.which("java") is None, reason="Java is not installed"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),  # PySpark on pandas 3
]


@pytest.fixture(scope="module")
def fit():
    sys.path.insert(0, str(HERE / "spark_models"))
    try:
        spec = importlib.util.spec_from_file_location("spark_fit", HERE / "spark_models" / "fit.py")
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    finally:
        sys.path.remove(str(HERE / "spark_models"))
    return module


@pytest.fixture(scope="module")
def spark(fit):
    path = ",".join(map(str, [JAR, *ONNXRUNTIME[-1:]]))
    before = os.environ.get("PYSPARK_SUBMIT_ARGS")
    os.environ["PYSPARK_SUBMIT_ARGS"] = f"--jars {path} pyspark-shell"
    session = fit.session()
    yield session
    session.stop()
    os.environ.pop("PYSPARK_SUBMIT_ARGS")
    if before is not None:
        os.environ["PYSPARK_SUBMIT_ARGS"] = before


@pytest.fixture(scope="module")
def plants(fit, spark):
    return fit.frame(spark, {k: v for k, v in fit.table("co2").items() if k in ("Plant", "Type", "Treatment", "conc", "uptake")}).cache()


@pytest.fixture(scope="module")
def classifier(plants):
    """Strings and a number in, the class's own name out."""
    from pyspark.ml import Pipeline
    from pyspark.ml.classification import DecisionTreeClassifier
    from pyspark.ml.feature import IndexToString, StringIndexer, VectorAssembler

    label = StringIndexer(inputCol="Type", outputCol="y").fit(plants)
    return Pipeline(
        stages=[
            StringIndexer(inputCol="Treatment", outputCol="t", handleInvalid="skip"),
            VectorAssembler(inputCols=["t", "conc", "uptake"], outputCol="f"),
            label,
            DecisionTreeClassifier(featuresCol="f", labelCol="y", maxDepth=3),
            IndexToString(inputCol="prediction", outputCol="answer", labels=label.labels),
        ]
    ).fit(plants)


@pytest.fixture(scope="module")
def texts(spark):
    rows = [("a b c", "x"), ("b c d e", "y"), ("e f", "x"), ("a e", "y"), ("", "y")]
    return spark.createDataFrame(rows, "words string, kind string")


@pytest.fixture(scope="module")
def bag_of_words(texts):
    """Stages that have no exact ONNX form."""
    from pyspark.ml import Pipeline
    from pyspark.ml.classification import LogisticRegression
    from pyspark.ml.feature import StringIndexer, Tokenizer, Word2Vec

    return Pipeline(
        stages=[
            StringIndexer(inputCol="kind", outputCol="y"),
            Tokenizer(inputCol="words", outputCol="w"),
            Word2Vec(inputCol="w", outputCol="f", vectorSize=4, minCount=1, seed=1),
            LogisticRegression(featuresCol="f", labelCol="y", regParam=0.1),
        ]
    ).fit(texts)


def test_wrap_takes_the_signature_from_the_schema_and_verifies_against_the_running_spark(classifier, plants):
    with mb.wrap(classifier, sample=plants) as model:
        assert model.report.verified
        assert [c.name for c in model.signature.columns] == ["conc", "uptake", "Treatment"]
        want = [r.answer for r in classifier.transform(plants).collect()]
        assert list(model.predict(plants)["label"]) == want


def test_the_native_session_answers_as_transform_and_dropped_rows_are_missing(classifier, plants):
    with mb.wrap(classifier, sample=plants, via="native") as model:
        assert model.device == "jvm"
        rows = classifier.transform(plants).collect()
        got = model.predict(plants)
        assert list(got["label"]) == [r.answer for r in rows]
        np.testing.assert_array_equal(got["probabilities"], [r.probability.toArray() for r in rows])
        gone = model.run({"features": np.ones((3, 2)), "categorical": np.array([[0], [-1], [1]], np.int32)})
        assert gone["label"][1] == -1
        assert np.isnan(gone["probabilities"][1]).all()
        assert (gone["label"][[0, 2]] >= 0).all()


def test_stages_without_onnx_run_in_the_running_spark_and_are_saved_for_a_worker(bag_of_words, texts, tmp_path):
    with mb.wrap(bag_of_words, sample=texts) as model:
        assert model.route.runtime == "jvm"
        rows = bag_of_words.transform(texts).collect()
        np.testing.assert_array_equal(model.predict(texts)["probabilities"], [r.probability.toArray() for r in rows])
        model.save(tmp_path / "words.mlb")
    with pytest.raises(errors.UntrustedArtifactError):
        mb.load(tmp_path / "words.mlb")


def test_columns_beside_the_answer_come_when_asked_for_and_only_then(classifier, plants):
    options = {"spark": {"outputs": ["rawPrediction"]}}
    with mb.wrap(classifier, sample=plants, via="native") as model:
        assert [s.name for s in model.signature.outputs] == ["label", "probabilities"]
    want = [r.rawPrediction.toArray() for r in classifier.transform(plants).collect()]
    for via in ("native", "onnx"):
        with mb.wrap(classifier, sample=plants, via=via, options=options) as model:
            assert [s.name for s in model.signature.outputs] == ["label", "probabilities", "rawPrediction"]
            np.testing.assert_allclose(model.predict(plants)["rawPrediction"], want, rtol=1e-12)


def test_a_label_whose_indexer_skips_is_not_demanded_of_rows_to_predict(plants):
    """Spark alone raises here: it looks for the label of every row, to leave out those it does not know."""
    from pyspark.ml import Pipeline
    from pyspark.ml.classification import DecisionTreeClassifier
    from pyspark.ml.feature import StringIndexer, VectorAssembler

    label = StringIndexer(inputCol="Type", outputCol="y", handleInvalid="skip")
    stages = [VectorAssembler(inputCols=["conc", "uptake"], outputCol="f"), label, DecisionTreeClassifier(featuresCol="f", labelCol="y")]
    model = Pipeline(stages=stages).fit(plants)
    want = [r.prediction for r in model.transform(plants).collect()]
    for via in ("native", "onnx"):
        with mb.wrap(model, sample=plants.drop("Type"), via=via) as wrapped:
            assert list(wrapped.predict(plants.drop("Type"))["label"]) == want


def test_sql_in_a_pipeline_is_asked_in_the_running_spark(plants):
    from pyspark.ml import PipelineModel
    from pyspark.ml.feature import SQLTransformer, VectorAssembler

    sql = SQLTransformer(statement="SELECT *, CASE WHEN Type = 'Quebec' THEN uptake * 2 ELSE -uptake END AS doubled FROM __THIS__")
    model = PipelineModel(stages=[sql, VectorAssembler(inputCols=["doubled", "conc"], outputCol="f")])
    with mb.wrap(model, sample=plants) as wrapped:
        assert wrapped.route.runtime == "jvm"
        assert [c.name for c in wrapped.signature.columns] == ["conc", "uptake", "Type"]
        np.testing.assert_array_equal(wrapped.predict(plants)["transformed"], [r.f.toArray() for r in model.transform(plants).collect()])


def test_a_saved_folder_joins_the_running_spark(classifier, plants, tmp_path):
    classifier.write().save((tmp_path / "model").as_uri())
    with mb.load(f"jvm+py4j:{tmp_path / 'model'}", trust="code", sample=plants) as model:
        assert list(model.predict(plants.limit(7))["label"]) == [r.answer for r in classifier.transform(plants.limit(7)).collect()]


def test_what_spark_raises_is_an_inference_error_with_its_classes(bag_of_words, texts):
    with mb.wrap(bag_of_words, sample=texts) as model:
        session = model._session
        with pytest.raises(errors.InferenceError) as caught:
            session.run({"text": np.array([["a"], [None]], object)})
        assert any("NullPointerException" in c or "SparkException" in c for c in caught.value.condition)
        assert len(session.run({"text": np.array([["a"]], object)})["label"]) == 1


def test_a_deadline_and_a_cancel_end_the_call(bag_of_words, texts):
    with mb.wrap(bag_of_words, sample=texts) as model:
        feeds = {"text": np.array([["a b"]] * 100, object)}
        with pytest.raises(errors.BridgeTimeoutError):
            model._session.run(feeds, deadline=Deadline(0.001))
        cancelled = Deadline(60)
        cancelled.cancel()
        with pytest.raises(errors.CancelledError):
            model._session.run(feeds, deadline=cancelled)
        assert len(model._session.run(feeds, deadline=Deadline(60))["label"]) == 100


def test_zero_rows_and_vectors(spark, tmp_path):
    from pyspark.ml.feature import StandardScaler
    from pyspark.ml.linalg import Vectors

    frame = spark.createDataFrame([(Vectors.dense(1.0, 2.0),), (Vectors.dense(3.0, 5.0),)], ["v"])
    scaler = StandardScaler(inputCol="v", outputCol="s", withMean=True).fit(frame)
    with mb.wrap(scaler, sample=frame, via="native") as model:
        want = [r.s.toArray() for r in scaler.transform(frame).collect()]
        np.testing.assert_array_equal(model.predict(frame)["transformed"], want)
        assert model.predict({"v": np.empty((0, 2))})["transformed"].shape == (0, 2)


def test_the_gateway_answers_nobody_without_its_token(spark):
    gateway = spark.sparkContext._gateway
    with socket.create_connection((gateway.gateway_parameters.address, gateway.gateway_parameters.port), timeout=10) as guest:
        guest.sendall(b"c\nz:java.lang.Runtime\ngetRuntime\ne\n")
        answer = guest.recv(4096)
    assert not answer.startswith(b"!yro")  # an object; it must be an error or nothing


def test_a_frame_too_large_to_collect_is_refused(spark, classifier, plants, monkeypatch):
    from mlbridge.tensors import spark_frame

    with mb.wrap(classifier, sample=plants, via="native") as model:
        monkeypatch.setattr(spark_frame, "MAX_ROWS", 10)
        with pytest.raises(errors.InputError, match="more than 10 rows"):
            model.predict(plants)


# ---------------------------------------------------------------- producer and consumer in the JVM


@needs_jar
def test_a_package_that_java_saves_is_loaded_converted_and_verified_without_spark(classifier, plants, tmp_path):
    save_package(classifier, tmp_path / "plants.mlb", plants)
    with mb.load(tmp_path / "plants.mlb") as model:
        assert model.route.runtime == "onnx"
        assert model.report.verified
        assert model.report.rows == 64
        want = classifier.transform(plants).collect()
        got = model.predict(plants)
        assert list(got["label"]) == [r.answer for r in want]
        np.testing.assert_allclose(got["probabilities"], [r.probability.toArray() for r in want], rtol=1e-9)


@needs_jar
def test_java_finds_the_rules_of_inputs_by_trying(classifier, bag_of_words, plants, texts, tmp_path):
    save_package(classifier, tmp_path / "a.mlb", plants)
    save_package(bag_of_words, tmp_path / "b.mlb", texts)
    with mb.load(tmp_path / "a.mlb") as model:
        signature = model.signature
    assert signature.input("categorical").columns[0].unknown == "keep"  # handleInvalid="skip"
    assert signature.input("features").missing == "refuse"  # the assembler's default
    with pytest.raises(errors.UntrustedArtifactError):
        mb.load(tmp_path / "b.mlb")  # no exact ONNX form: only a JVM runs it


@needs_jar
def test_any_package_is_a_stage_of_a_spark_pipeline(spark, tmp_path):
    from pyspark.ml import PipelineModel

    rng = np.random.default_rng(9)
    rows = [
        (float(a), float(b), s, i) for i, (a, b, s) in enumerate(zip(*rng.normal(size=(2, 3000)), rng.choice(["S", "M", "größer"], 3000)))
    ]
    rows[5] = (None, 1.0, "S", 5)
    frame = spark.createDataFrame(rows, "age double, income double, size string, id long").repartition(3)
    scored = PipelineModel(stages=[make_transformer(PACKAGES / "forest.mlb")]).transform(frame).orderBy("id").collect()
    with mb.load(PACKAGES / "forest.mlb") as model:
        want = model.predict({"age": [r[0] for r in rows], "income": [r[1] for r in rows], "size": [r[2] for r in rows]})
    assert [r.label for r in scored] == list(want["label"])
    np.testing.assert_allclose([r.probabilities.toArray() for r in scored], want["probabilities"], rtol=1e-9)


@needs_jar
def test_a_pipeline_that_holds_a_package_is_saved_and_read_by_pyspark(spark, tmp_path):
    from pyspark.ml import PipelineModel

    frame = spark.createDataFrame([(30.0, 1.0, "S"), (50.0, 2.0, "M")], "age double, income double, size string")
    pipeline = PipelineModel(stages=[make_transformer(PACKAGES / "forest.mlb")])
    pipeline.write().overwrite().save((tmp_path / "stages").as_uri())
    again = PipelineModel.load((tmp_path / "stages").as_uri())
    assert [r.label for r in again.transform(frame).collect()] == [r.label for r in pipeline.transform(frame).collect()]


@needs_jar
def test_java_saves_a_formula_by_its_stages(plants, tmp_path):
    from pyspark.ml import Pipeline
    from pyspark.ml.feature import RFormula
    from pyspark.ml.regression import LinearRegression

    fitted = Pipeline(stages=[RFormula(formula="uptake ~ Type:conc + Treatment"), LinearRegression(regParam=0.1)]).fit(plants)
    save_package(fitted, tmp_path / "formula.mlb", plants.drop("uptake"))
    with mb.load(tmp_path / "formula.mlb") as model:
        assert model.report.verified
        want = [r.prediction for r in fitted.transform(plants).collect()]
        np.testing.assert_allclose(model.predict(plants)["prediction"], want, rtol=1e-9)


@needs_jar
def test_a_model_that_r_made_scores_on_the_executors(spark, fit, tmp_path):
    """R wrote the package with its own golden answers; converted without R, it needs none on the executors."""
    with mb.load(HERE.parent / "examples" / "credit" / "r" / "logit.mlb") as model:
        assert model.report.verified
        model.save(tmp_path / "logit.mlb")
        names = [c.name for c in model.signature.columns]
        rows = {k: v[:200] for k, v in fit.table("credit").items() if k in names}
        want = model.predict(rows)
    scored = make_transformer(tmp_path / "logit.mlb").transform(fit.frame(spark, rows).repartition(2))
    keyed = {tuple(r[n] for n in rows): r for r in scored.collect()}
    got = [keyed[tuple(rows[n][i] for n in rows)] for i in range(200)]
    assert [r.label for r in got] == list(want["label"])
    np.testing.assert_allclose([r.probabilities.toArray() for r in got], want["probabilities"], rtol=1e-12)


@needs_jar
def test_a_forest_that_rounds_its_columns_to_float32_scores_on_the_executors(spark, tmp_path):
    pd = pytest.importorskip("pandas", reason="pandas is not installed")
    from sklearn.ensemble import RandomForestRegressor

    rng = np.random.default_rng(4)
    table = pd.DataFrame({"a": rng.normal(size=200), "b": rng.normal(size=200)})
    forest = RandomForestRegressor(5, random_state=0).fit(table, table.a * table.b)
    with mb.wrap(forest, sample=table) as model:
        assert model.signature.input("features").dtype == "float32"
        model.save(tmp_path / "forest.mlb")
    frame = spark.createDataFrame([(i, float(a), float(b)) for i, (a, b) in enumerate(table.to_numpy())], ["id", "a", "b"])
    scored = make_transformer(tmp_path / "forest.mlb").transform(frame).orderBy("id").collect()
    np.testing.assert_allclose([r.prediction for r in scored], forest.predict(table), rtol=1e-12)


@needs_jar
def test_a_network_that_torch_made_scores_on_the_executors(spark, tmp_path):
    from pyspark.ml.linalg import Vectors

    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    torch.manual_seed(0)
    network = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.Tanh(), torch.nn.Linear(8, 2)).eval()
    x = np.random.default_rng(3).normal(size=(300, 4)).astype(np.float32)
    with mb.wrap(network, sample=x) as model:
        model.save(tmp_path / "network.mlb")
        (name,), (answer,) = [s.name for s in model.signature.inputs], [s.name for s in model.signature.outputs]
    with torch.no_grad():
        want = network(torch.from_numpy(x)).numpy()
    frame = spark.createDataFrame([(i, Vectors.dense(row.astype(float))) for i, row in enumerate(x)], ["id", name]).repartition(2)
    scored = make_transformer(tmp_path / "network.mlb").transform(frame).orderBy("id").collect()
    np.testing.assert_allclose([r[answer].toArray() for r in scored], want, rtol=1e-4, atol=1e-5)  # float32


MOMENTS = [
    (1, datetime.date(2024, 2, 29), datetime.datetime(2024, 3, 31, 1, 30, 0, 250_000, tzinfo=datetime.UTC), 1.0),
    (2, datetime.date(1969, 12, 31), datetime.datetime(1969, 12, 31, 23, 59, 59, 999_999, tzinfo=datetime.UTC), -2.0),
    (3, datetime.date(2100, 1, 1), datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC), 0.5),
]


@needs_jar
def test_dates_and_timestamps_of_spark_reach_columns_with_units(spark, tmp_path):
    """The same model, asked by Python with Python's dates and by Spark with Spark's, in a time zone that is not UTC."""
    pd = pytest.importorskip("pandas", reason="pandas is not installed")
    from sklearn.linear_model import LinearRegression

    from mlbridge.signature import Column, Signature, TensorSpec

    rng = np.random.default_rng(0)
    table = pd.DataFrame({"day": rng.integers(0, 20000, 50) * 1.0, "moment": rng.uniform(0, 1e9, 50), "x": rng.normal(size=50)})
    fitted = LinearRegression().fit(table, table.day / 7 + table.moment / 1e6 + table.x)
    columns = (Column("day", unit="date"), Column("moment", unit="timestamp"), Column("x"))
    signature = Signature((TensorSpec("features", "float64", ("rows", 3), columns),), (TensorSpec("prediction", "float64", ("rows",)),))
    with mb.wrap(fitted, sample=table, signature=signature) as model:
        assert model.route.runtime == "onnx"
        model.save(tmp_path / "dated.mlb")
        want = model.predict({"day": [r[1] for r in MOMENTS], "moment": [r[2] for r in MOMENTS], "x": [r[3] for r in MOMENTS]})
        numbers = pd.DataFrame([(r[1].toordinal() - 719163, r[2].timestamp(), r[3]) for r in MOMENTS], columns=list(table))
        np.testing.assert_allclose(want["prediction"], fitted.predict(numbers), rtol=1e-12)
        before = spark.conf.get("spark.sql.session.timeZone")
        spark.conf.set("spark.sql.session.timeZone", "America/New_York")
        try:
            frame = spark.createDataFrame(MOMENTS, "id int, day date, moment timestamp, x double")
            scored = make_transformer(tmp_path / "dated.mlb").transform(frame).orderBy("id").collect()
            np.testing.assert_array_equal([r.prediction for r in scored], want["prediction"])
            np.testing.assert_array_equal(model.predict(frame.orderBy("id"))["prediction"], want["prediction"])
            naive = frame.selectExpr("day", "cast(moment as timestamp_ntz) as moment", "x")
            with pytest.raises(Exception, match=r"column 'moment' holds a java\.time\.LocalDateTime, expected a timestamp"):
                make_transformer(tmp_path / "dated.mlb").transform(naive).collect()
        finally:
            spark.conf.set("spark.sql.session.timeZone", before)


def test_a_pipeline_that_reads_dates_is_asked_in_spark(spark):
    from pyspark.ml import Pipeline
    from pyspark.ml.feature import SQLTransformer, VectorAssembler

    frame = spark.createDataFrame(MOMENTS, "id int, day date, moment timestamp, x double").drop("id")
    sql = "SELECT *, cast(month(day) as double) AS m, cast(moment as double) AS s FROM __THIS__"
    fitted = Pipeline(stages=[SQLTransformer(statement=sql), VectorAssembler(inputCols=["m", "s", "x"], outputCol="f")]).fit(frame)
    with mb.wrap(fitted, sample=frame, via="native") as model:
        assert [c.unit for c in model.signature.input("features").columns] == ["date", "timestamp", None]
        want = [r.f.toArray() for r in fitted.transform(frame).collect()]
        np.testing.assert_array_equal(model.predict(frame)["transformed"], want)


@needs_jar
@pytest.mark.parametrize(
    "signature", [None, mb.Signature([mb.TensorSpec("x", "float64", ("rows",))], [mb.TensorSpec("y", "float64", ("rows",))])]
)
def test_what_is_still_to_be_fitted_is_refused_with_the_remedy(signature):
    from pyspark.ml import Pipeline

    with pytest.raises(errors.SignatureError, match=r"Pipeline is not fitted[^$]*fit\(dataframe\)"):
        mb.wrap(Pipeline(stages=[]), signature=signature)


def test_an_unknown_level_in_a_spark_stage_is_named(spark):
    frame = spark.createDataFrame([(1.0, 1.0, "XXL")], "age double, income double, size string")
    with pytest.raises(Exception, match="column 'size': unknown level 'XXL'"):
        make_transformer(PACKAGES / "forest.mlb").transform(frame).collect()


# ---------------------------------------------------------------- the conformance kit, in the same Spark


class TestGateway(ModelKit):
    runtime_module = "mlbridge.runtimes.jvm"
    library = "pyspark"

    @pytest.fixture(autouse=True)
    def _spark(self, classifier, bag_of_words, plants, texts):
        self.fitted, self.words, self.plants, self.texts = classifier, bag_of_words, plants, texts

    def device(self):
        return "jvm"

    def open_model(self):
        return mb.wrap(self.fitted, sample=self.plants, via="native")

    def golden(self):
        rows = self.fitted.transform(self.plants).limit(10).collect()
        levels = self.fitted.stages[0].labels
        kinds = self.fitted.stages[-1].getLabels()
        feeds = {
            "features": np.array([[r.conc, r.uptake] for r in rows], float),
            "categorical": np.array([[levels.index(r.Treatment)] for r in rows], np.int32),
        }
        label = np.array([kinds.index(r.answer) for r in rows], np.int32)
        return feeds, {"label": label, "probabilities": np.array([r.probability.toArray() for r in rows])}

    def failing_model(self):
        session = GatewaySession(self.words, infer_signature(self.words, self.texts))  # which allows missing text
        return Model(session), {"text": np.array([[None]], object)}
