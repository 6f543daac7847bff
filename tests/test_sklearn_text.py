"""Vectorizers count words in the graph exactly as scikit-learn does, over all of Unicode, or are refused by name."""

from __future__ import annotations

import random

import numpy as np
import pytest
from sklearn import compose, linear_model, pipeline, preprocessing
from sklearn.feature_extraction.text import CountVectorizer, HashingVectorizer, TfidfVectorizer
from sklearn_check import FRAMEWORK, parity, session

import mlbridge as mb
from mlbridge.errors import ConversionError

pd = pytest.importorskip("pandas")

DOCUMENTS = [
    "A cat sat on the mat, the CAT!", "dogs_and İstanbul aİ x² ab", "naïve Ünïcode ÉCOLE straße STRASSE", "日本語 テキスト 12 ½ a1",
    "the quick brown fox; the lazy dog", "Kelvin ǅungla ẞharp ﬁne", "", "a b c", "new york new york the lazy dog sat",
]  # fmt: skip
VECTORIZERS = {
    "counts": CountVectorizer(),
    "weights": TfidfVectorizer(),
    "pairs": CountVectorizer(ngram_range=(1, 2)),
    "pairs and triples, sublinear": TfidfVectorizer(ngram_range=(2, 3), sublinear_tf=True),
    "stop words": CountVectorizer(stop_words="english"),
    "stop words between pairs": CountVectorizer(stop_words=["the", "on"], ngram_range=(1, 2)),
    "capitals kept": CountVectorizer(lowercase=False, ngram_range=(1, 2)),
    "words of one letter": CountVectorizer(token_pattern=r"(?u)\b\w+\b"),
    "a class of letters": CountVectorizer(token_pattern=r"[a-z]{3,}"),
    "seen or not, l1": TfidfVectorizer(binary=True, norm="l1", use_idf=False),
    "few features": TfidfVectorizer(max_features=8, min_df=1),
    "vocabulary of one's own": CountVectorizer(vocabulary=["cat", "Dog", "lazy dog", "fox"]),
}


def odd_texts(seed: int, count: int) -> list[str]:
    """Return texts of letters whose lower case, class or encoding is special, and of the documents' own words."""
    rng = random.Random(seed)
    letters = "aAbBiIİzZéÉßẞK\u212aksſS0²½_-'. \n\t\u00a0\u0307日Σσς😀𐐀𐐨\u0345ǅfi\x00,;"
    words = [w for d in DOCUMENTS for w in (d, d.upper(), d.title())]
    odd = ["".join(rng.choice(letters) for _ in range(rng.randrange(40))) for _ in range(count)]
    return odd + [" ".join(rng.choice(words) for _ in range(rng.randrange(1, 5))) for _ in range(count)] + ["x" * 5000 + " cat sat"]


def every_character() -> list[str]:
    """Return all of Unicode, in texts of 3,000 characters, known words among them."""
    every = [chr(c) for c in range(0x110000) if not 0xD800 <= c < 0xE000]
    return ["".join(every[i : i + 3000]) for i in range(0, len(every), 3000)] + [
        "cat".join(every[i : i + 500]) for i in range(0, 70000, 500)
    ]


def both(model, texts, folder):
    """Return the graph's and scikit-learn's own answers."""
    signature = FRAMEWORK.infer(model, texts)
    got = session(FRAMEWORK.convert(model, folder, signature=signature))({"text": np.array(texts, dtype=object)})["transformed"]
    return got, model.transform(texts).toarray()


@pytest.mark.filterwarnings("ignore:Upper case characters")  # that a capital in one's own vocabulary never matches is tested too
@pytest.mark.parametrize("name", VECTORIZERS)
def test_words_are_counted_as_scikit_learn_does(name, tmp_path):
    model = VECTORIZERS[name].fit(DOCUMENTS)
    got, want = both(model, DOCUMENTS + odd_texts(0, 150), tmp_path)
    assert want.any()
    np.testing.assert_allclose(got, want, rtol=1e-14)  # a norm adds in another order


@pytest.mark.parametrize("name", ["counts", "capitals kept", "words of one letter", "a class of letters"])
def test_every_character_of_unicode_is_a_letter_or_none_as_in_python(name, tmp_path):
    got, want = both(VECTORIZERS[name].fit(DOCUMENTS), every_character(), tmp_path)
    np.testing.assert_array_equal(got, want)


