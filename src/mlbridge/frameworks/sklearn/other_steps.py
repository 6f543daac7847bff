"""Steps of other libraries inside scikit-learn's estimators: boosters in pipelines, votes, calibrations, searches.

Whichever framework recognises such a step converts it by its own seam to a graph of its own, which is laid into ours.
Nothing here knows a library, and no framework is imported: they are found through `plugins`.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ... import plugins
from ...conversion.inlining import inline
from ...errors import ConversionError, MlbridgeError
from ...interfaces import Framework
from ...signature import ROWS, Signature, TensorSpec
from .emitter import Col, Emitter, Frame

__all__ = ["OtherStep", "emit_step", "other_step", "other_steps", "within"]

_OUTPUTS = {"predict": ("label", "prediction", "score", "cluster"), "predict_proba": ("probabilities",), "decision_function": ("decision",)}
_MAX_DEPTH = 12  # of estimators within estimators


class OtherStep(NamedTuple):
    """A step of another library: who knows it, what it takes, and its trained columns in order (none on a bare array)."""

    framework: Framework
    model: Any
    signature: Signature
    names: tuple[str, ...]

    def position(self, column: str) -> int:
        """Return where a column of the step's signature stands among the columns it was trained on."""
        return self.names.index(column)


def other_step(est: Any) -> OtherStep | None:
    """Return what another framework says of an estimator; None for scikit-learn's own, its subclasses, and strangers.

    Raises
    ------
    ConversionError
        If the framework cannot tell its signature without a sample.
    """
    framework = _framework_of(est)
    if framework is None:
        return None
    try:
        signature = framework.infer(est, None)
    except MlbridgeError as exc:
        raise ConversionError(f"{framework.name} does not tell the inputs of its {type(est).__name__}: {exc.message}") from exc
    trained = [str(n) for n in getattr(est, "feature_names_in_", ())]
    columns = {c.name for c in signature.columns}
    if columns - set(trained):  # LightGBM writes underscores for spaces
        trained = [re.sub(r"\s", "_", n) for n in trained]
    if columns - set(trained):
        raise ConversionError(f"{framework.name}: the columns of its {type(est).__name__} have no order here")
    return OtherStep(framework, est, signature, tuple(trained) if columns else ())


def _framework_of(est: Any) -> Framework | None:
    if est is None or isinstance(est, str | type) or type(est).__module__.split(".")[0] in ("sklearn", "numpy", "builtins", "pandas"):
        return None
    framework = plugins.framework_for(est)
    return None if framework is None or framework.name == "sklearn" else framework


def other_steps(model: Any) -> list[OtherStep]:
    """Return every step of another library within a model, fitted."""
    found: list[OtherStep] = []
    for est in within(model):
        if _framework_of(est) is None or not hasattr(est, "n_features_in_"):  # the unfitted template beside its fitted copies
            continue
        try:
            step = other_step(est)
        except ConversionError:  # converting the model will say so
            continue
        if step is not None:
            found.append(step)
    return found


def within(value: Any, depth: int = _MAX_DEPTH, seen: set[int] | None = None) -> Iterator[Any]:
    """Yield a model and every estimator in it, scikit-learn's and others', unfitted templates included."""
    seen = set() if seen is None else seen
    if not depth or id(value) in seen or isinstance(value, str | np.ndarray | int | float):
        return
    seen.add(id(value))
    if isinstance(value, dict | list | tuple):
        inner: Any = value.values() if isinstance(value, dict) else value
    else:
        yield value
        inner = getattr(value, "__dict__", {}).values() if type(value).__module__.split(".")[0] == "sklearn" else ()
    for one in inner:
        yield from within(one, depth - 1, seen)


# ---------------------------------------------------------------- into the graph


