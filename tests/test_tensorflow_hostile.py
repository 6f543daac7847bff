"""Keras and TensorFlow models as a hostile user hands them in: every answer is TensorFlow's own, or a refusal by type."""

import numpy as np
import pytest

import mlbridge as mb
from mlbridge.errors import ConversionError, InputError, UnsupportedError

keras = pytest.importorskip("keras")
tf = pytest.importorskip("tensorflow")
K = keras.layers
RNG = np.random.default_rng(5)
pytestmark = pytest.mark.filterwarnings("ignore:`build\\(\\)` was called on layer:UserWarning")  # subclasses that use not every layer


def f(*shape):
    return RNG.standard_normal(shape).astype(np.float32)


@keras.saving.register_keras_serializable()
class Scale(K.Layer):
    """A layer of the user's own that acts otherwise in training."""

    def build(self, shape):
        self.w = self.add_weight(shape=(shape[-1],), initializer="random_normal")

    def call(self, x, training=False):
        return x * self.w * (3.0 if training else 1.0)


class Sub(keras.Model):
    """A subclass: the graph is whatever `call` does."""

    def __init__(self, function):
        super().__init__()
        self.dense, self.drop, self.function = K.Dense(3), K.Dropout(0.5), function

    def call(self, x, training=False):
        return self.function(self, x, training)


def sequential(*layers, shape=(4,), dtype=None):
    keras.utils.set_random_seed(0)
    return keras.Sequential([keras.Input(shape, dtype=dtype), *layers])


def trained():
    net = sequential(K.BatchNormalization(), K.Dense(8), K.Dropout(0.5), K.GaussianNoise(1.0), K.Dense(2))
    net.compile("adam", "mse")
    net.fit(f(64, 4) * 3 + 2, f(64, 2), epochs=2, verbose=0)
    return net


def attention():
    keras.utils.set_random_seed(0)
    x = keras.Input((None, 8))
    return keras.Model(x, K.LayerNormalization()(K.MultiHeadAttention(2, 4)(x, x)))


TOKENS = {"shape": (None,), "dtype": "int32"}
CASES = {
    "trained with dropout and batch norm": (trained, lambda n: f(n, 4)),
    "a custom layer": (lambda: sequential(Scale(), K.Dense(2)), lambda n: f(n, 4)),
    "tokens of any length": (
        lambda: sequential(K.Embedding(20, 5), K.GlobalAveragePooling1D(), K.Dense(2), **TOKENS),
        lambda n: RNG.integers(0, 20, (n, n + 2)).astype(np.int32),
    ),
    "a masked LSTM": (
        lambda: sequential(K.Embedding(20, 5, mask_zero=True), K.LSTM(4), **TOKENS),
        lambda n: RNG.integers(0, 3, (n, n + 2)).astype(np.int32),
    ),
    "attention over any length": (attention, lambda n: f(n, n + 1, 8)),
    "images of any size": (
        lambda: sequential(K.Rescaling(1 / 255), K.Conv2D(4, 3, padding="same"), K.GlobalAveragePooling2D(), shape=(None, None, 3)),
        lambda n: f(n, 8 + n, 9, 3),
    ),
    "a layer that declares a wrong shape": (lambda: sequential(K.Dense(6, activation="glu")), lambda n: f(n, 4)),
    "a subclass with a dict": (
        lambda: Sub(lambda m, x, t: {"y": m.drop(m.dense(x), training=t), "z": tf.reduce_sum(x, -1)}),
        lambda n: f(n, 4),
    ),
    "float64 out of float32": (lambda: Sub(lambda m, x, t: tf.cast(x, tf.float64) * 2), lambda n: f(n, 4)),
    "a tf.function": (
        lambda: tf.function(lambda u: tf.nn.relu(u) * 2, input_signature=[tf.TensorSpec([None, 4], name="u")]),
        lambda n: f(n, 4),
    ),
}


def parts(answer):
    return list(answer.values()) if isinstance(answer, dict) else [answer]


@pytest.mark.parametrize("via", ["onnx", "native"])
@pytest.mark.parametrize("name", CASES)
def test_batches_of_every_size_answer_as_tensorflow(name, via):
    make, rows = CASES[name]
    net, sample = make(), rows(6)
    with mb.wrap(net, sample=sample, via=via) as m:
        for n in (1, 2, 7, 30):
            x = rows(n)
            want = parts(net(x, training=False) if isinstance(net, keras.Model) else net(x))
            for got, w in zip(m.predict(x).values(), want, strict=True):
                assert (got.shape, got.dtype) == (w.shape, w.dtype.as_numpy_dtype)
                np.testing.assert_allclose(got, w, rtol=1e-4, atol=1e-6)


def test_float64_stays_float64():
    net = sequential(K.Dense(8, activation="tanh", dtype="float64"), K.Dense(2, dtype="float64"), dtype="float64")
    with mb.convert(net, sample=RNG.standard_normal((6, 4))) as m:
        x = RNG.standard_normal((5, 4))
        np.testing.assert_allclose(m.predict(x)["output"], net(x), rtol=1e-9)


