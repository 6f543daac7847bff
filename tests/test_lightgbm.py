"""LightGBM models: every objective, missing values, categories, boosters and files against the library's own answers."""

from __future__ import annotations

import itertools
import random
import re
import subprocess
import sys

import numpy as np
import pytest
from booster_tables import ROWS, table, target

from mlbridge.artifact import open_artifact
from mlbridge.conversion.verification import compare
from mlbridge.errors import ArtifactError, ConversionError, InputError, MlbridgeError
from mlbridge.frameworks.lightgbm import LightgbmFramework
from mlbridge.frameworks.lightgbm.model import parse

lgb = pytest.importorskip("lightgbm")
pd = pytest.importorskip("pandas")
ort = pytest.importorskip("onnxruntime")

FRAMEWORK = LightgbmFramework()

OBJECTIVES = [
    ("LGBMRegressor", "regression", "real", {}), ("LGBMRegressor", "regression_l1", "real", {}), ("LGBMRegressor", "huber", "real", {}),
    ("LGBMRegressor", "fair", "real", {}), ("LGBMRegressor", "quantile", "real", {"alpha": 0.3}), ("LGBMRegressor", "mape", "positive", {}),
    ("LGBMRegressor", "poisson", "count", {}), ("LGBMRegressor", "gamma", "positive", {}), ("LGBMRegressor", "tweedie", "positive", {}),
    ("LGBMRegressor", "regression", "positive", {"reg_sqrt": True}), ("LGBMRegressor", "cross_entropy", "unit", {}),
    ("LGBMRegressor", "cross_entropy_lambda", "unit", {}), ("LGBMClassifier", "binary", "two", {}),
    ("LGBMClassifier", "binary", "two", {"sigmoid": 0.7}), ("LGBMClassifier", "multiclass", "three", {}),
    ("LGBMClassifier", "multiclassova", "three", {"sigmoid": 1.3}), ("LGBMRanker", "lambdarank", "three", {}),
    ("LGBMRanker", "rank_xendcg", "three", {}),
]  # fmt: skip
CASES = list(itertools.product(OBJECTIVES, (False, True), (False, True), ["gbdt", "dart", "rf"], (False, True)))
SAMPLE = random.Random(7).sample(range(len(CASES)), 28)


