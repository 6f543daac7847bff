"""The R package: what it saves is loaded here without R, and what is saved here answers R's data frames."""

from __future__ import annotations

import logging
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from r_models import library, parity

import mlbridge as mb
from mlbridge.artifact import open_artifact
from mlbridge.errors import InputError, MlbridgeError, UntrustedArtifactError
from mlbridge.package import read_package

pytestmark = pytest.mark.r

# one or two of each class, among them factors, missing values, and every option of predict
MODELS = [
    "formula-text-compared", "formula-unnamed-response", "nnet-matrix",
    "lm-mixed", "lm-mtcars-factor-call", "lm-mtcars-logical", "lm-iris-many-responses", "glm-birthwt-logit", "glm-kyphosis-classifier",
    "glm-mtcars-link-type", "glm-insurance-offset-argument", "negbin-quine", "nls-faithful", "rpart-mixed", "rpart-titanic",
    "rpart-airquality-surrogates", "rpart-solder-poisson", "randomforest-mixed", "randomforest-titanic", "randomforest-xy", "ranger-mixed",
    "ranger-chickwts-partition", "ranger-iris-probability", "gbm-mixed", "gbm-titanic-some-trees", "gbm-airquality-missing",
    "glmnet-pima-binomial", "glmnet-pima-classifier", "glmnet-iris-multinomial", "cv-glmnet-boston-min", "svm-warpbreaks-factors",
    "svm-iris", "svm-probability-iris", "multinom-counts", "caret-svm-labels", "caret-xy-factors", "caret-negbin", "rpart-one-split",
    "nnet-mixed", "multinom-mixed", "lda-mixed", "lda-matrix", "qda-mixed", "polr-mixed", "naivebayes-mixed", "kmeans-iris",
    "prcomp-iris", "coxph-mixed", "coxph-ovarian-risk", "caret-lm-scaled", "caret-rf",
]  # fmt: skip

BRIDGED = """
library(mlbridge)
out <- commandArgs(TRUE)[1]
rows <- data.frame(speed = c(5, 12, NA, 21), kind = factor(c("a", "b", "b", NA)))
d <- transform(cars, kind = factor(rep(c("a", "b"), 25)))
put <- function(name, fit, answer) {
  mlb_save(fit, file.path(out, paste0(name, ".mlb")), sample = d)
  writeBin(as.double(answer), file.path(out, paste0(name, ".bin")))
}
loess <- loess(dist ~ speed, d)
put("loess", loess, predict(loess, rows))
gam <- mgcv::gam(dist ~ s(speed) + kind, data = d)
put("gam", gam, predict(gam, rows))
batch <- lm(dist ~ I(speed - mean(speed, na.rm = TRUE)), d)
put("batch", batch, predict(batch, rows))
"""

ANSWER = """
library(mlbridge)
out <- commandArgs(TRUE)[1]
rows <- read.csv(file.path(out, "rows.csv"), na.strings = "", stringsAsFactors = TRUE, row.names = 1, numerals = "no.loss")
rows[c("a", "b")] <- matrix(readBin(file.path(out, "rows.bin"), "double", 2 * nrow(rows)), ncol = 2)
for (path in list.files(out, "[.]mlb$", full.names = TRUE)) {
  model <- mlb_load(path)
  got <- predict(model, rows)
  stopifnot(is.data.frame(got), identical(rownames(got), rownames(rows)))
  for (name in names(got)) if (is.factor(got[[name]])) got[[name]] <- ifelse(is.na(got[[name]]), -1, as.integer(got[[name]]) - 1)
  writeBin(as.double(as.matrix(got)), sub("mlb$", "bin", path))
  writeLines(names(got), sub("mlb$", "txt", path))
}
model <- mlb_load(file.path(out, "classifier.mlb"))
said <- tryCatch(predict(model, transform(rows, town = "Atlantis")), mlbridge_error = identity)
writeLines(c(said$code, said$class_name, conditionMessage(said)), file.path(out, "said.txt"))
"""


@pytest.fixture(scope="module")
def r(tmp_path_factory):
    reason = parity.missing_tools()
    if reason:
        pytest.skip(reason)
    return library.install(tmp_path_factory.mktemp("r-library"))


@pytest.fixture(scope="module")
def saved(r, tmp_path_factory):
    folder = tmp_path_factory.mktemp("saved")
    library.run(r, parity.HERE / "save.R", str(folder), f"^({'|'.join(MODELS)})$")
    return folder


