"""Text stages. Word counts convert, hashed ones too; stages that end in words, embed them or run SQL are refused by name.

ONNX has no lists of words: what tokenizers, stop words and runs do is noted (`Words`) and done where CountVectorizer counts.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from ...errors import ConversionError
from ..hashing import LowerCase, hash_terms
from ..words import DOTTED_I, count_terms
from .flow import Attr, Col, Flow
from .registry import Need, stage
from .stage import Stage

_PATTERN = re.compile(r"(?P<unit>\\[sSwWdD]|[ ,;|/]|\[\^?(?:\\[swd]|[A-Za-z0-9]-[A-Za-z0-9]|[A-Za-z0-9 _,;:!?'/|])+\])(?P<more>\+?)")
_SPACES = r"\t-\r "  # Java's \s
_KELVIN = "\u212a"  # the one other character whose lower case is ASCII, a k
_ODD_LOCALES = ("tr", "az", "lt")  # these have a lower case of their own
# lower-case letters whose capitals came to Unicode after Java 17, where they have none: Java's releases disagree on them
_YOUNG = {0x019B, 0x0264, 0x1C8A, 0x2C5F, 0xA7C1, 0xA7CD, 0xA7CF, 0xA7D1, 0xA7D3, 0xA7D5, 0xA7D7, 0xA7D9, 0xA7DB}
_YOUNG_CHARACTERS = frozenset(map(chr, [*_YOUNG, *range(0x10597, 0x105BD), *range(0x10D70, 0x10D86), *range(0x16EBB, 0x16ED4)]))


@dataclass(frozen=True)
class Words:
    """What a column of words holds of a text, in the order Spark does it.

    `inside` are the ASCII characters of a token as it is compared; `others` says whether all others are, too.
    """

    source: str
    inside: frozenset[str]
    others: bool
    lowercase: bool
    least: int  # UTF-16 units; 0 keeps empty tokens
    stop: frozenset[str] = frozenset()
    folded: bool = False  # stop words are compared in lower case
    run: int = 1
    gap: str = ""  # separators that each end a word, maybe an empty one, as inside a class of RE2
    ragged: bool = False  # whether runs of separators end words, maybe empty ones

    def _takes(self, character: str) -> bool:
        return character in self.inside if character.isascii() else self.others

    def holds(self, word: str) -> bool:
        """Whether some text has this token."""
        long_enough = len(word.encode("utf-16-le")) >= 2 * self.least
        return long_enough and all(map(self._takes, word)) and (not self.lowercase or word == word.lower())

    def stopped(self, word: str) -> bool:
        """Whether it is a stop word."""
        return (word.lower() if self.folded else word) in self.stop

    @property
    def dotted_ends(self) -> bool:
        """Whether the lower case of the dotted capital I is an i that ends its token."""
        return self.lowercase and "i" in self.inside and not self.others

    def expression(self) -> str:
        """Return what a token is, for RE2, over the text as it is written."""
        capitals = [chr(c) for c in range(128)] + [_KELVIN]
        mine = [c for c in capitals if self._takes(c.lower() if self.lowercase else c)]
        listed = [c for c in capitals if c not in mine] if self.others else mine
        one = "[" + "^" * self.others + "".join(f"\\x{{{ord(c):X}}}" for c in listed) + "]"
        least = 1 if self.others else max(1, self.least)  # outside ASCII RE2 counts other units; there the vocabulary is sifted
        return f"{one}{{{least - 1},}}{DOTTED_I}|{one}{{{least},}}" if self.dotted_ends else f"{one}{{{least},}}"


def _text_in(stage: Stage, widths: Mapping[str, int]) -> list[Need]:
    return [Need(c, "text") for c in stage.sources]


# ---------------------------------------------------------------- words


@stage("Tokenizer", reads=_text_in, note="converts where its words are counted")
def tokenizer(flow: Flow, stage: Stage) -> None:
    _tokens(flow, stage, Words(stage.name, *_class(r"\s", outside=True), lowercase=True, least=0, gap=_SPACES))


@stage("RegexTokenizer", reads=_text_in, note="as Tokenizer; a pattern that is one class of ASCII characters, or a run of it")
def regex_tokenizer(flow: Flow, stage: Stage) -> None:
    pattern, gaps, least = stage.text("pattern"), stage.flag("gaps"), stage.integer("minTokenLength")
    found = _PATTERN.fullmatch(pattern)
    if found is None or not (gaps or found["more"]) or least > 1000:
        flow.refuse(f"{stage.where}: RegexTokenizer with the pattern {pattern!r} has no exact ONNX form")
        _put(flow, stage, None)
        return
    words = Words(stage.name, *_class(found["unit"], outside=gaps), lowercase=stage.flag("toLowercase"), least=least)
    _tokens(flow, stage, replace(words, ragged=gaps and least < 1))


def _class(unit: str, *, outside: bool) -> tuple[frozenset[str], bool]:
    """Return the ASCII characters of a class, or outside it, and whether all others go with them; Java's classes are ASCII."""
    pattern = re.compile(unit, re.ASCII)
    inside = frozenset(chr(c) for c in range(128) if (pattern.fullmatch(chr(c)) is None) == outside)
    return inside, (pattern.fullmatch("\u00e9") is None) == outside


