"""mlbridge: one Model over scikit-learn, PyTorch, TensorFlow, boosting, R and Spark.

Four nouns carry everything: a *Signature* says what goes in and out, a *Session* runs a model, a *Runtime* makes
sessions, a *Framework* knows one library's models. Start with `wrap`, `load` and `Model.predict`.
"""

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
