"""Write the packages that the Java tests open: python jvm-bindings/core/src/test/make_packages.py

Golden rows and expected values are scikit-learn's own.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import onnx
import pandas as pd
from onnx import TensorProto, helper
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
    every_type(5 * x[:20])


def every_type(x: np.ndarray) -> None:
    """Write a graph that answers its input in every type ONNX Runtime's Java gives back."""
    types = {"float": TensorProto.FLOAT, "double": TensorProto.DOUBLE, "int8": TensorProto.INT8, "uint8": TensorProto.UINT8}
    types |= {"int32": TensorProto.INT32, "int64": TensorProto.INT64, "bool": TensorProto.BOOL}
    nodes = [helper.make_node("Cast", ["x"], [name], to=kind) for name, kind in types.items()]
    outputs = [helper.make_tensor_value_info(name, kind, ["rows", 3]) for name, kind in types.items()]
    graph = helper.make_graph(nodes, "types", [helper.make_tensor_value_info("x", TensorProto.DOUBLE, ["rows", 3])], outputs)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "types.onnx"
        onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10), path)
        with mb.load(path, sample={"x": np.abs(x)}) as model:
            model.save(OUT / "types.mlb", overwrite=True)


if __name__ == "__main__":
    main()
