"""Writing a forest as ONNX: ours, straight from arrays, against skl2onnx, in the same rounds."""

from __future__ import annotations

import warnings

import numpy as np

from benchmarks.harness import Bar, Section, interleave, ratio_row
from mlbridge.conversion.graph import Graph
from mlbridge.frameworks.trees import Tree, add_trees
from mlbridge.signature import Signature, TensorSpec

BAR = 10.0
COLUMNS = 20
FORESTS = {"100 trees, depth 10": (100, 10), "300 full trees": (300, None)}


def written(forest) -> bytes:
    """Write a forest's probabilities as a finished ONNX model."""
    trees = [
        Tree(t.feature, t.threshold, t.children_left, t.children_right, t.value[:, 0, :]) for t in (e.tree_ for e in forest.estimators_)
    ]
    classes = len(forest.classes_)
    inputs = [TensorSpec("x", "float32", ("rows", COLUMNS), rounding="nearest")]
    graph = Graph(Signature(inputs, [TensorSpec("probabilities", "float64", ("rows", classes))]))
    graph.output("probabilities", add_trees(graph, "x", trees, targets=classes, aggregate="average", dtype="float32"))
    return graph.model().SerializeToString()


def by_skl2onnx(forest, row) -> bytes:
    """Write it with skl2onnx."""
    from skl2onnx import to_onnx

    return to_onnx(forest, row, options={id(forest): {"zipmap": False}}).SerializeToString()


def bench(quick: bool) -> Section:
    from sklearn.ensemble import RandomForestClassifier

    section = Section(
        "forest_writer",
        "Writing a forest",
        "From a fitted scikit-learn forest to the bytes of an ONNX model: ours in double with float32 input, skl2onnx in float32.",
    )
    rng = np.random.default_rng(0)
    x = rng.normal(size=(3000, COLUMNS)).astype(np.float32)
    y = (x[:, 0] + x[:, 1] * x[:, 2] > 0).astype(int)
    for name, (count, depth) in FORESTS.items():
        forest = RandomForestClassifier(count, max_depth=depth, random_state=0).fit(x, y)
        _same(forest, x)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            times = interleave(
                {"ours": lambda f=forest: written(f), "skl2onnx": lambda f=forest: by_skl2onnx(f, x[:1])}, rounds=3 if quick else 9
            )
        row = ratio_row(name, "skl2onnx, times ours", times["skl2onnx"], times["ours"])
        section.rows.append(row)
        section.bars.append(Bar(f"{name}: times faster than skl2onnx", row.ratio, row.low, row.high, BAR, ">="))
    return section


def _same(forest, x) -> None:
    """A fast wrong writer would win: the answers are scikit-learn's first."""
    import onnxruntime

    session = onnxruntime.InferenceSession(written(forest), providers=["CPUExecutionProvider"])
    np.testing.assert_allclose(session.run(None, {"x": x[:500]})[0], forest.predict_proba(x[:500]), rtol=1e-12, atol=1e-15)
