"""Dicts, sets of labels and images: estimators that read no table get signatures, and answer as scikit-learn does."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn import linear_model, pipeline
from sklearn.feature_extraction import DictVectorizer, FeatureHasher
from sklearn.feature_extraction.image import PatchExtractor
from sklearn.preprocessing import MultiLabelBinarizer

import mlbridge as mb
from mlbridge.errors import SignatureError

pd = pytest.importorskip("pandas")

RECORDS = [
    {"age": 1.5, "city": "a", "b=x": 2.0}, {"age": 3.0, "city": "b=c", "b=x": 0.0}, {"age": -1.0, "city": "a", "b=x": 1.0},
    {"age": 0.0, "city": "d", "b=x": 1.0},
]  # fmt: skip
IMAGES = np.random.default_rng(0).normal(size=(3, 12, 25, 2))


def dense(x):
    return x.toarray() if hasattr(x, "toarray") else x


@pytest.mark.parametrize(
    "model",
    [
        DictVectorizer(), DictVectorizer(dtype=np.float32, sparse=False, sort=False), FeatureHasher(n_features=8),
        FeatureHasher(n_features=7, alternate_sign=False),
    ],
    ids=["dicts", "dicts in float32", "hashes", "hashes without signs"],
)  # fmt: skip
def test_records_convert_and_answer_as_the_library(model):
    model.fit(RECORDS)
    with mb.convert(model, sample=RECORDS) as converted:
        assert converted.report.verified
        np.testing.assert_array_equal(converted.predict(RECORDS, outputs="transformed"), dense(model.transform(RECORDS)))
        table = converted.predict(pd.DataFrame(RECORDS), outputs="transformed")
        np.testing.assert_array_equal(table, dense(model.transform(RECORDS)))


def test_a_dict_vectorizer_names_its_columns_and_levels():
    with mb.convert(DictVectorizer().fit(RECORDS), sample=RECORDS) as converted:
        assert [c.name for c in converted.signature.input("features").columns] == ["age", "b=x"]
        city = converted.signature.input("categorical").columns[0]
        assert (city.name, city.categories, city.unknown) == ("city", ("a", "b=c", "d"), "keep")


@pytest.mark.parametrize("via", ["onnx", "native"])
def test_absent_and_unknown_values_of_a_record_are_as_in_the_library(via):
    model = DictVectorizer(sparse=False).fit(RECORDS)
    with mb.wrap(model, sample=RECORDS, via=via) as wrapped:
        asked = [{"age": 1.0, "city": None, "b=x": 1.0}, {"age": None, "city": "elsewhere", "b=x": 1.0}]
        got = wrapped.predict(asked, outputs="transformed")
    np.testing.assert_array_equal(got, model.transform([{"age": 1.0, "b=x": 1.0}, {"age": None, "city": "elsewhere", "b=x": 1.0}]))


def test_a_pipeline_that_begins_with_records_is_one_graph():
    model = pipeline.make_pipeline(DictVectorizer(), linear_model.LogisticRegression()).fit(RECORDS, ["no", "yes", "no", "yes"])
    with mb.convert(model, sample=RECORDS) as converted:
        assert converted.predict(RECORDS)["label"].tolist() == model.predict(RECORDS).tolist()


def test_a_key_of_numbers_and_of_text_is_refused_by_name():
    with pytest.raises(SignatureError, match="'k'"):
        mb.wrap(DictVectorizer().fit([{"k": 1.0}, {"k": "a"}]))


def test_a_hasher_without_a_sample_asks_for_one():
    with pytest.raises(SignatureError, match="does not remember"):
        mb.wrap(FeatureHasher().fit(RECORDS))


def test_hashed_words_run_natively_with_padding():
    model, words = FeatureHasher(n_features=8, input_type="string"), np.array([["a", "b"], ["c", None]], dtype=object)
    with mb.wrap(model, sample=words) as wrapped:
        assert wrapped.route.runtime == "python"
        np.testing.assert_array_equal(wrapped.predict(words, outputs="transformed"), model.transform([["a", "b"], ["c"]]).toarray())


@pytest.mark.parametrize("via", ["onnx", "native"])
@pytest.mark.parametrize("classes", [["x", "y", "z"], [1, 5, 7]], ids=["text", "numbers"])
def test_sets_of_labels_are_columns_with_padding(classes, via):
    a, b, c = classes
    rows = [[a, b], [c], [], [b, b], [c, a]]
    model = MultiLabelBinarizer().fit([[a, b], [c]])
    padded = np.array([[*r, None, None][:2] for r in rows], dtype=object)
    with mb.wrap(model, sample=padded, via=via) as wrapped:
        assert wrapped.signature.input("categorical").columns[0].categories == tuple(classes)
        np.testing.assert_array_equal(wrapped.predict(padded, outputs="transformed"), model.transform(rows))


@pytest.mark.parametrize("size", [(3, 4), (1, 1), None], ids=str)
@pytest.mark.parametrize("images", [IMAGES[..., 0], IMAGES[..., :1], IMAGES], ids=["grey", "one channel", "two channels"])
def test_patches_are_other_rows_than_the_images(images, size):
    model = PatchExtractor(patch_size=size)
    with mb.convert(model, sample=images) as converted:
        assert not converted.signature.batched
        assert converted.signature.output("transformed").shape[0] == "patches"
        np.testing.assert_array_equal(converted.predict(images, outputs="transformed"), model.transform(images))
        np.testing.assert_array_equal(converted.predict(images[:2, 1:], outputs="transformed"), model.transform(images[:2, 1:]))


def test_patches_drawn_at_random_run_natively():
    model = PatchExtractor(patch_size=(2, 2), max_patches=3, random_state=0)
    with mb.wrap(model, sample=IMAGES) as wrapped:
        assert wrapped.route.runtime == "python"
        np.testing.assert_array_equal(wrapped.predict(IMAGES, outputs="transformed"), model.transform(IMAGES))
