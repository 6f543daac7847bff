"""Whole random graphs of random signatures: the checker accepts exactly those that a slow executor runs.

The slow executor knows no typing rules. It gives every stage the hardest values its producers may give, as the values a
person would pass (levels, not codes), through the coercion that every model has at its door, and sees what is refused.
"""

import itertools

import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from mlbridge.errors import InputError, SignatureError
from mlbridge.pipeline.build import build
from mlbridge.signature import Column, Signature, TensorSpec
from mlbridge.tensors import Coercion

ROWS = 6
LEVELS = ("p", "q", "r")
DTYPES = ["bool", "int8", "int32", "int64", "uint8", "float32", "float64", "string", "levels"]
WIDTHS = [1, 2, 3, "k"]


# ---------------------------------------------------------------- graphs


@st.composite
def specs(draw, name, columned, kinds):
    kind = draw(st.sampled_from(kinds))
    if kind == "levels":
        known = tuple(draw(st.permutations(LEVELS)))[: draw(st.integers(1, 3))]
        column = Column("c", categories=known, unknown=draw(st.sampled_from(["refuse", "keep"])))
        shape = draw(st.sampled_from([("rows",), ("rows", 1)]))
        return TensorSpec(name, "int32", shape, (column,), draw(st.sampled_from(["refuse", "allow"])))
    width = draw(st.sampled_from([None, *WIDTHS]))
    columns = ()
    if columned and isinstance(width, int):
        units = st.sampled_from([None, None, "date", "timestamp"]) if kind == "float64" else st.none()
        columns = tuple(Column(c, unit=draw(units)) for c in draw(st.permutations("uvw"))[:width])
    missing = draw(st.sampled_from(["refuse", "allow"])) if kind.startswith("float") else "refuse"
    rounding = draw(st.sampled_from(["refuse", "nearest"])) if kind == "float32" else "refuse"
    return TensorSpec(name, kind, ("rows",) if width is None else ("rows", width), columns, missing, rounding)


@st.composite
def graphs(draw):
    """Return stages in order and their wiring; every pipeline input feeds one consumer."""
    kinds = draw(st.lists(st.sampled_from(DTYPES), min_size=1, max_size=3))  # few at a time, or hardly an edge would fit
    stages, wiring = {}, {}
    for i in range(draw(st.integers(2, 4))):
        earlier = [f"{s}.{o.name}" for s, sig in stages.items() for o in sig.outputs]
        inputs = []
        for j in range(draw(st.integers(1, 2))):
            source = draw(st.sampled_from([*earlier, None])) if earlier else None
            spec = draw(specs(f"i{j}", j == 0, kinds))
            if j == 0 and len(spec.columns) > 1 and earlier and draw(st.booleans()):
                for c in spec.columns:  # one by one, each from whoever has such a column, else from the caller
                    have = [f"{e}[{c.name}]" for e in earlier if c.name in _column_names(stages, e)]
                    wiring[f"s{i}.i{j}[{c.name}]"] = draw(st.sampled_from([*have, f"s{i}_{c.name}"]))
                inputs.append(spec)
                continue
            if source is None:  # columns of pipeline inputs share one table: names of their own
                spec = _renamed(spec, f"s{i}_{j}_")
            elif j:
                spec = _renamed(spec, f"{j}")
            inputs.append(spec)
            wiring[f"s{i}.i{j}"] = source or f"x{i}{j}"
        outputs = [draw(specs(f"o{j}", j == 0, kinds)) for j in range(draw(st.integers(1, 2)))]
        stages[f"s{i}"] = Signature(tuple(inputs), tuple(_renamed(o, "o") if j else o for j, o in enumerate(outputs)))
    return stages, wiring


def _column_names(stages, end):
    stage, name = end.split(".")
    return [c.name for c in stages[stage].output(name).columns]


def _renamed(spec, prefix):
    columns = tuple(Column(prefix + c.name, categories=c.categories, unknown=c.unknown, unit=c.unit) for c in spec.columns)
    return TensorSpec(spec.name, spec.dtype, spec.shape, columns, spec.missing, spec.rounding)


# ---------------------------------------------------------------- the slow executor


