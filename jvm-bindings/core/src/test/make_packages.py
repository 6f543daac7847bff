"""Write the packages that the Java tests open: python jvm-bindings/core/src/test/make_packages.py

Golden rows and expected values are scikit-learn's own.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LinearRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder

import mlbridge as mb

OUT = Path(__file__).parent / "resources"


def main() -> None:
    rng = np.random.default_rng(5)
    x = rng.normal(size=(200, 3))
    y = x @ [1.0, -2.0, 0.5] + 3
    mb.wrap(LinearRegression().fit(x, y), sample=x[:20]).save(OUT / "linear.mlb", overwrite=True)
    size = rng.choice(["S", "M", "größer"], 200)
    table = pd.DataFrame({"age": x[:, 0].round(3), "income": x[:, 1], "size": pd.Categorical(size, categories=["S", "M", "größer"])})
    kind = np.where(x[:, 0] + (size == "M") > 0.5, "yes", np.where(x[:, 1] > 0, "no", "maybe"))
    encode = ColumnTransformer([("size", OneHotEncoder(), ["size"])], remainder="passthrough")
    forest = make_pipeline(encode, RandomForestClassifier(5, max_depth=4, random_state=0)).fit(table, kind)
    mb.wrap(forest, sample=table[:30]).save(OUT / "forest.mlb", overwrite=True)


if __name__ == "__main__":
    main()
