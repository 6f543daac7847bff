"""One row through a converted Spark pipeline against Spark's own `transform().collect()`, in one run.

Usage: python benchmarks/frameworks/bench_spark.py [FOLDER]
The folder defaults to the tests' credit pipeline (indexers, encoders, boosted trees). Needs pyspark and Java.
Prints one JSON object; the bar is a ratio of 1,000.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from mlbridge.artifact import open_artifact
from mlbridge.frameworks.spark import SparkFramework

ROOT = Path(__file__).parents[2]
BAR = 1000.0


def _session():
    from pyspark.sql import SparkSession

    build = SparkSession.builder.master("local[2]").config("spark.ui.enabled", "false").config("spark.sql.shuffle.partitions", "1")
    spark = build.config("spark.driver.host", "127.0.0.1").config("spark.ui.showConsoleProgress", "false").getOrCreate()
    spark.sparkContext.setLogLevel("OFF")
    return spark


def _median_s(call, times: int) -> float:
    spent = []
    for _ in range(times):
        start = time.perf_counter()
        call()
        spent.append(time.perf_counter() - start)
    return float(np.median(spent))


def _convert(folder: Path):
    """Return a converted session and the seconds that reading and converting took."""
    import onnxruntime as ort

    framework = SparkFramework()
    start = time.perf_counter()
    artifact = open_artifact(folder)
    model = framework.read(artifact)
    signature = framework.infer(model, None)
    path = framework.convert(model, Path(tempfile.mkdtemp()), signature=signature)
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return session, framework.probe(model, signature=signature, seed=0), signature, time.perf_counter() - start


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


def main() -> None:
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "tests/spark_models/folders/credit-boosted"
    session, probes, signature, converting_s = _convert(folder)
    one = _row(signature, probes)
    spark = _session()
    from pyspark.ml import PipelineModel

    model = PipelineModel.load(folder.resolve().as_uri())
    frame = spark.createDataFrame([one["columns"]]).cache()
    frame.count()

    def native():
        return model.transform(frame).select("probability").collect()

    def converted():
        return session.run(None, one["feeds"])

    for _ in range(5):
        native()
    want = np.asarray(native()[0]["probability"].toArray())
    got = converted()[[s.name for s in signature.outputs].index("probabilities")][0]
    native_s, converted_s = _median_s(native, 20), _median_s(converted, 2000)
    spark.stop()
    result = {
        "model": folder.name,
        "ratio": native_s / converted_s,
        "bar": BAR,
        "spark_ms": native_s * 1e3,
        "converted_us": converted_s * 1e6,
        "read_and_convert_s": converting_s,
        "largest_difference": float(np.abs(got - want).max()),
    }
    sys.stdout.write(json.dumps(result, indent=1) + "\n")
    sys.exit(0 if result["ratio"] >= BAR else 1)


if __name__ == "__main__":
    main()
