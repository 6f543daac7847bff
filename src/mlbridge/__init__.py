"""mlbridge: one Model over scikit-learn, PyTorch, TensorFlow, boosting, R and Spark.

Four nouns carry everything: a *Signature* says what goes in and out, a *Session* runs a model, a *Runtime* makes
sessions, a *Framework* knows one library's models. Start with `wrap`, `load` and `Model.predict`.

Importing this loads nothing more; the first public name asked for brings them all, and numpy.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from . import errors as errors
    from . import executor as executor
    from . import interfaces as interfaces
    from . import pipeline as pipeline
    from . import testing as testing
    from ._api import convert, load, serve, wrap
    from .errors import MlbridgeError
    from .model import Model
    from .pipeline import Pipeline, cast
    from .signature import Column, Signature, TensorSpec

__version__ = "0.1.0"

__all__ = [
    "Column",
    "MlbridgeError",
    "Model",
    "Pipeline",
    "Signature",
    "TensorSpec",
    "__version__",
    "cast",
    "convert",
    "load",
    "serve",
    "wrap",
]

_HOMES = {
    "._api": ("convert", "load", "serve", "wrap"),
    ".errors": ("MlbridgeError",),
    ".model": ("Model",),
    ".pipeline": ("Pipeline", "cast"),
    ".signature": ("Column", "Signature", "TensorSpec"),
}
_ROOMS = ("errors", "executor", "interfaces", "pipeline", "testing")  # reached as attributes, `mlbridge.errors.InputError`


def __getattr__(name: str) -> Any:
    if name in _ROOMS:
        return import_module(f".{name}", __name__)
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    for home, names in _HOMES.items():  # all at once: `_api` gives Model its `>>` and Pipeline its loader
        room = import_module(home, __name__)
        globals().update({n: getattr(room, n) for n in names})
    return globals()[name]


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, *_ROOMS})