def emit_step(e: Emitter, step: OtherStep, method: str, frame: Frame) -> Any:
    """Emit one method of a step: codes into `classes_`, float64 numbers, or a list of them for several targets."""
    if method == "decision_function" and not any(s.name.startswith("decision") for s in step.signature.outputs):
        step = _asked_for_decisions(step)
    outputs = tuple(s.name for s in step.signature.outputs)
    values = e.once((id(step.model), outputs, frame.cols, frame.sparse), (step.model, frame), lambda: _lay_in(e, step, frame))
    specs = {s.name: s for s in step.signature.outputs}
    for stem in _OUTPUTS.get(method, ()):
        if stem in specs:
            return _answer(e, step, specs[stem], values[stem])
        several = [n for n in specs if re.fullmatch(rf"{stem}_\d+", n)]
        if several:
            return [_answer(e, step, specs[n], values[n]) for n in several]
    raise ConversionError(f"{type(step.model).__name__}.{method} is not among what {step.framework.name} answers: {', '.join(specs)}")


def _asked_for_decisions(step: OtherStep) -> OtherStep:
    """Return the step with the output `decision` alone: frameworks prefer probabilities, calibration prefers decisions."""
    classes = len(step.model.classes_)
    spec = TensorSpec("decision", "float64", (ROWS,) if classes == 2 else (ROWS, classes))
    return step._replace(signature=Signature(step.signature.inputs, (spec,)))


def _answer(e: Emitter, step: OtherStep, spec: TensorSpec, value: str) -> str:
    if not spec.name.startswith("label"):
        return e.graph.cast(value, "float64")
    classes = np.asarray(getattr(step.model, "classes_", ()))
    if not spec.categorical:  # classes that are fractions: the label itself
        hits = e.op("Equal", e.tall(value), classes.astype(np.float64)[None])
        return e.argmax(e.graph.cast(hits, "int64"))
    levels = spec.columns[0].categories or ()
    if spec.name == "label" and list(levels) != classes.tolist():
        raise ConversionError(f"{type(step.model).__name__} and {step.framework.name} disagree about its classes")
    return e.graph.cast(value, "int64")


def _lay_in(e: Emitter, step: OtherStep, frame: Frame) -> dict[str, str]:
    import onnx

    given = {spec.name: _block(e, step, spec, frame) for spec in step.signature.inputs}
    with tempfile.TemporaryDirectory(prefix="mlbridge-") as folder:
        try:
            proto = onnx.load(step.framework.convert(step.model, Path(folder), signature=step.signature))
        except ConversionError:
            raise
        except MlbridgeError as exc:
            raise ConversionError(f"{step.framework.name}: {exc.message}") from exc
    return inline(e.graph, proto, e.graph.name(step.framework.name) + "/", given)


def _block(e: Emitter, step: OtherStep, spec: TensorSpec, frame: Frame) -> str:
    """Return one input of the step, in its dtype, from the columns that reach it."""
    if not spec.columns:
        width = spec.shape[1] if len(spec.shape) == 2 else None
        if width != frame.width:
            raise ConversionError(f"{type(step.model).__name__} takes {width} features and gets {frame.width}")
        part = frame
    else:
        if len(step.names) != frame.width:
            raise ConversionError(f"{type(step.model).__name__} takes {len(step.names)} features and gets {frame.width}")
        part = frame.select([step.position(c.name) for c in spec.columns])
    if spec.categorical:
        return e.graph.cast(e.graph.concat([_recoded(e, col, c.categories or ()) for col, c in zip(part.cols, spec.columns)]), spec.dtype)
    if frame.sparse and np.isnan(getattr(step.framework, "absent", 0.0)):
        x = e.matrix(part)
        return e.graph.cast(e.op("Where", e.op("Equal", x, 0.0), np.nan, x), spec.dtype)
    return e.matrix(part, spec.dtype)


def _recoded(e: Emitter, col: Col, levels: tuple) -> str:
    """Return a category column in the step's codes, ("rows", 1)."""
    if col.levels is None:
        raise ConversionError(
            f"column {col.name!r} is a category to a step and a number to the graph", hint="wrap with a sample that has its dtype"
        )
    known = {v: i for i, v in enumerate(levels)}
    return e.lookup(col, np.array([[-1], *([known.get(v, len(levels))] for v in col.levels), [len(levels)]]))
