"""Edges are judged from signatures alone."""

import itertools
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlbridge.errors import InputError, SignatureError
from mlbridge.pipeline.build import build
from mlbridge.pipeline.typing import Symbols, fit
from mlbridge.signature import Column, Signature, TensorSpec, label_spec, prediction_spec
from mlbridge.tensors import Coercion


def _sig(inputs, outputs):
    return Signature(tuple(inputs), tuple(outputs))


def _f(name, width, dtype="float64", columns=(), **rules):
    return TensorSpec(name, dtype, ("rows", width), tuple(Column(c) for c in columns), **rules)


A = _sig([_f("features", 2, columns=["age", "income"])], [_f("transformed", 2)])
B = _sig([_f("features", 2)], [prediction_spec()])


def test_a_straight_line_joins_one_output_to_one_input():
    plan = build({"a": A, "b": B})
    assert [str(e) for e in plan.edges] == ["features → a.features", "a.transformed → b.features"]
    assert [o.name for o in plan.signature.outputs] == ["prediction"]
    assert [c.name for c in plan.signature.columns] == ["age", "income"]


def test_rounding_is_shown():
    c = _sig([_f("features", 2, "float32", rounding="nearest")], [prediction_spec()])
    assert "cast float64→float32, rounds" in str(build({"a": A, "c": c}).edges[1])


def test_a_reshape_is_shown():
    c = _sig([_f("features", 1)], [prediction_spec(name="p")])
    d = _sig([_f("features", 2)], [prediction_spec()])
    assert "reshape (rows,)→(rows, 1)" in str(build({"d": d, "c": c}).edges[1])


def test_columns_are_put_in_the_consumers_order():
    a = _sig([_f("features", 2)], [_f("t", 2, columns=["x", "y"])])
    b = _sig([_f("features", 2, columns=["y", "x"])], [prediction_spec()])
    assert "columns y, x" in str(build({"a": a, "b": b}).edges[1])


def test_levels_are_recoded():
    a = _sig([_f("features", 1)], [label_spec(["x", "y"])])
    b = _sig([TensorSpec("k", "int32", ("rows", 1), (Column("k", categories=("z", "y", "x")),))], [prediction_spec()])
    edge = build({"a": a, "b": b}).edges[1]
    assert "recode k" in str(edge)
    assert edge(np.array([0, 1], np.int32)).tolist() == [[2], [1]]


def _levels(name, *known, **rules):
    return TensorSpec(name, "int32", ("rows",), (Column(name, categories=known),), **rules)


MISMATCHES = {
    "size": (_f("t", 3), _f("f", 2), "size 3 and the consumer wants 2"),
    "rank": (TensorSpec("t", "float64", ("rows", 2, 2)), _f("f", 2), "3 axes do not fit 2"),
    "any size": (TensorSpec("t", "float64", ("rows", None)), _f("f", 2), "any size"),
    "batch": (TensorSpec("t", "float64", ("rows", 2)), TensorSpec("f", "float64", (4, 2)), "the batch axis does not fit the fixed size 4"),
    "missing": (_f("t", 2, missing="allow"), _f("f", 2), "missing values"),
    "rounding": (_f("t", 2), _f("f", 2, "float32"), "mlbridge.cast('float32')"),
    "narrowing": (_f("t", 2, "int64"), _f("f", 2, "int8"), "int64 would lose values as int8"),
    "text": (TensorSpec("t", "string", ("rows", 2)), _f("f", 2), "string does not fit"),
    "columns": (_f("t", 2, columns=["a", "b"]), _f("f", 2, columns=["a", "c"]), "lacks the columns c"),
    "level": (_levels("t", "p", "q"), _levels("f", "p"), "does not know the levels 'q'"),
    "categories": (_levels("t", "p", "q"), _f("f", 1), "gives categories"),
    "numbers": (_f("t", 1), _levels("f", "p"), "it gives none"),
    "unknown": (
        TensorSpec("t", "int32", ("rows",), (Column("t", categories=("p",), unknown="keep"),)),
        _levels("f", "p"),
        "keeps unknown levels",
    ),
    "unit": (
        TensorSpec("t", "float64", ("rows", 1), (Column("a", unit="EUR"),)),
        TensorSpec("f", "float64", ("rows", 1), (Column("a", unit="USD"),)),
        "in EUR",
    ),
}


