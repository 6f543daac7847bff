"""The runtime r: R's own answers bit by bit, the fallback route, and what a model may not do to its host."""

from __future__ import annotations

import datetime
import importlib.util
import itertools
import logging
import shutil
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from r_models import parity

import mlbridge as mb
from mlbridge.artifact import open_artifact
from mlbridge.errors import (
    ArtifactError,
    BridgeTimeoutError,
    InferenceError,
    InputError,
    MissingDependencyError,
    UnsupportedError,
    UntrustedArtifactError,
    WorkerDiedError,
)
from mlbridge.runtimes.r import RRuntime
from mlbridge.runtimes.r.layout import layout

NEEDS_R = [pytest.mark.r, pytest.mark.skipif(shutil.which("Rscript") is None, reason="Rscript is not installed")]
X = mb.Signature([mb.TensorSpec("features", "float64", ("rows", 1), (mb.Column("x"),))], [mb.TensorSpec("y", "float64", ("rows",))])
ONE = {"features": np.ones((1, 1))}

FIT = """
out <- commandArgs(TRUE)[1]
d <- within(MASS::Pima.tr, group <- factor(rep(c("a", "b", "c", "b"), length.out = nrow(MASS::Pima.tr))))
d$band <- factor(rep(c(10, 2, 30), length.out = nrow(d)))  # levels that a CSV file holds as numbers
library(randomForest); library(rpart); library(e1071); library(mgcv)
save <- function(name, fit) saveRDS(fit, file.path(out, paste0(name, ".rds")))
save("lm", lm(glu ~ bmi + poly(age, 2) + group, d))
save("glm", glm(type ~ glu + bmi + group, binomial, d))
save("rpart", rpart(type ~ glu + bmi + age + group, d))
save("forest", randomForest(type ~ glu + bmi + group, d, ntree = 10))
save("svm", svm(glu ~ bmi + age, d))
save("bayes", naiveBayes(type ~ glu + bmi + group, d))
save("kmeans", kmeans(d[c("glu", "bmi")], 3))
save("prcomp", prcomp(d[c("glu", "bmi", "age")], scale. = TRUE))
save("loess", loess(glu ~ bmi, d))
save("gam", gam(type ~ s(glu) + group, binomial, d))
save("contrasts", lm(glu ~ C(band, contr.sum) + relevel(band, "30"):bmi, d))
library(survival); suppressMessages(library(caret))
save("penal", coxph(Surv(glu) ~ age + ridge(bmi, theta = 1), d))
save("near", train(type ~ glu + bmi, d, method = "knn", trControl = trainControl(method = "none"), tuneGrid = data.frame(k = 5)))
save("batch", lm(glu ~ I(bmi - mean(bmi)), d))
d$name <- rep(c("ann", "bo", "christine"), length.out = nrow(d))
save("words", lm(glu ~ bmi + nchar(name):paste(group), d))
save("two", lm(glu ~ poly(bmi, age, degree = 2), d))
saveRDS(d[1:60, ], file.path(out, "rows.rds"))
"""
ANSWER = """
out <- commandArgs(TRUE)[1]
suppressMessages({library(randomForest); library(rpart); library(e1071); library(mgcv); library(caret); library(survival)})
d <- readRDS(file.path(out, "rows.rds"))
d$bmi[c(3, 9)] <- NA
d$group[5] <- NA
whole <- d[complete.cases(d), ]
fit <- function(name) { set.seed(0); readRDS(file.path(out, paste0(name, ".rds"))) }
put <- function(name, ...) { v <- list(...); writeBin(as.double(unlist(lapply(v, function(x) if (is.factor(x)) ifelse(is.na(x), -1, as.integer(x) - 1) else x))), file.path(out, paste0(name, ".bin"))) }
put("lm", predict(fit("lm"), d)); put("glm", predict(fit("glm"), d, type = "response"))
put("rpart", predict(fit("rpart"), d, type = "class"), predict(fit("rpart"), d, type = "prob"))
put("forest", predict(fit("forest"), d), predict(fit("forest"), d, type = "prob"))
dropped <- rep(NA_real_, nrow(d)); dropped[complete.cases(d[c("bmi", "age")])] <- predict(fit("svm"), d[c("bmi", "age")])
put("svm", dropped)
put("bayes", predict(fit("bayes"), d), predict(fit("bayes"), d, type = "raw"))
put("kmeans", apply(sapply(1:3, function(k) colSums((t(as.matrix(whole[c("glu", "bmi")])) - fit("kmeans")$centers[k, ])^2)), 1, which.min))
put("prcomp", predict(fit("prcomp"), d))
put("contrasts", predict(fit("contrasts"), d))
put("words", predict(fit("words"), whole)); put("two", predict(fit("two"), whole))
put("penal", predict(fit("penal"), d))
put("near", predict(fit("near"), whole), predict(fit("near"), whole, type = "prob"))
put("loess", predict(fit("loess"), d$bmi)); put("gam", predict(fit("gam"), d, type = "response"))
write.csv(d, file.path(out, "rows.csv"), row.names = FALSE)
"""


