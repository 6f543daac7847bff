import numpy as np
import pytest

from mlbridge.errors import ArtifactError, SignatureError
from mlbridge.signature import DTYPES, Column, Field, Signature, TensorSpec, blocks, classifier_outputs, label_spec, prediction_spec


def _full():
    fields = [
        Field(Column("age"), missing="allow"),
        Field(Column("ålder", unit="date"), missing="allow"),
        Field(Column("sex", categories=("f", "m"), ordered=True), "int32"),
        Field(Column("n", categories=(1, 2), unknown="keep"), "int32"),
        Field(Column("ok", categories=(False, True)), "int32"),
        Field(Column("note"), "string"),
    ]
    return Signature(blocks(fields), classifier_outputs(["no", "yes"]))


def test_json_round_trip_is_exact():
    sig = _full()
    assert Signature.from_json(sig.to_json()) == sig
    assert Signature.from_json(sig.to_json()).to_json() == sig.to_json()


def test_true_is_not_one():
    assert Column("a", categories=(True, False)) != Column("a", categories=(1, 0))


def test_onnx_numbers_are_onnx_own():
    onnx = pytest.importorskip("onnx")
    for d in DTYPES.values():
        assert (
            onnx.TensorProto.DataType.Value({"string": "STRING", "float64": "DOUBLE", "float32": "FLOAT"}.get(d.name, d.name.upper()))
            == d.onnx
        )


def test_numpy_names_are_numpys_own():
    for d in DTYPES.values():
        if d.numpy and d.name != "string":
            assert np.dtype(d.numpy).name == d.name
            assert np.dtype(d.numpy).itemsize == d.size


def test_blocks_split_by_rule_and_keep_training_order():
    made = blocks(
        [Field(Column("a")), Field(Column("b"), missing="allow"), Field(Column("c")), Field(Column("k", categories=("x",)), "int32")]
    )
    assert [(s.name, [c.name for c in s.columns]) for s in made] == [
        ("features", ["a", "c"]),
        ("features_2", ["b"]),
        ("categorical", ["k"]),
    ]


def test_integral_float_classes_become_int64_levels():
    assert label_spec(np.array([0.0, 1.0])).columns[0].categories == (0, 1)
    assert label_spec(np.array([0.5, 1.0])).dtype == "float64"


def test_binary_decision_is_one_value_a_row():
    assert classifier_outputs([0, 1], scores="decision")[1].shape == ("rows",)
    assert classifier_outputs([0, 1, 2], scores="decision")[1].shape == ("rows", 3)


def test_several_targets_are_a_matrix():
    assert prediction_spec(3).shape == ("rows", 3)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: TensorSpec("x", "float63", ()), "dtype"),
        (lambda: TensorSpec("x", "float64", (-1,)), "shape[0]"),
        (lambda: TensorSpec("x", "float64", (2, "rows")), "first axis"),
        (lambda: TensorSpec("x", "float64", ("rows", 2), (Column("a"),)), "1 columns"),
        (lambda: TensorSpec("x", "float64", ("rows", 2), (Column("a"), Column("a"))), "twice"),
        (lambda: TensorSpec("x", "float64", ("rows", 1), (Column("a", categories=("p",)),)), "int32"),
        (lambda: TensorSpec("x", "float64", (), rounding="nearest"), "rounding"),
        (lambda: Column("a", categories=(1, "b")), "all str"),
        (lambda: Column("a", categories=("b", "b")), "twice"),
        (lambda: Column("a", unknown="keep"), "categories"),
        (lambda: Signature([], []), "output"),
        (lambda: Signature([], [TensorSpec("y", "bool", ()), TensorSpec("y", "bool", ())]), "two outputs"),
    ],
)
def test_a_wrong_signature_is_refused_in_words(make, words):
    with pytest.raises(SignatureError) as caught:
        make()
    assert words in str(caught.value)


@pytest.mark.parametrize(
    "text",
    ["", "[]", "{}", '{"version":2,"inputs":[],"outputs":[]}', '{"version":1,"inputs":[],"outputs":[],"more":1}', '{"version":true,"inputs":[],"outputs":[]}',
     '{"version":1,"inputs":{},"outputs":[]}', '{"version":1,"inputs":[],"outputs":[{"name":"y","dtype":"float64","shape":[],"colour":1}]}', "[" * 100000],
)  # fmt: skip
def test_malformed_json_is_an_artifact_error(text):
    with pytest.raises(ArtifactError):
        Signature.from_json(text)


def test_a_newer_version_is_refused_by_name():
    with pytest.raises(ArtifactError, match="version 9"):
        Signature.from_json('{"version":9,"inputs":[],"outputs":[]}')
