"""From stages and wiring to a checked plan: which arrays each stage's inputs are made of, and the pipeline's signature.

Pure: it sees names and signatures, never a model. Every problem of the whole graph ends in one SignatureError.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from ..errors import SignatureError
from ..signature import ROWS, Field, Signature, TensorSpec, blocks
from .graph import Endpoint, check_names, nearest, order_stages, parse_endpoint, straight_wiring
from .steps import Refuse
from .typing import Edge, Symbols, fit, narrowed

__all__ = ["Feed", "Plan", "build"]


@dataclass(frozen=True)
class Feed:
    """How one input of one stage is made: one edge, or several packed into its columns."""

    spec: TensorSpec
    edges: tuple[Edge, ...]
    places: tuple[tuple[int, ...], ...] = ()  # per edge: the columns it fills; empty for one whole edge


@dataclass(frozen=True)
class Plan:
    """A checked pipeline: what runs in which order, fed by what."""

    signature: Signature
    order: tuple[str, ...]
    feeds: Mapping[str, tuple[Feed, ...]]  # stage -> one an input
    outputs: Mapping[str, Endpoint]  # pipeline output -> where it comes from
    wiring: Mapping[str, str]

    @property
    def edges(self) -> list[Edge]:
        """Every edge, in order."""
        return [e for stage in self.order for feed in self.feeds[stage] for e in feed.edges]

    def readers(self, stage: str) -> set[str]:
        """Return the stages that read from a stage."""
        return {s for s, feeds in self.feeds.items() for f in feeds for e in f.edges if e.producer.stage == stage}


class _Builder:
    def __init__(self, stages: Mapping[str, Signature], wiring: Mapping[str, str] | None, outputs: Mapping[str, str] | None) -> None:
        self.stages, self.problems, self.symbols = stages, check_names(stages), Symbols()
        if not stages:
            self.problems.append("a pipeline needs at least one stage")
        self.given = dict(wiring) if wiring is not None else self._straight()
        self.consumers: dict[Endpoint, Endpoint] = {}
        self.tight: set[str] = set()  # stages that only hand missing values on, before a consumer that refuses them
        self.wanted_outputs = outputs
        self.inputs: dict[str, TensorSpec] = {}
        self.columns: dict[str, tuple[str, str]] = {}  # pipeline column -> (input, column)
        self.symbol_names: dict[tuple, str] = {}  # group of symbols -> its name in the pipeline's signature

    def _straight(self) -> dict[str, str]:
        names, wiring = list(self.stages), {}
        if names:
            wiring.update({f"{names[0]}.{i.name}": i.name for i in self.stages[names[0]].inputs})
        for a, b in itertools.pairwise(names):
            joined, problems = straight_wiring((a, self.stages[a]), (b, self.stages[b]))
            wiring.update(joined)
            self.problems += problems
        return wiring

    def fail(self) -> None:
        if self.problems:
            head = (
                self.problems[0]
                if len(self.problems) == 1
                else f"{len(self.problems)} problems:\n" + "\n".join(f"  - {p}" for p in self.problems)
            )
            raise SignatureError(f"the pipeline does not fit: {head}", problems=self.problems)

    # ---- endpoints

    def parse(self) -> None:
        for left, right in self.given.items():
            try:
                consumer, producer = parse_endpoint(left), parse_endpoint(right)
            except SignatureError as exc:
                self.problems.append(f"{exc.message}: {exc.hint}")
                continue
            if self._known(consumer, consuming=True) and (producer.stage is None or self._known(producer, consuming=False)):
                if consumer in self.consumers:
                    self.problems.append(f"{consumer} is fed twice")
                self.consumers[consumer] = producer

    def _known(self, end: Endpoint, *, consuming: bool) -> bool:
        if end.stage is None:
            self.problems.append(f"{end}: a consumer is stage.input, and {end.tensor!r} has no stage")
            return False
        if end.stage not in self.stages:
            self.problems.append(f"{end}: there is no stage {end.stage!r}{nearest(end.stage, self.stages)}")
            return False
        specs = self.stages[end.stage].inputs if consuming else self.stages[end.stage].outputs
        spec = next((s for s in specs if s.name == end.tensor), None)
        side = "input" if consuming else "output"
        if spec is None:
            self.problems.append(f"{end}: stage {end.stage!r} has no {side} {end.tensor!r}; it has {', '.join(s.name for s in specs)}")
            return False
        if end.column is not None and narrowed(spec, end.column) is None:
            self.problems.append(
                f"{end}: {side} {end.tensor!r} has no column {end.column!r}{nearest(end.column, [c.name for c in spec.columns])}"
            )
            return False
        return True

    def consumer_spec(self, end: Endpoint) -> TensorSpec:
        spec = narrowed(self.stages[end.stage].input(end.tensor), end.column)  # type: ignore[index]
        assert spec is not None
        return replace(spec, missing="refuse") if end.stage in self.tight else spec

    # ---- the pipeline's own inputs

    def make_inputs(self) -> None:
        whole: dict[str, list[TensorSpec]] = {}
        single: dict[str, list[TensorSpec]] = {}
        for consumer, producer in self.consumers.items():
            if producer.stage is None:
                spec = self._unfilled(consumer)
                (single if consumer.column is not None else whole).setdefault(producer.tensor, []).append(spec)
        for name, specs in whole.items():
            spec = _strictest(specs)  # its symbols are its own: two stages may each mean something else by `k`
            shape = tuple(f"{name}.{d}" if isinstance(d, str) and d != ROWS else d for d in spec.shape)
            self.inputs[name] = replace(spec, name=name, shape=shape)
        owner = {c.name: (i.name, c.name) for i in self.inputs.values() for c in i.columns}
        fields = []
        for name, specs in single.items():
            if name in self.inputs and not self.inputs[name].columns:
                self.problems.append(f"the pipeline input {name!r} is both a whole block and one column")
            elif name in owner:
                self.columns[name] = owner[name]
            elif name not in self.inputs:
                spec = _strictest(specs)
                fields.append(Field(replace(spec.columns[0], name=name), spec.dtype, spec.missing, spec.rounding))
        for spec in blocks(fields):
            named = spec
            while named.name in self.inputs:
                named = replace(named, name=named.name + "_columns")
            self.inputs[named.name] = named
            self.columns.update({c.name: (named.name, c.name) for c in named.columns})
        self.columns.update({k: v for k, v in owner.items() if k not in self.columns and k not in self.inputs})

    def _unfilled(self, consumer: Endpoint) -> TensorSpec:
        """Return a consumer's spec without the columns that edges of their own fill."""
        spec = self.consumer_spec(consumer)
        if consumer.column is not None:
            return spec
        own = {c.column for c in self.consumers if c[:2] == consumer[:2] and c.column is not None}
        left = tuple(c for c in spec.columns if c.name not in own)
        return spec if not own else replace(spec, shape=(spec.shape[0], len(left)), columns=left)

    def producer_spec(self, end: Endpoint) -> tuple[Endpoint, TensorSpec] | None:
        if end.stage is not None:
            spec = narrowed(self.stages[end.stage].output(end.tensor), end.column)
            if spec is not None and end.stage in self.tight:
                spec = replace(spec, missing="refuse")
            return None if spec is None else (end, spec)
        if end.tensor in self.columns and end.tensor not in self.inputs:
            block, column = self.columns[end.tensor]
            end = Endpoint(None, block, column)
        if end.tensor not in self.inputs:
            return None
        spec = narrowed(self.inputs[end.tensor], end.column)
        return None if spec is None else (end, spec)

    # ---- edges

    def feeds_of(self, stage: str) -> tuple[Feed, ...]:
        out = []
        for spec in self.stages[stage].inputs:
            ends = [c for c in self.consumers if c.stage == stage and c.tensor == spec.name]
            if not ends:
                self.problems.append(f"{stage}.{spec.name}: nothing feeds {str(spec)!r}; candidates: {', '.join(self._candidates(stage))}")
                continue
            if len(ends) == 1 and ends[0].column is None:
                edge = self._edge(ends[0], spec)
                out.append(Feed(spec, (edge,) if edge else ()))
                continue
            out.append(self._packed(spec, ends))
        return tuple(out)

    def _candidates(self, stage: str) -> list[str]:
        return [f"{s}.{o.name}" for s, sig in self.stages.items() if s != stage for o in sig.outputs][:8] + ["a pipeline input"]

    def _packed(self, spec: TensorSpec, ends: list[Endpoint]) -> Feed:
        names = [c.name for c in spec.columns]
        edges, places = [], []
        filled: set[int] = set()
        for end in ends:
            want = self._unfilled(end)
            index = tuple(names.index(c.name) for c in want.columns)
            filled.update(index)
            edge = self._edge(end, want)
            if edge is not None:
                edges.append(edge)
                places.append(index)
        absent = [n for i, n in enumerate(names) if i not in filled]
        if absent:
            self.problems.append(f"{ends[0].stage}.{spec.name}: nothing feeds the columns {', '.join(absent)}")
        return Feed(spec, tuple(edges), tuple(places))

    def _edge(self, consumer: Endpoint, want: TensorSpec) -> Edge | None:
        found = self.producer_spec(self.consumers[consumer])
        if found is None:
            self.problems.append(f"{self.consumers[consumer]} → {consumer}: there is no such producer")
            return None
        producer, have = found
        if consumer.stage in self.tight:
            want = replace(want, missing="refuse")
        if have.missing == "allow" and want.missing == "refuse" and self._hands_on(producer.stage):
            self.tight.add(producer.stage or "")
        steps, problems = fit(have, want, (producer.stage, consumer.stage or ""), self.symbols)
        if producer.stage in self.tight and want.missing == "refuse" and want.dtype.startswith("float"):
            steps = [*steps, Refuse(str(consumer))]
        if producer.column is not None:
            steps = _with_column_pick(self._full(producer), producer, have, steps)
        self.problems += [f"{producer} → {consumer}: {p}  [{have} → {want}]" for p in problems]
        return Edge(producer, consumer, tuple(steps))

    def _hands_on(self, stage: str | None) -> bool:
        """Whether a stage's missing answers can come from missing inputs, which the pipeline can refuse at its door."""
        return stage is not None and any(s.missing == "allow" for s in self.stages[stage].inputs)

    def _full(self, end: Endpoint) -> TensorSpec:
        return self.inputs[end.tensor] if end.stage is None else self.stages[end.stage].output(end.tensor)

    # ---- order and outputs

    def finish(self) -> Plan:
        self.parse()
        before, feeds = list(self.problems), {}
        for _ in range(len(self.stages) + 1):
            tight = set(self.tight)
            self.problems, self.symbols, self.inputs, self.columns = list(before), Symbols(), {}, {}
            self.make_inputs()
            feeds = {stage: self.feeds_of(stage) for stage in self.stages}
            if self.tight == tight:
                break
        needs = {s: {e.producer.stage for f in fs for e in f.edges if e.producer.stage is not None} for s, fs in feeds.items()}
        order, cycles = order_stages(self.stages, needs)
        self.problems += cycles
        read = {(e.producer.stage, e.producer.tensor) for fs in feeds.values() for f in fs for e in f.edges}
        outputs = self._outputs(read)
        if not cycles:
            self._unreachable(order, needs, outputs)
        self.fail()
        signature = Signature(
            tuple(self._resolved(None, s) for s in self.inputs.values()), tuple(self._output_spec(n, e) for n, e in outputs.items())
        )
        return Plan(signature, tuple(order), feeds, outputs, dict(self.given))

    def _outputs(self, read: set[tuple]) -> dict[str, Endpoint]:
        if self.wanted_outputs is not None:
            out = {}
            for name, text in self.wanted_outputs.items():
                try:
                    end = parse_endpoint(text)
                except SignatureError as exc:
                    self.problems.append(exc.message)
                    continue
                if end.stage is None:
                    self.problems.append(f"output {name!r}: {text!r} has no stage")
                elif self._known(end, consuming=False):
                    out[name] = end
            if not out and not self.problems:
                self.problems.append("a pipeline needs at least one output")
            return out
        free = [(s, o.name) for s, sig in self.stages.items() for o in sig.outputs if (s, o.name) not in read]
        ends = [s for s in self.stages if not any(p == s for p, _ in read)]  # only stages nobody reads answer by default
        free = [(s, o) for s, o in free if s in ends]
        names = [o for _, o in free]
        return {(o if names.count(o) == 1 else f"{s}_{o}"): Endpoint(s, o) for s, o in free}

    def _unreachable(self, order: list[str], needs: Mapping[str, set], outputs: Mapping[str, Endpoint]) -> None:
        useful = {e.stage for e in outputs.values()}
        for stage in reversed(order):
            if stage in useful:
                useful |= needs[stage]
        self.problems += [f"stage {s!r} is unreachable: no output needs it" for s in order if s not in useful]

    def _output_spec(self, name: str, end: Endpoint) -> TensorSpec:
        spec = narrowed(self.stages[end.stage].output(end.tensor), end.column)  # type: ignore[index]
        assert spec is not None
        missing = "refuse" if end.stage in self.tight else spec.missing
        return replace(self._resolved(end.stage, spec), name=name, missing=missing)

    def _resolved(self, stage: str | None, spec: TensorSpec) -> TensorSpec:
        dims: list[int | str | None] = []
        for d in spec.shape:
            if not isinstance(d, str):
                dims.append(d)
                continue
            size = self.symbols.size.get(self.symbols.find((stage, d)))
            if size is not None:
                dims.append(size)
            elif d == ROWS and not self.symbols.all_rows((stage, d)):
                dims.append("n" if stage is None else None)
            else:
                dims.append(d if d == ROWS else self._symbol((stage, d)))
        return replace(spec, shape=tuple(dims))

    def _symbol(self, key: tuple) -> str:
        """Name a group of joined symbols by its first one, numbered where another group has that name."""
        root, bare = self.symbols.find(key), key[1].rpartition(".")[2]
        if root not in self.symbol_names:
            taken, name = self.symbol_names.values(), bare
            for i in itertools.count(2):
                if name not in taken:
                    break
                name = f"{bare}{i}"
            self.symbol_names[root] = name
        return self.symbol_names[root]


