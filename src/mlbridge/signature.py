"""What goes into a model and what comes out: Column, TensorSpec, Signature.

Also here: the one table of dtypes (numpy, OIP, ONNX, R, JVM, frame code), the one JSON form, and the names and
shapes every framework gives its blocks and outputs. Not here: values (`tensors.py`) and libraries (`frameworks/`).
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, NamedTuple

from .errors import ArtifactError, SignatureError

__all__ = [
    "DTYPES",
    "ROWS",
    "SIGNATURE_VERSION",
    "Column",
    "DType",
    "Field",
    "Signature",
    "TensorSpec",
    "blocks",
    "classifier_outputs",
    "label_spec",
    "level_text",
    "prediction_spec",
]

SIGNATURE_VERSION = 1
ROWS = "rows"  # the batch axis; its presence is a promise that rows are independent

Level = str | int | bool
Dim = int | str | None


class DType(NamedTuple):
    """One row of the dtype table: how each side spells the type."""

    name: str  # ours, and numpy's
    numpy: str | None  # little-endian numpy code; None where numpy lacks it
    oip: str  # Open Inference Protocol datatype
    onnx: int  # onnx.TensorProto.DataType
    r: str  # R vector type that holds it
    jvm: str  # Java element type; unsigned types are held in the signed type of equal width
    frame: int  # dtype code of the frame codec
    size: int  # bytes an element; 0 where it varies


_TABLE = (
    DType("bool", "|b1", "BOOL", 9, "logical", "boolean", 1, 1),
    DType("int8", "|i1", "INT8", 3, "integer", "byte", 2, 1),
    DType("int16", "<i2", "INT16", 5, "integer", "short", 3, 2),
    DType("int32", "<i4", "INT32", 6, "integer", "int", 4, 4),
    DType("int64", "<i8", "INT64", 7, "double", "long", 5, 8),
    DType("uint8", "|u1", "UINT8", 2, "integer", "byte", 6, 1),
    DType("uint16", "<u2", "UINT16", 4, "integer", "short", 7, 2),
    DType("uint32", "<u4", "UINT32", 12, "double", "int", 8, 4),
    DType("uint64", "<u8", "UINT64", 13, "double", "long", 9, 8),
    DType("float16", "<f2", "FP16", 10, "double", "short", 10, 2),
    DType("bfloat16", None, "BF16", 16, "double", "short", 11, 2),
    DType("float32", "<f4", "FP32", 1, "double", "float", 12, 4),
    DType("float64", "<f8", "FP64", 11, "double", "double", 13, 8),
    DType("string", "|O", "BYTES", 8, "character", "String", 14, 0),
)
DTYPES: Mapping[str, DType] = {d.name: d for d in _TABLE}


def level_text(level: Level) -> str:
    """Write a category level as text: strings as they are, `true`/`false`, integers in decimal.

    Examples
    --------
    >>> [level_text(v) for v in ("a", 3, True)]
    ['a', '3', 'true']
    """
    if isinstance(level, bool):
        return "true" if level else "false"
    return str(level)


def _level_type(levels: tuple) -> str | None:
    kinds = {"bool" if isinstance(v, bool) else "int64" if isinstance(v, int) else "string" if isinstance(v, str) else "?" for v in levels}
    if len(kinds) > 1 or "?" in kinds:
        raise SignatureError(
            f"categories {levels[:5]!r} are not all str, all int or all bool",
            hint="convert the levels to one type; floating-point levels are numbers, not categories",
        )
    return kinds.pop() if kinds else "string"


@dataclass(frozen=True, slots=True)
class Column:
    """One named column of a tensor's last axis.

    Parameters
    ----------
    name : str
        Its name, as users write it in tables and records.
    categories : sequence of str, int or bool, optional
        The training levels in order. The tensor then holds int32 codes: -1 missing, 0..k-1 levels, k unknown.
    ordered : bool, default=False
        Whether the levels are ordered.
    unknown : {'refuse', 'keep'}, default='refuse'
        What happens to a level the model was not trained on.
    unit : str, optional
        `date` (days since 1970-01-01), `timestamp` (seconds since the epoch, UTC), or any unit two stages must share.

    Examples
    --------
    >>> Column("size", categories=("S", "M", "L"), ordered=True).categories
    ('S', 'M', 'L')
    """

    name: str
    categories: tuple[Level, ...] | None = None
    ordered: bool = False
    unknown: Literal["refuse", "keep"] = "refuse"
    unit: str | None = None
    level_type: str | None = field(init=False, default=None, repr=False)  # True == 1 in Python; levels must not

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not self.name:
            raise SignatureError(f"a column's name must be a non-empty string, not {self.name!r}")
        if self.unknown not in ("refuse", "keep"):
            raise SignatureError(f"column {self.name!r}: unknown must be 'refuse' or 'keep', not {self.unknown!r}")
        if self.unit is not None and not isinstance(self.unit, str):
            raise SignatureError(f"column {self.name!r}: unit must be a string, not {self.unit!r}")
        if self.categories is None:
            if self.ordered or self.unknown == "keep":
                raise SignatureError(f"column {self.name!r}: ordered and unknown='keep' need categories")
            return
        levels = tuple(v.item() if hasattr(v, "item") else v for v in self.categories)
        if len(set(levels)) != len(levels):
            raise SignatureError(f"column {self.name!r}: a category occurs twice")
        object.__setattr__(self, "categories", levels)
        object.__setattr__(self, "level_type", _level_type(levels))

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON form; defaults are left out.

        Returns
        -------
        dict
            Strings, numbers, lists and dicts only.
        """
        out: dict[str, Any] = {"name": self.name}
        if self.categories is not None:
            out["categories"] = list(self.categories)
        if self.ordered:
            out["ordered"] = True
        if self.unknown != "refuse":
            out["unknown"] = self.unknown
        if self.unit is not None:
            out["unit"] = self.unit
        return out


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """One named tensor: dtype, shape, columns, and the rules for missing values and rounding.

    Parameters
    ----------
    name : str
        The tensor's name.
    dtype : str
        A name of the dtype table: bool, int8..int64, uint8..uint64, float16, float32, float64, string, bfloat16.
    shape : sequence of int, str or None
        A string is a symbol that must agree across tensors; None is any size. `rows` is the batch axis, first.
    columns : sequence of Column, optional
        Names of the last axis, or of the single column a ("rows",) tensor is.
    missing : {'refuse', 'allow'}, default='refuse'
        Whether NaN, code -1 or None may occur.
    rounding : {'refuse', 'nearest'}, default='refuse'
        Whether values may be rounded to this float32 or float16.

    Examples
    --------
    >>> TensorSpec("features", "float64", ("rows", 2), (Column("age"), Column("income"))).shape
    ('rows', 2)
    """

    name: str
    dtype: str
    shape: tuple[Dim, ...]
    columns: tuple[Column, ...] = ()
    missing: Literal["refuse", "allow"] = "refuse"
    rounding: Literal["refuse", "nearest"] = "refuse"

    def __post_init__(self) -> None:
        object.__setattr__(self, "shape", tuple(self.shape))
        object.__setattr__(self, "columns", tuple(self.columns))
        problems = list(_spec_problems(self))
        if problems:
            raise SignatureError(f"tensor {self.name!r}: " + "; ".join(problems), problems=problems)

    @property
    def batched(self) -> bool:
        """Whether the first axis is the promise `rows`."""
        return bool(self.shape) and self.shape[0] == ROWS

    @property
    def categorical(self) -> bool:
        """Whether the values are codes of categories."""
        return bool(self.columns) and self.columns[0].categories is not None

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON form; defaults are left out.

        Returns
        -------
        dict
            Strings, numbers, lists and dicts only.
        """
        out: dict[str, Any] = {"name": self.name, "dtype": self.dtype, "shape": list(self.shape)}
        if self.columns:
            out["columns"] = [c.to_dict() for c in self.columns]
        if self.missing != "refuse":
            out["missing"] = self.missing
        if self.rounding != "refuse":
            out["rounding"] = self.rounding
        return out

    def __str__(self) -> str:
        dims = ", ".join("?" if d is None else str(d) for d in self.shape)
        return f"{self.name}: {self.dtype}[{dims}]"


def _spec_problems(spec: TensorSpec) -> Iterable[str]:
    if not isinstance(spec.name, str) or not spec.name:
        yield f"the name must be a non-empty string, not {spec.name!r}"
    if spec.dtype not in DTYPES:
        yield f"dtype {spec.dtype!r} is not one of {', '.join(DTYPES)}"
    for i, d in enumerate(spec.shape):
        if not (d is None or (isinstance(d, str) and d) or (isinstance(d, int) and not isinstance(d, bool) and d >= 0)):
            yield f"shape[{i}] must be a size, a symbol or None, not {d!r}"
        if d == ROWS and i:
            yield "the symbol 'rows' must be the first axis"
    if spec.missing not in ("refuse", "allow"):
        yield f"missing must be 'refuse' or 'allow', not {spec.missing!r}"
    if spec.rounding not in ("refuse", "nearest"):
        yield f"rounding must be 'refuse' or 'nearest', not {spec.rounding!r}"
    if spec.rounding == "nearest" and spec.dtype not in ("float16", "float32", "bfloat16"):
        yield f"rounding='nearest' is for float32 and float16, not {spec.dtype}"
    if not all(isinstance(c, Column) for c in spec.columns):
        yield "columns must be Column objects"
        return
    if spec.columns:
        names = [c.name for c in spec.columns]
        twice = sorted({n for n in names if names.count(n) > 1})
        if twice:
            yield f"columns occur twice: {', '.join(map(repr, twice))}"
        width = spec.shape[-1] if len(spec.shape) > 1 else 1
        if not spec.shape:
            yield "a scalar has no columns"
        elif isinstance(width, int) and len(names) != width:
            yield f"{len(names)} columns for a last axis of {width}"
        kinds = {c.categories is not None for c in spec.columns}
        if len(kinds) > 1:
            yield "categorical and other columns cannot share a block"
        elif kinds == {True} and spec.dtype != "int32":
            yield f"categories are int32 codes, not {spec.dtype}"


@dataclass(frozen=True, slots=True)
class Signature:
    """The names, dtypes, shapes and rules of a model's inputs and outputs.

    Parameters
    ----------
    inputs, outputs : sequence of TensorSpec
        In order. Names are unique on each side.

    Examples
    --------
    >>> sig = Signature([TensorSpec("x", "float32", ("rows", 3))], [TensorSpec("y", "float32", ("rows",))])
    >>> Signature.from_json(sig.to_json()) == sig
    True
    """

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "inputs", tuple(self.inputs))
        object.__setattr__(self, "outputs", tuple(self.outputs))
        problems = []
        for side, specs in (("input", self.inputs), ("output", self.outputs)):
            names = [s.name for s in specs]
            problems += [f"two {side}s are named {n!r}" for n in sorted({n for n in names if names.count(n) > 1})]
        if not self.outputs:
            problems.append("a signature needs at least one output")
        columns = [c.name for s in self.inputs for c in s.columns]
        problems += [f"two input columns are named {n!r}" for n in sorted({n for n in columns if columns.count(n) > 1})]
        if problems:
            raise SignatureError("; ".join(problems), problems=problems)

    @property
    def batched(self) -> bool:
        """Whether rows are independent: every input and output starts with `rows`."""
        return bool(self.inputs) and all(s.batched for s in (*self.inputs, *self.outputs))

    @property
    def columns(self) -> tuple[Column, ...]:
        """Every input column, block by block."""
        return tuple(c for s in self.inputs for c in s.columns)

    def input(self, name: str) -> TensorSpec:
        """Return the input of a name.

        Parameters
        ----------
        name : str
            As the signature spells it.

        Returns
        -------
        TensorSpec
            Its names, dtype, shape and rules.

        Raises
        ------
        SignatureError
            If there is none.
        """
        return _find(self.inputs, name, "input")

    def output(self, name: str) -> TensorSpec:
        """Return the output of a name.

        Parameters
        ----------
        name : str
            As the signature spells it.

        Returns
        -------
        TensorSpec
            Its names, dtype, shape and rules.

        Raises
        ------
        SignatureError
            If there is none.
        """
        return _find(self.outputs, name, "output")

    def replace(self, **changes: Any) -> Signature:
        """Exchange inputs or outputs.

        Parameters
        ----------
        **changes : sequence of TensorSpec
            `inputs`, `outputs` or both.

        Returns
        -------
        Signature
            A copy; this one stays as it is.
        """
        return replace(self, **changes)

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON form as a dict.

        Returns
        -------
        dict
            With `version`, `inputs` and `outputs`.
        """
        return {
            "version": SIGNATURE_VERSION,
            "inputs": [s.to_dict() for s in self.inputs],
            "outputs": [s.to_dict() for s in self.outputs],
        }

    def to_json(self) -> str:
        """Return the one serialisation: compact JSON in a fixed order.

        Returns
        -------
        str
            Equal signatures have equal text.
        """
        return json.dumps(self.to_dict(), ensure_ascii=False, separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str | bytes) -> Signature:
        """Read the JSON form.

        Parameters
        ----------
        text : str or bytes
            What `to_json` wrote, here or in another language.

        Raises
        ------
        ArtifactError
            If it is malformed, has unknown keys, or its version is newer than this mlbridge reads.
        """
        try:
            data = json.loads(text)
        except (ValueError, RecursionError) as exc:
            raise ArtifactError(f"the signature is not JSON: {exc}") from exc
        return cls.from_dict(data)

    @classmethod
    def from_dict(cls, data: Any) -> Signature:
        """Read the JSON form from a dict; as `from_json`.

        Parameters
        ----------
        data : dict
            What `to_dict` returned.
        """
        _keys(data, "signature", {"version", "inputs", "outputs"}, {"version", "inputs", "outputs"})
        version = data["version"]
        if not isinstance(version, int) or isinstance(version, bool) or version < 1:
            raise ArtifactError(f"the signature's version is {version!r}, not a positive integer")
        if version > SIGNATURE_VERSION:
            raise ArtifactError(
                f"the signature has version {version}; this mlbridge reads up to {SIGNATURE_VERSION}",
                hint="upgrade mlbridge",
            )
        try:
            return cls(
                tuple(_spec_from(d) for d in _list(data["inputs"], "inputs")),
                tuple(_spec_from(d) for d in _list(data["outputs"], "outputs")),
            )
        except SignatureError as exc:
            raise ArtifactError(f"the signature is malformed: {exc.message}") from exc

    def __str__(self) -> str:
        return ", ".join(map(str, self.inputs)) + " -> " + ", ".join(map(str, self.outputs))


