"""Manifold learning with an out-of-sample formula: Isomap."""

from __future__ import annotations

from typing import Any

import numpy as np

from ...errors import ConversionError
from .emitter import Emitter, Frame, emits
from .kernels import kernel_pca
from .neighbors import nearest


@emits("transform", "Isomap")
def isomap(e: Emitter, est: Any, frame: Frame) -> tuple[str, int]:
    """Emit the shortest way through a neighbour to every training row, then the kernel PCA."""
    if est.n_neighbors is None:
        raise ConversionError("Isomap(radius=...) has no ONNX form here", hint="use n_neighbors")
    d, index = nearest(e, est.nbrs_, frame, est.n_neighbors)
    ways = e.op("Add", e.op("Gather", np.asarray(est.dist_matrix_, dtype=np.float64), index, axis=0), e.op("Unsqueeze", d, np.array([2])))
    shortest = e.reduce("Min", ways, keep=False)
    kernel = e.op("Mul", e.op("Mul", shortest, shortest), -0.5)
    return kernel_pca(e, est.kernel_pca_, Frame.of(kernel, len(est.dist_matrix_)))
