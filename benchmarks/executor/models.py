"""The models the executor is measured on: four of the daily kind, four more for tuning; all seeded."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable

import numpy as np

from mlbridge.artifact import open_artifact
from mlbridge.model import Model
from mlbridge.runtimes.onnx import OnnxRuntime, claimed_rows
from mlbridge.signature import Signature, TensorSpec

WIDTH = 30
DAILY = ("logistic regression", "scaler + logistic regression", "MLP", "100-tree forest")


@functools.cache
def data() -> tuple[np.ndarray, np.ndarray]:
    """Return 4,000 rows of 30 float32 columns and two classes."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(4000, WIDTH)).astype("f4")
    return X, (X[:, 0] + X[:, 1] * X[:, 2] > 0).astype(int)


@functools.cache
def estimator(name: str):
    """Return a fitted scikit-learn estimator of that name."""
    from sklearn.ensemble import RandomForestClassifier
    from sklearn.linear_model import LogisticRegression
    from sklearn.neural_network import MLPClassifier
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    made: dict[str, Callable] = {
        "logistic regression": lambda: LogisticRegression(max_iter=500),
        "scaler + logistic regression": lambda: make_pipeline(StandardScaler(), LogisticRegression(max_iter=500)),
        "MLP": lambda: MLPClassifier((64, 64), max_iter=30, random_state=0),
        "100-tree forest": lambda: RandomForestClassifier(100, max_depth=10, random_state=0),
    }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # thirty rounds of an MLP do not converge, and need not
        return made[name]().fit(*data())


@functools.cache
def graph(name: str) -> bytes:
    """Return the plain float32 graph of a daily model, as any exporter would write it; or one of the synthetic ones."""
    if name in DAILY:
        from skl2onnx import to_onnx

        model = estimator(name)
        return to_onnx(model, data()[0][:1], options={id(model): {"zipmap": False}}).SerializeToString()
    return _SYNTHETIC[name]()


def signature(model: bytes, missing: str = "allow") -> Signature:
    """Return the graph's signature with the promise of rows and one missing rule for its inputs."""
    session = OnnxRuntime().load(open_artifact(model))
    named = claimed_rows(session.signature)
    session.close()
    inputs = [TensorSpec(s.name, s.dtype, s.shape, s.columns, missing, s.rounding) for s in named.inputs]
    return named.replace(inputs=tuple(inputs))


def open_model(model: bytes, missing: str = "allow", **options) -> Model:
    """Return a public Model of a graph."""
    session = OnnxRuntime().load(open_artifact(model), signature=signature(model, missing), **options)
    return Model(session, runtime=OnnxRuntime())


def rows(n: int, width: int = WIDTH) -> np.ndarray:
    """Return seeded float32 rows."""
    return np.ascontiguousarray(np.random.default_rng(1).normal(size=(n, width)).astype("f4"))


# ---------------------------------------------------------------- graphs without a library


def _dense(layers: int, width: int) -> bytes:
    from onnx import TensorProto, helper, numpy_helper

    rng = np.random.default_rng(3)
    names = ["x", *(f"h{i}" for i in range(layers - 1)), "y"]
    sizes = [WIDTH, *[width] * layers]
    nodes, weights = [], []
    for i in range(layers):
        weights.append(numpy_helper.from_array((rng.normal(size=sizes[i : i + 2]) / np.sqrt(sizes[i])).astype("f4"), f"w{i}"))
        nodes += [helper.make_node("MatMul", [names[i], f"w{i}"], [f"m{i}"]), helper.make_node("Tanh", [f"m{i}"], [names[i + 1]])]
    return _written(nodes, weights, ["n", width], TensorProto.FLOAT)


def _convolution() -> bytes:
    from onnx import TensorProto, helper, numpy_helper

    rng = np.random.default_rng(4)
    nodes = [helper.make_node("Reshape", ["x", "shape"], ["c0"])]
    weights = [numpy_helper.from_array(np.array([0, 1, 5, 6]), "shape")]
    channels = [1, 16, 32]
    for i in range(2):
        kernel = rng.normal(size=(channels[i + 1], channels[i], 3, 3)).astype("f4") / 5
        weights.append(numpy_helper.from_array(kernel, f"k{i}"))
        nodes += [
            helper.make_node("Conv", [f"c{i}", f"k{i}"], [f"d{i}"], pads=[1, 1, 1, 1]),
            helper.make_node("Relu", [f"d{i}"], [f"c{i + 1}"]),
        ]
    nodes += [helper.make_node("GlobalAveragePool", ["c2"], ["p"]), helper.make_node("Flatten", ["p"], ["y"])]
    return _written(nodes, weights, ["n", 32], TensorProto.FLOAT)


def transformer(blocks: int, width: int = 64) -> bytes:
    """Return an encoder's feed-forward blocks with layer norm and GELU in small operators, as exporters write them."""
    from onnx import TensorProto, helper, numpy_helper

    rng = np.random.default_rng(5)
    scalars = {"two": 2.0, "half": 0.5, "one": 1.0, "root": np.sqrt(2.0), "eps": 1e-5}
    weights = [numpy_helper.from_array(np.array(v, "f4"), k) for k, v in scalars.items()]
    weights += [
        numpy_helper.from_array(np.array([-1]), "axis"),
        numpy_helper.from_array(rng.normal(size=(WIDTH, width)).astype("f4"), "in"),
    ]
    nodes, last = [helper.make_node("MatMul", ["x", "in"], ["e"])], "e"
    for i in range(blocks):

        def op(kind: str, *inputs: str, i: int = i, **attributes) -> str:
            name = f"b{i}_{len(nodes)}"
            nodes.append(helper.make_node(kind, list(inputs), [name], **attributes))
            return name

        def weight(*shape: int, i: int = i) -> str:
            name = f"w{i}_{len(weights)}"
            weights.append(numpy_helper.from_array((rng.normal(size=shape) / 8).astype("f4"), name))
            return name

        centred = op("Sub", last, op("ReduceMean", last, "axis"))
        spread = op("Sqrt", op("Add", op("ReduceMean", op("Pow", centred, "two"), "axis"), "eps"))
        normed = op("Add", op("Mul", op("Div", centred, spread), weight(width)), weight(width))
        up = op("Add", op("MatMul", normed, weight(width, 4 * width)), weight(4 * width))
        gelu = op("Mul", op("Mul", up, op("Add", op("Erf", op("Div", up, "root")), "one")), "half")
        last = op("Add", last, op("Add", op("MatMul", gelu, weight(4 * width, width)), weight(width)))
    nodes.append(helper.make_node("Identity", [last], ["y"]))
    return _written(nodes, weights, ["n", width], TensorProto.FLOAT)


def _written(nodes, weights, shape, kind) -> bytes:
    from onnx import helper

    inputs, outputs = [helper.make_tensor_value_info("x", kind, ["n", WIDTH])], [helper.make_tensor_value_info("y", kind, shape)]
    made = helper.make_graph(nodes, "g", inputs, outputs, weights)
    return helper.make_model(made, opset_imports=[helper.make_opsetid("", 21)], ir_version=10).SerializeToString()


_SYNTHETIC = {
    "wide layer": lambda: _dense(1, 1024),
    "deep narrow net": lambda: _dense(40, 32),
    "large MLP": lambda: _dense(3, 768),
    "convolutions": _convolution,
}
GRID = (*DAILY, *_SYNTHETIC)
