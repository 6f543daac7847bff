"""The runtime `python`: estimators and functions in this process, or in another interpreter (`python+worker`).

In this process a framework's native function, a plain function from feeds to outputs, or an estimator asked by the
names of its outputs. In a worker the same, by the script `python_worker.py`, which needs only numpy beside the model.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from .. import plugins
from ..artifact import Artifact, Implementation
from ..errors import (
    ArtifactError,
    ClosedError,
    InferenceError,
    InputError,
    MissingDependencyError,
    MlbridgeError,
    NotFoundError,
    SignatureError,
    UnavailableError,
    UnsupportedError,
)
from ..interfaces import UNBOUNDED, Array, Deadline, Session
from ..signature import Signature
from ..workers import WorkerCommand, WorkerSession, fit_outputs, open_session
from ..workers.answers import rows_of
from . import python_worker
from .python_calls import Calls

__all__ = ["PythonRuntime", "PythonSession"]

Native = Callable[[Mapping[str, Array]], Mapping[str, Any]]

_SCRIPT = Path(python_worker.__file__)
_HERE = frozenset({"concurrency", "entry", "member", "pythonpath"})
_WORKER = frozenset({"executable", "workers", "memory_mb", "threads", "start_timeout_s", "load_timeout_s", "grace_s"})


class PythonRuntime:
    """Runs what Python itself runs: fitted estimators and functions.

    Options: `concurrency` (calls at once in this process; default unbounded), `entry` (the function's name in a
    script; default `run`), `pythonpath` (folders to import from), and for `python+worker` also `executable` (an
    interpreter or a virtual environment's folder; default this one), `workers` (processes), `memory_mb`, `threads`,
    `start_timeout_s`, `load_timeout_s`, `grace_s`.
    """

    name: ClassVar[str] = "python"
    formats: ClassVar[frozenset[str]] = frozenset({"pickle"})
    options: ClassVar[frozenset[str]] = (_HERE | _WORKER) - {"member"}

    def accepts(self, model: object, /) -> bool:
        """Whether it is a function or looks like a fitted estimator."""
        if isinstance(model, type) or type(model).__module__.startswith("pyspark."):  # those live in a JVM
            return False
        return callable(model) or callable(getattr(model, "predict", None)) or callable(getattr(model, "transform", None))

    def infer(self, model: object, sample: object | None = None, /) -> Signature | None:
        """Return the signature of an estimator that no framework knows; None for a function."""
        if not any(hasattr(model, n) for n in ("predict", "transform")):
            return None
        try:
            return Signature.from_dict(python_worker.infer(model))
        except Exception as exc:
            raise SignatureError(
                f"{type(model).__name__} does not show its signature: {exc}", hint="pass signature=...", runtime=self.name
            ) from exc

    def wrap(self, model: object, /, *, signature: Signature, native: Native | None = None, **options: Any) -> PythonSession:
        """Make a session of a live object.

        Parameters
        ----------
        model : object
            An estimator, or a function from feeds to outputs.
        signature : Signature
            What it takes and answers.
        native : callable, optional
            The framework's own way to ask it; without it an estimator is asked by the names of its outputs.
        **options
            `concurrency`.

        Raises
        ------
        InputError
            If an option is not known.
        """
        self._check_options(options, _HERE | _WORKER)  # the worker's are of no use here and harmless
        return PythonSession(model, native or _native(model, signature), signature, options.get("concurrency"))

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
        """Make a session of a pickle, a script, or `module:name`; the caller has checked the trust.

        Parameters
        ----------
        source : Artifact or str
            A pickle or joblib file, a Python script, or `module:name`.
        signature : Signature, optional
            Needed for functions and for estimators of mixed tables.
        device : {'auto', 'cpu'}
            There is no other.
        way : {None, 'worker'}
            Whether it runs in a process, and an interpreter, of its own.
        **options
            As the class says.

        Raises
        ------
        ArtifactError, NotFoundError, MissingDependencyError
            If there is nothing to load.
        """
        if device not in ("auto", "cpu"):
            raise UnavailableError(f"the python runtime has no device {device!r}", hint="use device='cpu'", runtime=self.name)
        if way == "worker":
            self._check_options(options, _HERE | _WORKER)
            return _open_worker(source, signature, options)
        if way is not None:
            raise InputError(f"python+{way}: is no way to run Python; there is python+worker:", runtime=self.name)
        self._check_options(options, _HERE)
        model = _read(source, options)
        framework = plugins.framework_for(model)
        if signature is None:
            signature = framework.infer(model, None) if framework is not None else self.infer(model)
        if signature is None:
            raise SignatureError(f"{_label(source)}: a function does not tell its signature", hint="pass signature=...", runtime=self.name)
        native = framework.native(model, signature=signature) if framework is not None else None
        return self.wrap(model, signature=signature, native=native, concurrency=options.get("concurrency"))

    def save(self, session: Session, folder: Path, /) -> Implementation:
        """Write an estimator as a joblib file; a worker's model as the file it came from.

        Raises
        ------
        UnsupportedError
            If it is a function, or does not pickle.
        """
        if isinstance(session, WorkerSession):
            return _save_file(session, folder)
        if not isinstance(session, PythonSession):
            raise UnsupportedError(f"a {type(session).__name__} is not the python runtime's to save", runtime=self.name)
        return _save_object(session.model, folder)

    def _check_options(self, options: Mapping[str, Any], known: frozenset[str]) -> None:
        unknown = sorted(set(options) - known)
        if unknown:
            worker = " (with python+worker:)" if set(unknown) <= _WORKER else ""
            raise InputError(
                f"the python runtime has no option {', '.join(map(repr, unknown))}{worker}; it takes {', '.join(sorted(known - {'member'}))}",
                runtime=self.name,
            )


class PythonSession:
    """A model in this process; implements `interfaces.Session`.

    Parameters
    ----------
    model : object
        What was wrapped, kept for `save`.
    native : callable
        From feeds to outputs; extra outputs are left out, feeds are read-only.
    signature : Signature
        What it takes and answers.
    concurrency : int, optional
        Calls at once; default unbounded.
    """

    device = "cpu"

    def __init__(self, model: object, native: Native, signature: Signature, concurrency: int | None = None) -> None:
        if concurrency is not None and (not isinstance(concurrency, int) or isinstance(concurrency, bool) or concurrency < 1):
            raise InputError(f"concurrency must be a positive integer, not {concurrency!r}", runtime="python")
        self.signature, self.model = signature, model
        self.max_concurrency = UNBOUNDED if concurrency is None else concurrency
        self._native: Native | None = native
        self._calls = Calls(self.max_concurrency)
        self._owner = os.getpid()

    def run(
        self, feeds: Mapping[str, Array], /, *, outputs: Sequence[str] | None = None, deadline: Deadline | None = None
    ) -> dict[str, Array]:
        """Ask the model; at a deadline its caller leaves, for nothing can interrupt a thread.

        Raises
        ------
        InferenceError
            What the model raised, as its cause; or an answer that is not what the signature says.
        """
        native = self._native
        if native is None or os.getpid() != self._owner:
            raise ClosedError("the model is closed" if native is None else "this model belongs to the process this one was forked from")
        guarded = {}
        for name, array in feeds.items():
            view = guarded[name] = array.view()
            view.flags.writeable = False  # a model that writes into its input would change the caller's data
        try:
            got = self._calls.ask(native, guarded, deadline)
        except MlbridgeError:
            raise
        except Exception as exc:
            raise InferenceError(f"{type(exc).__name__}: {exc}", runtime="python") from exc
        if not isinstance(got, Mapping):
            if len(self.signature.outputs) != 1:
                raise InferenceError(f"the model answered a {type(got).__name__}, not a dict of outputs", runtime="python")
            got = {self.signature.outputs[0].name: got}
        answer = fit_outputs(self.signature, got, wanted=outputs, rows=rows_of(self.signature, feeds), runtime="python")
        return {name: np.array(array, order="C") for name, array in answer.items()}  # the model may keep its own

    def close(self) -> None:
        """Let the model go; harmless when repeated."""
        self._native = self.model = None


def _native(model: Any, signature: Signature) -> Native:
    if not any(hasattr(model, n) for n in ("predict", "transform")):
        return model
    asked = python_worker.Model(model, signature.to_dict())
    return lambda feeds: asked.run(feeds, None)


# ---------------------------------------------------------------- reading in this process


def _label(source: Artifact | str) -> str:
    return source if isinstance(source, str) else source.label


def _read(source: Artifact | str, options: Mapping[str, Any]) -> Any:
    for folder in _folders(options):
        if folder not in sys.path:
            sys.path.insert(0, folder)
    if isinstance(source, str):
        return _member_of(_imported(source.partition(":")[0], source), source.partition(":")[2], source)
    if source.format == "pickle":
        return _unpickled(source)
    if _is_script(source):
        spec = importlib.util.spec_from_file_location("mlbridge_model", source.path)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        try:
            spec.loader.exec_module(module)
        except Exception as exc:
            raise ArtifactError(f"{source.label}: the script fails: {type(exc).__name__}: {exc}", runtime="python") from exc
        return _member_of(module, options.get("entry") or options.get("member") or "run", source.label)
    raise _no_loader(source)


def _folders(options: Mapping[str, Any]) -> list[str]:
    given = options.get("pythonpath") or ()
    return [os.path.abspath(f) for f in ([given] if isinstance(given, (str, os.PathLike)) else given)]


def _is_script(source: Artifact) -> bool:
    return source.path.suffix == ".py" or source.label.endswith(".py")


def _no_loader(source: Artifact) -> ArtifactError:
    return ArtifactError(
        f"{source.label}: the python runtime does not load the format {source.format!r}",
        hint="give it a pickle or joblib file, a .py script, or module:name",
        runtime="python",
    )


def _imported(name: str, source: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as exc:
        if exc.name and (name == exc.name or name.startswith(exc.name + ".")):
            raise NotFoundError(
                f"{source}: there is no module {exc.name!r}", hint="is its folder in pythonpath?", runtime="python"
            ) from exc
        raise plugins.missing(exc, name) from exc


def _member_of(module: Any, path: str, source: str) -> Any:
    for part in path.split("."):
        if not hasattr(module, part):
            raise NotFoundError(f"{source}: {getattr(module, '__name__', module)!s} has no {part!r}", runtime="python")
        module = getattr(module, part)
    return module


def _unpickled(source: Artifact) -> Any:
    try:
        return python_worker._unpickle(str(source.path))
    except ImportError as exc:
        raise plugins.missing(exc) from exc
    except Exception as exc:
        raise ArtifactError(
            f"{source.label}: not a readable pickle: {type(exc).__name__}: {exc}",
            hint="was it made with other versions? run it in its own environment by python+worker:",
            runtime="python",
        ) from exc


# ---------------------------------------------------------------- another interpreter


def _open_worker(source: Artifact | str, signature: Signature | None, options: Mapping[str, Any]) -> WorkerSession:
    folders = _folders(options)
    load: dict[str, Any] = {}
    if isinstance(source, str):
        load["option.entry"] = source
        folders.append(os.getcwd())  # as `python -m` does
    elif source.format == "pickle":
        load |= {"path": str(source.path), "format": "pickle"}
    elif _is_script(source):
        load |= {"path": str(source.path), "format": "script"}
        if entry := options.get("entry") or options.get("member"):
            load["option.entry"] = entry
    else:
        raise _no_loader(source)
    if folders:
        load["option.pythonpath"] = np.array(folders, object)
    timings: dict[str, Any] = {k: float(options[k]) for k in ("start_timeout_s", "load_timeout_s", "grace_s") if k in options}
    command = WorkerCommand(
        argv=(_interpreter(options.get("executable")), "-u", str(_SCRIPT)),
        runtime="python",
        env=(("PYTHONHOME", None), ("PYTHONPATH", None), ("PYTHONUTF8", "1")),  # ours would mix two environments
        device="cpu",
        memory_mb=options.get("memory_mb"),
        threads=options.get("threads", 1),
        **timings,
    )
    return open_session(command, load, signature=signature, workers=options.get("workers", 1), keep=source)


def _interpreter(given: str | os.PathLike | None) -> str:
    """Return the interpreter's path: given, or inside the virtual environment given, or this one."""
    if given is None:
        return sys.executable
    path = Path(given)
    if path.is_dir():
        for inside in ("bin/python", "Scripts/python.exe"):
            if (path / inside).exists():
                return str(path / inside)
        raise MissingDependencyError(
            f"{given}: there is no Python in this folder", hint=f"make it: python -m venv {given}", runtime="python"
        )
    if (path.parent == Path() and shutil.which(str(given)) is None) or (path.parent != Path() and not path.exists()):
        raise MissingDependencyError(f"{given}: there is no such interpreter", hint="give the path of python or of a virtual environment")
    return str(given)


# ---------------------------------------------------------------- saving


def _save_object(model: Any, folder: Path) -> Implementation:
    if not any(hasattr(model, n) for n in ("predict", "transform")):
        raise UnsupportedError(
            f"{getattr(model, '__qualname__', type(model).__name__)} is a function; the python runtime saves estimators only",
            hint="ship its source and load it as python:module:name",
            runtime="python",
        )
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "model.joblib"
    try:
        plugins.require("joblib").dump(model, path)
    except (OSError, MlbridgeError):
        raise
    except Exception as exc:
        path.unlink(missing_ok=True)
        raise UnsupportedError(f"{type(model).__name__} does not pickle: {type(exc).__name__}: {exc}", runtime="python") from exc
    return Implementation("python", path.name, "pickle", requires=_requirements(model))


def _requirements(model: Any) -> dict[str, str]:
    root = type(model).__module__.split(".")[0]
    names = importlib.import_module("importlib.metadata").packages_distributions().get(root, [])
    versions = {n: importlib.import_module("importlib.metadata").version(n) for n in names}
    return {"python": f"{sys.version_info.major}.{sys.version_info.minor}", "numpy": np.__version__, **versions}


def _save_file(session: WorkerSession, folder: Path) -> Implementation:
    source = session.keep
    if not isinstance(source, Artifact):
        raise UnsupportedError(f"{source}: a function by its name has no file to save", hint="give it as a script", runtime="python")
    folder.mkdir(parents=True, exist_ok=True)
    name = "model.py" if _is_script(source) else "model.joblib"
    shutil.copyfile(source.path, folder / name)
    return Implementation("python", name, source.format, options={"way": "worker"})
