"""Each of scikit-learn's estimators converts and verifies, or is refused by type and answers natively; none is silently wrong."""

from __future__ import annotations

import random

import pytest
import sklearn_zoo as zoo
from sklearn_check import FRAMEWORK, session

from mlbridge.conversion.verification import verify
from mlbridge.errors import ConversionError
from mlbridge.frameworks.sklearn.refused import REFUSED

NAMES = zoo.names()
SAMPLE = set(random.Random(0).sample(NAMES, 40))
TOLERANCE = 1e-9


def outcome(model, sample, folder):
    """Return 'verified', 'refused' or 'wrong'; raise what is none of these."""
    signature = FRAMEWORK.infer(model, sample)
    native = FRAMEWORK.native(model, signature=signature)
    feeds = FRAMEWORK.probe(model, signature=signature, seed=0)
    try:
        path = FRAMEWORK.convert(model, folder, signature=signature)
    except ConversionError:
        answers = native(feeds)
        assert list(answers) == [s.name for s in signature.outputs]
        for spec in signature.outputs:
            assert answers[spec.name].dtype == (object if spec.dtype == "string" else spec.dtype)
            assert answers[spec.name].ndim == len(spec.shape)
        return "refused", None
    report = verify(native, session(path), signature, feeds, tolerance=TOLERANCE)
    return "verified" if report.verified else "wrong", report


@pytest.mark.parametrize("name", [n if n in SAMPLE else pytest.param(n, marks=pytest.mark.full) for n in NAMES])
def test_estimator_verifies_or_is_on_the_refused_list(name, tmp_path):
    model, sample = zoo.make(name)
    got, report = outcome(model, sample, tmp_path)
    want = "refused" if name in REFUSED else "verified"
    assert got == want, report
