"""MLServer in its own environment and process: started around a model's source text, stopped afterwards."""

from __future__ import annotations

import json
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.peers.environment import environment
from benchmarks.server.load import Process

__all__ = ["mlserver"]

_START_S = 90.0


@contextmanager
def mlserver(source: str, kind: str, *, make: bool = True) -> Iterator[Process]:
    """Serve one model.

    Parameters
    ----------
    source : str
        Python text that defines the class.
    kind : str
        The class's name; in lower case the model's.
    make : bool, default=True
        Whether to make the environment where there is none, which downloads packages.

    Raises
    ------
    FileNotFoundError
        If there is no environment and it must not be made.
    RuntimeError
        If it does not start, with its log.
    """
    python = environment("mlserver", make=make)
    if python is None:
        raise FileNotFoundError("the environment of mlserver is not there")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        http, grpc, metrics = _free_ports(3)
        (folder / "served.py").write_text(source, "utf-8")
        (folder / "model-settings.json").write_text(json.dumps({"name": kind.lower(), "implementation": f"served.{kind}"}), "utf-8")
        settings = {"parallel_workers": 0, "host": "127.0.0.1", "http_port": http, "grpc_port": grpc, "metrics_port": metrics}
        (folder / "settings.json").write_text(json.dumps(settings), "utf-8")
        with open(folder / "log", "w", encoding="utf-8") as log:
            child = subprocess.Popen([str(python.parent / "mlserver"), "start", "."], cwd=folder, stdout=log, stderr=subprocess.STDOUT)
        try:
            ends = time.monotonic() + _START_S
            while "gRPC server running" not in (text := (folder / "log").read_text("utf-8")) or "Loaded model" not in text:
                if child.poll() is not None or time.monotonic() > ends:
                    raise RuntimeError(text)
                time.sleep(0.1)
            yield Process(f"127.0.0.1:{grpc}", child.pid)
        finally:
            child.terminate()
            child.wait(30)


def _free_ports(n: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(n)]
    ports = [s.getsockname()[1] for s in sockets]
    for s in sockets:
        s.close()
    return ports
