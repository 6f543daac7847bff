import datetime

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlbridge.errors import InputError
from mlbridge.signature import Column, Field, Signature, TensorSpec, blocks, classifier_outputs, prediction_spec
from mlbridge.tensors import Coercion

TABLE = Signature(
    blocks(
        [
            Field(Column("age")),
            Field(Column("income"), missing="allow"),
            Field(Column("sex", categories=("f", "m")), "int32", "allow"),
            Field(Column("n", categories=(1, 2, 3)), "int32"),
            Field(Column("note"), "string"),
        ]
    ),
    classifier_outputs(["no", "yes"]),
)
FRAME = pd.DataFrame(
    {"n": [1, 3], "income": [1.5, None], "age": [30, 40], "sex": ["m", None], "note": ["a", "é"], "extra": [1, 2]}, index=["p", "q"]
)
WANT = {"features": [[30.0], [40.0]], "categorical": [[1], [-1]], "categorical_2": [[0], [2]], "text": [["a"], ["é"]]}


def _one(dtype="float64", shape=("rows", 2), **rules):
    return Coercion(Signature([TensorSpec("x", dtype, shape, **rules)], [prediction_spec()]))


@pytest.mark.parametrize(
    "make",
    [lambda d: d, pl.from_pandas, lambda d: pa.Table.from_pandas(d), lambda d: {k: d[k].tolist() for k in d if k != "extra"},
     lambda d: [{k: v for k, v in r.items() if k != "extra"} for r in d.to_dict("records")], lambda d: d.astype({"sex": "category"})],
    ids=["pandas", "polars", "arrow", "dict", "records", "categorical"],
)  # fmt: skip
def test_every_container_gives_the_same_blocks(make):
    feeds, _ = Coercion(TABLE).feeds(make(FRAME))
    for name, want in WANT.items():
        assert feeds[name].tolist() == want
    np.testing.assert_array_equal(feeds["features_2"], [[1.5], [np.nan]])


def test_a_record_is_one_row_and_its_answer_scalars():
    c = Coercion(TABLE)
    feeds, opened = c.feeds({"age": 30, "income": None, "sex": "m", "n": 1, "note": "a"})
    assert feeds["categorical"].tolist() == [[1]]
    answer = c.answer({"label": np.array([1], np.int32), "probabilities": np.array([[0.25, 0.75]])}, opened)
    assert answer["label"] == "yes"
    assert answer["probabilities"].tolist() == [0.25, 0.75]


def test_a_fast_record_equals_the_slow_one():
    c = Coercion(TABLE)
    record = {"age": 30, "income": 2.5, "sex": "f", "n": 2, "note": "x"}
    fast = c.record(record)
    slow, _ = c.feeds({k: np.array([v]) for k, v in record.items()})
    assert fast is not None
    for k in slow:
        assert fast[k].dtype == slow[k].dtype
        assert fast[k].tolist() == slow[k].tolist()


_NUMBERS = st.one_of(
    st.floats(),
    st.integers(-(2**54), 2**54),
    st.integers(-(10**400), 10**400),
    st.floats().map(np.float64),
    st.sampled_from([None, True, "1"]),
)


@pytest.mark.parametrize("missing", ["refuse", "allow"])
@pytest.mark.parametrize("dtype", ["float64", "float32"])
@given(values=st.tuples(_NUMBERS, _NUMBERS, _NUMBERS))
def test_a_quick_record_holds_what_the_long_way_makes_of_it(dtype, missing, values):
    rounding = "nearest" if dtype == "float32" else "refuse"
    columns = tuple(Column(n) for n in "abc")
    c = Coercion(Signature([TensorSpec("x", dtype, ("rows", 3), columns=columns, missing=missing, rounding=rounding)], [prediction_spec()]))
    record = dict(zip("abc", values))
    quick, c.record = c.record(record), None
    if quick is not None:
        slow, _ = c.feeds(record)  # raises where quick was wrong to pass
        assert quick["x"].tobytes() == slow["x"].tobytes() or np.array_equal(quick["x"], slow["x"], equal_nan=True)
        assert quick["x"].dtype == slow["x"].dtype
        assert quick["x"].flags.carray


