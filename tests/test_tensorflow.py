"""Keras 3 models and SavedModels: expected values are TensorFlow's own."""

import numpy as np
import pytest

import mlbridge as mb

keras = pytest.importorskip("keras")
tf = pytest.importorskip("tensorflow")
RNG = np.random.default_rng(1)
X = RNG.normal(size=(10, 4)).astype(np.float32)


def _sequential():
    keras.utils.set_random_seed(0)
    return keras.Sequential(
        [
            keras.Input((4,), name="numbers"),
            keras.layers.Dense(6, activation="gelu"),
            keras.layers.Dense(2, activation="softmax", name="answer"),
        ]
    )


def _functional():
    keras.utils.set_random_seed(1)
    a, b = keras.Input((4,), name="a"), keras.Input((3,), name="b")
    h = keras.layers.Concatenate()([keras.layers.Dense(5)(a), b])
    return keras.Model([a, b], {"left": keras.layers.Dense(1)(h), "right": keras.layers.Dense(2)(h)})


def test_a_sequential_model_converts():
    net = _sequential()
    with mb.wrap(net, sample=X) as m:
        assert m.route.runtime == "onnx"
        assert m.report.verified
        for n in (1, 7):
            got = m.predict(X[:n])
            np.testing.assert_allclose(next(iter(got.values())), net(X[:n]).numpy(), rtol=1e-4, atol=1e-6)


def test_several_inputs_and_named_outputs_are_kept():
    net = _functional()
    sample = {"a": X, "b": X[:, :3].copy()}
    with mb.wrap(net, sample=sample) as m:
        assert [s.name for s in m.signature.inputs] == ["a", "b"]
        got, want = m.predict(sample), net([sample["a"], sample["b"]])
        assert sorted(got) == ["left", "right"]
        for k in got:
            np.testing.assert_allclose(got[k], want[k].numpy(), rtol=1e-4, atol=1e-6)
        assert m.route.runtime == "onnx"


def test_a_convolution_converts():
    keras.utils.set_random_seed(2)
    net = keras.Sequential(
        [keras.Input((8, 8, 1)), keras.layers.Conv2D(3, 3, activation="relu"), keras.layers.GlobalAveragePooling2D(), keras.layers.Dense(1)]
    )
    x = RNG.normal(size=(4, 8, 8, 1)).astype(np.float32)
    with mb.convert(net, sample=x) as m:
        np.testing.assert_allclose(next(iter(m.predict(x).values())), net(x).numpy(), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("form", ["keras", "savedmodel"])
def test_saved_models_load_at_trust_code_only(tmp_path, form):
    net = _sequential()
    path = tmp_path / ("m.keras" if form == "keras" else "saved")
    net.save(path) if form == "keras" else net.export(str(path), verbose=False)
    with pytest.raises(mb.errors.UntrustedArtifactError):
        mb.load(path)
    with mb.load(path, trust="code", sample=X) as m:
        np.testing.assert_allclose(next(iter(m.predict(X).values())), net(X).numpy(), rtol=1e-4, atol=1e-6)
        assert m.route.runtime == "onnx", m.route


def test_dicts_written_in_another_order_than_sorted_keep_their_tensors():
    keras.utils.set_random_seed(4)
    b, a = keras.Input((4,), name="b"), keras.Input((4,), name="a")
    net = keras.Model({"b": b, "a": a}, {"z": keras.layers.Dense(1)(b), "k": keras.layers.Dense(2)(a)})
    sample = {"a": X, "b": 2 * X}
    want = net(sample)
    for via in ("onnx", "native"):
        with mb.wrap(net, sample=sample, via=via) as m:
            got = m.predict(sample)
        assert {k: v.shape for k, v in got.items()} == {"z": (10, 1), "k": (10, 2)}
        for k in got:
            np.testing.assert_allclose(got[k], want[k].numpy(), rtol=1e-4, atol=1e-6)


def test_constants_of_a_normalization_layer_are_no_inputs():
    keras.utils.set_random_seed(5)
    scale = keras.layers.Normalization()
    scale.adapt(X)
    net = keras.Sequential([keras.Input((4,)), scale, keras.layers.Dense(2, activation="relu")])
    with mb.convert(net, sample=X) as m:
        np.testing.assert_allclose(m.predict(X)["output"], net(X).numpy(), rtol=1e-4, atol=1e-6)
