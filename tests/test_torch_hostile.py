"""PyTorch modules as a hostile user hands them in: every answer is torch's own, or a refusal by type."""

import threading
from typing import NamedTuple

import numpy as np
import pytest

import mlbridge as mb
from mlbridge.errors import ConversionError, InputError, UnsupportedError

torch = pytest.importorskip("torch")
nn = torch.nn
RNG = np.random.default_rng(3)
SEQUENCE = mb.Signature(
    [mb.TensorSpec("x", "float32", ("rows", "t", 4), missing="allow", rounding="nearest")],
    [mb.TensorSpec("last", "float32", ("rows", 3), missing="allow")],
)


def f(*shape):
    return RNG.standard_normal(shape).astype(np.float32)


class Of(nn.Module):
    """A module that computes what a function says, with one linear layer to hand."""

    def __init__(self, function, inputs=4, outputs=2):
        super().__init__()
        torch.manual_seed(0)
        self.function, self.linear = function, nn.Linear(inputs, outputs)

    def forward(self, x):
        return self.function(self, x)


class Masked(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.linear = nn.Linear(4, 3)

    def forward(self, x, mask):
        return self.linear(x).masked_fill(mask.unsqueeze(-1), 0.0), ~mask


class Pair(NamedTuple):
    z: torch.Tensor
    a: torch.Tensor


class Counting(nn.Module):
    def __init__(self):
        super().__init__()
        self.register_buffer("calls", torch.zeros(1))

    def forward(self, x):
        self.calls += 1
        return x + self.calls


class Last(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.cell = nn.GRU(4, 3, batch_first=True)

    def forward(self, x):
        whole, _ = self.cell(x)
        return {"sequence": whole, "last": whole[:, -1]}


def trained():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Dropout(0.5), nn.Linear(8, 2))


def answers(module, feeds):
    """Ask torch itself, in evaluation mode."""
    from mlbridge.frameworks.torch.asking import _flat

    modes = [m.training for m in module.modules()]
    module.eval()
    with torch.no_grad():
        got = _flat(module(*(torch.tensor(v) for v in feeds)))
    for m, mode in zip(module.modules(), modes):
        m.training = mode
    return {k: v.numpy() for k, v in got.items()}


def same(model, module, feeds, rtol=1e-4):
    """The Model answers as torch does, in names, dtypes, shapes and values."""
    names = [s.name for s in model.signature.inputs]
    got, want = model.predict(dict(zip(names, feeds))), answers(module, feeds)
    assert list(got) == list(want)
    for k in want:
        assert (got[k].shape, got[k].dtype) == (want[k].shape, want[k].dtype)
        np.testing.assert_allclose(got[k], want[k], rtol=rtol, atol=rtol / 100)


BATCHES = {
    "batch norm and dropout in training mode": (trained, lambda n: (f(n, 4),)),
    "a boolean mask": (Masked, lambda n: (f(n, 4), RNG.random(n) > 0.5)),
    "a named tuple": (lambda: Of(lambda m, x: Pair(m.linear(x), m.linear(x).softmax(-1))), lambda n: (f(n, 4),)),
    "nested answers": (lambda: Of(lambda m, x: {"b": [x, x + 1], "a": {"q": x, "p": (x.argmax(-1), None)}}), lambda n: (f(n, 4),)),
    "one tensor twice, and the input itself": (lambda: Of(lambda m, x: (m.linear(x), m.linear(x), x)), lambda n: (f(n, 4),)),
    "integers, booleans and halves": (lambda: Of(lambda m, x: {"i": x.to(torch.int64), "b": x > 0, "h": x.half()}), lambda n: (f(n, 4),)),
    "a scalar": (lambda: Of(lambda m, x: m.linear(x).mean()), lambda n: (f(n, 4),)),
    "a selection of values": (lambda: Of(lambda m, x: x[x > 0]), lambda n: (f(n, 4),)),
    "a batch normalised by itself": (lambda: Of(lambda m, x: (x - x.mean(0)) / (x.norm(dim=0) + 1)), lambda n: (f(n + 1, 4),)),
    "rows that know their place": (lambda: Of(lambda m, x: x + torch.arange(x.shape[0]).unsqueeze(-1)), lambda n: (f(n, 4),)),
    "a script": (lambda: torch.jit.script(trained().eval()), lambda n: (f(n, 4),)),
    "a module compiled by torch": (lambda: torch.compile(trained().eval(), backend="eager"), lambda n: (f(n, 4),)),
    "a module in DataParallel": (lambda: nn.DataParallel(trained().eval()), lambda n: (f(n, 4),)),
}


@pytest.mark.filterwarnings("ignore:.*torch.jit.*:FutureWarning")
@pytest.mark.parametrize("via", ["onnx", "native"])
@pytest.mark.parametrize("name", BATCHES)
def test_batches_of_every_size_answer_as_torch(name, via):
    make, feeds = BATCHES[name]
    module, sample = make(), feeds(6)
    with mb.wrap(module, sample=sample, via=via) as m:
        for n in (1, 2, 7, 40):
            same(m, module, feeds(n))


def test_float64_stays_float64():
    module = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 2)).double()
    with mb.convert(module, sample=RNG.standard_normal((6, 4))) as m:
        same(m, module, (RNG.standard_normal((5, 4)),), rtol=1e-9)


@pytest.mark.parametrize("via", ["onnx", "native"])
def test_a_module_in_training_mode_stays_as_it_was(via):
    module = trained().train()
    module[1].eval()  # a frozen batch norm, say
    before = [m.training for m in module.modules()]
    with mb.wrap(module, sample=f(6, 4), via=via) as m:
        m.predict(f(3, 4))
        assert [p.training for p in module.modules()] == before


