"""Load for the server's benchmarks: h2load drives a gRPC method with one fixed message; nothing in Python is in the way.

Also the two servers that are compared: a bare grpcio echo of the same messages, and ours; each in its own process.
"""

from __future__ import annotations

import re
import shutil
import struct
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

__all__ = ["Load", "echo", "h2load", "process"]

ECHO = """
import sys, grpc
from concurrent.futures import ThreadPoolExecutor
answer = open(sys.argv[1], "rb").read()
handler = grpc.unary_unary_rpc_method_handler(lambda data, context: answer)
class All(grpc.GenericRpcHandler):
    def service(self, details):
        return handler
server = grpc.server(ThreadPoolExecutor(64), handlers=(All(),))
port = server.add_insecure_port("127.0.0.1:0")
server.start()
sys.stdout.write(f"127.0.0.1:{port}\\n"); sys.stdout.flush()
server.wait_for_termination()
"""


class Load(NamedTuple):
    """What h2load saw."""

    per_s: float
    mean_us: float
    failed: int


def h2load(address: str, method: str, message: bytes, *, streams: int, seconds: int = 3, connections: int = 1) -> Load:
    """Send one message over and over on `streams` streams at once."""
    if shutil.which("h2load") is None:
        raise SystemExit("h2load is not installed (Debian: nghttp2-client)")
    with tempfile.NamedTemporaryFile() as body:
        body.write(b"\0" + struct.pack(">I", len(message)) + message)
        body.flush()
        command = ["h2load", "-D", str(seconds), "--warm-up-time", "1", "-c", str(connections), "-m", str(streams), "-t", "1"]
        command += ["-d", body.name, "-H", "content-type: application/grpc", "-H", "te: trailers", f"http://{address}{method}"]
        text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    rate = re.search(r"finished in .*?, ([\d.]+) req/s", text)
    counts = re.search(r"(\d+) succeeded, (\d+) failed, (\d+) errored", text)
    mean = re.search(r"time for request:\s+\S+\s+\S+\s+([\d.]+)(us|ms|s)", text)
    if rate is None or counts is None or mean is None:
        raise RuntimeError(text)
    unit = {"us": 1.0, "ms": 1e3, "s": 1e6}[mean[2]]
    return Load(float(rate[1]), float(mean[1]) * unit, int(counts[2]) + int(counts[3]))


@contextmanager
def process(code: str, *arguments: str) -> Iterator[str]:
    """Run a server in its own process; yields the line it prints first."""
    child = subprocess.Popen([sys.executable, "-c", code, *arguments], stdout=subprocess.PIPE, text=True)
    try:
        assert child.stdout is not None
        line = child.stdout.readline().strip()
        if not line:
            raise RuntimeError("the server did not start")
        yield line
    finally:
        child.terminate()
        child.wait(20)


@contextmanager
def echo(answer: bytes) -> Iterator[str]:
    """Run a bare grpcio server that answers every call with the same bytes."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "answer"
        path.write_bytes(answer)
        with process(ECHO, str(path)) as address:
            yield address
