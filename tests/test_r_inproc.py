"""`r+inproc:`: the answers of `r:` bit by bit, from any thread, and a host that outlives what a model does."""

from __future__ import annotations

import importlib.util
import locale
import logging
import os
import shutil
import subprocess
import sys
import textwrap
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

import mlbridge as mb
from mlbridge.artifact import open_artifact
from mlbridge.errors import BridgeError, BridgeTimeoutError, CancelledError, InferenceError, InputError
from mlbridge.interfaces import Deadline
from mlbridge.runtimes.r import RRuntime
from mlbridge.runtimes.r.embedded import misfit

pytestmark = [
    pytest.mark.r,
    pytest.mark.skipif(shutil.which("Rscript") is None, reason="Rscript is not installed"),
    pytest.mark.skipif(importlib.util.find_spec("rpy2") is None, reason="rpy2 is not installed"),
]
X = mb.Signature(
    [mb.TensorSpec("features", "float64", ("rows", 1), (mb.Column("x"),), "allow")],
    [mb.TensorSpec("y", "float64", ("rows",), missing="allow")],
)
FIT = """
out <- commandArgs(TRUE)[1]
d <- within(MASS::Pima.tr, group <- factor(rep(c("a", "b", "c", "b"), length.out = nrow(MASS::Pima.tr))))
save <- function(name, fit) saveRDS(fit, file.path(out, paste0(name, ".rds")))
save("lm", lm(glu ~ bmi + poly(age, 2) + group, d))
save("forest", randomForest::randomForest(type ~ glu + bmi + group, d, ntree = 10))
save("bayes", e1071::naiveBayes(type ~ glu + bmi + group, d))
save("gam", mgcv::gam(type ~ s(glu) + group, binomial, d))
save("prcomp", prcomp(d[c("glu", "bmi", "age")], scale. = TRUE))
"""
MISCHIEF = """
deep <- function(n) deep(n + 1)
run <- function(newdata) {
  switch(as.integer(newdata$x[1]),
    q(), base::quit(status = 0), .Internal(quit("no", 0L, FALSE)), deep(1), { options(expressions = 5e5); deep(1) }, numeric(1e13),
    stop(structure(class = c("too_bad", "error", "condition"), list(message = "no", call = sys.call()))), Sys.sleep(60), repeat {},
    system("sleep 2"), { setwd(tempdir()); Sys.setlocale("LC_ALL", "C"); RNGkind("Wichmann-Hill") },
    { warning("careful"); message("hello"); cat("printed", "here\\n") })
  list(y = newdata$x / 3 + runif(1))
}
"""
CALM = 99.0  # past the end of the switch


def ask(value: float) -> dict[str, np.ndarray]:
    return {"features": np.full((1, 1), float(value))}


@pytest.fixture(scope="module")
def fitted(tmp_path_factory):
    folder = tmp_path_factory.mktemp("fitted")
    (folder / "fit.R").write_text(FIT)
    subprocess.run(["Rscript", "--vanilla", str(folder / "fit.R"), str(folder)], check=True, capture_output=True)
    return folder


@pytest.fixture(scope="module")
def mischief(tmp_path_factory):
    path = tmp_path_factory.mktemp("mischief") / "mischief.R"
    path.write_text(MISCHIEF)
    with mb.load(f"r+inproc:{path}", trust="code", signature=X, options={"r": {"grace_s": 0.3}}) as model:
        yield model


@pytest.mark.parametrize("name", ["lm", "forest", "bayes", "gam", "prcomp"])
def test_bit_by_bit_what_the_worker_says(fitted, name):
    rng = np.random.default_rng(0)
    answers = []
    for way in (None, "inproc"):
        session = RRuntime().load(open_artifact(fitted / f"{name}.rds"), way=way)
        feeds = {}
        rng = np.random.default_rng(0)
        for spec in session.signature.inputs:
            shape = (20, spec.shape[1])
            feeds[spec.name] = rng.integers(-1, 3, shape).astype(np.int32) if spec.dtype == "int32" else rng.normal(100, 30, shape)
        answers.append(session.run(feeds))
        session.close()
    assert list(answers[0]) == list(answers[1])
    for output, value in answers[0].items():
        assert value.tobytes() == answers[1][output].tobytes(), output


