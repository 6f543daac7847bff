"""Read estimators from files: skops with named types; pickle and joblib once the caller's trust was checked."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from ...artifact import Artifact
from ...errors import ArtifactError, MissingDependencyError, UntrustedArtifactError

__all__ = ["read"]


def read(source: Artifact, trusted_types: Iterable[str] = ()) -> Any:
    """Read an estimator.

    Parameters
    ----------
    source : Artifact
        Its `path` is the private copy whose bytes were hashed.
    trusted_types : iterable of str
        Types of a skops file, beyond scikit-learn's own, that the caller trusts.

    Raises
    ------
    ArtifactError
        If the file is malformed; UntrustedArtifactError if it names types that are not trusted.
    """
    return _skops(source, list(trusted_types)) if source.format == "skops" else _joblib(source)


def _skops(source: Artifact, trusted: list[str]) -> Any:
    try:
        from skops import io
        from skops.io.exceptions import UntrustedTypesFoundException
    except ImportError as exc:
        raise MissingDependencyError(f"{source.label}: a skops file needs skops", hint="pip install 'mlbridge[sklearn]'") from exc
    try:
        return io.load(source.path, trusted=trusted)
    except UntrustedTypesFoundException as exc:
        unknown = ", ".join(t for t in io.get_untrusted_types(file=source.path) if t not in trusted)
        raise UntrustedArtifactError(
            f"{source.label}: holds types that are not trusted: {unknown}", hint="if you know them, name them in trusted_types=[...]"
        ) from exc
    except Exception as exc:
        raise ArtifactError(f"{source.label}: not a readable skops file: {exc}") from exc


def _joblib(source: Artifact) -> Any:
    try:
        import joblib
    except ImportError as exc:
        raise MissingDependencyError(
            f"{source.label}: a scikit-learn pickle needs scikit-learn", hint="pip install 'mlbridge[sklearn]'"
        ) from exc
    try:
        return joblib.load(source.path)
    except ModuleNotFoundError as exc:
        raise MissingDependencyError(
            f"{source.label}: the pickle needs the module {exc.name!r}", hint=f"install what provides {exc.name!r}"
        ) from exc
    except Exception as exc:
        raise ArtifactError(f"{source.label}: not a readable pickle: {exc}") from exc
