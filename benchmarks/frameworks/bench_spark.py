"""One row through a converted Spark pipeline against Spark's own `transform().collect()`, in one run.

The pipeline is the tests' credit model (indexers, encoders, boosted trees). Needs pyspark and Java.
"""

from __future__ import annotations

import importlib.util
import shutil
import tempfile
import time
from pathlib import Path

import numpy as np

from benchmarks.harness import Bar, Section, ratio_row
from mlbridge.artifact import open_artifact
from mlbridge.frameworks.spark import SparkFramework

FOLDER = Path(__file__).parents[2] / "tests/spark_models/folders/credit-boosted"
BAR = 1000.0


def _session():
    from pyspark.sql import SparkSession

    build = SparkSession.builder.master("local[2]").config("spark.ui.enabled", "false").config("spark.sql.shuffle.partitions", "1")
    spark = build.config("spark.driver.host", "127.0.0.1").config("spark.ui.showConsoleProgress", "false").getOrCreate()
    spark.sparkContext.setLogLevel("OFF")
    return spark


def _times(call, rounds: int, calls: int = 1) -> np.ndarray:
    """Return seconds a call, one value a round."""
    out = np.empty(rounds)
    for i in range(rounds):
        start = time.perf_counter()
        for _ in range(calls):
            call()
        out[i] = (time.perf_counter() - start) / calls
    return out


def _convert(folder: Path):
    """Return a converted session, probe rows and the signature."""
    import onnxruntime as ort

    framework = SparkFramework()
    artifact = open_artifact(folder)
    model = framework.read(artifact)
    signature = framework.infer(model, None)
    path = framework.convert(model, Path(tempfile.mkdtemp()), signature=signature)
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return session, framework.probe(model, signature=signature, seed=0), signature


def _row(signature, feeds) -> dict:
    """Return the first probe row that is whole, as Spark's columns."""
    n = len(next(iter(feeds.values())))
    whole = np.ones(n, bool)
    for spec in signature.inputs:
        for i, column in enumerate(spec.columns):
            values = feeds[spec.name][:, i]
            whole &= ~np.isnan(values) if column.categories is None else (values >= 0) & (values < len(column.categories))
    at = int(np.argmax(whole))
    row = {}
    for spec in signature.inputs:
        for i, column in enumerate(spec.columns):
            value = feeds[spec.name][at, i]
            row[column.name] = float(value) if column.categories is None else column.categories[int(value)]
    return {"columns": row, "feeds": {k: v[at : at + 1] for k, v in feeds.items()}}


def bench(quick: bool) -> Section:
    section = Section(
        "spark", "A Spark pipeline", "One row: Spark's `transform().collect()` on a cached frame, in times the converted session's run."
    )
    if importlib.util.find_spec("pyspark") is None or shutil.which("java") is None:
        section.skipped = "it needs pyspark and Java"
        return section
    session, probes, signature = _convert(FOLDER)
    one = _row(signature, probes)
    spark = _session()
    from pyspark.ml import PipelineModel

    model = PipelineModel.load(FOLDER.resolve().as_uri())
    frame = spark.createDataFrame([one["columns"]]).cache()
    frame.count()

    def native():
        return model.transform(frame).select("probability").collect()

    def converted():
        return session.run(None, one["feeds"])

    for _ in range(5):
        native()
    got = converted()[[s.name for s in signature.outputs].index("probabilities")][0]
    np.testing.assert_allclose(got, native()[0]["probability"].toArray(), rtol=1e-9)
    rounds = 8 if quick else 20
    theirs = _times(native, rounds)
    ours = _times(converted, rounds, 100)
    spark.stop()
    row = ratio_row(f"{FOLDER.name}, one row", "Spark over ours", theirs, ours)
    section.rows.append(row)
    section.bars.append(Bar("one row, times faster than transform().collect()", row.ratio, row.low, row.high, BAR, ">="))
    return section
