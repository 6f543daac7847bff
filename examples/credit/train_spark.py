"""Team Spark: StringIndexer, OneHotEncoder and gradient-boosted trees; writes spark/: the model's folder, a package, Spark's answers.

Needs pyspark and Java; the demo needs neither, it reads what this wrote.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import pandas as pd

import mlbridge as mb

HERE = Path(__file__).parent
NUMBERS = ["duration", "amount", "installment_rate", "age"]
CATEGORIES = ["checking", "history", "savings", "purpose"]


def main() -> None:
    """Fit, save, and record the probability of `good` for every row."""
    from pyspark.ml import Pipeline
    from pyspark.ml.classification import GBTClassifier
    from pyspark.ml.feature import OneHotEncoder, StringIndexer, VectorAssembler
    from pyspark.ml.functions import vector_to_array
    from pyspark.sql import SparkSession

    spark = (
        SparkSession.builder.master("local[1]")
        .config("spark.ui.enabled", "false")
        .config("spark.sql.shuffle.partitions", "1")
        .getOrCreate()
    )
    table = pd.read_csv(HERE / "german.csv", keep_default_na=False, na_values=[""])
    table[NUMBERS] = table[NUMBERS].astype(float)
    frame = spark.createDataFrame(table[[*NUMBERS, *CATEGORIES, "risk"]]).coalesce(1)
    stages = [
        StringIndexer(inputCols=CATEGORIES, outputCols=[f"{c}_i" for c in CATEGORIES], handleInvalid="keep"),
        OneHotEncoder(inputCols=[f"{c}_i" for c in CATEGORIES], outputCols=[f"{c}_v" for c in CATEGORIES]),
        VectorAssembler(inputCols=NUMBERS + [f"{c}_v" for c in CATEGORIES], outputCol="features"),
        StringIndexer(inputCol="risk", outputCol="label", stringOrderType="alphabetAsc", handleInvalid="skip"),
        GBTClassifier(maxIter=15, maxDepth=3, seed=7),
    ]
    model = Pipeline(stages=stages).fit(frame)
    folder = HERE / "spark"
    shutil.rmtree(folder, ignore_errors=True)
    model.write().overwrite().save(str(folder / "model"))
    for crc in folder.rglob("*.crc"):
        crc.unlink()
    with mb.wrap(model, sample=frame.drop("risk")) as wrapped:  # converted, and verified against the Spark that runs here
        wrapped.save(folder / "gbt.mlb", overwrite=True)
    answers = model.transform(frame).select(vector_to_array("probability")[1].alias("gbt")).toPandas()
    answers.to_csv(folder / "answers.csv", index=False, float_format="%.17g")
    spark.stop()


if __name__ == "__main__":
    main()
