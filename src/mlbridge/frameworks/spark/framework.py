"""SparkFramework: read, infer, probe and convert Spark ML models. Native runs are the `jvm` runtime's."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from ...artifact import Artifact
from ...conversion.graph import Graph
from ...errors import InputError, SignatureError, UnsupportedError
from ...interfaces import Array
from ...signature import Signature, prediction_spec
from .answers import DEFAULT_NAMES, output_specs, run, write_outputs
from .flow import Flow
from .folder import read_folder
from .live import is_live, read_live
from .probes import probe_rows
from .sample import column_kinds
from .schema import find_path, input_specs
from .stage import SparkModel

__all__ = ["SparkFramework"]


class SparkFramework:
    """Spark ML: saved folders, and live pyspark.ml models through the folder they save.

    The option `outputs` names further columns to answer, as Spark calls them: `rawPrediction`, a leaf column, ….
    """

    name: ClassVar[str] = "spark"
    formats: ClassVar[frozenset[str]] = frozenset({"spark"})
    options: ClassVar[frozenset[str]] = frozenset({"outputs"})

    def accepts(self, model: object, /) -> bool:
        """Whether this is a SparkModel or a live pyspark.ml model."""
        return isinstance(model, SparkModel) or is_live(model)

    def read(self, source: Artifact, /, **options: Any) -> SparkModel:
        """Read a saved folder; ArtifactError if it is malformed."""
        return read_folder(source.path, source.label)

    def infer(self, model: object, sample: object | None, /, *, outputs: Sequence[str] | str = (), **options: Any) -> Signature:
        """Find the raw columns and the answers.

        Parameters
        ----------
        model : SparkModel or pyspark.ml model
            The model.
        sample : table, dict of arrays or Spark DataFrame, optional
            Tells numbers from text and vectors where the stages do not.
        outputs : sequence of str
            Further columns to answer, by Spark's names.

        Raises
        ------
        SignatureError
            If a raw column's kind or width cannot be found out.
        ConversionError
            If a stage is not known.
        """
        spark, asked = _model(model), _asked(outputs)
        path = find_path(spark, [a for a in asked if a not in DEFAULT_NAMES or a in _made(spark)])
        inputs = input_specs(path, column_kinds(sample))
        flow = Flow(Graph(Signature(inputs, (prediction_spec(),))), dry=True)
        answer = run(flow, path)
        return Signature(inputs, output_specs(flow, path, answer, asked))

    def native(self, model: object, /, *, signature: Signature, **options: Any) -> Callable[[Mapping[str, Array]], Mapping[str, Array]]:
        """Refuse: Spark runs in a JVM, not in this process."""
        raise UnsupportedError("Spark models run natively in the jvm runtime", hint="load the saved folder as 'jvm:path', trust='code'")

    def probe(self, model: object, /, *, signature: Signature, seed: int, **options: Any) -> dict[str, Array]:
        """Make rows that take both sides of every tree node, every category, unknown and missing values."""
        spark = _model(model)
        path = find_path(spark, _extra(spark, signature))
        flow = Flow(Graph(signature), dry=True)
        run(flow, path)
        return probe_rows(flow, signature, seed)

    def convert(self, model: object, folder: Path, /, *, signature: Signature, **options: Any) -> Path:
        """Write the ONNX file.

        Raises
        ------
        ConversionError
            If a stage has no exact ONNX form, by name.
        ArtifactError
            If a stage's data is malformed.
        """
        spark = _model(model)
        path = find_path(spark, _extra(spark, signature))
        flow = Flow(Graph(signature))
        answer = run(flow, path)
        write_outputs(flow, path, answer, signature)
        flow.graph.drop_dead()
        return flow.graph.save(Path(folder))


def _model(model: object) -> SparkModel:
    return model if isinstance(model, SparkModel) else read_live(model)


def _asked(outputs: Sequence[str] | str) -> list[str]:
    asked = [outputs] if isinstance(outputs, str) else list(outputs)
    if not all(isinstance(a, str) for a in asked):
        raise InputError(f"outputs is {outputs!r}, expected names of columns")
    return asked


def _made(model: SparkModel) -> set[str]:
    from .registry import family

    return {c for s in model.stages for c in family(s).makes(s)}


def _extra(model: SparkModel, signature: Signature) -> list[str]:
    made = _made(model)
    names = [s.name for s in signature.outputs]
    unknown = [n for n in names if n not in made and n not in DEFAULT_NAMES]
    if unknown:
        raise SignatureError(f"the pipeline has no answer {', '.join(map(repr, unknown))}", hint=f"it makes {', '.join(sorted(made))}")
    return [n for n in names if n in made]
