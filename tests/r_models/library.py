"""Install the R package for tests, without its gRPC part: that is compiled and tested by r-bindings/check.sh."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

from r_models import parity

ROOT = Path(__file__).parents[2]


def install(folder: Path) -> dict[str, str]:
    """Install into `folder`; return an environment whose R finds the package, and whose package finds this Python."""
    source, library = folder / "mlbridge", folder / "library"
    shutil.copytree(ROOT / "r-bindings", source, ignore=shutil.ignore_patterns("dist", "*.o", "*.so", "*.pb.*", "Makevars"))
    for part in ("answers", "frame_of", "frames"):  # as r-bindings/build.sh does
        shutil.copyfile(ROOT / "src" / "mlbridge" / "_r" / f"{part}.R", source / "R" / f"shared-{part}.R")
    library.mkdir()
    environment = parity.environment() | {"MLBRIDGE_GRPC": "off", "R_LIBS": str(library), "MLBRIDGE_PYTHON": sys.executable}
    command = ["R", "CMD", "INSTALL", "--no-docs", "--no-test-load", f"--library={library}", str(source)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-4000:]
    return environment


def run(environment: dict[str, str], script: Path, *arguments: str) -> str:
    """Run an R script and return what it printed."""
    done = subprocess.run(["Rscript", str(script), *arguments], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{script.name}:\n{done.stderr[-4000:]}"
    return done.stdout
