"""What of a Model a package holds: its implementations, its golden rows, its card. Called by `Model.save` alone."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from .artifact import Implementation
from .description import Description, Route
from .errors import UnsupportedError
from .interfaces import Array, Runtime, Session
from .package import limit_samples
from .signature import Signature
from .tensors import batch_rows

__all__ = ["Parts", "card", "kept_samples", "write_implementations"]

_CONVERTED = ("onnx", "pipeline")
Samples = tuple[dict[str, Array], dict[str, Array]]


class Parts(NamedTuple):
    """What a Model is made of, as far as its package is concerned."""

    name: str
    session: Session
    runtime: Runtime | None
    native: Callable[[], tuple[Runtime, Session]] | None
    route: Route
    report: Any
    requires: Mapping[str, str]


def write_implementations(parts: Parts, tree: Path, native: bool | str) -> list[Implementation]:
    """Write the implementations a package is to hold.

    Parameters
    ----------
    parts : Parts
        Of the Model.
    tree : Path
        The package being made.
    native : {'auto', True, False}
        As for `Model.save`.

    Raises
    ------
    UnsupportedError
        If none can be saved, or the native one was demanded and cannot.
    """
    verified = parts.report is not None and parts.report.verified
    own_is_native = parts.route.runtime not in _CONVERTED
    out: list[Implementation] = []
    refused: list[str] = []
    if not (own_is_native and native is False):
        out += _write_one(parts, parts.runtime, parts.session, tree, "native" if own_is_native else parts.route.runtime, refused)
    wants_native = native is True or (native == "auto" and not verified)
    if wants_native and parts.native is not None and not own_is_native:
        runtime, session = parts.native()
        try:
            out += _write_one(parts, runtime, session, tree, "native", refused)
        finally:
            session.close()
    if not out or (native is True and not any(i.runtime not in _CONVERTED for i in out)):
        raise UnsupportedError(f"{parts.name}: no implementation can be saved: {'; '.join(refused) or 'none was allowed'}")
    return out


def _write_one(parts: Parts, runtime: Runtime | None, session: Session, tree: Path, place: str, refused: list[str]) -> list[Implementation]:
    import shutil

    if runtime is None:
        refused.append("the session was made by hand")
        return []
    folder = tree / "model" / place
    folder.mkdir(parents=True)
    try:
        made = runtime.save(session, folder)
    except UnsupportedError as exc:
        shutil.rmtree(folder)  # a pipeline may have written some of its stages
        refused.append(exc.message)
        return []
    report = parts.report if place == "onnx" else None
    parity = None if report is None else {k: getattr(report, k) for k in ("verified", "rows", "max_error", "tolerance")}
    path = made.path
    if not path.startswith("model/"):
        path = f"model/{place}/{path}" if path not in ("", ".") else f"model/{place}"
    return [Implementation(made.runtime, path, made.format, made.options, dict(made.requires) | dict(parts.requires), parity)]


def kept_samples(samples: Samples | None, signature: Signature, want: int) -> Samples | None:
    """Return at most `want` golden rows, as many as a package may hold; None where there are none to keep."""
    if samples is None or want <= 0:
        return None
    feeds, results = samples
    n = limit_samples(feeds, batch_rows(feeds, signature), want)
    if n == 0:
        return None
    if not signature.batched:
        return feeds, results
    return {k: v[:n] for k, v in feeds.items()}, {k: v[:n] for k, v in results.items()}


def card(shown: Description, name: str, description: str) -> str:
    """Return the package's card in Markdown."""
    return f"# {name}\n\n{description}\n\n```\n{shown!r}\n```\n\nOpen it with `mlbridge.load({name + '.mlb'!r})`.\n"