def _hardest(spec, sizes, *, missing):
    """The hardest values of a spec: level values for categories, None and NaN for what is missing."""
    if spec.categorical:
        pool = [*spec.columns[0].categories, *(["other"] if spec.columns[0].unknown == "keep" else []), *([None] if missing else [])]
    elif spec.dtype == "string":
        pool = ["", "1", "žluť"]
    elif spec.dtype == "bool":
        pool = [True, False]
    elif spec.dtype.startswith("float"):
        pool = [0.1, -1e30, np.inf, 3.0, *([1e-40] if spec.dtype == "float64" else []), *([np.nan] if missing else [])]
    else:
        info = np.iinfo(spec.dtype)
        pool = [max(info.min, -(2**53)), min(info.max, 2**53), 1]
    values = np.array(pool, object if spec.categorical or spec.dtype == "string" else spec.dtype)
    shape = (ROWS, *(sizes.get(d, d) for d in spec.shape[1:]))
    width = shape[1] if len(shape) == 2 else 1  # every column holds every value once: consumers may read one alone
    assert len(values) <= ROWS
    return np.array([values[(i + j) % len(values)] for i in range(ROWS) for j in range(width)], values.dtype).reshape(shape)


def _handed_over(values, producer, consumer):
    """What a person who reads both specs would pass: named columns by name, one value a row with or without its axis."""
    if producer.categorical != consumer.categorical:
        raise InputError("stages hand on codes: a level is neither text nor a number, and the other way round")
    units = {c.name: c.unit for c in producer.columns if c.unit}
    if len(producer.columns) == len(consumer.columns) == 1:
        units = {c.name: p.unit for p, c in zip(producer.columns, consumer.columns) if p.unit}
    if any(c.unit and c.unit != units.get(c.name, c.unit) for c in consumer.columns):
        raise InputError("days are no seconds")
    have, want = [c.name for c in producer.columns], [c.name for c in consumer.columns]
    if have and want and not (len(have) == len(want) == 1):
        if not set(want) <= set(have):
            raise InputError("a column is missing")
        values = values[:, [have.index(n) for n in want]] if values.ndim == 2 else values
    tails = [() if not s.shape[1:] else s.shape[1] if not s.columns else len(s.columns) for s in (producer, consumer)]
    if have and want:
        tails[0] = len(want) if producer.shape[1:] else ()
    if tails == [1, ()]:
        return values.reshape(ROWS)
    if tails == [(), 1]:
        return values.reshape(ROWS, 1)
    if (tails[0] == ()) != (tails[1] == ()):
        raise InputError("a symbol is no promise of one")
    return values


def _missing(values):
    return any(v is None or v != v for v in values.ravel().tolist())


def slow_run(stages, wiring, sizes, allowed=frozenset()):
    """Run the graph; InputError where a stage refuses. Pipeline inputs hold missing values only where `allowed` names them."""
    given, answers = {}, {}
    for stage, signature in stages.items():
        local = {d: sizes[stage, d] for s in (*signature.inputs, *signature.outputs) for d in s.shape[1:] if isinstance(d, str)}
        seen_missing = False
        for spec in signature.inputs:
            if f"{stage}.{spec.name}" not in wiring:
                values = np.concatenate(
                    [_one_column(c, wiring[f"{stage}.{spec.name}[{c.name}]"], spec, answers, allowed) for c in spec.columns], 1
                )
                given[stage, spec.name] = values
                seen_missing |= _missing(values)
                continue
            source = wiring[f"{stage}.{spec.name}"]
            if source in answers:
                values = _handed_over(*answers[source], spec)
            else:
                values = _hardest(spec, local, missing=source in allowed)
            if len(spec.shape) == 2 and values.ndim == 2 and values.shape[1] != local.get(spec.shape[1], spec.shape[1]):
                raise InputError("another width")
            x = {c.name: values.reshape(ROWS, -1)[:, i] for i, c in enumerate(spec.columns)} if spec.categorical else {spec.name: values}
            feeds, _ = Coercion(Signature((spec,), (TensorSpec("y", "float64", ("rows",)),))).feeds(x)
            given[stage, spec.name] = feeds[spec.name]
            seen_missing |= _missing(values)
        hands_on = any(s.missing == "allow" for s in signature.inputs)
        for spec in signature.outputs:
            some = spec.missing == "allow" and (seen_missing or not hands_on)
            answers[f"{stage}.{spec.name}"] = _hardest(spec, local, missing=some), spec
    return given, answers


