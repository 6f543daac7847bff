"""Engine: makes onnxruntime's sessions by a plan, and tells where their nodes really run."""

from __future__ import annotations

import ctypes
import functools
import gc
import logging
import os
import tempfile
import time
import weakref
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..errors import ArtifactError, InputError, MlbridgeError, UnavailableError
from . import cache
from .alarms import call_at
from .devices import cores
from .graphs import prune
from .plans import CPU, Plan

__all__ = ["Engine", "engine_failures", "share_threads"]

_LOG = logging.getLogger("mlbridge.executor")
_LOAD_TIMEOUT_S = 120.0  # constant folding runs operators while loading, where no RunOptions can reach
_CACHE_BYTES = 64 << 10  # below this optimising costs less than reading a file
_CACHE_MAX_BYTES = 512 << 20
_WORTH_NODES = 0.9  # where optimising leaves more of the nodes, its result starts no faster
_NO_GAIN = b"no gain"


class Engine:
    """Makes native sessions of one model.

    Parameters
    ----------
    model : bytes or Path
        The checked model; a path where it has side files.
    plan : Plan
        Where and how it runs.
    owner : object, optional
        Kept alive, and closed with the engine: what owns the private copy.
    sha256 : str, optional
        Of the model's bytes; with it the optimised model is kept between processes.
    """

    def __init__(self, model: bytes | Path, plan: Plan, *, owner: Any = None, sha256: str | None = None) -> None:
        self.model = model
        self.sha256 = sha256
        self.plan = plan
        self.placement: Mapping[str, float] = {}
        self.device = plan.device
        self._owner = owner

    def native(self) -> Any:
        """Make the session and read its placement; UnavailableError where a demand is not met."""
        session = self._from_cache() or _create(self.model, self.plan)
        self.placement = _placement(session)
        share = self.placement.get(self.plan.provider, 0.0)
        if self.placement and share == 0.0 and self.plan.provider != CPU:
            if self.plan.demanded:
                raise UnavailableError(
                    f"{self.plan.provider} is there but runs none of this model's nodes",
                    hint="its operators are not supported there; use another provider or device='cpu'",
                    runtime="onnx",
                )
            self.device = "cpu"
        return session

    def _from_cache(self) -> Any:
        """Return a session of the kept optimised model, making it where there is none; None where none is kept."""
        model = self.model
        if self.sha256 is None or not isinstance(model, bytes) or self.plan.provider != CPU:
            return None
        if not _CACHE_BYTES <= len(model) <= _CACHE_MAX_BYTES:
            return None
        key = cache.key_of("optimised", self.sha256)
        kept = cache.read_bytes("optimised", key)
        if kept == _NO_GAIN:
            return None
        if kept is not None:
            try:
                return _create(kept, self.plan, optimised=True)
            except ArtifactError as exc:
                _LOG.warning("the cached optimised model cannot be loaded and is made again: %s", exc.message)
        with tempfile.TemporaryDirectory(prefix="mlbridge-") as folder:
            target = Path(folder, "optimised.onnx")
            session = _create(model, self.plan, save_to=target)
            if target.is_file():
                smaller = target.read_bytes()
                cache.write_bytes("optimised", key, smaller if _nodes(smaller) <= _WORTH_NODES * _nodes(model) else _NO_GAIN)
        return session

    def with_plan(self, plan: Plan) -> Engine:
        """Return an engine of the same model by another plan."""
        return Engine(self.model, plan, owner=self._owner, sha256=self.sha256)

    def pruned(self, names: Sequence[str]) -> Any:
        """Return a session that computes these outputs only, or None where that saves nothing worth it."""
        if not isinstance(self.model, bytes):
            return None  # weights live in side files; a second copy of them costs more than it saves
        smaller = prune(self.model, names)
        return None if smaller is None else _create(smaller, self.plan)

    def close(self) -> None:
        """Let go of the private copy."""
        self._owner = None


@functools.cache
def engine_failures() -> tuple[type[BaseException], ...]:
    """Return every class onnxruntime raises: its own have no base in common."""
    from onnxruntime.capi import onnxruntime_pybind11_state as ort

    names = "EPFail EngineError Fail InvalidArgument InvalidGraph InvalidProtobuf ModelLoadCanceled ModelLoaded ModelRequiresCompilation "
    names += "NoModel NoSuchFile NotFound NotImplemented RuntimeException"
    own = tuple(c for n in names.split() if (c := getattr(ort, n, None)) is not None)
    return (*own, RuntimeError, ValueError, TypeError, MemoryError, OSError)