def _tokens(flow: Flow, stage: Stage, words: Words) -> None:
    col = flow.get(stage.sources[0])
    if col.plain or col.words is not None:
        raise ConversionError(f"{stage.where}: {stage.name} reads column {stage.sources[0]!r}, which is not text here")
    if words.lowercase and words.others and "i" not in words.inside:
        flow.refuse(f"{stage.where}: {stage.name} splits at the letter i: the dotted capital I has no exact ONNX form")
    _put(flow, stage, words, col.value)


@stage("StopWordsRemover", reads=_text_in, note="as Tokenizer")
def stop_words_remover(flow: Flow, stage: Stage) -> None:
    exact = stage.flag("caseSensitive")
    if not exact and stage.text("locale", "en_US")[:2] in _ODD_LOCALES:
        flow.refuse(f"{stage.where}: StopWordsRemover in the locale {stage.text('locale')} has no exact ONNX form")
    stop = frozenset(w if exact else w.lower() for w in stage.texts("stopWords"))
    for source, target in zip(stage.sources, stage.targets):
        col, words = _words(flow, stage, source)
        if words is not None and (words.run > 1 or words.stop):
            flow.refuse(f"{stage.where}: StopWordsRemover behind {words.source} has no ONNX form here")
        made = None if words is None else replace(words, source=stage.name, stop=stop, folded=not exact)
        flow.put(target, Col(col.value, plain=False, words=made))


@stage("NGram", reads=_text_in, note="as Tokenizer; behind a RegexTokenizer, whose words are never empty")
def ngram(flow: Flow, stage: Stage) -> None:
    col, words = _words(flow, stage, stage.sources[0])
    n, why = stage.integer("n"), ""
    if words is not None and n > 1:
        if words.run > 1:
            why = "of runs"
        elif words.least < 1:
            why = "of words that may be empty"
        elif words.others and words.least > 1:
            why = "of words left out by their length"
        elif " " in words.inside:
            why = "of words that hold spaces"
        elif words.stop and words.folded and not words.lowercase:
            why = "of words left out in upper and lower case"
    if why:
        flow.refuse(f"{stage.where}: NGram {why} has no ONNX form here")
    flow.put(stage.targets[0], Col(col.value, plain=False, words=None if words is None else replace(words, source=stage.name, run=n)))


def _put(flow: Flow, stage: Stage, words: Words | None, value: str = "") -> None:
    flow.put(stage.targets[0], Col(value, plain=False, words=words))


def _words(flow: Flow, stage: Stage, source: str) -> tuple[Col, Words | None]:
    col = flow.get(source)
    if col.words is None:
        flow.refuse(f"{stage.where}: {stage.name} reads column {source!r}, whose words have no ONNX form")
    return col, col.words


# ---------------------------------------------------------------- counts


@stage("CountVectorizerModel", reads=_text_in, note="minTF from 1; without Greek sigmas and without the empty word")
def count_vectorizer(flow: Flow, stage: Stage) -> None:
    vocabulary, least = stage.row()["vocabulary"], stage.number("minTF")
    if not all(isinstance(v, str) for v in vocabulary):
        raise stage.wrong("its vocabulary is not text")
    col, words = _words(flow, stage, stage.sources[0])
    if 0 < least < 1:
        flow.refuse(f"{stage.where}: CountVectorizer with minTF={least}, a share of all words, has no ONNX form here")
    attrs = [Attr(v) for v in vocabulary]
    if words is None or flow.dry:
        flow.put_vector(stage.text("outputCol"), _nothing(flow), len(vocabulary), attrs)
        if words is not None:
            _terms(flow, stage, words, vocabulary)
        return
    terms, stop = _terms(flow, stage, words, vocabulary)
    value = count_terms(
        flow.graph, flow.graph.add("Squeeze", col.value, flow.ints([1])), expression=words.expression(), terms=terms, size=len(vocabulary),
        stop=stop, lowercase=words.lowercase, dotted_ends=words.dotted_ends,
    )  # fmt: skip
    if least > 1:
        value = flow.op("Where", flow.op("GreaterOrEqual", value, least), value, 0.0)
    if stage.flag("binary"):
        value = flow.op("Min", value, 1.0)
    flow.put_vector(stage.text("outputCol"), value, len(vocabulary), attrs, nan=False, compressed=True)


