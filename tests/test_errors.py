import pickle

import pytest

from mlbridge import errors

CLASSES = [
    getattr(errors, n)
    for n in errors.__all__
    if isinstance(getattr(errors, n), type) and issubclass(getattr(errors, n), errors.MlbridgeError)
]


@pytest.mark.parametrize("kind", CLASSES, ids=lambda c: c.__name__)
def test_every_error_pickles_with_its_hint(kind):
    back = pickle.loads(pickle.dumps(kind("what", hint="do this", runtime="r")))
    assert (type(back), back.message, back.hint, back.runtime, back.code) == (kind, "what", "do this", "r", kind.default_code)


def test_input_error_carries_all_problems():
    back = pickle.loads(pickle.dumps(errors.InputError("two", problems=["a", "b"])))
    assert back.problems == ("a", "b")
    assert isinstance(back, ValueError)


@pytest.mark.parametrize(
    ("kind", "base"),
    [
        ("NotFoundError", LookupError),
        ("BridgeTimeoutError", TimeoutError),
        ("AccessError", PermissionError),
        ("MissingDependencyError", ImportError),
    ],
)
def test_errors_are_what_python_programmers_catch(kind, base):
    assert issubclass(getattr(errors, kind), base)


def test_codes_are_grpcs():
    grpc = pytest.importorskip("grpc")
    assert {c.name: int(c) for c in errors.StatusCode} == {c.name: c.value[0] for c in grpc.StatusCode}
