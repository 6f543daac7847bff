"""Load for the server's benchmarks: h2load drives a gRPC method with one fixed message; nothing in Python is in the way.

Also the bare grpcio echo that our server is compared with, and how to run a server in a process of its own.
"""

from __future__ import annotations

import os
import re
import shutil
import struct
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np

from benchmarks.harness import Row, Section, ratio_row

__all__ = ["METHOD", "Process", "compare", "echo", "h2load", "process", "take_turns"]

METHOD = "/inference.GRPCInferenceService/ModelInfer"
_BLOCK_S = 0.5  # of one measurement; short, so that what disturbs the machine disturbs both sides
_ECHO = """
import sys, grpc
from concurrent.futures import ThreadPoolExecutor
answer = open(sys.argv[1], "rb").read()
handler = grpc.unary_unary_rpc_method_handler(lambda data, context: answer)
class All(grpc.GenericRpcHandler):
    def service(self, details):
        return handler
server = grpc.server(ThreadPoolExecutor(10), handlers=(All(),))  # ten threads, as in gRPC's own examples
port = server.add_insecure_port("127.0.0.1:0")
server.start()
sys.stdout.write(f"127.0.0.1:{port}\\n"); sys.stdout.flush()
server.wait_for_termination()
"""


class Process(NamedTuple):
    """A server in a process of its own."""

    address: str
    pid: int

    def cpu_s(self) -> float:
        """Return the processor seconds it has used; 0 where the system does not say."""
        try:
            fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            return 0.0
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@contextmanager
def process(code: str, *arguments: str) -> Iterator[Process]:
    """Run a server in its own process; the first line it prints is its address."""
    child = subprocess.Popen([sys.executable, "-c", code, *arguments], stdout=subprocess.PIPE, text=True)
    try:
        assert child.stdout is not None
        line = child.stdout.readline().strip()
        if not line:
            raise RuntimeError("the server did not start")
        yield Process(line, child.pid)
    finally:
        child.terminate()
        child.wait(20)


@contextmanager
def echo(answer: bytes) -> Iterator[Process]:
    """Run a bare grpcio server that answers every call with the same bytes."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "answer"
        path.write_bytes(answer)
        with process(_ECHO, str(path)) as server:
            yield server


def h2load(address: str, message: bytes, *, streams: int, requests: int) -> float:
    """Send one message that many times, on `streams` streams of one connection; returns requests a second."""
    if shutil.which("h2load") is None:
        raise SystemExit("h2load is not installed (Debian: nghttp2-client)")
    with tempfile.NamedTemporaryFile() as body:
        body.write(b"\0" + struct.pack(">I", len(message)) + message)
        body.flush()
        command = ["h2load", "-n", str(requests), "-c", "1", "-m", str(streams), "-t", "1", "-d", body.name]
        command += ["-H", "content-type: application/grpc", "-H", "te: trailers", f"http://{address}{METHOD}"]
        text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    rate = re.search(r"finished in .*?, ([\d.]+) req/s", text)
    counts = re.search(r"(\d+) succeeded, (\d+) failed, (\d+) errored", text)
    if rate is None or counts is None or int(counts[1]) != requests:
        raise RuntimeError(text)
    return float(rate[1])


def take_turns(
    servers: Mapping[str, Process], message: bytes, *, streams: int, rounds: int
) -> tuple[dict[str, np.ndarray], dict[str, float]]:
    """Load servers by turns, half a second each.

    Returns
    -------
    times : dict of str to ndarray
        Seconds a request, one value a round.
    cpu : dict of str to float
        The median of the server's processor seconds a request: what a busy machine changes least.
    """
    counts = {}
    for name, server in servers.items():
        h2load(server.address, message, streams=streams, requests=20 * streams)
        rate = h2load(server.address, message, streams=streams, requests=max(50, 20 * streams))
        counts[name] = max(2 * streams, int(rate * _BLOCK_S))
    times: dict[str, list[float]] = {n: [] for n in servers}
    cpu: dict[str, list[float]] = {n: [] for n in servers}
    for i in range(rounds):
        for name in list(servers)[:: 1 if i % 2 else -1]:
            server, n = servers[name], counts[name]
            before = server.cpu_s()
            times[name].append(1 / h2load(server.address, message, streams=streams, requests=n))
            cpu[name].append((server.cpu_s() - before) / n)
    return {n: np.array(t) for n, t in times.items()}, {n: float(np.median(c)) for n, c in cpu.items()}


def compare(section: Section, case: str, servers: Mapping[str, Process], message: bytes, streams: int, rounds: int) -> Row:
    """Load two servers by turns and add the row: time a request of the second one over that of the first."""
    times, cpu = take_turns(servers, message, streams=streams, rounds=rounds)
    reference, ours = servers
    row = ratio_row(case, ours, times[ours], times[reference])
    section.rows.append(row)
    section.note += f" {case}: {1e6 * cpu[ours]:.0f} us of processor a request against {1e6 * cpu[reference]:.0f}."
    return row