def _terms(flow: Flow, stage: Stage, words: Words, vocabulary: Sequence[str]) -> tuple[dict[tuple[str, ...], int], list[str]]:
    """Return the terms that some text can hold, and the stop words that take part in runs."""
    runs = {tuple(v.split(" ")) if words.run > 1 else (v,): i for i, v in enumerate(vocabulary)}
    terms = {r: i for r, i in runs.items() if len(r) == words.run and all(words.holds(w) and not words.stopped(w) for w in r)}
    stop = sorted(filter(words.holds, words.stop)) if words.run > 1 else []
    known = {w for r in terms for w in r} | set(stop)
    if "" in known:
        flow.refuse(
            f"{stage.where}: CountVectorizer counts the empty word, which Tokenizer makes between two spaces",
            hint="use RegexTokenizer, which leaves empty words out, or load with via='native'",
        )
    if words.lowercase and any("i\u0307" in w or _YOUNG_CHARACTERS & set(w) for w in known):
        flow.refuse(f"{stage.where}: CountVectorizer has a letter in its vocabulary whose lower case has no exact ONNX form")
    return terms, stop


def _nothing(flow: Flow) -> str:
    return flow.graph.add("Expand", flow.real([[0.0]]), flow.ints([1, 1]))  # never saved: a dry run only needs a name


@stage("HashingTF", reads=_text_in, note="murmur3 when it runs; raises for a capital sigma beside anything but letters and spaces")
def hashing_tf(flow: Flow, stage: Stage) -> None:
    col, words = _words(flow, stage, stage.sources[0])
    size, why = stage.integer("numFeatures"), ""
    if size < 1:
        raise stage.wrong(f"numFeatures is {size}")
    if not re.match(r"[3-9]\.|\d\d", str(stage.extra.get("sparkVersion", ""))):
        why = "of a Spark before 3.0, whose hash is another,"
    elif words is not None:
        if words.ragged:
            why = "of words that may be empty, between runs of separators,"
        elif words.others and words.least > 1:
            why = "of words left out by their length"
        elif words.stop and words.folded and not words.lowercase:
            why = "of words left out in upper and lower case"
    if why:
        flow.refuse(f"{stage.where}: HashingTF {why} has no ONNX form here")
    attrs = [Attr()] if size == 1 else None
    if words is None or why or flow.dry:
        flow.put_vector(stage.text("outputCol"), _nothing(flow), size, attrs)
        return
    word = next(c for c in ("a", "0", "\u00e9", *map(chr, range(33, 127)), " ") if words.holds(c * max(1, words.least)))
    value, unclear = hash_terms(
        flow.graph, flow.graph.add("Squeeze", col.value, flow.ints([1])), expression=words.expression(),
        guard=" ".join([word * max(1, words.least)] * (words.run + 1)), size=size, run=words.run, stop=sorted(words.stop),
        lower=LowerCase(_YOUNG_CHARACTERS, dotted_ends=words.dotted_ends) if words.lowercase else None, gap=words.gap,
    )  # fmt: skip
    if unclear is not None:
        flow.fail(unclear)
    if stage.flag("binary"):
        value = flow.op("Min", value, 1.0)
    flow.put_vector(stage.text("outputCol"), value, size, attrs, nan=False, compressed=True)


# ---------------------------------------------------------------- refused


@stage("Word2VecModel", reads=_text_in, note="embeds every word there is", converts=False)
def embedded(flow: Flow, stage: Stage) -> None:
    flow.refuse(f"{stage.where}: {stage.name} has no exact ONNX form")
    width = stage.integer("vectorSize")
    flow.put_vector(stage.text("outputCol"), _nothing(flow), width, [Attr()] if width == 1 else None)


def _sql_reads(stage: Stage, widths: Mapping[str, int]) -> list[Need]:
    raise ConversionError(
        f"{stage.where}: SQLTransformer is refused: its columns are only known to Spark's SQL parser",
        hint="give signature= and load with via='native'",
    )


@stage("SQLTransformer", reads=_sql_reads, makes=lambda stage: [], note="SQL needs Spark", converts=False)
def sql(flow: Flow, stage: Stage) -> None:
    flow.refuse(f"{stage.where}: {stage.name} has no exact ONNX form")


def _lda_reads(stage: Stage, widths: Mapping[str, int]) -> list[Need]:
    known = stage.table is not None and "vocabSize" in stage.table.column_names
    return [Need(stage.text("featuresCol"), "vector", int(stage.row()["vocabSize"]) if known else None)]


@stage(
    "LocalLDAModel", "DistributedLDAModel", reads=_lda_reads, makes=lambda stage: [stage.text("topicDistributionCol")],
    note="draws random numbers, and iterates until it converges", converts=False,
)  # fmt: skip
def lda(flow: Flow, stage: Stage) -> None:
    flow.refuse(f"{stage.where}: {stage.name} has no exact ONNX form")
    flow.put_vector(stage.text("topicDistributionCol"), _nothing(flow), stage.integer("k"))
