"""MLServer, in an environment of its own, called by our client."""

from __future__ import annotations

import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from served_models import rows

import mlbridge as mb
from mlbridge.errors import BridgeError, NotFoundError

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))
pytestmark = pytest.mark.peers
MODEL = """
from mlserver import MLModel
from mlserver.codecs import NumpyCodec
from mlserver.types import InferenceResponse, MetadataTensor

class Double(MLModel):
    async def load(self):
        self.inputs = [MetadataTensor(name="x", datatype="FP64", shape=[-1, 3])]
        self.outputs = [MetadataTensor(name="y", datatype="FP64", shape=[-1, 3])]
        return True

    async def predict(self, payload):
        x = NumpyCodec.decode_input(payload.inputs[0])
        return InferenceResponse(model_name=self.name, outputs=[NumpyCodec.encode_output("y", x * 2)])
"""


@pytest.fixture(scope="module")
def address():
    from benchmarks.peers.mlserving import mlserver

    with mlserver(MODEL, "Double") as server:
        yield server.address


def _load(address, name):
    ends = time.monotonic() + 30
    while True:
        try:
            return mb.load(f"grpc://{address}/{name}")
        except (NotFoundError, BridgeError):
            if name != "double" or time.monotonic() > ends:
                raise
            threading.Event().wait(0.2)


def test_our_client_calls_mlserver(address):
    with _load(address, "double") as model:
        assert str(model.signature) == "x: float64[?, 3] -> y: float64[?, 3]"
        np.testing.assert_array_equal(model.run({"x": rows(5)})["y"], rows(5) * 2)


def test_what_mlserver_does_not_know_is_not_found(address):
    _load(address, "double").close()
    with pytest.raises(NotFoundError):
        _load(address, "nothing")
