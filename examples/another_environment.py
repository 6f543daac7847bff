"""Run a pickled model in another interpreter, with that environment's library versions.

python examples/another_environment.py [path of the other environment's python]
"""

import pickle
import sys
import tempfile
from pathlib import Path

from sklearn.datasets import load_diabetes
from sklearn.ensemble import GradientBoostingRegressor

import mlbridge as mb


def main() -> None:
    """A crash or a hang over there costs one call a typed error, never this process."""
    python = sys.argv[1] if len(sys.argv) > 1 else sys.executable
    X, y = load_diabetes(return_X_y=True)
    fitted = GradientBoostingRegressor(random_state=0).fit(X, y)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.pkl"
        path.write_bytes(pickle.dumps(fitted))
        # a pickle runs code when it is opened: say so in words, or pin its hash
        with mb.load(f"python+worker:{path}", trust="code", sample=X, options={"python": {"executable": python}}) as model:
            print(model.describe())
            print("the same answer:", (model.predict(X[:5])["prediction"] == fitted.predict(X[:5])).all())


if __name__ == "__main__":
    main()