def _find(specs: tuple[TensorSpec, ...], name: str, side: str) -> TensorSpec:
    for spec in specs:
        if spec.name == name:
            return spec
    raise SignatureError(f"there is no {side} {name!r}; there are {', '.join(repr(s.name) for s in specs)}")


def _list(value: Any, where: str) -> list:
    if not isinstance(value, list):
        raise ArtifactError(f"the signature's {where} is {type(value).__name__}, not a list")
    return value


def _keys(data: Any, where: str, allowed: set[str], needed: set[str]) -> None:
    if not isinstance(data, dict):
        raise ArtifactError(f"{where} is {type(data).__name__}, not an object")
    unknown, absent = sorted(set(data) - allowed), sorted(needed - set(data))
    if unknown:
        raise ArtifactError(f"{where} has unknown keys: {', '.join(map(repr, unknown))}", hint="it may need a newer mlbridge")
    if absent:
        raise ArtifactError(f"{where} lacks {', '.join(map(repr, absent))}")


def _spec_from(data: Any) -> TensorSpec:
    _keys(data, "a tensor of the signature", {"name", "dtype", "shape", "columns", "missing", "rounding"}, {"name", "dtype", "shape"})
    columns = tuple(_column_from(c) for c in _list(data.get("columns", []), "columns"))
    return TensorSpec(**{**data, "shape": tuple(_list(data["shape"], "shape")), "columns": columns})


