"""Each R model of the catalogue, converted from its file alone, answers what R's predict answers in the same run."""

from __future__ import annotations

import importlib.util
import re
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.r

FOLDER = Path(__file__).parent / "r_models"
TOLERANCE = 1e-9
CATALOGUE = re.findall(r'^\s*keep\("([^"]+)"', (FOLDER / "catalogue.R").read_text(encoding="utf-8"), re.MULTILINE)


def _parity():
    if "r_models_parity" not in sys.modules:
        spec = importlib.util.spec_from_file_location("r_models_parity", FOLDER / "parity.py")
        module = importlib.util.module_from_spec(spec)
        sys.modules["r_models_parity"] = module
        spec.loader.exec_module(module)
    return sys.modules["r_models_parity"]


@pytest.fixture(scope="session")
def fitted(tmp_path_factory):
    """Fit the catalogue in R, convert each model, let R answer the probe rows: (folder, cases, failures, R's words)."""
    parity = _parity()
    absent = parity.missing_tools()
    if absent:
        pytest.skip(absent)
    folder = tmp_path_factory.mktemp("r_models")
    words = parity.run_r("fit.R", str(folder))
    cases, failures = {}, {}
    for name in CATALOGUE:
        try:
            case = parity.Case(folder, name)
            feeds = case.probes()
            case.write(feeds)
            cases[name] = (case, feeds)
        except Exception as exc:  # noqa: BLE001 - one model must not hide the others
            failures[name] = exc
    words += parity.run_r("answer.R", str(folder))
    return parity, cases, failures, words


@pytest.mark.parametrize("name", CATALOGUE)
def test_a_converted_model_answers_what_r_answers(fitted, name):
    parity, cases, failures, words = fitted
    if name in failures:
        raise failures[name]
    case, probes = cases[name]
    about = "\n".join(line for line in words.splitlines() if line.startswith(f"{name}:"))
    for part, feeds in (("train", case.training()), ("probe", probes)):
        assert Path(f"{case.stem}.{part}.txt").exists(), f"R gave no answer: {about}"
        error, changed, _ = parity.compare(case.run(feeds), parity.answers(case.stem, part), ties=parity.tie_of(case.model))
        assert error <= TOLERANCE, f"{part}: relative error {error:.3g}"
        assert changed == 0, f"{part}: {changed} labels differ"


def test_the_catalogue_has_at_least_eighty_pairs():
    assert len(set(CATALOGUE)) == len(CATALOGUE) >= 80
