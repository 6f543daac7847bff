"""PyTorch networks: expected values are torch's own."""

import numpy as np
import pandas as pd
import pytest

import mlbridge as mb
from mlbridge.errors import ConversionError, InputError, UnsupportedError

torch = pytest.importorskip("torch")
RNG = np.random.default_rng(1)
X = RNG.normal(size=(12, 4)).astype(np.float32)


def _mlp(seed=0):
    torch.manual_seed(seed)
    return torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 2)).eval()


class Two(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = torch.nn.Linear(4, 3), torch.nn.Embedding(10, 3)

    def forward(self, numbers, tokens):
        e = self.b(tokens).mean(dim=1)
        return {"sum": self.a(numbers) + e, "norm": e.norm(dim=-1)}


class Dropping(torch.nn.Module):
    def forward(self, x):
        if x.sum() > 0:
            return x * 2
        return x[:1]


def test_a_network_converts_with_a_dynamic_batch():
    net = _mlp()
    with mb.wrap(net, sample=X) as m:
        assert m.route.runtime == "onnx"
        assert m.report.verified
        for n in (1, 5, 33):
            x = RNG.normal(size=(n, 4)).astype(np.float32)
            np.testing.assert_allclose(m.predict(x)["output"], net(torch.tensor(x)).detach().numpy(), rtol=1e-4, atol=1e-6)


def test_float64_values_are_rounded_where_the_network_computes_in_float32():
    with mb.wrap(_mlp(), sample=X) as m:
        assert m.signature.inputs[0].rounding == "nearest"
        m.predict(X.astype(np.float64) + 1e-9)


def test_names_of_several_inputs_and_outputs_are_kept():
    net = Two().eval()
    sample = {"numbers": X, "tokens": RNG.integers(0, 10, (12, 6))}
    signature = mb.Signature(
        [mb.TensorSpec("tokens", "int64", ("rows", "length"))], [mb.TensorSpec("norm", "float32", ("rows",), missing="allow")]
    )
    with mb.wrap(net, sample=sample, signature=signature) as m:
        assert [s.name for s in m.signature.inputs] == ["numbers", "tokens"]
        assert m.route.runtime == "onnx"
        longer = {"numbers": X[:3], "tokens": RNG.integers(0, 10, (3, 9))}
        want = net(torch.tensor(longer["numbers"]), torch.tensor(longer["tokens"]))
        got = m.predict(longer)
        assert list(got) == ["sum", "norm"]
        np.testing.assert_allclose(got["sum"], want["sum"].detach().numpy(), rtol=1e-4, atol=1e-6)


def test_a_table_gives_the_input_its_columns():
    frame = pd.DataFrame(X, columns=list("abcd"))
    with mb.wrap(_mlp(), sample=frame) as m:
        got = m.predict(frame[["d", "c", "b", "a"]])
        np.testing.assert_allclose(got[["output_0", "output_1"]], m.predict(X)["output"], rtol=1e-6)


def test_what_cannot_be_exported_runs_natively_and_says_so(caplog):
    net = Dropping().eval()
    with pytest.raises(ConversionError, match=r"torch cannot export|answers differently"):
        mb.convert(net, sample=X)
    with mb.wrap(net, sample=X) as m:
        assert m.route.runtime == "python"
        assert m.route.considered


def test_a_module_needs_a_sample():
    with pytest.raises(InputError, match="sample"):
        mb.wrap(_mlp())


def test_weights_alone_are_no_model(tmp_path):
    torch.save(_mlp().state_dict(), tmp_path / "w.pt")
    with pytest.raises((UnsupportedError, mb.MlbridgeError), match=r"state dict|not a module"):
        mb.load(tmp_path / "w.pt", trust="code", sample=X)


def test_a_whole_module_loads_at_trust_code(tmp_path):
    torch.save(_mlp(), tmp_path / "m.pt")
    with mb.load(tmp_path / "m.pt", trust="code", sample=X) as m:
        np.testing.assert_allclose(m.predict(X)["output"], _mlp()(torch.tensor(X)).detach().numpy(), rtol=1e-4, atol=1e-6)


class Optional(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(4, 2)

    def forward(self, x, mask=None, *, scale=None):
        y = self.layer(x)
        y = y if mask is None else y * mask * 100
        return y if scale is None else y * scale


class Recurrent(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.cell = torch.nn.LSTM(4, 3, batch_first=True)

    def forward(self, sequence):
        return self.cell(sequence)


@pytest.mark.parametrize("via", ["onnx", "native"])
def test_a_sample_by_name_reaches_the_parameters_of_that_name(via):
    torch.manual_seed(0)
    net, sample = Optional().eval(), {"x": X, "scale": X[:, :1].copy()}
    want = net(torch.tensor(X), scale=torch.tensor(sample["scale"])).detach().numpy()
    with mb.wrap(net, sample=sample, via=via) as m:
        np.testing.assert_allclose(m.predict(sample)["output"], want, rtol=1e-4, atol=1e-6)


def test_nested_answers_are_flattened_in_their_order():
    torch.manual_seed(0)
    net, x = Recurrent().eval(), RNG.normal(size=(6, 5, 4)).astype(np.float32)
    with mb.wrap(net, sample=x, via="native") as m:
        got = m.predict(x)
    out, (hidden, state) = net(torch.tensor(x))
    assert list(got) == ["output_0", "output_1_0", "output_1_1"]
    for value, want in zip(got.values(), (out, hidden, state), strict=True):
        np.testing.assert_allclose(value, want.detach().numpy(), rtol=1e-5, atol=1e-6)