def test_threads_never_see_a_native_module_in_training_mode():
    module, x = trained().train(), f(64, 4)
    want = answers(module, (x,))["output"]
    wrong = []
    with mb.wrap(module, sample=x, via="native") as m:

        def ask():
            for _ in range(50):
                if not np.allclose(m.predict(x)["output"], want):
                    wrong.append(1)

        threads = [threading.Thread(target=ask) for _ in range(4)]
        for t in threads:
            t.start()
        for t in threads:
            t.join()
    assert not wrong
    assert module.training


def test_outputs_follow_an_axis_that_the_signature_makes_dynamic():
    module = Last()
    for via in ("onnx", "native"):
        with mb.wrap(module, sample=f(6, 5, 4), signature=SEQUENCE, via=via) as m:
            assert m.signature.output("sequence").shape == ("rows", "t", 3)
            for n, t in ((1, 2), (3, 5), (2, 11)):
                same(m, module, (f(n, t, 4),))


@pytest.mark.parametrize("via", ["onnx", "native"])
def test_an_exported_program_is_taken_with_its_dynamic_axis(via):
    module, batch = Masked().eval(), torch.export.Dim("batch")
    example = (torch.tensor(f(6, 4)), torch.tensor(RNG.random(6) > 0.5))
    program = torch.export.export(module, example, dynamic_shapes=({0: batch}, {0: batch}))
    with mb.wrap(program, sample={"x": f(8, 4), "mask": RNG.random(8) > 0.5}, via=via) as m:
        for n in (2, 7):
            same(m, module, (f(n, 4), RNG.random(n) > 0.5))


def test_an_exported_program_of_one_size_says_so():
    module = trained().eval()
    with mb.wrap(torch.export.export(module, (torch.tensor(f(6, 4)),)), sample=f(6, 4)) as m:
        same(m, module, (f(6, 4),))
        with pytest.raises(InputError, match="expected \\(6, 4\\)"):
            m.predict(f(3, 4))


@pytest.mark.filterwarnings("ignore:.*torch.jit.*:FutureWarning")
def test_a_script_keeps_both_paths():
    script = torch.jit.script(Branching())
    with mb.convert(script, sample=f(6, 4)) as m:
        for x in (np.abs(f(3, 4)), -np.abs(f(3, 4))):
            same(m, script, (x,))


class Branching(nn.Module):
    def forward(self, x):
        if x.sum() > 0:
            return x * 2
        return x * 3


REFUSED = {
    "a path that depends on values": (Branching, "depends on the values"),
    "a path that depends on the batch": (lambda: Of(lambda m, x: x * 2 if x.shape[0] > 4 else x * 3), "at most 4"),
    "state": (Counting, "calls"),
    "random numbers": (lambda: Of(lambda m, x: x + torch.rand_like(x)), "differently"),
    "an output named as the input": (lambda: Of(lambda m, x: {"x": m.linear(x)}), "name of an input"),
}


@pytest.mark.parametrize("rows", [2, 6])
@pytest.mark.parametrize("name", REFUSED)
def test_what_a_graph_cannot_say_is_refused_and_runs_natively(name, rows, capfd):
    make, words = REFUSED[name]
    with pytest.raises(ConversionError, match=words):
        mb.convert(make(), sample=f(rows, 4))
    with mb.wrap(make(), sample=f(rows, 4)) as m:
        assert m.route.runtime == "python"
    assert "GraphModule" not in capfd.readouterr().err  # torch prints the graph it gave up on


def test_a_path_that_depends_on_another_dynamic_axis_is_refused():
    signature = mb.Signature(
        [mb.TensorSpec("x", "float32", ("rows", "t"), missing="allow", rounding="nearest")],
        [mb.TensorSpec("output", "float32", ("rows", "t"), missing="allow")],
    )
    module = Of(lambda m, x: x * (1 if x.shape[1] > 6 else 2))
    with pytest.raises(ConversionError, match="at most 6"):
        mb.convert(module, sample=f(4, 5), signature=signature)
    with mb.wrap(module, sample=f(4, 5), signature=signature) as m:
        same(m, module, (f(3, 9),))


@pytest.mark.parametrize(
    ("module", "sample", "error", "words"),
    [
        (lambda: nn.Linear(4, 2), f(6, 5), InputError, "fails on the sample"),
        (lambda: nn.Linear(4, 2), np.array([["a", 1]], object), InputError, "object"),
        (lambda: nn.Linear(4, 2), np.ones((2, 4), complex), InputError, "complex"),
        (lambda: nn.Linear(4, 2).bfloat16(), f(6, 4), InputError, "bfloat16"),
        (lambda: Of(lambda m, x: {"a": {"b": x}, "a_b": x}), f(6, 4), UnsupportedError, "'a_b'"),
        (lambda: Of(lambda m, x: {"y": x, "n": 3}), f(6, 4), UnsupportedError, "int"),
        (lambda: Of(lambda m, x: m.linear(x["a"])), {"a": f(6, 4)}, InputError, "no parameter 'a'"),
    ],
    ids=["width", "objects", "complex", "bfloat16", "one name twice", "a number", "a dict"],
)
def test_a_module_that_does_not_fit_is_refused_by_type(module, sample, error, words):
    with pytest.raises(error) as caught:
        mb.wrap(module(), sample=sample)
    assert words in f"{caught.value} {caught.value.hint}"


def test_a_sample_of_tensors_is_taken():
    with mb.wrap(Masked(), sample=(torch.tensor(f(6, 4), requires_grad=True), torch.tensor(RNG.random(6) > 0.5))) as m:
        assert m.report.verified
