"""A third party's plug-in, installed beside mlbridge and found by its entry point."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent / "plugins"


def test_an_installed_plug_in_passes_the_kit(tmp_path):
    uv = [shutil.which("uv")] if shutil.which("uv") else [sys.executable, "-m", "uv"]
    source = tmp_path / "source"
    shutil.copytree(HERE / "mlbridge-scale", source)
    target = tmp_path / "site"
    install = [*uv, "pip", "install", "-q", "--python", sys.executable, "--no-deps", "--target", str(target), str(source)]
    subprocess.run(install, check=True, timeout=240)
    environment = os.environ | {"PYTHONPATH": str(target)}
    run = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-n", "0", str(HERE / "kit_for_scale.py")]
    done = subprocess.run(run, env=environment, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-1000:]
    assert "passed" in done.stdout