@pytest.mark.parametrize("via", ["onnx", "native"])
def test_two_inputs_and_two_outputs_keep_their_names(via):
    a, b = keras.Input((4,), name="a"), keras.Input((3,), name="b")
    h = K.Concatenate()([K.Dense(5)(a), b])
    net = keras.Model([a, b], [K.Dense(1, name="left")(h), K.Dense(2, name="right")(h)])
    with mb.wrap(net, sample=(f(6, 4), f(6, 3)), via=via) as m:
        for n in (1, 7):
            x = {"b": f(n, 3), "a": f(n, 4)}
            got, want = m.predict(x), net([x["a"], x["b"]])
            assert list(got) == ["left", "right"]
            for g, w in zip(got.values(), want, strict=True):
                np.testing.assert_allclose(g, w, rtol=1e-4, atol=1e-6)


REFUSED = {
    "a path that depends on values": (lambda: Sub(lambda m, x, t: m.dense(x) if tf.reduce_sum(x) > 0 else -m.dense(x)), lambda n: f(n, 4)),
    "a path that depends on the batch": (
        lambda: Sub(lambda m, x, t: m.dense(x) if (x.shape[0] or 0) > 4 else -m.dense(x)),
        lambda n: f(n, 4),
    ),
    "random numbers": (lambda: Sub(lambda m, x, t: x + tf.random.uniform(tf.shape(x))), lambda n: f(n, 4)),
    "text": (
        lambda: sequential(K.StringLookup(vocabulary=["a", "b"]), shape=(1,), dtype="string"),
        lambda n: np.array([["a"]] * n, object),
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_a_graph_cannot_say_is_refused_and_runs_natively(name):
    make, rows = REFUSED[name]
    with pytest.raises(ConversionError):
        mb.convert(make(), sample=rows(2))
    with mb.wrap(make(), sample=rows(2)) as m:
        assert m.route.runtime == "python"


def test_text_is_answered_natively():
    net = sequential(K.StringLookup(vocabulary=["a", "b"], invert=False), shape=(1,), dtype="string")
    with mb.wrap(net, sample=np.array([["a"], ["zz"]], object)) as m:
        x = np.array([["b"], ["é"], ["a"]], object)
        np.testing.assert_array_equal(m.predict(x)["output"], net(tf.constant(x)))


def test_two_outputs_of_one_name_are_refused():
    x = keras.Input((4,), name="x")
    net = keras.Model(x, {"p": [K.Dense(2)(x), K.Dense(1)(x)], "p_0": K.Dense(3)(x)})
    with pytest.raises(UnsupportedError, match="'p_0'"):
        mb.wrap(net, sample=f(4, 4))


@pytest.mark.parametrize(
    ("sample", "error"),
    [(f(5, 3), InputError), ({"zz": f(5, 4)}, InputError), ([[1, 2], [3]], InputError), ("text", InputError)],
    ids=["width", "name", "ragged", "text"],
)
def test_a_sample_that_does_not_fit_is_refused_by_type(sample, error):
    with pytest.raises(error):
        mb.wrap(sequential(K.Dense(2)), sample=sample)


class Module(tf.Module):
    """What SavedModels are made of: two inputs, several signatures, text, a branch and a loop."""

    def __init__(self):
        super().__init__()
        self.w = tf.Variable(f(4, 2))

    @tf.function(input_signature=[tf.TensorSpec([None, 4], name="u"), tf.TensorSpec([None, 2], name="v")])
    def both(self, u, v):
        return {"sum": u @ self.w + v, "diff": u @ self.w - v}

    @tf.function(input_signature=[tf.TensorSpec([None, 4], name="u")])
    def branch(self, u):
        return {"c": tf.cond(tf.reduce_sum(u) > 0, lambda: u @ self.w, lambda: -(u @ self.w))}

    @tf.function(input_signature=[tf.TensorSpec([None, 4], name="u")])
    def loop(self, u):
        y, steps = u @ self.w, tf.constant(0)
        while tf.reduce_sum(tf.abs(y)) < 100.0:
            y, steps = y * 1.5, steps + 1
        return {"y": y, "steps": tf.reshape(steps, [1])}

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="t")])
    def text(self, t):
        return {"n": tf.strings.length(t)}


@pytest.mark.parametrize("name", ["both", "branch", "loop"])
@pytest.mark.parametrize("via", ["onnx", "native"])
def test_saved_signatures_answer_as_tensorflow(tmp_path, name, via):
    module = Module()
    function = getattr(module, name)
    tf.saved_model.save(module, str(tmp_path / "m"), signatures={"serving_default": function, "other": module.text})
    names = ["u", "v"] if name == "both" else ["u"]
    rows = lambda n, sign: {k: sign * np.abs(f(n, w)) for k, w in zip(names, (4, 2))}  # noqa: E731
    with mb.load(tmp_path / "m", trust="code", sample=rows(5, 1), via=via) as m:
        for n, sign in ((1, 1), (7, -1), (30, 1)):
            x = rows(n, np.float32(sign))
            got, want = m.predict(x), function(**x)
            assert sorted(got) == sorted(want)
            for k in want:
                np.testing.assert_allclose(got[k], want[k], rtol=1e-4, atol=1e-5)


def test_a_saved_model_of_text_or_without_a_signature_says_so(tmp_path):
    module = Module()
    tf.saved_model.save(module, str(tmp_path / "text"), signatures={"serving_default": module.text})
    with mb.load(tmp_path / "text", trust="code", sample={"t": np.array(["a", "éé"], object)}) as m:
        assert m.predict({"t": np.array(["abc", ""], object)})["n"].tolist() == [3, 0]
        assert "text" in m.route.considered[0]
    tf.saved_model.save(module, str(tmp_path / "none"), signatures={})
    with pytest.raises(UnsupportedError, match="no signature"):
        mb.load(tmp_path / "none", trust="code")
