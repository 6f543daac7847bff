"""Files that would run code, against every door: the marker never appears below trust `code`."""

import contextlib
import pickle
import zipfile
from pathlib import Path

import joblib
import numpy as np
import pytest
from click.testing import CliRunner

import mlbridge as mb
from mlbridge.cli import main
from mlbridge.errors import MlbridgeError


class Payload:
    def __init__(self, marker):
        self.marker = str(marker)

    def __reduce__(self):
        return (Path.touch, (Path(self.marker),))


def _pickle(folder, marker):
    (folder / "m.pkl").write_bytes(pickle.dumps(Payload(marker)))
    return folder / "m.pkl"


def _joblib(folder, marker):
    joblib.dump(Payload(marker), folder / "m.joblib", compress=3)
    return folder / "m.joblib"


def _torch(folder, marker):
    torch = pytest.importorskip("torch")
    torch.save(Payload(marker), folder / "m.pt")
    return folder / "m.pt"


def _npz(folder, marker):
    np.savez(folder / "m.npz", a=np.array([Payload(marker)], object))
    return folder / "m.npz"


def _keras(folder, marker):
    keras = pytest.importorskip("keras")
    code = f"lambda x: (open({str(marker)!r}, 'w').close(), x)[1]"
    model = keras.Sequential([keras.Input((2,)), keras.layers.Lambda(eval(code))])
    marker.unlink(missing_ok=True)
    model.save(folder / "m.keras")
    marker.unlink(missing_ok=True)
    return folder / "m.keras"


def _keras_h5(folder, marker):
    pytest.importorskip("h5py")
    keras = pytest.importorskip("keras")
    code = f"lambda x: (open({str(marker)!r}, 'w').close(), x)[1]"
    model = keras.Sequential([keras.Input((2,)), keras.layers.Lambda(eval(code))])
    model.save(folder / "m.h5")
    marker.unlink(missing_ok=True)
    return folder / "m.h5"


def _saved_model(folder, marker):
    """A graph whose only operation writes the file."""
    tf = pytest.importorskip("tensorflow")

    @tf.function(input_signature=[tf.TensorSpec([None], tf.float32, name="x")])
    def write(x):
        tf.io.write_file(str(marker), "gone")
        return {"y": x}

    module = tf.Module()
    module.write = write
    tf.saved_model.save(module, str(folder / "m"), signatures={"serving_default": write})
    return folder / "m"


def _package(folder, marker):
    """A package whose manifest calls a pickle ONNX."""
    import hashlib
    import json

    data = pickle.dumps(Payload(marker))
    manifest = {
        "format_version": 1,
        "name": "evil",
        "version": "1",
        "description": "",
        "signature": {
            "version": 1,
            "inputs": [{"name": "x", "dtype": "float64", "shape": ["rows"]}],
            "outputs": [{"name": "y", "dtype": "float64", "shape": ["rows"]}],
        },
        "implementations": [
            {"runtime": "onnx", "path": "model.onnx", "format": "onnx"},
            {"runtime": "python", "path": "model.onnx", "format": "pickle"},
        ],
        "files": {"model.onnx": {"sha256": hashlib.sha256(data).hexdigest(), "size": len(data)}},
    }
    with zipfile.ZipFile(folder / "m.mlb", "w") as z:
        z.writestr("mlbridge.json", json.dumps(manifest))
        z.writestr("model.onnx", data)
    return folder / "m.mlb"


DOORS = {
    "load": lambda p: mb.load(p),
    "load python": lambda p: mb.load(f"python:{p}"),
    "load worker": lambda p: mb.load(f"python+worker:{p}"),
    "load onnx": lambda p: mb.load(f"onnx:{p}", trust="code"),
    "load bytes": lambda p: mb.load(p.read_bytes()),
    "audited": lambda p: mb.load(p, trust="audited"),
    "native": lambda p: mb.load(p, via="native"),
    "convert": lambda p: mb.convert(p),
    "pipeline": lambda p: mb.Pipeline("p", {"a": p}),
}
COMMANDS = {
    "convert": ["convert", "{p}", "{p}.out"],
    "inspect": ["inspect", "{p}"],
    "verify": ["verify", "{p}"],
    "predict": ["predict", "{p}", "{t}"],
    "bench": ["bench", "{p}"],
    "check": ["check", "{q}", "a", "{p}"],
    "serve": ["serve", "a={p}"],
}
PAYLOADS = [_pickle, _joblib, _torch, _npz, _keras, _keras_h5, _saved_model, _package]


@pytest.mark.parametrize("make", PAYLOADS, ids=lambda f: f.__name__.strip("_"))
@pytest.mark.parametrize("door", DOORS)
def test_nothing_runs_through_the_library(tmp_path, make, door):
    marker = tmp_path / "marker"
    path = make(tmp_path, marker)
    if door == "load bytes" and path.is_dir():
        pytest.skip("a folder has no bytes")
    with pytest.raises(MlbridgeError):
        DOORS[door](path)
    assert not marker.exists()


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory):
    path = tmp_path_factory.mktemp("pipeline") / "q.mlb"
    with mb.pipeline.mean(2) as mean, mb.Pipeline("q", {"a": mean}) as q:
        q.save(path)
    return path


@pytest.mark.parametrize("make", PAYLOADS, ids=lambda f: f.__name__.strip("_"))
@pytest.mark.parametrize("command", COMMANDS)
def test_nothing_runs_through_the_command_line(tmp_path, make, command, pipeline):
    marker = tmp_path / "marker"
    path = make(tmp_path, marker)
    (tmp_path / "t.csv").write_text("x\n1\n")
    done = CliRunner().invoke(main, [w.format(p=path, q=pipeline, t=tmp_path / "t.csv") for w in COMMANDS[command]])
    read_only = command == "check" and make is _package  # a manifest alone answers that: it does not fit
    assert done.exit_code == (2 if read_only else 65), done.output
    assert not marker.exists()


SAMPLES = {"keras": np.zeros((2, 2), np.float32), "keras_h5": np.zeros((2, 2), np.float32), "saved_model": {"x": np.zeros(2, np.float32)}}
LIVE = [f for f in PAYLOADS if f not in (_npz, _package)]  # those two nobody opens, at any trust


@pytest.mark.parametrize("make", LIVE, ids=lambda f: f.__name__.strip("_"))
def test_the_payloads_are_live(tmp_path, make):
    """The same file does leave its marker when the caller trusts it in words."""
    marker = tmp_path / "marker"
    path = make(tmp_path, marker)
    with contextlib.suppress(MlbridgeError), mb.load(path, trust="code", sample=SAMPLES.get(make.__name__.strip("_"))):
        pass
    assert marker.exists()
