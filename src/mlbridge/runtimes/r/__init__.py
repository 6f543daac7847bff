"""The runtime `r`: fitted R models (RDS files) and R scripts, in Rscript workers or in this process.

Rooms: `layout` (a signature in the flat form that R reads) · `inproc` (the Session of `r+inproc:`) · `embedded` (R on a
thread of this process) · `values` (arrays to R and back). What runs in R is base R, in `mlbridge/_r`: one source for the
worker, the embedded R and the R package. Used by `plugins`.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from ... import plugins
from ...artifact import Artifact, Implementation
from ...errors import (
    ArtifactError,
    ConversionError,
    InputError,
    MissingDependencyError,
    SignatureError,
    UnavailableError,
    UnsupportedError,
)
from ...interfaces import Session
from ...signature import Signature
from ...workers import WorkerCommand, open_session
from .layout import layout

__all__ = ["RRuntime"]

_SCRIPT = Path(__file__).parent.parent.parent / "_r" / "worker.R"
_PREDICT = ("as", "type", "s", "n.trees")  # what predict is asked with; the framework `r` takes the same
_TIMINGS = ("start_timeout_s", "load_timeout_s", "grace_s")
_WORKER = frozenset({"workers", "memory_mb", "threads", "rscript", "packages", *_TIMINGS})
_INPROC = frozenset({*_PREDICT, "packages", "grace_s"})
_INSTALL = "apt-get install r-base-core, or put Rscript on PATH, or pass options={'r': {'rscript': path}}"


@dataclass(frozen=True, slots=True)
class _Loaded:
    """What a session was made of: the file, and the options that a saved copy needs again."""

    source: Artifact
    options: Mapping[str, Any]

    def close(self) -> None:
        self.source.close()


class RRuntime:
    """Runs R models in R: `r:model.rds`, `r:score.R` (a script that defines `run(newdata)`).

    `r:` runs Rscript workers; `r+inproc:` runs R in this process, through rpy2, and takes only the options of predict,
    `packages` and `grace_s`.

    Options: `workers` (processes), `memory_mb`, `threads`, `rscript` (the program), `packages` (to attach),
    `start_timeout_s`, `load_timeout_s`, `grace_s`; and for predict `as`, `type`, `s`, `n.trees`.
    """

    name: ClassVar[str] = "r"
    formats: ClassVar[frozenset[str]] = frozenset({"rds", "r-script"})
    options: ClassVar[frozenset[str]] = _WORKER | frozenset(_PREDICT)

    def accepts(self, model: object, /) -> bool:
        """No live object of this process is an R model's."""
        return False

    def wrap(self, model: object, /, *, signature: Signature, **options: Any) -> Session:
        """Refuse: an R model lives in a file or in R.

        Raises
        ------
        UnsupportedError
            Always.
        """
        raise UnsupportedError("the r runtime runs files, not live objects", hint="saveRDS(model, path); then load it", runtime=self.name)

    def load(
        self,
        source: Artifact | str,
        /,
        *,
        signature: Signature | None = None,
        device: str = "auto",
        way: str | None = None,
        **options: Any,
    ) -> Session:
        """Start R and load a model into it; the caller has checked the trust.

        Parameters
        ----------
        source : Artifact
            An RDS file, or an R script that defines `run(newdata)`.
        signature : Signature, optional
            Needed for scripts. Of an RDS file it is read from the file, else R is asked for it.
        device : {'auto', 'cpu'}
            There is no other.
        way : {None, 'worker', 'inproc'}
            None and 'worker' mean processes of their own.
        **options
            As the class says.

        Raises
        ------
        MissingDependencyError
            If Rscript, or the R package of the model's class, is not installed; for `r+inproc:`, if rpy2 is absent or
            does not fit the installed R.
        ArtifactError
            If R does not read the file.
        InputError
            If the signature is needed and was not given, or an option is unknown.
        """
        if isinstance(source, str):
            raise InputError(f"r: needs a file, not {source!r}", runtime=self.name)
        if device not in ("auto", "cpu"):
            raise UnavailableError(f"the r runtime has no device {device!r}", hint="use device='cpu'", runtime=self.name)
        _check_options(options, way)
        kind = _kind(source)
        tensors: dict[str, Any] = {"path": str(source.path), "format": kind}
        if packages := options.get("packages"):
            tensors["option.packages"] = np.array([packages] if isinstance(packages, str) else list(packages), object)
        for key in _PREDICT:
            if options.get(key) is not None:
                tensors[f"option.predict.{key}"] = options[key]
        keep = _Loaded(source, {k: options[k] for k in (*_PREDICT, "packages") if options.get(k) is not None})
        if way == "inproc":
            from .inproc import open_inproc, signature_inproc

            signature = signature or _signature(source, kind, lambda: signature_inproc(tensors), options)
            tensors |= {f"option.layout.{k}": v for k, v in layout(signature).items()}
            return open_inproc(tensors, signature=signature, grace_s=float(options.get("grace_s", 2.0)), keep=keep)
        command = _command(options)
        signature = signature or _signature(source, kind, lambda: _asked(command, tensors), options)
        tensors |= {f"option.layout.{k}": v for k, v in layout(signature).items()}
        return open_session(command, tensors, signature=signature, workers=options.get("workers", 1), keep=keep)

    def save(self, session: Session, folder: Path, /) -> Implementation:
        """Copy the model's file.

        Raises
        ------
        UnsupportedError
            If the session is not one of this runtime's.
        """
        kept = getattr(session, "keep", None)
        if not isinstance(kept, _Loaded):
            raise UnsupportedError(f"a {type(session).__name__} is not the r runtime's to save", runtime=self.name)
        kind = _kind(kept.source)
        path = folder / ("model.R" if kind == "r-script" else "model.rds")
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(kept.source.path, path)
        return Implementation(self.name, path.name, kind, options=kept.options)