def _pair(*kinds):
    """A producer and a consumer whose i-th tensors do not fit, each in the way named."""
    outs = [replace(MISMATCHES[k][0], name=f"t{i}", columns=_own(MISMATCHES[k][0], i)) for i, k in enumerate(kinds)]
    ins = [replace(MISMATCHES[k][1], name=f"f{i}", columns=_own(MISMATCHES[k][1], i)) for i, k in enumerate(kinds)]
    stages = {"a": _sig([_f("x", 1)], outs), "b": _sig(ins, [prediction_spec()])}
    return stages, {"a.x": "x"} | {f"b.f{i}": f"a.t{i}" for i in range(len(kinds))}


def _own(spec, i):
    return tuple(replace(c, name=f"{c.name}{i}" if i else c.name) for c in spec.columns)


@pytest.mark.parametrize("kind", MISMATCHES)
def test_each_mismatch_alone_is_named_with_both_ends(kind):
    with pytest.raises(SignatureError) as caught:
        build(*_pair(kind))
    (problem,) = caught.value.problems
    text, specs = problem.split("  [")
    assert MISMATCHES[kind][2] in text
    assert "a.t0 → b.f0" in text
    assert "; " in text, "a problem comes with its remedy"
    assert specs == f"{_pair(kind)[0]['a'].output('t0')} → {_pair(kind)[0]['b'].input('f0')}]"


@pytest.mark.parametrize("kinds", list(itertools.combinations(MISMATCHES, 3)), ids="+".join)
def test_three_mismatches_come_together(kinds):
    with pytest.raises(SignatureError) as caught:
        build(*_pair(*kinds))
    assert len(caught.value.problems) == 3
    for i, (kind, problem) in enumerate(zip(kinds, caught.value.problems)):
        assert f"a.t{i} → b.f{i}" in problem
        assert MISMATCHES[kind][2].split("levels c")[0].split("columns c")[0] in problem


def test_one_symbol_has_one_size_across_the_whole_graph():
    a = _sig([_f("x", 1)], [_f("p", 3), _f("q", 2)])
    b = _sig([TensorSpec("p", "float64", ("rows", "k")), TensorSpec("q", "float64", ("rows", "k"))], [prediction_spec()])
    with pytest.raises(SignatureError, match="k is 3 elsewhere and 2 here"):
        build({"a": a, "b": b})


def test_two_stages_may_mean_different_sizes_by_one_symbol():
    wide = [TensorSpec("x", "float64", ("rows", "k"))], [TensorSpec("y", "float64", ("rows", "k"))]
    stages = {"a": _sig(*wide), "b": _sig(*wide), "c": _sig([_f("p", 3)], [prediction_spec()])}
    wiring = {"a.x": "u", "b.x": "v", "c.p": "a.y"}
    plan = build(stages, wiring, {"prediction": "c.prediction", "y": "b.y"})
    assert [s.shape for s in plan.signature.inputs] == [("rows", 3), ("rows", "k")]
    assert plan.signature.output("y").shape == ("rows", "k")
    free = build({"a": stages["a"], "b": stages["b"]}, {"a.x": "u", "b.x": "v"})
    assert [s.shape for s in (*free.signature.inputs, *free.signature.outputs)] == [("rows", "k"), ("rows", "k2")] * 2


@pytest.mark.parametrize(
    ("wiring", "words"),
    [
        ({"b.features": "a.transformed", "a.features": "features", "c.features": "a.transformed"}, "there is no stage 'c'"),
        ({"b.features": "a.transformd", "a.features": "features"}, "has no output 'transformd'"),
        ({"b.features[z]": "a.transformed", "a.features": "features"}, "has no column 'z'"),
        ({"b.features": "a.transformed"}, "nothing feeds"),
        ({"features": "a.transformed", "a.features": "features"}, "has no stage"),
        ({"b..x": "a.transformed", "a.features": "features"}, "is not an endpoint"),
    ],
    ids=["stage", "output", "column", "unfed", "no stage", "no endpoint"],
)
def test_wiring_that_leads_nowhere_is_an_error(wiring, words):
    with pytest.raises(SignatureError, match=words):
        build({"a": A, "b": B}, wiring)


@pytest.mark.parametrize("name", ["a.b", "a[b]", "a b", "", "a/b"])
def test_a_name_that_cannot_be_wired_is_an_error(name):
    with pytest.raises(SignatureError, match="a stage's name"):
        build({name: A})


def test_cycles_and_unreachable_stages_are_errors():
    s = _sig([_f("f", 1)], [_f("t", 1)])
    with pytest.raises(SignatureError, match="cycle"):
        build({"a": s, "b": s}, {"a.f": "b.t", "b.f": "a.t"})
    with pytest.raises(SignatureError, match="unreachable"):
        build({"a": s, "b": s}, {"a.f": "x", "b.f": "x"}, {"y": "a.t"})


