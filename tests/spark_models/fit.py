"""Fit every case with Spark, save the folders, and write what Spark's own transform answers. Run by the tests, once.

    python tests/spark_models/fit.py OUT [CASE ...]

Rows: real ones, and the probe rows mlbridge makes of the saved folder (path rows of trees, unseen levels, missing values).
"""

from __future__ import annotations

import csv
import json
import logging
import sys
import time
import types
from pathlib import Path

import numpy as np

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))

from cases import CASES, NATIVE, RAISES, RIVALS  # noqa: E402

log = logging.getLogger("fit")


def session():
    from pyspark.sql import SparkSession

    build = SparkSession.builder.master("local[2]").appName("mlbridge-tests")
    settings = {
        "spark.ui.enabled": "false",
        "spark.sql.shuffle.partitions": "1",
        "spark.default.parallelism": "1",
        "spark.driver.memory": "1g",
        "spark.driver.host": "127.0.0.1",
        "spark.driver.bindAddress": "127.0.0.1",
        "spark.sql.codegen.wholeStage": "false",  # compiling costs more than these few rows
        "spark.sql.codegen.factoryMode": "NO_CODEGEN",
        "spark.sql.adaptive.enabled": "false",
        "spark.hadoop.fs.file.impl.disable.cache": "true",
        "spark.ui.showConsoleProgress": "false",
    }
    for key, value in settings.items():
        build = build.config(key, value)
    spark = build.getOrCreate()
    spark.sparkContext.setLogLevel("OFF")
    return spark


def namespace():
    """Every class of pyspark.ml under one name."""
    from pyspark.ml import Pipeline, classification, clustering, evaluation, feature, linalg, regression, tuning

    m = types.SimpleNamespace(Pipeline=Pipeline)
    for module in (feature, classification, regression, clustering, evaluation, tuning, linalg):
        for name in dir(module):
            if name[:1].isupper():
                setattr(m, name, getattr(module, name))
    return m


def table(name):
    """Return {column: values}; numbers as float, text as str, vectors as arrays."""
    from sklearn import datasets

    if name == "iris":
        d = datasets.load_iris()
        out = dict(zip(("sl", "sw", "pl", "pw"), d.data.T))
        return {**out, "y": d.target.astype(float), "species": [str(d.target_names[t]) for t in d.target]}
    if name in ("wine", "cancer", "diabetes"):
        d = {"wine": datasets.load_wine, "cancer": datasets.load_breast_cancer, "diabetes": datasets.load_diabetes}[name]()
        out = {f"{name[0]}{i}": c for i, c in enumerate(d.data.T)}
        out["y"] = d.target.astype(float)
        if name == "diabetes":
            out["seen"] = (np.arange(len(d.target)) % 4 > 0).astype(float)
            out["v"] = d.data
        return out
    if name == "texts":
        about = [datasets.load_iris, datasets.load_wine, datasets.load_breast_cancer, datasets.load_diabetes, datasets.load_digits]
        lines = [line for load in about for line in load().DESCR.splitlines()]
        return {"line": lines, "long": np.array([float(len(line) > 60) for line in lines])}
    if name == "digits":
        return {"pixels": datasets.load_digits().data[:300]}
    path = {"credit": HERE.parents[1] / "examples/credit/german.csv"}.get(name)
    files = {"air": "airquality", "co2": "CO2", "cars": "mtcars"}
    with open(path or HERE / "data" / f"{files[name]}.csv", newline="") as f:
        rows = list(csv.DictReader(f))
    out = {}
    for key in rows[0]:
        values = [r[key] for r in rows]
        try:
            out[key.replace("Solar.R", "Solar")] = np.array([float(v) if v else np.nan for v in values])
        except ValueError:
            out[key] = values
    if name == "co2":
        out["plant_number"] = np.unique(out["Plant"], return_inverse=True)[1].astype(float)
        out["high"] = (out["uptake"] > 28).astype(float)
    if name == "cars":
        out["one"], out["lw"] = np.ones(len(rows)), np.log(out["wt"])
        out["gear"] = out["gear"].astype(int)
    return out


