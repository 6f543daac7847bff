"""The frame codec: golden vectors, bit-exact round trips, and every malformed input refused."""

from __future__ import annotations

import json
import socket
import struct
import threading
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlbridge import frames
from mlbridge.errors import ArtifactError, BridgeError, BridgeTimeoutError, CancelledError, InputError, StatusCode
from mlbridge.frames import FrameType, links
from mlbridge.frames.layout import layout_of
from mlbridge.interfaces import Deadline

VECTORS = Path(__file__).parent.parent / "proto" / "vectors"
LISTING = json.loads((VECTORS / "vectors.json").read_text(encoding="utf-8"))
GOOD = [pytest.param(v, id=v["file"]) for v in LISTING["frames"]]
BAD = [pytest.param(v["file"], id=v["file"]) for v in LISTING["malformed"]]


def _array(described: dict) -> np.ndarray:
    if "hex" in described:
        return np.frombuffer(bytes.fromhex(described["hex"]), np.dtype(described["dtype"]).newbyteorder("<")).reshape(described["shape"])
    out = np.empty(len(described["strings"]), object)
    out[:] = described["strings"]
    return out.reshape(described["shape"])


def _same_bits(a: np.ndarray, b: np.ndarray) -> bool:
    if a.dtype == object:
        return a.shape == b.shape and a.tolist() == b.tolist()
    return a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()


@pytest.mark.parametrize("vector", GOOD)
def test_a_golden_frame_is_read_as_described(vector):
    frame = frames.decode_frame((VECTORS / vector["file"]).read_bytes())
    assert (frame.type.name, frame.request_id) == (vector["type"], vector["request_id"])
    assert list(frame.tensors) == [t["name"] for t in vector["tensors"]]
    for described in vector["tensors"]:
        got = frame.tensors[described["name"]]
        assert _same_bits(got, _array(described)), described["name"]
        assert got.flags.c_contiguous
        assert got.flags.aligned


@pytest.mark.parametrize("vector", [v for v in GOOD if not v.values[0]["column_major"]])
def test_a_golden_frame_is_written_byte_for_byte(vector):
    tensors = {t["name"]: _array(t) for t in vector["tensors"]}
    data = frames.encode_frame(FrameType[vector["type"]], tensors, request_id=vector["request_id"])
    assert data == (VECTORS / vector["file"]).read_bytes()


@pytest.mark.parametrize("name", BAD)
def test_a_malformed_frame_is_an_artifact_error(name):
    with pytest.raises(ArtifactError):
        frames.decode_frame((VECTORS / name).read_bytes())


def test_the_vectors_are_what_their_script_writes(tmp_path):
    import importlib.util

    spec = importlib.util.spec_from_file_location("make_vectors", VECTORS.parent / "make_vectors.py")
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    script.FOLDER = tmp_path
    script.main()
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == {p.name: p.read_bytes() for p in VECTORS.iterdir()}


_NUMERIC = [np.dtype(d) for d in ["?", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f2", "f4", "f8"]]


@st.composite
def _tensors(draw):
    out = {}
    for name in draw(st.lists(st.text(st.characters(exclude_categories=("Cs",)), min_size=1, max_size=9), unique=True, max_size=4)):
        shape = tuple(draw(st.lists(st.integers(0, 4), max_size=4)))
        n = int(np.prod(shape, dtype=int))
        if draw(st.booleans()):
            array = np.empty(n, object)
            array[:] = draw(st.lists(st.none() | st.text(st.characters(exclude_categories=("Cs",)), max_size=5), min_size=n, max_size=n))
        else:
            dtype = draw(st.sampled_from(_NUMERIC))
            raw = draw(st.binary(min_size=n * dtype.itemsize, max_size=n * dtype.itemsize))
            array = (np.frombuffer(raw, np.uint8) & 1).astype("?") if dtype.kind == "b" else np.frombuffer(raw, dtype)
        out[name] = array.reshape(shape)
    return out


@settings(max_examples=150, deadline=None)
@given(_tensors(), st.sampled_from(list(FrameType)), st.integers(0, 2**32 - 1))
def test_any_tensors_come_back_bit_for_bit(tensors, kind, request_id):
    frame = frames.decode_frame(frames.encode_frame(kind, tensors, request_id=request_id))
    assert (frame.type, frame.request_id, list(frame.tensors)) == (kind, request_id, list(tensors))
    assert all(_same_bits(frame.tensors[n], tensors[n]) for n in tensors)


@settings(max_examples=400, deadline=None)
@given(st.sampled_from(LISTING["frames"]), st.data())
def test_a_mutated_frame_is_read_or_refused_never_a_crash(vector, data):
    raw = bytearray((VECTORS / vector["file"]).read_bytes())
    for _ in range(data.draw(st.integers(1, 3))):
        where = data.draw(st.integers(0, len(raw) - 1))
        raw[where : where + data.draw(st.integers(0, 2))] = data.draw(st.binary(max_size=3))
        if not raw:
            break
    try:
        frame = frames.decode_frame(bytes(raw))
    except ArtifactError:
        return
    for array in frame.tensors.values():
        assert array.size * max(array.itemsize, 1) <= 8 * len(raw)


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=200))
def test_garbage_is_refused(raw):
    payload = struct.pack("<4sBBHII", b"MLB1", 3, 0, 0, len(raw), 1) + raw
    for candidate in (raw, payload):
        try:
            frames.decode_frame(candidate)
        except ArtifactError:
            continue
        assert candidate is payload
        assert raw[:4] == bytes(4) or len(raw) > 16


