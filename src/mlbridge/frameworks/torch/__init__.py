"""PyTorch: modules, exported programs and scripts, by torch's own ONNX exporters.

Names are those of `forward`'s parameters and of a dict answer's keys. The batch axis and other dynamic axes come from
the sample or from the symbols of a given signature. Rooms: `asking` (a module's names, mode and calls), `export`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from ...artifact import Artifact
from ...conversion.adopt import adopt
from ...errors import ArtifactError, InputError, UnsupportedError
from ...interfaces import Array
from ...plugins import require
from ...signature import ROWS, Column, Signature, TensorSpec
from .asking import answer_of, asked_on_sample, function_of, named_arrays, opened, to_own_dtype
from .export import exported

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
        require("torch")
        if sample is None:
            raise InputError("a PyTorch module needs a sample", hint="pass sample=x, a tuple, or a dict by forward's parameter names")
        module = opened(model)
        arrays, columns = named_arrays(module, sample)
        feeds = {k: to_own_dtype(module, v) for k, v in arrays.items()}
        answer = asked_on_sample(module, feeds)
        sizes = {v.shape[0] for v in feeds.values() if v.ndim}
        rows = sizes.pop() if len(sizes) == 1 else None
        fewer = None
        if rows is not None and rows > 1:
            try:
                fewer = answer_of(module, {k: v[:1] for k, v in feeds.items()})
            except Exception:  # noqa: BLE001 - whatever it says: it takes batches of the sample's size only
                rows = None
        inputs = tuple(_spec(k, v, rows is not None, columns.get(k, ())) for k, v in feeds.items())
        return Signature(inputs, tuple(_out_spec(k, v, rows, None if fewer is None else fewer.get(k)) for k, v in answer.items()))

    def stretched(self, model: Any, sample: object, signature: Signature) -> Signature:
        """Let outputs follow the axes a caller made dynamic: they are measured with each of these axes longer.

        Parameters
        ----------
        model : object
            What was inferred.
        sample : object
            As for `infer`; its own sizes are no longer those of every call.
        signature : Signature
            The inferred one under the caller's.
        """
        module = opened(model)
        arrays, _ = named_arrays(module, sample)
        grown: dict[str, Array] = {}
        sizes: dict[str, tuple[int, int]] = {}  # size of an axis in the sample, and how much longer it is made
        for spec in signature.inputs:
            array = to_own_dtype(module, arrays[spec.name])
            for i, d in enumerate(spec.shape):
                if not isinstance(d, int) and d != ROWS:
                    symbol = d or f"{spec.name}_{i}"
                    before, more = sizes.setdefault(symbol, (array.shape[i], len(sizes) + 1))
                    array = np.take(array, range(before + more), axis=i, mode="wrap")
            grown[spec.name] = array
        if not sizes:
            return signature
        answer = asked_on_sample(module, grown)
        symbols = {(n, n + more): s for s, (n, more) in sizes.items()}
        return signature.replace(outputs=tuple(_following(s, answer[s.name], symbols) for s in signature.outputs))

    def native(self, model: Any, /, *, signature: Signature, **options: Any) -> Callable[[Mapping[str, Array]], Mapping[str, Array]]:
        """Return a function that runs the module in evaluation mode without gradients, and leaves it in its own mode."""
        require("torch")
        ask = function_of(opened(model))
        names = [s.name for s in signature.outputs]

        def run(feeds: Mapping[str, Array]) -> Mapping[str, Array]:
            answer = ask(feeds)
            return {n: answer[n] for n in names}

        return run

    def probe(self, model: object, /, *, signature: Signature, seed: int, **options: Any) -> dict[str, Array]:
        """Networks are probed on the sample's own range only: beyond it exports may differ by design."""
        return {}

    def convert(self, model: Any, folder: Path, /, *, signature: Signature, **options: Any) -> Path:
        """Export with torch, then name everything as the signature does.

        Raises
        ------
        ConversionError
            If torch cannot export the module, or it keeps state or acts by the size of an axis.
        """
        require("torch")
        require("onnxscript")
        return adopt(exported(model, signature, options.get("opset_version")), signature, Path(folder) / "model.onnx")


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


def _following(spec: TensorSpec, longer: Array, symbols: Mapping[tuple[int, int], str]) -> TensorSpec:
    """An axis that grew as an input's did has its symbol; one that changed otherwise is of any size."""
    if longer.ndim != len(spec.shape):
        raise InputError(f"output {spec.name!r} has another rank where the input is longer; a signature cannot say that")
    shape = [d if not isinstance(d, int) or n == d else symbols.get((d, n)) for d, n in zip(spec.shape, longer.shape)]
    return replace(spec, shape=tuple(shape))
