"""Tensors on the wire: exact round trips, strict checks, and no crash on anything a client may send."""

from __future__ import annotations

import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
from google.protobuf.message import DecodeError

from mlbridge.errors import InputError, MlbridgeError, UnsupportedError
from mlbridge.runtimes import wire
from mlbridge.signature import Column, Signature, TensorSpec

pb = wire.inference_pb2
NUMERIC = list(wire.NUMPY)
TYPED = [d for d in NUMERIC if d != "FP16"]


def values(datatype, n, rng):
    dtype = wire.NUMPY[datatype]
    if dtype.kind == "b":
        return rng.integers(0, 2, n).astype(bool)
    if dtype.kind == "f":
        return rng.integers(0, 256, n * dtype.itemsize, dtype=np.uint8).view(dtype)  # every bit pattern, NaN payloads too
    info = np.iinfo(dtype)
    return rng.integers(info.min, info.max, n, dtype=dtype, endpoint=True)


@pytest.mark.parametrize("shape", [(), (0,), (1,), (3, 4), (2, 0, 5), (2, 3, 4)], ids=str)
@pytest.mark.parametrize("datatype", NUMERIC)
def test_raw_numbers_come_back_bit_for_bit(datatype, shape):
    array = values(datatype, int(np.prod(shape)), np.random.default_rng(1)).reshape(shape)
    got = wire.raw_array(wire.pack_array(array, datatype), datatype, shape, "x")
    assert got.shape == shape
    assert got.tobytes() == array.tobytes()


@pytest.mark.parametrize("datatype", TYPED)
def test_typed_numbers_come_back_equal(datatype):
    array = values(datatype, 12, np.random.default_rng(2)).reshape(3, 4)
    if array.dtype.kind == "f":
        array = np.nan_to_num(array, posinf=np.inf, neginf=-np.inf)
    contents = pb.InferTensorContents()
    wire.fill_contents(contents, datatype, array)
    contents = pb.InferTensorContents.FromString(contents.SerializeToString())
    np.testing.assert_array_equal(wire.contents_array(contents, datatype, (3, 4), "x"), array)


@pytest.mark.parametrize("elements", [[], [b""], [b"a", b"", b"\x00\xff" * 9], ["é".encode(), b"x" * 70_000]], ids=len)
def test_bytes_come_back_equal(elements):
    assert wire.split_bytes(wire.join_bytes(elements), len(elements), "x") == elements


@pytest.mark.parametrize(
    ("raw", "datatype", "shape"),
    [
        (b"\0" * 7, "FP64", [1]),
        (b"\0" * 9, "FP64", [1]),
        (b"", "INT8", [1]),
        (b"\2", "BOOL", [1]),
        (b"\0" * 8, "FP64", [-1]),
        (b"", "FP64", [1 << 62, 4]),
        (b"", "FP64", [0, 1 << 62]),
        (b"", "BYTES", [1 << 62]),
        (b"", "INT64", [1] * 40),
        (b"\1\0\0\0", "BYTES", [1]),
        (b"\1\0\0", "BYTES", [1]),
        (b"\0\0\0\0" * 3, "BYTES", [2]),
        (b"\xff\xff\xff\xffab", "BYTES", [1]),
        (b"", "FLOAT", [0]),
        (b"", "", [0]),
        (b"", "x" * 100_000, [0]),
    ],
    ids=lambda v: repr(v)[:30],
)
def test_raw_that_does_not_fit_is_an_input_error(raw, datatype, shape):
    with pytest.raises(InputError) as caught:
        wire.raw_array(raw, datatype, shape, "input 'x'")
    assert len(str(caught.value)) < 1000


def test_typed_numbers_out_of_their_datatypes_range_are_refused():
    with pytest.raises(InputError, match="out of the range of INT8"):
        wire.contents_array(pb.InferTensorContents(int_contents=[128]), "INT8", [1], "x")


