"""Every example runs as its README says."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parent.parent / "examples"
NEEDS = {"ask_r": "Rscript", "ask_jvm": "java"}  # programs beyond Python


def test_the_credit_demo_runs_and_agrees_with_the_teams():
    done = subprocess.run([sys.executable, str(EXAMPLES / "credit" / "demo.py")], capture_output=True, text=True, timeout=280, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    for words in ("fused into one graph: verified", "SignatureError", '"id","label","probabilities_bad","probabilities_good"'):
        assert words in done.stdout


@pytest.mark.parametrize("name", sorted(p.stem for p in EXAMPLES.glob("*.py")))
def test_each_task_has_an_example_that_runs(name):
    if name in NEEDS and shutil.which(NEEDS[name]) is None:
        pytest.skip(f"{NEEDS[name]} is not installed")
    done = subprocess.run(
        [sys.executable, "-W", "error::ResourceWarning", str(EXAMPLES / f"{name}.py")],
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.strip()