def _column_from(data: Any) -> Column:
    _keys(data, "a column of the signature", {"name", "categories", "ordered", "unknown", "unit"}, {"name"})
    levels = data.get("categories")
    if not isinstance(data.get("ordered", False), bool):
        raise ArtifactError("a column's 'ordered' must be true or false")
    return Column(**{**data, "categories": None if levels is None else tuple(_list(levels, "categories"))})


# ---------------------------------------------------------------- what every framework names alike


class Field(NamedTuple):
    """One column of a training table, before columns are gathered into blocks."""

    column: Column
    dtype: str = "float64"
    missing: Literal["refuse", "allow"] = "refuse"
    rounding: Literal["refuse", "nearest"] = "refuse"


def blocks(fields: Iterable[Field]) -> tuple[TensorSpec, ...]:
    """Gather a table's columns into a few blocks: `features`, `categorical`, `text`.

    Columns of one kind that differ in dtype, missing rule or rounding get a block each: the first keeps the name,
    the next are `features_2`, `features_3`, …. Order inside a block is the training order.

    Examples
    --------
    >>> [str(s) for s in blocks([Field(Column("age")), Field(Column("sex", categories=("f", "m")), "int32")])]
    ['features: float64[rows, 1]', 'categorical: int32[rows, 1]']
    """
    groups: dict[tuple, list[Column]] = {}
    for f in fields:
        kind = "categorical" if f.column.categories is not None else "text" if f.dtype == "string" else "features"
        groups.setdefault((kind, f.dtype, f.missing, f.rounding), []).append(f.column)
    counts: dict[str, int] = {}
    specs = []
    for (kind, dtype, missing, rounding), columns in groups.items():
        n = counts[kind] = counts.get(kind, 0) + 1
        specs.append(TensorSpec(kind if n == 1 else f"{kind}_{n}", dtype, (ROWS, len(columns)), tuple(columns), missing, rounding))
    order = {"features": 0, "categorical": 1, "text": 2}
    return tuple(sorted(specs, key=lambda s: order[s.name.split("_")[0]]))


