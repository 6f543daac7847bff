"""A runtime in one class: a live `Scale`, or a file that holds one number."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

from mlbridge.artifact import Implementation
from mlbridge.errors import ArtifactError
from mlbridge.signature import Signature, TensorSpec
from mlbridge.testing import FunctionSession

SIGNATURE = Signature([TensorSpec("x", "float64", ("rows", 2))], [TensorSpec("y", "float64", ("rows", 2))])


class Scale:
    """The library's model."""

    def __init__(self, factor: float) -> None:
        self.factor = factor


class ScaleRuntime:
    """Runs Scale models."""

    name: ClassVar[str] = "scale"
    formats: ClassVar[frozenset[str]] = frozenset()
    options: ClassVar[frozenset[str]] = frozenset({"offset"})

    def accepts(self, model, /):
        return isinstance(model, Scale)

    def infer(self, model, sample, /):
        return SIGNATURE

    def wrap(self, model, /, *, signature, offset=0.0):
        session = FunctionSession(signature, lambda feeds: {"y": feeds["x"] * model.factor + offset})
        session.model = model
        return session

    def load(self, source, /, *, signature=None, device="auto", **options):
        try:
            factor = float(source.path.read_text())
        except (ValueError, UnicodeDecodeError) as exc:
            raise ArtifactError(f"{source.label}: not a number") from exc
        return self.wrap(Scale(factor), signature=signature or SIGNATURE, **options)

    def save(self, session, folder: Path, /):
        (folder / "model.scale").write_text(repr(session.model.factor))
        return Implementation("scale", "model.scale", "unknown")
