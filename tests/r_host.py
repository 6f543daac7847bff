"""An R process that serves the models of interop/r_server.R, for tests; and R code run beside it."""

from __future__ import annotations

import functools
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

BINDINGS = Path(__file__).parents[1] / "r-bindings"
LIBRARY = BINDINGS / "dist" / "library"
SERVER = Path(__file__).parent / "interop" / "r_server.R"


def environment() -> dict[str, str]:
    """Return an environment whose R finds the installed package, and whose package finds this Python."""
    return {
        **os.environ,
        "R_LIBS": str(LIBRARY),
        "TZ": "UTC",
        "OMP_NUM_THREADS": "1",
        "LC_ALL": "C.UTF-8",
        "MLBRIDGE_PYTHON": sys.executable,
    }


@functools.cache
def missing() -> str | None:
    """Install the package with its gRPC part; say what is not there, None if all is."""
    if shutil.which("Rscript") is None:
        return "Rscript is not installed"
    done = subprocess.run(["bash", str(BINDINGS / "install.sh")], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-4000:]
    code = 'cat(mlbridge::mlb_features()[1, "available"])'
    said = subprocess.run(["Rscript", "-e", code], env=environment(), capture_output=True, text=True, check=False).stdout
    return None if said == "TRUE" else "the C++ libraries of gRPC are not installed"


def run(code: str, *arguments: str) -> str:
    """Run R code and return what it printed."""
    done = subprocess.run(["Rscript", "-e", code, *arguments], env=environment(), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-4000:]
    return done.stdout


class Host:
    """interop/r_server.R, running; its log is kept."""

    def __init__(self, *arguments: str) -> None:
        command = ["Rscript", str(SERVER), *arguments]
        self.process = subprocess.Popen(command, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        self.log: list[str] = []
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        self.address = ""
        for line in self.process.stdout:  # type: ignore[union-attr]
            if line.startswith("ready "):
                self.address = line.split()[1]
                break
        assert self.address, "".join(self.log)[-4000:]

    def _read(self) -> None:
        for line in self.process.stderr:  # type: ignore[union-attr]
            self.log.append(line)

    def logged(self, *words: str, timeout_s: float = 60) -> bool:
        """Wait for a line of the log with all these words."""
        until = time.monotonic() + timeout_s
        while not any(all(w in line for w in words) for line in self.log):
            if time.monotonic() > until:
                return False
            time.sleep(0.02)
        return True

    def uri(self, model: str) -> str:
        """Return what `mb.load` opens."""
        return f"grpc://{self.address}/{model}"

    def stop(self, number: int = signal.SIGTERM, timeout_s: float = 60) -> int:
        """End it by a signal; return its exit code."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        code = self.process.wait(timeout_s)
        self._reader.join(5)
        self.process.stdout.close()  # type: ignore[union-attr]
        self.process.stderr.close()  # type: ignore[union-attr]
        return code

    def __enter__(self) -> Host:
        return self

    def __exit__(self, *exc: object) -> None:
        self.stop(signal.SIGKILL)
