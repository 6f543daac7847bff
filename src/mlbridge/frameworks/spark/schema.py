"""Which raw columns a pipeline reads, as what, and under which rules.

Spark's folder holds no input schema: it follows from the stages, read backwards from the answer. What only makes a
fitted label is not on that path, and so is no input.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from ...errors import SignatureError
from ...signature import ROWS, Column, Field, TensorSpec, blocks
from .registry import Need, family
from .stage import SparkModel, Stage

__all__ = ["Path", "find_path", "input_specs"]

_INTEGER = re.compile(r"-?(0|[1-9][0-9]{0,17})")
_DOUBLE = re.compile(r"-?[0-9]+\.[0-9]+(E-?[0-9]+)?|NaN|-?Infinity")


@dataclass(frozen=True)
class Path:
    """The stages on the way to the answer, in order, and what they read of the raw columns."""

    stages: tuple[Stage, ...]
    needs: Mapping[str, Sequence[Need]]
    targets: tuple[str, ...]
    predictor: Stage | None


def find_path(model: SparkModel, asked: Sequence[str] = ()) -> Path:
    """Walk back from the answer.

    Parameters
    ----------
    model : SparkModel
        The model.
    asked : sequence of str
        Further columns, by Spark's names.
    """
    stages = model.stages
    if not stages:
        raise SignatureError(f"{model.label}: the pipeline has no stages")
    found = [family(s) for s in stages]
    for s in stages:
        if s.name == "SQLTransformer":
            family(s).reads(s, {})  # raises: it may make or drop any column
    predictors = [i for i, f in enumerate(found) if f.task]
    makers = [i for i, (s, f) in enumerate(zip(stages, found)) if f.makes(s)]
    if not makers:
        raise SignatureError(f"{model.label}: no stage makes a column")
    last = (predictors or makers)[-1]
    targets = tuple(found[last].makes(stages[last]))
    wanted = set(targets) | set(asked)
    widths: dict[str, int] = {}
    on_path: list[int] = []
    for i in range(len(stages) - 1, -1, -1):
        makes = found[i].makes(stages[i])
        restores = stages[i].name == "IndexToString" and predictors and i > last and stages[i].sources[0] in targets
        if not restores and not wanted.intersection(makes):
            continue
        on_path.append(i)
        reads = found[i].reads(stages[i], widths)
        wanted.difference_update(makes)
        wanted.update(n.column for n in reads)
        widths.update({n.column: n.width for n in reads if n.width is not None})
    on_path.reverse()
    on_path = _with_filters(stages, found, on_path, wanted)
    needs, made = _raw_needs(stages, found, on_path, widths)
    unmade = [c for c in asked if c not in made]
    if unmade:
        raise SignatureError(f"no stage makes {', '.join(map(repr, unmade))}", hint=f"the pipeline makes {', '.join(sorted(made))}")
    return Path(tuple(stages[i] for i in on_path), needs, targets, stages[last] if predictors else None)


def _with_filters(stages, found, on_path: list[int], raw: set[str]) -> list[int]:
    """Add stages off the path that leave rows out and whose columns are there anyway."""
    have, kept = set(raw), []
    for i, (s, f) in enumerate(zip(stages, found)):
        reads = {n.column for n in f.reads(s, {})} if s.params.get("handleInvalid") == "skip" else None
        if i in on_path or (reads is not None and reads <= have):
            kept.append(i)
            have.update(f.makes(s))
    return kept


def _raw_needs(stages, found, on_path, widths) -> tuple[dict[str, list[Need]], set[str]]:
    needs: dict[str, list[Need]] = {}
    made: set[str] = set()
    for i in on_path:
        for need in found[i].reads(stages[i], widths):
            if need.column not in made:
                needs.setdefault(need.column, []).append(need)
        made.update(c for c in found[i].makes(stages[i]) if c not in needs)
    return needs, made


def input_specs(path: Path, kinds: Mapping[str, tuple[str, int | None]]) -> tuple[TensorSpec, ...]:
    """Describe the raw columns as blocks, and raw vectors as inputs of their own.

    Parameters
    ----------
    path : Path
        From `find_path`.
    kinds : mapping of str to (str, int or None)
        What a sample says: `number`, `text` or `vector`, and a vector's width.
    """
    fields, vectors, problems = [], [], []
    for name, needs in path.needs.items():
        kind, width = _kind(name, needs, kinds, path)
        # what takes numbers and vectors looks for missing numbers; a NaN inside a vector is none
        refuse = any(n.missing == "refuse" and (kind != "vector" or n.kind == "vector") for n in needs)
        missing: Literal["refuse", "allow"] = "refuse" if refuse else "allow"
        if kind == "vector" and width is None:
            problems.append(f"column {name!r} is a vector and no stage says how wide")
        elif kind == "vector":
            vectors.append(TensorSpec(name, "float64", (ROWS, width), missing=missing))
        elif kind == "text":
            fields.append(Field(Column(name), "string"))
        elif kind == "category":
            fields.append(Field(_category(name, needs, kinds.get(name, ("", None))[0]), "int32", missing))
        else:
            fields.append(Field(Column(name), "float64", missing))
    if problems:
        raise SignatureError("; ".join(problems), problems=problems, hint="give a sample or a signature")
    specs = blocks(fields)
    taken = {s.name for s in specs} | {f.column.name for f in fields}
    return (*(replace(v, name=f"{v.name}_vector") if v.name in taken else v for v in vectors), *specs)


def _kind(name: str, needs: Sequence[Need], kinds: Mapping[str, tuple[str, int | None]], path: Path) -> tuple[str, int | None]:
    asked = {n.kind for n in needs}
    said, width = kinds.get(name, ("", None))
    widths = {n.width for n in needs if n.width is not None}
    if "vector" in asked or said == "vector":
        return "vector", next(iter(widths), width)
    if "text" in asked:
        return "text", None
    if "category" in asked:
        labels = [n.labels for n in needs if n.kind == "category"]
        as_numbers = all(_DOUBLE.fullmatch(v) for group in labels for v in group) and any(labels)
        if said == "text" or not (asked - {"category"} or (as_numbers and said != "category")):
            return "category", None
        return "number", None
    rest = _left_over(name, needs, path)
    return ("number", None) if rest is None else ("vector", rest)


def _left_over(name: str, needs: Sequence[Need], path: Path) -> int | None:
    """Return the width of the one raw column whose width nothing else explains, where a later stage knows the sum."""
    for need in needs:
        if need.kind == "any" and need.together is not None and need.together > 1:
            return need.together
    return None


def _category(name: str, needs: Sequence[Need], said: str) -> Column:
    """Describe a StringIndexer's input; its labels are in the indexer's order."""
    mine = [n for n in needs if n.kind == "category"]
    levels: list = list(dict.fromkeys(v for n in mine for v in n.labels))
    unknown: Literal["refuse", "keep"] = "keep" if all(n.unknown == "keep" for n in mine) else "refuse"
    if said != "text" and levels and all(_INTEGER.fullmatch(v) and v != "-0" for v in levels):
        levels = [int(v) for v in levels]
    return Column(name, categories=tuple(levels), unknown=unknown)


def java_value(label: str) -> float:
    """Read a label as the number Java wrote."""
    return {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}[label] if label.lstrip("-")[:1] in "NI" else float(label)
