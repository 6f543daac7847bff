"""A call into a Python worker against a bare socket echo of the same bytes, in one run; and the codec alone.

The echo is the floor: a process that reads so many bytes from a Unix socket and writes them back.
"""

from __future__ import annotations

import multiprocessing
import socket
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np

from benchmarks.harness import Section, interleave, ratio_row
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


def _bare(x: np.ndarray) -> tuple[Callable[[], None], Callable[[], None]]:
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


def bench(quick: bool) -> Section:
    section = Section(
        "frames",
        "A Python worker against a bare socket",
        "*call*: `Session.run` of an echoing model in a worker process; *with deadline*: the same with one to watch; *encode*, "
        "*decode*: the frame codec alone. The reference is a process that reads as many bytes from a Unix socket and writes them back.",
    )
    bare = {name: _bare(np.arange(float(n))) for name, n in SIZES.items()}
    with tempfile.TemporaryDirectory() as folder:
        script = Path(folder) / "echo.py"
        script.write_text("def run(feeds):\n    return feeds\n")
        session = PythonRuntime().load(open_artifact(script), signature=ECHO, way="worker")
        for name, n in SIZES.items():
            x = np.arange(float(n))
            data = bytearray(encode_frame(FrameType.RUN, {"x": x}))
            np.testing.assert_array_equal(session.run({"x": x})["x"], x)
            variants = {
                "echo": bare[name][0],
                "call": lambda x=x: session.run({"x": x}),
                "with deadline": lambda x=x: session.run({"x": x}, deadline=Deadline(60.0)),
                "encode": lambda x=x: encode_frame(FrameType.RUN, {"x": x}),
                "decode": lambda data=data: decode_frame(data),
            }
            times = interleave(variants, rounds=15 if quick else 60, block_s=5e-3)
            section.rows += [ratio_row(name, v, times[v], times["echo"]) for v in variants if v != "echo"]
            bare[name][1]()
        session.close()
    return section
