"""Asking a module: the names of its inputs and outputs, evaluation mode for the length of a call, one call.

A module stays as its owner left it: a call in training mode switches to evaluation and back. Called by the framework
in `__init__` and by `export`.
"""

from __future__ import annotations

import inspect
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from typing import Any

import numpy as np

from ...errors import InputError, MlbridgeError, UnsupportedError
from ...interfaces import Array
from ...signature import ROWS, Column, Signature, TensorSpec
from ...tensors.containers import open_container

__all__ = [
    "answer_of",
    "asked_on_sample",
    "by_keyword",
    "evaluated",
    "function_of",
    "is_exported",
    "named_arrays",
    "opened",
    "to_own_dtype",
]


def is_exported(model: Any) -> bool:
    """Whether it is a `torch.export.ExportedProgram`."""
    return type(model).__name__ == "ExportedProgram"


def opened(model: Any) -> Any:
    """Return the module to call: of an exported program, and inside what `torch.compile` or DataParallel wrapped."""
    if is_exported(model):
        return model.module()
    while type(model).__name__ in ("OptimizedModule", "DataParallel"):
        model = getattr(model, "_orig_mod", None) or model.module
    return model


@contextmanager
def evaluated(module: Any) -> Iterator[None]:
    """Keep a module in evaluation mode, then leave every part of it in the mode it was in."""
    modes = [(part, part.training) for part in module.modules()]
    if not any(training for _, training in modes):
        yield
        return
    try:
        module.eval()
    except NotImplementedError:  # of an exported program: its mode was fixed when it was exported
        yield
        return
    try:
        yield
    finally:
        if modes[0][1]:
            module.train()
        for part, training in modes:
            part.training = training


def function_of(module: Any) -> Callable[[Mapping[str, Array]], dict[str, Array]]:
    """Return a function from feeds to the answer's arrays; threads may share it."""
    lock, alone = threading.Lock(), False

    def run(feeds: Mapping[str, Array]) -> dict[str, Array]:
        nonlocal alone
        training = any(part.training for part in module.modules())
        alone = alone or training  # read after the modes: a call that finds them switched off for another's sake waits for it
        with lock if alone else nullcontext():
            return answer_of(module, feeds)

    return run


def answer_of(module: Any, feeds: Mapping[str, Array]) -> dict[str, Array]:
    """Run once, without gradients."""
    import torch

    tensors = {k: torch.from_numpy(np.array(v)) for k, v in feeds.items()}
    with evaluated(module), torch.no_grad():
        answer = module(**tensors) if by_keyword(module, list(feeds)) else module(*tensors.values())
    return {k: v.detach().cpu().numpy() for k, v in _flat(answer).items()}


def asked_on_sample(module: Any, feeds: Mapping[str, Array]) -> dict[str, Array]:
    """Run on the caller's sample; what fails is the caller's to mend."""
    try:
        return answer_of(module, feeds)
    except MlbridgeError:
        raise
    except Exception as exc:
        half = "bfloat16" in {str(p.dtype).removeprefix("torch.") for p in module.parameters()}
        hint = (
            "the module computes in bfloat16, which numpy lacks: pass module.float()"
            if half
            else "pass tensors of the shapes forward takes"
        )
        reason = str(exc).strip().splitlines() or [""]
        raise InputError(f"the module fails on the sample: {type(exc).__name__}: {reason[0]}", hint=hint) from exc


def _parameters(module: Any) -> list[str]:
    try:
        strange = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
        return [p.name for p in inspect.signature(module.forward).parameters.values() if p.kind not in strange]
    except (TypeError, ValueError):
        return []


def by_keyword(module: Any, names: list[str]) -> bool:
    """Whether inputs must be passed by name: they are not simply the first parameters of `forward`."""
    parameters = _parameters(module)
    return bool(parameters) and parameters[: len(names)] != names


def named_arrays(module: Any, sample: object) -> tuple[dict[str, Array], dict[str, tuple[Column, ...]]]:
    """Name a sample's arrays by `forward`'s parameters; a table's columns are those of the one input."""
    names = _parameters(module)
    if isinstance(sample, Mapping):
        strange = [k for k in sample if names and k not in names]
        if strange:
            raise InputError(
                f"forward has no parameter {strange[0]!r}; it has {', '.join(names)}",
                hint="a forward that takes one dict needs a module around it whose forward takes the tensors",
            )
        return {k: _array(k, sample[k]) for k in sorted(sample, key=names.index if names else str)}, {}
    if isinstance(sample, tuple):
        if names and len(sample) > len(names):
            raise InputError(f"{len(sample)} sample arrays for forward({', '.join(names)})")
        positions = [names[i] if i < len(names) else f"input_{i}" for i in range(len(sample))]
        return {n: _array(n, v) for n, v in zip(positions, sample)}, {}
    name = names[0] if names else "input"
    nothing = Signature((TensorSpec("x", "float64", (ROWS,)),), (TensorSpec("y", "float64", (ROWS,)),))
    container = open_container(sample, nothing)
    if container.kind == "table":
        columns = tuple(Column(str(c)) for c in container.values)
        return {name: _array(name, np.column_stack([container.values[c.name] for c in columns]))}, {name: columns}
    return {name: _array(name, sample)}, {}


def _array(name: str, value: Any) -> Array:
    array = np.asarray(value)
    if array.dtype.kind not in "fiub":
        raise InputError(f"input {name!r}: the sample is {array.dtype}, a network takes numbers or booleans")
    return array


def to_own_dtype(module: Any, array: Array) -> Array:
    """Round floats to the dtype of the module's own parameters."""
    if array.dtype.kind != "f":
        return array
    floats = [p.dtype for p in module.parameters() if p.is_floating_point()]
    wanted = str(floats[0]).removeprefix("torch.") if floats else array.dtype.name
    return array.astype(wanted) if wanted in ("float16", "float32", "float64") else array


def _flat(answer: Any, name: str = "output") -> dict[str, Any]:
    """Name the tensors of an answer by key, field or position; what is nested carries the outer name in front."""
    if hasattr(answer, "detach"):
        return {name: answer}
    if hasattr(answer, "_fields"):
        answer = answer._asdict()
    if isinstance(answer, Mapping):
        inner = "" if name == "output" else f"{name}_"
        parts = [(f"{inner}{key}", part) for key, part in answer.items()]
    elif isinstance(answer, (tuple, list)):
        parts = [(f"{name}_{i}", part) for i, part in enumerate(answer)]
    else:
        raise UnsupportedError(f"the module answers {type(answer).__name__}", hint="return tensors, or tuples and dicts of tensors")
    out: dict[str, Any] = {}
    for key, part in parts:
        named = {} if part is None else _flat(part, key)
        if twice := sorted(named.keys() & out.keys()):
            raise UnsupportedError(f"two parts of the module's answer are named {twice[0]!r}", hint="rename one of its keys")
        out |= named
    return out