def label_spec(classes: Sequence[Any], *, name: str = "label", missing: Literal["refuse", "allow"] = "refuse") -> TensorSpec:
    """Describe a classifier's label: int32 codes of `classes`, in the model's order.

    Integral floating-point classes become int64 levels; other floating-point classes give a plain float64 output.
    """
    levels = [c.item() if hasattr(c, "item") else c for c in classes]
    if levels and all(isinstance(v, float) for v in levels):
        if not all(v.is_integer() for v in levels):
            return TensorSpec(name, "float64", (ROWS,), missing=missing)
        levels = [int(v) for v in levels]
    return TensorSpec(name, "int32", (ROWS,), (Column(name, categories=tuple(levels)),), missing=missing)


def classifier_outputs(
    classes: Sequence[Any],
    *,
    scores: str | None = "probabilities",
    dtype: str = "float64",
    suffix: str = "",
    missing: Literal["refuse", "allow"] = "refuse",
) -> tuple[TensorSpec, ...]:
    """Describe a classifier's outputs: `label`, and `probabilities` with a column a class.

    Parameters
    ----------
    classes : sequence
        The classes in the model's order.
    scores : {'probabilities', 'decision', None}
        What the model gives beside the label. `decision` of two classes is one value a row.
    dtype : str
        The scores' dtype.
    suffix : str
        `_0`, `_1`, … for several targets.
    missing : {'refuse', 'allow'}
        `allow` where an answer may be missing.
    """
    label = label_spec(classes, name=f"label{suffix}", missing=missing)
    if scores is None:
        return (label,)
    if scores == "decision" and len(classes) <= 2:
        return label, TensorSpec(f"decision{suffix}", dtype, (ROWS,), missing=missing)
    levels = label.columns[0].categories if label.columns else classes
    columns = tuple(Column(level_text(v)) for v in levels or ())
    return label, TensorSpec(f"{scores}{suffix}", dtype, (ROWS, len(columns)), columns, missing=missing)


def prediction_spec(
    width: int | None = None,
    *,
    name: str = "prediction",
    dtype: str = "float64",
    columns: Sequence[str] = (),
    missing: Literal["refuse", "allow"] = "refuse",
) -> TensorSpec:
    """Describe a numeric answer: one value a row, or `width` of them with optional column names."""
    shape: tuple[Dim, ...] = (ROWS,) if width is None else (ROWS, width)
    return TensorSpec(name, dtype, shape, tuple(Column(str(c)) for c in columns), missing=missing)