def _script(folder: Path, text: str) -> Path:
    path = folder / "script.R"
    path.write_text(text)
    return path


def _compared(stem: Path) -> str | None:
    """Load a package without R; say what differs from R's own answers, None if nothing does."""
    refused = Path(f"{stem}.refused.txt")
    if refused.exists():
        return refused.read_text()
    data, want = parity.read_rds(Path(f"{stem}.data.rds").read_bytes()), parity.answers(stem, "train")
    if parity.compare(parity.answers(stem, "native"), want)[:2] != (0.0, 0):
        return "the package answers otherwise in R"
    with mb.load(f"{stem}.mlb") as model:
        if model.route.runtime != "onnx" or not model.report.verified or model.report.against != "golden samples":
            return f"not verified: {model.describe()}"
        error, changed, _ = parity.compare(model.run(parity.feeds_of(data["rows"], model.signature)), want)
    return None if error <= 1e-9 and not changed else f"error {error}, {changed} labels changed"


class TestSavedByR:
    @pytest.mark.parametrize("name", MODELS)
    def test_loads_without_r_converts_verifies_and_answers_as_r_does(self, saved, monkeypatch, name):
        monkeypatch.setenv("PATH", "/nowhere")  # no Rscript
        assert _compared(saved / name) is None

    @pytest.mark.full
    def test_every_model_of_the_catalogue(self, r, tmp_path):
        library.run(r, parity.HERE / "save.R", str(tmp_path))
        stems = [p.with_suffix("") for p in sorted(tmp_path.glob("*.mlb"))]
        problems = {s.name: why for s in stems if (why := _compared(s)) is not None}
        assert len(stems) >= 160
        assert not problems

    @pytest.mark.parametrize("name", ["svm-warpbreaks-factors", "ranger-chickwts-partition"])
    def test_levels_the_model_forgets_are_captured(self, saved, tmp_path, name):
        package = read_package(open_artifact(saved / f"{name}.mlb"))
        bare = tmp_path / "model.rds"
        bare.write_bytes((package.folder / "model/native/model.rds").read_bytes())
        with pytest.raises(MlbridgeError, match="levels"):
            mb.load(bare)
        levels = [c.categories for c in package.signature.columns if c.categories]
        assert levels
        assert all(len(some) > 1 for some in levels)

    @pytest.mark.parametrize("name", MODELS)
    def test_the_signature_is_the_one_read_from_the_file(self, saved, name):
        package = read_package(open_artifact(saved / f"{name}.mlb"))
        entry = package.implementations[0]
        options = {k: v for k, v in entry.options.items() if k != "packages"}
        model = parity.read_rds((package.folder / entry.path).read_bytes())
        sample = parity.sample_of(parity.read_rds((saved / f"{name}.data.rds").read_bytes())["rows"])
        read = parity.RFramework().infer(model, sample, **options)
        assert {(c.name, c.categories) for c in package.signature.columns} == {(c.name, c.categories) for c in read.columns}
        outputs = [(s.name, s.dtype, s.shape, s.columns) for s in read.outputs]
        assert [(s.name, s.dtype, s.shape, s.columns) for s in package.signature.outputs] == outputs

    def test_the_manifest_says_what_it_came_from(self, saved):
        package = read_package(open_artifact(saved / "ranger-mixed.mlb"))
        assert package.implementations[0].runtime == "r"
        assert {"R", "ranger"} <= package.implementations[0].requires.keys()
        assert package.provenance["class"] == ["ranger"]
        assert len(package.samples[0]["features"]) <= 64

    def test_a_given_option_lies_over_the_saved_one(self, saved):
        with pytest.raises(MlbridgeError), mb.load(saved / "glm-mtcars-link-type.mlb", options={"r": {"type": "response"}}):
            pass  # the golden rows are of the link: another answer does not verify

    def test_the_native_route_runs_r(self, saved):
        data, want = (
            parity.read_rds((saved / "glm-kyphosis-classifier.data.rds").read_bytes()),
            parity.answers(saved / "glm-kyphosis-classifier", "train"),
        )
        with mb.load(saved / "glm-kyphosis-classifier.mlb", trust="code", via="native") as model:
            assert model.route.runtime == "r"
            assert parity.compare(model.run(parity.feeds_of(data["rows"], model.signature)), want)[:2] == (0.0, 0)


@pytest.fixture(scope="module")
def bridged(r, tmp_path_factory):
    folder = tmp_path_factory.mktemp("bridged")
    library.run(r, _script(folder, BRIDGED), str(folder))
    return folder


