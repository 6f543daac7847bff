"""Categories: StringIndexer, IndexToString, OneHotEncoder, VectorIndexer, Bucketizer, Binarizer."""

from __future__ import annotations

import itertools
from collections.abc import Mapping

import numpy as np

from ...errors import ConversionError
from .flow import Attr, Col, Flow, Origin
from .registry import Need, stage
from .schema import java_value
from .stage import Stage


def indexer_labels(stage: Stage) -> list[tuple[str, ...]]:
    """Return the labels of every column a StringIndexer learned; folders before Spark 3 hold one list."""
    row = stage.row()
    lists = row["labelsArray"] if "labelsArray" in row else [row["labels"]]
    if len(lists) != len(stage.sources) or not all(isinstance(v, str) for one in lists for v in one):
        raise stage.wrong("its labels do not fit its columns")
    return [tuple(one) for one in lists]


def _indexer_reads(stage: Stage, widths: Mapping[str, int]) -> list[Need]:
    refuse = stage.invalid == "error"
    return [
        Need(c, "category", missing="refuse" if refuse else "allow", labels=labels, unknown="refuse" if refuse else "keep")
        for c, labels in zip(stage.sources, indexer_labels(stage))
    ]


@stage("StringIndexerModel", reads=_indexer_reads, note="error, skip, keep; numbers are matched by value, -0.0 apart")
def string_indexer(flow: Flow, stage: Stage) -> None:
    for source, target, labels in zip(stage.sources, stage.targets, indexer_labels(stage)):
        if not flow.has(source):
            continue  # Spark skips an absent column: it was the label
        col = flow.made(source)
        if col.vector or not col.plain:
            raise ConversionError(f"StringIndexer reads column {source!r}, which is not a category here")
        index, bad = _index_codes(flow, col, labels) if col.levels is not None else _index_numbers(flow, col, labels)
        if bad and stage.invalid == "error":
            values_known = col.levels is not None or flow.limit(col.attrs, -np.inf, np.inf, only=_label_numbers(labels))
            flow.fail(bad, known=values_known)
        elif bad and stage.invalid == "skip":
            flow.drop(bad)
        values = (*labels, "__unknown") if stage.invalid == "keep" else labels
        origin = None
        if col.levels is not None:
            by_level = {v: i for i, v in enumerate(col.levels)}
            codes = [by_level.get(v, len(col.levels)) for v in labels] + [len(col.levels)] * (stage.invalid == "keep")
            origin = Origin(source, "index", tuple(codes))
        attr = Attr(target, "nominal", values, len(values), origin)
        flow.put_number(target, flow.double(index), attr=attr, codes=index, nan=False)


def _label_numbers(labels: tuple[str, ...]) -> tuple[float, ...]:
    return tuple(v for v in map(java_value, labels) if not np.isnan(v))


def _index_codes(flow: Flow, col: Col, labels: tuple[str, ...]) -> tuple[str, str]:
    """Map codes of levels to label indices; len(labels) where there is none."""
    g, k = flow.graph, len(labels)
    place = {v: i for i, v in enumerate(labels)}
    assert col.levels is not None
    table = [place.get(v, k) for v in col.levels] + [k]
    codes = g.cast(col.value, "int64")
    known = g.add("And", g.add("GreaterOrEqual", codes, flow.ints(0)), g.add("Less", codes, flow.ints(len(col.levels))))
    codes = g.add("Where", known, codes, flow.ints(len(col.levels)))
    index = codes if table == list(range(k + 1)) else g.add("Gather", flow.ints(table), codes)
    return index, g.add("Equal", index, flow.ints(k))


def _index_numbers(flow: Flow, col: Col, labels: tuple[str, ...]) -> tuple[str, str]:
    """Match numbers with labels that Java wrote from numbers."""
    g, k = flow.graph, len(labels)
    try:
        values = np.array([java_value(v) for v in labels])
    except (ValueError, KeyError) as exc:
        raise ConversionError(f"a numeric column is indexed by labels that are no numbers: {exc}") from exc
    number = np.where(np.isnan(values), 0, values)
    match = g.add("And", flow.op("Equal", col.value, number[None]), g.const(~np.isnan(values)[None]))
    if (values == 0).any():
        below = flow.op("Less", flow.op("Div", 1.0, col.value), 0.0)  # only 1/x tells -0.0 from 0.0
        negative = np.signbit(values) & (values == 0)
        right = g.add("Equal", below, g.const(negative[None]))
        match = g.add("And", match, g.add("Or", right, g.const((values != 0)[None])))
    if np.isnan(values).any():
        match = g.add("Or", match, g.add("And", g.add("IsNaN", col.value), g.const(np.isnan(values)[None])))
    found = flow.any(match)
    index = g.add("Where", found, g.add("ArgMax", g.cast(match, "int32"), axis=1, keepdims=1), flow.ints(k))
    return index, g.add("Not", found)


def _index_to_string_reads(stage: Stage, widths: Mapping[str, int]) -> list[Need]:
    return [Need(stage.text("inputCol"))]


