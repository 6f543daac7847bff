"""A peer's virtual environment: made once from its pinned list under `.venvs/`, found again afterwards."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
from pathlib import Path

__all__ = ["environment"]

ROOT = Path(__file__).resolve().parents[2]


def environment(name: str, *, make: bool = True) -> Path | None:
    """Return the Python of a peer's environment; None where it is absent and must not be made.

    Parameters
    ----------
    name : str
        A folder of `benchmarks/peers/` that holds `requirements.txt`.
    make : bool, default=True
        Whether to make it, which downloads packages.
    """
    pins = ROOT / "benchmarks" / "peers" / name / "requirements.txt"
    digest = hashlib.sha256(pins.read_bytes()).hexdigest()
    folder = ROOT / ".venvs" / name
    python = folder / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python")
    mark = folder / "pins.sha256"
    if mark.is_file() and mark.read_text("ascii") == digest:
        return python
    if not make:
        return None
    shutil.rmtree(folder, ignore_errors=True)
    subprocess.run([sys.executable, "-m", "venv", *([] if _uv() else ["--upgrade-deps"]), str(folder)], check=True)
    install = [*_uv(), "pip", "install", "-q", "--python", str(python)] if _uv() else [str(python), "-m", "pip", "install", "-q"]
    subprocess.run([*install, "-r", str(pins)], check=True)
    mark.write_text(digest, "ascii")
    return python


def _uv() -> list[str]:
    found = shutil.which("uv")
    return [found] if found else []
