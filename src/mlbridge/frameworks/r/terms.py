"""ModelFrame: a formula's `terms` object, as the raw columns it needs and the model matrix it makes of them.

The matrix's column names are made as R makes them, so that a family can check them against its coefficients.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np

from ...errors import ArtifactError
from ...signature import Column, Field
from .contrasts import contrast_matrix
from .design import Coded, Design
from .expressions import CONSTANTS, FACTOR_CALLS, Evaluator, head, strata_levels
from .robject import RObject
from .values import Factor, Numeric, categorical_field, numeric_field, recode, refuse, stored_levels

__all__ = ["ModelFrame", "named_lists", "text_levels"]

_MAX_DEPTH = 200


def text_levels(xlevels: RObject | None) -> dict[str, tuple[str, ...]]:
    """Return a fit's `xlevels` as a dict; numeric placeholders are left out."""
    if not isinstance(xlevels, RObject) or xlevels.kind != "list":
        return {}
    return {n: stored_levels(v) for n, v in zip(xlevels.names, xlevels.value) if isinstance(v, RObject) and v.kind == "character"}


def named_lists(value: RObject | None) -> dict[str, RObject]:
    """Return a named list as a dict."""
    if not isinstance(value, RObject) or value.kind != "list":
        return {}
    return dict(zip(value.names, value.value))