def test_decoding_copies_nothing_and_is_as_writable_as_its_buffer():
    data = bytearray(frames.encode_frame(FrameType.RUN, {"x": np.arange(6.0).reshape(2, 3)}))
    x = frames.decode_frame(data).tensors["x"]
    assert np.shares_memory(x, np.frombuffer(data, np.uint8))
    assert x.flags.writeable
    assert not frames.decode_frame(bytes(data)).tensors["x"].flags.writeable


def test_an_unaligned_buffer_gives_aligned_arrays():
    raw = b"?" + frames.encode_frame(FrameType.RUN, {"x": np.arange(3.0)})
    x = frames.decode_frame(memoryview(raw)[1:]).tensors["x"]
    assert x.flags.aligned
    assert x.tolist() == [0.0, 1.0, 2.0]


def test_fortran_strided_and_big_endian_arrays_are_written_row_major():
    base = np.arange(12.0).reshape(3, 4)
    tensors = {"f": np.asfortranarray(base), "s": base[:, ::2], "b": base.astype(">f8"), "t": base.T}
    got = frames.decode_frame(frames.encode_frame(FrameType.RUN, tensors)).tensors
    for name, want in tensors.items():
        np.testing.assert_array_equal(got[name], want)


@pytest.mark.parametrize(
    "value",
    [np.zeros(2, "M8[s]"), np.zeros(2, "c16"), np.array([1, "a"], object), np.array([b"x"], object), "\ud800", np.zeros(2, "V4")],
    ids=["datetime", "complex", "mixed", "bytes", "surrogate", "void"],
)
def test_what_has_no_form_in_a_frame_is_an_input_error(value):
    with pytest.raises(InputError):
        frames.encode_frame(FrameType.RUN, {"x": value})


@pytest.mark.parametrize("name", ["", "\ud800", 3, "n" * 70_000], ids=["empty", "surrogate", "number", "long"])
def test_a_name_that_has_no_form_is_an_input_error(name):
    with pytest.raises(InputError):
        frames.encode_frame(FrameType.RUN, {name: 1.0})


def test_a_frame_too_large_is_out_of_range():
    with pytest.raises(InputError) as caught:
        frames.encode_parts(FrameType.RUN, {"x": np.zeros(100)}, max_payload=800)
    assert caught.value.code is StatusCode.OUT_OF_RANGE


def test_scalars_are_rank_zero():
    got = frames.decode_frame(frames.encode_frame(FrameType.LOAD, {"a": "x", "b": 3, "c": True, "d": 0.5, "e": None, "f": ["p", "q"]}))
    assert [got.tensors[n].shape for n in "abcdef"] == [(), (), (), (), (), (2,)]
    assert (got.text("a"), got.integer("b"), got.text("e", "default"), got.texts("f")) == ("x", 3, "default", ("p", "q"))
    with pytest.raises(BridgeError):
        got.text("b")
    with pytest.raises(BridgeError):
        got.integer("a")


# ---------------------------------------------------------------- sockets


@pytest.fixture
def pair():
    a, b = socket.socketpair()
    yield a, b
    a.close()
    b.close()


@pytest.mark.parametrize("deadline", [None, 30.0], ids=["no deadline", "deadline"])
@pytest.mark.parametrize("size", [1, 1_000_000], ids=["small", "8 MB"])
def test_a_frame_crosses_a_socket(pair, deadline, size):
    x = np.arange(float(size))
    deadline = Deadline(deadline) if deadline else None
    sender = threading.Thread(
        target=links.write_frame, args=(pair[0], FrameType.RUN, {"x": x}), kwargs={"request_id": 5, "deadline": deadline}
    )
    sender.start()
    frame = links.read_frame(pair[1], deadline=deadline)
    sender.join()
    assert frame.request_id == 5
    np.testing.assert_array_equal(frame.tensors["x"], x)
    assert frame.tensors["x"].flags.writeable


