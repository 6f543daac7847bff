"""R on the wire against a bare libgrpc++ echo, called from R by a bare libgrpc++ client; both are built here, once.

`client` is mlbridge's client on the same bare echo: checks, tensors and interrupts are what it adds. `host` is that
client on `mlb_serve()`, whose answer R itself gives: a second process of R and its evaluation come on top.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
from pathlib import Path

import numpy as np

from benchmarks.harness import Bar, Section, ratio_row

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
LIBRARY = ROOT / "r-bindings" / "dist" / "library"
BARE = ROOT / "r-bindings" / "dist" / "bare"  # compiling the stubs takes longer than the measuring
SIZES = {"8 B": 1, "8 KB": 1 << 10, "800 KB": 100_000}
MOST = 1.5
_HOST = """
library(mlbridge)
echo <- mlb_wrap(function(feeds) feeds, signature = '{"version":1,"inputs":[{"name":"x","dtype":"float64","shape":["rows"],"missing":"allow"}],
  "outputs":[{"name":"x","dtype":"float64","shape":["rows"],"missing":"allow"}]}')
mlb_serve(list(echo = echo), "127.0.0.1:0", ready = function(address) { cat(address, "\\n", sep = ""); flush(stdout()) })
"""


def _environment() -> dict[str, str]:
    return {**os.environ, "R_LIBS": str(LIBRARY), "OMP_NUM_THREADS": "1"}


def build(folder: Path) -> tuple[Path, Path]:
    """Compile the bare server and the bare client where their sources changed; return both."""
    server, client, state = folder / "server", folder / "client.so", folder / "state"
    sources = hashlib.sha256((HERE / "BareGrpcEcho.cpp").read_bytes() + (ROOT / "proto" / "inference.proto").read_bytes()).hexdigest()
    if state.exists() and state.read_text() == sources:
        return server, client
    folder.mkdir(parents=True, exist_ok=True)
    subprocess.run(["protoc", f"-I{ROOT / 'proto'}", f"--cpp_out={folder}", str(ROOT / "proto" / "inference.proto")], check=True)
    plugin = f"--plugin=protoc-gen-grpc={shutil.which('grpc_cpp_plugin')}"
    subprocess.run(["protoc", f"-I{ROOT / 'proto'}", f"--grpc_out={folder}", plugin, str(ROOT / "proto" / "inference.proto")], check=True)
    include = subprocess.run(
        ["Rscript", "-e", 'cat(R.home("include"), system.file("include", package = "Rcpp"))'], capture_output=True, text=True, check=True
    )
    common = ["c++", "-std=c++17", "-O2", "-fPIC", f"-I{folder}", *(f"-I{i}" for i in include.stdout.split())]
    stubs = []
    for stub in ("inference.pb", "inference.grpc.pb"):
        stubs.append(str(folder / f"{stub}.o"))
        subprocess.run([*common, "-c", str(folder / f"{stub}.cc"), "-o", stubs[-1]], check=True)
    link = subprocess.run(["pkg-config", "--libs", "grpc++", "protobuf"], capture_output=True, text=True, check=True).stdout.split()
    home = subprocess.run(["Rscript", "-e", 'cat(R.home("lib"))'], capture_output=True, text=True, check=True).stdout
    source = str(HERE / "BareGrpcEcho.cpp")
    subprocess.run([*common, "-DSERVER", source, *stubs, "-o", str(server), *link, f"-L{home}", "-lR"], check=True)
    subprocess.run([*common, "-shared", source, *stubs, "-o", str(client), *link], check=True)
    state.write_text(sources)
    return server, client


def bench(quick: bool) -> Section:
    section = Section(
        "r_grpc",
        "R on the wire",
        'One tensor of doubles there and back, called from R. The reference: gRPC C++ alone on both sides. *client*: `mlb_load("grpc://…")` '
        "on the same bare server; *host*: the same client on `mlb_serve()`, where R evaluates the answer.",
    )
    if not all(map(shutil.which, ("Rscript", "protoc", "grpc_cpp_plugin", "c++"))):
        section.skipped = "it needs R and the C++ libraries of gRPC"
        return section
    subprocess.run(["bash", str(ROOT / "r-bindings" / "install.sh")], check=True)
    server, client = build(BARE)
    processes = [_start(str(server)), _start("Rscript", "-e", _HOST)]
    try:
        port, address = (_line(p) for p in processes)
        ways = {
            "bare": ("bare", str(client), port),
            "client": ("ours", f"grpc://127.0.0.1:{port}/echo"),
            "host": ("ours", f"grpc://{address}/echo"),
        }
        asking = {way: _start("Rscript", str(HERE / "ask_grpc.R"), *arguments) for way, arguments in ways.items()}
        processes += asking.values()
        for label, size in SIZES.items():
            _compare(section, asking, label, size, rounds=10 if quick else 40)
    finally:
        for process in processes:
            process.kill()
            process.wait()
    return section


def _start(*command: str) -> subprocess.Popen:
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=_environment())


def _line(process: subprocess.Popen) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def _compare(section: Section, asking: dict[str, subprocess.Popen], label: str, size: int, *, rounds: int) -> None:
    """Let the processes take turns, a block of calls each."""
    calls = 100 if size < 10_000 else 10
    seconds: dict[str, list[float]] = {way: [] for way in asking}
    for _ in range(rounds + 2):  # two to warm up
        for way, process in asking.items():
            assert process.stdin is not None
            process.stdin.write(f"{size} {calls}\n")
            process.stdin.flush()
            seconds[way].append(float(_line(process)))
    times = {way: np.asarray(s[2:]) for way, s in seconds.items()}
    for way in ("client", "host"):
        row = ratio_row(label, way, times[way], times["bare"])
        section.rows.append(row)
        section.bars.append(Bar(f"{label}: {way} over a bare echo from R", row.ratio, row.low, row.high, MOST))
