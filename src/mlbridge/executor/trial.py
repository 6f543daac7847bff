"""Trial: a provider's first session and run in a child process, which it may take down without taking ours.

Run as a script by the child: `python -m mlbridge.executor.trial FOLDER`.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import MlbridgeError
from ..interfaces import Array
from .plans import Plan

__all__ = ["try_in_child"]

_MIN_S = 20.0  # importing onnxruntime and starting a provider takes seconds, whatever the budget


def try_in_child(model: bytes | Path, plan: Plan, feeds: Mapping[str, Array], timeout_s: float) -> str | None:
    """Start and run a plan in a child process; return what went wrong in words, or None.

    Parameters
    ----------
    model : bytes or Path
        Checked.
    plan : Plan
        Of the provider in question.
    feeds : dict of str to ndarray
        The sample.
    timeout_s : float
        When to give up; at least 20 s are given.
    """
    if any(a.dtype.hasobject for a in feeds.values()):
        return None  # text is not handed over; such models have no kernels elsewhere than the processor
    with tempfile.TemporaryDirectory(prefix="mlbridge-") as name:
        folder = Path(name)
        if isinstance(model, bytes):
            (folder / "model.onnx").write_bytes(model)
        else:
            for file in model.parent.iterdir():
                shutil.copyfile(file, folder / ("model.onnx" if file.name == model.name else file.name))
        (folder / "plan.json").write_text(json.dumps(plan.to_dict()), "utf-8")
        named: dict[str, Any] = {f"feed:{k}": v for k, v in feeds.items()}
        np.savez(folder / "feeds.npz", **named)
        path = os.pathsep.join([str(Path(__file__).parents[2]), *filter(None, [os.environ.get("PYTHONPATH")])])
        try:
            done = subprocess.run(
                [sys.executable, "-m", "mlbridge.executor.trial", name],
                capture_output=True,
                text=True,
                errors="replace",
                timeout=max(timeout_s, _MIN_S),
                check=False,
                env={**os.environ, "PYTHONPATH": path},
            )
        except subprocess.TimeoutExpired:
            return f"{plan.provider} did not finish its first run in {max(timeout_s, _MIN_S):.0f} s"
        verdict = folder / "verdict"
        if verdict.is_file():
            return verdict.read_text("utf-8") or None
        how = f"signal {-done.returncode}" if done.returncode < 0 else f"exit code {done.returncode}"
        return f"{plan.provider} ended the process it was tried in: {how}"


def _main(folder: Path) -> None:
    from .engine import Engine, engine_failures

    plan = Plan.from_dict(json.loads((folder / "plan.json").read_text("utf-8")))
    with np.load(folder / "feeds.npz", allow_pickle=False) as z:
        feeds = {k.removeprefix("feed:"): z[k] for k in z.files}
    try:
        native = Engine(folder / "model.onnx", plan).native()
        native.run([o.name for o in native.outputs_meta], feeds, None)
    except MlbridgeError as exc:
        text = f"{type(exc).__name__}: {exc.message}"
    except engine_failures() as exc:
        text = f"it failed on the sample: {str(exc).splitlines()[0][:300] if str(exc) else type(exc).__name__}"
    else:
        text = ""
    (folder / "verdict").write_text(text, "utf-8")


if __name__ == "__main__":
    _main(Path(sys.argv[1]))
