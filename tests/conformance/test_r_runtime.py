"""The kit over `r:` and `r+inproc:`: golden values from R itself, in a process of its own."""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
from typing import ClassVar

import numpy as np
import pytest

import mlbridge as mb
from mlbridge.testing import ModelKit

pytestmark = [pytest.mark.r, pytest.mark.skipif(shutil.which("Rscript") is None, reason="Rscript is not installed")]

FIT = """
out <- commandArgs(TRUE)[1]
rows <- within(mtcars, cyl <- factor(cyl, levels = c(4, 6, 8), labels = c("four", "six", "eight")))
fit <- glm(am ~ wt + hp + cyl, gaussian, rows)
saveRDS(fit, file.path(out, "model.rds"))
asked <- rows[1:12, ]
asked$hp[3] <- NA
asked$cyl[5] <- NA
set.seed(0)
writeBin(as.double(c(asked$wt, asked$hp, as.integer(asked$cyl) - 1, predict(fit, asked, type = "response"))), file.path(out, "golden.bin"))
"""
SCRIPT = """
run <- function(newdata) {
  if (newdata$x[1] == 9) Sys.sleep(30)
  if (newdata$x[1] == 5) stop("inside")
  list(y = newdata$x * 2)
}
"""


def _signature(**rules):
    return mb.Signature(
        [mb.TensorSpec("features", "float64", ("rows", 1), (mb.Column("x"),), **rules)], [mb.TensorSpec("y", "float64", ("rows",))]
    )


@pytest.fixture(scope="module")
def fitted(tmp_path_factory):
    folder = tmp_path_factory.mktemp("r")
    (folder / "fit.R").write_text(FIT)
    subprocess.run(["Rscript", "--vanilla", str(folder / "fit.R"), str(folder)], check=True, capture_output=True)
    (folder / "script.R").write_text(SCRIPT)
    (folder / "echo.R").write_text("run <- function(newdata) list(echo = newdata$text)\n")
    return folder


class TestR(ModelKit):
    runtime_module = "mlbridge.runtimes.r"
    library = "rpy2"
    scheme = "r"
    quirks: ClassVar = {}

    @pytest.fixture(autouse=True)
    def _fit(self, fitted):
        self.folder = fitted

    def device(self):
        return "r"

    def open_model(self):
        return mb.load(f"{self.scheme}:{self.folder / 'model.rds'}", trust="code")

    def golden(self):
        wt, hp, cyl, answer = np.fromfile(self.folder / "golden.bin").reshape(4, 12)
        codes = np.where(np.isnan(cyl), -1, np.nan_to_num(cyl)).astype(np.int32)
        return {"features": np.column_stack([wt, hp]), "categorical": codes[:, None]}, {"prediction": answer}

    def _script(self, **rules):
        return mb.load(f"{self.scheme}:{self.folder / 'script.R'}", trust="code", signature=_signature(**rules))

    def failing_model(self):
        return self._script(), {"features": np.full((1, 1), 5.0)}

    def slow_model(self):
        return self._script(), {"features": np.full((1, 1), 9.0)}

    def text_model(self):
        signature = mb.Signature(
            [mb.TensorSpec("text", "string", ("rows", 1), missing="allow")], [mb.TensorSpec("echo", "string", ("rows",), missing="allow")]
        )
        return mb.load(f"{self.scheme}:{self.folder / 'echo.R'}", trust="code", signature=signature)

    def unknown_level(self):
        return self.open_model(), {"wt": 2.0, "hp": 100.0, "cyl": "twelve"}

    def artifact(self, folder):
        return shutil.copy(self.folder / "model.rds", folder / "model.rds")

    def load(self, path):
        return mb.load(f"{self.scheme}:{path}", trust="data" if path.suffix == ".R" else "code")

    def code_artifact(self, folder, marker):
        path = folder / "payload.R"
        path.write_text(f"file.create('{marker}')\nrun <- function(newdata) newdata\n")
        return path


@pytest.mark.skipif(importlib.util.find_spec("rpy2") is None, reason="rpy2 is not installed")
class TestRInproc(TestR):
    scheme = "r+inproc"