def frame(spark, data):
    """Make a DataFrame; NaN stays NaN, None is null."""
    from pyspark.ml.linalg import Vectors, VectorUDT
    from pyspark.sql import types as t

    fields, columns = [], []
    for name, values in data.items():
        array = np.asarray(values)
        if array.ndim == 2:
            kind, column = VectorUDT(), [Vectors.dense(v) for v in array]
        elif array.dtype.kind in "OU":
            kind, column = t.StringType(), [None if v is None else str(v) for v in values]
        elif array.dtype.kind in "iu":
            kind, column = t.IntegerType(), [int(v) for v in array]
        else:
            kind, column = t.DoubleType(), [float(v) for v in array]
        fields.append(t.StructField(name, kind))
        columns.append(column)
    return spark.createDataFrame(list(zip(*columns)), t.StructType(fields)).coalesce(1)


def feeds_of(signature, data, rows):
    """Put real rows into the signature's blocks."""
    from mlbridge.signature import level_text

    feeds = {}
    for spec in signature.inputs:
        if not spec.columns:
            feeds[spec.name] = np.ascontiguousarray(np.asarray(data[spec.name])[rows], dtype=np.float64)
            continue
        block = np.zeros((len(rows), len(spec.columns)), object if spec.dtype == "string" else spec.dtype)
        for i, column in enumerate(spec.columns):
            values = [data[column.name][r] for r in rows]
            if column.categories is not None:
                levels = [level_text(v) for v in column.categories]
                block[:, i] = [levels.index(str(v)) if str(v) in levels else len(levels) for v in values]
            else:
                block[:, i] = values
        feeds[spec.name] = block
    return feeds


def columns_of(signature, feeds):
    """Turn blocks into Spark's columns; code -1 is null, an unknown level a text nothing was trained on."""
    out = {}
    for spec in signature.inputs:
        if not spec.columns:
            out[spec.name] = feeds[spec.name]
            continue
        for i, column in enumerate(spec.columns):
            values = feeds[spec.name][:, i]
            if column.categories is None:
                out[column.name] = values
                continue
            levels = [*map(str, column.categories), "never seen" if column.level_type == "string" else "987654", None]
            out[column.name] = np.array([levels[c] for c in values], dtype=object)
    return out


def usable(signature, feeds):
    """Leave out the rows that the signature refuses."""
    n = len(next(iter(feeds.values())))
    keep = np.ones(n, bool)
    for spec in signature.inputs:
        block = feeds[spec.name].reshape(n, -1)
        if spec.missing == "refuse":
            gone = np.isnan(block) if block.dtype.kind == "f" else np.equal(block, None) if spec.dtype == "string" else block < 0
            keep &= ~gone.any(axis=1).astype(bool)
        for i, column in enumerate(spec.columns):
            if column.categories is not None and column.unknown == "refuse":
                keep &= block[:, i] < len(column.categories)
    return {k: v[keep] for k, v in feeds.items()}


def spark_columns(path, answer, signature):
    """Say which Spark columns hold each output."""
    out = {}
    for spec in signature.outputs:
        if answer is None:
            out[spec.name] = list(path.targets) if spec.name == "transformed" else [spec.name]
        elif spec.name == "label":
            restored = [s.text("outputCol") for s in path.stages if s.name == "IndexToString"]
            out["label"] = restored or [answer.column]
        elif spec.name in ("prediction", "cluster"):
            out[spec.name] = [answer.column]
        else:
            last = path.predictor
            names = {"probabilities": "probabilityCol", "decision": "rawPredictionCol"}
            out[spec.name] = [last.text(names[spec.name])] if spec.name in names else [spec.name]
    return out


def value(cell):
    return None if cell is None else cell if isinstance(cell, str) else np.asarray(getattr(cell, "toArray", lambda: cell)(), float).tolist()


