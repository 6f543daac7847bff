"""XGBoost models: every objective, missing values, categories, boosters and files against the library's own answers."""

from __future__ import annotations

import itertools
import json
import random
import subprocess
import sys

import numpy as np
import pytest
from booster_tables import ROWS, table, target

from mlbridge.artifact import open_artifact
from mlbridge.conversion.verification import compare
from mlbridge.errors import ArtifactError, ConversionError, MlbridgeError
from mlbridge.frameworks.xgboost import XgboostFramework
from mlbridge.frameworks.xgboost.model import parse

xgb = pytest.importorskip("xgboost")
pd = pytest.importorskip("pandas")
ort = pytest.importorskip("onnxruntime")

FRAMEWORK = XgboostFramework()

OBJECTIVES = [
    ("XGBRegressor", "reg:squarederror", "real"), ("XGBRegressor", "reg:squaredlogerror", "positive"),
    ("XGBRegressor", "reg:pseudohubererror", "real"), ("XGBRegressor", "reg:absoluteerror", "real"),
    ("XGBRegressor", "reg:logistic", "unit"), ("XGBRegressor", "count:poisson", "count"), ("XGBRegressor", "reg:gamma", "positive"),
    ("XGBRegressor", "reg:tweedie", "positive"), ("XGBRegressor", "reg:quantileerror", "real"), ("XGBRegressor", "survival:cox", "positive"),
    ("XGBRegressor", "survival:aft", "positive"), ("XGBRegressor", "reg:squarederror", "many"), ("XGBClassifier", "binary:logistic", "two"),
    ("XGBClassifier", "binary:hinge", "two"), ("XGBClassifier", "binary:logitraw", "two"), ("XGBClassifier", "multi:softprob", "three"),
    ("XGBClassifier", "multi:softmax", "three"), ("XGBClassifier", "binary:logistic", "labels"), ("XGBRanker", "rank:ndcg", "three"),
    ("XGBRanker", "rank:pairwise", "three"), ("XGBRanker", "rank:map", "two"), ("XGBRFRegressor", "reg:squarederror", "real"),
    ("XGBRFClassifier", "multi:softprob", "three"),
]  # fmt: skip
BOOSTERS = ["gbtree", "dart", "gblinear", "parallel"]
CASES = [
    (o, m, c, b)
    for o, m, c, b in itertools.product(OBJECTIVES, (False, True), (False, True), BOOSTERS)
    if not (b == "gblinear" and (c or "RF" in o[0] or o[1] in ("reg:quantileerror", "reg:absoluteerror", "survival:aft")))
]
SAMPLE = random.Random(7).sample(range(len(CASES)), 28)


def train(case, index: int):
    (cls, objective, kind), missing, categories, booster = case
    rng = np.random.default_rng(index)
    x = table(rng, missing, categories)
    y = target(rng, x, kind)
    keywords = {"max_depth": 4, "objective": objective, "booster": "gbtree" if booster == "parallel" else booster}
    if booster == "dart":
        keywords["rate_drop"] = 0.4
    if booster == "parallel":
        keywords |= {"num_parallel_tree": 3, "subsample": 0.7}
    if objective == "reg:quantileerror":
        keywords["quantile_alpha"] = [0.1, 0.5, 0.9]
    if categories:
        keywords["max_cat_to_onehot"] = int(rng.choice([1, 4, 10]))
    if objective == "survival:aft":
        data = xgb.DMatrix(x, enable_categorical=True)
        data.set_float_info("label_lower_bound", y)
        data.set_float_info("label_upper_bound", y * 1.1)
        return xgb.train({**keywords, "nthread": 1}, data, 6), x
    model = getattr(xgb, cls)(n_estimators=8, n_jobs=1, enable_categorical=categories, **keywords)
    extra = {"qid": np.sort(rng.integers(0, 20, ROWS))} if cls == "XGBRanker" else {}
    return model.fit(x, y, **extra), x


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
    bad = [o for o in compare(got, want, signature, tolerance=1e-5) if not o.ok or o.ties]  # float32 links
    assert not bad, bad


def check(index: int, folder) -> None:
    model, x = train(CASES[index], index)
    for one in {id(model): model, 1: model if isinstance(model, xgb.Booster) else model.get_booster()}.values():
        signature, feeds, want, got = both(one, folder, x)
        agree(signature, want, got)
        assert FRAMEWORK.coverage(one, feeds, signature=signature) >= 0.99


