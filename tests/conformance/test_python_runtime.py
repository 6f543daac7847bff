"""The kit over `python` and `python+worker`: golden values from scikit-learn itself."""

import time

import joblib
import numpy as np
import pytest

import mlbridge as mb
from mlbridge.testing import ModelKit

RNG = np.random.default_rng(5)
X = RNG.normal(size=(40, 3))
Y = (X[:, 0] > 0).astype(int)


class Payload:
    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return (open, (str(self.marker), "w"))


def _signature(**rules):
    return mb.Signature([mb.TensorSpec("x", "float64", ("rows", 1), **rules)], [mb.TensorSpec("y", "float64", ("rows", 1))])


@pytest.fixture(scope="module")
def fitted():
    from sklearn.linear_model import LogisticRegression

    return LogisticRegression().fit(X, Y)


class TestPython(ModelKit):
    runtime_module = "mlbridge.runtimes.python"
    library = "sklearn"

    @pytest.fixture(autouse=True)
    def _fit(self, fitted):
        self.fitted = fitted

    def open_model(self):
        return mb.wrap(self.fitted, sample=X, via="native")

    def golden(self):
        return {"features": X[:10]}, {
            "label": self.fitted.predict(X[:10]).astype(np.int32),
            "probabilities": self.fitted.predict_proba(X[:10]),
        }

    def failing_model(self):
        def broken(feeds):
            raise ZeroDivisionError("inside")

        return mb.wrap(broken, signature=_signature()), {"x": np.ones((1, 1))}

    def slow_model(self):
        return mb.wrap(lambda feeds: {"y": time.sleep(2) or feeds["x"]}, signature=_signature()), {"x": np.ones((1, 1))}

    def text_model(self):
        signature = mb.Signature(
            [mb.TensorSpec("text", "string", ("rows", 1), missing="allow")], [mb.TensorSpec("echo", "string", ("rows",), missing="allow")]
        )
        return mb.wrap(lambda feeds: {"echo": feeds["text"][:, 0]}, signature=signature)

    def artifact(self, folder):
        joblib.dump(self.fitted, folder / "m.joblib")
        return folder / "m.joblib"

    def load(self, path):
        trust = "data" if path.name == "payload.joblib" else "code"
        return mb.load(path, trust=trust, sample=X)

    def code_artifact(self, folder, marker):
        joblib.dump(Payload(marker), folder / "payload.joblib")
        return folder / "payload.joblib"


SLOW = """
import time


def run(feeds):
    if float(feeds["x"].reshape(-1)[0]) == 9.0:
        time.sleep(30)
    return {"y": feeds["x"] * 2.0}
"""


class TestPythonWorker(ModelKit):
    runtime_module = "mlbridge.workers"
    library = "sklearn"

    @pytest.fixture(autouse=True)
    def _fit(self, fitted, tmp_path):
        self.fitted = fitted
        self.folder = tmp_path
        self.path = tmp_path / "model.joblib"
        joblib.dump(fitted, self.path)

    def open_model(self):
        return mb.load(f"python+worker:{self.path}", trust="code", sample=X)

    golden = TestPython.golden

    def _script(self, text):
        path = self.folder / "script.py"
        path.write_text(text)
        return mb.load(f"python+worker:{path}", trust="code", signature=_signature())

    def failing_model(self):
        return self._script("def run(feeds):\n    raise ZeroDivisionError('inside')\n"), {"x": np.ones((1, 1))}

    def slow_model(self):
        return self._script(SLOW), {"x": np.full((1, 1), 9.0)}
