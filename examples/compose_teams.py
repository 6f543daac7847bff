"""Chain a Spark pipeline and an R model read from their files, blend them, fuse them: no R, no Java.

python examples/compose_teams.py
"""

import warnings
from pathlib import Path

import pandas as pd

import mlbridge as mb
from mlbridge.errors import UnverifiedConversionWarning

CREDIT = Path(__file__).parent / "credit"


def main() -> None:
    """Blend two teams' probabilities and check them against the answers the teams recorded."""
    table = pd.read_csv(CREDIT / "german.csv", keep_default_na=False)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UnverifiedConversionWarning)  # bare files carry no golden rows; the lines below compare
        logit = mb.load(CREDIT / "r" / "logit.rds", options={"r": {"as": "classifier"}})
        trees = mb.load(CREDIT / "spark" / "model")
    wiring = {f"{stage}.{block}": block for stage in ("logit", "trees") for block in ("features", "categorical")}
    with mb.Pipeline(
        "blend",
        {"logit": logit, "trees": trees, "mean": mb.pipeline.mean(2, classes=["bad", "good"])},
        wiring | {"mean.a": "logit.probabilities", "mean.b": "trees.probabilities"},
        {"risk": "mean.probabilities"},
        sample=table.head(100),
    ) as pipeline:
        print(pipeline.describe())
        fused = pipeline.fuse()
        print("fused:", fused.report)
        ours = fused.predict(table, outputs="risk")[:, 1]
        theirs = (pd.read_csv(CREDIT / "r" / "answers.csv")["logit"] + pd.read_csv(CREDIT / "spark" / "answers.csv")["gbt"]) / 2
        print("largest difference from R's and Spark's own answers:", abs(ours - theirs.to_numpy()).max())
        fused.close()
    for model in (logit, trees):
        model.close()


if __name__ == "__main__":
    main()
