"""The pipeline composer: a typed graph of models, checked when built, fused where it can be.

Rooms: `graph` (stages, endpoints, wiring), `typing` (does each edge fit, and what is inserted), `steps` (the inserted
conversions), `session` (running), `fusing` (one ONNX graph of several stages), `ready` (cast, select, ensembles),
`sources` (stages from paths and URIs), `declared` (pipeline.toml), `saved` (packages of pipelines, the runtime),
`checking` (a team's new version), `drawing` (SVG), `composed` (Pipeline, the Model).
"""

from ..model import Model
from .composed import Pipeline, PipelineRuntime, chain
from .ready import cast, mean, select, vote, weighted

__all__ = ["Pipeline", "PipelineRuntime", "cast", "mean", "select", "vote", "weighted"]

Model.__rshift__ = chain  # type: ignore[attr-defined,operator]  # a Model knows no pipelines; composing hands itself over