def _one_column(column, source, spec, answers, allowed):
    """One column of an input as its consumer's door lets it in."""
    want = TensorSpec("c", spec.dtype, ("rows", 1), (column,), spec.missing, spec.rounding)
    end = source.split("[")[0]
    if end in answers:
        values, have = answers[end]
        at = [c.name for c in have.columns].index(source.split("[")[1][:-1])
        one = TensorSpec("c", have.dtype, ("rows", 1), (have.columns[at],), have.missing, have.rounding)
        values = _handed_over(values.reshape(ROWS, -1)[:, at : at + 1], one, want)
    else:
        values = _hardest(want, {}, missing=source in allowed)
    x = {column.name: values[:, 0]} if want.categorical else {"c": values}
    return Coercion(Signature((want,), (TensorSpec("y", "float64", ("rows",)),))).feeds(x)[0]["c"]


def _every_size(stages):
    keys = sorted({(s, d) for s, sig in stages.items() for t in (*sig.inputs, *sig.outputs) for d in t.shape[1:] if isinstance(d, str)})
    for sizes in itertools.product([1, 2, 3], repeat=len(keys)):
        yield dict(zip(keys, sizes))


def _runs(stages, wiring):
    """The sizes it runs with, or None."""
    for sizes in _every_size(stages):
        try:
            slow_run(stages, wiring, sizes)
        except InputError:
            continue
        return sizes
    return None


# ---------------------------------------------------------------- the claims


@settings(max_examples=250, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much])
@given(graphs())
def test_the_checker_accepts_exactly_the_graphs_that_run(graph):
    stages, wiring = graph
    sizes, problems = _runs(stages, wiring), _problems(stages, wiring)
    assert (sizes is not None) == (not problems), f"it runs with {sizes}, and the checker says {problems}"
    assert all(" → " in p for p in problems)


def _problems(stages, wiring):
    """What the checker says of a graph; nothing where it accepts."""
    try:
        build(stages, wiring)
    except SignatureError as exc:
        return exc.problems
    return ()


@settings(max_examples=200, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much])
@given(graphs())
def test_what_is_accepted_runs_with_missing_values_where_its_inputs_allow_them_and_the_edges_make_the_same_arrays(graph):
    stages, wiring = graph
    try:
        plan = build(stages, wiring)
    except SignatureError:
        assume(False)
    allowed = {s.name for s in plan.signature.inputs if s.missing == "allow"}
    given_, answers = slow_run(stages, wiring, _runs(stages, wiring), allowed)
    for stage, feeds in plan.feeds.items():
        for feed in feeds:
            if feed.places or feed.edges[0].producer.stage is None:  # columns wired one by one; what the caller gives
                continue
            (edge,) = feed.edges
            values, spec = answers[f"{edge.producer.stage}.{edge.producer.tensor}"]
            with np.errstate(over="ignore", under="ignore"):
                made = edge(_coded(values, spec))
            np.testing.assert_array_equal(made, given_[stage, feed.spec.name])
            assert made.dtype == given_[stage, feed.spec.name].dtype


def _coded(values, spec):
    """A producer's answer as sessions speak it: level codes, -1 missing, k unknown."""
    if not spec.categorical:
        return values
    levels = list(spec.columns[0].categories)
    codes = [-1 if v is None else levels.index(v) if v in levels else len(levels) for v in values.ravel()]
    return np.array(codes, np.int32).reshape(values.shape)


@pytest.mark.full
@settings(max_examples=20_000, deadline=None, suppress_health_check=list(HealthCheck))
@given(graphs())
def test_the_checker_accepts_exactly_the_graphs_that_run_over_many(graph):
    test_the_checker_accepts_exactly_the_graphs_that_run.hypothesis.inner_test(graph)
