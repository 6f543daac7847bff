"""The tensor codec: arrays to a message, over the wire's bytes, to checked feeds; against protobuf alone."""

from __future__ import annotations

import numpy as np

from benchmarks.harness import Bar, Section, interleave, ratio_row
from mlbridge.model import Model
from mlbridge.runtimes.wire import inference_pb2
from mlbridge.server.codec import Codec
from mlbridge.signature import Signature, TensorSpec


class _Still:
    device, max_concurrency = "cpu", 1

    def __init__(self, missing: str) -> None:
        self.signature = Signature(
            [TensorSpec("features", "float64", ("rows", 30), missing=missing)],  # type: ignore[arg-type]
            [TensorSpec("y", "float64", ("rows",))],
        )

    def run(self, feeds, /, *, outputs=None, deadline=None):
        return {}

    def close(self):
        pass


def bench(quick: bool) -> Section:
    section = Section(
        "codec",
        "The tensor codec against raw protobuf",
        "Reference: build a request around `tobytes`, serialise, parse, view the bytes as an array. Ours checks every field on top.",
    )
    request_of = inference_pb2.ModelInferRequest
    for missing in ("allow", "refuse"):
        model = Model(_Still(missing))
        codec = Codec(model, "m", "1")
        for n in (1, 64, 1024):
            x = np.random.default_rng(n).normal(size=(n, 30))

            def carried(x=x):
                request = request_of(model_name="m")
                request.inputs.add(name="features", datatype="FP64", shape=x.shape)
                request.raw_input_contents.append(x.tobytes())
                return request_of.FromString(request.SerializeToString())

            def raw(carried=carried):
                request = carried()
                return np.frombuffer(request.raw_input_contents[0]).reshape(tuple(request.inputs[0].shape))

            times = interleave(
                {"raw": raw, "codec": lambda carried=carried, codec=codec: codec.decode(carried())}, rounds=40 if quick else 150
            )
            row = ratio_row(f"{n}x30", f"missing {missing}", times["codec"], times["raw"])
            section.rows.append(row)
            section.bars.append(Bar(f"codec {n}x30, missing {missing}", row.ratio, row.low, row.high, 1.2))
        model.close()
    return section