@stage("IndexToString", reads=_index_to_string_reads, note="labels given, or those of the StringIndexer behind the column")
def index_to_string(flow: Flow, stage: Stage) -> None:
    col = flow.number(stage, stage.text("inputCol"))
    labels = restored_labels(flow, stage)
    if not labels:
        raise ConversionError(f"IndexToString: column {stage.text('inputCol')!r} carries no labels")
    g = flow.graph
    index = col.codes or g.cast(col.value, "int64")
    outside = g.add("Or", g.add("Less", index, flow.ints(0)), g.add("GreaterOrEqual", index, flow.ints(len(labels))))
    attr = col.attrs[0] if col.attrs else Attr()
    fits = attr.count is not None and attr.count <= len(labels)
    flow.fail(outside, known=fits or flow.limit(col.attrs, 0, len(labels) - 1, only=tuple(map(float, range(len(labels))))))
    flow.put(stage.text("outputCol"), Col(g.cast(index, "int32"), levels=tuple(labels), nan=False))


def restored_labels(flow: Flow, stage: Stage) -> tuple[str, ...]:
    """Return the labels an IndexToString writes: its own, else those its input's attribute carries."""
    if stage.has("labels") and stage.texts("labels"):
        return tuple(stage.texts("labels"))
    attrs = flow.get(stage.text("inputCol")).attrs
    return (attrs[0].values or ()) if attrs else ()


@stage("OneHotEncoderModel", note="dropLast; error, keep")
def one_hot(flow: Flow, stage: Stage) -> None:
    sizes, keep, drop_last = stage.row()["categorySizes"], stage.invalid == "keep", stage.flag("dropLast")
    if len(sizes) != len(stage.sources):
        raise stage.wrong("its sizes do not fit its columns")
    for source, target, size in zip(stage.sources, stage.targets, map(int, sizes)):
        col = flow.number(stage, source)
        g = flow.graph
        width = size + keep - drop_last
        if col.codes is None:
            inside = g.add("And", flow.op("GreaterOrEqual", col.value, 0.0), flow.op("Less", col.value, float(size)))
            index = g.cast(flow.op("Where", inside, g.add("Floor", col.value), float(size)), "int64")
        else:
            inside = g.add("And", g.add("GreaterOrEqual", col.codes, flow.ints(0)), g.add("Less", col.codes, flow.ints(size)))
            index = g.add("Where", inside, col.codes, flow.ints(size))
        if not keep:
            attr = col.attrs[0] if col.attrs else Attr()
            fits = attr.count is not None and attr.count <= size
            flow.fail(g.add("Not", inside), known=fits or flow.limit(col.attrs, 0, size - 1, only=tuple(map(float, range(size)))))
        value = flow.double(g.add("Equal", index, flow.ints(np.arange(width)[None])))
        flow.put_vector(target, value, width, _one_hot_attrs(col, size, width), nan=False)


def _one_hot_attrs(col: Col, size: int, width: int) -> list[Attr]:
    attr = col.attrs[0] if col.attrs else Attr()
    names = list(attr.values or ())
    names = [names[i] if i < len(names) else ("invalidValues" if i == size else str(i)) for i in range(width)]
    origin = attr.origin
    known = origin is not None and origin.how == "index"
    return [
        Attr(
            n,
            "binary",
            origin=Origin(origin.column, "level", origin.codes[i : i + 1]) if known and origin and i < len(origin.codes) else None,
        )
        for i, n in enumerate(names)
    ]


def _vector_in(stage: Stage, widths: Mapping[str, int]) -> list[Need]:
    return [Need(stage.text("inputCol"), "vector", int(stage.row()["numFeatures"]))]


@stage("VectorIndexerModel", reads=_vector_in, note="error, skip, keep")
def vector_indexer(flow: Flow, stage: Stage) -> None:
    row, g = stage.row(), flow.graph
    n = int(row["numFeatures"])
    col = flow.vector(stage, stage.text("inputCol"), n)
    maps = {int(f): dict(pairs) for f, pairs in row["categoryMaps"]}
    attrs = list(col.attrs or [Attr()] * n)
    parts, here, hidden = [], 0, ""
    for f in sorted(maps):
        if not 0 <= f < n:
            raise stage.wrong(f"feature {f} of {n}")
        if f > here:
            parts.append(flow.take(col.value, range(here, f)))
        here = f + 1
        keys = sorted(maps[f])
        x = flow.take(col.value, [f])
        match = flow.op("Equal", x, np.array(keys)[None])
        found = flow.any(match)
        if col.compressed and 0.0 not in keys:
            hidden = hidden or is_sparse(flow, col)
            found = g.add("Or", found, g.add("And", hidden, flow.op("Equal", x, 0.0)))  # the product below gives these 0
        places = np.array([float(maps[f][k]) for k in keys])
        value = flow.op("MatMul", flow.double(match), places[:, None])
        if stage.invalid == "keep":
            value = flow.op("Where", found, value, float(len(keys)))
        elif stage.invalid == "skip":
            flow.drop(g.add("Not", found))
        else:
            flow.fail(g.add("Not", found), known=flow.limit(attrs[f : f + 1], -np.inf, np.inf, only=tuple(keys)))
        parts.append(value)
        attrs[f] = _indexed_attr(attrs[f], maps[f], keys)
    if here < n:
        parts.append(flow.take(col.value, range(here, n)))
    flow.put_vector(stage.text("outputCol"), g.concat(parts), n, attrs, nan=col.nan)