class ModelFrame:
    """The variables of a formula without its response.

    Parameters
    ----------
    terms : RObject
        A `terms` object with `variables`, `factors`, `predvars` and `dataClasses`.
    xlevels : mapping of str to tuple of str
        Levels of the factors among the variables, by the variable's label.
    offsets : sequence of RObject
        Offset expressions outside the formula (`glm(offset = )`).
    missing : {'allow', 'refuse'}
        The rule of every raw column.
    call : RObject, optional
        The call of the fit: its `data` decides whether a name is a column or a number of the formula's environment.
    told : mapping of str to tuple of str
        What the file does not say of columns inside calls (`nchar(name)`): levels, or none for text. Others are numbers.
    """

    def __init__(
        self,
        terms: Any,
        xlevels: Mapping[str, tuple[str, ...]],
        *,
        offsets: tuple = (),
        missing: str = "allow",
        call: Any = None,
        told: Mapping[str, tuple[str, ...]] = MappingProxyType({}),
    ) -> None:
        if not isinstance(terms, RObject) or terms.kind != "language" or "variables" not in terms.attributes:
            raise ArtifactError("the R model has no terms object")
        self.xlevels = dict(xlevels)
        self.missing = missing
        self.told = told
        self.extra_offsets = tuple(o for o in offsets if o is not None)
        variables = terms.attribute("variables").value[1:]
        self.variables = variables
        predvars = terms.attribute("predvars")
        self.expressions = predvars.value[1:] if isinstance(predvars, RObject) and predvars.kind == "language" else variables
        self.response = int(terms.attribute("response").scalar()) if terms.attribute("response") is not None else 0
        self.intercept = bool(terms.attribute("intercept").scalar()) if terms.attribute("intercept") is not None else True
        offset = terms.attribute("offset")
        self.offset_index = tuple(int(i) - 1 for i in offset.value) if isinstance(offset, RObject) else ()
        self._read_labels(terms)
        self._environment = _environment(terms.attribute(".Environment"))
        self._doubtful = self._environment.keys() - _certain(self._environment, terms.attribute(".Environment"), call)
        self._raw: dict[str, tuple] | None = None

    def _read_labels(self, terms: RObject) -> None:
        factors = terms.attribute("factors")
        self.factors = (
            factors.array().astype(int)
            if isinstance(factors, RObject) and len(factors.dim) == 2
            else np.zeros((len(self.variables), 0), int)
        )
        classes = terms.attribute("dataClasses")
        found = dict(zip(classes.names, classes.strings())) if isinstance(classes, RObject) and classes.kind == "character" else {}
        rows = factors.dimnames[0] if isinstance(factors, RObject) and len(factors.dimnames) == 2 else None
        labels = rows or tuple(found)[: len(self.variables)]
        if len(labels) != len(self.variables):
            labels = tuple(v.value if isinstance(v, RObject) and v.kind == "symbol" else "" for v in self.variables)
        self.labels = tuple(labels)
        self.classes = tuple(found.get(v, "") for v in self.labels)
        names = terms.attribute("term.labels")
        self.term_labels = tuple(names.value) if isinstance(names, RObject) and names.kind == "character" else ()
        if self.factors.shape[0] != len(self.variables) and self.factors.size:
            raise ArtifactError("the R model's terms object does not fit its variables")

    @property
    def predictors(self) -> list[int]:
        """Indices of the variables that are neither the response nor an offset."""
        return [i for i in range(len(self.variables)) if i != self.response - 1 and i not in self.offset_index]

    @property
    def used(self) -> list[int]:
        """Indices of the predictors that occur in a term: `- x` leaves a variable behind that newdata must hold all the same."""
        return [i for i in self.predictors if self.factors.size and self.factors[i].any()]

    # ------------------------------------------------------------ raw columns

    def raw(self) -> dict[str, tuple]:
        """Return each raw column's kind: ("numeric",), ("factor", levels, ordered), in the order of the formula."""
        if self._raw is None:
            found: dict[str, tuple] = {}
            for i in [i for i in range(len(self.variables)) if i != self.response - 1]:
                self._collect(self.expressions[i], i, found)
            for node in self.extra_offsets:
                self._walk(node, None, found, 0)
            self._raw = found
        return self._raw

    def _collect(self, node: Any, i: int, found: dict[str, tuple]) -> None:
        label, kind = self.labels[i], self.classes[i]
        if isinstance(node, RObject) and node.kind == "symbol":
            if kind.startswith("nmatrix") or kind == "other":
                raise refuse(f"the variable {label!r} is a matrix column or of an unknown class")
            if kind in ("factor", "ordered", "character") or label in self.xlevels:
                if label not in self.xlevels:
                    raise refuse(f"the file does not hold the levels of column {label!r}")
                found[node.value] = ("factor", self.xlevels[label], kind == "ordered")
            elif kind == "logical":
                found[node.value] = ("factor", ("FALSE", "TRUE"), False)
            else:
                found[node.value] = ("numeric",)
            return
        self._walk(node, self.xlevels.get(label), found, 0)

    def _walk(self, node: Any, levels: tuple[str, ...] | None, found: dict[str, tuple], depth: int, *, tagged: bool = False) -> None:
        if depth > _MAX_DEPTH:
            raise refuse("a formula nested too deep")
        if not isinstance(node, RObject):
            return
        if node.kind == "symbol":
            name = node.value
            if name not in self._bare() and name in self._environment:
                if name in self._doubtful:
                    raise refuse(f"{name!r} may be a column of the data or a variable beside the formula: the file does not say")
                return
            if name not in self._bare() and (name == "pi" or (name in CONSTANTS and tagged)):
                return
            if name and name not in found:
                found[name] = _told_kind(self.told.get(name))
            return
        if node.kind != "language":
            return
        name = head(node)
        if name in ("$", "[[", "@"):
            raise refuse("a formula that names its data frame ($): newdata would be ignored")
        arguments = node.value[1:]
        if name in ("factor", "ordered") and ("labels" in node.tags or len(arguments) > 2):
            raise refuse(f"{name}() with labels: the file does not hold the values before")
        if name == "strata":
            if len(arguments) != 1 or not isinstance(arguments[0], RObject) or arguments[0].kind != "symbol":
                raise refuse("strata() of several columns or of an expression")
            levels = strata_levels(arguments[0].value, levels or ())
        if name in FACTOR_CALLS and arguments and isinstance(arguments[0], RObject) and arguments[0].kind == "symbol":
            raw = arguments[0].value
            if (raw not in found or found[raw][0] == "text") and raw not in self._bare() and levels:
                found[raw] = _raw_kind(levels)
            elif raw not in found:
                found[raw] = ("numeric",)
            return
        compared = _compared(name, arguments)
        if compared is not None and compared[0] not in self._bare():
            known = found.setdefault(compared[0], ("text", ()))
            if known[0] == "text":
                found[compared[0]] = ("text", tuple(dict.fromkeys((*known[1], *compared[1]))))
            return
        tags = node.tags[1:] or (None,) * len(arguments)
        for tag, argument in list(zip(tags, arguments))[: 1 if name in ("relevel", "C") else None]:
            if (
                name == "poly"
                and "coefs" in tags
                and (tag == "degree" or (argument is not arguments[0] and not tag and len(arguments) == 3))
            ):
                continue  # the coefficients know their degree, whatever variable named it
            self._walk(argument, levels, found, depth + 1, tagged=bool(tag))

    def _bare(self) -> set[str]:
        return {v.value for v in self.variables if isinstance(v, RObject) and v.kind == "symbol"}

    def fields(self) -> list[Field]:
        """Describe the raw columns."""
        out = []
        for name, kind in self.raw().items():
            if kind[0] == "factor" and all(isinstance(v, int) for v in kind[1]):
                out.append(Field(Column(name, categories=tuple(sorted(kind[1]))), "int32", self.missing))  # type: ignore[arg-type]
            elif kind[0] == "string":
                out.append(Field(Column(name), "string", self.missing))  # type: ignore[arg-type]
            elif kind[0] == "text":
                out.append(categorical_field(name, kind[1], missing=self.missing, unknown="keep"))
            elif kind[0] == "factor":
                out.append(categorical_field(name, kind[1], ordered=kind[2], missing=self.missing))
            else:
                out.append(numeric_field(name, missing=self.missing))
        return out

    def choices(self) -> dict[str, tuple[float, ...]]:
        """Return the values of numeric columns that the formula makes factors of, and whose levels are not whole numbers."""
        return {name: kind[1] for name, kind in self.raw().items() if kind[0] == "numeric" and len(kind) > 1}

    # ------------------------------------------------------------ values

    def evaluator(self, ar: Any, scope: Mapping[str, Any]) -> Evaluator:
        """Return an evaluator over raw columns and the constants of the formula's environment."""
        return Evaluator(ar, _Layered(scope, {k: v for k, v in self._environment.items() if k not in self.raw()}))

    def variable(self, ev: Evaluator, i: int) -> Any:
        """Evaluate one variable; a factor in the levels of training, text and logical values as factors."""
        label = self.labels[i]
        levels = self.xlevels.get(label)
        value = ev.evaluate(self.expressions[i], levels)
        if isinstance(value, Factor) and levels is not None:
            lost = [v for v in levels if v not in value.levels]
            if lost:
                raise refuse(f"{label!r} never gives the level {lost[0]!r} of training")
            return recode(ev.ar, value, levels)
        if isinstance(value, Factor) and set(value.levels) != {"FALSE", "TRUE"}:
            raise refuse(f"the file does not hold the levels of {label!r}")
        if isinstance(value, Numeric) and (value.logical or self.classes[i] == "logical"):
            hit = ev.ar.graph.cast(ev.ar.where(ev.ar.is_missing(value.name), -1.0, value.name), "int64")
            return Factor(hit, ("FALSE", "TRUE"))
        if not isinstance(value, (Numeric, Factor)):
            raise refuse(f"the term {label!r} is a constant")
        return value

    def offsets(self, ev: Evaluator) -> list[str]:
        """Return all offsets, each ("rows", 1)."""
        nodes = [self.variables[i] for i in self.offset_index] + list(self.extra_offsets)
        return [ev.ar.value(ev.numeric(ev.evaluate(n), "an offset")) for n in nodes]

    def design(self, ev: Evaluator, contrasts: Mapping[str, RObject], *, without: Sequence[int] = ()) -> Design:
        """Return the terms of the model matrix without its intercept, and without those of some variables."""
        values = {i: self.variable(ev, i) for i in self.used if i not in without}
        pattern = self._pattern(values)
        terms = []
        for j in range(pattern.shape[1]):
            term = [self._coded(i, values[i], contrasts, full=pattern[i, j] == 2) for i in values if pattern[i, j] > 0]
            if term:
                terms.append(term)
        return Design(ev.ar, terms)

    def matrix(self, ev: Evaluator, contrasts: Mapping[str, RObject]) -> tuple[str, tuple[str, ...]]:
        """Return the model matrix without its intercept, ("rows", p), and its columns' names."""
        design = self.design(ev, contrasts)
        if not design.terms:
            raise refuse("a model without any column")
        return design.matrix(), design.names

    def _pattern(self, values: Mapping[int, Any]) -> np.ndarray:
        """The factors matrix; without an intercept the first factor of the first term that has one is coded in full."""
        pattern = self.factors.copy()
        if not self.intercept:
            hit = next(
                ((i, j) for j in range(pattern.shape[1]) for i in values if pattern[i, j] > 0 and isinstance(values[i], Factor)), None
            )
            if hit is not None:
                pattern[hit] = 2
        return pattern

    def _coded(self, i: int, value: Any, contrasts: Mapping[str, RObject], *, full: bool) -> Coded:
        label = self.labels[i]
        if isinstance(value, Numeric):
            return Coded(value, (label,) if len(value.columns) == 1 else tuple(label + c for c in value.columns))
        if full:
            table, columns = np.eye(len(value.levels)), value.levels
        elif value.levels == ("FALSE", "TRUE") and label not in contrasts:
            table, columns = np.array([[0.0], [1.0]]), ("TRUE",)
        else:
            # where a fit stores none (lda), R's predict takes its own defaults
            default = RObject("character", ["contr.poly" if self.classes[i] == "ordered" else "contr.treatment"])
            table, columns = contrast_matrix(contrasts.get(label, default), value.levels, label)
        return Coded(value, tuple(label + c for c in columns), table)


