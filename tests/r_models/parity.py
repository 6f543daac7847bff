"""Parity with R: fit the catalogue, make probe rows, ask R for its answers, compare with the converted model's.

Shared by `tests/test_r_conversion.py` and `benchmarks/frameworks/bench_r.py`, which writes docs/r-models.md.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np

from mlbridge.frameworks.r import RFramework, RObject, read_rds
from mlbridge.frameworks.r.robject import number_text
from mlbridge.signature import Signature

HERE = Path(__file__).parent
MAX_PROBES = 1500  # rows a model: R's own predict is what takes the time


def missing_tools() -> str | None:
    """Say what is not installed, None if all is."""
    if shutil.which("Rscript") is None:
        return "Rscript is not installed"
    packages = ["MASS", "rpart", "nnet", "splines", "survival", "randomForest", "ranger", "gbm", "glmnet", "e1071", "caret", "kernlab"]
    code = "cat(setdiff(commandArgs(TRUE), rownames(installed.packages())))"
    absent = subprocess.run(
        ["Rscript", "-e", code, *packages], capture_output=True, text=True, env=environment(), check=False
    ).stdout.strip()
    return f"R packages are not installed: {absent}" if absent else None


def environment() -> dict[str, str]:
    """Return an environment in which R is quick and the same everywhere."""
    return {**os.environ, "TZ": "UTC", "OMP_NUM_THREADS": "1", "LC_ALL": "C.UTF-8"}


def run_r(script: str, *arguments: str) -> str:
    """Run one of the scripts here and return what it said."""
    done = subprocess.run(["Rscript", str(HERE / script), *arguments], capture_output=True, text=True, env=environment(), check=False)
    if done.returncode:
        raise RuntimeError(f"{script} failed:\n{done.stderr[-4000:]}")
    return done.stderr


class Case:
    """One model of the catalogue, converted."""

    def __init__(self, folder: Path, name: str) -> None:
        import onnxruntime

        self.name, self.stem = name, folder / name
        self.feeds: dict[str, dict[str, np.ndarray]] = {}
        data = read_rds((folder / f"{name}.data.rds").read_bytes())
        assert data is not None
        self.rows: RObject = data["rows"]
        self.options = {k: _plain(v) for k, v in zip(data["options"].names, data["options"].value)}
        model = read_rds((folder / f"{name}.rds").read_bytes())
        self.framework, self.model = RFramework(), model
        assert self.framework.accepts(model), f"not accepted: {model}"
        self.signature = self.framework.infer(model, sample_of(self.rows), **self.options)
        target = folder / f"{name}.onnx"
        target.mkdir(exist_ok=True)
        self.path = self.framework.convert(model, target, signature=self.signature, **self.options)
        settings = onnxruntime.SessionOptions()
        settings.intra_op_num_threads = 1
        settings.log_severity_level = 3
        self.session = onnxruntime.InferenceSession(str(self.path), settings, providers=["CPUExecutionProvider"])

    def run(self, feeds: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Run the converted model."""
        return dict(zip((s.name for s in self.signature.outputs), self.session.run([s.name for s in self.signature.outputs], feeds)))

    def training(self) -> dict[str, np.ndarray]:
        """Return the training rows as feeds."""
        return feeds_of(self.rows, self.signature)

    def probes(self) -> dict[str, np.ndarray]:
        """Return probe rows, and write them for R."""
        feeds = self.framework.probe(self.model, signature=self.signature, seed=0, **self.options)
        count = len(next(iter(feeds.values())))
        if count > MAX_PROBES:
            keep = np.sort(np.random.default_rng(0).choice(count, MAX_PROBES, replace=False))
            feeds = {k: np.ascontiguousarray(v[keep]) for k, v in feeds.items()}
        return feeds

    def write(self, feeds: dict[str, np.ndarray]) -> None:
        """Write feeds for `answer.R`: doubles column by column, and a line of text a column."""
        lines, columns = [], []
        for spec in self.signature.inputs:
            for j, column in enumerate(spec.columns):
                texts = [("TRUE" if v else "FALSE") if isinstance(v, bool) else str(v) for v in column.categories or ()]
                lines.append("\t".join([column.name, *texts]))
                columns.append(feeds[spec.name][:, j].astype(np.float64))
        Path(f"{self.stem}.columns.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
        np.concatenate(columns).tofile(f"{self.stem}.rows.bin")


def fit_all(folder: Path) -> tuple[list[Case], str]:
    """Fit the catalogue, convert every model, let R answer the probe rows; return the cases and R's words."""
    words = run_r("fit.R", str(folder))
    names = sorted(f.name.removesuffix(".data.rds") for f in folder.glob("*.data.rds"))
    cases = [Case(folder, n) for n in names]
    for case in cases:
        case.feeds = {"train": case.training(), "probe": case.probes()}
        case.write(case.feeds["probe"])
    return cases, words + run_r("answer.R", str(folder))


def sample_of(rows: RObject) -> Any:
    """Return the factors of a data frame as a table, for models whose file does not hold their levels."""
    import pandas as pd

    if rows.kind != "list":
        return None
    factors = {n: v for n, v in zip(rows.names, rows.value) if v.levels}
    return pd.DataFrame({n: pd.Categorical([], categories=list(v.levels)) for n, v in factors.items()})


def _plain(value: RObject) -> Any:
    if value.kind == "character":
        return value.text()
    number = value.scalar()
    return int(number) if number.is_integer() and value.kind == "integer" else number


def feeds_of(rows: RObject, signature: Signature) -> dict[str, np.ndarray]:
    """Turn an R data frame or matrix, as the reader gives it, into feeds."""
    if rows.kind == "list":
        table = dict(zip(rows.names, rows.value))
    else:
        matrix = rows.array()
        names = (rows.dimnames[1] if len(rows.dimnames) == 2 else None) or [c.name for c in signature.columns]
        table = {n: RObject("double", matrix[:, j]) for j, n in enumerate(names)}
    feeds = {}
    for spec in signature.inputs:
        columns = [_encode(table[c.name], c) for c in spec.columns]
        feeds[spec.name] = np.ascontiguousarray(np.stack(columns, axis=1).astype(spec.dtype))
    return feeds


def _encode(value: RObject, column: Any) -> np.ndarray:
    if column.categories is None:
        return value.numbers()
    levels = [("TRUE" if v else "FALSE") if isinstance(v, bool) else str(v) for v in column.categories]
    if value.kind == "character" or value.levels:
        texts = value.strings()
    elif value.kind == "logical":
        texts = ["NA" if np.isnan(v) else "TRUE" if v else "FALSE" for v in value.numbers()]
    else:
        texts = ["NA" if np.isnan(v) else number_text(v) for v in value.numbers()]
    other = len(levels) if column.unknown == "keep" else -1
    return np.array([levels.index(t) if t in levels else -1 if t == "NA" else other for t in texts])


def answers(stem: Path, part: str) -> dict[str, np.ndarray]:
    """Read what R answered; a matrix a name."""
    out = {}
    for line in Path(f"{stem}.{part}.txt").read_text().splitlines():
        name, rows, columns = line.split("\t")
        out[name] = np.fromfile(f"{stem}.{part}.{name}.bin").reshape((int(rows), int(columns)), order="F")
    return out


def compare(got: dict[str, np.ndarray], want: dict[str, np.ndarray], *, ties: float = 1e-9) -> tuple[float, int, int]:
    """Return the largest relative error, the labels changed outside ties, and the labels that tie."""
    asked = {n for n in want if not n.startswith(".")}  # the rest only tells ties
    assert set(got) == asked, f"outputs {sorted(got)}, R gave {sorted(asked)}"
    error, changed, tied = 0.0, 0, 0
    for name, value in got.items():
        a, b = value.reshape(len(value), -1).astype(np.float64), want[name]
        assert a.shape == b.shape, f"{name}: {a.shape}, R gave {b.shape}"
        if name.startswith("label") or name == "cluster":
            differs = (a != b).any(axis=1)
            tie = _ties(want, len(a), ties) & differs
            changed, tied = changed + int((differs & ~tie).sum()), tied + int(tie.sum())
            continue
        odd = ~np.isfinite(a) | ~np.isfinite(b)
        same = (np.isnan(a) & np.isnan(b)) | (a == b)
        if (odd & ~same).any():
            return np.inf, changed, tied
        scale = 1e-3 * np.max(np.where(np.isfinite(b), np.abs(b), 0), axis=0, initial=0, keepdims=True)
        with np.errstate(all="ignore"):
            relative = np.where(same, 0.0, np.abs(a - b) / np.maximum(np.abs(b), scale))
        error = max(error, float(relative.max(initial=0.0)))
    return error, changed, tied


def tie_of(model: RObject) -> float:
    """Return how near two scores must be to tie: `max.col` breaks ties within 1e-5 at random."""
    return 1e-5 if {"nnet", "lda", "qda", "polr", "train"} & set(model.classes) else 1e-9


def _ties(want: dict[str, np.ndarray], rows: int, tolerance: float) -> np.ndarray:
    scores = want.get(".votes", want.get("probabilities"))
    if scores is None or scores.shape[1] < 2:
        return np.zeros(rows, bool)
    best = np.sort(np.nan_to_num(scores), axis=1)[:, -2:]
    return best[:, 1] - best[:, 0] <= tolerance
