"""The one writer of word counts: text to tokens, to numbers of words, to counts of terms, in operators of onnxruntime.

`hashing` counts words nobody knows beforehand; it splits and counts with what is here.

onnxruntime's lower case knows other letters than Python's and Java's, so it is not used: words are found letter by letter
through a table of capitals. The text stages of scikit-learn and Spark call `count_terms`; what a token is, is theirs to say.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ..conversion.graph import Graph
from ..errors import ConversionError

__all__ = ["CONTRIB", "DOTTED_I", "count_terms", "counted", "label", "op", "tokenized"]

DOTTED_I = "\u0130"  # the one character whose lower case is two: an i, and a dot that is no letter
CONTRIB = "com.microsoft"  # onnxruntime's own operators
_SIGMAS = frozenset("\u03c3\u03c2")  # which of them a capital sigma becomes depends on its neighbours
_LONGEST = 1000  # characters of a word: RE2 counts repetitions no further


def count_terms(
    graph: Graph,
    text: str,
    *,
    expression: str,
    terms: Mapping[tuple[str, ...], int],
    size: int,
    stop: Sequence[str] = (),
    lowercase: bool,
    dotted_ends: bool = False,
) -> str:
    """Count how often each term occurs, float64 ("rows", size).

    Parameters
    ----------
    graph : Graph
        The graph under construction.
    text : str
        A string value, ("rows",).
    expression : str
        What a token is, for RE2, over the text as it is written.
    terms : mapping of tuple of str to int
        Runs of words, each word a possible token, and the column that counts them.
    size : int
        Columns.
    stop : sequence of str
        Words left out before runs are formed.
    lowercase : bool
        Whether tokens are brought to lower case before they are compared.
    dotted_ends : bool
        Whether a dotted capital I ends its token, as an i; else no term holds what becomes of it.

    Raises
    ------
    ConversionError
        If the vocabulary has no exact form.
    """
    words = sorted({w for run in terms for w in run} | set(stop))
    if not terms:
        raise ConversionError("no text holds a word of the vocabulary")
    if lowercase and _SIGMAS & set("".join(words)):
        raise ConversionError("the vocabulary holds a Greek sigma, whose lower case depends on its neighbours", hint="use via='native'")
    longest = max(words, key=len)
    if len(longest) > _LONGEST:
        raise ConversionError(f"the vocabulary holds a word of {len(longest)} characters; the limit is {_LONGEST}")
    split = _split(graph, text, expression, longest, max(map(len, terms)))
    number = {w: i for i, w in enumerate(words, start=1)}
    numbers = _word_numbers(graph, split, words, dotted_ends) if lowercase else label(graph, split, words, list(number.values()), 0)
    if stop:
        numbers = _without(graph, numbers, [number[w] for w in stop])
    runs: dict[int, dict[tuple[int, ...], int]] = {}
    for run, place in terms.items():
        runs.setdefault(len(run), {})[tuple(number[w] for w in run)] = place
    places = [_grams(graph, numbers, n, found, len(words) + 1, size) for n, found in sorted(runs.items())]
    return counted(graph, graph.concat(places), size)


def op(graph: Graph, name: str, *values: Any, **attributes: Any) -> str:
    inputs = [v if isinstance(v, str) else graph.const(v) for v in values]
    return graph.add(name, *inputs, **attributes)


# ---------------------------------------------------------------- text to tokens


def _split(graph: Graph, text: str, expression: str, longest: str, times: int) -> str:
    """Return the tokens, ("rows" + 1, tokens), "" beyond a row's last.

    The row added in front holds the longest word `times` times over: no axis is ever empty, and words have its length.
    """
    line = np.array([" ".join([longest] * times)], dtype=object)
    rows = graph.concat([graph.const(line, "string"), text], axis=0)
    return tokenized(graph, rows, tokenexp=expression)


def tokenized(graph: Graph, text: str, **how: Any) -> str:
    graph.opsets[CONTRIB] = 1
    pieces = graph.add("Tokenizer", text, domain=CONTRIB, mark=0, mincharnum=1, pad_value="", **how)
    return graph.cast(pieces, "string")  # onnx knows no types of another domain, and crashes where it needs an unknown one


# ---------------------------------------------------------------- tokens to numbers


def label(graph: Graph, value: str, keys: Any, values: Any, default: int) -> str:
    from onnx import numpy_helper

    def tensor(array: Any, name: str) -> Any:
        array = np.asarray(array)
        return numpy_helper.from_array(array.astype(object) if array.dtype.kind == "U" else array, name)

    return graph.add(
        "LabelEncoder", value, domain="ai.onnx.ml", keys_tensor=tensor(keys, "keys"),
        values_tensor=tensor(np.asarray(values, dtype=np.int64), "values"),
        default_tensor=tensor(np.array([default], dtype=np.int64), "default"),
    )  # fmt: skip


def _word_numbers(graph: Graph, split: str, words: list[str], dotted_ends: bool) -> str:
    """Return each token's place in `words` from 1, 0 for others, in the tokens' shape."""
    longest = max(map(len, words))
    distinct, _, where, _ = graph.add("Unique", split, sorted=1, outputs=4)
    short = graph.add("RegexFullMatch", distinct, pattern=f"(?s).{{0,{longest}}}")
    distinct = graph.add("Where", short, distinct, graph.const(np.array("", dtype=object), "string"))  # one long token would pad all others
    numbers = _letter_numbers(graph, tokenized(graph, distinct, separators=[""]), words, dotted_ends)
    return graph.add("Reshape", graph.add("Gather", _matched(graph, numbers, words), where), graph.add("Shape", split))


def _alphabet(words: list[str]) -> dict[str, int]:
    return {c: i for i, c in enumerate(sorted(set("".join(words))), start=1)}


def _letter_numbers(graph: Graph, letters: str, words: list[str], dotted_ends: bool) -> str:
    """Return the number of each letter's lower case: 0 beyond a word's end, one more than the alphabet for strangers."""
    known = _alphabet(words)
    capitals = {chr(c): n for c in range(0x110000) if not 0xD800 <= c < 0xE000 and (n := known.get(chr(c).lower())) is not None}
    table = {"": 0, **capitals}
    if dotted_ends and "i" in known:
        table[DOTTED_I] = known["i"]
    return label(graph, letters, np.array(list(table), dtype=object), list(table.values()), len(known) + 1)


def _matched(graph: Graph, numbers: str, words: list[str]) -> str:
    """Return the place of each row of letters among `words` from 1, or 0: found by a sum, then compared letter by letter."""
    known, longest = _alphabet(words), max(map(len, words))
    spelt = np.zeros((len(words), longest), dtype=np.int64)
    for row, word in zip(spelt, words, strict=True):
        row[: len(word)] = [known[c] for c in word]
    for seed in range(100):
        factors = np.random.default_rng(seed).integers(1, 1 << 35, longest)  # times letters, over a word: below 2**63
        sums = spelt @ factors
        if len(np.unique(sums)) == len(words):
            break
    else:
        raise ConversionError("the vocabulary's words cannot be told apart by a sum of their letters")
    total = graph.add("ReduceSum", op(graph, "Mul", numbers, factors[None]), graph.const([1], "int64"), keepdims=0)
    place = label(graph, total, sums, np.arange(1, len(words) + 1), 0)
    table = np.concatenate([np.full((1, longest), -1), spelt])
    same = op(graph, "Equal", numbers, op(graph, "Gather", table, place, axis=0))
    whole = graph.add("ReduceMin", graph.cast(same, "int64"), graph.const([1], "int64"), keepdims=0)
    return op(graph, "Mul", place, whole)


# ---------------------------------------------------------------- numbers to counts


def _without(graph: Graph, numbers: str, stop: list[int]) -> str:
    """Move stop words, as 0, behind all others, whose order stays."""
    hits = op(graph, "Equal", op(graph, "Unsqueeze", numbers, np.array([2])), np.array(stop, dtype=np.int64)[None, None])
    gone = graph.add("ReduceMax", graph.cast(hits, "int64"), graph.const([2], "int64"), keepdims=0)
    width = graph.add("Shape", numbers, start=1, end=2)
    place = op(graph, "Range", np.int64(0), graph.add("Squeeze", width), np.int64(1))
    rank = op(graph, "Add", op(graph, "Mul", gone, width), place)
    _, order = graph.add("TopK", rank, width, axis=1, largest=0, sorted=1, outputs=2)
    kept = op(graph, "Where", op(graph, "Equal", gone, np.int64(1)), np.int64(0), numbers)
    return graph.add("GatherElements", kept, order, axis=1)


def _grams(graph: Graph, numbers: str, n: int, terms: Mapping[tuple[int, ...], int], base: int, absent: int) -> str:
    """Return the feature of each run of `n` words, `absent` for others."""
    if base**n >= 1 << 62:
        raise ConversionError(f"runs of {n} words over a vocabulary of {base} have no ONNX form here")
    key = None
    for i in range(n):
        end = np.array([i - n + 1 or np.iinfo(np.int64).max])
        part = op(graph, "Slice", numbers, np.array([i]), end, np.array([1]))
        key = part if key is None else op(graph, "Add", op(graph, "Mul", key, np.int64(base)), part)
    spelt = [functools.reduce(lambda a, b: a * base + b, t) for t in terms]
    return label(graph, str(key), np.array(spelt, dtype=np.int64), list(terms.values()), absent)


def counted(graph: Graph, places: str, size: int) -> str:
    """Count each row's features; the last column takes what is none of them, the first row is the one added in front."""
    rows = graph.add("Shape", places, start=0, end=1)
    shape = graph.concat([rows, graph.const([size + 1], "int64")], axis=0)
    ones = graph.add("Expand", graph.const(np.float64(1)), graph.add("Shape", places))
    total = graph.add("ScatterElements", graph.add("Expand", graph.const(np.float64(0)), shape), places, ones, axis=1, reduction="add")
    return op(graph, "Slice", total, np.array([1, 0]), np.array([np.iinfo(np.int64).max, size]), np.array([0, 1]))
