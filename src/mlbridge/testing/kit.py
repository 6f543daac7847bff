"""The conformance checks, one method each; pytest collects them from subclasses."""

from __future__ import annotations

import pickle
import subprocess
import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest

from ..conversion.verification import compare, default_tolerance
from ..errors import (
    ArtifactError,
    BridgeTimeoutError,
    CancelledError,
    ClosedError,
    InferenceError,
    InputError,
    MlbridgeError,
    UntrustedArtifactError,
)
from ..interfaces import UNBOUNDED, Deadline
from ..model import Model
from ..signature import Signature

__all__ = ["ModelKit"]

Feeds = Mapping[str, np.ndarray]


class ModelKit:
    """Subclass as `class TestMyRuntime(ModelKit)` and give at least `open_model` and `golden`.

    Attributes
    ----------
    quirks : dict of int to str
        Checks this runtime cannot pass, each with the reason.
    runtime_module, library : str
        For check 17: importing the first must not import the second.
    """

    quirks: ClassVar[Mapping[int, str]] = {}
    runtime_module: ClassVar[str] = ""
    library: ClassVar[str] = ""

    # ---- what a subclass gives

    def open_model(self) -> Model:
        """Return a new Model."""
        raise NotImplementedError("a kit needs open_model")

    def golden(self) -> tuple[Feeds, Feeds]:
        """Return feeds and the outputs the source gives for them, at least 8 rows, as `Model.run` speaks them."""
        raise NotImplementedError("a kit needs golden")

    def failing_model(self) -> tuple[Model, Feeds] | None:
        """Return a Model that fails inside run for these feeds; None skips check 12."""
        return None

    def text_model(self) -> Model | None:
        """Return a Model that answers its one text input `text` ("rows", 1) as `echo` ("rows",); None skips 15."""
        return None

    def unknown_level(self) -> tuple[Model, dict[str, Any]] | None:
        """Return a Model and a record with an unknown level; None skips 19."""
        return None

    def slow_model(self) -> tuple[Model, Feeds] | None:
        """Return a Model that takes seconds for these feeds; None skips 22."""
        return None

    def artifact(self, folder: Path) -> Path | None:
        """Write this runtime's file into the folder; None skips 16."""
        return None

    def load(self, path: Path) -> Any:
        """Load a file as the runtime does, for 16 and 20."""
        raise NotImplementedError("check 16 needs load")

    def code_artifact(self, folder: Path, marker: Path) -> Path | None:
        """Write a file that would create `marker` if it ran; None skips 20."""
        return None

    # ---- help

    @pytest.fixture(autouse=True)
    def _models(self):
        self._open: list[Model] = []
        yield
        for m in self._open:
            m.close()

    def model(self) -> Model:
        """Return a Model that is closed when the check ends."""
        return self._keep(self.open_model())

    def _keep(self, model: Model) -> Model:
        self._open.append(model)
        return model

    def _skip(self, check: int, thing: object = True) -> None:
        if check in self.quirks:
            pytest.skip(f"quirk: {self.quirks[check]}")
        if thing is None:
            pytest.skip("this runtime's test gives nothing for the check")

    def _same(self, got: Feeds, want: Feeds, signature: Signature, *, what: str) -> None:
        bad = [o for o in compare(got, want, signature, tolerance=default_tolerance(signature)) if not o.ok]
        assert not bad, f"{what}: {bad}"

    # ---- the checks

    def test_01_outputs_equal_the_golden_values(self):
        self._skip(1)
        feeds, want = self.golden()
        model = self.model()
        self._same(model.run(feeds), want, model.signature, what="golden")

    def test_02_names_order_and_dtypes_are_as_declared(self):
        self._skip(2)
        model = self.model()
        got = model.run(self.golden()[0])
        assert list(got) == [s.name for s in model.signature.outputs]
        for s in model.signature.outputs:
            assert got[s.name].dtype == (object if s.dtype == "string" else np.dtype(s.dtype)), s.name
            assert got[s.name].ndim == len(s.shape), s.name

    def test_03_inputs_are_not_modified(self):
        self._skip(3)
        feeds = {k: np.array(v, order="C") for k, v in self.golden()[0].items()}
        before = {k: v.copy() for k, v in feeds.items()}
        self.model().run(feeds)
        for k, v in feeds.items():
            np.testing.assert_array_equal(v, before[k])

    def test_04_zero_rows_give_zero_rows(self):
        self._skip(4)
        model = self.model()
        if not model.signature.batched:
            pytest.skip("the model promises no rows")
        got = model.run({k: v[:0] for k, v in self.golden()[0].items()})
        assert all(v.shape[0] == 0 for v in got.values())

    def test_05_one_row_keeps_its_axis(self):
        self._skip(5)
        model = self.model()
        got = model.run({k: v[:1] for k, v in self.golden()[0].items()})
        for s in model.signature.outputs:
            assert got[s.name].ndim == len(s.shape)
            assert not s.batched or got[s.name].shape[0] == 1

    @pytest.mark.parametrize("form", ["fortran", "strided", "big_endian", "read_only"])
    def test_06_arrays_of_any_layout_work(self, form):
        self._skip(6)
        feeds, want = self.golden()
        model = self.model()
        self._same(model.run({k: _layout(v, form) for k, v in feeds.items()}), want, model.signature, what=form)

    def test_07_outputs_do_not_alias_across_calls(self):
        self._skip(7)
        feeds, _ = self.golden()
        model = self.model()
        first = model.run(feeds)
        kept = {k: v.copy() for k, v in first.items()}
        second = model.run({k: v[::-1] for k, v in feeds.items()})
        for k, v in first.items():
            assert v.dtype == object or not np.shares_memory(v, second[k]), k
            np.testing.assert_array_equal(v, kept[k])

    def test_08_wrong_names_ranks_sizes_and_dtypes_are_refused(self):
        self._skip(8)
        feeds, _ = self.golden()
        model = self.model()
        name, value = next(iter(feeds.items()))
        rest = {k: v for k, v in feeds.items() if k != name}
        wrong: list[dict] = [rest, {**feeds, "no such input": value}, {**feeds, name: value[..., None]}]
        if value.ndim > 1:
            wrong.append({**feeds, name: np.concatenate([value, value], axis=-1)})
        wrong.append({**feeds, name: np.full(value.shape, 1j) if value.dtype != object else np.zeros(value.shape)})
        for bad in wrong:
            with pytest.raises(InputError):
                model.run(bad)

    def test_09_missing_and_infinite_values_follow_the_rule(self):
        self._skip(9)
        feeds, _ = self.golden()
        model = self.model()
        for spec in model.signature.inputs:
            if spec.dtype not in ("float32", "float64"):
                continue
            bad = {k: np.array(v, order="C") for k, v in feeds.items()}
            bad[spec.name].reshape(-1)[0] = np.nan
            if spec.missing == "allow":
                model.run(bad)
            else:
                with pytest.raises(InputError, match=spec.name if not spec.columns else ".*"):
                    model.run(bad)
            endless = {k: np.array(v, order="C") for k, v in feeds.items()}
            endless[spec.name].reshape(-1)[0] = np.inf
            assert not any(spec.name in p for p in model.check({spec.name: endless[spec.name]}) if "missing" not in p and "lacks" not in p)

    def test_10_a_batch_equals_its_rows(self):
        self._skip(10)
        feeds, _ = self.golden()
        model = self.model()
        if not model.signature.batched:
            pytest.skip("the model promises no rows")
        whole = model.run(feeds)
        n = len(next(iter(feeds.values())))
        singles = [model.run({k: v[i : i + 1] for k, v in feeds.items()}) for i in range(n)]
        self._same({k: np.concatenate([s[k] for s in singles]) for k in whole}, whole, model.signature, what="one by one")
        order = np.random.default_rng(0).permutation(n)
        self._same(
            model.run({k: v[order] for k, v in feeds.items()}), {k: v[order] for k, v in whole.items()}, model.signature, what="shuffled"
        )

    def test_11_twice_gives_the_same_answer(self):
        self._skip(11)
        feeds, _ = self.golden()
        model = self.model()
        first, second = model.run(feeds), model.run(feeds)
        for k in first:
            np.testing.assert_array_equal(first[k], second[k])

    def test_12_a_failure_inside_is_an_inference_error_that_pickles(self):
        given = self.failing_model()
        self._skip(12, given)
        model, feeds = given  # type: ignore[misc]
        self._keep(model)
        with pytest.raises(InferenceError) as caught:
            model.run(feeds)
        assert caught.value.runtime
        assert caught.value.__cause__ is not None or caught.value.hint or ":" in caught.value.message
        assert pickle.loads(pickle.dumps(caught.value)).message == caught.value.message

    def test_13_close_twice_is_harmless_and_use_afterwards_refused(self):
        self._skip(13)
        model = self.open_model()
        model.close()
        model.close()
        with pytest.raises(ClosedError):
            model.run(self.golden()[0])
        with pytest.raises(ClosedError):
            model._session.run({k: np.ascontiguousarray(v) for k, v in self.golden()[0].items()})

    def test_14_as_many_threads_as_it_says(self):
        self._skip(14)
        feeds, _ = self.golden()
        model = self.model()
        want = model.run(feeds)
        allowed = min(model._session.max_concurrency, 4)
        inside, most, lock, problems = 0, 0, threading.Lock(), []
        run = model._session.run

        def counted(*args, **kwargs):
            nonlocal inside, most
            with lock:
                inside += 1
                most = max(most, inside)
            try:
                return run(*args, **kwargs)
            finally:
                with lock:
                    inside -= 1

        model._session.run = counted  # type: ignore[method-assign]
        if model._session.max_concurrency >= UNBOUNDED:
            model.run_checked = counted

        def ask():
            try:
                self._same(model.run(feeds), want, model.signature, what="in a thread")
            except (AssertionError, MlbridgeError) as exc:
                problems.append(exc)

        threads = [threading.Thread(target=ask) for _ in range(allowed + 1)]
        for t in threads:
            t.start()
        for t in threads:
            t.join(60)
        assert not problems
        assert most <= model._session.max_concurrency

    def test_15_text_empty_foreign_and_missing(self):
        model = self.text_model()
        self._skip(15, model)
        assert model is not None
        self._keep(model)
        values = np.array([["a"], [""], ["zoë 漢字 🎈"]], object)
        assert model.run({"text": values})["echo"].reshape(-1).tolist() == values[:, 0].tolist()
        missing = np.array([[None]], object)
        if model.signature.input("text").missing == "allow":
            assert model.run({"text": missing})["echo"].reshape(-1).tolist() == [None]
        else:
            with pytest.raises(InputError):
                model.run({"text": missing})

    def test_16_garbage_and_truncated_artifacts_are_artifact_errors(self, tmp_path):
        path = self.artifact(tmp_path)
        self._skip(16, path)
        assert path is not None
        whole = path.read_bytes()
        for data in (b"", b"garbage" * 100, whole[: len(whole) // 2], whole[:-1][::-1]):
            bad = path.with_name("bad" + path.suffix)
            bad.write_bytes(data)
            with pytest.raises(ArtifactError):
                self.load(bad)

    def test_17_importing_the_runtime_does_not_import_its_library(self):
        self._skip(17, self.library or None)
        code = f"import sys, {self.runtime_module}; sys.exit({self.library!r} in sys.modules)"
        assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0

    def test_18_device_is_the_real_one(self):
        self._skip(18)
        model = self.model()
        assert model.device == self.device(), model.device

    def device(self) -> str:
        """Return the device the model must report."""
        return "cpu"

    def test_19_an_unknown_level_is_refused_by_name_or_kept(self):
        given = self.unknown_level()
        self._skip(19, given)
        model, record = given  # type: ignore[misc]
        self._keep(model)
        keeps = any(c.unknown == "keep" for c in model.signature.columns if c.categories is not None)
        if keeps:
            model.predict(record)
        else:
            with pytest.raises(InputError, match="unknown level"):
                model.predict(record)

    def test_20_a_code_artifact_without_trust_leaves_no_trace(self, tmp_path):
        marker = tmp_path / "marker"
        path = self.code_artifact(tmp_path, marker)
        self._skip(20, path)
        assert path is not None
        with pytest.raises(UntrustedArtifactError):
            self.load(path)
        assert not marker.exists()

    def test_21_outputs_selects_exactly_those(self):
        self._skip(21)
        feeds, _ = self.golden()
        model = self.model()
        whole = model.run(feeds)
        for name in whole:
            got = model.run(feeds, outputs=[name])
            assert list(got) == [name]
            self._same(got, {name: whole[name]}, _only(model.signature, name), what=name)
        with pytest.raises(InputError):
            model.run(feeds, outputs=["no such output"])

    def test_22_a_deadline_and_a_cancel_end_the_call(self):
        given = self.slow_model()
        self._skip(22, given)
        model, feeds = given  # type: ignore[misc]
        self._keep(model)
        with pytest.raises(BridgeTimeoutError):
            model.run(feeds, timeout_s=0.3)
        deadline = Deadline(60)
        timer = threading.Timer(0.3, deadline.cancel)
        timer.start()
        with pytest.raises(CancelledError):
            model._ask(model._coercion.run_feeds(feeds), None, deadline)
        timer.join()
        quick = self.model()
        quick.run(self.golden()[0])


def _only(signature: Signature, name: str) -> Signature:
    return Signature(signature.inputs, (signature.output(name),))


def _layout(array: np.ndarray, form: str) -> np.ndarray:
    if form == "fortran":
        return np.asfortranarray(array)
    if form == "strided":
        wide = np.repeat(array, 2, axis=0)
        return wide[::2]
    if form == "big_endian":
        return array.astype(array.dtype.newbyteorder(">")) if array.dtype != object else array
    out = array.copy()
    out.flags.writeable = False
    return out
