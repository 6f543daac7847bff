"""`r:` against a bare base-R socket, and `r+inproc:` against rpy2's numpy2ri, in the same rounds.

`wire` is a frame made beforehand, sent and received as bytes: what the worker and the protocol cost. `session` adds what
Python does for each call. All programs share one core, or the scheduler decides the ratio. Needs R and rpy2.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

import mlbridge as mb
from benchmarks.harness import Bar, Row, Section, interleave, ratio_row
from mlbridge.artifact import open_artifact
from mlbridge.frames import FrameType, encode_frame
from mlbridge.runtimes.r import RRuntime

HERE = Path(__file__).parent
OF_BARE, OF_SOCKET, FASTER = 1.5, 2.0, 3.0
ROWS = (1, 64, 1024)
_COLUMNS = 20
_Call = Callable[[], Any]


@contextlib.contextmanager
def bare_echo(question: bytes, answer_bytes: int, *, doubles: bool = False) -> Iterator[_Call]:
    """Start base R behind a socket; yield one round trip of so many bytes."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(1)
        port = listener.getsockname()[1]
        sizes = [str(port), str(len(question)), str(answer_bytes), *(["double"] if doubles else [])]
        # a session of its own, as workers have: the scheduler weighs sessions against each other
        process = subprocess.Popen(["Rscript", "--vanilla", str(HERE / "BareEcho.R"), *sizes], start_new_session=True)
        try:
            with listener.accept()[0] as sock:
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                yield _round_trip(sock, question, answer_bytes)
        finally:
            process.kill()
            process.wait()


def _round_trip(sock: socket.socket, question: bytes, answer_bytes: int) -> _Call:
    answer = bytearray(answer_bytes)

    def call() -> bytearray:
        sock.sendall(question)
        view = memoryview(answer)
        while view:
            view = view[sock.recv_into(view) :]
        return answer

    return call


@contextlib.contextmanager
def script(body: str, signature: mb.Signature, way: str | None = None) -> Iterator[Any]:
    """Yield a session over an R script."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.R"
        path.write_text(body)
        session = RRuntime().load(open_artifact(path), signature=signature, way=way)
        try:
            yield session
        finally:
            session.close()


def _table(columns: int) -> mb.Signature:
    names = tuple(mb.Column(f"x{i + 1}") for i in range(columns))
    features = mb.TensorSpec("features", "float64", ("rows", columns), names)
    return mb.Signature([features], [mb.TensorSpec("y", "float64", ("rows",))])


def through_the_worker(shape: tuple[int, int], rounds: int, *, doubles: bool) -> list[Row]:
    """Time a table into R and its first column back, against the bare socket."""
    feeds = {"features": np.random.default_rng(0).normal(size=shape)}
    question = encode_frame(FrameType.RUN, feeds, request_id=1)
    answer_bytes = len(encode_frame(FrameType.RESULT, {"y": feeds["features"][:, 0].copy()}, request_id=1))
    with (
        script("run <- function(newdata) list(y = newdata$x1)\n", _table(shape[1])) as session,
        bare_echo(question, answer_bytes, doubles=doubles) as bare,
    ):
        assert np.array_equal(session.run(feeds)["y"], feeds["features"][:, 0])
        wire = _round_trip(session.pool._idle[0][1].sock, question, answer_bytes)
        for _ in range(300 if shape[0] == 1 else 3):  # until R has compiled what it runs
            wire(), bare()
        block_s = 0.02 if shape[0] == 1 else 0.25  # large ones: R collects its garbage in every second or third call
        times = interleave({"bare": bare, "wire": wire, "session": lambda: session.run(feeds)}, rounds=rounds, block_s=block_s)
    case = f"{shape[0]:,} x {shape[1]}"
    return [ratio_row(case, variant, times[variant], times["bare"]) for variant in ("wire", "session")]


def in_process(rounds: int) -> list[Row]:
    """Time rowSums over ten columns in the embedded R against numpy2ri's in another process."""
    signature = mb.Signature([mb.TensorSpec("x", "float64", ("rows", 10))], [mb.TensorSpec("y", "float64", ("rows",))])
    clock = subprocess.Popen(
        [sys.executable, str(HERE / "numpy2ri_clock.py")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )

    def theirs(rows: int, calls: int) -> float:
        assert clock.stdin is not None
        assert clock.stdout is not None
        clock.stdin.write(f"{rows} {calls}\n")
        clock.stdin.flush()
        return float(clock.stdout.readline())

    def ours(feeds: dict[str, np.ndarray], calls: int) -> float:
        began = time.perf_counter()
        for _ in range(calls):
            session.run(feeds)
        return (time.perf_counter() - began) / calls

    found = []
    try:
        with script("run <- function(newdata) list(y = rowSums(newdata$x))\n", signature, "inproc") as session:
            for rows in ROWS:
                feeds = {"x": np.random.default_rng(0).normal(size=(rows, 10))}
                assert np.allclose(session.run(feeds)["y"], feeds["x"].sum(axis=1))
                ours(feeds, 200), theirs(rows, 200)
                pairs = np.array([(ours(feeds, 50), theirs(rows, 50)) for _ in range(rounds)])
                found.append(ratio_row(f"{rows} rows", "numpy2ri", pairs[:, 1], pairs[:, 0]))
    finally:
        clock.kill()
        clock.wait()
    return found


@contextlib.contextmanager
def _one_core() -> Iterator[None]:
    if not hasattr(os, "sched_setaffinity"):
        yield
        return
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(before)})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def bench(quick: bool) -> Section:
    """Return the section."""
    section = Section(
        "runtimes_r",
        "R in a worker and in this process",
        "The references are base R's own socket for the same bytes, and numpy2ri (how many times slower it is).",
    )
    if shutil.which("Rscript") is None or importlib.util.find_spec("rpy2") is None:
        section.skipped = "needs R and rpy2"
        return section
    with _one_core():
        empty = through_the_worker((1, 1), 10 if quick else 40, doubles=False)
        large = through_the_worker((100_000, _COLUMNS), 5 if quick else 15, doubles=True)
        inside = in_process(10 if quick else 40)
    section.rows = [*empty, *large, *inside]
    section.bars = [
        _bar("r: an empty call of a bare base-R echo", empty[1], OF_BARE, "<="),
        _bar("r: 100,000 x 20 doubles in and a column back, of the socket's own time", large[1], OF_SOCKET, "<="),
        *(_bar(f"numpy2ri of r+inproc:, {row.case}", row, FASTER, ">=") for row in inside),
    ]
    return section


def _bar(name: str, row: Row, limit: float, sense: Any) -> Bar:
    return Bar(name, row.ratio, row.low, row.high, limit, sense)
