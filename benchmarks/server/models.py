"""A served model in a process of its own, for the load generator."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np

from benchmarks.server.load import Process, process
from mlbridge.runtimes.wire import inference_pb2

__all__ = ["message", "served"]

_SERVER = """
import sys
import numpy as np
import mlbridge as mb
kind, batching = sys.argv[1], sys.argv[2] == "on"
rng = np.random.default_rng(0)
X = rng.normal(size=(400, 30))
y = (X[:, 0] + X[:, 1] > 0).astype(int)
if kind == "logistic":
    from sklearn.linear_model import LogisticRegression as Model
    fitted = Model().fit(X, y)
else:
    from sklearn.ensemble import RandomForestClassifier
    fitted = RandomForestClassifier(100, random_state=0).fit(X, y)
model = mb.wrap(fitted, sample=X, via="native" if kind == "native-forest" else "auto")
server = mb.serve({"m": model}, grpc="127.0.0.1:0", batching=batching)
sys.stdout.write(server.addresses["grpc"] + "\\n"); sys.stdout.flush()
server.wait()
"""


@contextmanager
def served(kind: str, *, batching: bool = True) -> Iterator[Process]:
    """Serve `logistic`, `forest` (converted) or `native-forest` in its own process."""
    with process(_SERVER, kind, "on" if batching else "off") as server:
        yield server


def message(rows: int = 1, *, datatype: str = "FP64") -> bytes:
    """Return a request of that many rows of 30 numbers; forests compute in FP32."""
    x = np.random.default_rng(1).normal(size=(rows, 30)).astype({"FP64": "f8", "FP32": "f4"}[datatype])
    request = inference_pb2.ModelInferRequest(model_name="m")
    request.inputs.add(name="features", datatype=datatype, shape=x.shape)
    request.raw_input_contents.append(x.tobytes())
    return request.SerializeToString()