def train(case, index: int):
    (cls, objective, kind, extra), missing, categories, booster, zero = case
    rng = np.random.default_rng(index)
    x = table(rng, missing, categories)
    if zero:
        x["a"] = x["a"].where(rng.random(ROWS) < 0.8, 0.0)
    y = target(rng, x, kind)
    keywords = {"bagging_freq": 1, "bagging_fraction": 0.6} if booster == "rf" else {}
    model = getattr(lgb, cls)(
        n_estimators=10, num_leaves=15, min_child_samples=3, objective=objective, n_jobs=1, verbose=-1, boosting_type=booster,
        min_data_per_group=3, cat_smooth=1, max_cat_to_onehot=int(rng.choice([1, 4, 10])), zero_as_missing=zero, **extra, **keywords,
    )  # fmt: skip
    if cls == "LGBMRanker":
        return model.fit(x, y, group=[24] * (ROWS // 24)), x
    return model.fit(x, np.array(["x", "y", "z"])[y] if cls == "LGBMClassifier" else y), x


def both(model, folder, sample=None, **options):
    """Return signature, probe rows, the library's answers and the graph's."""
    signature = FRAMEWORK.infer(model, sample, **options)
    feeds = FRAMEWORK.probe(model, signature=signature, seed=0, **options)
    want = FRAMEWORK.native(model, signature=signature, **options)(feeds)
    return signature, feeds, want, answers(FRAMEWORK.convert(model, folder, signature=signature, **options), signature, feeds)


def answers(path, signature, feeds):
    session = ort.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    names = [s.name for s in signature.outputs]
    return dict(zip(names, session.run(names, dict(feeds))))


def agree(signature, want, got) -> None:
    for spec in signature.outputs:
        assert want[spec.name].dtype == got[spec.name].dtype == np.dtype(spec.dtype)
    bad = [o for o in compare(got, want, signature, tolerance=1e-12) if not o.ok or o.ties]  # the bar per hundred trees
    assert not bad, bad


def check(index: int, folder) -> None:
    model, x = train(CASES[index], index)
    for one in (model, model.booster_):
        signature, feeds, want, got = both(one, folder, x)
        agree(signature, want, got)
        assert FRAMEWORK.coverage(one, feeds, signature=signature) >= 0.99


def named(index: int) -> str:
    (_, objective, kind, extra), missing, categories, booster, zero = CASES[index]
    words = [objective, kind, *extra, booster, *["missing"] * missing, *["categories"] * categories, *["zero"] * zero]
    return "-".join(words)


@pytest.mark.parametrize("index", SAMPLE, ids=named)
def test_the_graph_answers_as_the_library(index, tmp_path):
    check(index, tmp_path)


@pytest.mark.full
@pytest.mark.parametrize("index", range(len(CASES)), ids=named)
def test_every_case_answers_as_the_library(index, tmp_path):
    check(index, tmp_path)


@pytest.fixture(scope="module")
def churn():
    rng = np.random.default_rng(0)
    x = table(rng, True, True).rename(columns={"a": "my age"})
    y = np.array(["no", "yes"])[target(rng, x.rename(columns={"my age": "a"}), "two")]
    return lgb.LGBMClassifier(n_estimators=12, num_leaves=12, min_child_samples=3, n_jobs=1, verbose=-1).fit(x, y), x


def test_the_signature_names_the_training_columns_and_their_levels(churn):
    model, x = churn
    signature = FRAMEWORK.infer(model, x)
    assert [c.name for c in signature.input("features").columns] == ["my age", "b", "c", "d"]
    assert signature.input("features").dtype == "float64"
    assert {c.name: c.categories for c in signature.input("categorical").columns} == {"k": tuple("uvwxyz"), "j": (1, 3, 7)}
    assert all(c.unknown == "keep" for c in signature.input("categorical").columns)
    assert signature.output("label").columns[0].categories == ("no", "yes")


def test_native_answers_are_the_estimators_own_also_for_unknown_levels(churn):
    model, x = churn
    signature = FRAMEWORK.infer(model, x)
    seen = x.copy()
    seen["k"] = seen["k"].cat.add_categories(["new"])
    seen.loc[:20, "k"] = "new"
    codes = np.column_stack([np.where(seen["k"] == "new", 6, seen["k"].cat.codes), seen["j"].cat.codes])
    feeds = {"features": seen[["my age", "b", "c", "d"]].to_numpy(), "categorical": codes.astype(np.int32)}
    out = FRAMEWORK.native(model, signature=signature)(feeds)
    np.testing.assert_array_equal(out["probabilities"], model.predict_proba(seen))
    np.testing.assert_array_equal(np.array(["no", "yes"])[out["label"]], model.predict(seen))


def test_a_saved_file_is_read_without_the_library_and_answers_alike(churn, tmp_path):
    model, x = churn
    model.booster_.save_model(tmp_path / "m.txt")
    read = FRAMEWORK.read(open_artifact(tmp_path / "m.txt"))
    for sample in (None, x):
        signature, _feeds, want, got = both(read, tmp_path, sample)
        agree(signature, want, got)
        assert next(c.name for c in signature.columns) == ("my_age" if sample is None else "my age")
    code = (
        "import sys, pathlib; sys.modules['lightgbm'] = None\n"
        "from mlbridge.frameworks.lightgbm import LightgbmFramework as F\nfrom mlbridge.artifact import open_artifact\n"
        f"f = F(); m = f.read(open_artifact(r'{tmp_path / 'm.txt'}')); s = f.infer(m, None)\n"
        f"print(f.convert(m, pathlib.Path(r'{tmp_path}'), signature=s).name)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "model.onnx", done.stderr


@pytest.mark.filterwarnings("ignore:The argument 'eval_set' is deprecated")  # its successor is not in the oldest LightGBM we take
def test_rounds_can_be_chosen_and_the_best_ones_are_the_default(tmp_path):
    rng = np.random.default_rng(3)
    x = table(rng, False, False)
    y = target(rng, x, "real")
    model = lgb.LGBMRegressor(n_estimators=60, learning_rate=0.8, num_leaves=7, n_jobs=1, verbose=-1)
    model.fit(x[:120], y[:120], eval_set=[(x[120:], y[120:])], callbacks=[lgb.early_stopping(2, verbose=False)])
    assert model.best_iteration_ < 60
    for options in ({}, {"num_iteration": 2}, {"start_iteration": 1, "num_iteration": 2}):
        signature, _, want, got = both(model, tmp_path, **options)
        agree(signature, want, got)
    answer = FRAMEWORK.native(model, signature=signature)({"features": x.to_numpy()})["prediction"]
    np.testing.assert_array_equal(answer, model.predict(x))
    model.booster_.save_model(tmp_path / "m.txt", num_iteration=-1)
    signature, _, want, got = both(FRAMEWORK.read(open_artifact(tmp_path / "m.txt")), tmp_path, start_iteration=1, num_iteration=2)
    agree(signature, want, got)


def test_codes_without_known_levels_stay_numbers(tmp_path):
    rng = np.random.default_rng(5)
    x = np.column_stack([rng.normal(size=ROWS), rng.integers(0, 12, ROWS)])
    model = lgb.LGBMRegressor(n_estimators=8, num_leaves=9, min_child_samples=3, min_data_per_group=2, cat_smooth=1, n_jobs=1, verbose=-1)
    model.fit(x, rng.normal(size=ROWS) + (x[:, 1] % 3), categorical_feature=[1])
    signature, _feeds, want, got = both(model, tmp_path)
    assert signature.inputs[0].columns == ()
    agree(signature, want, got)
    odd = {"features": np.column_stack([np.zeros(8), [-0.5, -1.0, -1.5, 0.99, 3.7, 40.0, np.nan, 1e6]])}
    agree(signature, FRAMEWORK.native(model, signature=signature)(odd), answers(tmp_path / "model.onnx", signature, odd))


def test_numbers_next_to_zero_are_zero_to_the_library(tmp_path):
    rng = np.random.default_rng(6)
    x = rng.choice([-1.0, 0.0, 0.0, 1.0], (ROWS, 2))
    for zero in (False, True):
        model = lgb.LGBMRegressor(n_estimators=5, min_child_samples=3, zero_as_missing=zero, n_jobs=1, verbose=-1).fit(
            x, x[:, 0] + (x[:, 1] == 0)
        )
        signature, _, want, got = both(model, tmp_path)
        agree(signature, want, got)
        small = np.array([0.0, -0.0, 1e-36, -1e-36, 1.0000000180025095e-35, -1.0000000180025095e-35, 2e-35, -2e-35])
        feeds = {"features": np.column_stack([small, small[::-1]])}
        agree(signature, FRAMEWORK.native(model, signature=signature)(feeds), answers(tmp_path / "model.onnx", signature, feeds))


def test_a_model_of_single_leaves(tmp_path):
    x = np.random.default_rng(7).normal(size=(50, 2))
    model = lgb.LGBMRegressor(n_estimators=3, min_child_samples=50, n_jobs=1, verbose=-1).fit(x, x[:, 0])
    signature, _, want, got = both(model, tmp_path)
    agree(signature, want, got)


def test_a_file_that_does_not_say_which_columns_are_categorical_needs_a_sample():
    rng = np.random.default_rng(8)
    x = table(rng, False, True)
    x["j"] = x["j"].cat.as_ordered()  # the library splits ordered categories as numbers
    model = lgb.LGBMRegressor(n_estimators=3, n_jobs=1, verbose=-1).fit(x, target(rng, x, "real"))
    with pytest.raises(InputError, match="categorical"):
        FRAMEWORK.infer(model, None)
    assert {c.name for c in FRAMEWORK.infer(model, x).input("categorical").columns} == {"k", "j"}


def test_linear_trees_are_refused_by_name_and_run_natively(tmp_path):
    x = np.random.default_rng(9).normal(size=(ROWS, 2))
    model = lgb.train({"linear_tree": True, "verbose": -1, "num_threads": 1}, lgb.Dataset(x, x[:, 0] * 2, params={"linear_tree": True}), 2)
    signature = FRAMEWORK.infer(model, None)
    np.testing.assert_array_equal(FRAMEWORK.native(model, signature=signature)({"features": x})["prediction"], model.predict(x))
    with pytest.raises(ConversionError, match="linear_tree"):
        FRAMEWORK.convert(model, tmp_path, signature=signature)


# ---------------------------------------------------------------- malformed files


def test_a_thousand_mutated_files_are_read_or_refused(churn):
    """Bounded: each either parses into a consistent model or raises a typed error; nothing else escapes."""
    good = churn[0].booster_.model_to_string(num_iteration=2)
    refused = 0
    for i in range(1000):
        try:
            parse(mutated(good, random.Random(i)))
        except MlbridgeError:
            refused += 1
    assert refused > 300


def mutated(good: str, rng: random.Random) -> str:
    end = good.index("feature_importances")
    for _ in range(rng.randint(1, 4)):
        at, kind = rng.randrange(min(end, len(good))), rng.randrange(4)
        if kind == 0:
            good = good[:at] + rng.choice("0123456789-.e =\n") + good[at + 1 :]
        elif kind == 1:
            good = good[:at] + good[at + rng.randint(1, 40) :]
        elif kind == 2:
            good = good[:at] + rng.choice(["9999999999", "-1 ", "nan", "1e400", "\n", "=", "Tree=", " 0"]) + good[at:]
        elif rng.random() < 0.3:
            good = good[: max(1, at)]
    return good


@pytest.mark.parametrize("text", ["", "tree\n", "tree\nend of trees\n", "\x00" * 99], ids=["empty", "head", "no fields", "zeros"])
def test_hostile_files_end_in_an_artifact_error(text):
    with pytest.raises(ArtifactError):
        parse(text)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (r"max_feature_idx=\d+", "max_feature_idx=2000000000"), (r"num_tree_per_iteration=\d+", "num_tree_per_iteration=2000000000"),
        (r"num_leaves=\d+", "num_leaves=2000000000"), (r"num_cat=[1-9]\d*", "num_cat=2000000000"), (r"left_child=-?\d+", "left_child=0"),
        (r"left_child=-?\d+", "left_child=1000000"), (r"split_feature=\d+", "split_feature=99"),
    ],
    ids=["columns", "answers", "leaves", "categories", "cycle", "outside", "feature"],
)  # fmt: skip
def test_a_file_that_lies_about_sizes_is_refused(churn, old, new):
    good = churn[0].booster_.model_to_string()
    with pytest.raises(ArtifactError):
        parse(re.sub(old, new, good, count=1))
