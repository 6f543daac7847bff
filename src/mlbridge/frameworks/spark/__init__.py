"""Spark ML pipelines: read from the saved folder and converted to ONNX, without Spark and without a JVM.

Rooms: `folder` (the saved folder -> `SparkModel`), `stage` (one stage and its typed parameters), `schema` (raw columns,
what each stage reads), `flow` (the graph under construction and its columns), `registry` (class name -> stage family);
`encoders`, `numeric`, `expansions`, `text`, `linear`, `bayes`, `networks`, `forests`, `clustering` (the stages);
`answers` (outputs), `probes` (rows that show a wrong conversion), `sample`, `live`, and `framework`, which ties them together.
"""

from __future__ import annotations

from .framework import SparkFramework

__all__ = ["SparkFramework"]
