"""TensorFlow and Keras: Keras 3 models and SavedModels, through tf2onnx or Keras' own exporter, whichever agrees.

Names are the model's own input and output names. Everything is asked of TensorFlow on the CPU.
"""

from __future__ import annotations

import logging
import os
import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from ..artifact import Artifact, open_artifact
from ..conversion.adopt import adopt
from ..conversion.verification import compare
from ..errors import ArtifactError, ConversionError, InputError, MlbridgeError, UnsupportedError
from ..interfaces import Array
from ..plugins import require, runtime
from ..signature import ROWS, Signature, TensorSpec

__all__ = ["TensorflowFramework"]

_OPSET = 18  # the newest tf2onnx writes
_QUICK_ROWS = 5
_ONE_INPUT = "input"  # of a model that names none


class TensorflowFramework:
    """All that mlbridge knows about TensorFlow and Keras."""

    name: ClassVar[str] = "tensorflow"
    formats: ClassVar[frozenset[str]] = frozenset({"keras", "keras-h5", "savedmodel"})
    options: ClassVar[frozenset[str]] = frozenset()

    def accepts(self, model: object, /) -> bool:
        """Whether it is a Keras model, a loaded SavedModel, or a `tf.function`."""
        roots = {(c.__module__.split(".")[0], c.__name__) for c in type(model).__mro__}
        if ("keras", "Model") in roots or _is_function(model):
            return True
        return any(root == "tensorflow" and name in ("AutoTrackable", "Module") for root, name in roots) and hasattr(model, "signatures")

    def read(self, source: Artifact, /, **options: Any) -> object:
        """Open a `.keras` or `.h5` file or a SavedModel folder; all of them may run code."""
        tf = _tensorflow()
        try:
            if source.format == "savedmodel":
                return tf.saved_model.load(str(source.path))
            path = source.path
            wanted = ".h5" if source.format == "keras-h5" else ".keras"
            if path.suffix != wanted:  # Keras decides by the name, we by the content
                path = path.rename(path.with_suffix(wanted))
            return require("keras").models.load_model(path, compile=False, safe_mode=False)
        except Exception as exc:
            raise ArtifactError(f"{source.label}: TensorFlow cannot open it: {str(exc).splitlines()[0]}") from exc

    def infer(self, model: Any, sample: object | None, /, **options: Any) -> Signature:
        """Take names, dtypes and shapes from the model itself.

        Raises
        ------
        InputError
            If a model was never called, so that it has no shapes, and no sample says them.
        """
        _tensorflow()
        if not _is_keras(model):
            return _signature_of_saved(model)
        if not getattr(model, "built", False) or not getattr(model, "inputs", None):
            if sample is None:
                raise InputError("the Keras model was never called and has no shapes", hint="pass a sample, or call it once")
            return _signature_by_running(model, sample)
        names = _input_names(model)
        inputs = tuple(_spec(n, t.shape, t.dtype) for n, t in zip(names, model.inputs))
        answer = _run(model, {s.name: _blank(s) for s in inputs})
        declared = _declared(model)
        outputs = (_spec(k, _answered(declared.get(k, v.shape), v.shape), _dtype_name(v), output=True) for k, v in answer.items())
        return Signature(inputs, tuple(outputs))

    def native(self, model: Any, /, *, signature: Signature, **options: Any) -> Callable[[Mapping[str, Array]], Mapping[str, Array]]:
        """Return a function that calls the model in inference mode."""
        _tensorflow()
        names = [s.name for s in signature.outputs]

        def run(feeds: Mapping[str, Array]) -> Mapping[str, Array]:
            answer = _run(model, feeds)
            return {n: answer[n] for n in names}

        return run

    def probe(self, model: object, /, *, signature: Signature, seed: int, **options: Any) -> dict[str, Array]:
        """Networks are probed on the sample's own range only."""
        return {}

    def convert(self, model: Any, folder: Path, /, *, signature: Signature, **options: Any) -> Path:
        """Export by tf2onnx, else by Keras; the first whose graph agrees with the model on a few rows.

        Raises
        ------
        ConversionError
            If neither does, with both reasons.
        """
        _tensorflow()
        if text := [s.name for s in signature.inputs if s.dtype == "string"]:
            raise ConversionError(f"input {text[0]!r} is text, whose operators neither exporter knows")
        reasons: list[str] = []
        routes = [("tf2onnx", _by_tf2onnx)] + ([("keras", _by_keras)] if _is_keras(model) else [])
        for name, export in routes:
            try:
                with _quiet():
                    proto = export(model, signature)
                path = adopt(proto, signature, Path(folder) / "model.onnx")
                problem = _disagreement(model, path, signature)
            except Exception as exc:  # noqa: BLE001 - exporters raise anything; each reason is told
                problem = f"{type(exc).__name__}: {str(exc).splitlines()[0] if str(exc) else ''}"
            if problem is None:
                return path
            reasons.append(f"{name}: {problem}")
        raise ConversionError(f"TensorFlow model {getattr(model, 'name', type(model).__name__)!r} does not convert: {'; '.join(reasons)}")


