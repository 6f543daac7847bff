"""Clusterers that label new rows by the nearest centre, and mixtures of Gaussians."""

from __future__ import annotations

from typing import Any

import numpy as np

from ...errors import ConversionError
from .emitter import Emitter, Frame, class_name, emits

_CENTRES = ("KMeans", "MiniBatchKMeans", "BisectingKMeans")


@emits("predict", "KMeans", "MiniBatchKMeans", "MeanShift", "AffinityPropagation")
def nearest_centre(e: Emitter, est: Any, frame: Frame) -> str:
    """Emit the nearest centre's number."""
    centres = getattr(est, "cluster_centers_", None)
    if centres is None or not len(centres):
        raise ConversionError(f"{type(est).__name__} has no centres")
    return e.argmax(e.distances(e.matrix(frame), centres, "sqeuclidean"), least=True)


@emits("transform", *_CENTRES)
def centre_distances(e: Emitter, est: Any, frame: Frame) -> tuple[str, int]:
    """Emit distances to the centres."""
    return e.distances(e.matrix(frame), est.cluster_centers_, "euclidean"), len(est.cluster_centers_)


@emits("predict", "Birch")
def birch(e: Emitter, est: Any, frame: Frame) -> str:
    """Emit the label of the nearest subcluster."""
    at = e.argmax(e.distances(e.matrix(frame), est.subcluster_centers_, "sqeuclidean"), least=True)
    return e.op("Gather", np.asarray(est.subcluster_labels_, dtype=np.int64), at)


@emits("transform", "Birch")
def birch_distances(e: Emitter, est: Any, frame: Frame) -> tuple[str, int]:
    """Emit distances to the subclusters."""
    return e.distances(e.matrix(frame), est.subcluster_centers_, "euclidean"), len(est.subcluster_centers_)


@emits("predict", "BisectingKMeans")
def bisecting(e: Emitter, est: Any, frame: Frame) -> str:
    """Emit the leaf reached by descending the tree of halves."""
    return _descend(e, e.matrix(frame), est._bisecting_tree, getattr(est, "_X_mean", 0.0))


def _descend(e: Emitter, x: str, node: Any, shift: Any) -> str:
    if node.left is None:
        return e.graph.const(np.int64(node.label).reshape(1))
    centres = np.vstack([node.left.center, node.right.center]) + shift
    side = e.argmax(e.distances(x, centres, "sqeuclidean"), least=True)
    return e.op("Where", e.op("Equal", side, np.int64(0)), _descend(e, x, node.left, shift), _descend(e, x, node.right, shift))


_MIXTURES = ("GaussianMixture", "BayesianGaussianMixture")


def _weighted_log(e: Emitter, est: Any, frame: Frame) -> str:
    """Emit each component's weighted log density; constants are asked of the library at the means."""
    x = e.matrix(frame)
    constants = np.diag(est._estimate_weighted_log_prob(np.asarray(est.means_, dtype=np.float64)))
    chol, kind = est.precisions_cholesky_, est.covariance_type
    squares = []
    for k, mean in enumerate(est.means_):
        diff = e.op("Sub", x, mean)
        if kind in ("full", "tied"):
            y = e.op("MatMul", diff, chol[k] if kind == "full" else chol)
        else:
            y = e.op("Mul", diff, chol[k])
        squares.append(e.reduce("SumSquare", y))
    return e.op("Add", e.op("Mul", -0.5, e.graph.concat(squares)), constants)


@emits("predict", *_MIXTURES)
def mixture(e: Emitter, est: Any, frame: Frame) -> str:
    """Emit the likeliest component."""
    return e.argmax(_weighted_log(e, est, frame))


@emits("predict_proba", *_MIXTURES)
def mixture_proba(e: Emitter, est: Any, frame: Frame) -> str:
    """Emit responsibilities."""
    return e.softmax(_weighted_log(e, est, frame))


def is_mixture(est: Any) -> bool:
    """Whether the estimator is a mixture."""
    return class_name(est) in _MIXTURES
