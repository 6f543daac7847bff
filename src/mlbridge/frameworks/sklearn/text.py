"""Text to word counts: CountVectorizer and TfidfVectorizer, exactly as Python's regular expressions and lower case say.

onnxruntime's regular expressions and lower case know other letters than Python does, so neither is used as it stands:
the token pattern becomes a class of code points listed from Python's own tables, and lower case a table of letters.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from ...errors import ConversionError
from .emitter import Emitter, Frame, emits

__all__ = ["Tokens", "tokens_of"]

_CONTRIB = "com.microsoft"  # onnxruntime's own operators
_DOTTED_I = "\u0130"  # the one character whose lower case is two, the second of them no letter
_SIGMAS = frozenset("\u03c3\u03c2")  # which of them a capital sigma becomes depends on its neighbours
_LONGEST = 1000  # characters of a word: RE2 counts repetitions no further
_PATTERN = re.compile(r"(?:\(\?u\))?(?P<bound>\\b)?(?P<unit>\\w|\[[^\[\]\\^]+\])(?P<more>(?P=unit)*)(?P<times>\+|\{\d+,\})(?(bound)\\b)")


class Tokens(NamedTuple):
    """A token pattern that is a run of letters of one class."""

    unit: str  # the class, as Python spells it
    least: int  # characters
    lowercase: bool


def tokens_of(est: Any) -> Tokens:
    """Return what a vectorizer takes for a word.

    Raises
    ------
    ConversionError
        If its settings have no exact ONNX form.
    """
    refused = [
        (est.input != "content", f"input={est.input!r} reads files"),
        (est.analyzer != "word", f"analyzer={est.analyzer!r}"),
        (est.tokenizer is not None or est.preprocessor is not None, "a tokenizer or preprocessor that is Python code"),
        (est.strip_accents is not None, f"strip_accents={est.strip_accents!r}"),
    ]
    found = _PATTERN.fullmatch(est.token_pattern or "")
    if found is not None and found["bound"] and found["unit"] != r"\w":
        found = None  # a word boundary inside a run of other characters
    refused.append((found is None, f"token_pattern={est.token_pattern!r}"))
    why = [text for bad, text in refused if bad]
    if why or found is None:
        raise ConversionError(f"{type(est).__name__} with {' and '.join(why)} has no exact ONNX form", hint="use via='native'")
    unit, times = found["unit"], found["times"]
    least = len(found["more"]) // len(unit) + (1 if times == "+" else int(times[1:-2]))
    return Tokens(unit, max(1, least), bool(est.lowercase))


@functools.lru_cache(maxsize=8)
def _members(unit: str, lowercase: bool) -> frozenset[str]:
    """Return the characters that are, in lower case where asked, of a class; the dotted capital I apart."""
    every = [chr(c) for c in range(0x110000) if not 0xD800 <= c < 0xE000]
    folded = [c.lower() if lowercase and c != _DOTTED_I else c for c in every]
    text = "".join(folded)
    if len(text) != len(every):
        raise ConversionError("this Python's lower case makes several characters of one that is not the dotted capital I")
    inside = {every[m.start()] for m in re.finditer(unit, text)}
    return frozenset(inside - {_DOTTED_I} if lowercase else inside)


@functools.lru_cache(maxsize=8)
def _expression(tokens: Tokens) -> str:
    """Return the pattern for RE2 over text as it is written, capitals included."""
    members = sorted(map(ord, _members(tokens.unit, tokens.lowercase)))
    if not members:
        raise ConversionError(f"no character is of the class {tokens.unit}")
    breaks = np.flatnonzero(np.diff(members) != 1) + 1
    runs = [(members[i], members[j - 1]) for i, j in zip([0, *breaks], [*breaks, len(members)], strict=True)]
    one = "[" + "".join(f"\\x{{{a:X}}}-\\x{{{b:X}}}" for a, b in runs) + "]"
    plain = f"{one}{{{tokens.least},}}"
    if not tokens.lowercase or not re.fullmatch(tokens.unit, "i"):
        return plain
    if re.fullmatch(tokens.unit, "\u0307"):
        raise ConversionError("the token pattern takes the dot that the dotted capital I leaves behind")
    return f"{one}{{{tokens.least - 1},}}{_DOTTED_I}|{plain}"  # its lower case is an i, and a dot that ends the word


def _reachable(terms: Sequence[str], tokens: Tokens) -> list[str]:
    """Keep the words that some text can hold; a vocabulary of one's own may name others."""
    pattern = re.compile(f"{tokens.unit}{{{tokens.least},}}")
    return [t for t in terms if pattern.fullmatch(t) and (not tokens.lowercase or t == t.lower())]


