"""Large batches in bounded chunks: what lies between stages and behind a worker stays small, whatever a table holds.

Only where rows are promised independent. Called by Model for batches whose inputs hold more values than a chunk.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import numpy as np

from .interfaces import Array
from .progress import bar
from .signature import Signature
from .tensors import CHUNK_VALUES

__all__ = ["chunk_rows", "run_in_chunks"]

Run = Callable[[dict[str, Array]], dict[str, Array]]


def chunk_rows(signature: Signature) -> int:
    """Return how many rows a chunk holds: as many as make `CHUNK_VALUES` input values; 0 where batches stay whole."""
    fixed = [[d for d in s.shape[1:] if isinstance(d, int)] for s in (*signature.inputs, *signature.outputs)]
    if not signature.batched or any(len(f) < len(s.shape) - 1 for f, s in zip(fixed, (*signature.inputs, *signature.outputs))):
        return 0  # rows depend on each other, or chunks might answer in different sizes
    wide = sum(math.prod(f) for f in fixed[: len(signature.inputs)])
    return max(1, CHUNK_VALUES // max(wide, 1))


def run_in_chunks(run: Run, feeds: Mapping[str, Array], size: int, label: str) -> dict[str, Array]:
    """Run rows in chunks of `size`, in order, and join the answers; a bar shows where it takes long.

    Parameters
    ----------
    run : callable
        From feeds to answers; rows independent, as many out as in.
    feeds : dict of str to ndarray
        All rows.
    size : int
        Rows a chunk.
    label : str
        Before the progress bar.
    """
    rows = next(iter(feeds.values())).shape[0]
    out: dict[str, Array] = {}
    with bar(label, rows) as tell:
        for start in range(0, rows, size):
            part = run({name: value[start : start + size] for name, value in feeds.items()})
            for name, value in part.items():
                if name not in out:
                    out[name] = np.empty((rows, *value.shape[1:]), value.dtype)
                out[name][start : start + size] = value
            tell(min(start + size, rows))
    return out
