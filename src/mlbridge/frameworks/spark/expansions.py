"""New features of old ones: PCA, PolynomialExpansion, Interaction, DCT."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from ...errors import ConversionError
from .encoders import is_sparse
from .flow import Attr, Col, Flow
from .numeric import same_width
from .registry import Need, stage
from .stage import Stage

_MAX_WIDTH = 1 << 20  # Spark itself stops at 2**31; a graph of that width is a mistake


def _pca_reads(stage: Stage, widths: Mapping[str, int]) -> list[Need]:
    return [Need(stage.text("inputCol"), "vector", int(stage.row()["pc"]["numRows"]))]


@stage("PCAModel", reads=_pca_reads)
def pca(flow: Flow, stage: Stage) -> None:
    components = stage.matrix(stage.row()["pc"])
    col = flow.vector(stage, stage.text("inputCol"), len(components))
    value = flow.dot(col.value, components)
    flow.put_vector(stage.text("outputCol"), value, components.shape[1], [Attr()] * components.shape[1], nan=col.nan)


@stage("DCT", reads=same_width, note="both directions")
def dct(flow: Flow, stage: Stage) -> None:
    col = flow.vector(stage, stage.text("inputCol"))
    n = col.width
    # orthonormal DCT-II; its inverse is its transpose
    matrix = np.cos(np.pi * (np.arange(n)[:, None] + 0.5) * np.arange(n)[None] / n) * np.sqrt(2.0 / n)
    matrix[:, 0] = np.sqrt(1.0 / n)
    value = flow.dot(col.value, matrix.T.copy() if stage.flag("inverse") else matrix)
    flow.put_vector(stage.text("outputCol"), value, n, [Attr()] * n, nan=col.nan)


def _polynomial_reads(stage: Stage, widths: Mapping[str, int]) -> list[Need]:
    made, degree = widths.get(stage.text("outputCol")), stage.integer("degree")
    width = next((n for n in range(1, 2000) if math.comb(n + degree, degree) - 1 >= made), None) if made else None
    return [Need(stage.text("inputCol"), "vector", width)]


@stage("PolynomialExpansion", reads=_polynomial_reads, note="in Spark's order of terms")
def polynomial_expansion(flow: Flow, stage: Stage) -> None:
    col, degree = flow.vector(stage, stage.text("inputCol")), stage.integer("degree")
    width = math.comb(col.width + degree, degree) - 1
    if not 1 <= degree <= 64 or width > _MAX_WIDTH:
        raise ConversionError(f"PolynomialExpansion of degree {degree} over {col.width} features makes {width} terms")
    terms: list[tuple[int, ...]] = []
    _terms(col.width - 1, degree, (), terms)
    terms = terms[1:]  # the constant term is left out
    value = _products(flow, col.value, terms, degree)
    flow.put_vector(stage.text("outputCol"), value, len(terms), [Attr()] * len(terms), nan=True)


def _terms(last: int, degree: int, sofar: tuple[int, ...], out: list[tuple[int, ...]]) -> None:
    """List every product of at most `degree` features in Spark's order: by the power of the last feature first."""
    if degree == 0 or last < 0:
        out.append(sofar)
        return
    for power in range(degree + 1):
        _terms(last - 1, degree - power, sofar + (last,) * power, out)


def _products(flow: Flow, x: str, terms: list[tuple[int, ...]], degree: int) -> str:
    """Multiply up: every term is one of the next lower degree times one feature."""
    value = x
    place: dict[tuple[int, ...], int] = {(i,): i for i in range(1 + max(t[0] for t in terms))}
    blocks, at = [x], dict(place)
    offset = len(place)
    for d in range(2, degree + 1):
        mine = [t for t in terms if len(t) == d]
        if not mine:
            break
        sofar = flow.take(value, [place[t[:-1]] for t in mine])
        value = flow.op("Mul", sofar, flow.take(x, [t[-1] for t in mine]))
        value = flow.op("Where", flow.op("Equal", sofar, 0.0), 0.0, value)  # Spark stops at 0, whatever comes after it
        place = {t: i for i, t in enumerate(mine)}
        at.update({t: offset + i for t, i in place.items()})
        offset += len(mine)
        blocks.append(value)
    return flow.take(flow.graph.concat(blocks), [at[t] for t in terms])


def _any_in(stage: Stage, widths: Mapping[str, int]) -> list[Need]:
    return [Need(c, "any") for c in stage.sources]


@stage("Interaction", reads=_any_in, note="categories become indicators by their attribute")
def interaction(flow: Flow, stage: Stage) -> None:
    value, there, n = "", "", 0  # `there` is 0 where Spark leaves a term out, though it were 0 times infinity
    for source in stage.sources:
        col = flow.made(source)
        if col.vector and col.attrs is None:
            raise ConversionError(f"Interaction reads vector {source!r}, whose attributes are not known")
        encoded, width = _encoded(flow, source, col)
        stored = _stored(flow, col, encoded)
        if not value:
            value, there, n = encoded, stored, width
            continue
        if n * width > _MAX_WIDTH:
            raise ConversionError(f"Interaction makes {n * width} terms")
        value = flow.op("Mul", _each(flow, value, n, width), _all(flow, encoded, n, width))
        before = there and _each(flow, there, n, width)
        after = stored and _all(flow, stored, n, width)
        there = flow.op("Mul", before, after) if before and after else before or after
        n *= width
    if there:
        value = flow.op("Where", flow.op("Equal", there, 0.0), 0.0, value)
    flow.put_vector(stage.text("outputCol"), value, n, [Attr()] * n)


def _each(flow: Flow, value: str, n: int, times: int) -> str:
    return flow.take(value, np.repeat(np.arange(n), times)) if times > 1 else value


def _all(flow: Flow, value: str, times: int, width: int) -> str:
    return flow.take(value, np.tile(np.arange(width), times)) if times > 1 else value


def _stored(flow: Flow, col: Col, encoded: str) -> str:
    """Return a value that is 0 where Spark does not store an element; "" where it stores all."""
    kinds = {a.kind for a in col.attrs or (Attr(),)}
    if (kinds == {"nominal"} and not col.vector) or (kinds == {"binary"} and col.vector and not col.compressed):
        return encoded  # indicators; what OneHotEncoder made is sparse
    if not col.compressed or "nominal" in kinds:
        return ""
    left_out = flow.graph.add("And", is_sparse(flow, col), flow.op("Equal", encoded, 0.0))
    return flow.double(flow.graph.add("Not", left_out))


def _encoded(flow: Flow, name: str, col: Col) -> tuple[str, int]:
    """Return a column as Interaction sees it: nominal elements as indicators."""
    parts, width = [], 0
    attrs = col.attrs or (Attr(name),)
    if all(a.kind != "nominal" for a in attrs):
        return col.value, col.width
    for i, attr in enumerate(attrs):
        x = flow.take(col.value, [i]) if col.width > 1 else col.value
        if attr.kind != "nominal":
            parts.append(x)
            width += 1
            continue
        if attr.count is None:
            raise ConversionError(f"Interaction: the number of categories of {name!r} is not known")
        flow.fail(flow.graph.add("Not", flow.any(flow.op("Equal", x, np.arange(attr.count, dtype=float)[None]))))
        parts.append(flow.double(flow.op("Equal", x, np.arange(attr.count, dtype=float)[None])))
        width += attr.count
    return flow.graph.concat(parts), width