def fit_case(spark, m, name, out):
    from mlbridge.artifact import open_artifact
    from mlbridge.conversion.graph import Graph
    from mlbridge.frameworks.spark import SparkFramework
    from mlbridge.frameworks.spark.answers import run
    from mlbridge.frameworks.spark.flow import Flow
    from mlbridge.frameworks.spark.schema import find_path

    which, build, options = {**CASES, **NATIVE}[name]
    data = table(which)
    stages = build(m)
    estimator = m.Pipeline(stages=stages) if isinstance(stages, list) else stages
    n = len(next(iter(data.values())))
    train = np.random.default_rng(0).permutation(n)[:300]
    model = estimator.fit(frame(spark, {k: [v[i] for i in train] for k, v in data.items()}).cache())
    folder = out / name / "model"
    model.write().overwrite().save(folder.as_uri())
    framework, asked = SparkFramework(), options.get("outputs", ())
    artifact = open_artifact(folder)
    read = framework.read(artifact)
    artifact.close()
    sample = {k: np.asarray(v) for k, v in data.items()}
    signature = framework.infer(read, sample, outputs=asked)
    probes = framework.probe(read, signature=signature, seed=1)
    feeds = feeds_of(signature, data, np.random.default_rng(1).permutation(n)[:60])
    if probes:
        pick = np.random.default_rng(2).permutation(len(next(iter(probes.values()))))[:500]
        feeds = {k: np.concatenate([v, probes[k][pick]]) for k, v in feeds.items()}
    if "extra" in options:
        extra = {k: [r.get(k, v[0]) for r in options["extra"]] for k, v in data.items()}
        more = feeds_of(signature, extra, range(len(options["extra"])))
        feeds = {k: np.concatenate([v, more[k]]) for k, v in feeds.items()}
    feeds = usable(signature, feeds)
    flow = Flow(Graph(signature), dry=True)
    path = find_path(read, [a for a in asked if a not in ("prediction",)])
    columns = spark_columns(path, run(flow, path), signature)
    rows = columns_of(signature, feeds)
    rows["_row"] = np.arange(len(next(iter(feeds.values())))).astype(float)
    answers = model.transform(frame(spark, rows)).select("_row", *dict.fromkeys(c for cs in columns.values() for c in cs)).collect()
    expected = {k: [[value(r[c]) for c in cs] for r in answers] for k, cs in columns.items()}
    (out / name / "expected.json").write_text(json.dumps({"rows": [int(r["_row"]) for r in answers], "outputs": expected}))
    (out / name / "signature.json").write_text(signature.to_json())
    np.savez(out / name / "feeds.npz", **{k: v.astype(str) if v.dtype == object else v for k, v in feeds.items()})  # no pickle
    if name == "credit-boosted":
        same = framework.infer(model, None, outputs=asked) == framework.infer(read, None, outputs=asked)
        said = {"accepts": framework.accepts(model), "estimator": framework.accepts(estimator), "same": same}
        (out / name / "live.json").write_text(json.dumps(said))
    if name in RIVALS:
        np.save(out / name / "onnxmltools.npy", rival(spark, model, rows))


def rival(spark, model, rows):
    """Return onnxmltools' answers to the same rows."""
    import onnxruntime as ort
    from onnxmltools import convert_sparkml
    from onnxmltools.convert.common.data_types import FloatTensorType

    names = [k for k in rows if k != "_row"]
    converted = convert_sparkml(model, name="rival", initial_types=[(n, FloatTensorType([None, 1])) for n in names], spark_session=spark)
    session = ort.InferenceSession(converted.SerializeToString(), providers=["CPUExecutionProvider"])
    feeds = {n: np.asarray(rows[n], np.float32)[:, None] for n in names}
    return dict(zip((o.name for o in session.get_outputs()), session.run(None, feeds)))["prediction"].ravel()


def fit_raising(spark, m, name, out):
    which, build, rows = RAISES[name]
    data = table(which)
    model = m.Pipeline(stages=build(m)).fit(frame(spark, data))
    model.write().overwrite().save((out / name / "model").as_uri())
    raised = []
    for row in rows:
        try:
            model.transform(frame(spark, {k: np.array([v]) for k, v in row.items()})).collect()
            raised.append(False)
        except Exception:  # noqa: BLE001
            raised.append(True)
    (out / name / "raises.json").write_text(json.dumps({"rows": rows, "raised": raised}))


def main(out, names):
    from concurrent.futures import ThreadPoolExecutor

    start = time.perf_counter()
    spark, m, failures = session(), namespace(), {}
    log.info("session %.1f s", time.perf_counter() - start)

    def one(name):
        begin = time.perf_counter()
        try:
            (fit_raising if name in RAISES else fit_case)(spark, m, name, out)
        except Exception as exc:  # noqa: BLE001
            failures[name] = f"{type(exc).__name__}: {str(exc)[:2000]}"
        log.info("%-28s %.1f s %s", name, time.perf_counter() - begin, failures.get(name, "")[:300])

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(one, names))
    (out / "failures.json").write_text(json.dumps(failures))
    log.info("total %.1f s, %d failures", time.perf_counter() - start, len(failures))
    spark.stop()


if __name__ == "__main__":
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    log.setLevel(logging.INFO)
    main(Path(sys.argv[1]), sys.argv[2:] or [*CASES, *NATIVE, *RAISES])
