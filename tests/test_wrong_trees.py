"""Probe rows catch errors: seeded wrong conversions of boosted trees all differ from the library on them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from mlbridge.conversion.verification import compare
from mlbridge.frameworks.lightgbm import LightgbmFramework
from mlbridge.frameworks.lightgbm import conversion as lightgbm_conversion
from mlbridge.frameworks.trees import IN, LE, LT, Tree
from mlbridge.frameworks.xgboost import XgboostFramework
from mlbridge.frameworks.xgboost import conversion as xgboost_conversion

xgb = pytest.importorskip("xgboost")
lgb = pytest.importorskip("lightgbm")
ort = pytest.importorskip("onnxruntime")

COLUMNS, CLASSES, TIMES = 6, 3, 20


def train(library: str):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(400, COLUMNS))
    x[rng.random(x.shape) < 0.1] = np.nan
    z = np.nan_to_num(x)
    y = np.digitize(z[:, 0] + z[:, 1] * z[:, 2] + rng.normal(size=400) * 0.3, [-0.6, 0.6])
    if library == "xgboost":
        return XgboostFramework(), xgb.XGBClassifier(n_estimators=8, max_depth=5, n_jobs=1).fit(x, y).get_booster()
    return LightgbmFramework(), lgb.LGBMClassifier(n_estimators=8, num_leaves=20, min_child_samples=3, n_jobs=1, verbose=-1).fit(
        x, y
    ).booster_


@pytest.fixture(scope="module", params=["xgboost", "lightgbm"])
def case(request, tmp_path_factory):
    framework, model = train(request.param)
    signature = framework.infer(model, None)
    feeds = framework.probe(model, signature=signature, seed=0)
    want = framework.native(model, signature=signature)(feeds)
    folder = tmp_path_factory.mktemp(request.param)
    said = framework.read(saved(model, folder))
    return request.param, framework, said, signature, feeds, want, folder


def saved(model, folder):
    from mlbridge.artifact import open_artifact

    path = folder / "saved"
    if isinstance(model, xgb.Booster):
        path.write_bytes(model.save_raw("ubj"))
    else:
        path.write_text(model.model_to_string())
    return open_artifact(path)


def passes(case, said) -> bool:
    """Whether a conversion of `said` agrees with the library on the probe rows."""
    _library, framework, _, signature, feeds, want, folder = case
    path = framework.convert(said, folder, signature=signature)
    names = [s.name for s in signature.outputs]
    got = dict(zip(names, ort.InferenceSession(str(path), providers=["CPUExecutionProvider"]).run(names, dict(feeds))))
    tolerance = framework.tolerance(said, signature=signature)
    return all(o.ok for o in compare(got, want, signature, tolerance=tolerance))


def altered(said, rng, change):
    """Return the model with one random inner node, below the root where there is one, changed."""
    while True:
        i = int(rng.integers(len(said.trees)))
        tree = said.trees[i]
        inner = np.flatnonzero(tree.feature >= 0)
        if len(inner) > 1:
            break
    wrong = change(tree, int(rng.choice(inner[1:])))
    return None if wrong is None else replace(said, trees=(*said.trees[:i], wrong, *said.trees[i + 1 :]))


def put(array: np.ndarray, at: int, value) -> np.ndarray:
    out = np.array(array)
    out[at] = value
    return out


def swapped(tree: Tree, node: int) -> Tree:
    return replace(tree, left=put(tree.left, node, tree.right[node]), right=put(tree.right, node, tree.left[node]))


def other_comparison(tree: Tree, node: int) -> Tree:
    assert tree.mode[node] != IN
    return replace(tree, mode=put(tree.mode, node, LE if tree.mode[node] == LT else LT))


def other_default(tree: Tree, node: int) -> Tree:
    return replace(tree, missing_left=put(tree.missing_left, node, not tree.missing_left[node]))


def next_threshold(tree: Tree, node: int) -> Tree:
    t = tree.threshold[node]
    near = np.float64(np.nextafter(np.float32(t), np.float32(np.inf)))
    return replace(tree, threshold=put(tree.threshold, node, near))


CHANGES = {
    "a swapped branch": swapped,
    "< for <=": other_comparison,
    "a wrong default direction": other_default,
    "the next float32": next_threshold,
}


def test_the_right_graph_passes(case):
    assert passes(case, case[2])


@pytest.mark.parametrize("name", CHANGES)
def test_one_wrong_node_is_caught(case, name):
    said, missed = case[2], []
    for seed in range(TIMES):
        rng = np.random.default_rng(seed)
        if passes(case, altered(said, rng, CHANGES[name])):
            missed.append(seed)
    # a default direction matters only where a missing value can get: below a split that sends it elsewhere none does
    missed = [s for s in missed if not (name == "a wrong default direction" and no_nan_arrives(said, np.random.default_rng(s)))]
    assert not missed


def no_nan_arrives(said, rng) -> bool:
    """Whether the node that `altered` picks lies behind a split on its own column that sends missing values the other way."""
    out = []

    def look(tree: Tree, node: int) -> None:
        path = {int(c): (p, side) for p in np.flatnonzero(tree.feature >= 0) for c, side in ((tree.left[p], True), (tree.right[p], False))}
        at = node
        while at in path:
            parent, side = path[at]
            if tree.feature[parent] == tree.feature[node] and bool(tree.missing_left[parent]) != side:
                out.append(parent)
            at = int(parent)

    altered(said, rng, look)
    return bool(out)


def test_float32_thresholds_are_caught(case):
    library, _, said, *_ = case
    if library == "xgboost":
        pytest.skip("XGBoost's own thresholds are float32")
    for seed in range(TIMES):
        rng = np.random.default_rng(seed)
        wrong = altered(said, rng, lambda t, n: replace(t, threshold=put(t.threshold, n, np.float32(t.threshold[n]))))
        assert not passes(case, wrong)


LINKED = {
    "xgboost": ["count:poisson", "reg:gamma", "reg:tweedie", "reg:logistic", "survival:cox"],
    "lightgbm": ["poisson", "gamma", "tweedie", "cross_entropy", "cross_entropy_lambda"],
}


@pytest.mark.parametrize("library", LINKED)
def test_a_dropped_link_is_caught(library, tmp_path, monkeypatch):
    table = xgboost_conversion.KINDS if library == "xgboost" else lightgbm_conversion.LINKS
    for seed in range(TIMES):
        rng, objective = np.random.default_rng(seed), LINKED[library][seed % 5]
        x, y = rng.normal(size=(120, 3)), rng.uniform(0.1, 0.9, 120)
        if library == "xgboost":
            framework, model = XgboostFramework(), xgb.train({"objective": objective, "nthread": 1, "max_depth": 3}, xgb.DMatrix(x, y), 3)
        else:
            parameters = {"objective": objective, "num_threads": 1, "verbose": -1}
            framework, model = LightgbmFramework(), lgb.train(parameters, lgb.Dataset(x, y), 3)
        signature = framework.infer(model, None)
        feeds = framework.probe(model, signature=signature, seed=0)
        want = framework.native(model, signature=signature)(feeds)
        right = (library, framework, model, signature, feeds, want, tmp_path)
        assert passes(right, model)
        with monkeypatch.context() as patch:
            patch.setitem(table, objective, "identity")
            assert not passes(right, model)


@pytest.mark.parametrize("shift", [1, 2])
def test_permuted_classes_are_caught(case, shift):
    said = case[2]
    assert not passes(case, replace(said, trees=tuple(replace(t, target=(t.target + shift) % CLASSES) for t in said.trees)))
    for seed in range(TIMES // 2):
        i = int(np.random.default_rng(seed).integers(len(said.trees)))
        moved = replace(said.trees[i], target=(said.trees[i].target + shift) % CLASSES)
        assert not passes(case, replace(said, trees=(*said.trees[:i], moved, *said.trees[i + 1 :])))
