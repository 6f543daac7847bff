"""Write the cases of the interoperability matrix, `proto/interop.json`, from docs/interop.md and without mlbridge.

Usage: python proto/make_interop.py
"""

from __future__ import annotations

import json
import math
import struct
from pathlib import Path

FILE = Path(__file__).parent / "interop.json"
CODES = {
    "bool": "?", "int8": "b", "int16": "h", "int32": "i", "int64": "q", "uint8": "B", "uint16": "H", "uint32": "I", "uint64": "Q",
    "float16": "e", "float32": "f", "float64": "d",
}  # fmt: skip
EXACT = 2**53  # the integers a double holds
EDGES = {
    "bool": [True, False, False, True],
    "int8": [-128, 127, 0, -1],
    "int16": [-32768, 32767, 0, -1],
    "int32": [1 - 2**31, 2**31 - 1, 0, -1],
    "int64": [-EXACT, EXACT, 0, -1],
    "uint8": [0, 255, 1, 128],
    "uint16": [0, 65535, 1, 32768],
    "uint32": [0, 2**32 - 1, 1, 2**31],
    "uint64": [0, EXACT, 1, 2**31],
    "float16": [-0.0, 65504.0, 2.0**-24, 0.333251953125],
    "float32": [-0.0, 3.4028234663852886e38, 2.0**-149, 0.3333333432674408],
    "float64": [-0.0, 1.7976931348623157e308, 5e-324, 1 / 3],
}
WORDS = ["", "plain", "größer", "日本語", "🙂 two", " spaces ", "line\nbreak", "null"]
PLANS, GRADES = ["basic", "größer", ""], [3, 1, -2]


def numbers(dtype: str, values: list, shape: list[int], name: str = "x") -> dict:
    return {"name": name, "dtype": dtype, "shape": shape, "hex": struct.pack(f"<{len(values)}{CODES[dtype]}", *values).hex()}


def bits(patterns: list[int], dtype: str, shape: list[int]) -> dict:
    return {"name": "x", "dtype": dtype, "shape": shape, "hex": struct.pack(f"<{len(patterns)}{'Q' if dtype == 'float64' else 'I'}", *patterns).hex()}


def strings(values: list, shape: list[int], name: str = "x") -> dict:
    return {"name": name, "dtype": "string", "shape": shape, "strings": values}


def levels(name: str, values: list) -> dict:
    return {"name": name, "dtype": "level", "shape": [len(values)], "levels": values}


def spec(name: str, dtype: str, shape: list, columns: list | None = None, missing: str | None = None) -> dict:
    out: dict = {"name": name, "dtype": dtype, "shape": shape}
    return out | ({"columns": columns} if columns else {}) | ({"missing": missing} if missing else {})


def model(name: str, inputs: list[dict], does: str = "echo") -> dict:
    """Its outputs are its inputs; `sleep` waits x[0] seconds first, `fail` raises."""
    return {"name": name, "does": does, "signature": {"version": 1, "inputs": inputs, "outputs": inputs}}


def level_spec(name: str, known: list, **rules: str) -> dict:
    column = {"name": name, "categories": known} | ({"unknown": "keep"} if rules.get("unknown") else {})
    return spec(name, "int32", ["rows"], [column], rules.get("missing"))


MODELS = [
    *(model(dtype, [spec("x", dtype, ["rows", 2], missing="allow" if dtype.startswith("float") else None)]) for dtype in CODES),
    model("string", [spec("x", "string", ["rows", 2])]),
    model("text", [spec("x", "string", ["rows", 2], missing="allow")]),
    model("strict", [spec("x", "float64", ["rows", 2])]),
    model("plan", [level_spec("plan", PLANS)]),
    model("grade", [level_spec("grade", GRADES)]),
    model("member", [level_spec("member", [False, True])]),
    model("kept", [level_spec("kept", PLANS, unknown="keep", missing="allow")]),
    model(
        "table",
        [
            spec("features", "float64", ["rows", 2], [{"name": "age"}, {"name": "calls"}], "allow"),
            spec("categorical", "int32", ["rows", 1], [{"name": "plan", "categories": PLANS}], "allow"),
            spec("text", "string", ["rows", 1], [{"name": "note"}], "allow"),
        ],
    ),
    model("wide", [spec("x", "float64", ["rows", 1024])]),
    model("slow", [spec("x", "float64", ["rows"])], "sleep"),
    model("broken", [spec("x", "float64", ["rows"])], "fail"),
]


def case(name: str, about: str, of: str, feeds: list[dict], **more: object) -> dict:
    answers = {} if "error" in more or "answers" in more else {"answers": feeds}
    return {"name": name, "about": about, "model": of, "feeds": feeds} | answers | more


def refused(code: str, kind: str, *says: str) -> dict:
    return {"code": code, "class": kind, "says": list(says)}