def _check_options(options: Mapping[str, Any], way: str | None) -> None:
    if way not in (None, "worker", "inproc"):
        raise InputError(f"r+{way}: is no way to run R; there are r: and r+inproc:", runtime="r")
    known = RRuntime.options if way != "inproc" else _INPROC
    unknown = sorted(set(options) - known)
    if unknown:
        scheme = "r+inproc:" if way == "inproc" else "the r runtime"
        raise InputError(f"{scheme} has no option {', '.join(map(repr, unknown))}; it takes {', '.join(sorted(known))}", runtime="r")


def _kind(source: Artifact) -> str:
    if source.format in RRuntime.formats:
        return source.format
    if source.path.suffix.lower() == ".r" or source.label.lower().endswith(".r"):
        return "r-script"
    raise ArtifactError(
        f"{source.label}: the r runtime does not load the format {source.format!r}",
        hint="give it a file of saveRDS, or a .R script that defines run(newdata)",
        runtime="r",
    )


def _command(options: Mapping[str, Any]) -> WorkerCommand:
    program = str(options.get("rscript") or "Rscript")
    if shutil.which(program) is None:
        raise MissingDependencyError(f"{program}: R is not installed, or not on PATH", hint=_INSTALL, runtime="r")
    timings: dict[str, Any] = {k: float(options[k]) for k in _TIMINGS if k in options}
    return WorkerCommand(
        # the user's libraries stay (Renviron); start-up code of the user or the site does not run
        argv=(program, "--no-save", "--no-restore", "--no-init-file", "--no-site-file", str(_SCRIPT)),
        runtime="r",
        env=(("R_PROFILE_USER", os.devnull),),
        transport="fifo",
        interrupt="signal",
        column_major=True,
        memory_mb=options.get("memory_mb"),
        threads=options.get("threads", 1),
        **timings,
    )


def _signature(source: Artifact, kind: str, ask: Callable[[], Signature], options: Mapping[str, Any]) -> Signature:
    """Read the signature from the file; where no reader knows the model, ask R."""
    if kind == "r-script":
        raise InputError(
            f"{source.label}: a script does not tell its signature", hint="pass signature=mlbridge.Signature(...)", runtime="r"
        )
    for framework in plugins.frameworks_of_format(kind):
        try:
            keywords = {k: v for k, v in options.items() if k in framework.options}
            return framework.infer(framework.read(source, **keywords), None, **keywords)
        except (ConversionError, UnsupportedError, ArtifactError, MissingDependencyError):
            continue  # R may know better
    try:
        return ask()
    except SignatureError as exc:
        raise InputError(
            f"{source.label}: its signature is not known: {exc.message}", hint="pass signature=mlbridge.Signature(...)", runtime="r"
        ) from exc


def _asked(command: WorkerCommand, tensors: Mapping[str, Any]) -> Signature:
    session = open_session(command, tensors)
    try:
        return session.signature
    finally:
        session.close()