# ---------------------------------------------------------------- words to numbers


def _split(e: Emitter, text: str, expression: str, longest: str, times: int) -> str:
    """Return the tokens, ("rows" + 1, tokens), "" beyond a row's last.

    The row added in front holds the longest word `times` times over: no axis is ever empty, and words have its length.
    """
    line = np.array([" ".join([longest] * times)], dtype=object)
    rows = e.graph.concat([e.graph.const(line, "string"), text], axis=0)
    return _tokenized(e, rows, tokenexp=expression)


def _tokenized(e: Emitter, text: str, **how: Any) -> str:
    e.graph.opsets[_CONTRIB] = 1
    pieces = e.graph.add("Tokenizer", text, domain=_CONTRIB, mark=0, mincharnum=1, pad_value="", **how)
    return e.graph.cast(pieces, "string")  # onnx knows no types of another domain, and crashes where it needs an unknown one


def _label(e: Emitter, value: str, keys: np.ndarray, values: np.ndarray, default: int) -> str:
    from onnx import numpy_helper

    def tensor(array: Any, name: str) -> Any:
        return numpy_helper.from_array(np.asarray(array), name)

    return e.graph.add(
        "LabelEncoder", value, domain="ai.onnx.ml", keys_tensor=tensor(keys, "keys"),
        values_tensor=tensor(np.asarray(values, dtype=np.int64), "values"),
        default_tensor=tensor(np.array([default], dtype=np.int64), "default"),
    )  # fmt: skip


def _word_numbers(e: Emitter, split: str, words: list[str], tokens: Tokens) -> str:
    """Return each token's place in `words` from 1, 0 for others, in the tokens' shape."""
    if not tokens.lowercase:
        return _label(e, split, np.array(words, dtype=object), np.arange(1, len(words) + 1), 0)
    graph, longest = e.graph, max(map(len, words))
    distinct, _, where, _ = graph.add("Unique", split, sorted=1, outputs=4)
    short = graph.add("RegexFullMatch", distinct, pattern=f"(?s).{{0,{longest}}}")
    distinct = graph.add("Where", short, distinct, graph.const(np.array("", dtype=object), "string"))  # one long token would pad all others
    numbers = _letter_numbers(e, _tokenized(e, distinct, separators=[""]), words)
    return graph.add("Reshape", graph.add("Gather", _matched(e, numbers, words), where), graph.add("Shape", split))


def _alphabet(words: list[str]) -> dict[str, int]:
    return {c: i for i, c in enumerate(sorted(set("".join(words))), start=1)}


def _letter_numbers(e: Emitter, letters: str, words: list[str]) -> str:
    """Return the number of each letter's lower case: 0 beyond a word's end, one more than the alphabet for strangers."""
    known = _alphabet(words)
    capitals = {chr(c): n for c in range(0x110000) if not 0xD800 <= c < 0xE000 and (n := known.get(chr(c).lower())) is not None}
    table = {"": 0, **capitals}
    if "i" in known:
        table[_DOTTED_I] = known["i"]
    return _label(e, letters, np.array(list(table), dtype=object), np.array(list(table.values())), len(known) + 1)


def _matched(e: Emitter, numbers: str, words: list[str]) -> str:
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
    total = e.reduce("Sum", e.op("Mul", numbers, factors[None]), keep=False)
    place = _label(e, total, sums, np.arange(1, len(words) + 1), 0)
    same = e.op("Equal", numbers, e.op("Gather", np.concatenate([np.full((1, longest), -1), spelt]), place, axis=0))
    whole = e.graph.add("ReduceMin", e.graph.cast(same, "int64"), e.graph.const([1], "int64"), keepdims=0)
    return e.op("Mul", place, whole)


# ---------------------------------------------------------------- words to counts


def _without(e: Emitter, numbers: str, stop: list[int]) -> str:
    """Move stop words, as 0, behind all others, whose order stays."""
    hits = e.op("Equal", e.op("Unsqueeze", numbers, np.array([2])), np.array(stop, dtype=np.int64)[None, None])
    gone = e.graph.add("ReduceMax", e.graph.cast(hits, "int64"), e.graph.const([2], "int64"), keepdims=0)
    width = e.graph.add("Shape", numbers, start=1, end=2)
    place = e.op("Range", np.int64(0), e.graph.add("Squeeze", width), np.int64(1))
    rank = e.op("Add", e.op("Mul", gone, width), place)
    _, order = e.graph.add("TopK", rank, width, axis=1, largest=0, sorted=1, outputs=2)
    kept = e.op("Where", e.op("Equal", gone, np.int64(1)), np.int64(0), numbers)
    return e.graph.add("GatherElements", kept, order, axis=1)