TABLE = [
    numbers("float64", [41.0, math.nan, -0.5], [3], "age"),
    numbers("float64", [2.0, 0.0, math.inf], [3], "calls"),
    levels("plan", ["größer", None, ""]),
    strings(["née", None, ""], [3], "note"),
]
BLOCKS = [
    numbers("float64", [41.0, 2.0, math.nan, 0.0, -0.5, math.inf], [3, 2], "features"),
    {"name": "categorical", "dtype": "level", "shape": [3, 1], "levels": ["größer", None, ""]},
    strings(["née", None, ""], [3, 1], "text"),
]
CASES = [
    *(case(f"raw-{d}", f"{d}, its extremes, raw", d, [numbers(d, v, [2, 2])]) for d, v in EDGES.items()),
    case("raw-string", "text, raw", "string", [strings(WORDS, [4, 2])]),
    *(
        case(f"typed-{d}", f"{d}, its extremes, typed contents", d, [numbers(d, v, [2, 2])], encoding="typed")
        for d, v in EDGES.items()
        if d != "float16"  # the protocol has no typed field for it
    ),
    case("typed-string", "text, typed contents", "string", [strings(WORDS, [4, 2])], encoding="typed"),
    case("int64-whole", "integers beyond 2**53", "int64", [numbers("int64", [-(2**63), 2**63 - 1, EXACT + 1, 7], [2, 2])]),
    case("uint64-whole", "integers beyond 2**53", "uint64", [numbers("uint64", [0, 2**64 - 1, EXACT + 1, 7], [2, 2])]),
    case("int32-least", "the integer R calls NA", "int32", [numbers("int32", [-(2**31), 0, 1, 2], [2, 2])]),
    case("zero-rows", "no rows in, no rows out", "float64", [numbers("float64", [], [0, 2])]),
    case("zero-rows-string", "no rows of text", "string", [strings([], [0, 2])]),
    case("one-row", "one row keeps its axis", "float64", [numbers("float64", [1.5, -2.5], [1, 2])]),
    case("eight-mib", "8 MiB of doubles, x[i] = i", "wide", [{"name": "x", "dtype": "float64", "shape": [1024, 1024], "fill": "index"}]),
    case("level-string", "levels that are text", "plan", [levels("plan", ["größer", "", "basic"])]),
    case("level-int64", "levels that are integers", "grade", [levels("grade", [-2, 3, 1])]),
    case("level-bool", "levels that are booleans", "member", [levels("member", [True, False])]),
    case(
        "level-unknown", "an unknown level is refused by name", "plan", [levels("plan", ["basic", "purple"])],
        error=refused("INVALID_ARGUMENT", "InputError", "purple"),
    ),
    case("level-kept", "an unknown level where the model keeps them comes back missing", "kept", [levels("kept", ["basic", "purple", None])],
         answers=[levels("kept", ["basic", None, None])]),
    case("missing-level", "a missing level where none may be", "plan", [levels("plan", ["basic", None])],
         error=refused("INVALID_ARGUMENT", "InputError")),
    case("missing-float", "NaN is a missing number", "float64", [numbers("float64", [math.nan, 1.0, 2.0, math.nan], [2, 2])]),
    case("missing-refused", "NaN where none may be", "strict", [numbers("float64", [math.nan, 1.0], [1, 2])],
         error=refused("INVALID_ARGUMENT", "InputError")),
    case("missing-text", "text that is missing is not the empty text", "text", [strings([None, "", "null", None], [2, 2])]),
    case("nan-payloads", "quiet NaNs keep their payload", "float64",
         [bits([0x7FF8000000000000, 0x7FF8000000ABCDEF, 0xFFF8000000000001, 0x7FF80000000007A2], "float64", [2, 2])]),
    case("infinities", "infinities pass", "float64", [numbers("float64", [math.inf, -math.inf, 0.0, -0.0], [2, 2])]),
    case("table", "a table: numbers, levels, text, each with missing values", "table", TABLE, answers=BLOCKS),
    case("unknown-model", "a model that is not there", "nobody", [numbers("float64", [0.0], [1, 1])], error=refused("NOT_FOUND", "NotFoundError", "nobody")),
    case("wrong-shape", "three columns for two", "strict", [numbers("float64", [0.0] * 3, [1, 3])], error=refused("INVALID_ARGUMENT", "InputError")),
    case("wrong-dtype", "text for numbers", "strict", [strings(["a", "b"], [1, 2])], error=refused("INVALID_ARGUMENT", "InputError")),
    case("inner-failure", "the model raises; nothing of it leaks", "broken", [numbers("float64", [0.0], [1])],
         error=refused("INTERNAL", "InferenceError")),
    case("deadline", "half a second for ten", "slow", [numbers("float64", [10.0], [1])], timeout_s=0.5,
         error=refused("DEADLINE_EXCEEDED", "BridgeTimeoutError")),
    case("cancel", "cancelled after half a second, of ten", "slow", [numbers("float64", [10.0], [1])], cancel_after_s=0.5,
         error=refused("CANCELLED", "CancelledError")),
    case("after", "the server works after all that", "float64", [numbers("float64", [1.0, 2.0], [1, 2])]),
    case("large-metadata", "a token of 4,096 characters", "float64", [numbers("float64", [1.0, 2.0], [1, 2])], server="large-token"),
    case("tls", "over TLS, the server's certificate checked", "float64", [numbers("float64", [1.0, 2.0], [1, 2])], server="tls"),
    case("bad-token", "a wrong token", "float64", [numbers("float64", [1.0, 2.0], [1, 2])], server="token", token="a-wrong-token",
         error=refused("UNAUTHENTICATED", "AccessError")),
    case("drain", "a call in flight when the server is asked to stop is answered", "slow", [numbers("float64", [4.0], [1])], server="drained"),
]  # fmt: skip


def main() -> None:
    FILE.write_text(json.dumps({"version": 1, "models": MODELS, "cases": CASES}, ensure_ascii=False, indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    main()
