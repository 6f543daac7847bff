"""The list of refused estimators is what the docs say, and does not grow."""

from __future__ import annotations

from pathlib import Path

import pytest

from mlbridge.frameworks.sklearn.refused import PARTLY, REFUSED, document

_MOST_REFUSED = 7  # lower it when an estimator learns to convert; never raise it


def test_the_refused_list_does_not_grow():
    assert len(REFUSED) <= _MOST_REFUSED


def test_the_docs_page_is_generated_from_the_list():
    page = Path(__file__).parents[1] / "docs" / "sklearn-refused.md"
    assert page.read_text() == document(), "run: python -m mlbridge.frameworks.sklearn.refused > docs/sklearn-refused.md"


def test_every_refusal_gives_a_reason():
    assert all(len(why) > 20 for why in REFUSED.values())
    assert all(PARTLY.values())


@pytest.mark.parametrize("name", sorted(REFUSED))
def test_a_refused_class_has_no_emitter_or_refuses_itself(name, tmp_path):
    import sklearn_zoo as zoo

    from mlbridge.errors import ConversionError
    from mlbridge.frameworks.sklearn import SklearnFramework

    framework = SklearnFramework()
    model, sample = zoo.make(name)
    signature = framework.infer(model, sample)
    with pytest.raises(ConversionError):
        framework.convert(model, tmp_path, signature=signature)
