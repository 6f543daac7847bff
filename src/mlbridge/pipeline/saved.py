"""The runtime `pipeline`: pipelines in packages, with stages inside or referenced by hash; and `pipeline.toml`."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any, ClassVar

from ..artifact import Artifact, Implementation, TrustDemand, open_artifact
from ..errors import ArtifactError, InputError, NotFoundError, UnsupportedError
from ..interfaces import Session
from ..model import Model
from ..signature import Signature
from .build import build
from .declared import read_toml
from .session import PipelineSession
from .sources import open_stages

__all__ = ["PipelineRuntime", "read_pipeline", "references"]

_FILE = "pipeline.json"
_KEYS = {"version", "stages", "wiring", "outputs"}
_VERSION = 2  # 1: stages inside; 2: some referenced by hash


class PipelineRuntime:
    """Runs pipelines; packages hold them as `pipeline.json` and one package a stage."""

    name: ClassVar[str] = "pipeline"
    formats: ClassVar[frozenset[str]] = frozenset({"pipeline", "pipeline-toml"})
    options: ClassVar[frozenset[str]] = frozenset()

    def accepts(self, model: object, /) -> bool:
        """Pipelines are Models already; nothing is wrapped."""
        return False

    def wrap(self, model: object, /, *, signature: Signature, **options: Any) -> Session:
        """Pipelines are composed, not wrapped."""
        raise UnsupportedError("a pipeline is composed, not wrapped", hint="use mlbridge.Pipeline")

    def load(
        self,
        source: Artifact | str,
        /,
        *,
        signature: Signature | None = None,
        device: str = "auto",
        demand: TrustDemand | None = None,
        beside: Path | None = None,
        **options: Any,
    ) -> PipelineSession:
        """Open a saved pipeline, or a `pipeline.toml`."""
        artifact = source if isinstance(source, Artifact) else open_artifact(source)
        if beside is None and artifact.origin is not None and not artifact.path.is_dir():
            beside = artifact.origin.parent  # a text names its stages from where it lies; a folder is a package's own copy
        made = read_pipeline(artifact, beside)
        trust = "data" if demand is None else demand.level.name.lower()
        # a saved pipeline has golden rows of its own, which verify all stages at once
        models, owned = open_stages(made["stages"], trust, None, verify="never" if artifact.path.is_dir() else "auto")
        for name, found in made.get("referenced", {}).items():  # what pickles, and is referred to again, is the file itself
            again, (_, *rest) = models[name]._reload or (None, (None,))
            models[name]._reload = (again, (os.path.abspath(found.origin), *rest))
        try:
            plan = build({n: m.signature for n, m in models.items()}, made.get("wiring"), made.get("outputs"))
        except BaseException:
            for m in owned:
                m.close()
            raise
        return PipelineSession(plan, models, owned)

    def save(self, session: Session, folder: Path, /) -> Implementation:
        """Write the graph and every stage, each as a package of its own; those the session refers to, by hash."""
        assert isinstance(session, PipelineSession)
        stages: dict[str, str | dict[str, str]] = dict(session.references)
        for name, model in session.stages.items():
            if name not in stages:
                (folder / "stages").mkdir(exist_ok=True)
                model.save(folder / "stages" / f"{name}.mlb")
                stages[name] = f"stages/{name}.mlb"
        made = {
            "version": 2 if session.references else 1,
            "stages": {name: stages[name] for name in session.stages},
            "wiring": dict(session.plan.wiring),
            "outputs": {k: str(v) for k, v in session.plan.outputs.items()},
        }
        (folder / _FILE).write_text(json.dumps(made, indent=1, ensure_ascii=False), "utf-8")
        return Implementation("pipeline", ".", "pipeline")


def references(stages: Mapping[str, Model], folder: Path) -> dict[str, dict[str, str]]:
    """Return where each stage's package lies, seen from `folder`, and its hash.

    Parameters
    ----------
    stages : mapping of str to Model
        Loaded from packages.
    folder : Path
        Where the pipeline's package will lie.

    Raises
    ------
    InputError
        If a stage was not loaded from a package.
    """
    out: dict[str, dict[str, str]] = {}
    loose = []
    for name, model in stages.items():
        path, sha256 = model._reload[1][:2] if model._reload is not None else (None, None)
        if path is None or sha256 is None or not path.endswith(".mlb"):
            loose.append(name)
        else:
            out[name] = {"path": Path(os.path.relpath(path, folder)).as_posix(), "sha256": sha256}
    if loose:
        problems = [f"stage {n!r} was not loaded from a package" for n in loose]
        raise InputError("; ".join(problems), problems=problems, hint="save it and load it first, or keep stages='inside'")
    return out


def read_pipeline(artifact: Artifact, beside: Path | None) -> dict[str, Any]:
    """Read a saved pipeline or a `pipeline.toml`.

    Parameters
    ----------
    artifact : Artifact
        The folder of a package's implementation, or the text.
    beside : Path or None
        Where the package or the text lies: relative paths and references start there.

    Returns
    -------
    dict
        `stages` by name, as paths to packages or what `load` takes; `wiring` and `outputs` where given; under
        `referenced` the opened packages that lie elsewhere, whose private copies are in `stages`.

    Raises
    ------
    ArtifactError
        If it is malformed, or a referenced stage is absent or has another hash.
    """
    if not artifact.path.is_dir():
        made = read_toml(artifact)
        base = beside or artifact.path.parent
        return made | {"stages": {n: s if ":" in s and not os.path.exists(base / s) else base / s for n, s in made["stages"].items()}}
    made = _read_json(artifact.path, artifact.label)
    inside = {n: artifact.path / s for n, s in made["stages"].items() if isinstance(s, str)}
    found = {n: _referenced(n, s, beside, artifact.label) for n, s in made["stages"].items() if n not in inside}
    return made | {"stages": {n: inside[n] if n in inside else found[n].path for n in made["stages"]}, "referenced": found}


def _referenced(name: str, reference: Mapping[str, str], beside: Path | None, label: str) -> Artifact:
    """Open a referenced package, whose bytes must have the hash the pipeline was saved with."""
    hint = "give the stages' packages together with the pipeline's"
    if beside is None:
        raise ArtifactError(f"{label}: stage {name!r} is referenced by hash, and the pipeline does not come from a path", hint=hint)
    try:
        found = open_artifact(beside / reference["path"])
    except NotFoundError as exc:
        raise ArtifactError(f"{label}: stage {name!r} is referenced by hash, and {reference['path']} is not there", hint=hint) from exc
    if found.sha256 != reference["sha256"]:
        raise ArtifactError(
            f"{label}: stage {name!r}: {reference['path']} has the hash {found.sha256[:12]}…, and the pipeline was saved with "
            f"{reference['sha256'][:12]}…",
            hint="bring back that version, or check the new one with `mlbridge check` and save the pipeline again",
        )
    return found


def _read_json(folder: Path, label: str) -> dict[str, Any]:
    try:
        made = json.loads((folder / _FILE).read_text("utf-8"))
    except (OSError, ValueError) as exc:
        raise ArtifactError(f"{label}: a broken pipeline: {exc}") from exc
    if isinstance(made, dict) and isinstance(made.get("version"), int) and made["version"] > _VERSION:
        raise ArtifactError(f"{label}: {_FILE} has version {made['version']}, newer than {_VERSION}", hint="pip install --upgrade mlbridge")
    texts = isinstance(made, dict) and all(
        isinstance(made.get(k), dict) and all(isinstance(v, str) for v in made[k].values()) for k in ("wiring", "outputs")
    )
    if not texts or made.get("version") not in (1, 2) or set(made) - _KEYS or not isinstance(made.get("stages"), dict):
        raise ArtifactError(f"{label}: {_FILE} is malformed")
    strange = [n for n, s in made["stages"].items() if not _is_inside(s) and not _is_reference(s)]
    if strange:
        raise ArtifactError(f"{label}: stages that are neither inside the package nor referenced by hash: {', '.join(strange)}")
    return made


def _is_inside(stage: object) -> bool:
    return isinstance(stage, str) and not stage.startswith(("/", "~")) and ".." not in stage.split("/")


def _is_reference(stage: object) -> bool:
    """Whether it is a relative path of a package and a hash; the hash decides what may be loaded, so `..` may lead there."""
    return (
        isinstance(stage, dict)
        and set(stage) == {"path", "sha256"}
        and all(isinstance(v, str) for v in stage.values())
        and stage["path"].endswith(".mlb")
        and not PurePosixPath(stage["path"]).is_absolute()
        and ":" not in stage["path"]
    )
