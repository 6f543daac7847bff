"""Wrap a fitted scikit-learn pipeline, look at its verification, save it, open it again.

python examples/wrap_and_save.py
"""

import tempfile
from pathlib import Path

import pandas as pd
from sklearn.compose import make_column_transformer
from sklearn.ensemble import RandomForestClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder

import mlbridge as mb

CREDIT = Path(__file__).parent / "credit" / "german.csv"


def main() -> None:
    """Train on the credit table; the answers are scikit-learn's, the run is ONNX Runtime's."""
    table = pd.read_csv(CREDIT, keep_default_na=False).astype({"purpose": "category", "housing": "category"})
    X, y = table[["duration", "amount", "age", "purpose", "housing"]], table["risk"]
    fitted = make_pipeline(
        make_column_transformer((OneHotEncoder(), ["purpose", "housing"]), remainder="passthrough"),
        RandomForestClassifier(50, max_depth=8, random_state=0),
    ).fit(X, y)

    with tempfile.TemporaryDirectory() as folder, mb.wrap(fitted, sample=X.head(200)) as model:
        print(model.describe())
        print("rows compared:", model.report.rows, "largest relative error:", model.report.max_error)
        model.save(Path(folder) / "risk.mlb")
        with mb.load(Path(folder) / "risk.mlb") as again:
            print(again.predict({"duration": 12, "amount": 2500, "age": 41, "purpose": "Radio.Television", "housing": "Own"}))
            print(again.predict(X.tail(3)))
            print(again.check(X.tail(3).assign(purpose="Yacht")))


if __name__ == "__main__":
    main()
