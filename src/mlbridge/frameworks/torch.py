"""PyTorch: modules and exported programs, by torch's own `torch.export`-based ONNX exporter.

Names are those of `forward`'s parameters and of a dict answer's keys. The batch axis and other dynamic axes come from
the sample or from the symbols of a given signature.
"""

from __future__ import annotations

import inspect
import logging
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from ..artifact import Artifact
from ..conversion.adopt import adopt
from ..errors import ArtifactError, ConversionError, InputError, UnsupportedError
from ..interfaces import Array
from ..plugins import require
from ..signature import ROWS, Column, Signature, TensorSpec
from ..tensors.containers import open_container

__all__ = ["TorchFramework"]


class TorchFramework:
    """All that mlbridge knows about PyTorch."""

    name: ClassVar[str] = "torch"
    formats: ClassVar[frozenset[str]] = frozenset({"torch"})
    options: ClassVar[frozenset[str]] = frozenset({"opset_version"})

    def accepts(self, model: object, /) -> bool:
        """Whether it is a Module, a ScriptModule or an ExportedProgram."""
        return any(c.__module__.split(".")[0] == "torch" and c.__name__ in ("Module", "ExportedProgram") for c in type(model).__mro__)

    def read(self, source: Artifact, /, **options: Any) -> object:
        """Open a module saved whole by `torch.save`; weights alone are no model."""
        torch = require("torch")
        try:
            model = torch.load(source.path, map_location="cpu", weights_only=False)
        except Exception as exc:
            raise ArtifactError(f"{source.label}: torch cannot open it: {exc}") from exc
        if not self.accepts(model):
            raise UnsupportedError(
                f"{source.label}: holds {type(model).__name__}, not a module",
                hint="a state dict is weights without a model: build the module, load the weights, and pass it to mlbridge.wrap",
            )
        return model

    def infer(self, model: Any, sample: object | None, /, **options: Any) -> Signature:
        """Decide names from `forward` and dtypes and shapes from one run on the sample.

        Raises
        ------
        InputError
            If there is no sample, or it does not fit `forward`.
        """
        torch = require("torch")
        if sample is None:
            raise InputError("a PyTorch module needs a sample", hint="pass sample=x, a tuple, or a dict by forward's parameter names")
        arrays, columns = _named_arrays(model, sample)
        feeds = {k: _to_module_dtype(model, v) for k, v in arrays.items()}
        sizes = {v.shape[0] for v in feeds.values() if v.ndim}
        batched = len(sizes) == 1
        inputs = tuple(_spec(k, v, batched, columns.get(k, ())) for k, v in feeds.items())
        answer = _run(torch, model, feeds)
        rows = sizes.pop() if batched else None
        fewer = _run(torch, model, {k: v[:1] for k, v in feeds.items()}) if batched and rows and rows > 1 else None
        outputs = tuple(_out_spec(k, v, rows, None if fewer is None else fewer.get(k)) for k, v in answer.items())
        return Signature(inputs, outputs)

    def native(self, model: Any, /, *, signature: Signature, **options: Any) -> Callable[[Mapping[str, Array]], Mapping[str, Array]]:
        """Return a function that runs the module in eval mode without gradients."""
        torch = require("torch")
        model = _evaluated(model)
        names = [s.name for s in signature.outputs]

        def run(feeds: Mapping[str, Array]) -> Mapping[str, Array]:
            answer = _run(torch, model, feeds)
            return {n: answer[n] for n in names}

        return run

    def probe(self, model: object, /, *, signature: Signature, seed: int, **options: Any) -> dict[str, Array]:
        """Networks are probed on the sample's own range only: beyond it exports may differ by design."""
        return {}

    def convert(self, model: Any, folder: Path, /, *, signature: Signature, **options: Any) -> Path:
        """Export with `torch.onnx.export(dynamo=True)`, then name everything as the signature does.

        Raises
        ------
        ConversionError
            If torch cannot export the module; its own words are in the message.
        """
        torch = require("torch")
        require("onnxscript")
        model = _evaluated(model)
        arguments, dynamic = _example(torch, signature)
        keywords = _by_keyword(model, [s.name for s in signature.inputs])
        for dims in _attempts(torch, dynamic):
            try:
                with warnings.catch_warnings(), torch.no_grad(), _quiet(), _without_triton():
                    warnings.simplefilter("ignore")
                    program = torch.onnx.export(
                        model,
                        () if keywords else tuple(arguments.values()),
                        kwargs=arguments if keywords else None,
                        dynamo=True,
                        dynamic_shapes=dims if keywords or dims is None else tuple(dims.values()),
                        input_names=[s.name for s in signature.inputs],
                        opset_version=options.get("opset_version", 20),
                        verbose=False,
                    )
                break
            except Exception as exc:  # noqa: BLE001 - the exporter raises anything; every attempt's reason is told
                failure = exc
        else:
            raise ConversionError(f"torch cannot export {type(model).__name__}: {str(failure).splitlines()[0]}") from failure
        return adopt(program.model_proto, signature, Path(folder) / "model.onnx")