def test_what_a_record_answers_is_what_one_row_of_a_dict_does():
    outputs = (
        *classifier_outputs(["no", "yes"]),
        TensorSpec("score", "float32", ("rows",)),
        TensorSpec("level", "int32", ("rows",), columns=(Column("level", categories=(3, 5)),), missing="allow"),
        TensorSpec("note", "string", ("rows",)),
        TensorSpec("whole", "int64", ("rows",)),
    )
    c = Coercion(Signature(TABLE.inputs, outputs))
    _, opened = c.feeds({"age": 30, "income": None, "sex": "m", "n": 1, "note": "a"})
    results = {
        "label": np.array([1], np.int32),
        "probabilities": np.array([[0.25, 0.75]]),
        "score": np.array([0.5], np.float32),
        "level": np.array([-1], np.int32),
        "note": np.array(["é"], object),
        "whole": np.array([7]),
    }
    answer = c.answer(results, opened)
    assert answer.pop("probabilities").tolist() == [0.25, 0.75]
    assert answer == {"label": "yes", "score": 0.5, "level": None, "note": "é", "whole": 7}
    assert {k: type(v) for k, v in answer.items()} == {"label": str, "score": float, "level": type(None), "note": str, "whole": int}
    assert c.answer(results, opened, "label") == "yes"


def test_a_table_answers_a_table_with_its_index():
    c = Coercion(TABLE)
    _, opened = c.feeds(FRAME)
    out = c.answer({"label": np.array([0, 1], np.int32), "probabilities": np.eye(2)}, opened)
    assert list(out.columns) == ["label", "probabilities_no", "probabilities_yes"]
    assert list(out.index) == ["p", "q"]
    assert out["label"].tolist() == ["no", "yes"]


def test_all_problems_of_one_input_come_at_once():
    with pytest.raises(InputError) as caught:
        Coercion(TABLE).feeds({"age": "x", "income": 1.0, "sex": "z", "n": 9, "nota": "t"})
    text = "\n".join(caught.value.problems)
    assert len(caught.value.problems) == 5
    for words in (
        "'age'",
        "unknown level 'z'",
        "unknown level 9",
        "no input or column 'nota'; did you mean 'note'?",
        "lacks column 'note'",
    ):
        assert words in text


