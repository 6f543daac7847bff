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
from ..words import DOTTED_I, count_terms
from .emitter import Emitter, Frame, emits

__all__ = ["Tokens", "tokens_of"]

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
    folded = [c.lower() if lowercase and c != DOTTED_I else c for c in every]
    text = "".join(folded)
    if len(text) != len(every):
        raise ConversionError("this Python's lower case makes several characters of one that is not the dotted capital I")
    inside = {every[m.start()] for m in re.finditer(unit, text)}
    return frozenset(inside - {DOTTED_I} if lowercase else inside)


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
    return f"{one}{{{tokens.least - 1},}}{DOTTED_I}|{plain}"  # its lower case is an i, and a dot that ends the word


def _reachable(terms: Sequence[str], tokens: Tokens) -> list[str]:
    """Keep the words that some text can hold; a vocabulary of one's own may name others."""
    pattern = re.compile(f"{tokens.unit}{{{tokens.least},}}")
    return [t for t in terms if pattern.fullmatch(t) and (not tokens.lowercase or t == t.lower())]


# ---------------------------------------------------------------- words to counts


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
    runs = {t: p for found in terms.values() for t, p in found.items()}
    total = count_terms(
        e.graph, _text(e, est, frame), expression=_expression(tokens), terms=runs, size=size, stop=stop,
        lowercase=tokens.lowercase, dotted_ends=True,
    )  # fmt: skip
    return e.op("Min", total, 1.0) if est.binary else total


@emits("transform", "CountVectorizer")
def count_vectorizer(e: Emitter, est: Any, frame: Frame) -> Frame:
    """Emit counts."""
    return Frame.of(counts(e, est, frame), len(est.vocabulary_))


@emits("transform", "TfidfVectorizer")
def tfidf_vectorizer(e: Emitter, est: Any, frame: Frame) -> Frame:
    """Emit weighted counts."""
    return e.transform(est._tfidf, Frame.of(counts(e, est, frame), len(est.vocabulary_)))
