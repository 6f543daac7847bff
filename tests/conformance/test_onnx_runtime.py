"""The kit over `onnx`: a scikit-learn pipeline's graph, golden values from scikit-learn itself."""

import numpy as np
import onnx
import pandas as pd
import pytest
from onnx import TensorProto, helper

import mlbridge as mb
from mlbridge.testing import ModelKit

RNG = np.random.default_rng(3)
FRAME = pd.DataFrame({"a": RNG.normal(size=60), "b": RNG.normal(size=60), "k": pd.Categorical(RNG.choice(["x", "y", "z"], 60))})
TARGET = np.where(FRAME["a"] + (FRAME["k"] == "x") > 0.3, "yes", "no")


def _graph(nodes, inputs, outputs, initializers=()):
    g = helper.make_graph(nodes, "g", inputs, outputs, list(initializers))
    return helper.make_model(g, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)


@pytest.fixture(scope="module")
def fitted():
    from sklearn.compose import ColumnTransformer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OneHotEncoder, StandardScaler

    steps = ColumnTransformer([("n", StandardScaler(), ["a", "b"]), ("c", OneHotEncoder(), ["k"])])
    return make_pipeline(steps, LogisticRegression()).fit(FRAME, TARGET)


class TestOnnx(ModelKit):
    runtime_module = "mlbridge.runtimes.onnx"
    library = "onnxruntime"

    @pytest.fixture(autouse=True)
    def _fit(self, fitted, tmp_path_factory):
        self.fitted = fitted

    def open_model(self):
        return mb.wrap(self.fitted, sample=FRAME, via="onnx")

    def golden(self):
        feeds = {"features": FRAME[["a", "b"]].to_numpy()[:10], "categorical": FRAME["k"].cat.codes.to_numpy().astype(np.int32)[:10, None]}
        probabilities = self.fitted.predict_proba(FRAME[:10])
        labels = np.searchsorted(self.fitted.classes_, self.fitted.predict(FRAME[:10])).astype(np.int32)
        return feeds, {"label": labels, "probabilities": probabilities}

    def failing_model(self):
        nodes = [helper.make_node("Gather", ["table", "i"], ["y"])]
        table = onnx.numpy_helper.from_array(np.zeros(3), "table")
        made = _graph(
            nodes,
            [helper.make_tensor_value_info("i", TensorProto.INT64, ["n"])],
            [helper.make_tensor_value_info("y", TensorProto.DOUBLE, ["n"])],
            [table],
        )
        return mb.wrap(made), {"i": np.array([7])}

    def text_model(self):
        nodes = [helper.make_node("Squeeze", ["text", "one"], ["echo"])]
        one = onnx.numpy_helper.from_array(np.array([1]), "one")
        signature = mb.Signature([mb.TensorSpec("text", "string", ("rows", 1))], [mb.TensorSpec("echo", "string", ("rows",))])
        made = _graph(
            nodes,
            [helper.make_tensor_value_info("text", TensorProto.STRING, ["rows", 1])],
            [helper.make_tensor_value_info("echo", TensorProto.STRING, ["rows"])],
            [one],
        )
        return mb.wrap(made, signature=signature)

    def unknown_level(self):
        return self.open_model(), {"a": 1.0, "b": 1.0, "k": "new"}

    def slow_model(self):
        body = helper.make_graph(
            [helper.make_node("Identity", ["c"], ["c2"]), helper.make_node("Sin", ["v"], ["v2"])],
            "body",
            [
                helper.make_tensor_value_info("i", TensorProto.INT64, []),
                helper.make_tensor_value_info("c", TensorProto.BOOL, []),
                helper.make_tensor_value_info("v", TensorProto.DOUBLE, [1]),
            ],
            [helper.make_tensor_value_info("c2", TensorProto.BOOL, []), helper.make_tensor_value_info("v2", TensorProto.DOUBLE, [1])],
        )
        trips, go = onnx.numpy_helper.from_array(np.array(10**12), "trips"), onnx.numpy_helper.from_array(np.array(True), "go")
        nodes = [helper.make_node("Loop", ["trips", "go", "x"], ["y"], body=body)]
        made = _graph(
            nodes,
            [helper.make_tensor_value_info("x", TensorProto.DOUBLE, [1])],
            [helper.make_tensor_value_info("y", TensorProto.DOUBLE, [1])],
            [trips, go],
        )
        return mb.wrap(made), {"x": np.ones(1)}

    def artifact(self, folder):
        from sklearn.linear_model import LinearRegression

        x = RNG.normal(size=(20, 2))
        model = mb.wrap(LinearRegression().fit(x, x[:, 0]), sample=x, via="onnx")
        model.save(folder / "m.mlb", form="folder")
        model.close()
        return folder / "m.mlb" / "model" / "onnx" / "model.onnx"

    def load(self, path):
        return mb.load(f"onnx:{path}")
