"""The models that stock clients' published examples need, as ONNX graphs, and a session double with a switch."""

from __future__ import annotations

import threading

import numpy as np
from onnx import TensorProto, helper

from mlbridge.interfaces import UNBOUNDED
from mlbridge.model import Model
from mlbridge.signature import Signature, TensorSpec

I32, STR = TensorProto.INT32, TensorProto.STRING


def _graph(nodes, inputs, outputs):
    info = helper.make_tensor_value_info
    graph = helper.make_graph(nodes, "g", [info(*i) for i in inputs], [info(*o) for o in outputs])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)


def simple() -> bytes:
    """INPUT0, INPUT1 INT32 [1,16]: OUTPUT0 is their sum, OUTPUT1 their difference."""
    nodes = [helper.make_node("Add", ["INPUT0", "INPUT1"], ["OUTPUT0"]), helper.make_node("Sub", ["INPUT0", "INPUT1"], ["OUTPUT1"])]
    shape = ["N", 16]
    return _graph(
        nodes, [("INPUT0", I32, shape), ("INPUT1", I32, shape)], [("OUTPUT0", I32, shape), ("OUTPUT1", I32, shape)]
    ).SerializeToString()


def simple_string() -> bytes:
    """As `simple`, with decimal numbers as text."""
    make = helper.make_node
    nodes = [
        make("Cast", ["INPUT0"], ["a"], to=I32),
        make("Cast", ["INPUT1"], ["b"], to=I32),
        make("Add", ["a", "b"], ["sum"]),
        make("Sub", ["a", "b"], ["difference"]),
        make("Cast", ["sum"], ["OUTPUT0"], to=STR),
        make("Cast", ["difference"], ["OUTPUT1"], to=STR),
    ]
    shape = ["N", 16]
    return _graph(
        nodes, [("INPUT0", STR, shape), ("INPUT1", STR, shape)], [("OUTPUT0", STR, shape), ("OUTPUT1", STR, shape)]
    ).SerializeToString()


def simple_identity() -> bytes:
    """INPUT0 BYTES comes back as OUTPUT0."""
    shape = ["N", 16]
    return _graph(
        [helper.make_node("Identity", ["INPUT0"], ["OUTPUT0"])], [("INPUT0", STR, shape)], [("OUTPUT0", STR, shape)]
    ).SerializeToString()


class Doubler:
    """Answers twice its input; can be held, counts calls, and fails on a value.

    A transport test needs a model whose speed and failures it decides; everything else uses real ones.
    """

    device = "cpu"

    def __init__(self, *, width=3, concurrency=UNBOUNDED, poison=None, factor=2.0, slow_s=0.0):
        spec = TensorSpec("x", "float64", ("rows", width), missing="allow")
        self.signature = Signature([spec], [TensorSpec("y", "float64", ("rows", width), missing="allow")])
        self.max_concurrency = concurrency
        self.poison, self.factor, self.slow_s = poison, factor, slow_s
        self.open = threading.Event()
        self.open.set()
        self.entered = threading.Semaphore(0)
        self.sizes: list[int] = []
        self.seen: list[np.ndarray] = []
        self._pause = threading.Event()
        self.closed = False

    def run(self, feeds, /, *, outputs=None, deadline=None):
        x = feeds["x"]
        self.sizes.append(len(x))
        if len(self.seen) < 100:
            self.seen.append(x.copy())
        self.entered.release()
        while not self.open.wait(0.01):
            if deadline is not None:
                deadline.check()
        if self.slow_s:
            self._pause.wait(self.slow_s)
        if self.poison is not None and (x == self.poison).any():
            raise ValueError("/secret/path: poisoned")
        with np.errstate(all="ignore"):  # clients send every bit pattern
            return {"y": x * self.factor}

    def close(self):
        self.closed = True


def doubler(**keywords) -> tuple[Model, Doubler]:
    session = Doubler(**keywords)
    return Model(session, name="double"), session


def rows(n, width=3, seed=0):
    return np.random.default_rng(seed).normal(size=(n, width))
