"""RFramework: recognises a fitted R model by its full class vector and hands it to its family.

Everything comes from the RDS file; R itself runs models in the runtime `r`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from ...artifact import Artifact
from ...errors import ArtifactError, ConversionError, MlbridgeError, UnsupportedError
from ...interfaces import Array
from ...signature import Signature, blocks
from . import families
from .family import Family, build, grid
from .rds import read_rds
from .robject import RObject
from .values import level_texts

__all__ = ["RFramework"]

_PROBE_ROWS = 256
_BREAKS = (TypeError, ValueError, LookupError, AttributeError, AssertionError, ArithmeticError, RecursionError, MemoryError)
_MAX_TREE_ROWS = 20_000  # nodes tried, as the design says


class RFramework:
    """Fitted R models, read from RDS files and written as ONNX without R.

    Examples
    --------
    >>> RFramework().accepts(object())
    False
    """

    name: ClassVar[str] = "r"
    formats: ClassVar[frozenset[str]] = frozenset({"rds"})
    options: ClassVar[frozenset[str]] = frozenset({"as", "type", "s", "n.trees"})

    def accepts(self, model: object, /) -> bool:
        """Whether this is an R object whose class vector is known in full."""
        return isinstance(model, RObject) and model.kind == "list" and families.family_of(model.classes) is not None

    def read(self, source: Artifact, /, **options: Any) -> RObject | None:
        """Read an RDS file without R.

        Raises
        ------
        ArtifactError
            If it is malformed or beyond the reader's limits.
        """
        return read_rds(source.read_bytes())

    def named(self, model: object, /) -> str:
        """Say what an object is, in R's words."""
        what = ("/".join(model.classes) or model.kind) if isinstance(model, RObject) else "NULL"
        return f"an R object of class {what}"

    def infer(self, model: object, sample: object | None, /, **options: Any) -> Signature:
        """Decide the signature from the model alone: its formula, its levels, its class."""
        family = self._family(model, options, _sample_levels(sample))
        with _malformed():
            return Signature(blocks(family.fields()), family.outputs())

    def native(self, model: object, /, *, signature: Signature, **options: Any) -> Callable[[Mapping[str, Array]], Mapping[str, Array]]:
        """Refuse: an R model runs natively in R."""
        raise UnsupportedError(
            "an R model has no native route inside Python", hint="load its file with the scheme 'r:' and trust='code': R will run it"
        )

    def probe(self, model: object, /, *, signature: Signature, seed: int, **options: Any) -> dict[str, Array]:
        """Make rows for every branch of every tree, every level, missing values, and numbers in and beyond their ranges."""
        family = self._family(model, options, _signature_levels(signature))
        with _malformed():
            feeds = grid(family, signature, seed, _PROBE_ROWS)
            extra = _tree_rows(family, signature, feeds, seed)
        return {k: np.concatenate([v, extra[k]]) for k, v in feeds.items()} if extra else feeds

    def convert(self, model: object, folder: Path, /, *, signature: Signature, **options: Any) -> Path:
        """Write the model as a float64 ONNX graph.

        Raises
        ------
        ConversionError
            If the model has no exact ONNX form; the message names why.
        """
        family = self._family(model, options, _signature_levels(signature))
        with _malformed():
            return build(family, signature).save(folder)

    def _family(self, model: object, options: Mapping[str, Any], known: Mapping[str, tuple[str, ...]]) -> Family:
        if not isinstance(model, RObject):
            raise ConversionError("not an R object")
        make = families.family_of(model.classes)
        if make is None:
            raise ConversionError(
                f"{self.named(model)}: this class vector is not known in full",
                hint="run it in R: load it with the scheme 'r:' and trust='code'",
            )
        with _malformed():
            return make(model, options, known)


def _sample_levels(sample: object | None) -> dict[str, tuple[str, ...]]:
    """Return the levels of a table's categorical columns, none for those of text: some R models do not store theirs."""
    if sample is None:
        return {}
    import narwhals.stable.v2 as nw

    frame = nw.from_native(sample, eager_only=True, pass_through=True)
    if not isinstance(frame, nw.DataFrame):
        return {}
    columns = {name: frame[name] for name in frame.columns}
    texts: dict[str, tuple[str, ...]] = {n: () for n, c in columns.items() if c.dtype == nw.String}
    coded = {n: c.cat.get_categories() for n, c in columns.items() if c.dtype in (nw.Categorical, nw.Enum)}
    return texts | {n: tuple(str(v) for v in levels) for n, levels in coded.items() if len(levels)}


def _signature_levels(signature: Signature) -> dict[str, tuple[str, ...]]:
    columns = [(c, s.dtype) for s in signature.inputs for c in s.columns]
    return {c.name: level_texts(c) for c, dtype in columns if c.categories is not None or dtype == "string"}


class _malformed:  # noqa: N801 - a context manager reads as a word
    """Turn what a damaged model breaks inside a family into ArtifactError."""

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: Any, exc: Any, trace: Any) -> None:
        if isinstance(exc, (TypeError, ValueError, IndexError, KeyError, AttributeError, AssertionError, OverflowError)) and not isinstance(
            exc, MlbridgeError
        ):
            raise ArtifactError(f"the R model is malformed: {type(exc).__name__}: {exc}") from exc


def _tree_rows(family: Family, signature: Signature, feeds: Mapping[str, Array], seed: int) -> dict[str, Array]:
    from ..trees import blocks_of, matrix, path_rows, positions, width

    trees, names, levels = family.trees()
    if not trees or not signature.columns:
        return {}
    where = positions(signature, names)
    from dataclasses import replace

    moved = [replace(t, feature=np.where(t.feature >= 0, where[t.feature], -1)) for t in trees]
    missing = np.array([s.missing == "allow" for s in signature.inputs for _ in s.columns])
    base = np.nan_to_num(matrix(feeds, signature), nan=0.0)
    rows = path_rows(
        moved,
        columns=width(signature),
        base_rows=base,
        seed=seed,
        missing=missing,
        levels={int(where[k]): v for k, v in levels.items()},
        max_nodes=_MAX_TREE_ROWS,
    )
    return blocks_of(rows, signature)
