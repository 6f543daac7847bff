"""Trees of every library: one value, one ONNX writer, one maker of probe rows. No library is named here.

Rooms: `forest` (Tree, and many of them in one set of arrays), `writer` (`add_trees`), `rows` (`path_rows`, `node_coverage`),
`tables` (between a signature's blocks and the trees' one matrix).
Called by every framework that has trees.
"""

from __future__ import annotations

from .forest import GE, GT, IN, LE, LT, Tree
from .rows import node_coverage, path_rows
from .tables import blocks_of, join, matrix, positions, width
from .writer import add_trees

__all__ = [
    "GE",
    "GT",
    "IN",
    "LE",
    "LT",
    "Tree",
    "add_trees",
    "blocks_of",
    "join",
    "matrix",
    "node_coverage",
    "path_rows",
    "positions",
    "width",
]
