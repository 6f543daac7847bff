"""Write the golden frames of `proto/vectors/`, byte by byte from FRAMES.md and without mlbridge.

Usage: python proto/make_vectors.py
"""

from __future__ import annotations

import json
import struct
from pathlib import Path

FOLDER = Path(__file__).parent / "vectors"
FORMATS = {
    "bool": (1, "?"), "int8": (2, "b"), "int16": (3, "h"), "int32": (4, "i"), "int64": (5, "q"), "uint8": (6, "B"), "uint16": (7, "H"),
    "uint32": (8, "I"), "uint64": (9, "Q"), "float16": (10, "e"), "float32": (12, "f"), "float64": (13, "d"), "string": (14, None),
}  # fmt: skip
TYPES = {"HELLO": 1, "LOAD": 2, "RUN": 3, "RESULT": 4, "ERROR": 5, "CANCEL": 6, "CLOSE": 7, "PING": 8, "PONG": 9}


def pad(data: bytes) -> bytes:
    return data + bytes(-len(data) & 7)


def numbers(name: str, dtype: str, shape: list[int], values: list) -> dict:
    return {"name": name, "dtype": dtype, "shape": shape, "hex": struct.pack(f"<{len(values)}{FORMATS[dtype][1]}", *values).hex()}


def strings(name: str, shape: list[int], values: list) -> dict:
    return {"name": name, "dtype": "string", "shape": shape, "strings": values}


def text(name: str, value: str) -> dict:
    return strings(name, [], [value])


def integer(name: str, value: int) -> dict:
    return numbers(name, "int64", [], [value])