@pytest.mark.parametrize(
    ("spec", "value", "words"),
    [
        (dict(), np.zeros((1, 3)), "shape (1, 3), expected (rows, 2)"),
        (dict(), np.zeros(2), "one row without its axis"),
        (dict(), np.array([[1.0, np.nan]]), "1 missing value, first at (0, 1)"),
        (dict(), np.array([[1, "a"]], object), "holds str, expected numbers"),
        (dict(), np.array([["1", "2"]]), "holds text"),
        (dict(), np.array([[1j, 2]]), "complex"),
        (dict(), np.array([[2**53 + 1, 0]]), "no exact float64"),
        (dict(), "abc", "not an input a model takes"),
        (dict(dtype="float32"), np.array([[0.1, 0.2]]), "would be rounded to float32"),
        (dict(dtype="float32", rounding="nearest"), np.array([[1e300, 0.2]]), "too large for float32"),
        (dict(dtype="int32"), np.array([[1.5, 2]]), "no exact int32"),
        (dict(dtype="int32"), np.array([[2**40, 2]]), "no exact int32"),
        (dict(dtype="uint8"), np.array([[-1, 2]]), "no exact uint8"),
        (dict(dtype="string"), np.array([[1.0, 2]]), "expected text"),
        (dict(dtype="string"), np.array([[b"a", "b"]], object), "decode"),
        (dict(), [[1.0, 2.0], [3.0]], "rows have different lengths (2, 1); pad each to 2"),
        (dict(dtype="string"), [["a", "b"], ["c"], []], "rows have different lengths (2, 1, 0)"),
        (dict(), np.array([["2020-01-01", "2020-01-02"]], "datetime64[D]"), "knows no date"),
    ],
)
def test_what_does_not_fit_is_refused_in_words(spec, value, words):
    with pytest.raises(InputError) as caught:
        _one(**spec).feeds(value)
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("spec", "value"),
    [
        (dict(), np.array([[1, 2]], np.int8)),
        (dict(), np.array([[True, False]])),
        (dict(), np.asfortranarray(np.ones((3, 2)))),
        (dict(), np.ones((6, 4))[::2, ::2]),
        (dict(), np.ones((2, 2), ">f8")),
        (dict(), [[1, 2.5]]),
        (dict(missing="allow"), np.array([[1, None]], object)),
        (dict(), np.array([[np.inf, -np.inf]])),
        (dict(dtype="float32", rounding="nearest"), np.array([[0.1, 0.2]])),
        (dict(dtype="float32"), np.array([[0.5, 2.0]])),
        (dict(dtype="int32"), np.array([[1.0, 2.0]])),
        (dict(dtype="int8"), np.array([[1, 2]])),
        (dict(dtype="bool"), np.array([[0, 1]])),
        (dict(missing="allow"), np.ma.masked_array([[1.0, 2.0]], [[False, True]])),
    ],
)
def test_what_fits_comes_out_exact_contiguous_and_native(spec, value):
    feeds, _ = _one(**spec).feeds(value)
    x = feeds["x"]
    assert x.dtype == np.dtype(spec.get("dtype", "float64"))
    assert x.dtype.isnative
    assert x.flags.c_contiguous
    plain = np.ma.filled(value, np.nan) if isinstance(value, np.ma.MaskedArray) else np.array(value, float)
    np.testing.assert_allclose(x.astype(float), plain.astype(float), rtol=1e-7)


def test_read_only_arrays_are_taken():
    x = np.ones((2, 2))
    x.flags.writeable = False
    assert _one().feeds(x)[0]["x"].tolist() == [[1, 1], [1, 1]]


@given(st.lists(st.floats(), min_size=2, max_size=2))
def test_the_exact_check_and_the_long_way_agree(values):
    c, x = _one(), np.array([values])
    name, fits = c.exact
    assert name == "x"
    assert fits(x) == (not c.check(x))


@pytest.mark.parametrize("library", ["torch", "scipy"])
def test_foreign_arrays_name_their_conversion(library):
    if library == "torch":
        x = pytest.importorskip("torch").ones(1, 2)
        words = ".numpy()"
    else:
        x = pytest.importorskip("scipy.sparse").csr_matrix(np.ones((1, 2)))
        words = ".toarray()"
    with pytest.raises(InputError) as caught:
        _one().feeds(x)
    assert words in str(caught.value)


def test_one_array_for_several_inputs_is_refused():
    with pytest.raises(InputError, match="5 inputs"):
        Coercion(TABLE).feeds(np.ones((1, 5)))


def test_duplicated_columns_are_refused():
    frame = pd.DataFrame(np.ones((1, 2)), columns=["a", "a"])
    sig = Signature(blocks([Field(Column("a"))]), [prediction_spec()])
    with pytest.raises(InputError):
        Coercion(sig).feeds(frame)


def test_lazy_tables_are_refused_with_the_remedy():
    with pytest.raises(InputError, match="collect"):
        Coercion(TABLE).feeds(pl.from_pandas(FRAME).lazy())


def test_run_feeds_speak_codes():
    sig = Signature(blocks([Field(Column("k", categories=("a", "b"), unknown="keep"), "int32")]), [prediction_spec()])
    c = Coercion(sig)
    assert c.run_feeds({"categorical": np.array([[2]])})["categorical"].dtype == np.int32
    for bad in (-1, 3):
        with pytest.raises(InputError):
            c.run_feeds({"categorical": np.array([[bad]])})


def test_run_feeds_want_exact_names():
    with pytest.raises(InputError) as caught:
        _one().run_feeds({"y": np.ones((1, 2))})
    assert len(caught.value.problems) == 2