def _quiet() -> Any:
    """Keep the exporter's progress lines out of the log."""

    class Quiet:
        def __enter__(self) -> None:
            self.levels = {n: logging.getLogger(n).level for n in ("torch.onnx", "onnxscript", "onnx_ir", "torch.export")}
            for n in self.levels:
                logging.getLogger(n).setLevel(logging.ERROR)

        def __exit__(self, *exc: object) -> None:
            for n, level in self.levels.items():
                logging.getLogger(n).setLevel(level)

    return Quiet()


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


def _evaluated(model: Any) -> Any:
    if hasattr(model, "module") and type(model).__name__ == "ExportedProgram":
        return model.module()
    return model.eval()


def _parameters(model: Any) -> list[str]:
    forward = model.module().forward if type(model).__name__ == "ExportedProgram" else model.forward
    try:
        strange = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
        return [p.name for p in inspect.signature(forward).parameters.values() if p.kind not in strange]
    except (TypeError, ValueError):
        return []


def _named_arrays(model: Any, sample: object) -> tuple[dict[str, Array], dict[str, tuple[Column, ...]]]:
    names = _parameters(model)
    if isinstance(sample, Mapping):
        strange = [k for k in sample if names and k not in names]
        if strange:
            raise InputError(f"forward has no parameter {strange[0]!r}; it has {', '.join(names)}")
        return {k: _array(sample[k]) for k in sorted(sample, key=names.index if names else str)}, {}
    if isinstance(sample, tuple):
        if names and len(sample) > len(names):
            raise InputError(f"{len(sample)} sample arrays for forward({', '.join(names)})")
        return {(names[i] if i < len(names) else f"input_{i}"): _array(v) for i, v in enumerate(sample)}, {}
    name = names[0] if names else "input"
    opened = (
        open_container(sample, Signature((TensorSpec("x", "float64", (ROWS,)),), (TensorSpec("y", "float64", (ROWS,)),)))
        if not hasattr(sample, "detach")
        else None
    )
    if opened is not None and opened.kind == "table":
        columns = tuple(Column(str(c)) for c in opened.values)
        return {name: np.column_stack([opened.values[c.name] for c in columns])}, {name: columns}
    return {name: _array(sample)}, {}


def _array(value: Any) -> Array:
    return value.detach().cpu().numpy() if hasattr(value, "detach") else np.asarray(value)


def _to_module_dtype(model: Any, array: Array) -> Array:
    if array.dtype.kind != "f":
        return array
    parameters = list(model.parameters()) if hasattr(model, "parameters") and type(model).__name__ != "ExportedProgram" else []
    floats = [p.dtype for p in parameters if p.is_floating_point()]
    wanted = str(floats[0]).removeprefix("torch.") if floats else array.dtype.name
    return array.astype(wanted) if wanted in ("float16", "float32", "float64") else array


def _spec(name: str, array: Array, batched: bool, columns: tuple[Column, ...]) -> TensorSpec:
    shape = (ROWS, *array.shape[1:]) if batched and array.ndim else array.shape
    floats = array.dtype.kind == "f"
    rounding = "nearest" if array.dtype.name in ("float32", "float16") else "refuse"
    return TensorSpec(name, array.dtype.name, shape, columns, "allow" if floats else "refuse", rounding)  # type: ignore[arg-type]


def _out_spec(name: str, array: Array, rows: int | None, fewer: Array | None) -> TensorSpec:
    """An axis that follows the batch is `rows`; one that changes otherwise is of any size."""
    shape: list = list(array.shape)
    if rows is not None and shape and shape[0] == rows and (fewer is None or fewer.shape[:1] == (1,)):
        shape[0] = ROWS
    if fewer is not None:
        shape = [d if d == ROWS or (i < fewer.ndim and fewer.shape[i] == d) else None for i, d in enumerate(shape)]
    return TensorSpec(name, array.dtype.name, tuple(shape), missing="allow" if array.dtype.kind == "f" else "refuse")


def _run(torch: Any, model: Any, feeds: Mapping[str, Array]) -> dict[str, Array]:
    model = _evaluated(model)
    tensors = {k: torch.from_numpy(np.array(v)) for k, v in feeds.items()}
    with torch.no_grad():
        answer = model(**tensors) if _by_keyword(model, list(feeds)) else model(*tensors.values())
    return {k: v.detach().cpu().numpy() for k, v in _flat(answer).items()}


def _by_keyword(model: Any, names: list[str]) -> bool:
    """Whether inputs must be passed by name: they are not simply the first parameters of `forward`."""
    parameters = _parameters(model)
    return bool(parameters) and parameters[: len(names)] != names


def _flat(answer: Any, name: str = "output") -> dict[str, Any]:
    """Name the tensors of an answer by key, field or position; what is nested carries the outer name in front."""
    if hasattr(answer, "detach"):
        return {name: answer}
    if hasattr(answer, "_fields"):
        answer = answer._asdict()
    if isinstance(answer, Mapping):
        inner = "" if name == "output" else f"{name}_"
        return {k: v for key, part in answer.items() if part is not None for k, v in _flat(part, f"{inner}{key}").items()}
    if isinstance(answer, (tuple, list)):
        return {k: v for i, part in enumerate(answer) if part is not None for k, v in _flat(part, f"{name}_{i}").items()}
    raise UnsupportedError(f"the module answers {type(answer).__name__}", hint="return tensors, or tuples and dicts of tensors")


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
