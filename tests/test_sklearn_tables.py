"""Tables with numbers, categories, strings and missing values: the signature says what the model does, and it converts."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from sklearn.compose import ColumnTransformer, make_column_selector
from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import OneHotEncoder, OrdinalEncoder, StandardScaler, TargetEncoder
from sklearn_check import FRAMEWORK, parity

from mlbridge.errors import ConversionError, SignatureError


@pytest.fixture(scope="module")
def people():
    rng = np.random.default_rng(0)
    n = 200
    table = pd.DataFrame(
        {
            "age": rng.normal(40, 10, n),
            "income": rng.lognormal(size=n),
            "city": rng.choice(["x", "y", "z"], n),
            "size": pd.Categorical(rng.choice(["S", "M", "L"], n), categories=["S", "M", "L"], ordered=True),
            "rooms": rng.integers(1, 5, n),
            "owner": rng.random(n) > 0.5,
            "job": rng.choice(["chef", "nurse", "é"], n),
            "note": ["some text"] * n,
        }
    )
    table.loc[3, "age"] = np.nan
    table.loc[5:9, "city"] = None
    table.loc[7:9, "size"] = None
    target = (table["income"] > 1) ^ (table["city"] == "x")
    return table, target.to_numpy()


def _columns():
    return ColumnTransformer(
        [
            ("numbers", make_pipeline(SimpleImputer(add_indicator=True), StandardScaler()), ["age", "income"]),
            ("sets", OneHotEncoder(handle_unknown="ignore", drop="if_binary"), ["city", "rooms", "owner"]),
            (
                "filled",
                make_pipeline(
                    SimpleImputer(strategy="most_frequent"), OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=-1)
                ),
                ["size"],
            ),
            ("means", TargetEncoder(), ["job"]),
        ]
    )


MODELS = {
    "logistic": lambda: LogisticRegression(max_iter=500),
    "forest": lambda: RandomForestClassifier(10, random_state=0),
    "histogram": lambda: HistGradientBoostingClassifier(max_iter=10),
}


@pytest.mark.parametrize("kind", MODELS)
def test_a_mixed_table_pipeline_converts_exactly(people, kind):
    table, target = people
    model = Pipeline([("columns", _columns()), ("model", MODELS[kind]())]).fit(table, target)
    report = parity(model, table)
    assert report.verified, report


def test_the_signature_has_blocks_levels_and_rules(people):
    table, target = people
    model = Pipeline([("columns", _columns()), ("model", LogisticRegression(max_iter=500))]).fit(table, target)
    signature = FRAMEWORK.infer(model, table)
    assert [s.name for s in signature.inputs] == ["features", "categorical"]
    columns = {c.name: c for c in signature.columns}
    assert "note" not in columns  # the column transformer drops it
    assert columns["size"].categories == ("S", "M", "L")
    assert columns["size"].ordered
    assert columns["rooms"].categories == (1, 2, 3, 4)
    assert columns["owner"].categories == (False, True)
    assert columns["city"].unknown == "keep"
    assert all(s.missing == "allow" for s in signature.inputs)
    assert [str(s) for s in signature.outputs] == ["label: int32[rows]", "probabilities: float64[rows, 2]"]


def test_an_encoder_that_refuses_unknown_levels_says_so(people):
    table, target = people
    model = make_pipeline(ColumnTransformer([("a", OneHotEncoder(), ["job"])]), Ridge()).fit(table, target)
    (column,) = FRAMEWORK.infer(model, table).columns
    assert column.unknown == "refuse"
    assert parity(model, table).verified


def test_levels_come_from_the_model_without_a_sample(people):
    table, target = people
    model = make_pipeline(ColumnTransformer([("a", OneHotEncoder(handle_unknown="ignore"), ["job", "size"])]), Ridge()).fit(table, target)
    levels = {c.name: c.categories for c in FRAMEWORK.infer(model, None).columns}
    assert levels == {"job": ("chef", "nurse", "é"), "size": ("L", "M", "S")}


def test_native_answers_are_the_source_own_answers(people):
    table, target = people
    model = Pipeline([("columns", _columns()), ("model", LogisticRegression(max_iter=500))]).fit(table, target)
    signature = FRAMEWORK.infer(model, table)
    feeds = {}
    for spec in signature.inputs:
        block = np.zeros((len(table), len(spec.columns)), dtype=spec.dtype)
        for j, c in enumerate(spec.columns):
            values = table[c.name]
            block[:, j] = pd.Categorical(values, categories=list(c.categories)).codes if c.categories is not None else values
        feeds[spec.name] = block
    answers = FRAMEWORK.native(model, signature=signature)(feeds)
    np.testing.assert_array_equal(answers["probabilities"], model.predict_proba(table))
    np.testing.assert_array_equal(model.classes_[answers["label"]], model.predict(table))


def test_a_constant_fill_of_categories_converts(people):
    table, target = people
    steps = make_pipeline(SimpleImputer(strategy="constant", fill_value="none"), OneHotEncoder(handle_unknown="ignore"))
    model = make_pipeline(ColumnTransformer([("a", steps, ["city", "size"])]), LogisticRegression()).fit(table, target)
    assert parity(model, table).verified


@pytest.mark.parametrize("encoder", [
    OneHotEncoder(handle_unknown="infrequent_if_exist", min_frequency=60),
    OneHotEncoder(drop="first", handle_unknown="ignore"),
    OneHotEncoder(handle_unknown="ignore", max_categories=2, sparse_output=False),
    OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=np.nan, encoded_missing_value=-2),
    OrdinalEncoder(min_frequency=60, handle_unknown="use_encoded_value", unknown_value=9),
    TargetEncoder(smooth=3.0),
], ids=lambda e: f"{type(e).__name__}-{len(repr(e))}")  # fmt: skip
def test_encoder_variants_convert(people, encoder):
    table, target = people
    model = ColumnTransformer([("a", encoder, ["city", "job", "rooms"])]).fit(table, target)
    report = parity(model, table)
    assert report.verified, report


def test_a_target_encoder_of_several_classes_converts(people):
    table, _ = people
    model = make_pipeline(TargetEncoder(), LogisticRegression(max_iter=300)).fit(table[["city", "job"]], table["rooms"])
    assert parity(model, table).verified


def test_a_booster_reads_categories_itself(people):
    table, target = people
    inputs = table[["age", "income", "size", "rooms"]].assign(job=table["job"].astype("category"))
    model = HistGradientBoostingClassifier(max_iter=20, min_samples_leaf=3).fit(inputs, target)
    signature = FRAMEWORK.infer(model, inputs)
    assert {c.name for c in signature.input("categorical").columns} == {"size", "job"}
    report = parity(model, inputs)
    assert report.verified, report
    assert report.nodes_tested >= 0.99


def test_a_model_trained_on_a_table_of_numbers_keeps_its_names(people):
    table, target = people
    model = LogisticRegression().fit(table[["income", "rooms"]], target)
    signature = FRAMEWORK.infer(model, table)
    assert [c.name for c in signature.columns] == ["income", "rooms"]
    assert signature.input("features").missing == "refuse"
    assert parity(model, table).verified


def test_column_selectors_and_pass_through_convert(people):
    table, target = people
    inputs = table[["age", "income", "size", "job"]].assign(job=table["job"].astype("category"))
    columns = ColumnTransformer(
        [("c", OneHotEncoder(handle_unknown="ignore"), make_column_selector(dtype_include="category"))],
        remainder="passthrough",
        verbose_feature_names_out=False,
    )
    model = make_pipeline(columns, HistGradientBoostingClassifier(max_iter=5)).fit(inputs, target)
    assert parity(model, inputs).verified


def test_text_that_no_graph_can_say_is_refused_by_conversion_and_answered_natively(people, tmp_path):
    table, target = people
    table = table.assign(note=np.where(target, "good thing", "bad thing"))
    columns = ColumnTransformer([("n", "passthrough", ["income"]), ("t", CountVectorizer(analyzer="char"), "note")])
    model = make_pipeline(columns, LogisticRegression()).fit(table, target)
    signature = FRAMEWORK.infer(model, table)
    assert signature.input("text").dtype == "string"
    with pytest.raises(ConversionError):
        FRAMEWORK.convert(model, tmp_path, signature=signature)
    feeds = {"features": table[["income"]].to_numpy(), "text": table[["note"]].to_numpy(dtype=object)}
    answers = FRAMEWORK.native(model, signature=signature)(feeds)
    np.testing.assert_array_equal(answers["probabilities"], model.predict_proba(table))


def test_a_sample_without_a_training_column_is_refused_by_name(people):
    table, target = people
    model = LogisticRegression().fit(table[["income", "rooms"]], target)
    with pytest.raises(SignatureError, match="rooms"):
        FRAMEWORK.infer(model, table[["income"]])


def test_non_ascii_column_names_convert(people):
    table, target = people
    inputs = table[["income", "job"]].rename(columns={"income": "größe", "job": "仕事"})
    model = make_pipeline(
        ColumnTransformer([("a", OneHotEncoder(handle_unknown="ignore"), ["仕事"])], remainder="passthrough"), LogisticRegression()
    ).fit(inputs, target)
    assert parity(model, inputs).verified
