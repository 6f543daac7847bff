"""The wheel that is built holds the jar: nobody who installs it needs Maven."""

from __future__ import annotations

import hashlib
import importlib.util
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from mlbridge.runtimes.jvm.command import JAR

ROOT = Path(__file__).parents[1]
pytestmark = [
    pytest.mark.jvm,
    pytest.mark.skipif(not JAR.is_file(), reason="the jar is not built: make jvm"),
    pytest.mark.skipif(importlib.util.find_spec("hatchling") is None, reason="hatchling is not installed"),
]


def test_the_wheel_holds_the_jar_and_the_jar_its_licences(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as built:
        inside = built.read("mlbridge/_jvm/mlbridge-jvm.jar")
        assert hashlib.sha256(inside).digest() == hashlib.sha256(JAR.read_bytes()).digest()
        assert {"mlbridge/_r/worker.R", "mlbridge/py.typed"} <= set(built.namelist())
    with zipfile.ZipFile(JAR) as jar:
        assert {"META-INF/LICENSE", "META-INF/NOTICE"} <= set(jar.namelist())
