"""The jvm runtime: a user's class in a jar, PMML, Spark pipelines, and what a class path adds.

Rooms: `command` (which Java, jar, class path, flags) · `gateway` (`jvm+py4j:`, a live PySpark). `jvm:` runs models in
worker processes over frames; models with equal options share one process. Used by `plugins`.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any, ClassVar

from ...artifact import Artifact, Implementation
from ...errors import ArtifactError, InputError, UnsupportedError
from ...interfaces import Session
from ...signature import Signature
from ...workers import WorkerSession, open_session
from .command import JvmOptions, worker_command

__all__ = ["JvmRuntime"]

_OF_PROCESS = frozenset(f.name for f in fields(JvmOptions)) - {"spark"}
_OF_MODEL = frozenset({"class", "loader", "parameters"})


class JvmRuntime:
    """Runs JVM models: `jvm:model.jar#com.acme.Churn`, `jvm:model.pmml`, `jvm:spark-folder`."""

    name: ClassVar[str] = "jvm"
    formats: ClassVar[frozenset[str]] = frozenset({"jar", "pmml", "spark"})
    options: ClassVar[frozenset[str]] = _OF_PROCESS | _OF_MODEL | {"workers"}

    def accepts(self, model: object, /) -> bool:
        """Whether it is a live model of PySpark."""
        from .gateway import is_spark_model

        return is_spark_model(model)

    def infer(self, model: object, sample: object | None, /) -> Signature | None:
        """Return the signature of a live Spark model from a sample DataFrame's schema."""
        from .gateway import infer_signature

        return infer_signature(model, sample)

    def wrap(self, model: object, /, *, signature: Signature, **options: Any) -> Session:
        """Run a live PySpark model where it lives, in the running Spark."""
        from .gateway import GatewaySession

        return GatewaySession(model, signature)

    def load(
        self,
        source: Artifact | str,
        /,
        *,
        signature: Signature | None = None,
        device: str = "auto",
        way: str | None = None,
        member: str | None = None,
        workers: int = 1,
        **options: Any,
    ) -> Session:
        """Start, or join, a worker and load a jar, a PMML file or a Spark folder into it.

        Parameters
        ----------
        source : Artifact
            The file or folder; the caller has checked its trust.
        signature : Signature, optional
            Needed for Spark folders, which hold no input dtypes.
        way : {'worker', 'py4j'}, optional
            `py4j` loads a Spark folder into the live PySpark session of this process.
        member : str, optional
            The class behind `#` in the URI.
        workers : int
            Processes.
        **options
            Fields of `JvmOptions`; `class`; `loader`, the name of a runtime on the class path; `parameters`, a dict
            handed to the model's constructor.

        Raises
        ------
        MissingDependencyError
            If Java, the jar or Spark is absent.
        ArtifactError, NotFoundError
            If the file, or the class in it, does not load.
        """
        if isinstance(source, str):
            raise InputError(f"jvm: needs a file or folder, not {source!r}", runtime=self.name)
        if way not in (None, "worker", "py4j"):
            raise InputError(f"the scheme jvm+{way}: is unknown", hint="use jvm: or jvm+py4j:", runtime=self.name)
        if way == "py4j":
            from .gateway import load_folder

            return load_folder(source, signature)
        if source.format not in self.formats and "loader" not in options:
            raise ArtifactError(
                f"{source.label}: of format {source.format!r}, not a jar, a PMML file or a Spark folder",
                hint="for other kinds name the runtime on your class path: options={'jvm': {'loader': …, 'classpath': …}}",
                runtime=self.name,
            )
        process = JvmOptions(**{k: v for k, v in options.items() if k in _OF_PROCESS}, spark=source.format == "spark")
        name = member or options.get("class")
        tensors: dict[str, Any] = {"path": str(source.path), "format": source.format}
        if name is not None:
            tensors["option.class"] = name
        if "loader" in options:
            tensors["option.runtime"] = options["loader"]
        for key, value in _parameters(options.get("parameters")).items():
            tensors[f"option.{key}"] = value
        if source.format == "spark" and signature is None:
            raise InputError(
                f"{source.label}: a Spark folder holds no input types",
                hint="pass sample=…, a few rows of the raw columns, or signature=…",
                runtime=self.name,
            )
        session = open_session(worker_command(process), tensors, signature=signature, workers=workers, shared=True, keep=source)
        saved = {k: v for k, v in {**options, "class": name}.items() if k in _OF_MODEL and v is not None}
        return JvmSession(session, source, saved)

    def save(self, session: Session, folder: Path, /) -> Implementation:
        """Copy the model's file or folder under `folder`."""
        if not isinstance(session, JvmSession):
            from .gateway import GatewaySession

            if isinstance(session, GatewaySession):
                return session.save(folder)
            raise UnsupportedError(f"a {type(session).__name__} is not kept in files", runtime=self.name)
        source = session.source
        target = folder / source.path.name
        if source.path.is_dir():
            shutil.copytree(source.path, target)
        else:
            shutil.copyfile(source.path, target)
        return Implementation(self.name, target.name, source.format, options=session.saved, requires={"java": "17"})


def _parameters(given: object) -> Mapping[str, Any]:
    if given is None:
        return {}
    if not isinstance(given, Mapping) or not all(isinstance(k, str) for k in given):
        raise InputError(f"parameters must be a dict by name, not {given!r}", runtime="jvm")
    taken = sorted(set(given) & {"class", "runtime"})
    if taken:
        raise InputError(f"parameters may not be named {', '.join(taken)}", runtime="jvm")
    return given


class JvmSession:
    """A session in a JVM worker that remembers its file, so that it can be saved."""

    def __init__(self, inner: WorkerSession, source: Artifact, saved: Mapping[str, Any]) -> None:
        self._inner, self.source, self.saved = inner, source, dict(saved)
        self.run = inner.run  # no frame of ours on the way of a call
        self.close = inner.close
        self.device, self.max_concurrency = inner.device, inner.max_concurrency

    @property
    def signature(self) -> Signature:
        """The model's."""
        return self._inner.signature

    @signature.setter
    def signature(self, value: Signature) -> None:
        self._inner.signature = value

    @property
    def pool(self) -> Any:
        """The processes, for tests and metrics."""
        return self._inner.pool
