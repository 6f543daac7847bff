"""Every seeded bug must fail the kit: a check that no broken double fails proves nothing."""

import numpy as np
import pytest

from mlbridge.errors import MlbridgeError
from mlbridge.model import Model
from mlbridge.signature import Signature, TensorSpec
from mlbridge.testing import FunctionSession, ModelKit

SIGNATURE = Signature(
    [TensorSpec("x", "float64", ("rows", 2))], [TensorSpec("y", "float64", ("rows",)), TensorSpec("z", "float64", ("rows", 2))]
)
FEEDS = {"x": np.arange(20.0).reshape(10, 2)}


def right(feeds):
    x = feeds["x"]
    return {"y": x.sum(axis=1), "z": x * 2}


class Kit(ModelKit):
    function = staticmethod(right)
    session_class = FunctionSession

    def open_model(self):
        return Model(self.session_class(SIGNATURE, self.function))

    def golden(self):
        return FEEDS, right(FEEDS)


def _passes(kit, check, *args):
    made = kit()
    made._open = []
    try:
        getattr(made, check)(*args)
    except (AssertionError, MlbridgeError, pytest.fail.Exception, ValueError, KeyError, IndexError):
        return False
    finally:
        for m in made._open:
            m.close()
    return True


def _modifies(feeds):
    feeds["x"].setflags(write=True) if not feeds["x"].flags.writeable else None
    out = {k: v.copy() for k, v in right(feeds).items()}
    feeds["x"] *= 2
    return out


BUFFERS = {"y": np.zeros(10), "z": np.zeros((10, 2))}


def _aliases(feeds):
    made = right(feeds)
    for k, v in made.items():
        BUFFERS[k][: len(v)] = v
    return {k: BUFFERS[k][: len(v)] for k, v in made.items()}


CALLS = iter(range(10**9))


class NoClose(FunctionSession):
    def close(self):
        pass


class CloseOnce(FunctionSession):
    def close(self):
        if self.closed:
            raise RuntimeError("closed twice")
        super().close()


class AllOutputs(FunctionSession):
    def run(self, feeds, /, *, outputs=None, deadline=None):
        return super().run(feeds, outputs=None, deadline=deadline)


class WrongDevice(FunctionSession):
    device = "cuda:0"


BUGS = {
    "wrong values": ("test_01_outputs_equal_the_golden_values", dict(function=lambda f: {"y": f["x"].sum(1) + 1e-6, "z": f["x"] * 2})),
    "wrong dtype": (
        "test_02_names_order_and_dtypes_are_as_declared",
        dict(function=lambda f: {k: v.astype(np.float32) for k, v in right(f).items()}),
    ),
    "modified input": ("test_03_inputs_are_not_modified", dict(function=_modifies)),
    "squeezed row": ("test_05_one_row_keeps_its_axis", dict(function=lambda f: {k: np.squeeze(v) for k, v in right(f).items()})),
    "aliased outputs": ("test_07_outputs_do_not_alias_across_calls", dict(function=_aliases)),
    "batch dependent": ("test_10_a_batch_equals_its_rows", dict(function=lambda f: {"y": f["x"].sum(1) - f["x"].mean(), "z": f["x"] * 2})),
    "order dependent": ("test_10_a_batch_equals_its_rows", dict(function=lambda f: {"y": np.cumsum(f["x"].sum(1)), "z": f["x"] * 2})),
    "never twice the same": (
        "test_11_twice_gives_the_same_answer",
        dict(function=lambda f: {"y": f["x"].sum(1) + 1e-12 * next(CALLS), "z": f["x"] * 2}),
    ),
    "usable after close": ("test_13_close_twice_is_harmless_and_use_afterwards_refused", dict(session_class=NoClose)),
    "wrong device": ("test_18_device_is_the_real_one", dict(session_class=WrongDevice)),
    "ignores outputs": ("test_21_outputs_selects_exactly_those", dict(session_class=AllOutputs)),
}


@pytest.mark.parametrize("name", BUGS)
def test_the_bug_fails_its_check(name):
    check, bug = BUGS[name]
    kit = type("Broken", (Kit,), {k: staticmethod(v) if k == "function" else v for k, v in bug.items()})
    assert _passes(Kit, check), "the right double must pass"
    assert not _passes(kit, check)


class TestTheRightDouble(Kit):
    pass
