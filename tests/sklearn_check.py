"""What the scikit-learn tests share: convert, run both sides on probe rows, and report."""

from __future__ import annotations

import tempfile
from pathlib import Path

import onnxruntime

from mlbridge.conversion.verification import Report, verify
from mlbridge.frameworks.sklearn import SklearnFramework

FRAMEWORK = SklearnFramework()


def session(path):
    """Return a function from feeds to outputs that runs an ONNX file on one thread."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    run = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    names = [o.name for o in run.get_outputs()]
    return lambda feeds: dict(zip(names, run.run(None, dict(feeds)), strict=True))


def parity(model, sample=None, *, tolerance=None, seed=0) -> Report:
    """Convert a fitted model and compare it with itself on probe rows, within its own tolerance."""
    signature = FRAMEWORK.infer(model, sample)
    feeds = FRAMEWORK.probe(model, signature=signature, seed=seed)
    limit = FRAMEWORK.tolerance(model, signature=signature) if tolerance is None else tolerance
    nodes = FRAMEWORK.coverage(model, feeds, signature=signature)
    with tempfile.TemporaryDirectory() as folder:
        converted = session(FRAMEWORK.convert(model, Path(folder), signature=signature))
        native = FRAMEWORK.native(model, signature=signature)
        return verify(native, converted, signature, feeds, tolerance=limit, nodes_tested=nodes)