def _rscript(folder: Path, name: str, text: str) -> None:
    (folder / name).write_text(text)
    done = subprocess.run(
        ["Rscript", "--vanilla", name, str(folder)], cwd=folder, env=parity.environment(), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    reason = parity.missing_tools()
    if reason:
        pytest.skip(reason)
    folder = tmp_path_factory.mktemp("r")
    _rscript(folder, "fit.R", FIT)
    _rscript(folder, "answer.R", ANSWER)  # a fresh process
    return folder


@pytest.fixture(scope="module")
def rows(home):
    table = pd.read_csv(home / "rows.csv")
    return table.assign(group=pd.Categorical(table["group"], categories=["a", "b", "c"]))


def _script(tmp_path, body, **options):
    path = tmp_path / "script.R"
    path.write_text(body)
    return mb.load(f"r:{path}", trust="code", signature=X, options={"r": options})


def _flat(outputs) -> np.ndarray:
    return np.concatenate([v.ravel(order="F").astype(float) for v in outputs.values()])


class TestAnswers:
    pytestmark = NEEDS_R

    @pytest.mark.parametrize(
        "name", ["lm", "glm", "rpart", "forest", "svm", "bayes", "kmeans", "prcomp", "contrasts", "loess", "gam", "penal", "near"]
    )
    def test_bit_by_bit_what_r_says_in_a_fresh_process(self, home, rows, name):
        if name in ("kmeans", "near"):
            rows = rows.dropna()
        with mb.load(f"r:{home / f'{name}.rds'}", trust="code") as model:
            feeds, _ = model._coercion.feeds(rows)
            np.testing.assert_array_equal(_flat(model.run(feeds)), np.fromfile(home / f"{name}.bin"))

    @pytest.mark.full
    @pytest.mark.timeout(1800)
    def test_the_whole_catalogue_bit_by_bit(self, tmp_path):
        _compare(*parity.fit_all(tmp_path)[:1], tmp_path)

    def test_options_reach_predict(self, home, rows):
        answers = {}
        for kind in ("link", "response"):
            with mb.load(f"r:{home / 'glm.rds'}", trust="code", sample=rows, options={"r": {"type": kind}}) as model:
                answers[kind] = model.predict(rows)["prediction"].to_numpy()
        np.testing.assert_allclose(1 / (1 + np.exp(-answers["link"])), answers["response"], rtol=1e-12)

    def test_as_classifier_gives_the_second_level_its_probability(self, home, rows):
        with mb.load(f"r:{home / 'glm.rds'}", trust="code", options={"r": {"as": "classifier"}}) as model:
            got = model.run(model._coercion.feeds(rows)[0])
        np.testing.assert_array_equal(got["probabilities"][:, 1], np.fromfile(home / "glm.bin"))

    def test_a_pool_answers_many_threads_alike(self, home, rows):
        with mb.load(f"r:{home / 'lm.rds'}", trust="code", options={"r": {"workers": 2}}) as model:
            assert model._session.max_concurrency == 2
            feeds, _ = model._coercion.feeds(rows)
            with ThreadPoolExecutor(4) as pool:
                answers = list(pool.map(lambda _: _flat(model.run(feeds)), range(8)))
        for answer in answers:
            np.testing.assert_array_equal(answer, np.fromfile(home / "lm.bin"))


def _compare(cases, folder):
    wrong = []
    ways = [None, "inproc"] if importlib.util.find_spec("rpy2") else [None]
    for case, way in itertools.product(cases, ways):
        session = RRuntime().load(open_artifact(folder / f"{case.name}.rds"), signature=case.signature, way=way, **case.options)
        for part in ("train", "probe"):
            want = parity.answers(case.stem, part)
            for name, value in session.run(case.feeds[part]).items():
                if not np.array_equal(value.reshape(len(value), -1).astype(float), want[name], equal_nan=True):
                    wrong.append((case.name, way, part, name))
        session.close()
    assert not wrong


class TestTypes:
    pytestmark = NEEDS_R

    def test_columns_arrive_in_the_types_of_r(self, tmp_path):
        path = tmp_path / "types.R"
        path.write_text("""run <- function(newdata) list(kind = rep(paste(vapply(newdata, function(v) class(v)[1], ""), collapse = " "), nrow(newdata)),
  days = as.numeric(newdata$day - as.Date("2020-01-01")), missing = as.numeric(rowSums(is.na(newdata))))
""")
        levels = (
            mb.Column("size", categories=("s", "m"), ordered=True),
            mb.Column("yes", categories=(False, True)),
            mb.Column("sex", ("f", "m")),
        )
        signature = mb.Signature(
            [
                mb.TensorSpec("features", "float64", ("rows", 2), (mb.Column("day", unit="date"), mb.Column("x")), "allow"),
                mb.TensorSpec("categorical", "int32", ("rows", 3), levels, "allow"),
                mb.TensorSpec("text", "string", ("rows", 1), (mb.Column("words"),), "allow"),
            ],
            [
                mb.TensorSpec("kind", "string", ("rows",)),
                mb.TensorSpec("days", "float64", ("rows",), missing="allow"),
                mb.TensorSpec("missing", "int64", ("rows",)),
            ],
        )
        table = pd.DataFrame(
            {
                "day": [datetime.date(2020, 1, 3), None],
                "x": [1.0, None],
                "size": ["m", None],
                "yes": [True, None],
                "sex": ["f", None],
                "words": ["é", None],
            }
        )
        with mb.load(f"r:{path}", trust="code", signature=signature) as model:
            got = model.run(model._coercion.feeds(table)[0])
        assert got["kind"].tolist() == ["Date numeric ordered logical factor character"] * 2
        np.testing.assert_array_equal(got["days"], [2.0, np.nan])
        assert got["missing"].tolist() == [0, 6]


class TestRoutes:
    pytestmark = NEEDS_R

    @pytest.mark.parametrize("name", ["loess", "gam", "batch"])
    def test_what_does_not_convert_is_bridged_and_says_so(self, home, name, caplog):
        with caplog.at_level(logging.WARNING, "mlbridge"), mb.load(home / f"{name}.rds", trust="code") as model:
            assert model.route.runtime == "r"
            assert model.device == "r"
        assert any("runs natively" in r.message for r in caplog.records)

    def test_what_converts_is_verified_against_r(self, home, rows):
        with mb.load(home / "glm.rds", trust="code", sample=rows.dropna()) as model:
            assert model.route.runtime == "onnx"
            assert model.report.verified

    def test_the_sample_says_what_columns_inside_calls_are(self, home, rows):
        with mb.load(home / "words.rds", trust="code", sample=rows.dropna()) as model:
            assert model.route.runtime == "r"
            kinds = {s.name: [c.name for c in s.columns] for s in model.signature.inputs}
            assert kinds == {"features": ["bmi"], "text": ["name"], "categorical": ["group"]}
            got = model.predict(rows.dropna())["prediction"].to_numpy()
        np.testing.assert_array_equal(got, np.fromfile(home / "words.bin"))

    def test_a_model_that_r_cannot_ask_one_row_is_still_compared_with_it(self, home, rows):
        whole = rows.dropna()
        with mb.load(home / "two.rds", trust="code", sample=whole) as model:
            assert model.route.runtime == "onnx"
            assert model.report.verified
            assert model.signature.batched
            got = model.predict(whole)["prediction"].to_numpy()
            one = model.predict(whole[:1])["prediction"].to_numpy()
        want = np.fromfile(home / "two.bin")
        np.testing.assert_allclose(got, want, rtol=1e-9)
        np.testing.assert_allclose(one, want[:1], rtol=1e-9)

    @pytest.mark.parametrize("source", ["r:{}/glm.rds", "{}/loess.rds"])
    def test_below_trust_code_nothing_runs(self, home, source):
        with pytest.raises((UntrustedArtifactError, UnsupportedError)):
            mb.load(source.format(home))

    def test_a_class_no_framework_knows_is_named(self, home, caplog):
        with pytest.raises(UntrustedArtifactError, match="an R object of class gam/glm/lm"):
            mb.load(home / "gam.rds")
        with caplog.at_level(logging.WARNING, "mlbridge"), mb.load(home / "gam.rds", trust="code") as model:
            assert "an R object of class gam/glm/lm" in model.route.why
        assert any("gam/glm/lm" in r.message for r in caplog.records)

    def test_a_bridged_model_saves_its_file(self, home, tmp_path):
        with mb.load(f"r:{home / 'loess.rds'}", trust="code", sample=pd.DataFrame({"bmi": [30.0, 25.0]})) as model:
            want = model.predict({"bmi": 30.0})
            model.save(tmp_path / "m.mlb", native=True)
        with mb.load(tmp_path / "m.mlb", trust="code") as again:
            assert again.predict({"bmi": 30.0}) == want

    @pytest.mark.parametrize("via", ["native", "auto"])
    def test_a_saved_model_keeps_how_predict_is_asked(self, home, rows, tmp_path, via):
        with mb.load(f"r:{home / 'glm.rds'}", trust="code", options={"r": {"type": "link"}}) as model:
            want = model.predict(rows)["prediction"]
            model.save(tmp_path / "m.mlb", native=True)
        with mb.load(tmp_path / "m.mlb", trust="code", via=via) as again:
            np.testing.assert_allclose(again.predict(rows)["prediction"], want, rtol=0 if via == "native" else 1e-9)


class TestFaults:
    pytestmark = NEEDS_R

    def test_an_error_of_r_has_its_condition_call_and_trace(self, tmp_path):
        body = 'inner <- function(x) stop(structure(class = c("too_bad", "error", "condition"), list(message = "no", call = sys.call())))\n'
        with (
            _script(tmp_path, body + "run <- function(newdata) inner(newdata$x)\n") as model,
            pytest.raises(InferenceError, match="no") as e,
        ):
            model.run(ONE)
        assert e.value.condition[0] == "too_bad"
        assert "inner(newdata$x)" in e.value.message
        assert "inner" in e.value.trace

    def test_warnings_messages_and_prints_go_to_the_logger(self, tmp_path, caplog):
        body = 'run <- function(newdata) { warning("careful"); message("hello"); cat("printed\\n"); list(y = newdata$x) }\n'
        with caplog.at_level(logging.INFO, "mlbridge.r"), _script(tmp_path, body) as model:
            assert model.run(ONE)["y"].tolist() == [1.0]
        told = {(r.levelname, r.message) for r in caplog.records if r.name == "mlbridge.r"}
        assert {("WARNING", "careful"), ("INFO", "hello"), ("INFO", "printed")} <= told

    @pytest.mark.parametrize("end", ["q()", "quit(status = 0)", "tools::pskill(Sys.getpid(), 9)", "tools::pskill(Sys.getpid(), 11)"])
    def test_a_process_that_ends_is_a_typed_error_and_comes_back(self, tmp_path, end):
        body = f"run <- function(newdata) {{ if (newdata$x[1] == 1) {end}; list(y = newdata$x) }}\n"
        with _script(tmp_path, body) as model:
            with pytest.raises(WorkerDiedError):
                model.run(ONE)
            assert model.run({"features": np.full((1, 1), 2.0)})["y"].tolist() == [2.0]

    def test_a_program_that_outlives_the_worker_does_not_hide_its_death(self, tmp_path):
        body = 'run <- function(newdata) { system("setsid sleep 60", wait = FALSE); Sys.sleep(0.2); tools::pskill(Sys.getpid(), 9) }\n'
        with _script(tmp_path, body) as model, pytest.raises(WorkerDiedError):
            model.run(ONE, timeout_s=20.0)

    @pytest.mark.parametrize("body", ["Sys.sleep(600)", "repeat {}", "repeat tryCatch(Sys.sleep(9), interrupt = identity)"])
    def test_past_the_deadline_it_is_interrupted_or_killed(self, tmp_path, body):
        text = f"run <- function(newdata) {{ if (newdata$x[1] == 1) {body}; list(y = newdata$x) }}\n"
        with _script(tmp_path, text, grace_s=1.0) as model:
            began = time.monotonic()
            with pytest.raises(BridgeTimeoutError):
                model.run(ONE, timeout_s=0.3)
            assert time.monotonic() - began < 60
            assert model.run({"features": np.full((1, 1), 2.0)})["y"].tolist() == [2.0]

    @pytest.mark.parametrize("body", ["numeric(1e13)", "(function(f) f(f))(function(f) f(f))"])
    def test_memory_and_recursion_without_end_are_errors(self, tmp_path, body):
        with _script(tmp_path, f"run <- function(newdata) list(y = {body})\n") as model, pytest.raises((InferenceError, WorkerDiedError)):
            model.run(ONE)

    def test_another_locale_and_folder_change_no_answer(self, tmp_path):
        body = 'run <- function(newdata) { Sys.setlocale("LC_ALL", "C"); setwd(tempdir()); list(y = newdata$x / 3) }\n'
        with _script(tmp_path, body) as model:
            assert [model.run(ONE)["y"][0] for _ in range(2)] == [1 / 3, 1 / 3]

    @pytest.mark.parametrize(("text", "match"), [("run <- 1\n", "no function run"), ("run <- function(\n", "script fails")])
    def test_a_script_that_is_none_is_refused(self, tmp_path, text, match):
        with pytest.raises(ArtifactError, match=match):
            _script(tmp_path, text)

    def test_a_missing_package_is_named(self, tmp_path):
        with pytest.raises(MissingDependencyError, match="nosuchpackage"):
            _script(tmp_path, "run <- function(newdata) newdata\n", packages="nosuchpackage")


def test_without_rscript_the_error_says_how_to_install_it(tmp_path):
    path = tmp_path / "m.R"
    path.write_text("run <- function(newdata) newdata\n")
    with pytest.raises(MissingDependencyError) as caught:
        mb.load(f"r:{path}", trust="code", signature=X, options={"r": {"rscript": str(tmp_path / "Rscript")}})
    assert "apt-get install" in caught.value.hint


@pytest.mark.skipif(shutil.which("Rscript") is None, reason="Rscript is not installed")
def test_a_script_without_signature_is_refused_with_the_remedy(tmp_path):
    path = tmp_path / "m.R"
    path.write_text("run <- function(newdata) newdata\n")
    with pytest.raises(InputError) as caught:
        mb.load(f"r:{path}", trust="code")
    assert "signature=" in caught.value.hint


def test_the_layout_holds_levels_as_r_writes_them():
    columns = (mb.Column("yes", categories=(False, True)), mb.Column("n", categories=(1, 2)))
    got = layout(mb.Signature([mb.TensorSpec("categorical", "int32", ("rows", 2), columns)], [mb.TensorSpec("y", "float64", ("rows",))]))
    assert got["col.kind"].tolist() == ["bools", "whole"]
    assert got["col.levels"].tolist() == ["FALSE", "TRUE", "1", "2"]
