"""Exporting: torch's `torch.export`-based ONNX exporter, its older one for TorchScript, and what neither may do silently.

A graph keeps no state and has one path: a module that changes its own buffers, or acts by the size of an axis, is
refused here.
"""

from __future__ import annotations

import contextlib
import io
import logging
import re
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from ...errors import ConversionError
from ...signature import Signature
from .asking import by_keyword, evaluated, is_exported, opened

__all__ = ["exported"]

_OPSET = 20
_SCRIPT_OPSET = 17  # the older exporter is no longer kept up to the newest operators
_LOGGERS = ("torch.onnx", "onnxscript", "onnx_ir", "torch.export", "torch._dynamo", "torch.fx")
_ANY_SIZE = 1 << 31  # a bound as large is no bound


def exported(model: Any, signature: Signature, opset: int | None) -> Any:
    """Return the ONNX model torch makes of a module, an exported program or a script.

    Raises
    ------
    ConversionError
        If torch cannot, with its own words; or if the module keeps state or acts by the size of an axis.
    """
    import torch

    arguments, dynamic = _example(torch, signature)
    if is_exported(model):
        with _quiet():
            return _attempt(model, model, (), None, signature, opset).model_proto
    module = opened(model)
    keywords = by_keyword(module, list(arguments))
    given = () if keywords else tuple(arguments.values())
    named = arguments if keywords else None
    with evaluated(module), _quiet():
        if isinstance(module, torch.jit.ScriptModule):
            return _by_script_exporter(torch, module, given, named, dynamic, opset)
        failure: ConversionError | None = None
        for dims in _attempts(torch, dynamic):
            shapes = dims if keywords or dims is None else tuple(dims.values())
            try:
                program = _attempt(model, module, given, named, signature, opset, shapes)
            except ConversionError as exc:
                failure = exc
                continue
            _refuse_state(program.exported_program)
            _refuse_sizes(program.exported_program)
            return program.model_proto
        assert failure is not None
        raise failure


def _attempt(
    model: Any, module: Any, arguments: tuple, keywords: dict | None, signature: Signature, opset: int | None, shapes: Any = None
) -> Any:
    import torch

    try:
        with torch.no_grad(), _without_triton():
            return torch.onnx.export(
                module,
                arguments,
                kwargs=keywords,
                dynamo=True,
                dynamic_shapes=shapes,
                input_names=[s.name for s in signature.inputs],
                opset_version=opset or _OPSET,
                verbose=False,
            )
    except Exception as exc:
        raise ConversionError(f"torch cannot export {type(model).__name__}: {_reason(exc)}") from exc


def _by_script_exporter(torch: Any, module: Any, arguments: tuple, keywords: dict | None, dynamic: dict, opset: int | None) -> Any:
    import onnx

    buffer = io.BytesIO()
    try:
        with torch.no_grad():
            torch.onnx.export(
                module,
                arguments,
                buffer,
                kwargs=keywords,
                dynamo=False,
                dynamic_axes={k: v for k, v in dynamic.items() if v},
                input_names=list(dynamic),
                opset_version=opset or _SCRIPT_OPSET,
                verbose=False,
            )
    except Exception as exc:
        raise ConversionError(f"torch cannot export {type(module).__name__}: {_reason(exc)}") from exc
    return onnx.load_model_from_string(buffer.getvalue())


def _reason(exc: BaseException) -> str:
    """Return the first line of what first went wrong; the exporter's own wrapping says only that something did."""
    while exc.__cause__ is not None:
        exc = exc.__cause__
    lines = [line for line in re.sub(r"\x1b\[[0-9;]*m", "", str(exc)).splitlines() if line.strip()] or [""]
    if type(exc).__name__.startswith("GuardOnDataDependent"):
        return f"what it computes depends on the values ({lines[0].rstrip('.')})"
    return f"{type(exc).__name__}: {lines[0]}"


def _refuse_state(program: Any) -> None:
    changed = sorted(set(program.graph_signature.buffers_to_mutate.values()))
    if changed:
        raise ConversionError(f"the module changes its own buffers when called ({', '.join(changed)}); a graph keeps no state")


def _refuse_sizes(program: Any) -> None:
    """Refuse a program that holds only for some sizes of an axis: the module has another path for the others."""
    sizes = {
        str(d) for n in program.graph.nodes if n.op == "placeholder" and hasattr(n.meta.get("val"), "shape") for d in n.meta["val"].shape
    }
    for symbol, bounds in program.range_constraints.items():
        low, high = _bound(bounds.lower), _bound(bounds.upper)
        if str(symbol) in sizes and (high < _ANY_SIZE or low > 2):  # 0 and 1 are special to torch itself
            held = f"at most {high}" if high < _ANY_SIZE else f"at least {low}"
            raise ConversionError(f"the module acts by the size of an axis: its graph would hold for {held} only")


def _bound(value: Any) -> int:
    return int(value) if getattr(value, "is_Integer", False) else _ANY_SIZE if value > 0 else 0


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep the exporter's progress, its graphs on stderr and its advice to other authors away."""
    levels = {n: logging.getLogger(n).level for n in _LOGGERS}
    for n in levels:
        logging.getLogger(n).setLevel(logging.CRITICAL)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stderr(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        for n, level in levels.items():
            logging.getLogger(n).setLevel(level)


@contextmanager
def _without_triton() -> Iterator[None]:
    """Keep torch from loading triton beside TensorFlow: both bring an LLVM, and the second to load aborts the process."""
    if "tensorflow" not in sys.modules or "triton" in sys.modules:
        yield
        return
    sys.modules["triton"] = None  # type: ignore[assignment]  # an import of it raises ImportError, which torch expects
    try:
        yield
    finally:
        del sys.modules["triton"]


def _example(torch: Any, signature: Signature) -> tuple[dict[str, Any], dict[str, dict[int, str]]]:
    """Make example tensors, and the symbol of each dynamic axis; sizes of 0 and 1 would be baked in."""
    sizes: dict[str, int] = {}
    arguments, dynamic = {}, {}
    for spec in signature.inputs:
        shape, symbols = [], {}
        for i, d in enumerate(spec.shape):
            if isinstance(d, int):
                shape.append(d)
            else:
                symbol = d if isinstance(d, str) else f"{spec.name}_{i}"
                shape.append(sizes.setdefault(symbol, 3 + 2 * len(sizes)))
                symbols[i] = symbol
        kind = np.dtype(spec.dtype)
        arguments[spec.name] = torch.from_numpy(np.ones(shape, kind) if kind.kind in "fb" else np.zeros(shape, kind))
        dynamic[spec.name] = symbols
    return arguments, dynamic


def _attempts(torch: Any, dynamic: dict[str, dict[int, str]]) -> list[Any]:
    """Named dimensions first; where the network relates them, let torch find the relation."""
    symbols = list(dict.fromkeys(s for d in dynamic.values() for s in d.values()))
    if not symbols:
        return [None]
    names = {s: torch.export.Dim(f"size_{i}") for i, s in enumerate(symbols)}
    named = {k: {i: names[s] for i, s in d.items()} for k, d in dynamic.items()}
    found = {k: dict.fromkeys(d, torch.export.Dim.AUTO) for k, d in dynamic.items()}
    return [named, found]
