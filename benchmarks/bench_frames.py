"""A call into a Python worker against a bare socket echo of the same bytes, in one run; and the codec alone.

Usage: python benchmarks/bench_frames.py
The echo is the floor: a process that reads so many bytes from a Unix socket and writes them back.
"""

from __future__ import annotations

import json
import multiprocessing
import socket
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from mlbridge.artifact import open_artifact
from mlbridge.frames import FrameType, decode_frame, encode_frame
from mlbridge.interfaces import Deadline
from mlbridge.runtimes.python import PythonRuntime
from mlbridge.signature import Signature, TensorSpec

SIZES = {"120 B": 15, "8 KB": 1_000, "128 KB": 16_000, "8 MB": 1_000_000}  # float64 values
ECHO = Signature([TensorSpec("x", "float64", ("rows",))], [TensorSpec("x", "float64", ("rows",))])


def _read(sock: socket.socket, view: memoryview) -> bool:
    while len(view):
        n = sock.recv_into(view)
        if not n:
            return False
        view = view[n:]
    return True


def _echo(sock: socket.socket, size: int) -> None:
    buffer = bytearray(size)
    while _read(sock, memoryview(buffer)):
        sock.sendall(buffer)


def _mean_us(call, seconds: float) -> float:
    n, start = 0, time.perf_counter()
    while (spent := time.perf_counter() - start) < seconds:
        call()
        n += 1
    return spent / n * 1e6


def _best_us(*calls, seconds: float = 0.05, rounds: int = 15) -> list[float]:
    """Return each call's best round, in microseconds; rounds take turns, so that noise meets all alike."""
    for call in calls:
        call()
    return np.min([[_mean_us(call, seconds) for call in calls] for _ in range(rounds)], axis=0).tolist()


def _bare(x: np.ndarray):
    """Return a call that sends the request to an echo process and reads it back, and how to end that process."""
    request = encode_frame(FrameType.RUN, {"x": x}, request_id=1)
    ours, theirs = socket.socketpair()
    process = multiprocessing.get_context("fork").Process(target=_echo, args=(theirs, len(request)), daemon=True)
    process.start()
    theirs.close()

    def call() -> None:
        ours.sendall(request)
        _read(ours, np.empty(len(request), np.uint8).data)

    def end() -> None:
        ours.close()
        process.terminate()
        process.join()

    return call, end


def main() -> None:
    rows = []
    bare = {name: _bare(np.arange(float(n))) for name, n in SIZES.items()}  # first: no thread may run when it forks
    with tempfile.TemporaryDirectory() as folder:
        script = Path(folder) / "echo.py"
        script.write_text("def run(feeds):\n    return feeds\n")
        session = PythonRuntime().load(open_artifact(script), signature=ECHO, way="worker")
        for name, n in SIZES.items():
            x = np.arange(float(n))
            data = bytearray(encode_frame(FrameType.RUN, {"x": x}))
            echo, plain, timed, encode, decode = _best_us(
                bare[name][0],
                lambda x=x: session.run({"x": x}),
                lambda x=x: session.run({"x": x}, deadline=Deadline(60.0)),
                lambda x=x: encode_frame(FrameType.RUN, {"x": x}),
                lambda data=data: decode_frame(data),
            )
            rows.append(
                {
                    "bytes": name,
                    "echo_us": round(echo, 1),
                    "call_us": round(plain, 1),
                    "ratio": round(plain / echo, 2),
                    "ratio_with_deadline": round(timed / echo, 2),
                    "encode_us": round(encode, 2),
                    "decode_us": round(decode, 2),
                }
            )
            bare[name][1]()
        session.close()
    json.dump(rows, sys.stdout, indent=1)
    sys.stdout.write("\n")


if __name__ == "__main__":
    main()