def _strictest(specs: list[TensorSpec]) -> TensorSpec:
    """Return the spec whose values every one of these consumers takes, where there is one.

    It has the widest dtype and every column that one of them reads; a missing value or an unknown level that one consumer
    refuses is refused.
    """

    def width(spec: TensorSpec) -> tuple:
        kind = None if spec.dtype == "string" else np.dtype(spec.dtype)
        return (kind is not None and kind.kind == "f", kind.itemsize if kind is not None else 0, len(spec.columns))

    base = max(specs, key=width)
    missing: Literal["refuse", "allow"] = "refuse" if any(s.missing == "refuse" for s in specs) else "allow"
    refused = {c.name for s in specs for c in s.columns if c.categories is not None and c.unknown == "refuse"}
    order = dict.fromkeys(c.name for s in (base, *specs) for c in s.columns)
    union = {c.name: c for s in (*reversed(specs), base) for c in s.columns}
    columns = tuple(replace(union[n], unknown="refuse") if n in refused else union[n] for n in order)
    if len(columns) > len(base.columns):
        base = replace(base, shape=(base.shape[0], len(columns)), columns=())
    return replace(base, missing=missing, columns=columns)


def _with_column_pick(full: TensorSpec, end: Endpoint, have: TensorSpec, steps: list) -> list:
    from .steps import Columns

    if len(full.shape) != 2 or len(full.columns) <= 1:
        return steps
    index = [c.name for c in full.columns].index(end.column or "")
    return [Columns((index,), (end.column or "",)), *steps]


def build(stages: Mapping[str, Signature], wiring: Mapping[str, str] | None = None, outputs: Mapping[str, str] | None = None) -> Plan:
    """Check a pipeline.

    Parameters
    ----------
    stages : mapping of str to Signature
        In order.
    wiring : mapping of str to str, optional
        Consumer endpoint to producer endpoint; a straight line in the order of the stages unless given.
    outputs : mapping of str to str, optional
        Output name to endpoint; what the last stages give unless given.

    Raises
    ------
    SignatureError
        With every problem, each naming both ends.
    """
    return _Builder(stages, wiring, outputs).finish()
