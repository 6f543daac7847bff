"""`r:` under fault: workers killed under load, code that does not listen, hostile files; and NA of every type both ways."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import shutil
import signal
import struct
import threading
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import mlbridge as mb
from mlbridge.errors import (
    ArtifactError,
    BridgeTimeoutError,
    ConversionError,
    InferenceError,
    UnsupportedError,
    UntrustedArtifactError,
    WorkerDiedError,
)

pytestmark = [pytest.mark.r, pytest.mark.skipif(shutil.which("Rscript") is None, reason="Rscript is not installed")]
WAYS = [
    "r",
    pytest.param("r+inproc", marks=pytest.mark.skipif(importlib.util.find_spec("rpy2") is None, reason="rpy2 is not installed")),
]


def _features(*names: str) -> mb.TensorSpec:
    return mb.TensorSpec("features", "float64", ("rows", len(names)), tuple(map(mb.Column, names)), "allow")


X = mb.Signature([_features("x")], [mb.TensorSpec("y", "float64", ("rows",))])


def _script(tmp_path: Path, body: str, *, way: str = "r", signature: mb.Signature = X, **options: object) -> mb.Model:
    path = tmp_path / "script.R"
    path.write_text(body)
    return mb.load(f"{way}:{path}", trust="code", signature=signature, options={"r": options})


# ---------------------------------------------------------------- killed under load

KILLS = [pytest.param(10, id="10"), pytest.param(200, id="200", marks=[pytest.mark.full, pytest.mark.timeout(3600)])]


class _Load:
    """Threads that ask one question after the other and check every answer."""

    def __init__(self, model: mb.Model, threads: int) -> None:
        self.model = model
        self.asked = self.answered = self.died = 0
        self.wrong: list[object] = []
        self._changed = threading.Condition()
        self._stop = False
        self._threads = [threading.Thread(target=self._ask, args=(i,)) for i in range(threads)]
        for thread in self._threads:
            thread.start()

    def _ask(self, seed: int) -> None:
        rng = np.random.default_rng(seed)
        while not self._stop:
            x = rng.normal(size=(int(rng.integers(1, 200)), 1))
            with self._changed:
                self.asked += 1
            try:
                good = np.array_equal(self.model.run({"features": x})["y"], x[:, 0] * 3 + 1)
                died = 0
            except WorkerDiedError:
                good, died = True, 1
            except BaseException as exc:  # noqa: BLE001 - any other class is a failure of the test
                good, died = False, 0
                self.wrong.append(exc)
            with self._changed:
                self.answered += good and not died
                self.died += died
                self._changed.notify_all()

    def wait_for_answers(self, count: int) -> None:
        with self._changed:
            want = self.answered + count
            assert self._changed.wait_for(lambda: self.answered >= want or self.wrong, 120)

    def stop(self) -> None:
        self._stop = True
        for thread in self._threads:
            thread.join(120)
            assert not thread.is_alive()


@pytest.mark.parametrize("kills", KILLS)
def test_killed_at_random_under_load_no_answer_is_wrong_and_none_is_lost(tmp_path, kills):
    rng = np.random.default_rng(7)
    with _script(tmp_path, "run <- function(newdata) list(y = newdata$x * 3 + 1)\n", workers=2) as model:
        load = _Load(model, 4)
        try:
            for _ in range(kills):
                load.wait_for_answers(3)  # else deaths in a row make the model FAILED, as they should
                threading.Event().wait(float(rng.uniform(0, 0.01)))  # any phase of a call
                pids = model._session.pool.pids
                if pids:
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(int(rng.choice(pids)), signal.SIGKILL)
            load.wait_for_answers(3)
        finally:
            load.stop()
        assert not load.wrong
        assert load.asked == load.answered + load.died
        assert load.died <= kills  # a death fails the one request that the worker held, no other
        assert model.run({"features": np.ones((1, 1))})["y"].tolist() == [4.0]


# ---------------------------------------------------------------- what does not listen, what is too much


def test_a_loop_in_c_past_the_deadline_is_killed(tmp_path):
    body = "run <- function(newdata) { if (newdata$x[1] == 1) solve(matrix(runif(36e6), 6000)); list(y = newdata$x) }\n"
    with _script(tmp_path, body, grace_s=0.5) as model:
        with pytest.raises(BridgeTimeoutError):
            model.run({"features": np.ones((1, 1))}, timeout_s=1.0)
        assert model.run({"features": np.full((1, 1), 2.0)})["y"].tolist() == [2.0]


def test_the_memory_limit_is_an_error_of_the_model(tmp_path):
    body = "run <- function(newdata) { if (newdata$x[1] == 1) numeric(4e8); list(y = newdata$x) }\n"
    with _script(tmp_path, body, memory_mb=1500) as model:
        with pytest.raises(InferenceError, match="cannot allocate"):
            model.run({"features": np.ones((1, 1))})
        assert model.run({"features": np.full((1, 1), 2.0)})["y"].tolist() == [2.0]


def test_a_generator_that_a_model_chose_is_not_the_next_calls(tmp_path):
    body = 'run <- function(newdata) { y <- newdata$x + runif(1); RNGkind("Wichmann-Hill"); runif(9); list(y = y) }\n'
    with _script(tmp_path, body) as model:
        first, second = (model.run({"features": np.zeros((1, 1))})["y"][0] for _ in range(2))
    assert first == second == 0.8966972001362592  # R 4.2: set.seed(0); runif(1)


# ---------------------------------------------------------------- values

NA_REAL = 0x7FF00000000007A2  # the bits of R's NA_real_


@pytest.mark.parametrize("way", WAYS)
def test_na_of_every_type_crosses_both_ways(tmp_path, way):
    body = """run <- function(newdata) list(
  real = ifelse(newdata$x > 1, newdata$x, NA), whole = ifelse(is.na(newdata$x), NA_integer_, 7L), truth = newdata$yes,
  level = newdata$sex, text = newdata$words, when = newdata$at, seen = as.numeric(rowSums(is.na(newdata))))