class _Layered(dict):
    """Raw columns first, then what the formula's environment holds."""

    def __init__(self, scope: Mapping[str, Any], constants: Mapping[str, Any]) -> None:
        super().__init__()
        self._scope, self._constants = scope, constants

    def __contains__(self, name: object) -> bool:
        return name in self._scope or name in self._constants

    def __missing__(self, name: str) -> Any:
        return self._scope[name] if name in self._scope else self._constants[name]


def _environment(env: Any) -> dict[str, Any]:
    """Return the numbers, and single numbers only, that the formula's own environment holds: a longer one is data."""
    out = {}
    if isinstance(env, RObject) and env.kind == "environment" and isinstance(env.value, dict):
        for name, value in env.frame().items():
            if isinstance(value, RObject) and value.kind in ("double", "integer", "logical") and len(value) == 1 and not value.attributes:
                out[name] = value.numbers()[0]
    return out


def _certain(numbers: Mapping[str, Any], env: Any, call: Any) -> set[str]:
    """Return the names that cannot be columns: the fit had no `data`, or its data is in the environment and lacks them."""
    data = call.get("data") if isinstance(call, RObject) and call.kind == "language" else None
    if data is None:
        return set(numbers)
    if isinstance(data, RObject) and data.kind == "symbol" and isinstance(env, RObject):
        found = env.frame().get(data.value)
        if isinstance(found, RObject) and found.kind == "list":
            return set(numbers) - set(found.names)
    return set()