def test_no_rows_give_no_rows(tmp_path):
    model = VECTORIZERS["pairs"].fit(DOCUMENTS)
    signature = FRAMEWORK.infer(model, DOCUMENTS)
    run = session(FRAMEWORK.convert(model, tmp_path, signature=signature))
    assert run({"text": np.array([], dtype=object)})["transformed"].shape == (0, len(model.vocabulary_))


@pytest.mark.parametrize(
    ("model", "words"),
    [
        (CountVectorizer(analyzer="char"), "analyzer='char'"),
        (CountVectorizer(strip_accents="unicode"), "strip_accents"),
        (CountVectorizer(tokenizer=str.split, token_pattern=None), "Python code"),
        (CountVectorizer(token_pattern=r"\b\w+-\w+\b|\w+"), "token_pattern"),
        (HashingVectorizer(n_features=16), "HashingVectorizer"),
    ],
    ids=["characters", "accents", "tokenizer", "pattern", "hashes"],
)
def test_what_has_no_exact_form_is_refused_by_name_and_runs_natively(model, words, tmp_path):
    model.fit(DOCUMENTS)
    signature = FRAMEWORK.infer(model, DOCUMENTS)
    with pytest.raises(ConversionError, match=words):
        FRAMEWORK.convert(model, tmp_path, signature=signature)
    with mb.wrap(model, sample=DOCUMENTS) as wrapped:
        assert wrapped.route.runtime == "python"
        np.testing.assert_array_equal(wrapped.predict(DOCUMENTS, outputs="transformed"), model.transform(DOCUMENTS).toarray())


def test_a_greek_sigma_in_the_vocabulary_is_refused(tmp_path):
    model = CountVectorizer().fit(["οδός οδος"])
    with pytest.raises(ConversionError, match="sigma"):
        FRAMEWORK.convert(model, tmp_path, signature=FRAMEWORK.infer(model, ["x"]))


@pytest.fixture(scope="module")
def notes():
    rng = np.random.default_rng(0)
    words = ["the", "quick", "brown", "fox", "jumps", "over", "lazy", "dog", "cat", "mouse", "red", "green"]
    table = pd.DataFrame({
        "age": rng.normal(size=120), "note": [" ".join(rng.choice(words, rng.integers(1, 9))) for _ in range(120)],
        "title": [" ".join(rng.choice(words, 3)).title() for _ in range(120)], "city": pd.Categorical(rng.choice(list("abc"), 120)),
    })  # fmt: skip
    return table, table["note"].str.contains("cat").to_numpy().astype(int)


def classifier(table, y, **settings):
    """Return a classifier of a table with two columns of text."""
    prepare = compose.ColumnTransformer([
        ("note", TfidfVectorizer(**settings), "note"), ("title", CountVectorizer(ngram_range=(1, 2)), "title"),
        ("age", preprocessing.StandardScaler(), ["age"]), ("city", preprocessing.OneHotEncoder(), ["city"]),
    ])  # fmt: skip
    return pipeline.make_pipeline(prepare, linear_model.LogisticRegression()).fit(table, y)


def test_text_columns_of_a_table_convert_beside_numbers_and_categories(notes):
    table, y = notes
    model = classifier(table, y)
    assert parity(model, table).verified
    with mb.convert(model, sample=table) as converted:
        assert converted.signature.input("text").shape == ("rows", 2)
        assert [c.name for c in converted.signature.input("text").columns] == ["note", "title"]
        np.testing.assert_allclose(converted.predict(table)["probabilities_1"], model.predict_proba(table)[:, 1], rtol=1e-12)


def test_text_columns_that_cannot_convert_run_natively_with_right_answers(notes):
    table, y = notes
    model = classifier(table, y, strip_accents="unicode")
    with mb.wrap(model, sample=table) as wrapped:
        assert wrapped.route.runtime == "python"
        np.testing.assert_array_equal(wrapped.predict(table)["probabilities_1"], model.predict_proba(table)[:, 1])
        record = {"age": 0.5, "note": "a CAT", "title": "The Lazy Dog", "city": "b"}
        assert wrapped.predict(record)["label"] == model.predict(pd.DataFrame([record]))[0]
