"""Overload: an open-loop client offers up to ten times what a slow model can answer; goodput, refusals, memory."""

from __future__ import annotations

import asyncio
import collections
import time

import grpc
import numpy as np

from benchmarks.harness import Bar, Row, Section
from benchmarks.server.load import METHOD, process
from mlbridge.runtimes.wire import inference_pb2

_SERVER = """
import sys, time
import mlbridge as mb
from mlbridge.model import Model

class Slow:
    device, max_concurrency = "cpu", 1
    signature = mb.Signature([mb.TensorSpec("x", "float64", ("n", 3))], [mb.TensorSpec("y", "float64", ("n", 3))])

    def run(self, feeds, /, *, outputs=None, deadline=None):
        time.sleep(0.01)
        return {"y": feeds["x"] * 2}

    def close(self):
        pass

model = Model(Slow())
server = mb.serve({"slow": model}, grpc="127.0.0.1:0", http="127.0.0.1:0", max_queue=16)
sys.stdout.write(server.addresses["grpc"] + " " + server.addresses["http"] + "\\n"); sys.stdout.flush()
server.wait()
"""
_DEADLINE_S = 0.3


async def _offer(address: str, per_s: float, seconds: float) -> tuple[float, collections.Counter, np.ndarray]:
    """Offer requests at a fixed rate; returns answers a second, codes, and the seconds each refusal took."""
    request = inference_pb2.ModelInferRequest(model_name="slow")
    request.inputs.add(name="x", datatype="FP64", shape=[1, 3])
    request.raw_input_contents.append(np.ones(3).tobytes())
    data, codes, refusals = request.SerializeToString(), collections.Counter(), []
    async with grpc.aio.insecure_channel(address) as channel:
        call = channel.unary_unary(METHOD)

        async def one() -> None:
            began = time.perf_counter()
            try:
                await call(data, timeout=_DEADLINE_S)
                codes["OK"] += 1
            except grpc.aio.AioRpcError as exc:
                codes[exc.code().name] += 1
                if exc.code() is grpc.StatusCode.RESOURCE_EXHAUSTED:
                    refusals.append(time.perf_counter() - began)

        tasks, began = [], time.perf_counter()
        while (elapsed := time.perf_counter() - began) < seconds:
            while len(tasks) < elapsed * per_s:
                tasks.append(asyncio.create_task(one()))
            await asyncio.sleep(0.002)
        await asyncio.gather(*tasks)
    return codes["OK"] / seconds, codes, np.array(refusals or [0.0])


def _memory(http: str) -> float:
    from urllib.request import urlopen

    text = urlopen(f"http://{http}/metrics").read().decode()
    return next(float(line.split()[1]) for line in text.splitlines() if line.startswith("mlbridge_memory_bytes "))


def bench(quick: bool) -> Section:
    section = Section(
        "overload", "Overload at ten times capacity", "A model of 10 ms, one call at once, a queue of 16, deadlines of 300 ms."
    )
    seconds = 4.0 if quick else 20.0
    with process(_SERVER) as line:
        address, http = line.address.split()
        asyncio.run(_offer(address, 50, 1.0))
        peak = max(asyncio.run(_offer(address, rate, seconds))[0] for rate in (95, 110))
        before = _memory(http)
        goodput, codes, refusals = asyncio.run(_offer(address, 950, seconds))
        after = _memory(http)
    p99 = float(np.quantile(refusals, 0.99))
    share = goodput / peak
    section.note += (
        f" Peak {peak:.0f}/s; at 950/s offered {goodput:.0f}/s, {dict(codes)}; memory {before / 1e6:.0f} to {after / 1e6:.0f} MB."
    )
    section.rows.append(Row("goodput at 10x of peak", "mlbridge", 1e6 / max(goodput, 1e-9), 1e6 / peak, 1 / share, 1 / share, 1 / share))
    section.bars.append(Bar("goodput at 10x capacity, share of peak", share, share, share, 0.95, ">="))
    section.bars.append(Bar("p99 of refusals, seconds", p99, p99, p99, 0.1))
    section.bars.append(Bar("memory after over before", after / before, after / before, after / before, 1.1))
    return section