class TestMischief:
    @pytest.mark.parametrize("what", [1, 2], ids=["q()", "base::quit(status = 0)"])
    def test_quit_is_an_error_and_the_host_lives(self, mischief, what):
        with pytest.raises(InferenceError, match="asked R to quit"):
            mischief.run(ask(what))
        mischief.run(ask(CALM))

    def test_a_quit_past_the_mask_is_an_error_too(self, mischief):
        with pytest.raises(BridgeError, match="quit"):
            mischief.run(ask(3))
        mischief.run(ask(CALM))

    @pytest.mark.parametrize(("what", "match"), [(4, "nested too deeply|C stack"), (5, "C stack|protection stack"), (6, "cannot allocate")])
    def test_endless_recursion_and_memory_are_typed_errors(self, mischief, what, match):
        with pytest.raises(InferenceError, match=match):
            mischief.run(ask(what))
        mischief.run(ask(CALM))

    def test_an_error_of_r_has_its_condition_and_trace(self, mischief):
        with pytest.raises(InferenceError, match="no") as caught:
            mischief.run(ask(7))
        assert caught.value.condition[0] == "too_bad"
        assert caught.value.trace.startswith("held$model(newdata)")

    @pytest.mark.parametrize("what", [8, 9], ids=["Sys.sleep", "repeat"])
    def test_a_deadline_interrupts(self, mischief, what):
        with pytest.raises(BridgeTimeoutError):
            mischief.run(ask(what), timeout_s=0.3)
        mischief.run(ask(CALM))

    def test_a_cancel_interrupts(self, mischief):
        deadline = Deadline(60)
        timer = threading.Timer(0.2, deadline.cancel)
        timer.start()
        with pytest.raises(CancelledError):
            mischief._session.run(ask(8), deadline=deadline)
        timer.join()
        mischief.run(ask(CALM))

    def test_what_does_not_listen_is_told_of_until_it_ends(self, mischief):
        with pytest.raises(BridgeTimeoutError):
            mischief.run(ask(10), timeout_s=0.1)
        with pytest.raises(BridgeError, match="busy"):
            mischief.run(ask(CALM))  # waits for the grace, then is refused
        ends_at = time.monotonic() + 60
        while time.monotonic() < ends_at:
            try:
                mischief.run(ask(CALM))
            except BridgeError:
                continue
            break
        else:
            pytest.fail("R never came back")

    def test_folder_locale_and_generator_are_put_back(self, mischief):
        before = os.getcwd(), locale.setlocale(locale.LC_ALL), mischief.run(ask(CALM))["y"][0]
        mischief.run(ask(11))
        assert (os.getcwd(), locale.setlocale(locale.LC_ALL), mischief.run(ask(CALM))["y"][0]) == before

    def test_warnings_messages_and_prints_go_to_the_logger(self, mischief, caplog, capfd):
        with caplog.at_level(logging.INFO, "mlbridge.r"):
            mischief.run(ask(12))
        told = {(r.levelname, r.message) for r in caplog.records if r.name == "mlbridge.r"}
        assert {("WARNING", "careful"), ("INFO", "hello"), ("INFO", "printed here")} <= told
        assert capfd.readouterr().out == ""


def test_any_thread_may_ask(fitted):
    with mb.load(f"r+inproc:{fitted / 'prcomp.rds'}", trust="code") as model:
        rows = np.random.default_rng(1).normal(100, 20, (64, 3))
        want = model.run({"features": rows})["transformed"]
        with ThreadPoolExecutor(8) as pool:
            got = list(pool.map(lambda i: model.run({"features": rows[i : i + 1]})["transformed"], range(64)))
    np.testing.assert_allclose(np.concatenate(got), want, rtol=1e-12)  # R's matrix product may group rows differently


@pytest.mark.parametrize(
    "keep",
    [
        "kept <<- newdata",
        "kept <<- list(x = newdata$x)",
        "{ f <- function() newdata; kept <<- list(x = function() f()$x) }",
        "{ x <- newdata$x; delayedAssign('late', x); here <- environment(); kept <<- list(x = function() get('late', here)) }",
        "kept <<- list(x = structure(newdata$x, mark = 1))",
    ],
    ids=["frame", "vector", "closure", "promise", "attributes"],
)
def test_what_a_model_keeps_of_a_question_stays_as_it_was(tmp_path, keep):
    path = tmp_path / "keeps.R"
    path.write_text(f"""
        kept <- NULL
        run <- function(newdata) {{
          if (newdata$x[1, 1] == 3) {keep}
          x <- if (is.function(kept$x)) kept$x() else kept$x
          list(y = newdata$x[, 2L] + if (is.null(x)) 0 else 100 * x[1, 1])
        }}
    """)
    matrix = mb.Signature([mb.TensorSpec("x", "float64", ("rows", 2))], [mb.TensorSpec("y", "float64", ("rows",))])
    with mb.load(f"r+inproc:{path}", trust="code", signature=matrix) as model:
        got = [model.run({"x": np.full((2, 2), float(i))})["y"].tolist() for i in range(1, 7)]
    assert got == [[1, 1], [2, 2], [303, 303], [304, 304], [305, 305], [306, 306]]