def test_symbols_must_agree():
    sig = Signature([TensorSpec("a", "float64", ("rows", "k")), TensorSpec("b", "float64", ("rows", "k"))], [prediction_spec()])
    with pytest.raises(InputError, match="k is 3"):
        Coercion(sig).feeds({"a": np.ones((2, 2)), "b": np.ones((2, 3))})


UTC = datetime.UTC


@pytest.mark.parametrize(
    ("unit", "column", "want"),
    [
        ("date", pd.Series(pd.to_datetime(["1970-01-03"])), 2.0),
        ("date", [datetime.date(1970, 1, 2)], 1.0),
        ("timestamp", pd.Series(pd.to_datetime(["1970-01-01T00:01:00Z"])), 60.0),
        ("timestamp", [datetime.datetime(1970, 1, 1, 0, 0, 1, tzinfo=UTC)], 1.0),
        ("date", [17.0], 17.0),
    ],
)
def test_dates_become_days_and_times_seconds(unit, column, want):
    sig = Signature(blocks([Field(Column("d", unit=unit), missing="allow")]), [prediction_spec()])
    feeds, _ = Coercion(sig).feeds(pd.DataFrame({"d": column}))
    assert feeds["features"].tolist() == [[want]]


def test_naive_times_are_refused():
    sig = Signature(blocks([Field(Column("d", unit="timestamp"))]), [prediction_spec()])
    with pytest.raises(InputError, match="time zone"):
        Coercion(sig).feeds(pd.DataFrame({"d": pd.to_datetime(["1970-01-03"])}))


def test_missing_labels_come_back_as_none():
    sig = Signature([TensorSpec("x", "float64", ("rows", 1))], classifier_outputs([1, 2], missing="allow"))
    c = Coercion(sig)
    _, opened = c.feeds(np.ones((2, 1)))
    out = c.answer({"label": np.array([-1, 1], np.int32), "probabilities": np.ones((2, 2))}, opened)
    assert out["label"].tolist() == [None, 2]


def test_zero_rows_are_answered_without_the_model():
    c = Coercion(TABLE)
    feeds, _ = c.feeds(FRAME.iloc[:0])
    out = c.empty(feeds, None)
    assert out["probabilities"].shape == (0, 2)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("target", ["int32", "int64", "uint8"])
def test_half_precision_numbers_are_judged_without_a_warning(target):
    assert _one(dtype=target).feeds(np.array([[1, 2]], np.float16))[0]["x"].tolist() == [[1, 2]]
    with pytest.raises(InputError, match="no exact"):
        _one(dtype=target).feeds(np.array([[np.inf, 2]], np.float16))


def test_a_column_of_vectors_is_a_matrix():
    """As pandas holds them: lists, arrays, or objects that know `toArray`, like Spark's vectors."""
    pd = pytest.importorskip("pandas", reason="pandas is not installed")

    class Vector:
        def __init__(self, values):
            self.values = values

        def toArray(self):  # noqa: N802
            return np.array(self.values)

    signature = Signature((TensorSpec("v", "float64", ("rows", 2)),), (TensorSpec("y", "float64", ("rows",)),))
    want = np.array([[1.0, 2.0], [3.0, 4.5]])
    for column in (want.tolist(), list(want), [Vector(r) for r in want.tolist()]):
        feeds, _ = Coercion(signature).feeds(pd.DataFrame({"v": column, "other": [1, 2]}))
        np.testing.assert_array_equal(feeds["v"], want)
    with pytest.raises(InputError, match="different lengths"):
        Coercion(signature).feeds(pd.DataFrame({"v": [[1.0, 2.0], [3.0]]}))


def test_an_empty_list_is_text_too():
    signature = Signature((TensorSpec("t", "string", ("rows", 1), (Column("note"),)),), (TensorSpec("y", "float64", ("rows",)),))
    feeds, _ = Coercion(signature).feeds({"note": []})
    assert feeds["t"].shape == (0, 1)
