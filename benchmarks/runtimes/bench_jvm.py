"""A round trip through `jvm:` against a bare Unix-socket echo in Java and against py4j's byte arrays; ratios in one run.

    python benchmarks/runtimes/bench_jvm.py            # needs `make jvm` and a JDK

Bars: <= 1.3x of the bare echo at each size; >= 3x, 100x, 20x, 20x faster than py4j at 120 B, 8 KB, 128 KB, 8 MB.
`wire` is a frame made beforehand, sent and received as bytes: what the worker and the protocol cost. `session` adds
what Python does for each call: checkout, encoding, decoding, checks of the answer.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import socket
import statistics
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from mlbridge.artifact import open_artifact
from mlbridge.frames import FrameType, encode_frame
from mlbridge.runtimes.jvm import JvmRuntime

HERE = Path(__file__).parent
EXAMPLES = HERE.parents[1] / "jvm-bindings/examples/target/mlbridge-examples-0.1.0.jar"
SIZES = {"120 B": 120, "8 KB": 8 << 10, "128 KB": 128 << 10, "8 MB": 8 << 20}
FASTER_THAN_PY4J = {"120 B": 3, "8 KB": 100, "128 KB": 20, "8 MB": 20}
MOST = 1.3
_FLAGS = ["-XX:+UseSerialGC", "-Xmx1024m"]  # as the worker's own


@contextlib.contextmanager
def bare_echo() -> Iterator[Callable[[bytes], bytearray]]:
    """Start the reference; yield one round trip."""
    with tempfile.TemporaryDirectory() as folder:
        path = f"{folder}/echo.sock"
        process = subprocess.Popen(["java", *_FLAGS, str(HERE / "BareEcho.java"), path], stdout=subprocess.PIPE)
        try:
            assert process.stdout is not None
            process.stdout.readline()
            with socket.socket(socket.AF_UNIX) as sock:
                sock.connect(path)

                def call(data: bytes) -> bytearray:
                    if len(data) < 1 << 16:  # as anybody would: small ones in one system call
                        sock.sendall(struct.pack("<q", len(data)) + data)
                    else:
                        sock.sendall(struct.pack("<q", len(data)))
                        sock.sendall(data)
                    out = bytearray(len(data))
                    view = memoryview(out)
                    while view:
                        view = view[sock.recv_into(view) :]
                    return out

                yield call
        finally:
            process.kill()
            process.wait()


@contextlib.contextmanager
def py4j_echo() -> Iterator[Callable[[bytes], bytes]]:
    """Start the other reference; yield one round trip."""
    from py4j.java_gateway import GatewayParameters, JavaGateway

    jar = next(Path(sys.prefix, "share/py4j").glob("py4j*.jar"))
    token = secrets.token_hex(16)
    process = subprocess.Popen(
        ["java", *_FLAGS, "-cp", str(jar), str(HERE / "Py4jEcho.java"), token], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    try:
        assert process.stdout is not None
        port = int(process.stdout.readline())
        gateway = JavaGateway(gateway_parameters=GatewayParameters(port=port, auth_token=token))
        yield gateway.entry_point.echo
        gateway.close()
    finally:
        process.kill()
        process.wait()


def wire_of(session: Any, feeds: dict[str, np.ndarray]) -> Callable[[], None]:
    """Return a round trip of a frame made beforehand, on the session's own connection."""
    sock = session.pool._idle[0][1].sock
    question = encode_frame(FrameType.RUN, feeds, request_id=1)
    answer = bytearray(len(encode_frame(FrameType.RESULT, {f"{k}_out": v for k, v in feeds.items()}, request_id=1)))

    def call() -> None:
        sock.sendall(question)
        view = memoryview(answer)
        while view:
            view = view[sock.recv_into(view) :]

    return call


def seconds(call: Callable[[], object], times: int) -> list[float]:
    """Time a call so many times."""
    out = []
    for _ in range(times):
        t0 = time.perf_counter()
        call()
        out.append(time.perf_counter() - t0)
    return out


def main() -> int:
    """Print the table; 1 if a bar is missed."""
    rows, missed = [], []
    if hasattr(os, "sched_setaffinity"):
        # one core for all three programs: else the scheduler puts one of them beside its client and the other across, at random
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    session = JvmRuntime().load(open_artifact(EXAMPLES), member="dev.mlbridge.examples.Echo")
    with bare_echo() as bare, py4j_echo() as slow:
        for label, size in SIZES.items():
            array = np.random.default_rng(0).normal(size=(size // 8, 1))
            data, feeds = array.tobytes(), {"float64": array}
            assert session.run(feeds)["float64_out"].tobytes() == bytes(bare(data)) == bytes(slow(data)) == data
            wire = wire_of(session, feeds)
            for _ in range(60_000 if size < 1 << 17 else 10_000 if size < 1 << 20 else 30):  # until the JIT compilers are done
                wire()
                bare(data)
            ours: list[float] = []
            wires: list[float] = []
            theirs: list[float] = []
            times = 200 if size < 1 << 20 else 5
            for _ in range(20):  # in turns: what else the machine does falls on all
                ours += seconds(lambda: session.run(feeds), times)  # noqa: B023
                wires += seconds(wire, times)
                theirs += seconds(lambda: bare(data), times)  # noqa: B023
            py4j = statistics.median(seconds(lambda: slow(data), 20 if size < 1 << 20 else 3))  # noqa: B023
            mine, frame, reference = (statistics.median(t) for t in (ours, wires, theirs))
            row = {
                "size": label,
                "session_us": mine * 1e6,
                "session_of_bare_echo": mine / reference,
                "wire_of_bare_echo": frame / reference,
                "times_faster_than_py4j": py4j / mine,
            }
            rows.append(row)
            missed += [
                f"{label}: {name} {row[f'{name}_of_bare_echo']:.2f}x of the bare echo"
                for name in ("wire", "session")
                if row[f"{name}_of_bare_echo"] > MOST
            ]
            if row["times_faster_than_py4j"] < FASTER_THAN_PY4J[label]:
                missed.append(f"{label}: only {row['times_faster_than_py4j']:.1f}x faster than py4j")
            sys.stdout.write(
                f"{label:>7}  bare {reference * 1e6:8.1f} us  wire {frame / reference:5.2f}x  session {mine / reference:5.2f}x"
                f"  {py4j / mine:7.1f}x faster than py4j\n"
            )
    session.close()
    sys.stdout.write(json.dumps({"benchmark": "jvm", "rows": rows, "missed": missed}) + "\n")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
