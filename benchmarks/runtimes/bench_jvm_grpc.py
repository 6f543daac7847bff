"""A unary call of the JVM's server against a bare gRPC echo in Java, both asked by one client in the JVM.

The reference answers the bytes it got, unparsed, and so does its client. `server` sends the same client's bytes to
`MlbridgeServer`, which parses, checks, runs and writes; `client and server` is `Model.run` of a model opened by its
address. Needs `make jvm` and a JDK.
"""

from __future__ import annotations

import contextlib
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from benchmarks.harness import Bar, Row, Section, geometric_mean, ratio_row
from mlbridge.runtimes.jvm.command import JAR

HERE = Path(__file__).parent
EXAMPLES = HERE.parents[1] / "jvm-bindings/examples/target/mlbridge-examples-0.1.0.jar"
ECHO = f"echo=jvm:{EXAMPLES}#dev.mlbridge.examples.Echo"
SIZES = {"120 B": 15, "8 KB": 1 << 10, "128 KB": 1 << 14, "1 MB": 1 << 17}  # float64 elements
LIMIT = 1.2
_FLAGS = ["-XX:+UseSerialGC", "-Xmx1024m", "-cp", str(JAR)]


@contextlib.contextmanager
def serving(*arguments: str) -> Iterator[str]:
    """Start a server; yield its address."""
    process = subprocess.Popen(["java", *_FLAGS, *arguments], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    try:
        assert process.stdout is not None
        yield process.stdout.readline().removeprefix("serving on ").strip()
    finally:
        process.kill()
        process.wait()


def measured(bare: str, ours: str, elements: int, quick: bool) -> dict[str, np.ndarray]:
    """Return seconds a call, one value a round, by variant."""
    large = elements > 1 << 13
    warm, rounds, calls = (2000 if large else 10_000), (20 if quick else 60), (20 if large else 100)
    if quick:
        warm //= 2
    command = ["java", *_FLAGS, str(HERE / "GrpcEcho.java"), "measure", bare, ours, *map(str, (elements, warm, rounds, calls))]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    lines = [line.split("\t") for line in done.stdout.splitlines() if "\t" in line]
    return {name: np.array([int(t) for t in times.split(",")]) * 1e-9 for name, times in lines}


def bench(quick: bool) -> Section:
    """Measure both servers at four sizes."""
    section = Section(
        "jvm_grpc",
        "The JVM's server on the wire",
        note="Reference: a bare gRPC echo in Java that parses nothing, asked by the same client.",
    )
    if shutil.which("javac") is None or not (JAR.is_file() and EXAMPLES.is_file()):
        section.skipped = "needs a JDK and the jars: make jvm"
        return section
    rows: dict[str, list[Row]] = {"server": [], "client and server": []}
    with (
        serving(str(HERE / "GrpcEcho.java"), "serve") as bare,
        serving("dev.mlbridge.server.Main", "serve", ECHO, "--trust", "code", "--grpc", "127.0.0.1:0") as ours,
    ):
        for label, elements in SIZES.items():
            times = measured(bare, ours, elements, quick)
            for variant, found in rows.items():
                found.append(ratio_row(label, variant, times[variant], times["bare"]))
    for variant, found in rows.items():
        section.rows += found
        section.bars.append(Bar(f"unary call, {variant}, against a bare echo", *geometric_mean(found), LIMIT))
    return section
