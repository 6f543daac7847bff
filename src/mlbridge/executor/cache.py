"""Files kept between processes: optimised models, chosen plans, results of file checks.

Every entry carries its own digest: a damaged one is reported, deleted and made again. A folder that cannot be written
is no error; then nothing is kept.
"""

from __future__ import annotations

import functools
import json
import logging
import os
import platform
import sys
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

__all__ = ["cache_folder", "key_of", "machine", "read_bytes", "read_json", "write_bytes", "write_json"]

_LOG = logging.getLogger("mlbridge.executor")
_DIGEST = 4  # a checksum finds damage; whoever may write here may write a matching one


def cache_folder() -> Path:
    """Return `$MLBRIDGE_CACHE`, or `mlbridge` in the user's cache folder."""
    given = os.environ.get("MLBRIDGE_CACHE")
    if given:
        return Path(given)
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA", Path.home() / "AppData" / "Local")) / "mlbridge"
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "mlbridge"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "mlbridge"


@functools.cache
def machine() -> Mapping[str, Any]:
    """Return what an optimised model and a measured plan depend on: onnxruntime, its providers, processor, cores."""
    import hashlib

    import onnxruntime

    from .devices import cores, cpu_flags

    return {
        "onnxruntime": onnxruntime.__version__,
        "build": onnxruntime.get_build_info(),
        "providers": sorted({*onnxruntime.get_available_providers(), *(d.ep_name for d in onnxruntime.get_ep_devices())}),
        "flags": hashlib.sha256(" ".join(cpu_flags()).encode()).hexdigest()[:16],
        "machine": platform.machine(),
        "cores": cores(),
    }


def key_of(*parts: Any) -> str:
    """Return the name of an entry: the hash of its parts and of this machine."""
    import hashlib

    text = json.dumps([*parts, machine()], sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()


def read_bytes(kind: str, key: str) -> bytes | None:
    """Return a kept entry, or None; a damaged one is reported and deleted."""
    path = cache_folder() / kind / key
    try:
        data = path.read_bytes()
    except OSError:
        return None
    body = memoryview(data)[_DIGEST:]
    if len(data) >= _DIGEST and _checksum(body, key) == data[:_DIGEST]:
        return bytes(body)
    _LOG.warning("the cache entry %s is damaged; it is made again", path)
    try:
        path.unlink()
    except OSError:
        _LOG.debug("cannot delete %s", path)
    return None


def _checksum(body: bytes | memoryview, key: str) -> bytes:
    """Return a checksum of the name and the content, so that entries cannot be swapped unnoticed."""
    return zlib.crc32(body, zlib.crc32(key.encode())).to_bytes(_DIGEST, "little")


def write_bytes(kind: str, key: str, body: bytes) -> bool:
    """Keep an entry; False where the folder cannot be written."""
    folder = cache_folder() / kind
    temporary = folder / f".{key}.{os.getpid()}"
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        with open(temporary, "wb") as f:
            f.write(_checksum(body, key))
            f.write(body)
        temporary.replace(folder / key)
    except OSError as exc:
        _LOG.debug("nothing is kept in %s: %s", folder, exc)
        return False
    return True


def read_json(kind: str, key: str) -> Any:
    """Return a kept JSON value, or None."""
    data = read_bytes(kind, key)
    if data is None:
        return None
    try:
        return json.loads(data)
    except ValueError:
        _LOG.warning("the cache entry %s of %s is not JSON; it is made again", key, kind)
        return None


def write_json(kind: str, key: str, value: Any) -> bool:
    """Keep a JSON value; False where the folder cannot be written."""
    return write_bytes(kind, key, json.dumps(value, sort_keys=True).encode())