def test_a_question_like_the_last_is_a_question_of_its_own(tmp_path):
    path = tmp_path / "changes.R"
    path.write_text("run <- function(newdata) { newdata$x[] <- newdata$x * 2; newdata$z <- 1; list(y = newdata$x[, 1L] + newdata$w) }")
    inputs = [mb.TensorSpec("x", "float64", ("rows", 2), missing="allow"), mb.TensorSpec("w", "float64", ("rows",))]
    signature = mb.Signature(inputs, [mb.TensorSpec("y", "float64", ("rows",), missing="allow")])
    with mb.load(f"r+inproc:{path}", trust="code", signature=signature) as model:
        for rows, value in [(2, 1.0), (2, 2.0), (2, np.nan), (3, 3.0), (2, 4.0), (2, 5.0)]:
            got = model.run({"w": np.ones(rows), "x": np.full((rows, 2), value)})["y"]
            np.testing.assert_array_equal(got, np.full(rows, 2 * value + 1))


def test_options_of_workers_are_refused(fitted):
    with pytest.raises(InputError, match="memory_mb"):
        mb.load(f"r+inproc:{fitted / 'lm.rds'}", trust="code", options={"r": {"memory_mb": 100}})


# ---------------------------------------------------------------- processes of their own


def _python(body: str, *arguments: object) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, "-c", textwrap.dedent(body), *map(str, arguments)], capture_output=True, text=True, check=False)


def test_a_fork_is_refused_and_the_parent_goes_on(fitted):
    done = _python(
        """
        import os, sys
        import mlbridge as mb
        from mlbridge.errors import ClosedError
        model = mb.load("r+inproc:" + sys.argv[1], trust="code")
        feeds = {s.name: __import__("numpy").zeros((2, s.shape[1]), s.dtype) for s in model.signature.inputs}
        want = model.run(feeds)["prediction"].tolist()
        child = os.fork()
        if child == 0:
            try:
                model.run(feeds)
            except ClosedError:
                os._exit(7)
            os._exit(1)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
        assert model.run(feeds)["prediction"].tolist() == want
        """,
        fitted / "lm.rds",
    )
    assert done.returncode == 0, done.stderr


def test_the_process_ends_in_order_and_leaves_no_folder(fitted, tmp_path):
    done = _python(
        """
        import os, sys
        os.environ["TMPDIR"] = sys.argv[2]
        import mlbridge as mb
        model = mb.load("r+inproc:" + sys.argv[1], trust="code")
        assert any(n.startswith("Rtmp") for n in os.listdir(sys.argv[2]))
        """,
        fitted / "lm.rds",
        tmp_path,
    )
    assert done.returncode == 0, done.stderr
    assert not [n for n in os.listdir(tmp_path) if n.startswith("Rtmp")]


def test_an_r_that_somebody_else_started_is_refused(fitted):
    done = _python(
        """
        import sys
        import rpy2.rinterface
        rpy2.rinterface.initr()
        import mlbridge as mb
        from mlbridge.errors import UnavailableError
        try:
            mb.load("r+inproc:" + sys.argv[1], trust="code")
        except UnavailableError as exc:
            assert "use r:" in exc.hint
            sys.exit(7)
        """,
        fitted / "lm.rds",
    )
    assert done.returncode == 7, done.stderr


def test_without_rpy2_the_error_names_the_versions_that_fit(fitted):
    done = _python(
        """
        import sys
        sys.modules["rpy2"] = None
        import mlbridge as mb
        from mlbridge.errors import MissingDependencyError
        try:
            mb.load("r+inproc:" + sys.argv[1], trust="code")
        except MissingDependencyError as exc:
            assert "rpy2-rinterface<3.6.6" in exc.hint, exc.hint
            sys.exit(7)
        """,
        fitted / "lm.rds",
    )
    assert done.returncode == 7, done.stderr


@pytest.mark.parametrize(("rpy2", "r", "fits"), [("3.6.5", "4.2.2", True), ("3.6.6", "4.2.2", False), ("3.7.0", "4.5.1", True)])
def test_which_rpy2_fits_which_r(rpy2, r, fits):
    said = misfit(rpy2, r)
    assert said is None if fits else (rpy2 in said and r in said)
