"""The shared tree writer against a slow walker, onnxruntime and onnx's own evaluator."""

from __future__ import annotations

import numpy as np
import pytest

from mlbridge.conversion.graph import Graph
from mlbridge.errors import ConversionError
from mlbridge.frameworks.trees import GE, GT, IN, LE, LT, Tree, add_trees, node_coverage, path_rows
from mlbridge.signature import Signature, TensorSpec

onnxruntime = pytest.importorskip("onnxruntime")

COLUMNS = 5  # the last two hold category codes
LEVELS = {3: 4, 4: 7}


def random_tree(rng: np.random.Generator, targets: int, *, depth: int, modes=(LE, LT, GE, GT, IN), own_target: int | None = None) -> Tree:
    feature, threshold, left, right, mode, missing, members = [], [], [], [], [], [], {}

    def grow(level: int) -> int:
        node = len(feature)
        for column in (feature, threshold, left, right, mode, missing):
            column.append(0)
        if level == depth or rng.random() < 0.15:
            feature[node], mode[node] = -1, LE
            return node
        mode[node] = int(rng.choice(modes))
        missing[node] = bool(rng.random() < 0.5)
        if mode[node] == IN:
            f = int(rng.integers(3, 5))
            members[node] = tuple(int(c) for c in range(-1, LEVELS[f] + 1) if rng.random() < 0.5)
        else:
            f = int(rng.integers(0, 3))
            threshold[node] = float(np.float32(rng.choice([-1.5, 0.0, 0.1, 0.5, 1.0, 2.25]))) if rng.random() < 0.7 else rng.normal()
        feature[node] = f
        left[node] = grow(level + 1)
        right[node] = grow(level + 1)
        return node

    grow(0)
    n = len(feature)
    value = rng.normal(size=(n, 1 if own_target is not None else targets))
    return Tree(
        np.array(feature), np.array(threshold, float), np.array(left), np.array(right), value,
        np.array(mode, np.uint8), np.array(missing, bool), members, own_target,
    )  # fmt: skip


def walk(tree: Tree, row: np.ndarray) -> int:
    """Follow the definition, one node at a time; shares nothing with what is tested."""
    node = 0
    while tree.feature[node] >= 0:
        f, x = int(tree.feature[node]), float(row[tree.feature[node]])
        mode = LE if tree.mode is None else tree.mode[node]
        if mode == IN:
            code = -1 if np.isnan(x) or x < 0 else min(int(x), LEVELS[f])
            goes_left = code in tree.members[node]
        elif np.isnan(x):
            goes_left = tree.missing_left is not None and bool(tree.missing_left[node])
        else:
            t = float(tree.threshold[node])
            goes_left = {LE: x <= t, LT: x < t, GE: x >= t, GT: x > t}[mode]
        node = int(tree.left[node] if goes_left else tree.right[node])
    return node


def answer(trees, rows, targets, average=False) -> np.ndarray:
    out = np.zeros((len(rows), targets))
    for i, row in enumerate(rows):
        for tree in trees:
            value = tree.value[walk(tree, row)]
            if tree.target is None:
                out[i] += value
            else:
                out[i, tree.target] += value[0]
    return out / len(trees) if average else out


def model(trees, targets, *, dtype="float64", **options):
    signature = Signature([TensorSpec("x", dtype, ("rows", COLUMNS))], [TensorSpec("y", "float64", ("rows", targets))])
    graph = Graph(signature)
    graph.output("y", add_trees(graph, "x", trees, targets=targets, dtype=dtype, levels=LEVELS, **options))
    return graph.model()


def run(trees, rows, targets, **options) -> np.ndarray:
    session = onnxruntime.InferenceSession(model(trees, targets, **options).SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, {"x": rows})[0]


def rough_rows(rng: np.random.Generator, n: int) -> np.ndarray:
    rows = np.column_stack([
        *(rng.choice([-1.5, 0.0, -0.0, 0.1, np.float32(0.1), 0.5, 1.0, 2.25, np.nan, np.inf, -np.inf, 1e308, 5e-324], n) for _ in range(3)),
        *(rng.integers(-3, LEVELS[f] + 3, n).astype(float) for f in (3, 4)),
    ])  # fmt: skip
    rows[rng.random(n) < 0.1, 3] = np.nan
    return rows


