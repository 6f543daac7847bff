"""What goes into a model and what comes out: Column, TensorSpec, Signature, and their one JSON form.

Rooms: `dtypes` (the table of types) · `specs` (one tensor) · `words` (the names and shapes every framework gives its
blocks and outputs). Not here: values (`tensors`) and libraries (`frameworks`).
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from typing import Any

from ..errors import ArtifactError, SignatureError
from .dtypes import DTYPES, DType
from .specs import ROWS, Column, Dim, TensorSpec, level_text
from .words import Field, blocks, classifier_outputs, label_spec, prediction_spec

__all__ = [
    "DTYPES",
    "ROWS",
    "SIGNATURE_VERSION",
    "Column",
    "DType",
    "Dim",
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
