"""Run an R model that has no conversion in R itself, as one of ours. Needs R.

python examples/ask_r.py
"""

import subprocess
import tempfile
from pathlib import Path

import mlbridge as mb

FIT = 'fit <- loess(dist ~ speed, cars, control = loess.control(surface = "direct")); saveRDS(fit, commandArgs(TRUE)[1])'


def main() -> None:
    """`r:` starts R in a process of its own; what R says goes to the logger mlbridge.r."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "loess.rds"
        subprocess.run(["Rscript", "-e", FIT, str(path)], check=True)
        with mb.load(path, trust="code") as model:
            print(model.describe())
            print(model.predict([{"speed": 8.0}, {"speed": 21.5}]))


if __name__ == "__main__":
    main()