def test_typed_contents_in_the_wrong_field_are_refused():
    with pytest.raises(InputError, match="fp64_contents is filled"):
        wire.contents_array(pb.InferTensorContents(fp64_contents=[1.0]), "FP32", [1], "x")


def test_half_floats_have_no_typed_form_and_bfloat16_none_at_all():
    with pytest.raises(InputError, match="send it raw"):
        wire.contents_array(pb.InferTensorContents(), "FP16", [0], "x")
    with pytest.raises(UnsupportedError):
        wire.raw_array(b"", "BF16", [0], "x")


@pytest.mark.parametrize("text", ["1,", ",1", "-1", "1 ", "9" * 30, "5", "a", "1,,2"])
def test_indices_of_missing_elements_are_checked(text):
    tensor = pb.ModelInferRequest.InferInputTensor()
    tensor.parameters["missing"].string_param = text
    with pytest.raises(InputError, match="missing"):
        wire.missing_indices(tensor.parameters, 5, "x")


def test_every_element_may_be_missing():
    tensor = pb.ModelInferRequest.InferInputTensor()
    tensor.parameters["missing"].string_param = "0,1,2"
    assert wire.missing_indices(tensor.parameters, 3, "x") == [0, 1, 2]


def test_the_generated_messages_are_up_to_date():
    pytest.importorskip("grpc_tools", reason="grpcio-tools is not installed")
    script = Path(__file__).parent.parent / "proto" / "generate.py"
    assert subprocess.run([sys.executable, str(script), "--check"], capture_output=True, check=False).returncode == 0


def test_field_numbers_are_those_of_a_stock_client():
    service_pb2 = pytest.importorskip("tritonclient.grpc.service_pb2", reason="tritonclient is not installed")
    theirs = service_pb2.DESCRIPTOR.message_types_by_name

    def compare(ours, stock):
        for field in ours.fields:
            if (ours.name, field.name) == ("ModelMetadataResponse", "properties"):
                continue  # the specification has it, the superset lacks it
            other = stock.fields_by_name[field.name]
            assert (field.number, field.type, field.is_repeated) == (other.number, other.type, other.is_repeated), field.full_name
        for nested in ours.nested_types:
            if nested.name in stock.nested_types_by_name:
                compare(nested, stock.nested_types_by_name[nested.name])

    compared = 0
    for name, message in pb.DESCRIPTOR.message_types_by_name.items():
        if name in theirs:
            compare(message, theirs[name])
            compared += 1
    assert compared > 25


# ---------------------------------------------------------------- fuzz

SIGNATURES = {
    "numbers": Signature(
        [TensorSpec("features", "float64", ("rows", 3), tuple(Column(n) for n in "abc"))], [TensorSpec("y", "float64", ("rows",))]
    ),
    "table": Signature(
        [
            TensorSpec("features", "float64", ("rows", 2), (Column("a"), Column("b")), missing="allow"),
            TensorSpec("categorical", "int32", ("rows", 2), (Column("s", ("S", "M")), Column("n", (1, 2, 30))), missing="allow"),
            TensorSpec("text", "string", ("rows", 1), (Column("t"),), missing="allow"),
        ],
        [TensorSpec("y", "float64", ("rows",))],
    ),
    "network": Signature(
        [TensorSpec("x", "float32", ("n", 2, None), rounding="nearest"), TensorSpec("k", "int64", ())], [TensorSpec("y", "float32", ())]
    ),
}


class _Still:
    device, max_concurrency = "cpu", 1

    def __init__(self, signature):
        self.signature = signature

    def run(self, feeds, /, *, outputs=None, deadline=None):
        raise AssertionError("decoding must not run anything")

    def close(self):
        pass


def _codec(signature):
    from mlbridge.model import Model
    from mlbridge.server.codec import Codec

    model = Model(_Still(signature))
    codec = Codec(model, "m", "1")
    model.close()
    return codec


