"""Counts of hashed words: every word a text holds, in lower case as Java writes it, by its murmur3 hash, in operators of onnxruntime.

Words are only known when the graph runs, so their letters are lowered through a table and joined again before they are hashed.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..conversion.graph import Graph
from ..signature import DTYPES
from .words import CONTRIB, DOTTED_I, counted, label, op, tokenized

__all__ = ["LowerCase", "hash_terms"]

_SIGMA, _SMALL, _FINAL = "\u03a3", "\u03c3", "\u03c2"
# letters that stand in one word with a neighbour of their kind, whoever draws the boundaries of words
_LETTER = r"[A-Za-z\x{386}\x{388}-\x{3CE}]"
_SPACE = r"[\t-\r ]"
_SEED = 42
EMPTY = 142593372  # the hash of the empty word


class LowerCase:
    """A table of capitals.

    Parameters
    ----------
    young : frozenset of str
        Lower-case letters whose capitals stay as they are.
    dotted_ends : bool
        Whether the dotted capital I becomes an i alone: its dot is no part of the word.
    """

    def __init__(self, young: frozenset[str], *, dotted_ends: bool) -> None:
        pairs = {c: c.lower() for c in map(chr, [*range(0xD800), *range(0xE000, 0x110000)]) if c != c.lower()}
        self.table = {c: small for c, small in pairs.items() if small not in young and c != _SIGMA}
        self.table[DOTTED_I] = "i" if dotted_ends else "i\u0307"


def hash_terms(
    graph: Graph,
    text: str,
    *,
    expression: str,
    guard: str,
    size: int,
    run: int = 1,
    stop: Sequence[str] = (),
    lower: LowerCase | None = None,
    gap: str = "",
) -> tuple[str, str | None]:
    """Count how often each hash occurs, float64 ("rows", size).

    Parameters
    ----------
    graph : Graph
        The graph under construction.
    text : str
        A string value, ("rows",).
    expression : str
        What a word is, for RE2, over the text as it is written.
    guard : str
        A text with `run` words or more and a separator, put in front so that no axis is ever empty.
    size : int
        Columns: hashes are taken modulo it.
    run : int
        Words a term has, joined by spaces.
    stop : sequence of str
        Words left out before terms are formed.
    lower : LowerCase, optional
        How words are brought to lower case; without it they stay as they are.
    gap : str
        The separators, as inside a class of RE2: each of them ends a word, an empty one where two follow each other. '' where
        empty words do not count.

    Returns
    -------
    counts : str
    unclear : str or None
        bool ("rows", 1): rows with a capital sigma whose lower case depends on more than its neighbours.
    """
    graph.opsets[CONTRIB] = 1
    rows = graph.concat([graph.const(np.array([guard], dtype=object), "string"), text], axis=0)
    unclear = None
    if lower is not None:
        rows, unclear = _sigmas(graph, rows)
    words = tokenized(graph, rows, tokenexp=expression)
    distinct, _, where, _ = graph.add("Unique", words, sorted=1, outputs=4)

    def spread(value: str) -> str:
        """Return one value a distinct word as one a word."""
        return graph.add("Reshape", graph.add("Gather", value, where), graph.add("Shape", words))

    real = graph.cast(_matches(graph, distinct, "(?s).+"), "int64")  # 0 beyond a row's last word
    empty = None if not gap or "" in stop else _empty(graph, rows, spread(real), gap)
    known = distinct if lower is None else _lowered(graph, distinct, lower)
    if stop:
        real = op(graph, "Mul", real, label(graph, known, np.array(stop, dtype=object), [0] * len(stop), 1))
    real = spread(real)
    if run == 1:
        places = spread(_hashed(graph, known, size))
    else:
        terms, real = _runs(graph, spread(known), real, run)
        places = _hashed(graph, terms, size)
    places = op(graph, "Where", op(graph, "Equal", real, np.int64(1)), places, np.int64(size))
    counts = counted(graph, places, size)
    if empty is not None:
        counts = graph.add("Add", counts, op(graph, "Pad", empty, np.array([0, EMPTY % size, 0, size - EMPTY % size - 1])))
    return counts, unclear


def _runs(graph: Graph, words: str, real: str, run: int) -> tuple[str, str]:
    """Return each run of words, joined by spaces, and whether it is one; words left out are moved behind the others first."""
    width = graph.add("Shape", words, start=1, end=2)
    place = op(graph, "Range", np.int64(0), graph.add("Squeeze", width), np.int64(1))
    rank = op(graph, "Sub", place, graph.add("Mul", real, width))
    _, order = graph.add("TopK", rank, width, axis=1, largest=0, sorted=1, outputs=2)
    words, real = (graph.add("GatherElements", v, order, axis=1) for v in (words, real))
    parts = [_slice(graph, words, i, run) for i in range(run)]
    term = parts[0]
    for part in parts[1:]:
        term = graph.add("StringConcat", graph.add("StringConcat", term, _text(graph, " ")), part)
    return term, _slice(graph, real, run - 1, run)


def _text(graph: Graph, value: str) -> str:
    return graph.const(np.array(value, dtype=object), "string")


def _matches(graph: Graph, value: str, pattern: str) -> str:
    return graph.add("RegexFullMatch", value, pattern=pattern)


def _slice(graph: Graph, value: str, start: int, run: int) -> str:
    end = start - run + 1 or np.iinfo(np.int64).max
    return op(graph, "Slice", value, np.array([start]), np.array([end]), np.array([1]))


def _hashed(graph: Graph, value: str, size: int) -> str:
    code = graph.add("MurmurHash3", value, domain=CONTRIB, seed=_SEED, positive=0)
    code = graph.cast(graph.cast(code, "int32"), "int64")  # the first tells onnx the type, which knows no other domain's
    return op(graph, "Mod", code, np.int64(size))


# ---------------------------------------------------------------- lower case


def _lowered(graph: Graph, words: str, lower: LowerCase) -> str:
    """Return words in lower case; those without capitals are not taken apart."""
    plain = _matches(graph, words, r"[^A-Z\x{80}-\x{10FFFF}]*")
    others = graph.add("Where", plain, _text(graph, ""), words)
    more = graph.concat([others, graph.const(np.array(["A"], dtype=object), "string")], axis=0)  # so that there are letters
    letters = tokenized(graph, more, separators=[""])
    capitals = list(lower.table)
    number = label(graph, letters, np.array(capitals, dtype=object), np.arange(1, len(capitals) + 1), 0)
    small = op(graph, "Gather", graph.const(np.array(["", *lower.table.values()], dtype=object), "string"), number)
    letters = graph.add("Where", op(graph, "Equal", number, np.int64(0)), letters, small)
    joined = op(graph, "Slice", _joined(graph, letters), np.array([0]), np.array([-1]), np.array([0]))
    return graph.add("Where", plain, words, joined)


def _joined(graph: Graph, letters: str) -> str:
    """Join each row of strings: neighbours pairwise, until one is left."""
    found = graph.add("Loop", "", graph.const(np.bool_(True), "bool"), letters, body=_halving(graph))
    return graph.add("Squeeze", found, graph.const([1], "int64"))


def _halving(outer: Graph) -> Any:
    """Return the body of the loop: each second column is put behind the one before it."""
    from onnx import helper

    inner = Graph(outer.signature)
    inner.name = outer.name  # type: ignore[method-assign]  # a name inside may not repeat one outside
    turn, go, pieces = (outer.name(stem) for stem in ("turn", "go", "pieces"))
    first = op(inner, "Slice", pieces, np.array([0]), np.array([1]), np.array([1]))
    blank = inner.add("Where", inner.const(np.bool_(False), "bool"), first, _text(inner, ""))
    end, axis, two = np.array([np.iinfo(np.int64).max]), np.array([1]), np.array([2])
    left = op(inner, "Slice", pieces, np.array([0]), end, axis, two)
    right = op(inner, "Slice", inner.concat([pieces, blank]), np.array([1]), end, axis, two)
    pairs = inner.add("StringConcat", left, right)
    again = op(inner, "Greater", inner.add("Squeeze", inner.add("Shape", pairs, start=1, end=2)), np.int64(1))

    def info(name: str, dtype: str, shape: list | None) -> Any:
        return helper.make_tensor_value_info(name, DTYPES[dtype].onnx, shape)

    inputs = [info(turn, "int64", []), info(go, "bool", []), info(pieces, "string", None)]
    return helper.make_graph(inner.nodes, "join", inputs, [info(again, "bool", []), info(pairs, "string", None)], inner.initializers)


def _sigmas(graph: Graph, rows: str) -> tuple[str, str]:
    """Write each capital sigma as its lower case, final behind a letter at a word's end; say where that is unclear.

    Java looks for letters up to the boundaries of the word, by rules of its releases: here both neighbours must be a letter,
    white space or the text's end.
    """
    has = _matches(graph, rows, f"(?s).*{_SIGMA}.*")
    some = graph.add("Where", has, rows, _text(graph, "-"))
    pieces, count = graph.add("StringSplit", some, delimiter=_SIGMA, outputs=2)
    width = graph.add("Shape", pieces, start=1, end=2)
    place = op(graph, "Range", np.int64(0), graph.add("Squeeze", width), np.int64(1))
    last = op(graph, "Sub", op(graph, "Unsqueeze", count, np.array([1])), np.int64(1))
    blank = _matches(graph, pieces, "")
    at_start, at_end = op(graph, "Equal", place, np.int64(0)), graph.add("Equal", place, last)

    def side(letter: str, space: str, edge: str) -> tuple[str, str]:
        """Return where a piece ends in a letter, and in the end of a word: an empty one is between two sigmas, or at the edge."""
        inside = graph.add("And", blank, graph.add("Not", edge))
        return (
            graph.add("Or", _matches(graph, pieces, letter), inside),
            graph.add("Or", _matches(graph, pieces, space), graph.add("And", blank, edge)),
        )

    behind_letter, behind_space = side(f"(?s).*{_LETTER}", f"(?s).*{_SPACE}", at_start)
    before_letter, before_space = (_next(graph, v) for v in side(f"(?s){_LETTER}.*", f"(?s){_SPACE}.*", at_end))
    is_sigma = graph.add("Less", place, last)
    final = graph.add("And", behind_letter, before_space)
    clear = graph.add("Or", behind_space, graph.add("And", behind_letter, graph.add("Or", before_letter, before_space)))
    bad = graph.cast(graph.add("And", is_sigma, graph.add("Not", clear)), "int64")
    unclear = graph.cast(graph.add("ReduceMax", bad, graph.const([1], "int64"), keepdims=1), "bool")
    small = graph.add("Where", final, _text(graph, _FINAL), _text(graph, _SMALL))
    small = graph.add("Where", is_sigma, small, _text(graph, ""))
    joined = _joined(graph, graph.add("StringConcat", pieces, small))
    return graph.add("Where", has, joined, rows), op(
        graph, "Slice", unclear, np.array([1]), np.array([np.iinfo(np.int64).max]), np.array([0])
    )


def _next(graph: Graph, flags: str) -> str:
    """Return each column's right neighbour; false beyond the last."""
    numbers = op(graph, "Pad", graph.cast(flags, "int64"), np.array([0, 0, 0, 1]))
    return graph.cast(op(graph, "Slice", numbers, np.array([1]), np.array([np.iinfo(np.int64).max]), np.array([1])), "bool")


# ---------------------------------------------------------------- empty words


def _empty(graph: Graph, rows: str, real: str, gap: str) -> str:
    """Count each text's empty words, float64 ("rows", 1): the end of a text makes none, unless the text itself is empty."""
    trimmed = tokenized(graph, rows, tokenexp=f"(?s).*[^{gap}]")
    gaps = _matches(graph, tokenized(graph, graph.add("Squeeze", trimmed, graph.const([1], "int64")), tokenexp=f"[{gap}]"), "(?s).+")
    total = graph.add("ReduceSum", graph.cast(gaps, "int64"), graph.const([1], "int64"), keepdims=1)
    words = graph.add("ReduceSum", real, graph.const([1], "int64"), keepdims=1)
    between = graph.add("Sub", op(graph, "Add", total, np.int64(1)), words)
    alone = graph.cast(op(graph, "Unsqueeze", _matches(graph, rows, ""), np.array([1])), "int64")
    count = graph.add("Where", op(graph, "Greater", words, np.int64(0)), between, alone)
    return op(graph, "Slice", graph.cast(count, "float64"), np.array([1]), np.array([np.iinfo(np.int64).max]), np.array([0]))
