"""Files that would run code, against every door: the marker never appears below trust `code`."""

import pickle
import zipfile

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
        return (open, (self.marker, "w"))


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
    code = f"lambda x: (open({str(marker)!r}, 'w'), x)[1]"
    model = keras.Sequential([keras.Input((2,)), keras.layers.Lambda(eval(code))])
    marker.unlink(missing_ok=True)
    model.save(folder / "m.keras")
    marker.unlink(missing_ok=True)
    return folder / "m.keras"


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
}
PAYLOADS = [_pickle, _joblib, _torch, _npz, _keras, _package]


@pytest.mark.parametrize("make", PAYLOADS, ids=lambda f: f.__name__.strip("_"))
@pytest.mark.parametrize("door", DOORS)
def test_nothing_runs_through_the_library(tmp_path, make, door):
    marker = tmp_path / "marker"
    path = make(tmp_path, marker)
    with pytest.raises(MlbridgeError):
        DOORS[door](path)
    assert not marker.exists()


@pytest.mark.parametrize("make", PAYLOADS, ids=lambda f: f.__name__.strip("_"))
@pytest.mark.parametrize("command", COMMANDS)
def test_nothing_runs_through_the_command_line(tmp_path, make, command):
    marker = tmp_path / "marker"
    path = make(tmp_path, marker)
    (tmp_path / "t.csv").write_text("x\n1\n")
    done = CliRunner().invoke(main, [w.format(p=path, t=tmp_path / "t.csv") for w in COMMANDS[command]])
    assert done.exit_code == 65, done.output
    assert not marker.exists()


def test_the_payloads_are_live(tmp_path):
    """The same file does leave its marker when the caller trusts it in words."""
    marker = tmp_path / "marker"
    path = _pickle(tmp_path, marker)
    with pytest.raises(MlbridgeError):
        mb.load(path, trust="code")
    assert marker.exists()
