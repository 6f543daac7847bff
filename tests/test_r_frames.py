"""The frame codec of the R worker and the R package against the golden vectors: what R reads, R writes, bit by bit."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from mlbridge.frames import decode_frame

pytestmark = [pytest.mark.r, pytest.mark.skipif(shutil.which("Rscript") is None, reason="Rscript is not installed")]
ROOT = Path(__file__).parent.parent
VECTORS = ROOT / "proto" / "vectors"
LISTING = json.loads((VECTORS / "vectors.json").read_text(encoding="utf-8"))
CODEC = ROOT / "src" / "mlbridge" / "_r" / "frames.R"
NO_FORM_IN_R = {"float16", "bfloat16"}  # and 64-bit integers beyond 2**53

# Reads each frame twice (the second time by what was learnt of the first), in pieces too, and writes what it read.
DRIVER = """
arguments <- commandArgs(TRUE)
sys.source(arguments[1], globalenv())
read <- function(path) {
  con <- file(path, "rb")
  on.exit(close(con))
  frame <- read_frame(con)
  if (length(readBin(con, "raw", 1L))) stop("bytes are left")
  frame
}
again <- function(frame) {
  out <- list()
  lost <- character()
  for (name in names(frame$tensors)) {
    v <- frame$tensors[[name]]
    spec <- frame$specs[[name]]
    dtype <- names(.codes)[spec$code]
    if (is.list(v)) lost <- c(lost, name)
    else out[[name]] <- if (length(spec$dims)) typed(v, dtype) else scalar(v, dtype)
  }
  list(values = out, lost = lost)
}
for (path in arguments[-(1:2)]) {
  verdict <- tryCatch({
    frame <- read(path)
    if (frame$type != "PING") {
      stopifnot(identical(frame, read(path)))
      .whole_below <- 0
      stopifnot(identical(frame, read(path)))
      .whole_below <- 2^16
      kept <- again(frame)
      con <- file(file.path(arguments[2], basename(path)), "wb")
      write_frame(con, frame$type, kept$values, frame$id)
      close(con)
    }
    paste(c("read", frame$type, if (frame$type != "PING") kept$lost), collapse = " ")
  }, mlbridge_malformed = function(e) "malformed", mlbridge_gone = function(e) "gone", error = function(e) conditionMessage(e))
  cat(basename(path), "\\t", verdict, "\\n", sep = "")
}
"""


@pytest.fixture(scope="module")
def told(tmp_path_factory):
    """What R says of every vector, and the folder of what it wrote."""
    folder = tmp_path_factory.mktemp("frames")
    (folder / "driver.R").write_text(DRIVER)
    files = [str(VECTORS / entry["file"]) for entry in (*LISTING["frames"], *LISTING["malformed"])]
    done = subprocess.run(
        ["Rscript", "--vanilla", str(folder / "driver.R"), str(CODEC), str(folder), *files], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return dict(line.split("\t") for line in done.stdout.splitlines()), folder


def _beyond_r(tensor) -> bool:
    if tensor["dtype"] in NO_FORM_IN_R:
        return True
    if tensor["dtype"] in ("int64", "uint64"):
        values = np.frombuffer(bytes.fromhex(tensor["hex"]), tensor["dtype"])
        return any(abs(int(v)) > 2**53 for v in values)
    return any("\0" in text for text in tensor.get("strings") or () if text is not None)


@pytest.mark.parametrize("entry", LISTING["frames"], ids=lambda e: e["file"])
def test_r_reads_every_frame_and_writes_it_bit_by_bit(told, entry):
    verdicts, folder = told
    lost = [t["name"] for t in entry["tensors"] if _beyond_r(t)]
    assert verdicts[entry["file"]] == " ".join(["read", entry["type"], *lost])
    if entry["type"] == "PING":
        return  # echoed unread
    written = (folder / entry["file"]).read_bytes()
    original = (VECTORS / entry["file"]).read_bytes()
    quieted = any(t["dtype"] == "float32" and np.isnan(np.frombuffer(bytes.fromhex(t["hex"]), "<f4")).any() for t in entry["tensors"])
    if not lost and not quieted and all(len(t["shape"]) < 2 for t in entry["tensors"]):
        assert written == original
    got, want = decode_frame(written), decode_frame(original)
    assert (got.type, got.request_id) == (want.type, want.request_id)
    assert list(got.tensors) == [n for n in want.tensors if n not in lost]
    for name, array in got.tensors.items():
        assert array.dtype == want.tensors[name].dtype
        assert array.shape == want.tensors[name].shape
        if array.dtype == object:
            assert array.tolist() == want.tensors[name].tolist()
        else:
            assert _bits(array) == _bits(want.tensors[name]), name


def _bits(array: np.ndarray) -> bytes:
    if array.dtype == np.float32:  # R computes in double: a signalling NaN comes back quiet, its payload kept
        array = np.where(np.isnan(array), array.view(np.uint32) | 0x00400000, array.view(np.uint32))
    return array.tobytes()


@pytest.mark.parametrize("entry", LISTING["malformed"], ids=lambda e: e["file"])
def test_r_refuses_what_is_malformed(told, entry):
    assert told[0][entry["file"]] in ("malformed", "gone"), entry["why"]
