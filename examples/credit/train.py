"""Train the credit models: three frameworks, three teams, one table.

Each function is what a team would hand over: a fitted model and nothing of mlbridge.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

HERE = Path(__file__).parent
NUMBERS = ["duration", "amount", "installment_rate", "residence_years", "age", "existing_credits", "dependents"]
CATEGORIES = [
    "checking",
    "history",
    "purpose",
    "savings",
    "employment",
    "personal",
    "other_debtors",
    "property",
    "other_plans",
    "housing",
    "job",
]


def read_table() -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return training and test rows; categories carry their levels."""
    table = pd.read_csv(HERE / "german.csv", keep_default_na=False, na_values=[""])
    table = table.astype(dict.fromkeys(CATEGORIES, "category"))
    table[NUMBERS] = table[NUMBERS].astype(float)
    order = np.random.default_rng(7).permutation(len(table))
    return table.iloc[order[:800]], table.iloc[order[800:]]


def train_prep(train: pd.DataFrame):
    """Team data: scale numbers, one-hot categories (scikit-learn)."""
    from sklearn.compose import ColumnTransformer
    from sklearn.preprocessing import OneHotEncoder, StandardScaler

    steps = [
        ("numbers", StandardScaler(), NUMBERS),
        ("categories", OneHotEncoder(handle_unknown="ignore", sparse_output=False), CATEGORIES),
    ]
    return ColumnTransformer(steps).fit(train[NUMBERS + CATEGORIES])


def train_forest(train: pd.DataFrame):
    """Team risk: its own encoder and a random forest (scikit-learn)."""
    from sklearn.compose import ColumnTransformer
    from sklearn.ensemble import RandomForestClassifier
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OneHotEncoder

    encode = ColumnTransformer([("categories", OneHotEncoder(handle_unknown="ignore"), CATEGORIES)], remainder="passthrough")
    forest = RandomForestClassifier(100, max_depth=10, random_state=0, n_jobs=1)
    return make_pipeline(encode, forest).fit(train[NUMBERS + CATEGORIES], train["risk"])


def train_boost(train: pd.DataFrame):
    """Team growth: gradient boosting on numbers and categories as they are (LightGBM)."""
    import lightgbm

    model = lightgbm.LGBMClassifier(n_estimators=60, num_leaves=15, min_child_samples=10, random_state=0, n_jobs=1, verbose=-1)
    return model.fit(train[NUMBERS + CATEGORIES], train["risk"])


def train_network(features: np.ndarray, risk: np.ndarray):
    """Team deep: a small network on the prepared features (PyTorch); answers the two probabilities."""
    import torch

    torch.manual_seed(0)
    torch.set_num_threads(1)

    class Network(torch.nn.Module):
        def __init__(self, width: int) -> None:
            super().__init__()
            self.layers = torch.nn.Sequential(torch.nn.Linear(width, 24), torch.nn.ReLU(), torch.nn.Linear(24, 2))

        def forward(self, transformed):
            return {"probabilities": torch.softmax(self.layers(transformed), dim=-1)}

    x, y = torch.tensor(features, dtype=torch.float32), torch.tensor((risk == "good").astype(np.int64))
    model = Network(features.shape[1])
    optimiser = torch.optim.Adam(model.parameters(), lr=0.01, weight_decay=1e-3)
    for _ in range(80):
        optimiser.zero_grad()
        torch.nn.functional.nll_loss(torch.log(model(x)["probabilities"]), y).backward()
        optimiser.step()
    return model.eval()