def test_a_deadline_ends_a_read_and_the_link_still_works(pair):
    with pytest.raises(BridgeTimeoutError):
        links.read_frame(pair[1], deadline=Deadline(0.01))
    links.write_frame(pair[0], FrameType.PING)
    assert links.read_frame(pair[1], deadline=Deadline(30)).type is FrameType.PING


def test_a_deadline_ends_a_write_nobody_reads(pair):
    with pytest.raises(BridgeTimeoutError):
        links.write_frame(pair[0], FrameType.RUN, {"x": np.zeros(10**6)}, deadline=Deadline(0.01))


def test_a_cancel_wakes_a_read(pair):
    woken, wake = socket.socketpair()
    deadline = Deadline(60)
    deadline.on_cancel(lambda: wake.send(b"x"))
    threading.Timer(0.01, deadline.cancel).start()
    with woken, wake, pytest.raises(CancelledError):
        links.read_frame(pair[1], deadline=deadline, wake=woken.fileno())


@pytest.mark.parametrize("cut", [0, 3, 16, 20], ids=["at once", "in the header", "after the header", "in the payload"])
def test_a_link_that_ends_is_a_bridge_error(pair, cut):
    pair[0].sendall(frames.encode_frame(FrameType.RUN, {"x": 1.0})[:cut])
    pair[0].close()
    with pytest.raises(BridgeError):
        links.read_frame(pair[1])


@pytest.mark.parametrize("name", [b for b in BAD if "cut" not in b.id and "length_too" not in b.id])
def test_a_malformed_frame_from_a_socket_is_a_bridge_error(pair, name):
    pair[0].sendall((VECTORS / name).read_bytes())
    pair[0].shutdown(socket.SHUT_WR)
    with pytest.raises(BridgeError):
        links.read_frame(pair[1])


def test_sending_to_a_closed_link_is_a_bridge_error(pair):
    pair[1].close()
    with pytest.raises(BridgeError):
        links.write_frame(pair[0], FrameType.PING)


def test_the_way_without_poll_ends_and_waits_alike(pair, monkeypatch):
    monkeypatch.setattr(links, "_wait", links._wait_in_turns)
    with pytest.raises(BridgeTimeoutError):
        links.read_frame(pair[1], deadline=Deadline(0.01))
    x = np.arange(300_000.0)
    sender = threading.Thread(target=links.write_frame, args=(pair[0], FrameType.RUN, {"x": x}), kwargs={"deadline": Deadline(60)})
    sender.start()
    np.testing.assert_array_equal(links.read_frame(pair[1], deadline=Deadline(60)).tensors["x"], x)
    sender.join()


def test_a_second_frame_that_was_not_asked_for_is_a_bridge_error(pair):
    pair[0].sendall(2 * frames.encode_frame(FrameType.PONG))
    with pytest.raises(BridgeError, match="follow"):
        links.read_frame(pair[1])


@pytest.mark.parametrize("dtype", ["float64", "int32", ">f8", "O"])
def test_matrices_sent_by_columns_are_the_same_matrices(dtype):
    values = np.arange(24).reshape(2, 3, 4)
    array = np.array([str(v) for v in values.ravel()], object).reshape(values.shape) if dtype == "O" else values.astype(dtype)
    tensors = {"cube": array, "vector": array[0, 0], "matrix": array[:, 1:, 0]}
    frame = frames.decode_frame(b"".join(frames.encode_parts(FrameType.RUN, tensors, column_major=True)))
    for name, want in tensors.items():
        assert frame.tensors[name].flags.c_contiguous
        np.testing.assert_array_equal(frame.tensors[name], want)


def test_a_small_answer_after_a_large_one_does_not_hold_the_large_ones_room(pair):
    links.write_frame(pair[0], FrameType.RESULT, {"x": np.zeros(4096)})
    large = links.read_frame(pair[1])
    links.write_frame(pair[0], FrameType.RESULT, {"x": np.zeros(3)})
    small = links.read_frame(pair[1], like=large.layout)
    assert small.tensors["x"].tolist() == [0.0] * 3
    assert small.tensors["x"].base.obj.nbytes <= 4096


