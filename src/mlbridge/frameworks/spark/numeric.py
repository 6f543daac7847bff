"""Numbers and vectors: assembling, scaling, imputing, picking."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from ...errors import ConversionError
from .flow import Attr, Col, Flow
from .registry import Need, stage
from .stage import Stage


def _assembler_reads(stage: Stage, widths: Mapping[str, int]) -> list[Need]:
    total, refuse = widths.get(stage.text("outputCol")), stage.invalid == "error"
    together = total if len(stage.sources) == 1 else None
    return [Need(c, "any", missing="refuse" if refuse else "allow", together=together) for c in stage.sources]


@stage("VectorAssembler", reads=_assembler_reads, note="numbers and vectors; error, skip, keep")
def vector_assembler(flow: Flow, stage: Stage) -> None:
    columns = [flow.get(c) for c in stage.sources]
    for name, col in zip(stage.sources, columns):
        if col.levels is not None or not col.plain:
            raise ConversionError(f"VectorAssembler reads column {name!r}, which is text here")
    parts, checked = [], []
    for value, nan in _gathered(flow, stage.sources, columns):
        parts.append(value)
        if nan:
            checked.append(value)
    if checked and stage.invalid != "keep":
        bad = flow.any(flow.graph.add("IsNaN", flow.graph.concat(checked)))
        (flow.drop if stage.invalid == "skip" else flow.fail)(bad)
    attrs = [a for name, col in zip(stage.sources, columns) for a in _attrs(name, col)]
    nan = any(c.nan and (c.vector or stage.invalid == "keep") for c in columns)
    flow.put_vector(stage.text("outputCol"), flow.graph.concat(parts), sum(c.width for c in columns), attrs, nan=nan, compressed=True)


def _attrs(name: str, col: Col) -> list[Attr]:
    if not col.vector:
        attr = col.attrs[0] if col.attrs else Attr()
        return [replace(attr, name=name)]
    attrs = col.attrs or [Attr()] * col.width
    return [replace(a, name=f"{name}_{a.name if a.name is not None else i}") for i, a in enumerate(attrs)]


def _gathered(flow: Flow, names: list[str], columns: list[Col]) -> list[tuple[str, bool]]:
    """Return the values side by side; neighbours of one block are gathered at once. The flag: numbers that may be NaN."""
    out: list[tuple[str, bool]] = []
    i = 0
    while i < len(columns):
        col = columns[i]
        if col.member is None:
            out.append((flow.made(names[i]).value, col.nan and not col.vector))
            i += 1
            continue
        tensor, index = col.member[0], []
        while i < len(columns) and columns[i].member is not None and columns[i].member[0] == tensor:  # type: ignore[index]
            index.append(columns[i].member[1])  # type: ignore[index]
            i += 1
        whole = index == list(range(flow.width_of(tensor) or -1))
        out.append((tensor if whole else flow.take(tensor, index), col.nan))
    return out


def _vector(field: str):
    def reads(stage: Stage, widths: Mapping[str, int]) -> list[Need]:
        return [Need(stage.text("inputCol"), "vector", len(stage.vector(stage.row()[field])))]

    return reads


def same_width(stage: Stage, widths: Mapping[str, int]) -> list[Need]:
    """Read one vector, as wide as what is made of it."""
    return [Need(stage.text("inputCol"), "vector", widths.get(stage.text("outputCol")))]


def _scaled(flow: Flow, stage: Stage, scale: np.ndarray | None, shift: np.ndarray | None) -> None:
    """(x - shift) * scale; probe rows go back through it."""
    target = stage.text("outputCol")
    given = scale if scale is not None else shift
    if given is None:  # told to do nothing, it still makes its column
        flow.put(target, flow.vector(stage, stage.text("inputCol")))
        return
    n = len(given)
    col = flow.vector(stage, stage.text("inputCol"), n)
    value = col.value
    if shift is not None:
        value = flow.op("Sub", value, shift[None])
    if scale is not None:
        value = flow.op("Mul", value, scale[None])
    attrs = []
    for i, attr in enumerate(col.attrs or [Attr()] * n):
        a, b = 1.0 if scale is None else scale[i], 0.0 if shift is None else shift[i]
        origin = attr.origin if attr.origin is not None and attr.origin.how == "value" and a else None
        attrs.append(Attr(origin=origin and replace(origin, scale=origin.scale / a, shift=origin.shift + origin.scale * b)))
    flow.put_vector(target, value, n, attrs, nan=col.nan)


def _inverse(std: np.ndarray) -> np.ndarray:
    return np.divide(1.0, std, out=np.zeros_like(std), where=std != 0)


@stage("StandardScalerModel", reads=_vector("std"))
def standard_scaler(flow: Flow, stage: Stage) -> None:
    row = stage.row()
    std, mean = stage.vector(row["std"]), stage.vector(row["mean"])
    _scaled(flow, stage, _inverse(std) if stage.flag("withStd") else None, mean if stage.flag("withMean") else None)


@stage("RobustScalerModel", reads=_vector("range"))
def robust_scaler(flow: Flow, stage: Stage) -> None:
    row = stage.row()
    spread, median = stage.vector(row["range"]), stage.vector(row["median"])
    _scaled(flow, stage, _inverse(spread) if stage.flag("withScaling") else None, median if stage.flag("withCentering") else None)


@stage("MaxAbsScalerModel", reads=_vector("maxAbs"))
def max_abs_scaler(flow: Flow, stage: Stage) -> None:
    largest = stage.vector(stage.row()["maxAbs"])
    _scaled(flow, stage, 1.0 / np.where(largest == 0, 1.0, largest), None)


@stage("MinMaxScalerModel", reads=_vector("originalMin"), note="a constant feature becomes the middle of the range")
def min_max_scaler(flow: Flow, stage: Stage) -> None:
    row = stage.row()
    low, high = stage.vector(row["originalMin"]), stage.vector(row["originalMax"])
    bottom, top = stage.number("min"), stage.number("max")
    col = flow.vector(stage, stage.text("inputCol"), len(low))
    spread = high - low
    constant = spread == 0
    unit = flow.op("Div", flow.op("Sub", col.value, low[None]), np.where(constant, 1.0, spread)[None])
    if constant.any():
        middle = flow.op("Where", flow.graph.add("IsNaN", col.value), col.value, 0.5)
        unit = flow.graph.add("Where", flow.graph.const(constant[None]), middle, unit)
    value = flow.op("Add", flow.op("Mul", unit, top - bottom), bottom)
    flow.put_vector(stage.text("outputCol"), value, len(low), [Attr()] * len(low), nan=col.nan)


@stage("Normalizer", reads=same_width, note="any p")
def normalizer(flow: Flow, stage: Stage) -> None:
    col, p, g = flow.vector(stage, stage.text("inputCol")), stage.number("p"), flow.graph
    size = g.add("Abs", col.value)
    if p == 1:
        norm = flow.sum(size)
    elif p == 2:
        norm = g.add("Sqrt", flow.sum(flow.op("Mul", col.value, col.value)))
    elif np.isinf(p):
        size = flow.op("Where", g.add("IsNaN", size), 0.0, size) if col.nan else size  # NaN is larger than nothing
        norm = g.add("ReduceMax", size, flow.ints([1]), keepdims=1)
    else:
        norm = flow.op("Pow", flow.sum(flow.op("Pow", size, p)), 1.0 / p)
    norm = flow.op("Where", flow.op("Equal", norm, 0.0), 1.0, norm)
    flow.put_vector(stage.text("outputCol"), flow.op("Div", col.value, norm), col.width, [Attr()] * col.width, nan=col.nan)


@stage("ImputerModel", note="NaN or a value; an integer column truncates its fill in Spark, which the folder does not tell")
def imputer(flow: Flow, stage: Stage) -> None:
    fill = stage.row()
    missing = stage.number("missingValue")
    for source, target in zip(stage.sources, stage.targets):
        col = flow.number(stage, source)
        value = float(fill[source])
        if np.isnan(missing):
            gone = flow.graph.add("IsNaN", col.value)
        else:
            gone = flow.op("Equal", col.value, missing)
        nan = np.isnan(value) or (col.nan and not np.isnan(missing))
        attr = Attr(target, origin=col.attrs[0].origin if col.attrs else None)
        flow.put_number(target, flow.op("Where", gone, value, col.value), attr=attr, nan=nan)


def _size_hint_reads(stage: Stage, widths: Mapping[str, int]) -> list[Need]:
    return [Need(stage.text("inputCol"), "vector", stage.integer("size"))]


def _size_hint_makes(stage: Stage) -> list[str]:
    return [stage.text("inputCol")]


@stage("VectorSizeHint", reads=_size_hint_reads, makes=_size_hint_makes, note="widths are fixed in a signature")
def vector_size_hint(flow: Flow, stage: Stage) -> None:
    flow.vector(stage, stage.text("inputCol"), stage.integer("size"))


def _slicer_reads(stage: Stage, widths: Mapping[str, int]) -> list[Need]:
    return [Need(stage.text("inputCol"), "vector")]


@stage("VectorSlicer", reads=_slicer_reads, note="by index and by name")
def vector_slicer(flow: Flow, stage: Stage) -> None:
    col = flow.vector(stage, stage.text("inputCol"))
    index = [int(v) for v in stage.numbers("indices")]
    names = [a.name for a in col.attrs or ()]
    for name in stage.texts("names"):
        if name not in names:
            raise ConversionError(f"VectorSlicer picks {name!r}; the vector's names are {names}", hint="pick by index")
        index.append(names.index(name))
    _pick(flow, stage, col, index)


def _pick(flow: Flow, stage: Stage, col: Col, index: list[int]) -> None:
    if any(not 0 <= i < col.width for i in index):
        raise stage.wrong(f"it picks {index} of {col.width}")
    attrs = [col.attrs[i] for i in index] if col.attrs else None
    flow.put_vector(stage.text("outputCol"), flow.take(col.value, index), len(index), attrs, nan=col.nan)


def _selector_reads(stage: Stage, widths: Mapping[str, int]) -> list[Need]:
    return [Need(stage.text("featuresCol"), "vector")]


@stage("UnivariateFeatureSelectorModel", "ChiSqSelectorModel", "VarianceThresholdSelectorModel", reads=_selector_reads)
def selector(flow: Flow, stage: Stage) -> None:
    chosen = sorted(int(i) for i in stage.row()["selectedFeatures"])
    _pick(flow, stage, flow.vector(stage, stage.text("featuresCol")), chosen)


@stage("ElementwiseProduct", reads=lambda stage, widths: [Need(stage.text("inputCol"), "vector", len(_scaling(stage)))])
def elementwise_product(flow: Flow, stage: Stage) -> None:
    _scaled(flow, stage, _scaling(stage), None)


def _scaling(stage: Stage) -> np.ndarray:
    return stage.vector(stage.params.get("scalingVec"))


@stage("IDFModel", reads=_vector("idf"), note="of a vector column")
def idf(flow: Flow, stage: Stage) -> None:
    _scaled(flow, stage, stage.vector(stage.row()["idf"]), None)


@stage("VectorAttributeRewriter", reads=lambda stage, widths: [], makes=lambda stage: [], note="inside RFormula: names only")
@stage("ColumnPruner", reads=lambda stage, widths: [], makes=lambda stage: [], note="inside RFormula: forgets columns")
def nothing(flow: Flow, stage: Stage) -> None:
    """Nothing changes that an answer could show."""
