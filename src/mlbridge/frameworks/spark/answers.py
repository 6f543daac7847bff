"""Which outputs a model has, and which value of the graph each of them is.

A classifier answers `label` and `probabilities` or `decision`, a regressor `prediction`, a clusterer `cluster`, a pipeline
without predictor `transformed`. Any other column is answered under Spark's name, when asked for.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

from ...errors import ConversionError, SignatureError
from ...signature import ROWS, Column, Signature, TensorSpec, label_spec, prediction_spec
from .encoders import restored_labels
from .flow import Answer, Col, Flow
from .registry import family
from .schema import Path
from .stage import Stage

Missing = Literal["refuse", "allow"]

__all__ = ["DEFAULT_NAMES", "output_specs", "run", "write_outputs"]

DEFAULT_NAMES = ("label", "probabilities", "decision", "prediction", "cluster", "transformed")


def run(flow: Flow, path: Path) -> Answer | None:
    """Run every stage of the path; return what the last predictor answers.

    What a malformed folder makes a stage trip over is an ArtifactError that names the stage.
    """
    answer = None
    for stage in path.stages:
        _emit(flow, stage)
        if stage is path.predictor:
            answer = flow.answer
        elif answer is not None and stage.name == "IndexToString" and stage.sources[0] == answer.column:
            answer = replace(answer, labels=restored_labels(flow, stage))
    return answer


def _emit(flow: Flow, stage: Stage) -> None:
    try:
        family(stage).emit(flow, stage)
    except (ConversionError, SignatureError):
        raise
    except (KeyError, IndexError, TypeError, AttributeError, OverflowError) as exc:
        raise stage.wrong(f"{type(exc).__name__}: {exc}") from exc
    except ValueError as exc:  # numpy's; our own errors that are ValueErrors pass
        if type(exc).__module__.startswith("mlbridge"):
            raise
        raise stage.wrong(str(exc)) from exc


def _classes(answer: Answer) -> tuple[list, list[str]]:
    """Return the label's levels, and a name for every score."""
    labels = list(answer.labels or ())
    if not labels or len(set(labels)) != len(labels):
        return list(range(answer.classes)), [str(i) for i in range(answer.classes)]
    names = [labels[i] if i < len(labels) else str(i) for i in range(answer.classes)]
    return labels[: answer.classes], names


def output_specs(flow: Flow, path: Path, answer: Answer | None, asked: Sequence[str]) -> tuple[TensorSpec, ...]:
    """Describe the outputs of a model that was run dry."""
    drops: Missing = "allow" if flow.drops else "refuse"
    unsure: Missing = (
        "allow" if flow.drops or any(s.missing == "allow" and not s.categorical for s in flow.graph.signature.inputs) else "refuse"
    )
    if answer is None:
        specs = [_transformed(flow, path, unsure)]
    elif answer.task == "classifier":
        levels, names = _classes(answer)
        specs = [label_spec(levels, missing=unsure if answer.unsure else drops)]
        if answer.scores == "decision" and answer.classes <= 2:
            specs.append(prediction_spec(name="decision", missing=unsure))
        elif len(set(names)) == len(names):
            specs.append(prediction_spec(answer.classes, name=str(answer.scores), columns=names, missing=unsure))
        else:
            specs.append(prediction_spec(answer.classes, name=str(answer.scores), missing=unsure))
    elif answer.task == "clusterer":
        if flow.drops:
            flow.refuse("a clusterer whose pipeline leaves rows out: a cluster is an integer and cannot be missing")
        specs = [TensorSpec("cluster", "int64", (ROWS,))]
    else:
        specs = [prediction_spec(missing=unsure)]
    have = {s.name for s in specs}
    for column in asked:
        if column not in have:
            specs.append(_column_spec(flow.get(column), column, unsure))
    return tuple(specs)


def _column_spec(col: Col, name: str, missing: Missing) -> TensorSpec:
    if col.levels is not None:
        return TensorSpec(name, "int32", (ROWS,), (Column(name, categories=col.levels),), missing=missing)
    if not col.plain:
        return TensorSpec(name, "string", (ROWS,))
    return prediction_spec(col.width if col.vector else None, name=name, missing=missing)


def _transformed(flow: Flow, path: Path, missing: Missing) -> TensorSpec:
    columns = [(t, flow.get(t)) for t in path.targets if flow.has(t)]
    if len(columns) == 1:
        name, col = columns[0]
        if col.levels is not None:
            return TensorSpec("transformed", "int32", (ROWS,), (Column(name, categories=col.levels),), missing=missing)
        return _column_spec(col, "transformed", missing)
    if not columns or any(c.levels is not None or not c.plain for _, c in columns):
        raise SignatureError(
            f"the last stage makes {', '.join(path.targets)}: no single answer", hint="end the pipeline in a VectorAssembler"
        )
    names = [n for n, c in columns] if all(not c.vector for _, c in columns) else []
    return prediction_spec(sum(c.width for _, c in columns), name="transformed", columns=names, missing=missing)


def write_outputs(flow: Flow, path: Path, answer: Answer | None, signature: Signature) -> None:
    """Give every output of the signature its value."""
    for spec in signature.outputs:
        value, missing = _value(flow, path, answer, spec)
        flow.graph.output(spec.name, flow.finish(value, missing=missing, dtype=spec.dtype, flat=len(spec.shape) == 1))


def _value(flow: Flow, path: Path, answer: Answer | None, spec: TensorSpec) -> tuple[str, float | int]:
    g, name, nan = flow.graph, spec.name, float("nan")
    if answer is not None and answer.task == "classifier" and name == "label":
        return g.cast(answer.index, spec.dtype), -1
    if answer is not None and answer.task == "classifier" and name == answer.scores:
        return answer.score_value, nan
    if answer is not None and answer.task == "clusterer" and name == "cluster":
        if flow.drops:
            flow.refuse("a clusterer whose pipeline leaves rows out: a cluster is an integer and cannot be missing")
        return answer.index, 0
    if answer is not None and answer.task == "regressor" and name == "prediction":
        return answer.score_value, nan
    if answer is None and name == "transformed":
        values = [flow.made(t) for t in path.targets if flow.has(t)]
        _readable(flow, path.stages[-1].name, values)
        return g.concat([c.value for c in values]), -1 if values[0].levels is not None else nan
    if not flow.has(name):
        raise ConversionError(
            f"the pipeline has no answer {name!r}", hint=f"it makes {', '.join(n for n in flow.columns if n[:1] != chr(0))}"
        )
    col = flow.made(name)
    _readable(flow, name, [col])
    return col.value, -1 if col.levels is not None else nan


def _readable(flow: Flow, what: str, columns: Sequence[Col]) -> None:
    """Refuse to answer lists of words."""
    if any(not c.plain for c in columns):
        flow.refuse(f"{what} answers lists of words, which have no ONNX form", hint="end the pipeline in a CountVectorizer")