def _tensorflow() -> Any:
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    return require("tensorflow")


@contextmanager
def _quiet() -> Iterator[None]:
    loggers = [logging.getLogger(n) for n in ("tensorflow", "tf2onnx", "absl")]
    levels = [g.level for g in loggers]
    for g in loggers:
        g.setLevel(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for g, level in zip(loggers, levels):
            g.setLevel(level)


def _is_keras(model: object) -> bool:
    return any(c.__module__.split(".")[0] == "keras" for c in type(model).__mro__)


def _is_function(model: object) -> bool:
    kind = type(model)
    return kind.__module__.startswith("tensorflow.") and kind.__name__ in ("Function", "ConcreteFunction")


def _blank(spec: TensorSpec, rows: int = 2) -> Array:
    """Return ones, or empty text, of a spec's shape; each axis of any size has a size of its own."""
    shape = [d if isinstance(d, int) else rows + i for i, d in enumerate(spec.shape)]
    return np.full(shape, "", object) if spec.dtype == "string" else np.ones(shape, spec.dtype)


def _answered(declared: tuple, shape: tuple) -> tuple:
    """Return the sizes of an answer where the model declares any; layers may declare wrong ones."""
    return tuple(None if d is None else n for d, n in zip(declared, shape)) if len(declared) == len(shape) else shape


def _dtype_name(array: Array) -> str:
    return "string" if array.dtype.kind in "OSU" else array.dtype.name


def _input_names(model: Any) -> list[str]:
    return [t.name.split(":")[0] for t in model.inputs]


def _functional(model: Any) -> Any:
    """Return the functional model that knows the structures of inputs and outputs: a Sequential holds one; None of a subclass."""
    return model if hasattr(model, "_outputs_struct") else getattr(model, "_functional", None)


def _packed(structure: Any, flat: list) -> Any:
    """Return flat values in a structure of Keras, which flattens dicts by sorted key, whatever order they were written in."""
    return require("keras").tree.pack_sequence_as(structure, flat)


def _spec(name: str, shape: Any, dtype: str, *, output: bool = False) -> TensorSpec:
    dims = [d if isinstance(d, int) else None for d in shape]
    if dims and dims[0] is None:
        dims[0] = ROWS  # type: ignore[call-overload]
    floats = str(dtype).startswith(("float", "bfloat"))
    rounding = "nearest" if str(dtype) in ("float32", "float16") and not output else "refuse"
    return TensorSpec(name, str(dtype), tuple(dims), missing="allow" if floats else "refuse", rounding=rounding)  # type: ignore[arg-type]


def _signature_by_running(model: Any, sample: object) -> Signature:
    arrays = dict(sample) if isinstance(sample, Mapping) else {_ONE_INPUT: np.asarray(sample)}
    feeds = {k: np.asarray(v).astype(np.float32) if np.asarray(v).dtype.kind == "f" else np.asarray(v) for k, v in arrays.items()}
    answer = _run(model, feeds)
    return Signature(
        tuple(_spec(k, (None, *v.shape[1:]), _dtype_name(v)) for k, v in feeds.items()),
        tuple(_spec(k, (None, *v.shape[1:]), _dtype_name(v), output=True) for k, v in answer.items()),
    )


def _saved_function(model: Any) -> Any:
    if _is_function(model):
        if not hasattr(model, "structured_outputs"):  # a tf.function, which makes a graph for each signature
            if model.input_signature is None:
                raise UnsupportedError(
                    "the tf.function has no input_signature", hint="pass function.get_concrete_function(tf.TensorSpec(...))"
                )
            model = model.get_concrete_function()
        return model
    signatures = getattr(model, "signatures", {})
    if "serving_default" in signatures:
        return signatures["serving_default"]
    if not signatures:
        raise UnsupportedError("the SavedModel has no signature", hint="save it with signatures=…, or export it from Keras")
    return next(iter(signatures.values()))


def _signature_of_saved(model: Any) -> Signature:
    function = _saved_function(model)
    positional, keyword = function.structured_input_signature
    inputs = {v.name: v for v in positional} | dict(sorted(keyword.items()))
    if not all(hasattr(v, "dtype") for v in inputs.values()):
        raise UnsupportedError("the function takes more than tensors", hint="give it an input_signature of one tf.TensorSpec an argument")
    outputs = _named(function.structured_outputs, None)
    if isinstance(function.structured_outputs, Mapping):
        outputs = dict(sorted(outputs.items()))  # the file's own order is not the author's
    return Signature(
        tuple(_spec(k, _dims(v.shape), v.dtype.name) for k, v in inputs.items()),
        tuple(_spec(k, _dims(v.shape), v.dtype.name, output=True) for k, v in outputs.items()),
    )


def _dims(shape: Any) -> list:
    if shape.rank is None:
        raise UnsupportedError("the SavedModel has a tensor of unknown rank", hint="export it with fixed ranks")
    return shape.as_list()


def _call(model: Any, tensors: Mapping[str, Any]) -> Mapping[str, Any]:
    """Call a model on named tensors and name its answer."""
    if not _is_keras(model):
        return _named(_saved_function(model)(**tensors), None)
    values = list(tensors.values())
    if (functional := _functional(model)) is not None:
        given = _packed(functional._inputs_struct, values)
    else:  # a subclass: it was sampled with one array, or with a dict that its `call` reads
        given = values[0] if list(tensors) == [_ONE_INPUT] else dict(tensors)
    return _named(model(given, training=False), model)


def _declared(model: Any) -> dict[str, tuple]:
    """Return the shape of each named output, unknown sizes as None."""
    functional = _functional(model)
    if functional is None:
        return {}
    return {k: tuple(t.shape) for k, t in _named(functional._outputs_struct, model).items()}


def _named(answer: Any, model: Any) -> dict[str, Any]:
    """Name a structure's leaves: by key, by the model's own output names, else by position."""
    parts = list(answer) if isinstance(answer, (list, tuple)) else [answer]
    names = list(getattr(model, "output_names", None) or [])
    if isinstance(answer, Mapping):
        parts, names = list(answer.values()), list(map(str, answer))
    elif len(names) != len(parts) or len(set(names)) != len(names):
        names = ["output"] if len(parts) == 1 else [f"output_{i}" for i in range(len(parts))]
    out: dict[str, Any] = {}
    for name, part in zip(names, parts):
        nested = isinstance(part, (Mapping, list, tuple))
        named = {f"{name}_{k.removeprefix('output_')}": v for k, v in _named(part, None).items()} if nested else {name: part}
        if twice := sorted(named.keys() & out.keys()):
            raise UnsupportedError(f"two parts of the model's answer are named {twice[0]!r}", hint="rename one of its outputs")
        out |= named
    return out


def _run(model: Any, feeds: Mapping[str, Array]) -> dict[str, Array]:
    tf = _tensorflow()
    answer = _call(model, {k: tf.constant(v) for k, v in feeds.items()})
    return {k: _array(v) for k, v in answer.items()}


def _array(tensor: Any) -> Array:
    array = np.asarray(tensor)
    if array.dtype.kind not in "OS":
        return array
    text = [v.decode("utf-8", "replace") if isinstance(v, bytes) else v for v in array.ravel().tolist()]
    return np.array(text, object).reshape(array.shape)


def _by_tf2onnx(model: Any, signature: Signature) -> Any:
    tf, tf2onnx = _tensorflow(), require("tf2onnx")
    names = [s.name for s in signature.inputs]
    specs = [
        tf.TensorSpec([d if isinstance(d, int) else None for d in s.shape], s.dtype, name=f"mlb_{i}")
        for i, s in enumerate(signature.inputs)
    ]
    outputs = [s.name for s in signature.outputs]

    def call(*tensors: Any) -> list:
        answer = _call(model, dict(zip(names, tensors)))
        return [answer[n] for n in outputs]

    function = tf.function(call, autograph=False)
    proto, _ = tf2onnx.convert.from_function(function, input_signature=specs, opset=_OPSET, custom_op_handlers={"Erfc": (_erfc, [])})
    _bind_constants(proto, function.get_concrete_function(*specs))
    order = {f"mlb_{i}": i for i in range(len(specs))}
    inputs = sorted(proto.graph.input, key=lambda v: order.get(v.name.split(":")[0], len(order)))
    kept = [type(v).FromString(v.SerializeToString()) for v in inputs]
    del proto.graph.input[:]
    proto.graph.input.extend(kept)
    return proto


def _bind_constants(proto: Any, function: Any) -> None:
    """Give the graph the constants that layers hold outside their weights (Normalization); tf2onnx makes them inputs."""
    from onnx import numpy_helper

    held = {inner.name: outer for outer, inner in function.graph.captures}
    for value in [v for v in proto.graph.input if v.name in held]:
        proto.graph.initializer.append(numpy_helper.from_array(np.asarray(held[value.name]), value.name))
        proto.graph.input.remove(value)


def _erfc(context: Any, node: Any, name: str, args: Any) -> None:
    """Write Erfc, which GELU uses and tf2onnx lacks, as 1 - Erf."""
    shapes, dtypes = node.output_shapes, node.output_dtypes
    one = context.make_const(f"{name}_one", np.ones((), np.float32 if dtypes[0] == 1 else np.float64)).output[0]
    context.remove_node(node.name)
    erf = context.make_node("Erf", [node.input[0]], dtypes=dtypes, shapes=shapes)
    context.make_node("Sub", [one, erf.output[0]], name=name, outputs=node.output, dtypes=dtypes, shapes=shapes)


def _by_keras(model: Any, signature: Signature) -> Any:
    import onnx

    with tempfile.TemporaryDirectory(prefix="mlbridge-") as folder:
        path = Path(folder) / "model.onnx"
        model.export(str(path), format="onnx", verbose=False)
        return onnx.load(str(path))


def _disagreement(model: Any, path: Path, signature: Signature) -> str | None:
    """Compare on a few random rows; None where they agree. The full verification comes afterwards."""
    rng = np.random.default_rng(0)
    feeds = {}
    for s in signature.inputs:
        blank = _blank(s, _QUICK_ROWS)
        feeds[s.name] = rng.standard_normal(blank.shape).astype(s.dtype) if blank.dtype.kind == "f" else np.zeros_like(blank)
    try:
        session = runtime("onnx").load(open_artifact(path), signature=signature)
    except MlbridgeError as exc:
        return exc.message
    try:
        bad = [o.name for o in compare(session.run(feeds), _run(model, feeds), signature, tolerance=1e-4) if not o.ok]
    except MlbridgeError as exc:
        return exc.message
    finally:
        session.close()
    return f"outputs differ: {', '.join(bad)}" if bad else None
