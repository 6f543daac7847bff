"""The cases of the matrix and their tensors, for the programs of this folder: values from JSON and back, bit by bit."""

from __future__ import annotations

import argparse
import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np

SUMMED_BYTES = 1 << 16  # larger answers are compared by their hash


def read(path: str | Path) -> dict[str, Any]:
    """Return the models and the cases by name."""
    data = json.loads(Path(path).read_text("utf-8"))
    return {"models": data["models"], "cases": {c["name"]: c for c in data["cases"]}}


def asked(about: str) -> argparse.Namespace:
    """Read a client's command line."""
    parser = argparse.ArgumentParser(description=about)
    parser.add_argument("--vectors", required=True)
    parser.add_argument("--target", required=True)
    parser.add_argument("--case", action="append", required=True)
    parser.add_argument("--token")
    parser.add_argument("--authority")
    return parser.parse_args()


def values(tensor: dict) -> np.ndarray:
    """Make an array of a tensor's values; levels and text as objects."""
    shape = tensor["shape"]
    if "levels" in tensor or "strings" in tensor:
        out = np.empty(len(tensor.get("levels", tensor.get("strings"))), object)
        out[:] = tensor.get("levels", tensor.get("strings"))
        return out.reshape(shape)
    if tensor.get("fill") == "index":
        return np.arange(np.prod(shape), dtype=tensor["dtype"]).reshape(shape)
    return np.frombuffer(bytes.fromhex(tensor["hex"]), np.dtype(tensor["dtype"]).newbyteorder("<")).reshape(shape)


def written(name: str, dtype: str, array: np.ndarray) -> dict:
    """Write an answer as docs/interop.md says."""
    out: dict[str, Any] = {"name": name, "dtype": dtype, "shape": list(array.shape)}
    if dtype in ("string", "level"):
        return out | {"strings" if dtype == "string" else "levels": array.ravel().tolist()}
    data = np.ascontiguousarray(array).astype(np.dtype(dtype).newbyteorder("<"), copy=False).tobytes()
    return out | ({"hex": data.hex()} if len(data) <= SUMMED_BYTES else {"sha256": hashlib.sha256(data).hexdigest()})


def expected(tensor: dict) -> dict:
    """Return what a right client prints for an answer."""
    dtype = tensor["dtype"]
    return written(tensor["name"], dtype, values(tensor))
