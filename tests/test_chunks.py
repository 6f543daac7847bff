"""Large batches run in bounded chunks, in order; a bar is drawn only where somebody watches and it takes long."""

import io
import sys
import time

import numpy as np
import pytest
from rich.console import Console

import mlbridge as mb
from mlbridge import progress
from mlbridge.errors import InferenceError


@pytest.fixture
def small_chunks(monkeypatch):
    for name, module in list(sys.modules.items()):  # the limit is looked up where it is used
        if name.startswith("mlbridge.") and hasattr(module, "CHUNK_VALUES"):
            monkeypatch.setattr(module, "CHUNK_VALUES", 20)


def _model(run, rows="rows", width=2):
    signature = mb.Signature([mb.TensorSpec("x", "float64", (rows, width))], [mb.TensorSpec("y", "float64", (rows,))])
    return mb.wrap(run, signature=signature)


class _Summing:
    """Add the columns up, and remember how many rows came at once."""

    def __init__(self):
        self.seen = []

    def __call__(self, feeds):
        self.seen.append(len(feeds["x"]))
        return {"y": feeds["x"].sum(axis=1)}


X = np.random.default_rng(0).normal(size=(93, 2))


@pytest.mark.parametrize("ask", [lambda m: m.predict(X)["y"], lambda m: m.run({"x": X})["y"], lambda m: m.predict(X, outputs="y")])
def test_a_large_batch_runs_in_bounded_chunks_in_order(small_chunks, ask):
    run = _Summing()
    with _model(run) as m:
        run.seen.clear()
        np.testing.assert_array_equal(ask(m), X.sum(axis=1))
        assert max(run.seen) == 10
        assert sum(run.seen) == 93


def test_a_pipeline_of_large_tables_holds_one_chunk_between_its_stages(small_chunks):
    first, second = _Summing(), _Summing()
    wide = mb.Signature([mb.TensorSpec("x", "float64", ("rows", 2))], [mb.TensorSpec("x", "float64", ("rows", 2))])
    a = mb.wrap(lambda f: {"x": np.stack([first(f)["y"]] * 2, axis=1)}, signature=wide)
    b = _model(second)
    with a, b, mb.Pipeline("p", {"a": a, "b": b}) as p:
        second.seen.clear()
        np.testing.assert_allclose(p.predict(X)["y"], 2 * X.sum(axis=1))
        assert max(second.seen) == 10


def test_rows_that_depend_on_each_other_stay_together(small_chunks):
    run = _Summing()
    with _model(run, rows="n") as m:
        run.seen.clear()
        m.predict(X)
        assert run.seen == [93]


def test_a_chunk_that_fails_fails_the_call(small_chunks):
    def broken(feeds):
        if (feeds["x"] > 100).any():
            raise ZeroDivisionError("no")
        return {"y": feeds["x"][:, 0]}

    x = X.copy()
    x[50] = 1000
    with _model(broken) as m, pytest.raises(InferenceError, match="no"):
        m.predict(x)


def _drawn(monkeypatch, watched, steps, pause_s):
    written = io.StringIO()
    monkeypatch.setattr(progress, "_watched", lambda: watched)
    monkeypatch.setattr("rich.console.Console", lambda **_: Console(file=written, force_terminal=True))
    with progress.bar("scoring", 10, patience_s=0.05) as tell:
        for i in range(steps):
            time.sleep(pause_s)
            tell(i + 1)
    return "scoring" in written.getvalue()


@pytest.mark.parametrize(
    ("watched", "steps", "pause_s", "want"),
    [(True, 6, 0.03, True), (False, 6, 0.03, False), (True, 6, 0.0, False)],
    ids=["long and watched", "nobody watches", "quick"],
)
def test_a_bar_is_drawn_only_for_long_work_that_somebody_watches(monkeypatch, watched, steps, pause_s, want):
    assert _drawn(monkeypatch, watched, steps, pause_s) is want


def test_a_terminal_is_watched_and_a_file_is_not(monkeypatch):
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    monkeypatch.delitem(sys.modules, "ipykernel", raising=False)
    assert not progress._watched()
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    assert progress._watched()
