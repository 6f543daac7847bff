"""What an R model cannot say without R is refused by name; what it can say is described and converted as promised."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest

from mlbridge.errors import ConversionError, InputError, MlbridgeError, UnsupportedError
from mlbridge.frameworks.r import RFramework, RObject, read_rds
from mlbridge.interfaces import Framework

FOLDER = Path(__file__).parent / "r_models"
SEEDS = Path(__file__).parent / "rds_seeds"


def _parity():
    if "r_models_parity" not in sys.modules:
        spec = importlib.util.spec_from_file_location("r_models_parity", FOLDER / "parity.py")
        module = importlib.util.module_from_spec(spec)
        sys.modules["r_models_parity"] = module
        spec.loader.exec_module(module)
    return sys.modules["r_models_parity"]


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    parity = _parity()
    absent = parity.missing_tools()
    if absent:
        pytest.skip(absent)
    folder = tmp_path_factory.mktemp("r_refused")
    parity.run_r("refused.R", str(folder))
    return {f.stem: read_rds(f.read_bytes()) for f in folder.glob("*.rds")}


REFUSED = {
    "mean-of-the-batch": r"mean\(\) over a column depends on the batch",
    "rank-of-the-batch": r"the function rank\(\)",
    "cut-into-parts": r"cut\(\) into a number of parts depends on the batch",
    "own-function": r"the function twice\(\)",
    "dollar": r"names its data frame",
    "own-link": r"link 'mine'",
    "column-or-variable": r"'k' may be a column of the data or a variable",
    "partition": r"levels of ranger's unordered factors",
    "no-forest": r"without its forest",
    "strata": r"coxph with strata\(\)",
    "strata-of-two": r"strata\(\) of several columns",
    "lost-level": r"never gives the level '\(3,7\]' of training",
    "svm-factor": r"does not hold the levels of column 'feed'",
    "matrix-column": r"'m' is a matrix column",
    "labels": r"factor\(\) with labels",
    "level-of-missing": r"NA among its levels",
    "plinear": r"plinear",
    "ordered-forest": r"does not hold the levels of column 'o'",
    "false-logit": r"a function that is not R's own",
}


@pytest.mark.r
@pytest.mark.parametrize("name", REFUSED)
def test_what_has_no_exact_form_is_refused_by_name(models, name, tmp_path):
    framework = RFramework()
    with pytest.raises(ConversionError, match=REFUSED[name]):
        framework.convert(models[name], tmp_path, signature=framework.infer(models[name], None))


@pytest.mark.r
def test_a_class_vector_not_known_in_full_is_not_accepted(models):
    assert models["subclass"].classes == ("ourmodel", "lm")
    assert not RFramework().accepts(models["subclass"])
    with pytest.raises(ConversionError, match="ourmodel/lm"):
        RFramework().infer(models["subclass"], None)


@pytest.mark.r
def test_a_glmnet_without_a_lambda_asks_for_one(models):
    with pytest.raises(InputError, match="path of lambdas"):
        RFramework().infer(models["glmnet-path"], None)
    with pytest.raises(InputError, match=r"takes no option 'n\.trees'"):
        RFramework().infer(models["glmnet-path"], None, s=0.1, **{"n.trees": 3})
    with pytest.raises(InputError, match=r"'s' is 'lambda\.min'"):
        RFramework().infer(models["glmnet-path"], None, s="lambda.min")


@pytest.mark.r
@pytest.mark.parametrize(("name", "column"), [("constants-of-the-environment", "x"), ("data-in-the-environment", "wt")])
def test_a_number_beside_the_formula_is_a_constant_where_the_file_says_so(models, name, column):
    signature = RFramework().infer(models[name], None)
    assert [c.name for c in signature.columns] == [column]


@pytest.mark.r
def test_a_column_compared_with_text_takes_any_text(models, tmp_path):
    import mlbridge as mb

    model, framework = models["text-compared"], RFramework()
    path = framework.convert(model, tmp_path, signature=framework.infer(model, None))
    frame = dict(zip(model["model"].names, model["model"].value))
    merc = frame['I(make == "Merc")'].numbers()
    records = [{"make": "Merc" if m else f"maker {i}", "wt": w} for i, (m, w) in enumerate(zip(merc, frame["wt"].numbers()))]
    with mb.load(str(path)) as converted:
        got = converted.predict(records)["prediction"]
        assert np.isnan(converted.predict({"make": None, "wt": 3.0})["prediction"])
    assert got == pytest.approx(model["fitted.values"].numbers(), rel=1e-12)  # R's own answers


@pytest.mark.r
@pytest.mark.parametrize("library", ["pandas", "polars", "pyarrow"])
def test_levels_of_ordered_factors_come_from_the_sample(models, tmp_path, library):
    tables = pytest.importorskip(library)
    model, framework = models["ordered-forest"], RFramework()
    levels = ["4", "6", "8"]
    if library == "pandas":
        sample = tables.DataFrame({"o": tables.Categorical([], categories=levels, ordered=True)})
    elif library == "polars":
        sample = tables.DataFrame({"o": tables.Series([], dtype=tables.Enum(levels))})
    else:
        codes = tables.array([0, 1, 2], tables.int32())
        sample = tables.table({"o": tables.DictionaryArray.from_arrays(codes, levels, ordered=True)})
    signature = framework.infer(model, sample)
    assert [c.categories for c in signature.columns] == [("4", "6", "8")]
    assert framework.convert(model, tmp_path, signature=signature).exists()


@pytest.mark.r
def test_a_network_fitted_on_a_matrix_refuses_missing_values_as_r_does(models):
    signature = RFramework().infer(models["matrix-of-network"], None)
    assert signature.inputs[0].missing == "refuse"


def test_the_framework_keeps_the_seam():
    assert isinstance(RFramework(), Framework)
    assert RFramework.options == {"as", "type", "s", "n.trees"}
    assert RFramework.formats == {"rds"}


def test_other_objects_are_not_accepted():
    framework = RFramework()
    assert not any(framework.accepts(x) for x in (None, 1, "lm", object(), RObject("list", []), RObject("double", np.zeros(2))))


def test_an_lm_is_read_described_and_converted_without_r(tmp_path):
    import onnxruntime

    model = read_rds((SEEDS / "lm.3.gz.rds").read_bytes())
    framework = RFramework()
    signature = framework.infer(model, None)
    assert str(signature) == "features: float64[rows, 1] -> prediction: float64[rows]"
    assert signature.inputs[0].missing == "allow"
    with pytest.raises(UnsupportedError, match="no native route"):
        framework.native(model, signature=signature)
    path = framework.convert(model, tmp_path, signature=signature)
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    rows = np.array([[4.0], [7.0], [np.nan]])
    (got,) = session.run(None, {"features": rows})
    fitted = model["fitted.values"].numbers()  # R's own: speeds 4 and 7 are rows 1 and 3
    assert got[:2] == pytest.approx(fitted[[0, 2]], rel=1e-14)
    assert np.isnan(got[2])
    (none,) = session.run(None, {"features": np.zeros((0, 1))})
    assert none.shape == (0,)


def test_a_model_with_parts_missing_fails_with_an_error_of_ours(tmp_path):
    model = read_rds((SEEDS / "lm.3.gz.rds").read_bytes())
    framework = RFramework()
    for gone in model.names:
        keep = [i for i, n in enumerate(model.names) if n != gone]
        attributes = {**model.attributes, "names": RObject("character", [model.names[i] for i in keep])}
        part = RObject("list", [model.value[i] for i in keep], attributes)
        try:
            framework.convert(part, tmp_path, signature=framework.infer(part, None))
        except MlbridgeError:
            continue