def _create(model: bytes | Path, plan: Plan, *, optimised: bool = False, save_to: Path | None = None) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # what matters is raised; its banners would mix with the caller's output
    if _shared:
        options.use_per_session_threads = False
    else:
        options.intra_op_num_threads = plan.threads
        options.add_session_config_entry("session.intra_op.allow_spinning", "0" if plan.spin_us == 0 else "1")
        if plan.spin_us:
            options.add_session_config_entry("session.intra_op.spin_duration_us", str(plan.spin_us))
    options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
    if optimised:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    if save_to is not None:
        options.optimized_model_filepath = str(save_to)
    providers = _providers(options, plan)
    ends_by_itself = call_at(time.monotonic() + _LOAD_TIMEOUT_S, lambda: options.set_load_cancellation_flag(True))
    try:
        session = onnxruntime.InferenceSession(
            model if isinstance(model, bytes) else str(model),
            options,
            providers=providers,
            enable_fallback=False,  # onnxruntime retries on CPU after a provider error unless told not to
        )
    except engine_failures() as exc:
        raise _load_error(exc, plan) from exc
    finally:
        ends_by_itself()
    if plan.provider not in session.get_providers():
        raise UnavailableError(
            f"{plan.provider} could not start",
            hint="its libraries or driver are missing; `mlbridge doctor` lists what is there",
            runtime="onnx",
        )
    native = session._sess
    _natives.add(native)
    return native


def _providers(options: Any, plan: Plan) -> list | None:
    """Return the explicit provider list, or hand plug-in devices to the options and return None."""
    import onnxruntime

    settings = {k: str(v) for k, v in plan.provider_options.items()}
    if plan.provider in onnxruntime.get_available_providers():
        return [(plan.provider, settings)] + ([(CPU, {})] if plan.provider != CPU else [])
    devices = [d for d in onnxruntime.get_ep_devices() if d.ep_name == plan.provider]
    if not devices:
        raise UnavailableError(
            f"this onnxruntime has no provider {plan.provider!r}", hint="`mlbridge doctor` lists what is there", runtime="onnx"
        )
    options.add_provider_for_devices(devices[:1], settings)
    return None


def _load_error(exc: BaseException, plan: Plan) -> MlbridgeError:
    text = str(exc).strip().splitlines()[0][:500] if str(exc).strip() else type(exc).__name__
    if type(exc).__name__ == "ModelLoadCanceled":
        return ArtifactError(f"onnxruntime did not finish loading the model in {_LOAD_TIMEOUT_S:.0f} s", runtime="onnx")
    if plan.provider != CPU and (type(exc).__name__ in ("EPFail", "RuntimeException", "Fail", "RuntimeError")):
        hint = "its libraries, driver or memory are missing; `mlbridge doctor` lists what is there"
        return UnavailableError(f"{plan.provider} could not start: {text}", hint=hint, runtime="onnx")
    return ArtifactError(f"onnxruntime cannot load the model: {text}", runtime="onnx")


_shared: list[int] = []
_natives: weakref.WeakSet[Any] = weakref.WeakSet()
_collects = True


def share_threads(threads: int | None = None) -> None:
    """Make every later session of this process use one pool of threads; for processes with many models.

    Sessions made by other code in this process must then set `use_per_session_threads = False` too: onnxruntime
    allows no mixture.

    Parameters
    ----------
    threads : int, optional
        Default: the cores this process may use.

    Raises
    ------
    InputError
        If the pool exists already with another size.
    """
    import onnxruntime

    wanted = threads or cores()
    if _shared and _shared[0] != wanted:
        raise InputError(f"the shared pool has {_shared[0]} threads already; it cannot be given {wanted}")
    if not _shared:
        onnxruntime.set_global_thread_pool_sizes(wanted, 1)
        _shared.append(wanted)


def _placement(native: Any) -> dict[str, float]:
    counts: Counter[str] = Counter()
    for subgraph in native.get_provider_graph_assignment_info():
        counts[subgraph.ep_name] += len(subgraph.get_nodes())
    total = sum(counts.values())
    return {name: n / total for name, n in counts.most_common()} if total else {}


def _nodes(model: bytes) -> int:
    import onnx

    return len(onnx.load_model_from_string(model).graph.node)


# A native session's threads do not survive a fork, and its destructor would wait for them: a child leaks every session,
# those that are garbage already too. Until it has, nothing may be collected: not by others' hooks either.


def _before_fork() -> None:
    global _collects
    _collects = gc.isenabled()
    gc.disable()


def _after_fork_in_parent() -> None:
    if _collects:
        gc.enable()


def _after_fork_in_child() -> None:
    for native in list(_natives):
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(native))
    if _collects:
        gc.enable()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before_fork, after_in_parent=_after_fork_in_parent, after_in_child=_after_fork_in_child)