def _random_request(rng, signature):
    """A request that is often right, and wrong in one of many ways."""
    names = [s.name for s in signature.inputs] + [c.name for c in signature.columns] + ["", "y", "zz", "x" * 300]
    request = pb.ModelInferRequest(model_name="m")
    typed, n = rng.random() < 0.3, int(rng.integers(0, 4))
    picked = (
        [s.name for s in signature.inputs] if rng.random() < 0.6 else [names[i] for i in rng.integers(0, len(names), rng.integers(0, 5))]
    )
    for name in picked:
        spec = next((s for s in signature.inputs if s.name == name), None)
        shape = [n if isinstance(d, str) or d is None else d for d in spec.shape] if spec else [n]
        datatype = wire.datatype_of(spec) if spec else str(rng.choice([*NUMERIC, "BYTES"]))
        if rng.random() < 0.15:
            datatype = str(rng.choice([*NUMERIC, "BYTES", "BF16", "?"]))
        if rng.random() < 0.15:
            shape = [int(d) for d in rng.integers(-1, 5, rng.integers(0, 4))]
        count = max(int(np.prod([max(d, 0) for d in shape])), 0)
        tensor = request.inputs.add(name=name, datatype=datatype, shape=shape)
        if rng.random() < 0.1:
            tensor.parameters["missing"].string_param = str(rng.choice(["0", "0,1", "99", "x", ""]))
        if datatype == "BYTES":
            array = np.array([str(rng.choice(["S", "M", "1", "30", "é", "", "7"])).encode() for _ in range(count)] + [None], object)[:-1]
        elif datatype in wire.NUMPY:
            array = values(datatype, count, rng)
        else:
            array = np.zeros(count)
        if typed and datatype in (*TYPED, "BYTES"):
            wire.fill_contents(tensor.contents, datatype, array)
        else:
            raw = wire.pack_array(array, datatype) if datatype in (*NUMERIC, "BYTES") else b"\0" * count
            if rng.random() < 0.1:
                raw = raw[: int(rng.integers(0, len(raw) + 1))] + bytes(rng.integers(0, 256, rng.integers(0, 4), dtype=np.uint8))
            request.raw_input_contents.append(raw)
    return request


def _fuzz(cases, seed):
    rng = np.random.default_rng(seed)
    codecs = {k: _codec(s) for k, s in SIGNATURES.items()}
    good = refused = longest = 0
    for _ in range(cases):
        kind = str(rng.choice(list(SIGNATURES)))
        request = _random_request(rng, SIGNATURES[kind])
        if rng.random() < 0.2:
            data = bytearray(request.SerializeToString())
            for i in rng.integers(0, max(len(data), 1), rng.integers(1, 4)):
                if i < len(data):
                    data[i] = int(rng.integers(0, 256))
            try:
                request = pb.ModelInferRequest.FromString(bytes(data))
            except DecodeError:
                continue
        try:
            how = codecs[kind].decode(request)
        except (InputError, UnsupportedError) as exc:
            refused += 1
            longest = max(longest, len(str(exc)))
            continue
        good += 1
        for spec in SIGNATURES[kind].inputs:
            array = how.feeds[spec.name]
            assert array.ndim == len(spec.shape)
            assert array.dtype == (object if spec.dtype == "string" else np.dtype(spec.dtype))
            assert array.flags.c_contiguous
    assert longest < 20_000
    return good, refused


def test_ten_thousand_fuzzed_requests_decode_or_are_refused_by_type():
    good, refused = _fuzz(10_000, 7)
    assert good > 500
    assert refused > 2_000


@pytest.mark.full
@pytest.mark.timeout(3600)
def test_a_million_fuzzed_requests_decode_or_are_refused_by_type():
    good, _ = _fuzz(1_000_000, 8)
    assert good > 50_000


