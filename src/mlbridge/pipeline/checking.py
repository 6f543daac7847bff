"""Whether a team's new version of one stage still fits a pipeline, and what changed; no other stage is loaded."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..artifact import open_artifact
from ..errors import InputError, SignatureError, UnsupportedError
from ..interfaces import Array
from ..model import Model
from ..package import Package, read_package
from ..signature import Signature
from .build import build
from .saved import read_pipeline
from .sources import load_stage, signature_of

__all__ = ["StageCheck", "check_saved", "check_stage", "signature_differences"]

Samples = tuple[Mapping[str, Array], Mapping[str, Array]]


@dataclass(frozen=True)
class StageCheck:
    """Whether a new version of a stage still fits, and what changed."""

    stage: str
    problems: tuple[str, ...]
    differences: tuple[str, ...]
    changed_rows: int | None = None
    rows: int = 0

    @property
    def fits(self) -> bool:
        """Whether the pipeline still type-checks with it."""
        return not self.problems

    def __repr__(self) -> str:
        lines = [f"stage {self.stage!r}: {'fits' if self.fits else 'does NOT fit'}"]
        lines += [f"  problem: {p}" for p in self.problems] + [f"  changed: {d}" for d in self.differences]
        if self.changed_rows is not None:
            lines.append(f"  answers changed on {self.changed_rows} of {self.rows} golden rows")
        return "\n".join(lines)


def check_stage(
    stage: str,
    new: Any,
    signatures: Mapping[str, Signature],
    wiring: Mapping[str, str],
    outputs: Mapping[str, str],
    samples: Samples | None,
) -> StageCheck:
    """Compare a new version with the stage it would replace.

    Parameters
    ----------
    stage : str
        Which.
    new : Model, path or URI
        The new version; only data formats are loaded.
    signatures : mapping of str to Signature
        Of all stages as they are.
    wiring, outputs : mapping of str to str
        Of the pipeline.
    samples : pair of dicts, or None
        The old version's golden rows.

    Returns
    -------
    StageCheck
        Problems, differences of the signature, changed answers.
    """
    if stage not in signatures:
        raise InputError(f"there is no stage {stage!r}", hint=f"the stages are {', '.join(signatures)}")
    old = signatures[stage]
    opened = new if isinstance(new, Model) else None
    signature = signature_of(new)
    if signature is None:
        opened = load_stage(new)
        signature = opened.signature
    try:
        problems: tuple[str, ...] = ()
        try:
            build({n: signature if n == stage else s for n, s in signatures.items()}, wiring, outputs)
        except SignatureError as exc:
            problems = exc.problems
        differences = tuple(signature_differences(old, signature))
        changed, rows = None, 0
        if samples is not None and not differences:
            opened = opened or load_stage(new)
            changed, rows = _changed_rows(old, samples, opened)
    finally:
        if opened is not None and opened is not new:
            opened.close()
    return StageCheck(stage, problems, differences, changed, rows)


def check_saved(pipeline: str | os.PathLike, stage: str, new: Any) -> StageCheck:
    """As `Pipeline.check_stage`, of a saved pipeline, from manifests alone: nothing but the new version is loaded.

    Parameters
    ----------
    pipeline : path
        A `.mlb` of a pipeline, or a `pipeline.toml` whose stages are packages.
    stage : str
        Which stage the new version would replace.
    new : Model, path or URI
        The new version.

    Returns
    -------
    StageCheck
        As of `Pipeline.check_stage`.

    Raises
    ------
    UnsupportedError
        If it is no pipeline, or a stage is no package: then its signature is not known without loading it.
    """
    packages, made = _stage_packages(pipeline)
    signatures = {n: p.signature for n, p in packages.items()}
    wiring, outputs = made.get("wiring"), made.get("outputs")
    plan = build(signatures, wiring, outputs)
    samples = packages[stage].samples if stage in packages else None
    return check_stage(stage, new, signatures, plan.wiring, {k: str(v) for k, v in plan.outputs.items()}, samples)


def _stage_packages(pipeline: str | os.PathLike) -> tuple[dict[str, Package], dict[str, Any]]:
    artifact = open_artifact(pipeline)
    beside = artifact.origin.parent if artifact.origin is not None else None
    if artifact.format == "mlb":
        package = read_package(artifact)
        entry = next((i for i in package.implementations if i.runtime == "pipeline"), None)
        if entry is None:
            raise UnsupportedError(f"{artifact.label} is not a pipeline of stages", hint="a fused pipeline is one model; check its source")
        artifact = open_artifact(package.folder / entry.path)  # kept until its stages are read: they lie in its private copy
        made = read_pipeline(artifact, beside)
    elif artifact.format in ("pipeline", "pipeline-toml"):
        made = read_pipeline(artifact, beside)
    else:
        raise UnsupportedError(f"{artifact.label} is not a pipeline")
    packages = {}
    for name, source in made["stages"].items():
        stage = open_artifact(source)
        if stage.format != "mlb":
            raise UnsupportedError(
                f"stage {name!r} is no package, so its signature is not known without loading it", hint="load the pipeline"
            )
        packages[name] = read_package(stage)
    return packages, made


def signature_differences(old: Signature, new: Signature) -> list[str]:
    """List in words what changed between two signatures."""
    out = []
    for side in ("inputs", "outputs"):
        a, b = {s.name: s for s in getattr(old, side)}, {s.name: s for s in getattr(new, side)}
        word = side[:-1]
        out += [f"{word} {n!r} is gone" for n in a if n not in b] + [f"{word} {n!r} is new" for n in b if n not in a]
        for n in (n for n in a if n in b and a[n] != b[n]):
            if str(a[n]) != str(b[n]):
                out.append(f"{word} {a[n]} became {b[n]}")
            ca, cb = {c.name: c for c in a[n].columns}, {c.name: c for c in b[n].columns}
            out += [f"{word} {n!r}: column {c!r} is gone" for c in ca if c not in cb] + [
                f"{word} {n!r}: column {c!r} is new" for c in cb if c not in ca
            ]
            out += [
                f"{word} {n!r}: levels of {c!r} changed from {ca[c].categories} to {cb[c].categories}"
                for c in ca
                if c in cb and ca[c].categories != cb[c].categories
            ]
            if (a[n].missing, a[n].rounding) != (b[n].missing, b[n].rounding):
                out.append(f"{word} {n!r}: missing {a[n].missing}→{b[n].missing}, rounding {a[n].rounding}→{b[n].rounding}")
    return out


def _changed_rows(old: Signature, samples: Samples, new: Model) -> tuple[int, int]:
    from ..conversion.verification import default_tolerance, relative_error

    feeds, want = samples
    got = new.run(feeds)
    rows = next(iter(feeds.values())).shape[0]
    changed = np.zeros(rows, bool)
    for name, value in want.items():
        if value.dtype.kind == "f":
            bad = relative_error(got[name], value) > default_tolerance(old)
        else:
            bad = np.asarray(got[name] != value)
        changed |= bad.reshape(rows, -1).any(axis=1)
    return int(changed.sum()), rows
