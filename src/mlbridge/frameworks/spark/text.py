"""Text stages: known, so that a native route has its inputs, and refused by name for ONNX.

ONNX has no murmur3, no regular-expression split with Java's rules, no list of words a row, and no SQL.
"""

from __future__ import annotations

from collections.abc import Mapping

from ...errors import ConversionError
from .flow import Attr, Col, Flow
from .registry import Need, stage
from .stage import Stage


def _text_in(stage: Stage, widths: Mapping[str, int]) -> list[Need]:
    return [Need(c, "text") for c in stage.sources]


@stage("Tokenizer", "RegexTokenizer", reads=_text_in, note="ONNX cannot split as Java does", converts=False)
@stage("StopWordsRemover", "NGram", reads=_text_in, note="no lists of words in ONNX", converts=False)
def words(flow: Flow, stage: Stage) -> None:
    _refuse(flow, stage)
    for target in stage.targets:
        flow.put(target, Col("", plain=False))


@stage("CountVectorizerModel", "HashingTF", "Word2VecModel", reads=_text_in, note="no lists of words in ONNX; murmur3", converts=False)
def counts(flow: Flow, stage: Stage) -> None:
    _refuse(flow, stage)
    if stage.name == "HashingTF":
        width = stage.integer("numFeatures")
    elif stage.name == "Word2VecModel":
        width = stage.integer("vectorSize")
    else:
        width = len(stage.row()["vocabulary"])
    value = flow.graph.add("Expand", flow.real([[0.0]]), flow.ints([1, 1]))  # never saved: a dry run only needs a name
    flow.put_vector(stage.text("outputCol"), value, width, [Attr()] if width == 1 else None)


def _sql_reads(stage: Stage, widths: Mapping[str, int]) -> list[Need]:
    raise ConversionError(
        f"{stage.where}: SQLTransformer is refused: its columns are only known to Spark's SQL parser",
        hint="give signature= and load with via='native'",
    )


@stage("SQLTransformer", reads=_sql_reads, makes=lambda stage: [], note="SQL needs Spark", converts=False)
def sql(flow: Flow, stage: Stage) -> None:
    _refuse(flow, stage)


def _refuse(flow: Flow, stage: Stage) -> None:
    flow.refuse(f"{stage.where}: {stage.name} has no exact ONNX form")
