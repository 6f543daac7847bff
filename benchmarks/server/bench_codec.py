"""The tensor codec, both sides of it, against building and parsing the same messages with protobuf alone."""

from __future__ import annotations

import numpy as np

from benchmarks.harness import Bar, Section, interleave, ratio_row
from mlbridge.model import Model
from mlbridge.runtimes.wire import RAW_IN, inference_pb2, part
from mlbridge.server.codec import Codec
from mlbridge.signature import Signature, TensorSpec

_Request, _Answer = inference_pb2.ModelInferRequest, inference_pb2.ModelInferResponse


class _Still:
    device, max_concurrency = "cpu", 1

    def __init__(self, missing: str) -> None:
        self.signature = Signature(
            [TensorSpec("features", "float64", ("rows", 30), missing=missing)],  # type: ignore[arg-type]
            [TensorSpec("prediction", "float64", ("rows",))],
        )

    def run(self, feeds, /, *, outputs=None, deadline=None):
        return {}

    def close(self):
        pass


def _asked(x: np.ndarray) -> bytes:
    request = _Request(model_name="m")
    request.inputs.add(name="features", datatype="FP64", shape=x.shape)
    request.raw_input_contents.append(x.tobytes())
    return request.SerializeToString()


def _answered(y: np.ndarray) -> bytes:
    answer = _Answer(model_name="m", model_version="1")
    answer.outputs.add(name="prediction", datatype="FP64", shape=y.shape)
    answer.raw_output_contents.append(y.tobytes())
    return answer.SerializeToString()


def bench(quick: bool) -> Section:
    section = Section(
        "codec",
        "The tensor codec against raw protobuf",
        "Reference: build a request around `tobytes`, serialise, parse, view the bytes as an array; then the same of the answer. Ours is the server's part "
        "of it (read and check the request, write the answer) between the same client's parts.",
    )
    for missing in ("allow", "refuse"):
        model = Model(_Still(missing))
        codec = Codec(model, "m", "1")
        for n in (1, 64, 1024):
            x, y = np.random.default_rng(n).normal(size=(n, 30)), np.arange(float(n))
            recipe = codec.recipe(_Request.FromString(_asked(x)))
            known = {part(_asked(x), RAW_IN).head: recipe}  # as the service remembers it

            def read(answer: bytes) -> np.ndarray:
                parsed = _Answer.FromString(answer)
                return np.frombuffer(parsed.raw_output_contents[0]).reshape(tuple(parsed.outputs[0].shape))

            def protobuf(x=x, y=y):
                request = _Request.FromString(_asked(x))
                np.frombuffer(request.raw_input_contents[0]).reshape(tuple(request.inputs[0].shape))
                return read(_answered(y))

            def ours(x=x, y=y, known=known, codec=codec):
                parted = part(_asked(x), RAW_IN)
                how = known[parted.head].read(parted.raws)
                return read(codec.encode({"prediction": y}, parted.id, how))

            assert (ours() == protobuf()).all()
            times = interleave({"protobuf": protobuf, "codec": ours}, rounds=40 if quick else 150)
            row = ratio_row(f"{n}x30", f"missing {missing}", times["codec"], times["protobuf"])
            section.rows.append(row)
            section.bars.append(Bar(f"codec {n}x30, missing {missing}", row.ratio, row.low, row.high, 1.2))
        model.close()
    return section