def test_a_signalling_nan_is_a_nan_and_warns_nobody():
    request = pb.ModelInferRequest()
    request.inputs.add(name="features", datatype="FP32", shape=[1, 3])
    request.raw_input_contents.append(np.array([0x7F800001, 0x3F800000, 0xFF800001], "<u4").tobytes())
    signature = Signature([TensorSpec("features", "float64", ("rows", 3), missing="allow")], [TensorSpec("y", "float64", ("rows",))])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        how = _codec(signature).decode(request)
    assert np.isnan(how.feeds["features"]).tolist() == [[True, False, True]]


def test_raw_requests_decode_bit_for_bit():
    codec = _codec(SIGNATURES["numbers"])
    rng = np.random.default_rng(3)
    for n in (1, 2, 64):
        array = rng.normal(size=(n, 3)) * 10.0 ** rng.integers(-300, 300, (n, 3))
        request = pb.ModelInferRequest()
        request.inputs.add(name="features", datatype="FP64", shape=array.shape)
        request.raw_input_contents.append(array.tobytes())
        assert codec.decode(request).feeds["features"].tobytes() == array.tobytes()


def _table_request(**tensors):
    request = pb.ModelInferRequest()
    for name, (datatype, array) in tensors.items():
        tensor = request.inputs.add(name=name, datatype=datatype, shape=array.shape)
        gone = [i for i, v in enumerate(array.ravel()) if v is None]
        if gone:
            tensor.parameters["missing"].string_param = ",".join(map(str, gone))
        request.raw_input_contents.append(wire.pack_array(array, datatype))
    return request


def test_columns_make_the_same_feeds_as_blocks():
    codec = _codec(SIGNATURES["table"])
    text = np.array([["x"], [None]], object)
    blocks = _table_request(
        features=("FP64", np.array([[1.0, 2.0], [3.0, np.nan]])),
        categorical=("BYTES", np.array([["S", "30"], [None, "1"]], object)),
        text=("BYTES", text),
    )
    columns = _table_request(
        t=("BYTES", text[:, 0]),
        n=("INT64", np.array([30, 1])),
        s=("BYTES", np.array([["S"], [None]], object)),
        b=("FP64", np.array([2.0, np.nan])),
        a=("FP32", np.array([1.0, 3.0], np.float32)),
    )
    codes = _table_request(
        features=("FP64", np.array([[1.0, 2.0], [3.0, np.nan]])),
        categorical=("INT32", np.array([[0, 2], [-1, 0]], np.int32)),
        text=("BYTES", text),
    )
    feeds = [codec.decode(r).feeds for r in (blocks, columns, codes)]
    for other in feeds[1:]:
        for name, array in feeds[0].items():
            np.testing.assert_array_equal(other[name], array)
    assert feeds[0]["categorical"].tolist() == [[0, 2], [-1, 0]]
    assert feeds[0]["text"].tolist() == [["x"], [None]]


@pytest.mark.parametrize(
    ("name", "datatype", "array", "says"),
    [
        ("s", "INT32", np.array([0], np.int32), "expected BYTES"),
        ("n", "BYTES", np.array([b"+1"], object), "decimal integer"),
        ("n", "BYTES", np.array([b"7"], object), "unknown level"),
        ("s", "BYTES", np.array([b"\xff"], object), "UTF-8"),
        ("a", "BYTES", np.array([b"1"], object), "expected FP64"),
        ("t", "FP64", np.array([1.0]), "expected BYTES"),
        ("a", "FP64", np.array([[1.0, 2.0]]), "one column"),
    ],
)
def test_a_column_of_the_wrong_kind_is_refused_by_name(name, datatype, array, says):
    good = {
        "a": ("FP64", np.array([1.0])),
        "b": ("FP64", np.array([1.0])),
        "s": ("BYTES", np.array([b"S"], object)),
        "n": ("BYTES", np.array([b"1"], object)),
        "t": ("BYTES", np.array([b"x"], object)),
    }
    with pytest.raises(MlbridgeError, match=says) as caught:
        _codec(SIGNATURES["table"]).decode(_table_request(**good | {name: (datatype, array)}))
    assert repr(name) in str(caught.value)
