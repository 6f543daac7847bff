"""Evaluator: an R expression of a formula as ONNX nodes; functions outside a fixed list are refused by name.

What depends on other rows of the batch (mean, rank, cut into n parts, …) is not on the list. No R code runs: a call is
looked up in a table of ours.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from . import splines
from .arithmetic import Arithmetic
from .robject import NA_INTEGER, RObject, number_text
from .values import Factor, Numeric, Scope, look_up, recode, refuse

__all__ = ["CONSTANTS", "FACTOR_CALLS", "Evaluator", "head", "strata_levels"]

CONSTANTS: Mapping[str, Any] = {"pi": np.float64(math.pi), "T": np.bool_(True), "F": np.bool_(False)}
FACTOR_CALLS = frozenset({"factor", "as.factor", "ordered", "as.ordered", "C", "relevel", "as.character", "droplevels", "strata"})
_MAX_DEPTH = 200  # a formula nested deeper was not written by a person

_COMPARE = {"==": "Equal", "<": "Less", ">": "Greater", "<=": "LessOrEqual", ">=": "GreaterOrEqual"}
_CONSTANT: Mapping[str, Callable[..., Any]] = {
    "+": np.add, "-": np.subtract, "*": np.multiply, "/": np.divide, "^": np.power, "%%": np.mod, "%/%": np.floor_divide,
    "==": np.equal, "!=": np.not_equal, "<": np.less, ">": np.greater, "<=": np.less_equal, ">=": np.greater_equal,
    "exp": np.exp, "sqrt": np.sqrt, "abs": np.abs, "log2": np.log2, "log10": np.log10, "log1p": np.log1p, "expm1": np.expm1,
    "sin": np.sin, "cos": np.cos, "tan": np.tan, "floor": np.floor, "ceiling": np.ceil, "&": np.logical_and, "|": np.logical_or,
    "!": np.logical_not, "mean": np.mean, "min": np.min, "max": np.max, "sum": np.sum,
}  # fmt: skip
_UNARY = {
    "exp": "Exp",
    "sqrt": "Sqrt",
    "abs": "Abs",
    "floor": "Floor",
    "ceiling": "Ceil",
    "sin": "Sin",
    "cos": "Cos",
    "sign": "Sign",
    "tanh": "Tanh",
}
_LOGICAL = frozenset({"&", "|", "!", "&&", "||", "!=", "is.na", "as.logical", "xor", "%in%"})
_TRANSPARENT = frozenset({"(", "I", "identity", "offset", "as.numeric", "as.double", "as.vector", "c", "as.matrix", "drop"})


def head(node: Any) -> str:
    """Return the function a call names, `pkg::` aside; empty for anything else."""
    if not isinstance(node, RObject) or node.kind != "language" or not node.value:
        return ""
    first = node.value[0]
    if isinstance(first, RObject) and first.kind == "symbol":
        return first.value
    if isinstance(first, RObject) and first.kind == "language" and len(first.value) == 3:  # pkg::name; no deeper: a file may nest heads
        operator, _, name = first.value
        symbols = all(isinstance(v, RObject) and v.kind == "symbol" for v in (operator, name))
        if symbols and operator.value in ("::", ":::"):
            return name.value
    return ""


def strata_levels(column: str, names: tuple[str, ...]) -> tuple[str, ...]:
    """Return the values of a column that strata of these names stand for."""
    prefix = f"{column}="
    return tuple(n.removeprefix(prefix).strip() for n in names) if all(n.startswith(prefix) for n in names) else tuple(names)


def constant(value: Any) -> bool:
    """Whether a value is known now."""
    return not isinstance(value, (Numeric, Factor))


def literal(node: RObject) -> Any:
    """Turn a vector inside a call into a constant."""
    if node.kind == "character":
        return list(node.value)
    if node.kind == "logical":
        array = np.asarray(node.value)
        plain = array != 0
        return np.where(array == NA_INTEGER, np.nan, plain) if (array == NA_INTEGER).any() else plain[0] if array.size == 1 else plain
    if node.kind in ("double", "integer"):
        numbers = node.numbers()
        return numbers[0] if numbers.size == 1 and not node.dim else node.array()
    if node.kind == "list":
        names = node.names or range(len(node.value))
        return {n: literal(v) for n, v in zip(names, node.value) if isinstance(v, RObject)}
    raise refuse(f"an expression that holds a {node.kind}")


class Evaluator:
    """Turns R expressions into nodes of one graph.

    Parameters
    ----------
    ar : Arithmetic
        Writes the nodes.
    scope : mapping of str to Numeric, Factor or constant
        The raw columns, and what the formula's environment holds.
    """

    def __init__(self, ar: Arithmetic, scope: Scope) -> None:
        self.ar = ar
        self.scope = scope
        self._depth = 0
        self._hint: tuple[str, ...] | None = None

    def evaluate(self, node: Any, levels: tuple[str, ...] | None = None) -> Any:
        """Return the value of an expression; `levels` are those a factor made of numbers had in training."""
        self._hint = levels
        return self._eval(node)

    def _eval(self, node: Any) -> Any:
        if node is None:
            return None
        if not isinstance(node, RObject):
            raise refuse("a malformed expression")
        if node.kind == "symbol":
            return self._symbol(node.value)
        if node.kind != "language":
            return literal(node)
        self._depth += 1
        if self._depth > _MAX_DEPTH:
            raise refuse("an expression nested too deep")
        try:
            return self._call(node)
        finally:
            self._depth -= 1

    def _symbol(self, name: str, *, as_factor: bool = False) -> Any:
        if name in self.scope:
            value = self.scope[name]
            if isinstance(value, Factor) and value.numbers and not as_factor:
                return Numeric(look_up(self.ar, value, np.array([float(v) for v in value.levels])))
            return value
        if name in CONSTANTS:
            return CONSTANTS[name]
        raise refuse(f"a variable {name!r} that is neither a column nor a constant")

    def _call(self, node: RObject) -> Any:
        name = head(node)
        args, named = [], {}
        method = getattr(self, f"_fn_{_METHODS.get(name, '')}", None) if name in _METHODS else None
        if name == "strata":
            return self._strata(node)
        if name in ("relevel", "C", "droplevels") and len(node.value) > 1:
            return self._fn_factor([self._eval(node.value[1])], {})  # the levels' order and contrasts come from the file
        for tag, arg in zip(node.tags[1:] if node.tags else [None] * (len(node.value) - 1), node.value[1:]):
            if name in FACTOR_CALLS and isinstance(arg, RObject) and arg.kind == "symbol":
                value = self._symbol(arg.value, as_factor=True)
            else:
                value = self._eval(arg)
            if tag:
                named[tag] = value
            else:
                args.append(value)
        if method is not None:
            return method(args, named)
        if name in _TRANSPARENT and args:
            return self._transparent(name, args)
        values = [*args, *named.values()]
        if all(constant(v) for v in values) and name in _CONSTANT:
            return self._fold(name, values)
        return self._numeric_call(name, values, bool(named))

    def _transparent(self, name: str, args: list) -> Any:
        if name == "c":
            if all(constant(a) for a in args):
                if any(isinstance(a, list) for a in args):
                    return [t for a in args for t in (a if isinstance(a, list) else [str(a)])]
                return np.concatenate([np.atleast_1d(np.asarray(a, dtype=np.float64)) for a in args])
            raise refuse("c() over columns")
        if name in ("as.numeric", "as.double") and isinstance(args[0], Factor):
            return Numeric(self.numeric(args[0], f"{name}()"))  # codes depend on the levels newdata happens to have
        if name in ("as.numeric", "as.double") and isinstance(args[0], Numeric):
            return Numeric(args[0].name, args[0].columns)
        return args[0]

    def _fold(self, name: str, values: list) -> Any:
        if any(isinstance(v, (list, dict)) or v is None for v in values):
            raise refuse(f"{name}() over text")
        if name == "-" and len(values) == 1:
            return -np.asarray(values[0], dtype=np.float64)
        if name == "+" and len(values) == 1:
            return values[0]
        with np.errstate(all="ignore"):
            return _CONSTANT[name](*(v if isinstance(v, np.bool_) else np.asarray(v, dtype=np.float64) for v in values))

    def numeric(self, value: Any, what: str) -> Any:
        """Return a value as an operand of arithmetic: the name of a float64 tensor, or a number."""
        if isinstance(value, Numeric):
            return value.name
        if constant(value) and not isinstance(value, (list, dict)) and value is not None and np.ndim(value) == 0:
            return float(value)
        if isinstance(value, Factor) and set(value.levels) == {"FALSE", "TRUE"}:
            return look_up(self.ar, value, np.array([v == "TRUE" for v in value.levels]))
        raise refuse(f"{what} of {'a factor' if isinstance(value, Factor) else 'several values at once'}")

    def _numeric_call(self, name: str, values: list, tagged: bool) -> Any:
        ar = self.ar
        columns = next((v.columns for v in values if isinstance(v, Numeric) and len(v.columns) > 1), ("",))
        if (
            name in ("==", "!=", "%in%")
            and any(isinstance(v, Factor) for v in values)
            and any(isinstance(v, (list, np.ndarray, float)) for v in values)
        ):
            return self._member(name, values)
        if (
            name == "%in%"
            and len(values) == 2
            and isinstance(values[0], Numeric)
            and constant(values[1])
            and not isinstance(values[1], list)
        ):
            return self._among(values[0].name, values[1])
        table: dict[str, Callable[..., str]] = {
            "+": ar.add, "*": ar.mul, "/": ar.div, "^": ar.power, "%%": ar.modulo,
            "&": ar.conjunction, "|": ar.disjunction, "&&": ar.conjunction, "||": ar.disjunction, "!": ar.negate,
            "log1p": ar.log1p, "expm1": ar.expm1, "atan": ar.atan, "pnorm": ar.normal, "plogis": ar.logistic,
            "trunc": lambda x: ar.mul(ar.op("Sign", x), ar.op("Floor", ar.op("Abs", x))),
            "as.integer": lambda x: ar.mul(ar.op("Sign", x), ar.op("Floor", ar.op("Abs", x))),
            "as.logical": ar.truth, "round": lambda x: ar.op("Round", x),
            "log2": lambda x: ar.div(ar.log(x), math.log(2)), "log10": lambda x: ar.div(ar.log(x), math.log(10)),
            "tan": lambda x: ar.div(ar.op("Sin", x), ar.op("Cos", x)),
            "sinh": lambda x: ar.mul(0.5, ar.sub(ar.exp(x), ar.exp(ar.op("Neg", x)))),
            "cosh": lambda x: ar.mul(0.5, ar.add(ar.exp(x), ar.exp(ar.op("Neg", x)))),
            "%/%": lambda a, b: ar.op("Floor", ar.div(a, b)),
            "-": lambda a, b=None: ar.op("Neg", a) if b is None else ar.sub(a, b),
            "log": lambda x, base=None: ar.log(x) if base is None else ar.div(ar.log(x), ar.log(base)),
            "is.na": lambda x: ar.graph.cast(ar.is_missing(x), "float64"),
            "!=": lambda a, b: ar.sub(1.0, ar.compare("Equal", a, b)),
            "ifelse": ar.choose,
            "pmin": lambda a, *b: ar.op("Min", a, *b), "pmax": lambda a, *b: ar.op("Max", a, *b),
            "xor": lambda a, b: ar.compare("Equal", ar.add(ar.truth(a), ar.truth(b)), 1.0),
            "asin": lambda x: ar.atan(ar.div(x, ar.op("Sqrt", ar.mul(ar.sub(1.0, x), ar.add(1.0, x))))),
            "acos": lambda x: ar.mul(2.0, ar.atan(ar.op("Sqrt", ar.div(ar.sub(1.0, x), ar.add(1.0, x))))),
            "asinh": lambda x: ar.mul(ar.op("Sign", x), ar.log1p(_asinh_argument(ar, ar.op("Abs", x)))),
            "acosh": lambda x: ar.log(ar.add(x, ar.op("Sqrt", ar.mul(ar.sub(x, 1.0), ar.add(x, 1.0))))),
            "atanh": lambda x: ar.mul(0.5, ar.sub(ar.log1p(x), ar.log1p(ar.op("Neg", x)))),
        }  # fmt: skip
        if name == "+" and len(values) == 1:
            return values[0]
        if name not in table and name not in _UNARY and name not in _COMPARE:
            raise refuse(
                f"the function {name or 'of a computed name'}()"
                if name not in _CONSTANT
                else f"{name}() over a column depends on the batch"
            )
        if tagged and name not in ("log", "ifelse"):
            raise refuse(f"{name}() with named arguments")
        operands = [self.numeric(v, f"{name}()") for v in values]
        if name in _COMPARE:
            return Numeric(ar.compare(_COMPARE[name], *operands), columns, logical=True)
        if name in _UNARY:
            return Numeric(ar.op(_UNARY[name], operands[0]), columns)
        try:
            out = table[name](*operands)
        except TypeError as exc:
            raise refuse(f"{name}() with {len(operands)} arguments") from exc
        return Numeric(out, columns, logical=name in _LOGICAL)

    def _member(self, name: str, values: list) -> Numeric:
        factor = next(v for v in values if isinstance(v, Factor))
        other = next(v for v in values if not isinstance(v, Factor))
        texts = list(other) if isinstance(other, list) else [number_text(float(v)) for v in np.atleast_1d(other)]
        inside = np.array([v in texts for v in factor.levels] + [False] * factor.open, dtype=np.float64)
        if name == "!=":
            inside = 1 - inside
        return Numeric(look_up(self.ar, factor, inside, 0.0 if name == "%in%" else np.nan), logical=True)

    def _among(self, x: str, values: Any) -> Numeric:
        hits = self.ar.graph.cast(self.ar.op("Equal", x, np.atleast_1d(np.asarray(values, dtype=np.float64))[None, :]), "float64")
        return Numeric(self.ar.graph.add("ReduceMax", hits, self.ar.graph.const([1], "int64"), keepdims=1), logical=True)

    # ------------------------------------------------------------ factors

    def _fn_factor(self, args: list, named: dict) -> Factor:
        x = args[0] if args else named.get("x")
        levels, labels = named.get("levels", args[1] if len(args) > 1 else None), named.get("labels", args[2] if len(args) > 2 else None)
        texts = self._texts(levels) if levels is not None else None
        if isinstance(x, Numeric):
            wanted = texts or self._hint
            if wanted is None:
                raise refuse("factor() of a number whose levels the file does not hold")
            x = self._from_number(x, wanted)
        if not isinstance(x, Factor):
            raise refuse("factor() of a constant")
        if texts is not None:
            x = recode(self.ar, x, tuple(texts))
        if labels is not None and not (isinstance(labels, list) and len(labels) == len(x.levels) == len(set(labels))):
            raise refuse("factor() with labels that merge levels")
        return Factor(x.codes, x.levels if labels is None else tuple(labels), x.ordered)

    def _strata(self, node: RObject) -> Factor:
        """A column as strata, which survival names `column=value` unless the column is a factor."""
        named, column = self._hint, node.value[1]
        if named is None or len(node.value) != 2 or not isinstance(column, RObject) or column.kind != "symbol":
            raise refuse("strata() of several columns or of an expression")
        levels, x = strata_levels(column.value, named), self._symbol(column.value, as_factor=True)
        x = self._from_number(x, levels) if isinstance(x, Numeric) else recode(self.ar, x, levels)
        return Factor(x.codes, named)

    @staticmethod
    def _texts(levels: Any) -> list[str]:
        return list(levels) if isinstance(levels, list) else [number_text(float(v)) for v in np.atleast_1d(levels)]

    def _from_number(self, x: Numeric, levels: Any) -> Factor:
        if set(levels) <= {"FALSE", "TRUE"}:
            numbers = np.array([[float(v == "TRUE") for v in levels]])
        else:
            try:
                numbers = np.array([[float(v) for v in levels]])
            except ValueError as exc:
                raise refuse("a factor of text that the file describes as a number") from exc
        hit = self.ar.graph.cast(self.ar.op("Equal", x.name, numbers), "int64")
        code = self.ar.graph.add("MatMul", hit, self.ar.graph.const(np.arange(1, len(levels) + 1)[:, None], "int64"))
        return Factor(self.ar.graph.add("Sub", code, self.ar.graph.const([[1]], "int64")), tuple(levels))

    def _fn_cut(self, args: list, named: dict) -> Any:
        x, breaks = args[0], named.get("breaks", args[1] if len(args) > 1 else None)
        if not isinstance(x, Numeric) or breaks is None or not constant(breaks) or np.ndim(breaks) == 0:
            raise refuse("cut() into a number of parts depends on the batch")
        labels = named.get("labels", args[2] if len(args) > 2 else None)
        right, lowest = bool(named.get("right", True)), bool(named.get("include.lowest", False))
        breaks = np.sort(np.asarray(breaks, dtype=np.float64))
        ar, graph = self.ar, self.ar.graph
        count = ar.total(graph.cast(ar.op("Greater" if right else "GreaterOrEqual", x.name, breaks[None, :]), "int64"))
        if lowest:
            edge = graph.cast(ar.op("Equal", x.name, breaks[0] if right else breaks[-1]), "int64")
            count = graph.add("Add" if right else "Sub", count, edge)
        parts = len(breaks) - 1
        code = graph.add("Gather", graph.const([-1, *range(parts), -1], "int64"), count, axis=0)  # below all, and above
        if isinstance(labels, np.bool_) and not labels:
            names = tuple(str(i + 1) for i in range(parts))
            return Numeric(look_up(ar, Factor(code, names), np.arange(1, parts + 1)))
        names = tuple(labels) if isinstance(labels, list) else _interval_names(breaks, int(named.get("dig.lab", 3)), right, lowest)
        return Factor(code, names, bool(named.get("ordered_result", False)))

    def _fn_find_interval(self, args: list, named: dict) -> Numeric:
        if named or len(args) != 2 or not isinstance(args[0], Numeric) or not constant(args[1]) or np.ndim(args[1]) > 1:
            raise refuse("findInterval() of anything but a column, between given numbers")
        ar, x = self.ar, args[0].name
        below = ar.graph.cast(ar.op("GreaterOrEqual", x, np.atleast_1d(np.asarray(args[1], dtype=np.float64))[None, :]), "float64")
        return Numeric(ar.where(ar.is_missing(x), np.nan, ar.total(below)))

    # ------------------------------------------------------------ bases

    def _column(self, args: list, what: str) -> str:
        if not args or not isinstance(args[0], Numeric) or len(args[0].columns) > 1:
            raise refuse(f"{what}() of anything but one numeric column")
        return args[0].name

    def _fn_poly(self, args: list, named: dict) -> Numeric:
        if "x" in named:
            args = [named["x"], *args]
        degree = named.get("degree", args[1] if len(args) == 2 and constant(args[1]) else 1)
        columns = args[:1] if len(args) == 2 and constant(args[1]) else args
        if not constant(degree) or np.ndim(degree) or not columns:
            raise refuse("poly() whose degree is not a number")
        raw, coefs = bool(named.get("raw", False)), named.get("coefs")
        if len(columns) == 1:
            parts = [self._powers(columns, int(degree), raw, coefs)]
        else:
            each = list(coefs.values()) if isinstance(coefs, dict) else [None] * len(columns)
            if len(each) != len(columns):
                raise refuse("poly() of several columns without the coefficients of each")
            parts = [self._powers([c], int(degree), raw, e) for c, e in zip(columns, each)]
        if len(parts) == 1:
            return Numeric(parts[0], tuple(str(i + 1) for i in range(int(degree))))
        return Numeric(*splines.products(self.ar, parts, int(degree)))

    def _powers(self, args: list, degree: int, raw: bool, coefs: Any) -> str:
        x = self._column(args, "poly")
        if raw:
            return self.ar.op("Pow", x, np.arange(1.0, degree + 1)[None])
        if not isinstance(coefs, dict) or "alpha" not in coefs or "norm2" not in coefs:
            raise refuse("poly() without the coefficients of training depends on the batch")
        return splines.poly(self.ar, x, np.atleast_1d(coefs["alpha"]), np.atleast_1d(coefs["norm2"]), degree)

    def _knots(self, named: dict, what: str) -> tuple[np.ndarray, np.ndarray]:
        boundary = named.get("Boundary.knots")
        if boundary is None or not constant(boundary) or np.size(boundary) != 2:
            raise refuse(f"{what}() without the knots of training depends on the batch")
        knots = named.get("knots")
        return np.array([]) if knots is None else np.atleast_1d(np.asarray(knots, dtype=np.float64)), np.asarray(boundary, dtype=np.float64)

    def _fn_ns(self, args: list, named: dict) -> Numeric:
        x = self._column(args, "ns")
        knots, boundary = self._knots(named, "ns")
        intercept = bool(named.get("intercept", False))
        count = len(knots) + 1 + intercept
        return Numeric(splines.ns(self.ar, x, knots, boundary, intercept), tuple(str(i + 1) for i in range(count)))

    def _fn_bs(self, args: list, named: dict) -> Numeric:
        x = self._column(args, "bs")
        knots, boundary = self._knots(named, "bs")
        degree, intercept = int(named.get("degree", 3)), bool(named.get("intercept", False))
        count = len(knots) + degree + intercept
        return Numeric(splines.bs(self.ar, x, knots, boundary, degree, intercept), tuple(str(i + 1) for i in range(count)))

    def _fn_scale(self, args: list, named: dict) -> Numeric:
        x = self._column(args, "scale")
        for key, position in (("center", 1), ("scale", 2)):
            value = named.get(key, args[position] if len(args) > position else np.bool_(True))
            if isinstance(value, (bool, np.bool_)):
                if value:
                    raise refuse("scale() without the values of training depends on the batch")
                continue
            x = self.ar.sub(x, float(value)) if key == "center" else self.ar.div(x, float(value))
        return Numeric(x)

    def _fn_list(self, args: list, named: dict) -> dict:
        return {**dict(enumerate(args)), **named}

    def _fn_seq(self, args: list, named: dict) -> np.ndarray:
        given = {**dict(zip(("from", "to", "by"), args)), **named}
        if set(given) - {"from", "to", "by", "length.out"} or not all(constant(v) and np.ndim(v) == 0 for v in given.values()):
            raise refuse("seq() of anything but numbers")
        first, last = float(given.get("from", 1.0)), float(given.get("to", 1.0))
        if "length.out" in given:
            count = int(given["length.out"]) - 1
            step = (last - first) / max(count, 1)
        else:
            step = float(given.get("by", 1.0 if last >= first else -1.0))
            count = int((last - first) / step + 1e-10) if step else -1
        if not 0 <= count <= 10_000:
            raise refuse("seq() that ends nowhere")
        return first + step * np.arange(count + 1)

    def _fn_cbind(self, args: list, named: dict) -> Numeric:
        values = [*args, *named.values()]
        if not values or not all(isinstance(v, Numeric) for v in values):
            raise refuse("cbind() of anything but numeric columns")
        columns = tuple(c for v in values for c in v.columns)
        return Numeric(self.ar.graph.concat([v.name for v in values]), columns)

    def _fn_sequence(self, args: list, named: dict) -> np.ndarray:
        if len(args) != 2 or not all(constant(a) and np.ndim(a) == 0 for a in args) or abs(float(args[1]) - float(args[0])) > 10_000:
            raise refuse("a sequence over columns")
        first, last = float(args[0]), float(args[1])
        return np.arange(first, last + (0.5 if last >= first else -0.5), 1.0 if last >= first else -1.0)


_METHODS = {
    **dict.fromkeys(FACTOR_CALLS, "factor"),
    "relevel": "factor",
    "cut": "cut",
    "findInterval": "find_interval",
    "poly": "poly",
    "polym": "poly",
    "ns": "ns",
    "bs": "bs",
    "scale": "scale",
    "list": "list",
    "seq": "seq",
    "cbind": "cbind",
    ":": "sequence",
}


def _asinh_argument(ar: Arithmetic, x: str) -> str:
    """Return what log1p turns into asinh of a positive number, without cancellation."""
    square = ar.mul(x, x)
    return ar.add(x, ar.div(square, ar.add(1.0, ar.op("Sqrt", ar.add(1.0, square)))))


def _interval_names(breaks: np.ndarray, digits: int, right: bool, lowest: bool) -> tuple[str, ...]:
    """Name the intervals of `cut` as R does: as few digits as keep the breaks apart."""
    for d in range(digits, max(12, digits) + 1):
        texts = [f"{b:.{d}g}" if np.isfinite(b) else (" Inf" if b > 0 else "-Inf") for b in breaks]  # R pads infinity like NaN
        if len(set(texts)) == len(texts):
            break
    opening, closing = ("(", "]") if right else ("[", ")")
    names = [f"{opening}{a},{b}{closing}" for a, b in itertools.pairwise(texts)]
    if lowest and right:
        names[0] = "[" + names[0][1:]
    elif lowest:
        names[-1] = names[-1][:-1] + "]"
    return tuple(names)
