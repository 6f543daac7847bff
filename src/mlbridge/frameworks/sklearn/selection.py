"""Estimators that keep some columns: univariate selection, variance, selection from a model, recursive elimination."""

from __future__ import annotations

from typing import Any

import numpy as np

from .emitter import Emitter, Frame, emits


@emits(
    "transform",
    "GenericUnivariateSelect",
    "RFE",
    "RFECV",
    "SelectFdr",
    "SelectFpr",
    "SelectFromModel",
    "SelectFwe",
    "SelectKBest",
    "SelectPercentile",
    "SequentialFeatureSelector",
    "VarianceThreshold",
)
def keep(e: Emitter, est: Any, frame: Frame) -> Frame:
    """Keep the supported columns, whatever they hold."""
    return frame.select(np.flatnonzero(est.get_support()).tolist())


def _after(method: str) -> Any:
    def emit(e: Emitter, est: Any, frame: Frame) -> Any:
        return e.call(est.estimator_, method, keep(e, est, frame))

    return emit


for _method in ("predict", "predict_proba", "decision_function"):
    emits(_method, "RFE", "RFECV")(_after(_method))
