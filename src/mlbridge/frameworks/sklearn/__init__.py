"""scikit-learn: recognise, read, infer, call natively, probe and convert its estimators.

Rooms: `inference` (signatures), `native` and `answers` (asking the library), `tracing` (columns through pipelines),
`reading` (files), `probing` (rows that show errors), `conversion` and `emitter` (graphs), and one room per family of
estimators that registers emitters: `linear`, `scalers`, `imputers`, `encoders`, `compose`, ....
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, ClassVar

from ...artifact import Artifact
from ...interfaces import Array
from ...signature import Signature

__all__ = ["SklearnFramework"]


_OTHERS = frozenset({"xgboost", "lightgbm", "catboost"})  # subclasses of scikit-learn's that have frameworks of their own


class SklearnFramework:
    """All that mlbridge knows about scikit-learn's estimators."""

    name: ClassVar[str] = "sklearn"
    formats: ClassVar[frozenset[str]] = frozenset({"skops", "pickle"})
    options: ClassVar[frozenset[str]] = frozenset({"trusted_types"})

    def accepts(self, model: object, /) -> bool:
        """Whether this is one of scikit-learn's estimators or a subclass of one; does not import it."""
        roots = [c.__module__.split(".")[0] for c in type(model).__mro__]
        return "sklearn" in roots and roots[0] not in _OTHERS and not isinstance(model, type)

    def read(self, source: Artifact, /, *, trusted_types: Any = (), **options: Any) -> object:
        """Turn a skops file, or a pickle or joblib file whose trust was checked, into an estimator."""
        from .reading import read

        return read(source, trusted_types)

    def infer(self, model: object, sample: object | None, /, **options: Any) -> Signature:
        """Decide the signature from the model, and from the sample's dtypes where the model does not say."""
        from .inference import infer

        return infer(model, sample)

    def native(self, model: object, /, *, signature: Signature, **options: Any) -> Callable[[Mapping[str, Array]], Mapping[str, Array]]:
        """Return a function from feeds to outputs that asks scikit-learn itself."""
        from .native import native

        return native(model, signature)

    def probe(self, model: object, /, *, signature: Signature, seed: int, **options: Any) -> dict[str, Array]:
        """Make rows that would show a wrong conversion."""
        from .probing import probe

        return probe(model, signature, seed)

    def tolerance(self, model: object, /, *, signature: Signature) -> float:
        """Return the largest relative error a right conversion of this model may show."""
        from .probing import tolerance

        return tolerance(model, signature)

    def coverage(self, model: object, rows: Mapping[str, Array], /, *, signature: Signature) -> float | None:
        """Return the share of reachable tree nodes that rows test on both sides, or None."""
        from .probing import coverage

        return coverage(model, dict(rows), signature)

    def convert(self, model: object, folder: Path, /, *, signature: Signature, **options: Any) -> Path:
        """Write an ONNX file that emits exactly the signature's outputs, or raise ConversionError."""
        from .conversion import convert

        return convert(model, folder, signature)