def _compared(name: str, arguments: list) -> tuple[str, tuple[str, ...]] | None:
    """Return the column and the texts of `column == "text"` or `column %in% c("a", "b")`: whatever else it may hold equals none."""
    if name not in ("==", "!=", "%in%") or len(arguments) != 2:
        return None
    column, texts = sorted(arguments, key=lambda a: not (isinstance(a, RObject) and a.kind == "symbol"))
    parts = texts.value[1:] if head(texts) == "c" else [texts]
    if not isinstance(column, RObject) or column.kind != "symbol" or not parts:
        return None
    if not all(isinstance(p, RObject) and p.kind == "character" and None not in p.value for p in parts):
        return None
    return column.value, tuple(t for p in parts for t in p.value)


def _told_kind(levels: tuple[str, ...] | None) -> tuple:
    """What a column inside a call is by the sample; levels that are numbers say nothing: it may have been a number in R."""
    if levels is None or (levels and _raw_kind(levels)[1:] != (levels, False)):
        return ("numeric",)
    return ("factor", levels, False) if levels else ("string",)


def _raw_kind(levels: tuple[str, ...]) -> tuple:
    """What a column was that the formula makes a factor of: whole numbers, other numbers, or text."""
    if all(v.lstrip("-").isdigit() and str(int(v)) == v for v in levels):
        return "factor", tuple(int(v) for v in levels), False
    try:
        return "numeric", tuple(float(v) for v in levels)
    except ValueError:
        return "factor", levels, False