def data_of(tensor: dict, column_major: bool) -> bytes:
    if "hex" in tensor:
        raw = bytes.fromhex(tensor["hex"])
        count = 1
        for d in tensor["shape"]:
            count *= d
        items = [raw[i * len(raw) // count : (i + 1) * len(raw) // count] for i in range(count)] if count else []
    else:
        encoded = [None if s is None else s.encode() for s in tensor["strings"]]
        items = [b"\xff\xff\xff\xff" if b is None else struct.pack("<I", len(b)) + b for b in encoded]
    if column_major and len(tensor["shape"]) == 2:
        rows, columns = tensor["shape"]
        items = [items[i * columns + j] for j in range(columns) for i in range(rows)]
    return b"".join(items)


def tensor_bytes(tensor: dict, column_major: bool = False) -> bytes:
    name = tensor["name"].encode()
    data = data_of(tensor, column_major)
    head = pad(struct.pack("<I", len(name)) + name + struct.pack("<BBH", FORMATS[tensor["dtype"]][0], len(tensor["shape"]), 0))
    return pad(head + struct.pack(f"<{len(tensor['shape'])}Q", *tensor["shape"]) + struct.pack("<Q", len(data)) + data)


def frame_bytes(kind: str, tensors: list[dict], request_id: int = 0, column_major: bool = False) -> bytes:
    payload = struct.pack("<II", len(tensors), 0) + b"".join(tensor_bytes(t, column_major) for t in tensors)
    return header(TYPES[kind], len(payload), request_id, int(column_major)) + payload


def header(kind: int, size: int, request_id: int = 0, flags: int = 0, magic: bytes = b"MLB1", reserved: int = 0) -> bytes:
    return struct.pack("<4sBBHII", magic, kind, flags, reserved, size, request_id)


def frames() -> dict[str, tuple]:
    x = numbers("x", "float64", [2, 3], [0.1, 2.0, -3.5, 1e300, 5e-324, 2.0**53 + 2])
    return {
        "ping_empty": ("PING", [], 7),
        "pong_largest_id": ("PONG", [], 2**32 - 1),
        "hello": ("HELLO", [integer("protocol", 1), text("runtime", "r"), text("language_version", "4.2.2"), integer("pid", 4321), text("version.ranger", "0.14.1")], 0),
        "load": ("LOAD", [integer("model", 0), text("path", "/tmp/model dir/modèle.rds"), text("format", "rds"),
            text("signature", '{"version":1,"inputs":[],"outputs":[{"name":"prediction","dtype":"float64","shape":["rows"]}]}'),
            text("option.type", "response"), integer("option.n.trees", 100), numbers("option.s", "float64", [], [0.01]),
            numbers("option.na", "bool", [], [True]), strings("option.levels", [2], ["a", "b"])], 1),
        "run": ("RUN", [x, numbers("categorical", "int32", [2, 2], [-1, 0, 2, 1]), strings("text", [2, 1], ["", None]),
            integer("@model", 3), strings("@outputs", [1], ["probabilities"]), numbers("@timeout_s", "float64", [], [1.5])], 2),
        "result": ("RESULT", [numbers("label", "int32", [2], [1, 0]), numbers("probabilities", "float64", [2, 2], [0.25, 0.75, 1.0, 0.0])], 2),
        "error": ("ERROR", [text("class", "InferenceError"), integer("code", 13), text("message", "subscript out of bounds"), text("hint", "ask the model's author"),
            strings("condition", [3], ["subscriptOutOfBoundsError", "error", "condition"]), text("trace", "f(x)\ng(x)")], 3),
        "cancel": ("CANCEL", [integer("request", 9)], 0),
        "close": ("CLOSE", [], 0),
        "close_model": ("CLOSE", [integer("model", 1)], 11),
        "integers": ("RUN", [numbers(d, d, [3], v) for d, v in {
            "int8": [-128, 0, 127], "int16": [-(2**15), 0, 2**15 - 1], "int32": [-(2**31), 0, 2**31 - 1], "int64": [-(2**63), 0, 2**63 - 1],
            "uint8": [0, 1, 255], "uint16": [0, 1, 2**16 - 1], "uint32": [0, 1, 2**32 - 1], "uint64": [0, 1, 2**64 - 1]}.items()], 4),
        "floats_and_bools": ("RUN", [numbers("float16", "float16", [4], [0.0, -1.5, 65504.0, 6e-8]), numbers("float32", "float32", [4], [0.0, 1.17549435e-38, -3.4e38, 1e-45]),
            numbers("float64", "float64", [4], [0.1 + 0.2, 2.0**53 + 2, 1.7976931348623157e308, 5e-324]), numbers("bool", "bool", [5], [True, False, True, True, False])], 5),
        "nan_payloads": ("RESULT", [{"name": "float64", "dtype": "float64", "shape": [4], "hex": "a20700000000f07f" "000000000000f87f" "efbeadde0000f8ff" "0000000000000080"},
            {"name": "float32", "dtype": "float32", "shape": [3], "hex": "0100c07f" "efbeadff" "000080ff"}, {"name": "infinities", "dtype": "float64", "shape": [2], "hex": "000000000000f07f000000000000f0ff"}], 6),
        "strings": ("RUN", [strings("text", [3, 2], ["", "a", None, "naïve", "日本語", "🦜\u0000\n"]), strings("none", [0], []), text("scalar", "x")], 8),
        "zero_rows": ("RUN", [numbers("features", "float64", [0, 4], []), strings("text", [0, 1], []), numbers("categorical", "int32", [0, 3], [])], 10),
        "scalars_and_ranks": ("RUN", [numbers("rank0", "float32", [], [1.5]), numbers("rank1", "int16", [1], [7]), numbers("rank4", "uint8", [1, 2, 1, 3], [1, 2, 3, 4, 5, 6])], 12),
        "names": ("RUN", [numbers("größe", "float64", [1], [1.0]), numbers("a", "uint8", [1], [1]), numbers("abcd", "uint8", [1], [2]), numbers("with space.and[brackets]", "uint8", [1], [3])], 13),
        "column_major": ("RESULT", [x, numbers("label", "int32", [2], [0, 1]), strings("text", [2, 2], ["a", "b", None, "d"])], 14, True),
    }  # fmt: skip


def malformed() -> dict[str, tuple[str, bytes]]:
    good = tensor_bytes(numbers("x", "float64", [2], [1.0, 2.0]))  # 4+1+4 -> 16, dims 8, length 8, data 16
    one = struct.pack("<II", 1, 0)

    def with_payload(payload: bytes) -> bytes:
        return header(3, len(payload)) + payload

    def changed(offset: int, data: bytes) -> bytes:
        return with_payload(one + good[:offset] + data + good[offset + len(data) :])

    boolean = tensor_bytes(numbers("b", "uint8", [1], [2]))
    string = struct.pack("<I1sBBH", 1, b"s", 14, 1, 0) + bytes(7) + struct.pack("<QQ", 1, 8)
    return {
        "header_cut": ("the header is cut off", header(3, 8)[:15]),
        "magic": ("another magic", header(3, 8, magic=b"MLB2") + struct.pack("<II", 0, 0)),
        "type_zero": ("type 0", header(0, 8) + struct.pack("<II", 0, 0)),
        "type_ten": ("type 10", header(10, 8) + struct.pack("<II", 0, 0)),
        "flags": ("an unknown flag", header(3, 8, flags=2) + struct.pack("<II", 0, 0)),
        "reserved": ("reserved bits in the header", header(3, 8, reserved=1) + struct.pack("<II", 0, 0)),
        "length_too_large": ("a payload of 2**31 bytes", header(3, 2**31)),
        "payload_cut": ("the payload is cut off", with_payload(one + good)[:-8]),
        "payload_empty": ("a payload without count", header(3, 0)),
        "left_over": ("bytes behind the last tensor", with_payload(one + good + bytes(8))),
        "count_too_large": ("more tensors announced than follow", with_payload(struct.pack("<II", 2, 0) + good)),
        "count_reserved": ("reserved bits beside the count", with_payload(struct.pack("<II", 1, 1) + good)),
        "name_empty": ("an empty name", with_payload(one + struct.pack("<IBBH", 0, 6, 0, 0) + struct.pack("<Q", 1) + bytes(8))),
        "name_too_long": ("a name longer than the payload", changed(0, struct.pack("<I", 10**6))),
        "name_not_utf8": ("a name that is not UTF-8", changed(4, b"\xff")),
        "name_twice": ("two tensors of one name", with_payload(struct.pack("<II", 2, 0) + good + good)),
        "dtype_unknown": ("dtype code 15", changed(5, b"\x0f")),
        "rank_too_large": ("rank 33", changed(6, b"\x21")),
        "tensor_reserved": ("reserved bits of a tensor", changed(7, b"\x01")),
        "head_padding": ("padding that is not zero", changed(9, b"\x01")),
        "shape_too_small": ("data larger than its shape", changed(16, struct.pack("<Q", 1))),
        "shape_overflows": ("a shape whose product overflows 64 bits", changed(16, struct.pack("<Q", 2**61 + 2))),
        "data_too_long": ("more data announced than follows", changed(24, struct.pack("<Q", 2**62))),
        "bool_two": ("a bool of 2", with_payload(one + boolean.replace(struct.pack("<BB", 6, 1), struct.pack("<BB", 1, 1), 1))),
        "data_padding": ("padding behind the data that is not zero", with_payload(one + boolean[:-1] + b"\x01")),
        "string_not_utf8": ("a string that is not UTF-8", with_payload(one + string + struct.pack("<I", 4) + b"\xc3\x28\xa0\xa1")),
        "string_cut": ("a string longer than its data", with_payload(one + string + struct.pack("<I", 5) + b"abcd")),
        "string_left_over": ("bytes behind the last string", with_payload(one + string + struct.pack("<I", 3) + b"abcd")),
        "strings_too_many": (
            "more strings than the data can hold",
            with_payload(one + string[:16] + struct.pack("<QQ", 2**30, 8) + bytes(8)),
        ),
    }


def main() -> None:
    FOLDER.mkdir(exist_ok=True)
    listing: dict[str, list] = {"frames": [], "malformed": []}
    for name, (kind, tensors, request_id, *rest) in frames().items():
        column_major = bool(rest)
        (FOLDER / f"{name}.mlbf").write_bytes(frame_bytes(kind, tensors, request_id, column_major))
        listing["frames"].append(
            {"file": f"{name}.mlbf", "type": kind, "request_id": request_id, "column_major": column_major, "tensors": tensors}
        )
    for name, (why, data) in malformed().items():
        (FOLDER / f"bad_{name}.mlbf").write_bytes(data)
        listing["malformed"].append({"file": f"bad_{name}.mlbf", "why": why})
    (FOLDER / "vectors.json").write_text(json.dumps(listing, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
