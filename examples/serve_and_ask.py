"""Serve a model on the Open Inference Protocol and ask it over gRPC, also without waiting.

python examples/serve_and_ask.py
"""

import asyncio

import numpy as np
from sklearn.datasets import load_iris
from sklearn.linear_model import LogisticRegression

import mlbridge as mb


async def ask(model: mb.Model, rows: np.ndarray) -> None:
    """Ask three times at once."""
    answers = await asyncio.gather(*(model.predict_async(rows[i : i + 1], timeout_s=10) for i in range(3)))
    print([a["label"].tolist() for a in answers])


def main() -> None:
    """Host and client in one process; any Open Inference client may ask too."""
    X, y = load_iris(return_X_y=True)
    with (
        mb.wrap(LogisticRegression(max_iter=500).fit(X, y), sample=X) as model,
        mb.serve({"iris": model}, grpc="127.0.0.1:0") as server,
        mb.load(f"grpc://{server.addresses['grpc']}/iris") as remote,
    ):
        print(remote.describe())
        print("the same answer:", (remote.predict(X)["label"] == model.predict(X)["label"]).all())
        asyncio.run(ask(remote, X))


if __name__ == "__main__":
    main()