def test_wrong_names_get_the_nearest_one():
    with pytest.raises(SignatureError) as caught:
        build({"prep": A, "fraud": B}, {"prep.features": "features", "fraud.features": "prp.transformed"})
    assert "did you mean 'prep'" in str(caught.value)


def test_a_column_of_a_block_is_wired_alone():
    score = _sig([_f("features", 2, columns=["age", "income"])], [prediction_spec(name="risk")])
    final = _sig([_f("features", 3, columns=["age", "income", "risk"])], [prediction_spec()])
    plan = build(
        {"score": score, "final": final},
        {"score.features": "features", "final.features": "features", "final.features[risk]": "score.risk"},
    )
    feed = plan.feeds["final"][0]
    assert sorted(p for places in feed.places for p in places) == [0, 1, 2]
    assert [c.name for c in plan.signature.columns] == ["age", "income"]


def test_stages_that_read_other_columns_of_one_table_share_an_input_that_holds_them_all():
    a = _sig([_f("features", 2, columns=["age", "income"])], [prediction_spec()])
    b = _sig([_f("features", 3, columns=["income", "debt", "years"])], [prediction_spec()])
    plan = build({"a": a, "b": b}, {"a.features": "features", "b.features": "features"}, {"x": "a.prediction", "y": "b.prediction"})
    assert [c.name for c in plan.signature.input("features").columns] == ["income", "debt", "years", "age"]
    assert plan.signature.input("features").shape == ("rows", 4)
    assert {str(e) for e in plan.edges} == {
        "features → a.features  (columns age, income)",
        "features → b.features  (columns income, debt, years)",
    }


def test_a_level_that_one_stage_refuses_is_refused_for_all():
    def team(levels, unknown, *more):
        columns = (Column("plan", categories=levels, unknown=unknown), *(Column(m, categories=("p", "q")) for m in more))
        return _sig([TensorSpec("categorical", "int32", ("rows", len(columns)), columns)], [prediction_spec()])

    plan = build(
        {"a": team(("basic", "gold"), "refuse"), "b": team(("basic", "gold"), "keep", "region")},
        {"a.categorical": "categorical", "b.categorical": "categorical"},
        {"x": "a.prediction", "y": "b.prediction"},
    )
    assert [(c.name, c.unknown) for c in plan.signature.input("categorical").columns] == [("plan", "refuse"), ("region", "refuse")]


def test_an_empty_pipeline_is_refused():
    with pytest.raises(SignatureError, match="at least one stage"):
        build({})


DTYPES = ["bool", "int8", "int32", "int64", "uint8", "float32", "float64"]


@st.composite
def specs(draw, name):
    dtype = draw(st.sampled_from(DTYPES))
    width = draw(st.integers(1, 3))
    rank1 = draw(st.booleans())
    rules = {"missing": draw(st.sampled_from(["refuse", "allow"])) if dtype.startswith("float") else "refuse"}
    if dtype == "float32":
        rules["rounding"] = draw(st.sampled_from(["refuse", "nearest"]))
    return TensorSpec(name, dtype, ("rows",) if rank1 else ("rows", width), **rules)


def _values(spec):
    """The hardest values a producer of this spec may give."""
    shape = (4, *spec.shape[1:])
    kind = np.dtype(spec.dtype)
    if kind.kind == "f":
        pool = [0.1, -1e30, np.inf, 3.0] + ([np.nan] if spec.missing == "allow" else [])
        if kind == np.float64:
            pool.append(1e-40)
    elif kind.kind == "b":
        pool = [True, False]
    else:
        low, high = np.iinfo(kind).min, np.iinfo(kind).max
        pool = [low, high, 1] if kind.itemsize < 8 else [-(2**53), 2**53, 1]
    return np.resize(np.array(pool, kind), shape)


@settings(max_examples=400, deadline=None)
@given(specs("p"), specs("c"))
def test_the_checker_accepts_exactly_what_the_coercion_takes(producer, consumer):
    _, problems = fit(producer, consumer, ("a", "b"), Symbols())
    values = _values(producer)
    rank1 = producer.shape == ("rows",) or producer.shape == ("rows", 1)
    if rank1 and consumer.shape in (("rows",), ("rows", 1)):
        values = values.reshape(-1) if consumer.shape == ("rows",) else values.reshape(-1, 1)
    try:
        Coercion(_sig([consumer], [prediction_spec()])).feeds({"c": values})
        runs = True
    except InputError:
        runs = False
    if producer.missing == "allow" and consumer.missing == "refuse":
        assert problems
    else:
        assert (not problems) == runs