def named(index: int) -> str:
    (cls, objective, kind), missing, categories, booster = CASES[index]
    return f"{cls}-{objective}-{kind}-{booster}{'-missing' * missing}{'-categories' * categories}"


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
    x = table(rng, True, True)
    return xgb.XGBClassifier(n_estimators=12, max_depth=4, n_jobs=1, enable_categorical=True).fit(x, target(rng, x, "two")), x


def test_the_signature_names_the_training_columns_and_their_levels(churn):
    model, _x = churn
    signature = FRAMEWORK.infer(model, None)
    assert [c.name for c in signature.input("features").columns] == ["a", "b", "c", "d"]
    assert signature.input("features").dtype == "float32"
    assert signature.input("features").rounding == "nearest"
    assert {c.name: c.categories for c in signature.input("categorical").columns} == {"k": tuple("uvwxyz"), "j": (1, 3, 7)}
    assert all(s.missing == "allow" for s in signature.inputs)
    assert [s.name for s in signature.outputs] == ["label", "probabilities"]


def test_native_answers_are_the_estimators_own(churn):
    model, x = churn
    signature = FRAMEWORK.infer(model, x)
    feeds = {
        "features": x[["a", "b", "c", "d"]].to_numpy(np.float32),
        "categorical": np.column_stack([x["k"].cat.codes, x["j"].cat.codes]).astype(np.int32),
    }
    out = FRAMEWORK.native(model, signature=signature)(feeds)
    np.testing.assert_array_equal(out["probabilities"], model.predict_proba(x))
    np.testing.assert_array_equal(out["label"], model.predict(x))


@pytest.mark.parametrize("suffix", ["json", "ubj"])
def test_a_saved_file_is_read_without_the_library_and_answers_alike(churn, tmp_path, suffix):
    model, x = churn
    model.save_model(tmp_path / f"m.{suffix}")
    read = FRAMEWORK.read(open_artifact(tmp_path / f"m.{suffix}"))
    signature, feeds, want, got = both(read, tmp_path)
    assert signature == FRAMEWORK.infer(model, x)
    agree(signature, FRAMEWORK.native(model, signature=signature)(feeds), got)
    agree(signature, want, got)


