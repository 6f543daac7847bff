"""The kit over `jvm:`: a Java class in a jar; golden values are its formula, computed by numpy."""

from __future__ import annotations

import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest

import mlbridge as mb
from mlbridge.runtimes.jvm.command import JAR
from mlbridge.testing import ModelKit

EXAMPLES = Path(__file__).parents[2] / "jvm-bindings/examples/target/mlbridge-examples-0.1.0.jar"
PACKAGE = "dev.mlbridge.examples."
pytestmark = [
    pytest.mark.jvm,
    pytest.mark.skipif(not (JAR.is_file() and EXAMPLES.is_file()), reason="the jars are not built: make jvm"),
]


def load(name):
    return mb.load(f"jvm:{EXAMPLES}#{PACKAGE}{name}", trust="code")


class TestJvm(ModelKit):
    runtime_module = "mlbridge.runtimes.jvm"
    library = "py4j"

    def device(self):
        return "jvm"

    def open_model(self):
        return load("Churn")

    def golden(self):
        rng = np.random.default_rng(4)
        features = rng.normal(30, 20, (12, 2)).round(3)
        features[3, 0] = features[7, 1] = np.nan
        plan = rng.integers(0, 3, (12, 1)).astype(np.int32)
        age, calls = np.nan_to_num(features[:, 0], nan=40.0), np.nan_to_num(features[:, 1])
        leaves = 1 / (1 + np.exp(-(-1 + 0.02 * age + 0.3 * calls + np.array([0.5, -0.25, 1.0])[plan[:, 0]])))
        feeds = {"features": features, "categorical": plan}
        return feeds, {"label": (leaves > 0.5).astype(np.int32), "probabilities": np.column_stack([1 - leaves, leaves])}

    def failing_model(self):
        return load("Misbehaving"), {"what": np.array(["throw"], object)}

    def slow_model(self):
        return load("Misbehaving"), {"what": np.array(["sleep"], object)}

    def text_model(self):
        return load("EchoText")

    def unknown_level(self):
        return self.open_model(), {"age": 1.0, "calls": 1.0, "plan": "gold"}

    def artifact(self, folder):
        return Path(shutil.copy(EXAMPLES, folder / "model.jar"))

    def load(self, path):
        trust = "data" if path.name == "payload.jar" else "code"
        return mb.load(f"jvm:{path}", trust=trust)

    def code_artifact(self, folder, marker):
        path = folder / "payload.jar"
        with zipfile.ZipFile(EXAMPLES) as src, zipfile.ZipFile(path, "w") as dst:
            for name in src.namelist():
                services = name.endswith("services/dev.mlbridge.Session")
                dst.writestr(name, f"{PACKAGE}LeavesMark\n" if services else src.read(name))
            dst.writestr("marker.txt", str(marker))
        return path

    def test_the_payload_is_a_live_one(self, tmp_path):
        """Else check 20 would hold whatever the runtime does."""
        marker = tmp_path / "marker"
        mb.load(f"jvm:{self.code_artifact(tmp_path, marker)}", trust="code").close()
        assert marker.exists()