CASES = [
    (seed, targets, trees, depth)
    for seed, (targets, trees, depth) in enumerate([(1, 1, 1), (1, 7, 5), (3, 4, 4), (1, 90, 3), (2, 1, 6), (6, 5, 3)])
]


@pytest.mark.parametrize(("seed", "targets", "count", "depth"), CASES)
@pytest.mark.parametrize("modes", [(LE,), (LT,), (LE, IN), (LE, LT, GE, GT, IN)], ids=["le", "lt", "le-in", "all"])
def test_onnxruntime_walks_random_trees_as_they_are_defined(seed, targets, count, depth, modes):
    rng = np.random.default_rng(seed)
    trees = [random_tree(rng, targets, depth=depth, modes=modes) for _ in range(count)]
    rows = rough_rows(rng, 150)
    want = answer(trees, rows, targets)
    np.testing.assert_allclose(run(trees, rows, targets), want, rtol=1e-12, atol=1e-12)  # the order of a sum of 90
    np.testing.assert_allclose(run(trees, rows[:1], targets), want[:1], rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(run(trees, rows, targets, aggregate="average"), want / count, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("seed", range(6))
def test_the_reference_evaluator_agrees(seed):
    from onnx.reference import ReferenceEvaluator

    rng = np.random.default_rng(100 + seed)
    trees = [random_tree(rng, 2, depth=4, modes=(LE, LT, IN)) for _ in range(4)]
    rows = rough_rows(rng, 60)
    got = ReferenceEvaluator(model(trees, 2)).run(None, {"x": rows})[0]
    np.testing.assert_allclose(got, answer(trees, rows, 2), rtol=1e-12, atol=1e-12)


def test_float32_input_compares_exactly_with_double_thresholds():
    rng = np.random.default_rng(5)
    trees = [random_tree(rng, 1, depth=5) for _ in range(5)]
    rows = path_rows(trees, columns=COLUMNS, dtype="float32", missing=True, levels=LEVELS)
    assert rows.dtype == np.float32
    np.testing.assert_allclose(run(trees, rows, 1, dtype="float32"), answer(trees, rows, 1), rtol=1e-12, atol=1e-12)


def test_trees_that_add_to_a_target_of_their_own_need_no_copies():
    rng = np.random.default_rng(6)
    trees = [random_tree(rng, 1, depth=4, own_target=i % 5) for i in range(15)]
    rows = rough_rows(rng, 80)
    np.testing.assert_allclose(run(trees, rows, 6), answer(trees, rows, 6), rtol=1e-12, atol=1e-12)  # target 5 has no tree


LEAF = Tree(np.array([-1]), np.zeros(1), np.zeros(1, int), np.zeros(1, int), np.array([[2.5, -1.0]]))


@pytest.mark.parametrize("trees", [[LEAF], [LEAF] * 3, []], ids=["one", "three", "none"])
def test_single_leaves_and_no_trees_give_constants(trees):
    rows = rough_rows(np.random.default_rng(0), 9)
    np.testing.assert_array_equal(run(trees, rows, 2), np.tile([2.5 * len(trees), -1.0 * len(trees)], (9, 1)))
    assert path_rows(trees, columns=COLUMNS).shape == (0, COLUMNS)
    assert node_coverage(trees, rows) == 1.0


def test_leaves_mixed_with_stumps_whose_root_is_the_nth_leaf():
    """onnxruntime once took a root for a leaf where both had the same index."""
    stump = Tree(np.array([0, -1, -1]), np.array([0.5, 0, 0]), np.array([1, 0, 0]), np.array([2, 0, 0]), np.array([[0.0], [1.0], [10.0]]))
    leaf = Tree(np.array([-1]), np.zeros(1), np.zeros(1, int), np.zeros(1, int), np.array([[100.0]]))
    rows = rough_rows(np.random.default_rng(1), 30)
    for trees in ([stump, stump], [leaf, stump], [stump, leaf, stump, leaf, leaf]):
        np.testing.assert_array_equal(run(trees, rows, 1), answer(trees, rows, 1))


def test_zero_rows_give_zero_rows():
    trees = [random_tree(np.random.default_rng(2), 3, depth=3) for _ in range(3)]
    assert run(trees, np.zeros((0, COLUMNS)), 3).shape == (0, 3)


def test_path_rows_test_both_sides_of_every_node():
    rng = np.random.default_rng(7)
    trees = [random_tree(rng, 1, depth=7) for _ in range(12)]
    rows = path_rows(trees, columns=COLUMNS, missing=True, seed=3, codes={3: range(5), 4: range(8)}, levels=LEVELS)
    assert np.isfinite(rows[~np.isnan(rows)]).all()
    seen = {(t, walk(tree, row)) for t, tree in enumerate(trees) for row in rows}
    want = {(t, i) for t, tree in enumerate(trees) for i in reachable(tree)}
    assert want <= seen
    assert node_coverage(trees, rows, missing=True, codes={3: range(5), 4: range(8)}, levels=LEVELS) == 1.0
    assert node_coverage(trees, rows[:3], missing=True, codes={3: range(5), 4: range(8)}, levels=LEVELS) < 0.5


def reachable(tree: Tree) -> list[int]:
    """Leaves some row reaches, by trying every cell of the grid of all thresholds: brute force."""
    leaves = []

    def visit(node: int, cells: dict[int, list[float]]) -> None:
        if not all(cells.values()):
            return
        f = int(tree.feature[node])
        if f < 0:
            leaves.append(node)
            return
        stump = Tree(
            np.array([f, -1, -1]), np.array([tree.threshold[node], 0, 0]), np.array([1, 0, 0]), np.array([2, 0, 0]), np.zeros((3, 1)),
            np.array([tree.mode[node], 0, 0]), np.array([tree.missing_left[node], 0, 0]), {0: tree.members.get(node, ())},
        )  # fmt: skip
        for side, child in ((1, tree.left[node]), (2, tree.right[node])):
            row = np.zeros(COLUMNS)
            keep = []
            for v in cells[f]:
                row[f] = v
                keep += [v] if walk(stump, row) == side else []
            visit(int(child), {**cells, f: keep})

    cells = {}
    for f in range(3):
        cuts = np.unique(tree.threshold[(tree.feature == f) & (tree.mode != IN)])
        cells[f] = [np.nan, 0.0, *cuts, *np.nextafter(cuts, np.inf), *np.nextafter(cuts, -np.inf)]
    for f, k in LEVELS.items():
        cells[f] = [float(c) for c in range(-1, k + 1)]
    visit(0, cells)
    return leaves


def test_path_rows_are_the_same_for_the_same_seed_and_keep_to_the_limit():
    rng = np.random.default_rng(8)
    trees = [random_tree(rng, 1, depth=6) for _ in range(10)]
    a, b = (path_rows(trees, columns=COLUMNS, seed=1, max_nodes=20, levels=LEVELS) for _ in range(2))
    np.testing.assert_array_equal(a, b)
    assert 0 < len(a) <= 40
    assert not np.isnan(a).any()


def test_path_rows_start_from_base_rows():
    tree = Tree(np.array([1, -1, -1]), np.array([0.5, 0, 0]), np.array([1, 0, 0]), np.array([2, 0, 0]), np.zeros((3, 1)))
    rows = path_rows([tree], columns=3, base_rows=np.array([[7.0, 8.0, 9.0]]))
    np.testing.assert_array_equal(rows, [[7, 0.5, 9], [7, np.nextafter(0.5, 1), 9]])


@pytest.mark.parametrize(
    "change",
    [{"left": np.array([1, 0, 0, 0, 0])}, {"left": np.array([9, 0, 3, 0, 0])}, {"left": np.array([0, 0, 3, 0, 0])}, {"left": np.array([2, 0, 3, 0, 0])}],
    ids=["unreached", "outside", "cycle", "two parents"],
)  # fmt: skip
def test_what_is_no_tree_is_refused(change):
    good = {
        "feature": np.array([0, -1, 1, -1, -1]), "threshold": np.zeros(5), "left": np.array([1, 0, 3, 0, 0]),
        "right": np.array([2, 0, 4, 0, 0]), "value": np.zeros((5, 1)),
    }  # fmt: skip
    run([Tree(**good)], np.zeros((1, COLUMNS)), 1)
    if "left" in change and change["left"][0] == 1:
        change = {"feature": np.array([0, -1, -1, -1, -1])}
    with pytest.raises(ConversionError):
        run([Tree(**{**good, **change})], np.zeros((1, COLUMNS)), 1)
