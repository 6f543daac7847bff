"""What a live PySpark model reads and answers, asked of Spark itself: also for stages that have no ONNX form.

`frameworks/spark` knows more about the stages it converts; this is for the others, and for the columns of answers.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from ...errors import InputError, SignatureError
from ...signature import ROWS, Column, Field, Signature, TensorSpec, blocks, classifier_outputs, prediction_spec

__all__ = ["answer_columns", "check_fitted", "flat_stages", "infer_signature", "vector_column", "without_labels"]

_READS = ("inputCol", "inputCols", "featuresCol")
_MAKES = (
    "outputCol", "outputCols", "predictionCol", "probabilityCol", "rawPredictionCol", "leafCol", "quantilesCol", "topicDistributionCol",
)  # fmt: skip
_ASKED = {
    "label": "predictionCol",
    "prediction": "predictionCol",
    "cluster": "predictionCol",
    "probabilities": "probabilityCol",
    "decision": "rawPredictionCol",
}
_OPAQUE = ("SQLTransformer", "RFormulaModel")  # the columns they make are not their parameters
_NUMBERS = ("tinyint", "smallint", "int", "bigint", "float", "double", "decimal", "boolean")


def flat_stages(model: Any) -> list[Any]:
    """Return the stages of nested pipelines in order; a tuned model is its best one."""
    if hasattr(model, "bestModel"):
        return flat_stages(model.bestModel)
    if hasattr(model, "stages") and type(model).__name__ == "PipelineModel":
        return [s for stage in model.stages for s in flat_stages(stage)]
    return [model]


def without_labels(model: Any, columns: Sequence[str]) -> Any:
    """Return the model without the StringIndexers whose columns are absent: labels.

    Spark passes over them itself, except with handleInvalid="skip": there it demands the label of rows to predict.
    """
    stages, there, kept = flat_stages(model), set(columns), []
    for stage in stages:
        reads = _reads(stage)
        if type(stage).__name__ == "StringIndexerModel" and reads and not there.intersection(reads):
            continue
        kept.append(stage)
        there.update(_makes(stage))
    if len(kept) == len(stages) or any(type(s).__name__ in _OPAQUE for s in stages):
        return model
    from pyspark.ml import PipelineModel

    return PipelineModel(stages=kept)


def _columns(stage: Any, param: str) -> list[str]:
    if not stage.hasParam(param) or not stage.isDefined(param):
        return []
    value = stage.getOrDefault(param)
    if isinstance(value, str):
        several = stage.hasParam("inputCols") and stage.isSet("inputCols") and stage.hasParam("outputCols")
        return [value] if value and not (param == "outputCol" and several) else []
    return list(value) if stage.isSet(param) else []


def _reads(stage: Any) -> list[str]:
    return [c for p in _READS for c in _columns(stage, p)]


def _makes(stage: Any) -> list[str]:
    return [c for p in _MAKES for c in _columns(stage, p)]


def _predictor(stages: Sequence[Any]) -> Any | None:
    return next((s for s in reversed(stages) if s.hasParam("predictionCol") and not type(s).__name__.startswith("RFormula")), None)


def answer_columns(stages: Sequence[Any], spec: TensorSpec) -> list[str]:
    """Return the Spark columns that an output is made of.

    Raises
    ------
    SignatureError
        If no stage makes one.
    """
    last = _predictor(stages)
    if last is None:
        return _makes(stages[-1]) if spec.name == "transformed" else [spec.name]
    if spec.name not in _ASKED:
        return [spec.name]
    found = _columns(last, _ASKED[spec.name])
    if not found:
        raise SignatureError(f"the last predictor makes no column for {spec.name!r}")
    return found


def vector_column(signature: Signature, spec: TensorSpec) -> str:
    """Return the raw column of a vector input: its name, or that without the suffix `_vector` where it clashed."""
    bare = spec.name.removesuffix("_vector")
    taken = {s.name for s in signature.inputs} | {c.name for s in signature.inputs for c in s.columns}
    return bare if bare != spec.name and bare in taken else spec.name


def check_fitted(model: object) -> None:
    """Raise SignatureError for an estimator of Spark: only what its fit returns can answer."""
    if not hasattr(type(model), "transform"):
        raise SignatureError(f"{type(model).__name__} is not fitted", hint="pass what its fit(dataframe) returns", runtime="jvm")


def infer_signature(model: Any, sample: Any) -> Signature:
    """Find the signature of a live model from the schema of a sample DataFrame.

    Parameters
    ----------
    model : pyspark.ml model
        Fitted.
    sample : pyspark DataFrame
        A few real rows of the raw columns.

    Raises
    ------
    InputError
        If there is no sample to take the input types from.
    SignatureError
        If the model is not fitted, or an answer's width or a raw column cannot be found out.
    """
    check_fitted(model)
    if sample is None or not type(sample).__module__.startswith("pyspark."):
        raise InputError("a Spark model holds no input types", hint="pass sample=a Spark DataFrame of the raw columns", runtime="jvm")
    stages = flat_stages(model)
    predictor = _predictor(stages)
    wanted = set(_makes(predictor if predictor is not None else stages[-1]))
    labels: dict[str, list[str]] = {}
    for stage in reversed(stages):
        if wanted.intersection(_makes(stage)):
            wanted -= set(_makes(stage))
            wanted |= set(_reads(stage))
            if type(stage).__name__ == "StringIndexerModel":
                labels |= dict(zip(_reads(stage), [list(v) for v in stage.labelsArray]))
    kinds = dict(sample.dtypes)
    statements = [s.getStatement() for s in stages if type(s).__name__ == "SQLTransformer"]
    if statements:  # it may make any column; it reads those of the sample that it names
        named = set(re.findall(r"\w+", " ".join(statements).lower()))
        wanted = {c for c in sample.columns if c in wanted or c.lower() in named}
    absent = sorted(wanted - kinds.keys())
    if absent:
        raise SignatureError(
            f"the sample lacks the columns {', '.join(map(repr, absent))}", hint="pass rows as they come before the pipeline"
        )
    raw = [c for c in sample.columns if c in wanted]
    first = sample.select(*[f"`{c}`" for c in raw]).first()
    inputs = _inputs(raw, kinds, labels, first)
    made = without_labels(model, sample.columns).transform(sample.limit(1))
    return Signature(inputs, _outputs(stages, predictor, made))


def _inputs(raw: Sequence[str], kinds: dict[str, str], labels: dict[str, list[str]], first: Any) -> tuple[TensorSpec, ...]:
    fields, vectors, problems = [], [], []
    for name in raw:
        kind = kinds[name].split("(")[0]
        if kind == "vector":
            vectors.append(TensorSpec(name, "float64", (ROWS, len(first[name])), missing="allow"))
        elif name in labels and kind == "string":
            fields.append(Field(Column(name, categories=tuple(labels[name]), unknown="keep"), "int32", "allow"))
        elif name in labels and kind in ("tinyint", "smallint", "int", "bigint"):
            fields.append(Field(Column(name, categories=tuple(map(int, labels[name])), unknown="keep"), "int32", "allow"))
        elif kind == "string":
            fields.append(Field(Column(name), "string", "allow"))
        elif kind in _NUMBERS:
            fields.append(Field(Column(name), "float64", "allow"))
        elif kind in ("date", "timestamp"):
            fields.append(Field(Column(name, unit=kind), "float64", "allow"))
        else:
            problems.append(f"column {name!r} is of Spark's type {kinds[name]}, which has no form here")
    if problems:
        raise SignatureError("; ".join(problems), problems=problems)
    return (*vectors, *blocks(fields))


def _outputs(stages: Sequence[Any], predictor: Any | None, made: Any) -> tuple[TensorSpec, ...]:
    row = made.first()
    kinds = dict(made.dtypes)
    if predictor is None:
        columns = _makes(stages[-1])
        width = sum(len(row[c]) if kinds[c] == "vector" else 1 for c in columns)
        flat = len(columns) == 1 and kinds[columns[0]] != "vector"
        if flat and kinds[columns[0]] == "string":
            return (TensorSpec("transformed", "string", (ROWS,), missing="allow"),)
        return (prediction_spec(None if flat else width, name="transformed", missing="allow"),)
    module = type(predictor).__module__
    if module.endswith(".clustering"):
        return (TensorSpec("cluster", "int64", (ROWS,)),)
    if module.endswith(".classification"):
        classes = _classes(stages, predictor, row)
        scores = "probabilities" if _columns(predictor, "probabilityCol") else "decision"
        return classifier_outputs(classes, scores=scores, missing="allow")
    return (prediction_spec(missing="allow"),)


def _classes(stages: Sequence[Any], predictor: Any, row: Any) -> list[Any]:
    prediction = _columns(predictor, "predictionCol")
    for stage in stages:
        if type(stage).__name__ == "IndexToString" and _columns(stage, "inputCol") == prediction and stage.getLabels():
            return list(stage.getLabels())
    raw = _columns(predictor, "rawPredictionCol")
    count = getattr(predictor, "numClasses", None) or (len(row[raw[0]]) if raw else 0)
    if not count:
        raise SignatureError(f"{type(predictor).__name__} does not say how many classes it has", hint="pass signature=…")
    return list(range(int(count)))
