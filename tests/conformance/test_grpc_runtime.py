"""The kit over `grpc`: a scikit-learn pipeline served in this process, golden values from scikit-learn itself."""

import threading

import numpy as np
import pandas as pd
import pytest
from served_models import Doubler

import mlbridge as mb
from mlbridge.model import Model
from mlbridge.testing import ModelKit

RNG = np.random.default_rng(3)
FRAME = pd.DataFrame({"a": RNG.normal(size=60), "b": RNG.normal(size=60), "k": pd.Categorical(RNG.choice(["x", "y", "z"], 60))})
TARGET = np.where(FRAME["a"] + (FRAME["k"] == "x") > 0.3, "yes", "no")
TEXT = mb.Signature(
    [mb.TensorSpec("text", "string", ("rows", 1), missing="allow")], [mb.TensorSpec("echo", "string", ("rows",), missing="allow")]
)


class Echo:
    signature, device, max_concurrency = TEXT, "cpu", 1

    def run(self, feeds, /, *, outputs=None, deadline=None):
        return {"echo": feeds["text"][:, 0].copy()}

    def close(self):
        pass


class Stuck(Doubler):
    def run(self, feeds, /, *, outputs=None, deadline=None):
        if (feeds["x"] == 7.0).all():
            stop = threading.Event()
            if deadline is not None:
                deadline.on_cancel(stop.set)
            stop.wait(5.0)
        return super().run(feeds)


@pytest.fixture(scope="module")
def world():
    from sklearn.compose import ColumnTransformer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OneHotEncoder, StandardScaler

    steps = ColumnTransformer([("n", StandardScaler(), ["a", "b"]), ("c", OneHotEncoder(), ["k"])])
    fitted = make_pipeline(steps, LogisticRegression()).fit(FRAME, TARGET)
    models = {"churn": mb.wrap(fitted, sample=FRAME), "echo": Model(Echo()), "double": Model(Stuck(poison=666.0))}
    with mb.serve(models, grpc="127.0.0.1:0") as server:
        yield fitted, server.addresses["grpc"]
    for model in models.values():
        model.close()


class TestGrpc(ModelKit):
    runtime_module = "mlbridge.runtimes.grpc"
    library = "grpc"

    @pytest.fixture(autouse=True)
    def _world(self, world):
        self.fitted, self.address = world

    def _load(self, name):
        return mb.load(f"grpc://{self.address}/{name}")

    def open_model(self):
        return self._load("churn")

    def golden(self):
        feeds = {"features": FRAME[["a", "b"]].to_numpy()[:10], "categorical": FRAME["k"].cat.codes.to_numpy().astype(np.int32)[:10, None]}
        labels = np.searchsorted(self.fitted.classes_, self.fitted.predict(FRAME[:10])).astype(np.int32)
        return feeds, {"label": labels, "probabilities": self.fitted.predict_proba(FRAME[:10])}

    def device(self):
        return f"grpc://{self.address}"

    def failing_model(self):
        return self._load("double"), {"x": np.full((1, 3), 666.0)}

    def text_model(self):
        return self._load("echo")

    def unknown_level(self):
        return self.open_model(), {"a": 1.0, "b": 1.0, "k": "new"}

    def slow_model(self):
        return self._load("double"), {"x": np.full((1, 3), 7.0)}