@pytest.mark.parametrize("rows", [3, 1 << 16], ids=["small", "large"])
@pytest.mark.parametrize("deadline", [None, 60.0], ids=["no deadline", "deadline"])
def test_an_answer_like_the_last_is_read_into_arrays_of_its_own(pair, rows, deadline):
    made = [{"a": np.arange(rows, dtype="float32") + i, "b": np.full((rows, 2), i), "c": np.array(float(i))} for i in range(2)]
    layout = layout_of(FrameType.RESULT, made[0])
    sender = threading.Thread(target=links.write_frame, args=(pair[0], FrameType.RESULT, made[1]), kwargs={"request_id": 7})
    sender.start()
    frame = links.read_frame(pair[1], Deadline(deadline), like=layout)
    sender.join()
    assert (frame.type, frame.request_id, frame.layout) == (FrameType.RESULT, 7, layout)
    for name, want in made[1].items():
        assert frame.tensors[name].base is None
        np.testing.assert_array_equal(frame.tensors[name], want, strict=True)


UNLIKE = {
    "another type": (FrameType.ERROR, {"a": np.zeros(600)}), "another name": (FrameType.RESULT, {"b": np.zeros(600)}),
    "another dtype": (FrameType.RESULT, {"a": np.zeros(600, "int64")}), "another shape": (FrameType.RESULT, {"a": np.zeros((600, 1))}),
    "a smaller one": (FrameType.RESULT, {"a": np.zeros(3)}), "nothing": (FrameType.RESULT, {}),
    "a larger one": (FrameType.RESULT, {"a": np.zeros(9000)}), "text": (FrameType.RESULT, {"a": np.array(["x", None], object)}),
}  # fmt: skip


@pytest.mark.parametrize("byte_by_byte", [False, True], ids=["at once", "byte by byte"])
@pytest.mark.parametrize("other", UNLIKE.values(), ids=UNLIKE.keys())
def test_an_answer_unlike_the_last_is_read_as_it_is(pair, other, byte_by_byte):
    raw = frames.encode_frame(*other, request_id=9)

    def send():
        for piece in [raw[i : i + 1] for i in range(len(raw))] if byte_by_byte else [raw]:
            pair[0].sendall(piece)

    sender = threading.Thread(target=send)
    sender.start()
    frame = links.read_frame(pair[1], like=layout_of(FrameType.RESULT, {"a": np.zeros(600)}))
    sender.join()
    assert (frame.type, frame.request_id, list(frame.tensors)) == (other[0], 9, list(other[1]))
    for name, want in other[1].items():
        np.testing.assert_array_equal(frame.tensors[name], want, strict=True)


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_an_exchange_like_the_last_sends_and_reads_what_frames_hold(pair, dtype):
    x, y = np.arange(3, dtype=dtype), np.arange(5, dtype=dtype)
    again = links.exchange(pair[0], layout_of(FrameType.RUN, {"x": x}), layout_of(FrameType.RESULT, {"y": y}))
    for number, answer in enumerate([y + 1, y + 2, y[:2], y + 3], 7):
        links.write_frame(pair[1], FrameType.RESULT, {"y": answer}, request_id=number)
        frame = again({"x": x * number}, number)
        asked = links.read_frame(pair[1])
        assert (asked.type, asked.request_id, frame.type, frame.request_id) == (FrameType.RUN, number, FrameType.RESULT, number)
        np.testing.assert_array_equal(asked.tensors["x"], x * number, strict=True)
        np.testing.assert_array_equal(frame.tensors["y"], answer, strict=True)
    assert again({"x": np.zeros(4, dtype)}, 1) is again({"z": x}, 1) is again({"x": x, "z": x}, 1) is again({"x": x[::-1]}, 1) is None
    pair[1].close()
    with pytest.raises(links.NotSentError):
        again({"x": x}, 1)


@pytest.mark.parametrize("column_major", [False, True], ids=["by rows", "by columns"])
@pytest.mark.parametrize("rows", [1, 3, 1 << 14], ids=["one", "small", "large"])
def test_a_frame_like_the_last_has_the_same_bytes_as_an_encoded_one(rows, column_major):
    made = [{"a": np.arange(rows, dtype="float32") + i, "b": np.full((rows, 2), i), "c": np.array(float(i))} for i in range(2)]
    layout = layout_of(FrameType.RUN, made[0], column_major)
    again = layout.write(made[1], 7)
    assert b"".join(again) == b"".join(frames.encode_parts(FrameType.RUN, made[1], request_id=7, column_major=column_major))


OTHERS = {
    "a name": {"b": np.zeros(3)}, "a dtype": {"a": np.zeros(3, "float32")}, "a shape": {"a": np.zeros((3, 1))},
    "an order": {"a": np.zeros(6)[::2]}, "more": {"a": np.zeros(3), "b": np.zeros(1)}, "a list": {"a": [0.0, 0.0, 0.0]},
}  # fmt: skip


@pytest.mark.parametrize("other", OTHERS.values(), ids=OTHERS.keys())
def test_a_frame_unlike_the_last_is_not_written_by_its_layout(other):
    assert layout_of(FrameType.RUN, {"a": np.zeros(3)}).write(other, 1) is None
