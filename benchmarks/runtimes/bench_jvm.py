"""A round trip through `jvm:` against a bare Unix-socket echo in Java and against py4j's byte arrays.

`wire` is a frame made beforehand, sent and received as bytes: what the worker and the protocol cost. `session` adds
what Python does for each call: checkout, encoding, decoding, checks of the answer. Needs `make jvm` and a JDK.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import secrets
import shutil
import socket
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.harness import Bar, Section, interleave, ratio_row
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


@contextlib.contextmanager
def one_core() -> Iterator[None]:
    """Keep all programs on one core: else the scheduler puts one beside its client and another across, at random."""
    if not hasattr(os, "sched_setaffinity"):
        yield
        return
    mine = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(mine)})
    try:
        yield
    finally:
        os.sched_setaffinity(0, mine)


def bench(quick: bool) -> Section:
    section = Section(
        "jvm",
        "A Java model from Python",
        "*wire*: frames made beforehand, over the session's own connection; *session*: `Session.run`. The reference is a bare echo "
        "in Java over a Unix socket; the last rows are py4j's byte arrays in times `Session.run`.",
    )
    if shutil.which("java") is None or not EXAMPLES.is_file() or importlib.util.find_spec("py4j") is None:
        section.skipped = "it needs Java, py4j and the examples' jar (`make jvm`)"
        return section
    with one_core():
        session = JvmRuntime().load(open_artifact(EXAMPLES), member="dev.mlbridge.examples.Echo")
        with bare_echo() as bare, py4j_echo() as slow:
            for label, size in SIZES.items():
                _compare(section, session, bare, slow, label, size, quick=quick)
        session.close()
    return section


def _compare(section: Section, session: Any, bare: Callable, slow: Callable, label: str, size: int, *, quick: bool) -> None:
    array = np.random.default_rng(0).normal(size=(size // 8, 1))
    data, feeds = array.tobytes(), {"float64": array}
    assert session.run(feeds)["float64_out"].tobytes() == bytes(bare(data)) == bytes(slow(data)) == data
    wire = wire_of(session, feeds)
    warm = 60_000 if size < 1 << 17 else 10_000 if size < 1 << 20 else 30  # until the JIT compilers are done
    for _ in range(warm // 4 if quick else warm):
        wire()
        bare(data)
    times = interleave({"bare": lambda: bare(data), "wire": wire, "session": lambda: session.run(feeds)}, rounds=20, block_s=5e-3)
    for name in ("wire", "session"):
        row = ratio_row(label, name, times[name], times["bare"])
        section.rows.append(row)
        section.bars.append(Bar(f"{label}: {name} over a bare echo", row.ratio, row.low, row.high, MOST))
    if quick and size > 1 << 20:
        return  # py4j takes seconds a call there
    theirs = []
    for _ in range(10 if size < 1 << 17 else 3):
        began = time.perf_counter()
        slow(data)
        theirs.append(time.perf_counter() - began)
    row = ratio_row(label, "py4j over session", np.asarray(theirs), times["session"][: len(theirs)])
    section.rows.append(row)
    section.bars.append(Bar(f"{label}: times faster than py4j", row.ratio, row.low, row.high, FASTER_THAN_PY4J[label], ">="))
