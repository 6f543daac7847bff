"""`pipeline.toml`: the declared form of a pipeline, with positions in its errors."""

from __future__ import annotations

from typing import Any

from ..artifact import Artifact
from ..errors import ArtifactError

__all__ = ["read_toml"]

_KEYS = {"name": str, "stages": dict, "wiring": dict, "outputs": dict}


def read_toml(source: Artifact) -> dict[str, Any]:
    """Read a `pipeline.toml`.

    Parameters
    ----------
    source : Artifact
        Its text: `name`, and the tables `stages` (name to path, package or URI), `wiring`, `outputs`.

    Returns
    -------
    dict
        `stages`, and `wiring` and `outputs` where given.

    Raises
    ------
    ArtifactError
        With every mistake and its line.
    """
    text = source.path.read_bytes().decode("utf-8", "replace")
    import tomllib

    try:
        made = tomllib.loads(text)
    except tomllib.TOMLDecodeError as exc:
        raise ArtifactError(f"{source.label}: not TOML: {exc}") from exc
    problems = [f"{_line(text, k)}: unknown key {k!r}; expected {', '.join(_KEYS)}" for k in made if k not in _KEYS]
    problems += [
        f"{_line(text, k)}: {k} is {type(made[k]).__name__}, expected {kind.__name__}"
        for k, kind in _KEYS.items()
        if k in made and not isinstance(made[k], kind)
    ]
    for table in ("stages", "wiring", "outputs"):
        if isinstance(made.get(table), dict):
            problems += [
                f"{_line(text, k)}: {table}.{k} is {type(v).__name__}, expected text"
                for k, v in made[table].items()
                if not isinstance(v, str)
            ]
    if not made.get("stages"):
        problems.append("line 1: there are no [stages]")
    if problems:
        raise ArtifactError(f"{source.label}: " + "; ".join(problems), hint='a stage is written  name = "path.mlb"  under [stages]')
    return made


def _line(text: str, key: str) -> str:
    for i, line in enumerate(text.splitlines(), 1):
        bare = line.split("=")[0].strip().strip('"[]')
        if bare == key or bare.endswith("." + key):
            return f"line {i}"
    return "line 1"
