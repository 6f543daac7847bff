"""Family: what one kind of R model must say; one file a kind implements it, `framework.py` calls it.

Also here: the finishing touches families share: a classifier's outputs, and the rows that probe a model.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ...conversion.graph import Graph
from ...errors import InputError
from ...signature import Field, Signature, TensorSpec, classifier_outputs, label_spec
from .arithmetic import Arithmetic
from .robject import RObject

__all__ = ["Family", "give_classes", "one_of"]


class Family:
    """One fitted R model of a known class.

    Parameters
    ----------
    model : RObject
        The fitted object.
    options : mapping
        `options["r"]`: type, as, s, n.trees.
    known : mapping of str to tuple of str
        Levels of columns that the file may lack, none for columns of text: from the sample, or from the signature.

    Attributes
    ----------
    settings : frozenset of str
        The options this family reads; others are refused by name.
    """

    settings: frozenset[str] = frozenset()

    def __init__(self, model: RObject, options: Mapping[str, Any], known: Mapping[str, tuple[str, ...]] | None = None) -> None:
        self.model = model
        self.told = dict(known or {})
        self.known = {name: levels for name, levels in self.told.items() if levels}
        self.options = {k: v for k, v in options.items() if v is not None}
        odd = sorted(set(self.options) - self.settings)
        if odd:
            raise InputError(
                f"a {'/'.join(model.classes)} takes no option {', '.join(map(repr, odd))}",
                hint=f"it takes {', '.join(sorted(self.settings)) or 'none'}",
            )
        self.prepare()

    def prepare(self) -> None:
        """Read what both the signature and the graph need."""

    def fields(self) -> Sequence[Field]:
        """Describe the raw columns, in training order."""
        raise NotImplementedError

    def outputs(self) -> tuple[TensorSpec, ...]:
        """Describe what predict answers."""
        raise NotImplementedError

    def emit(self, ar: Arithmetic, scope: Mapping[str, Any]) -> dict[str, str]:
        """Write the graph; return a value for each output."""
        raise NotImplementedError

    def trees(self) -> tuple[list, list[str], dict[int, int]]:
        """Return trees whose paths probe the model, the names of their columns, and the levels of categorical ones."""
        return [], [], {}

    def ranges(self) -> Mapping[str, tuple[float, float]]:
        """Return smallest and largest training values of numeric columns, where the file holds them."""
        return {}

    def choices(self) -> Mapping[str, tuple[float, ...]]:
        """Return the only values that some numeric columns may hold."""
        return {}

    def option(self, name: str, allowed: Sequence[str], default: str) -> str:
        """Return an option that is one of a few words."""
        return one_of(self.options.get(name, default), allowed, name)


def one_of(value: Any, allowed: Sequence[str], name: str) -> str:
    """Return the value if it is allowed; InputError names the choices."""
    if value not in allowed:
        raise InputError(f"option {name!r} is {value!r}", hint=f"choose one of {', '.join(map(repr, allowed))}")
    return value


def class_outputs(classes: Sequence[Any], *, scores: str | None = "probabilities", missing: str = "allow") -> tuple[TensorSpec, ...]:
    """Describe label and probabilities of a classifier whose answers may be missing."""
    return classifier_outputs(classes, scores=scores, missing=missing)  # type: ignore[arg-type]


def label_output(classes: Sequence[Any], missing: str = "allow") -> tuple[TensorSpec, ...]:
    """Describe a label alone."""
    return (label_spec(classes, missing=missing),)  # type: ignore[arg-type]


def give_classes(ar: Arithmetic, probabilities: str) -> dict[str, str]:
    """Return label and probabilities, the label being the largest probability, the first of ties."""
    return {"label": ar.label(probabilities), "probabilities": probabilities}


def two_columns(ar: Arithmetic, second: str) -> str:
    """Return the probabilities of both classes from the second's, ("rows", 1)."""
    return ar.affine(second, np.array([[-1.0, 1.0]]), np.array([1.0, 0.0]))


def build(family: Family, signature: Signature) -> Graph:
    """Write a family's graph for a signature."""
    from .values import top_scope

    graph = Graph(signature)
    ar = Arithmetic(graph)
    given = family.emit(ar, top_scope(ar))
    for spec in signature.outputs:
        graph.output(spec.name, given[spec.name])
    _prune(graph, {s.name for s in signature.outputs})
    return graph


def _prune(graph: Graph, wanted: set[str]) -> None:
    """Drop nodes nothing reads: columns that were cut out singly and then taken in one piece."""
    kept = []
    for node in reversed(graph.nodes):
        if wanted.intersection(node.output):
            wanted.update(node.input)
            for body in (a.g for a in node.attribute if a.HasField("g")):  # it reads values from outside itself
                wanted.update(name for inner in body.node for name in inner.input)
            kept.append(node)
    graph.nodes = kept[::-1]
    graph.initializers = [i for i in graph.initializers if i.name in wanted]


def level_values(levels: Sequence[str]) -> list[Any]:
    """Return a response's levels as the label speaks them: logical ones as bool."""
    return [v == "TRUE" for v in levels] if list(levels) == ["FALSE", "TRUE"] else list(levels)


def grid(family: Family, signature: Signature, seed: int, rows: int) -> dict[str, np.ndarray]:
    """Make rows over every level, missing values, and numbers in and beyond their ranges."""
    rng, ranges, choices = np.random.default_rng(seed), family.ranges(), family.choices()
    feeds = {}
    for spec in signature.inputs:
        block = np.zeros((rows, len(spec.columns)))
        for j, column in enumerate(spec.columns):
            may_miss, few = spec.missing == "allow", choices.get(column.name)
            if few is not None:
                block[:, j] = rng.permutation(np.resize(np.array([*few, *([np.nan] if may_miss else [])]), rows))
            else:
                block[:, j] = _column_probes(column, may_miss, ranges.get(column.name), rows, rng)
        feeds[spec.name] = np.ascontiguousarray(block.astype(spec.dtype))
    return feeds


def _column_probes(column: Any, may_miss: bool, span: tuple[float, float] | None, rows: int, rng: np.random.Generator) -> np.ndarray:
    if column.categories is not None:
        pool = [*range(len(column.categories)), *([-1] if may_miss else [])]
        return rng.permutation(np.resize(np.array(pool or [-1], dtype=np.float64), rows))
    low, high = span if span is not None else (-2.0, 2.0)
    out = low + (high - low) * rng.random(rows)
    kind = rng.random(rows)
    out = np.where(kind < 0.08, low, np.where(kind < 0.16, high, out))
    out = np.where(
        (kind > 0.16) & (kind < 0.22), low - 10 * (high - low), np.where((kind > 0.22) & (kind < 0.28), high + 10 * (high - low), out)
    )
    return np.where(kind > 0.95, np.nan, out) if may_miss else out
