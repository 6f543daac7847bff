"""Every example runs as its README says."""

import subprocess
import sys
from pathlib import Path

EXAMPLES = Path(__file__).parent.parent / "examples"


def test_the_credit_demo_runs_and_agrees_with_the_teams():
    done = subprocess.run([sys.executable, str(EXAMPLES / "credit" / "demo.py")], capture_output=True, text=True, timeout=280, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    for words in ("fused into one graph: verified", "SignatureError", '"id","label","probabilities_bad","probabilities_good"'):
        assert words in done.stdout
