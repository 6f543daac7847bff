"""Path rows for histogram boosters that encode categories first: from their encoded columns back to the signature's."""

from __future__ import annotations

from typing import Any

import numpy as np

from ...signature import Signature
from ..trees import path_rows
from .native import column_names
from .tree_models import Ensemble

__all__ = ["encoded_paths"]


def encoded_paths(model: Any, est: Any, forest: Ensemble, signature: Signature, feeds: dict, seed: int) -> list[dict]:
    """Return path rows as feeds.

    Parameters
    ----------
    model, est : estimator
        The wrapped model, and the booster in it whose `_preprocessor` reorders columns: encoded ones first.
    forest : Ensemble
        The booster's trees over encoded columns.
    """
    names = column_names(model)
    inputs = est._preprocessor._transformer_to_input_indices
    encoded, plain = list(inputs.get("encoder", ())), list(inputs.get("numerical", ()))
    order = [int(i) for i in (*encoded, *plain)]
    categories = est._preprocessor.named_transformers_["encoder"].categories_
    where = _where(signature, names)
    missing = np.array([signature.input(where[i][0]).missing == "allow" for i in order])
    base = np.zeros((len(next(iter(feeds.values()))), len(order)))
    for j, i in enumerate(order):
        block, at = where[i]
        if j >= len(encoded):
            base[:, j] = feeds[block][:, at]
    codes = {j: range(len([v for v in categories[j] if v == v and v is not None])) for j in range(len(encoded))}
    levels = {j: len(codes[j]) for j in codes}
    rows = path_rows(forest.trees, columns=len(order), base_rows=base, seed=seed, missing=missing, codes=codes, levels=levels)
    part = {s.name: np.empty((len(rows), int(s.shape[1] or 0)), dtype=s.dtype) for s in signature.inputs}  # type: ignore[arg-type]
    for j, i in enumerate(order):
        block, at = where[i]
        column = rows[:, j]
        if j < len(encoded):
            column = _back(column, categories[j], signature, block, at)
        part[block][:, at] = column
    return [part]


def _where(signature: Signature, names: list[str] | None) -> list[tuple[str, int]]:
    if names is None:
        spec = signature.inputs[0]
        return [(spec.name, i) for i in range(int(spec.shape[1] or 0))]  # type: ignore[arg-type]
    at = {c.name: (s.name, i) for s in signature.inputs for i, c in enumerate(s.columns)}
    return [at[n] for n in names]


def _back(column: np.ndarray, categories: np.ndarray, signature: Signature, block: str, at: int) -> np.ndarray:
    """Turn encoded numbers into the signature's codes, or into the numbers that were encoded."""
    known = [v for v in categories.tolist() if v == v and v is not None]
    code = np.where(np.isnan(column), -1, column).astype(np.int64)
    spec = signature.input(block)
    if spec.categorical:
        levels = list(spec.columns[at].categories or ())
        table = np.array([-1, *(levels.index(v) for v in known)])
        return table[np.clip(code, -1, len(known) - 1) + 1]
    table = np.array([np.nan, *(float(v) for v in known)])
    return table[np.clip(code, -1, len(known) - 1) + 1]
