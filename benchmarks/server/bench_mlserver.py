"""Requests a second under h2load: our server against MLServer's gRPC, without its worker processes."""

from __future__ import annotations

import shutil

import grpc

from benchmarks.harness import Bar, Section
from benchmarks.peers.mlserving import mlserver
from benchmarks.server.load import METHOD, compare
from benchmarks.server.models import message, served
from mlbridge.runtimes.wire import inference_pb2

# Its model is the bare sum and logistic function in numpy, cheaper than any scikit-learn call: in its favour.
_LOGISTIC = """
import numpy as np
from mlserver import MLModel
from mlserver.codecs import NumpyCodec
from mlserver.types import InferenceResponse

class M(MLModel):
    async def load(self):
        self.weights = np.linspace(-1.0, 1.0, 30)
        return True

    async def predict(self, payload):
        x = NumpyCodec.decode_input(payload.inputs[0])
        p = 1 / (1 + np.exp(-(x @ self.weights)))
        outputs = [
            NumpyCodec.encode_output("label", (p > 0.5).astype(np.int64)),
            NumpyCodec.encode_output("probabilities", np.stack([1 - p, p], axis=1)),
        ]
        return InferenceResponse(model_name=self.name, outputs=outputs)
"""


def bench(quick: bool) -> Section:
    section = Section(
        "mlserver",
        "Throughput over gRPC against MLServer",
        "Ratios of time a request at saturation, MLServer with parallel_workers=0; 0.4 is 2.5 times its throughput. Logistic regression, 1x30, "
        "the same raw request to both.",
    )
    if shutil.which("h2load") is None:
        section.skipped = "h2load is not installed"
        return section
    try:
        with mlserver(_LOGISTIC, "M", make=False) as peer, served("logistic") as ours:
            for server in (peer, ours):
                with grpc.insecure_channel(server.address) as channel:
                    answer = inference_pb2.ModelInferResponse.FromString(channel.unary_unary(METHOD)(message()))
                assert [o.name for o in answer.outputs] == ["label", "probabilities"]
                assert len(answer.raw_output_contents[1]) == 16
            for streams in (1, 8, 32):
                servers = {"mlserver": peer, "mlbridge": ours}
                row = compare(section, f"logistic 1x30, {streams} streams", servers, message(), streams, 7 if quick else 15)
                section.bars.append(Bar(f"{row.case}, against MLServer", row.ratio, row.low, row.high, 1 / 2.5))
    except FileNotFoundError:
        section.skipped = "MLServer's environment is not there (make test-peers makes it)"
    return section
