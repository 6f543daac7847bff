"""Texts that would show a wrong conversion: words of the vocabularies in every case, letters that fold oddly, nothing at all."""

from __future__ import annotations

from typing import Any

import numpy as np

from .emitter import class_name
from .other_steps import within

__all__ = ["TEXTS", "random_texts"]

_VECTORIZERS = frozenset({"CountVectorizer", "TfidfVectorizer", "HashingVectorizer"})
_BETWEEN = (" ", ", ", "-", "\n", "_", "'", "\u0307", "\u00a0", "")
_WORDS = ("cat", "Zebra", "x", "12", "\u00c9cole", "stra\u00dfe", "\u65e5\u672c")
TEXTS = (
    "", " ", "a", "_", "\u0130stanbul a\u0130 \u0130\u0130x", "\u212aelvin \u017ftop \u1e9e", "x\u00b2 \u00bd \u2167", "e\u0301te\u0301",
    "\U00010400\U00010401 \U0001f600", "tab\tand\x00null", "\u039f\u0394\u039f\u03a3 \u03a3\u0391\u03a3.", "long" * 400,
)  # fmt: skip


def random_texts(model: Any, rng: np.random.Generator, count: int) -> np.ndarray:
    """Return texts of the words the model's vectorizers know and of strangers, in every case, between odd separators."""
    vectorizers = (v for v in within(model) if class_name(v) in _VECTORIZERS)
    words = {w for v in vectorizers for t in getattr(v, "vocabulary_", ()) for w in t.split(" ")}
    known = sorted(words) or list(_WORDS)
    out = np.empty(count, dtype=object)
    for i in range(count):
        picks = [str(rng.choice(known)) if rng.random() < 0.8 else str(rng.choice(_WORDS)) for _ in range(int(rng.integers(0, 12)))]
        spelt = [rng.choice([w, w.upper(), w.title(), w.swapcase()]) for w in picks]
        out[i] = "".join(str(w) + _BETWEEN[int(rng.choice(len(_BETWEEN), p=[0.6, *[0.05] * 8]))] for w in spelt)
    return out