def test_reading_needs_no_xgboost(churn, tmp_path):
    model, _ = churn
    model.save_model(tmp_path / "m.ubj")
    code = (
        "import sys, pathlib; sys.modules['xgboost'] = None\n"
        "from mlbridge.frameworks.xgboost import XgboostFramework as F\nfrom mlbridge.artifact import open_artifact\n"
        f"f = F(); m = f.read(open_artifact(r'{tmp_path / 'm.ubj'}')); s = f.infer(m, None)\n"
        f"print(f.convert(m, pathlib.Path(r'{tmp_path}'), signature=s).name)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "model.onnx", done.stderr


def test_early_stopping_is_kept_and_iteration_range_overrides_it(tmp_path):
    rng = np.random.default_rng(3)
    x = table(rng, False, False)
    y = target(rng, x, "real")
    model = xgb.XGBRegressor(n_estimators=60, early_stopping_rounds=2, learning_rate=0.8, n_jobs=1)
    model.fit(x[:120], y[:120], eval_set=[(x[120:], y[120:])], verbose=False)
    assert model.best_iteration + 1 < model.get_booster().num_boosted_rounds()
    for one, options in itertools.product((model, model.get_booster()), ({}, {"iteration_range": (1, 3)})):
        signature, _feeds, want, got = both(one, tmp_path, **options)
        agree(signature, want, got)
    features = x.to_numpy(np.float32)
    np.testing.assert_array_equal(FRAMEWORK.native(model, signature=signature)({"features": features})["prediction"], model.predict(x))


def test_a_value_that_stands_for_missing_goes_where_missing_goes(tmp_path):
    rng = np.random.default_rng(4)
    x = table(rng, True, False).fillna(-999).to_numpy()
    model = xgb.XGBRegressor(n_estimators=10, missing=-999, n_jobs=1).fit(x, rng.normal(size=ROWS))
    signature, feeds, _, _ = both(model, tmp_path)
    assert signature.inputs[0].columns == ()
    rows = {"features": np.where(np.isnan(feeds["features"]), np.float32(-999), feeds["features"])}
    agree(signature, FRAMEWORK.native(model, signature=signature)(rows), answers(tmp_path / "model.onnx", signature, rows))


def test_codes_without_known_levels_stay_numbers(tmp_path):
    rng = np.random.default_rng(5)
    x = np.column_stack([rng.normal(size=ROWS), rng.integers(0, 12, ROWS)])
    data = xgb.DMatrix(x, label=rng.normal(size=ROWS) + (x[:, 1] % 3), feature_types=["float", "c"], enable_categorical=True)
    model = xgb.train({"max_depth": 5, "max_cat_to_onehot": 2, "nthread": 1}, data, 8)
    signature, feeds, want, got = both(model, tmp_path)
    assert {12.0, 13.0} & set(feeds["features"][:, 1])  # a code of no level is among them
    agree(signature, want, got)


def test_leaves_that_hold_several_targets(tmp_path):
    rng = np.random.default_rng(6)
    x = table(rng, True, False)
    model = xgb.XGBRegressor(n_estimators=6, max_depth=3, multi_strategy="multi_output_tree", n_jobs=1).fit(x, target(rng, x, "many"))
    signature, _feeds, want, got = both(model, tmp_path)
    assert signature.outputs[0].shape == ("rows", 2)
    agree(signature, want, got)


def test_an_unknown_objective_is_refused_by_name(churn, tmp_path):
    document = json.loads(churn[0].get_booster().save_raw("json"))
    document["learner"]["objective"]["name"] = "reg:somethingnew"
    model = parse(json.dumps(document).encode())
    with pytest.raises(ConversionError, match="somethingnew"):
        FRAMEWORK.convert(model, tmp_path, signature=FRAMEWORK.infer(model, None))


# ---------------------------------------------------------------- malformed files


@pytest.mark.parametrize("form", ["json", "ubj"])
def test_two_thousand_mutated_files_are_read_or_refused(form):
    """Bounded: each either parses into a consistent model or raises a typed error; nothing else escapes."""
    rng = np.random.default_rng(11)
    x = table(rng, True, True)
    model = xgb.XGBRegressor(n_estimators=2, max_depth=2, n_jobs=1, enable_categorical=True).fit(x, target(rng, x, "real"))
    good = bytes(model.get_booster().save_raw(form))
    refused = 0
    for i in range(1000):
        bad = mutated(good, random.Random(i))
        try:
            parse(bad)
        except MlbridgeError:
            refused += 1
    assert refused > 300


def mutated(good: bytes, rng: random.Random) -> bytes:
    data = bytearray(good)
    for _ in range(rng.randint(1, 4)):
        at, kind = rng.randrange(len(data)), rng.randrange(4)
        if kind == 0:
            data[at] ^= 1 << rng.randrange(8)
        elif kind == 1:
            del data[at : at + rng.randint(1, 40)]
        elif kind == 2:
            data[at:at] = rng.choice([b"9999999999", b"-1", b"[[[[", b'"', b"\xff\xff\xff\xff", b"null", b"1e400", b"NaN"])
        else:
            del data[at:]
        if not data:
            break
    return bytes(data)


@pytest.mark.parametrize(
    "data",
    [b"", b"{", b"{}", b'{"learner":1}', b'{"learner":' + b"[" * 100_000, b"{L" + b"\x7f" * 8, b"{i\x07learner[$U#L\x7f" + b"\xff" * 7, b"{#l\x7f\xff\xff\xff"],
    ids=["empty", "open", "bare", "wrong type", "deep", "long key", "long array", "many keys"],
)  # fmt: skip
def test_hostile_files_end_in_an_artifact_error(data):
    with pytest.raises(ArtifactError):
        parse(data)


@pytest.mark.parametrize("change", ["num_feature", "num_class", "cycle", "outside", "lengths"])
def test_a_file_that_lies_about_sizes_is_refused(churn, change):
    document = json.loads(churn[0].get_booster().save_raw("json"))
    learner = document["learner"]
    tree = learner["gradient_booster"]["model"]["trees"][0]
    if change in ("num_feature", "num_class"):
        learner["learner_model_param"][change] = "2000000000"
    elif change == "cycle":
        tree["left_children"][0] = 0
    elif change == "outside":
        tree["right_children"][0] = 10**6
    else:
        tree["split_conditions"].pop()
    with pytest.raises(ArtifactError):
        parse(json.dumps(document).encode())
