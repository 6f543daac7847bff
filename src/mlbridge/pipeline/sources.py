"""Stages from Models, paths and URIs: their signatures without loading, where a manifest has them, and their Models."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import Any

from ..artifact import open_artifact
from ..errors import InputError, MlbridgeError, UnsupportedError
from ..model import Model
from ..package import read_package
from ..signature import Signature

__all__ = ["load_stage", "open_stages", "set_loader", "signature_of"]

_loader: Callable[..., Model] | None = None  # `load`, handed over by `_api`


def set_loader(load: Callable[..., Model]) -> None:
    """Take `mlbridge.load`, so that stages may be paths and URIs.

    Parameters
    ----------
    load : callable
        From a path or URI to a Model.
    """
    global _loader
    _loader = load


def load_stage(source: Any, **keywords: Any) -> Model:
    """Load a stage; keywords as of `mlbridge.load`."""
    if _loader is None:
        raise UnsupportedError("stages given as paths need mlbridge.load", hint="import mlbridge, not its parts")
    return _loader(source, **keywords)


def signature_of(stage: Any) -> Signature | None:
    """Return a stage's signature without loading it, where a manifest has it."""
    if isinstance(stage, Model):
        return stage.signature
    if not isinstance(stage, (str, os.PathLike)):
        raise InputError(
            f"a stage is a Model, a path or a URI, not {type(stage).__name__}", hint="wrap functions with mlbridge.wrap(f, signature=…)"
        )
    if not os.path.exists(stage):
        return None
    artifact = open_artifact(stage)
    return read_package(artifact).signature if artifact.format == "mlb" else None


def open_stages(stages: Mapping[str, Any], trust: str, options: Any, **keywords: Any) -> tuple[dict[str, Model], list[Model]]:
    """Open what is not a Model yet; returns all by name, and those opened here."""
    models, owned = {}, []
    try:
        for name, stage in stages.items():
            if isinstance(stage, Model):
                models[name] = stage
            else:
                models[name] = load_stage(stage, trust=trust, options=options, **keywords)
                owned.append(models[name])
    except BaseException as exc:
        for m in owned:
            m.close()
        if isinstance(exc, MlbridgeError) and exc.args:
            exc.args = (f"stage {name!r}: {exc.message}", *exc.args[1:])
        raise
    return models, owned