"""
    signature = mb.Signature(
        [
            mb.TensorSpec("features", "float64", ("rows", 2), (mb.Column("x"), mb.Column("at", unit="timestamp")), "allow"),
            mb.TensorSpec("categorical", "int32", ("rows", 2), (mb.Column("yes", (False, True)), mb.Column("sex", ("f", "é"))), "allow"),
            mb.TensorSpec("text", "string", ("rows", 1), (mb.Column("words"),), "allow"),
        ],
        [
            *(mb.TensorSpec(n, "float64", ("rows",), missing="allow") for n in ("real", "whole", "truth")),
            mb.TensorSpec("level", "int32", ("rows",), (mb.Column("level", ("f", "é")),), "allow"),
            mb.TensorSpec("text", "string", ("rows",), missing="allow"),
            mb.TensorSpec("when", "float64", ("rows",), missing="allow"),
            mb.TensorSpec("seen", "float64", ("rows",)),
        ],
    )
    feeds = {
        "features": np.array([[2.0, 1e9 + 0.5], [np.nan, np.nan], [-np.inf, 0.0]]),
        "categorical": np.array([[1, 1], [-1, -1], [0, 0]], np.int32),
        "text": np.array([["zoë"], [None], [""]], object),
    }
    with _script(tmp_path, body, way=way, signature=signature) as model:
        got = model.run(feeds)
    assert got["real"].view(np.uint64)[1:].tolist() == [NA_REAL, NA_REAL]
    np.testing.assert_array_equal(got["whole"], [7, np.nan, 7])
    np.testing.assert_array_equal(got["truth"], [1, np.nan, 0])
    assert got["level"].tolist() == [1, -1, 0]
    assert got["text"].tolist() == ["zoë", None, ""]
    np.testing.assert_array_equal(got["when"], [1e9 + 0.5, np.nan, 0])
    assert got["seen"].tolist() == [0, 5, 0]


@pytest.mark.parametrize("way", WAYS)
def test_columns_are_found_by_name_in_any_order(tmp_path, way):
    signature = mb.Signature([_features("a", "b")], [mb.TensorSpec("y", "float64", ("rows",))])
    with _script(tmp_path, "run <- function(newdata) list(y = newdata$a - newdata$b)\n", way=way, signature=signature) as model:
        assert model.predict(pd.DataFrame({"b": [1.0], "other": [0.0], "a": [5.0]}))["y"].tolist() == [4.0]


# ---------------------------------------------------------------- files that would run code


def _flags(kind: int, *, tag: bool = False, attributes: bool = False, of_class: bool = False) -> bytes:
    return struct.pack(">I", kind | of_class << 8 | attributes << 9 | tag << 10)


def _symbol(name: str) -> bytes:
    return _flags(1) + _chars(name)


def _chars(text: str) -> bytes:
    return struct.pack(">I", 9 | 1 << 18) + struct.pack(">i", len(text)) + text.encode()


def _strings(*texts: str) -> bytes:
    return _flags(16) + struct.pack(">i", len(texts)) + b"".join(map(_chars, texts))


GLOBAL, UNBOUND, NIL = _flags(253), _flags(252), _flags(254)


def _call(function: str, argument: str) -> bytes:
    return _flags(6) + _symbol(function) + _flags(2) + _strings(argument) + NIL


def _rds(value: bytes) -> bytes:
    return b"X\n" + struct.pack(">3I", 2, 0x40202, 0x20300) + value


def _list_of_class(name: str, member: str, value: bytes) -> bytes:
    attributes = _flags(2, tag=True) + _symbol("names") + _strings(member) + _flags(2, tag=True) + _symbol("class") + _strings(name) + NIL
    return _flags(19, attributes=True, of_class=True) + struct.pack(">i", 1) + value + attributes


def _payload(kind: str, marker: Path) -> bytes:
    code = _call("file.create", str(marker))
    if kind == "promise":  # evaluated by R as soon as anything looks at it
        return _rds(_flags(5, tag=True) + GLOBAL + UNBOUND + code)
    if kind == "promise in a model":
        return _rds(_list_of_class("lm", "coefficients", _flags(5, tag=True) + GLOBAL + UNBOUND + code))
    closure = _flags(3) + GLOBAL + NIL + code
    return _rds(_list_of_class("lm", "terms", closure))


@pytest.mark.parametrize("kind", ["promise", "promise in a model", "closure"])
@pytest.mark.parametrize("source", ["{}", "r:{}"])
def test_a_crafted_rds_runs_nothing_below_trust_code(tmp_path, kind, source):
    marker, path = tmp_path / "marker", tmp_path / "model.rds"
    path.write_bytes(_payload(kind, marker))
    with pytest.raises((ArtifactError, UntrustedArtifactError, UnsupportedError, ConversionError)):
        mb.load(source.format(path))
    assert not marker.exists()


def test_the_crafted_promise_is_a_live_one(tmp_path):
    """Else the test above would hold whatever the reader does."""
    marker, path = tmp_path / "marker", tmp_path / "model.rds"
    path.write_bytes(_payload("promise", marker))
    with pytest.raises(mb.MlbridgeError):
        mb.load(f"r:{path}", trust="code")
    assert marker.exists()
