"""The third party's own test file: one subclass of the kit. Run by tests/test_plugins.py where the plug-in is installed."""

import numpy as np
from mlbridge_scale import Scale

import mlbridge as mb
from mlbridge.testing import ModelKit

X = np.arange(20.0).reshape(10, 2)


class TestScale(ModelKit):
    runtime_module = "mlbridge_scale"
    library = "sklearn"

    def open_model(self):
        return mb.wrap(Scale(3.0))

    def golden(self):
        return {"x": X}, {"y": X * 3.0}

    def artifact(self, folder):
        (folder / "m.scale").write_text("not a number")
        return folder / "m.scale"

    def load(self, path):
        return mb.load(f"scale:{path}", trust="code")


def test_a_uri_and_an_option_reach_the_plug_in(tmp_path):
    (tmp_path / "m.scale").write_text("2.0")
    with mb.load(f"scale:{tmp_path / 'm.scale'}", trust="code", options={"scale": {"offset": 1.0}}) as m:
        assert m.predict(X[:1])["y"].tolist() == [[1.0, 3.0]]


def test_a_package_of_the_plug_ins_model_loads(tmp_path):
    with mb.wrap(Scale(2.0), sample=X) as m:
        m.save(tmp_path / "s.mlb")
    with mb.load(tmp_path / "s.mlb", trust="code") as m:
        assert m.route.runtime == "scale"


def test_a_built_in_name_is_not_replaced():
    from mlbridge import plugins

    assert type(plugins.runtime("onnx")).__module__ == "mlbridge.runtimes.onnx"
