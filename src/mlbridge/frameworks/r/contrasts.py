"""Contrast matrices: how R codes a factor's levels as numbers.

References
----------
Chambers and Hastie, "Statistical Models in S" (1992), chapter 2.
"""

from __future__ import annotations

import itertools

import numpy as np

from .robject import RObject
from .values import refuse

__all__ = ["MAX_LEVELS", "contrast_matrix"]

MAX_LEVELS = 4096  # a contrast matrix is square in the levels


def contrast_matrix(given: RObject | None, levels: tuple[str, ...], name: str) -> tuple[np.ndarray, tuple[str, ...]]:
    """Return the matrix (levels, columns) and the columns' names, for what a fit's `contrasts` says of one factor.

    Parameters
    ----------
    given : RObject
        The name of one of R's contrast functions, or the matrix itself.
    levels : tuple of str
        The factor's levels.
    name : str
        The factor, for messages.
    """
    n = len(levels)
    if n > MAX_LEVELS:
        raise refuse(f"the factor {name!r} with {n} levels; the limit is {MAX_LEVELS}")
    if given is not None and given.kind in ("double", "integer") and len(given.dim) == 2:
        matrix = given.array()
        if matrix.shape[0] != n:
            raise refuse(f"the contrasts of {name!r} have {matrix.shape[0]} rows for {n} levels")
        rows = given.dimnames[0] if len(given.dimnames) == 2 else None
        if rows and set(rows) == set(levels):
            matrix = matrix[[rows.index(v) for v in levels]]
        columns = given.dimnames[1] if len(given.dimnames) == 2 else None
        return matrix, columns or tuple(str(i + 1) for i in range(matrix.shape[1]))
    kind = given.text() if given is not None and given.kind == "character" else None
    if n < 2:
        raise refuse(f"contrasts of {name!r}, which has fewer than two levels")
    numbers = tuple(str(i + 1) for i in range(n - 1))
    if kind == "contr.treatment":
        return np.eye(n)[:, 1:], levels[1:]
    if kind == "contr.SAS":
        return np.eye(n)[:, :-1], levels[:-1]
    if kind == "contr.sum":
        return np.vstack([np.eye(n - 1), -np.ones((1, n - 1))]), numbers
    if kind == "contr.sdif":  # MASS: what each level has over the one before
        steps = np.arange(n)[:, None] - np.arange(n - 1)[None, :]
        return np.where(steps > 0, 1.0, 0.0) - (n - 1 - np.arange(n - 1)) / n, tuple(f"{b}-{a}" for a, b in itertools.pairwise(levels))
    if kind == "contr.helmert":
        helmert = np.zeros((n, n - 1))
        for j in range(n - 1):
            helmert[: j + 1, j], helmert[j + 1, j] = -1, j + 1
        return helmert, numbers
    if kind == "contr.poly":
        scores = np.arange(1, n + 1) - (n + 1) / 2
        q, r = np.linalg.qr(np.vander(scores, n, increasing=True))
        matrix = (q * np.sign(np.diag(r)))[:, 1:]
        return matrix, tuple((".L", ".Q", ".C")[i] if i < 3 else f"^{i + 1}" for i in range(n - 1))
    raise refuse(f"the contrasts of {name!r} are a function of the user's")