def is_sparse(flow: Flow, col: Col) -> str:
    """Return ("rows", 1): whether Spark stores the vector sparse, so that VectorIndexer does not see its zeros."""
    zero = flow.double(flow.op("Equal", col.value, 0.0))
    filled = flow.op("Sub", float(col.width), flow.sum(zero))
    return flow.op("Less", flow.op("Mul", flow.op("Add", filled, 1.0), 1.5), float(col.width))


def _indexed_attr(attr: Attr, places: Mapping[float, int], keys: list[float]) -> Attr:
    origin = attr.origin
    by_place = tuple(k for k, _ in sorted(places.items(), key=lambda kv: kv[1]))
    if origin is not None and origin.how == "value":
        origin = Origin(origin.column, "number", by_place, within=origin.within)
    elif origin is not None and origin.how == "index" and all(k.is_integer() and 0 <= k < len(origin.codes) for k in by_place):
        origin = Origin(origin.column, "index", tuple(origin.codes[int(k)] for k in by_place))
    else:
        origin = None
    kind = "binary" if len(keys) == 2 else "nominal"
    return Attr(attr.name, kind, tuple(map(str, keys)), len(keys), origin)


def _bucketizer_reads(stage: Stage, widths: Mapping[str, int]) -> list[Need]:
    return [Need(c, missing="refuse" if stage.invalid == "error" else "allow") for c in stage.sources]


@stage("Bucketizer", reads=_bucketizer_reads, note="also what QuantileDiscretizer saves; error, skip, keep for NaN; out of bounds raises")
def bucketizer(flow: Flow, stage: Stage) -> None:
    many = stage.has("splitsArray") and stage.has("inputCols")
    raw = stage.params.get("splitsArray") if many else [stage.params.get("splits")]
    if not isinstance(raw, list) or len(raw) != len(stage.sources):
        raise stage.wrong("its splits do not fit its columns")
    for source, target, one in zip(stage.sources, stage.targets, raw):
        splits = np.array(Stage.numbers(_with(stage, one), "splits"))
        if len(splits) < 3 or not (np.diff(splits) > 0).all():
            raise stage.wrong("splits must be three or more, growing")
        col, g = flow.number(stage, source), flow.graph
        x, last = col.value, len(splits) - 1
        if (splits == 0).any():
            # Java's binary search puts -0.0 before 0.0
            minus = g.add("And", flow.op("Equal", x, 0.0), flow.op("Less", flow.op("Div", 1.0, x), 0.0))
            x = flow.op("Where", minus, -5e-324, x)
        index = flow.op("Sub", flow.sum(flow.double(flow.op("GreaterOrEqual", x, splits[None, :-1]))), 1.0)
        below = flow.op("Less", x, splits[0])
        inside = flow.limit(col.attrs, splits[0], splits[-1], nan=stage.invalid != "error")
        flow.fail(g.add("Or", below, flow.op("Greater", x, splits[-1])), known=inside or bool(np.isinf(splits[[0, -1]]).all()))
        if col.nan:
            nan = g.add("IsNaN", col.value)
            if stage.invalid == "keep":
                index = flow.op("Where", nan, float(last), index)
            elif stage.invalid == "skip":
                flow.drop(nan)
            else:
                flow.fail(nan, known=False)
        texts = tuple(f"{_java_text(a)}, {_java_text(b)}" for a, b in itertools.pairwise(splits))
        flow.put_number(target, index, attr=Attr(target, "nominal", texts, last), codes=g.cast(index, "int64"), nan=False)


def _with(stage: Stage, splits: object) -> Stage:
    return Stage(stage.name, stage.uid, stage.where, {"splits": splits}, stage.given, stage.extra)


def _java_text(value: float) -> str:
    return {np.inf: "Infinity", -np.inf: "-Infinity"}.get(value, repr(float(value)))


def _binarizer_reads(stage: Stage, widths: Mapping[str, int]) -> list[Need]:
    return [Need(c, "any", widths.get(t), together=widths.get(t)) for c, t in zip(stage.sources, stage.targets)]


@stage("Binarizer", reads=_binarizer_reads, note="numbers and vectors")
def binarizer(flow: Flow, stage: Stage) -> None:
    many = stage.has("inputCols") and stage.has("thresholds")
    cuts = stage.numbers("thresholds") if many else [stage.number("threshold")] * len(stage.sources)
    for source, target, cut in zip(stage.sources, stage.targets, cuts):
        col = flow.made(source)
        value = flow.double(flow.op("Greater", col.value, cut))
        if col.vector:
            flow.put_vector(target, value, col.width, [Attr(kind="binary")] * col.width if col.attrs else None, nan=False, compressed=True)
        else:
            flow.put_number(target, value, attr=Attr(target, "binary"), nan=False)