def _grams(e: Emitter, numbers: str, n: int, terms: dict[tuple[int, ...], int], base: int, absent: int) -> str:
    """Return the feature of each run of `n` words, `absent` for others."""
    if base**n >= 1 << 62:
        raise ConversionError(f"runs of {n} words over a vocabulary of {base} have no ONNX form here")
    key = None
    for i in range(n):
        end = np.array([i - n + 1 or np.iinfo(np.int64).max])
        part = e.op("Slice", numbers, np.array([i]), end, np.array([1]))
        key = part if key is None else e.op("Add", e.op("Mul", key, np.int64(base)), part)
    spelt = [functools.reduce(lambda a, b: a * base + b, t) for t in terms]
    return _label(e, str(key), np.array(spelt, dtype=np.int64), np.array(list(terms.values())), absent)


def _text(e: Emitter, est: Any, frame: Frame) -> str:
    if frame.width != 1 or frame.cols[0].kind != "text":
        raise ConversionError(f"{type(est).__name__} reads one column of text", hint="wrap with a sample in which the column is text")
    col = frame.cols[0]
    return e.flat(col.block if col.width == 1 else e.op("Gather", col.block, np.array([col.index]), axis=1))


def counts(e: Emitter, est: Any, frame: Frame) -> str:
    """Emit how often each term of the vocabulary occurs, ("rows", terms)."""
    tokens, (low, high) = tokens_of(est), est.ngram_range
    size = len(est.vocabulary_)
    terms: dict[int, dict[tuple[str, ...], int]] = {n: {} for n in range(low, high + 1)}
    for term, place in est.vocabulary_.items():
        run = tuple(term.split(" "))
        if len(run) in terms and len(_reachable(run, tokens)) == len(run):
            terms[len(run)][run] = int(place)
    stop = _reachable(sorted(est.get_stop_words() or ()), tokens) if high > 1 else []
    banned = frozenset(est.get_stop_words() or ())
    terms = {n: {t: p for t, p in found.items() if not banned & set(t)} for n, found in terms.items()}
    words = sorted({w for found in terms.values() for t in found for w in t} | set(stop))
    if not any(terms.values()):
        raise ConversionError(f"{type(est).__name__}: no text holds a word of its vocabulary")
    if tokens.lowercase and _SIGMAS & set("".join(words)):
        raise ConversionError("the vocabulary holds a Greek sigma, whose lower case depends on its neighbours", hint="use via='native'")
    longest = max(words, key=len)
    if len(longest) > _LONGEST:
        raise ConversionError(f"the vocabulary holds a word of {len(longest)} characters; the limit is {_LONGEST}")
    split = _split(e, _text(e, est, frame), _expression(tokens), longest, high)
    numbers, number = _word_numbers(e, split, words, tokens), {w: i for i, w in enumerate(words, start=1)}
    if stop:
        numbers = _without(e, numbers, [number[w] for w in stop])
    places = [
        _grams(e, numbers, n, {tuple(number[w] for w in t): p for t, p in found.items()}, len(words) + 1, size)
        for n, found in terms.items()
        if found
    ]
    return _counted(e, e.graph.concat(places), size, binary=est.binary)


def _counted(e: Emitter, places: str, size: int, *, binary: bool) -> str:
    """Count each row's features; the last column takes what is none of them, the first row is the one added in front."""
    graph = e.graph
    rows = graph.add("Shape", places, start=0, end=1)
    shape = graph.concat([rows, graph.const([size + 1], "int64")], axis=0)
    ones = graph.add("Expand", graph.const(np.float64(1)), graph.add("Shape", places))
    total = graph.add("ScatterElements", graph.add("Expand", graph.const(np.float64(0)), shape), places, ones, axis=1, reduction="add")
    total = e.op("Slice", total, np.array([1, 0]), np.array([np.iinfo(np.int64).max, size]), np.array([0, 1]))
    return e.op("Min", total, 1.0) if binary else total


@emits("transform", "CountVectorizer")
def count_vectorizer(e: Emitter, est: Any, frame: Frame) -> Frame:
    """Emit counts."""
    return Frame.of(counts(e, est, frame), len(est.vocabulary_))


@emits("transform", "TfidfVectorizer")
def tfidf_vectorizer(e: Emitter, est: Any, frame: Frame) -> Frame:
    """Emit weighted counts."""
    return e.transform(est._tfidf, Frame.of(counts(e, est, frame), len(est.vocabulary_)))