class TestBridged:
    @pytest.mark.parametrize("name", ["loess", "gam"])
    def test_what_does_not_convert_needs_trust_and_runs_in_r(self, bridged, name, caplog):
        with pytest.raises(UntrustedArtifactError, match=f"class .*{name}") as refused:
            mb.load(bridged / f"{name}.mlb")
        pin = re.search(r"sha256:[0-9a-f]{64}", refused.value.hint).group()
        rows = pd.DataFrame({"speed": [5, 12, np.nan, 21], "kind": pd.Categorical(["a", "b", "b", None], categories=["a", "b"])})
        with caplog.at_level(logging.WARNING, "mlbridge"), mb.load(bridged / f"{name}.mlb", trust=pin) as model:
            assert model.route.runtime == "r"
            got = model.predict(rows)["prediction"].to_numpy()
        assert any("runs natively" in m for m in caplog.messages)
        assert np.array_equal(got, np.fromfile(bridged / f"{name}.bin"), equal_nan=True)

    def test_a_formula_of_the_batch_is_refused_by_name(self, bridged):
        with pytest.raises(MlbridgeError, match=r"batch|mean|trust"):
            mb.load(bridged / "batch.mlb")


@pytest.fixture(scope="module")
def answered(r, tmp_path_factory):
    folder = tmp_path_factory.mktemp("answered")
    rows = _rows()
    for name, model in _models().items():
        with mb.wrap(model, sample=rows) as wrapped:
            wrapped.save(folder / f"{name}.mlb")
    rows.to_csv(folder / "rows.csv")
    rows[["a", "b"]].to_numpy().T.tofile(folder / "rows.bin")  # every bit, whatever a text of digits keeps
    library.run(r, _script(folder, ANSWER), str(folder))
    return folder, rows


class TestAnsweredInR:
    @pytest.mark.parametrize("name", ["classifier", "regressor", "forest", "clusters", "components"])
    def test_a_data_frame_is_answered_as_in_python(self, answered, name):
        folder, rows = answered
        with mb.load(folder / f"{name}.mlb") as model:
            want = model.predict(rows)
        if "label" in want:
            want["label"] = want["label"].cat.codes if hasattr(want["label"], "cat") else pd.Categorical(want["label"], ["no", "yes"]).codes
        assert (folder / f"{name}.txt").read_text().split() == list(want.columns)
        got = np.fromfile(folder / f"{name}.bin").reshape(want.shape, order="F")
        assert np.array_equal(got, want.to_numpy(float), equal_nan=True)

    def test_an_error_of_the_caller_is_a_condition(self, answered):
        code, name, *message = (answered[0] / "said.txt").read_text().splitlines()
        assert (code, name) == ("INVALID_ARGUMENT", InputError.__name__)
        assert "Atlantis" in " ".join(message)


def _rows() -> pd.DataFrame:
    rng = np.random.default_rng(0)
    rows = pd.DataFrame({"a": rng.normal(size=120), "b": 10 ** rng.uniform(-5, 5, 120), "town": rng.choice(["Köln", "Łódź", "Oslo"], 120)})
    rows.index = [f"row {i}" for i in range(120)]
    rows.loc[rows.index[:3], "a"] = np.nan
    rows["town"] = pd.Categorical(rows["town"], categories=["Köln", "Łódź", "Oslo"])
    return rows


def _models() -> dict:
    from sklearn.cluster import KMeans
    from sklearn.compose import make_column_transformer
    from sklearn.decomposition import PCA
    from sklearn.ensemble import RandomForestRegressor
    from sklearn.impute import SimpleImputer
    from sklearn.linear_model import LinearRegression, LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OneHotEncoder, StandardScaler

    rows = _rows()
    filled = rows["a"].fillna(0)

    def fitted(last, y=None):
        numbers = make_pipeline(SimpleImputer(), StandardScaler())
        prep = make_column_transformer((numbers, ["a", "b"]), (OneHotEncoder(sparse_output=False), ["town"]))
        return make_pipeline(prep, last).fit(rows, y)

    return {
        "classifier": fitted(LogisticRegression(), np.where(filled > 0, "yes", "no")),
        "regressor": fitted(LinearRegression(), filled * 2 + rows["b"]),
        "forest": fitted(RandomForestRegressor(20, random_state=0), filled + np.log(rows["b"])),
        "clusters": fitted(KMeans(3, n_init=1, random_state=0)),
        "components": fitted(PCA(2)),
    }
