"""Measure how a model runs fastest on this machine.

python examples/tune.py
"""

import numpy as np
from sklearn.datasets import make_classification
from sklearn.ensemble import RandomForestClassifier

import mlbridge as mb


def main() -> None:
    """Candidates over threads, routes and batch buckets; one that changes the answers is dropped."""
    X, y = make_classification(2000, 30, random_state=0)
    with mb.wrap(RandomForestClassifier(100, max_depth=10, random_state=0).fit(X, y), sample=X[:200]) as model:
        print(model.tune(X[:64].astype(np.float64), objective="throughput", budget_s=1.0))
        print(model.describe())


if __name__ == "__main__":
    main()
