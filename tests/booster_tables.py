"""Seeded tables and targets that the tests of XGBoost and of LightGBM train on."""

from __future__ import annotations

import numpy as np
import pandas as pd

ROWS = 240


def table(rng: np.random.Generator, missing: bool, categories: bool) -> pd.DataFrame:
    """Return numbers of several scales; with `categories`, levels of text and of integers too."""
    x = pd.DataFrame({
        "a": rng.normal(size=ROWS), "b": rng.integers(0, 9, ROWS).astype(float), "c": rng.normal(size=ROWS) * 100,
        "d": rng.exponential(size=ROWS),
    })  # fmt: skip
    if missing:
        x = x.mask(rng.random(x.shape) < 0.15)
    if categories:
        x.insert(1, "k", pd.Categorical(rng.choice(list("uvwxyz"), ROWS)))
        x["j"] = pd.Categorical(rng.choice([3, 1, 7], ROWS))
        if missing:
            x.loc[rng.random(ROWS) < 0.2, "k"] = np.nan
    return x


def target(rng: np.random.Generator, x: pd.DataFrame, kind: str) -> np.ndarray:
    """Return what to learn: `real`, `positive`, `unit`, `count`, `two` or `three` classes, `many` targets, several `labels`."""
    z = np.nan_to_num(x["a"].to_numpy()) + np.sin(np.nan_to_num(x["c"].to_numpy()) / 50) + rng.normal(size=len(x)) * 0.3
    if "k" in x:
        z = z + 0.8 * (x["k"] == "u").to_numpy()
    return {
        "real": z, "positive": np.exp(z), "unit": 1 / (1 + np.exp(-z)), "count": rng.poisson(np.exp(z)), "two": (z > 0).astype(int),
        "three": np.digitize(z, [-0.7, 0.5]), "many": np.c_[z, -2 * z], "labels": np.c_[z > 0, z > 0.5].astype(int),
    }[kind]  # fmt: skip
