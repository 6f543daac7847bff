"""What a file is: its format, its hash and the trust it needs, found by looking and never by executing.

Also the value `Implementation`, one entry of a package's manifest. Loaders get an Artifact whose bytes are a private
copy made while they were hashed: what was hashed is what is loaded. Called by `_api.py`, `package.py` and the runtimes.
"""

from __future__ import annotations

import json
import os
import re
import stat
import weakref
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from pathlib import Path
from typing import Any

from .errors import ArtifactError, InputError, NotFoundError, UntrustedArtifactError

__all__ = ["FORMATS", "Artifact", "Implementation", "Trust", "TrustDemand", "open_artifact", "sniff"]

_CHUNK = 1 << 20
_HEAD = 4096  # bytes that identify every format we know
_MAX_ZIP_LISTING_BYTES = 32 << 20  # some 300,000 entries; a million take seconds and half a gigabyte to list
_MAX_FILES = 100_000  # a model folder with more is an attack or a mistake


class Trust(IntEnum):
    """How much a file may do: be read, be read with named types, run code."""

    DATA = 0
    AUDITED = 1
    CODE = 2


FORMATS: Mapping[str, Trust] = {
    "mlb": Trust.DATA,
    "pipeline": Trust.DATA,  # its stages are checked each on its own
    "pipeline-toml": Trust.DATA,
    "onnx": Trust.DATA,
    "rds": Trust.DATA,  # read by our own reader; inside R it is code
    "spark": Trust.DATA,  # read by our own reader; inside a JVM it is code
    "xgboost-json": Trust.DATA,
    "xgboost-ubj": Trust.DATA,
    "lightgbm-text": Trust.DATA,
    "safetensors": Trust.DATA,
    "pmml": Trust.DATA,
    "skops": Trust.AUDITED,
    "pickle": Trust.CODE,  # also joblib and torch's old format
    "torch": Trust.CODE,
    "keras": Trust.CODE,
    "keras-h5": Trust.CODE,
    "savedmodel": Trust.CODE,
    "npz": Trust.CODE,
    "jar": Trust.CODE,
    "r-script": Trust.CODE,
    "unknown": Trust.CODE,
}


@dataclass(frozen=True, slots=True)
class TrustDemand:
    """What the caller said: a level, or the hash of the one artifact that may run code."""

    level: Trust
    sha256: str | None = None

    @classmethod
    def parse(cls, text: str) -> TrustDemand:
        """Read `data`, `audited`, `code` or `sha256:<64 hex digits>`."""
        if isinstance(text, TrustDemand):
            return text
        if isinstance(text, str) and text.upper() in Trust.__members__ and text.islower():
            return cls(Trust[text.upper()])
        if isinstance(text, str) and re.fullmatch(r"sha256:[0-9a-f]{64}", text):
            return cls(Trust.CODE, text.removeprefix("sha256:"))
        raise InputError(
            f"trust is {text!r}, expected 'data', 'audited', 'code' or 'sha256:<64 lower-case hex digits>'",
            hint="trust='code' lets the file run code on this machine",
        )

    def allows(self, artifact: Artifact, needed: Trust | None = None) -> bool:
        """Whether the artifact may be used at the level it needs."""
        level = artifact.trust if needed is None else needed
        return level <= self.level and (self.sha256 is None or self.sha256 == artifact.sha256)

    def check(self, artifact: Artifact, needed: Trust | None = None) -> None:
        """Raise UntrustedArtifactError unless `allows`."""
        if self.allows(artifact, needed):
            return
        if self.sha256 is not None and self.sha256 != artifact.sha256:
            raise UntrustedArtifactError(
                f"{artifact.label}: its sha256 is {artifact.sha256}, the trusted one is {self.sha256}",
                hint="the file is not the one that was trusted; find out why before you trust this one",
            )
        level = artifact.trust if needed is None else needed
        if artifact.format == "unknown":
            raise UntrustedArtifactError(
                f"{artifact.label}: not a model file that mlbridge knows; what is unknown may run code, and trust is {self.level.name.lower()!r}",
                hint="name its runtime in a URI (python:, r:, jvm:) with trust='code', if you trust where it comes from",
            )
        what = "would execute code" if level is Trust.CODE else "names types of its own"
        raise UntrustedArtifactError(
            f"{artifact.label}: loading a {artifact.format!r} model {what}, and trust is {self.level.name.lower()!r}",
            hint=f"if you trust where it comes from, pass trust={level.name.lower()!r} or trust='sha256:{artifact.sha256}'",
        )


@dataclass(frozen=True, slots=True)
class Implementation:
    """One way to run a package's model: an entry of its manifest's `implementations`.

    Parameters
    ----------
    runtime : str
        Name of the runtime that runs it.
    path : str
        File or folder, relative, with forward slashes.
    format : str
        A name of `FORMATS`.
    options : dict
        Keywords of that runtime (a `predict` type, a class name).
    requires : dict
        What must be installed: package name to version, as recorded when saved.
    parity : dict or None
        The verification's figures; shown, never believed.
    """

    runtime: str
    path: str
    format: str
    options: Mapping[str, Any] = field(default_factory=dict)
    requires: Mapping[str, str] = field(default_factory=dict)
    parity: Mapping[str, Any] | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return the manifest's form."""
        out = {
            "runtime": self.runtime,
            "path": self.path,
            "format": self.format,
            "options": dict(self.options),
            "requires": dict(self.requires),
        }
        if self.parity is not None:
            out["parity"] = dict(self.parity)
        return out


@dataclass(frozen=True, eq=False)
class Artifact:
    """A file, a folder or bytes: what it is, its hash, and a private copy to load from.

    Attributes
    ----------
    label : str
        What to call it in messages: the path as the caller wrote it, or `<bytes>`.
    format : str
        A name of `FORMATS`.
    sha256 : str
        Of the bytes; of a folder, the hash of its sorted list of paths and hashes.
    path : Path
        The private copy: a file or a folder.
    origin : Path or None
        Where it came from.
    """

    label: str
    format: str
    sha256: str
    path: Path
    origin: Path | None = None
    _owner: Any = field(default=None, repr=False)

    @property
    def trust(self) -> Trust:
        """The trust that loading it natively needs."""
        return FORMATS[self.format]

    def read_bytes(self) -> bytes:
        """Return the content of a file."""
        return self.path.read_bytes()

    def close(self) -> None:
        """Delete the private copy; harmless when repeated."""
        if self._owner is not None:
            self._owner()


def open_artifact(source: str | os.PathLike | bytes, *, max_bytes: int | None = None) -> Artifact:
    """Copy a file, folder or bytes into a private folder while hashing it, and find out what it is.

    Parameters
    ----------
    source : path or bytes
        The model. Links inside a folder are refused.
    max_bytes : int, optional
        Refuse more than this many bytes.

    Returns
    -------
    Artifact
        Its private copy lives until `close`, or until nothing refers to it.

    Raises
    ------
    NotFoundError
        If the path does not exist.
    ArtifactError
        If it cannot be read, is too large, or holds links or special files.
    """
    import hashlib
    import shutil
    import tempfile

    private = Path(tempfile.mkdtemp(prefix="mlbridge-"))
    try:
        if isinstance(source, (bytes, bytearray, memoryview)):
            data = bytes(source)
            _limit(len(data), max_bytes, "<bytes>")
            target = private / "model"
            target.write_bytes(data)
            label, origin, digest = "<bytes>", None, hashlib.sha256(data).hexdigest()
        else:
            origin = Path(source)
            label, target = os.fspath(source), private / (origin.name or "model")
            digest = _copy(origin, target, label, max_bytes)
        kind = sniff(target)
    except BaseException:
        shutil.rmtree(private, ignore_errors=True)
        raise
    artifact = Artifact(label, kind, digest, target, origin)
    cleanup = weakref.finalize(artifact, shutil.rmtree, str(private), ignore_errors=True)
    object.__setattr__(artifact, "_owner", cleanup)
    return artifact


def _limit(size: int, max_bytes: int | None, label: str) -> None:
    if max_bytes is not None and size > max_bytes:
        raise ArtifactError(f"{label}: more than the limit of {max_bytes} bytes", hint="raise the limit in words if this is right")


def _copy(origin: Path, target: Path, label: str, max_bytes: int | None) -> str:
    try:
        if origin.is_dir():
            return _copy_folder(origin, target, label, max_bytes)
        if not origin.exists():
            raise NotFoundError(f"{label}: no such file or folder")
        return _copy_file(origin, target, label, max_bytes)[0]
    except OSError as exc:
        if isinstance(exc, NotFoundError):
            raise
        raise ArtifactError(f"{label}: cannot be read: {exc.strerror or exc}") from exc


def _copy_file(origin: Path, target: Path, label: str, max_bytes: int | None) -> tuple[str, int]:
    import hashlib

    digest, size = hashlib.sha256(), 0
    with open(origin, "rb") as src:
        if not stat.S_ISREG(os.fstat(src.fileno()).st_mode):
            raise ArtifactError(f"{label}: not a regular file")
        with open(target, "xb") as dst:
            while chunk := src.read(_CHUNK):
                size += len(chunk)
                _limit(size, max_bytes, label)
                digest.update(chunk)
                dst.write(chunk)
    return digest.hexdigest(), size


def _copy_folder(origin: Path, target: Path, label: str, max_bytes: int | None) -> str:
    import hashlib

    entries: list[tuple[str, str]] = []
    total = 0
    for folder, names, files in os.walk(origin):
        names.sort()
        here = Path(folder)
        (target / here.relative_to(origin)).mkdir(parents=True, exist_ok=True)
        for name in [*names, *files]:
            if (here / name).is_symlink():
                raise ArtifactError(
                    f"{label}: holds a link: {(here / name).relative_to(origin)}", hint="replace links by the files themselves"
                )
        for name in sorted(files):
            if len(entries) >= _MAX_FILES:
                raise ArtifactError(f"{label}: more than {_MAX_FILES} files")
            relative = (here / name).relative_to(origin)
            left = None if max_bytes is None else max_bytes - total
            digest, size = _copy_file(here / name, target / relative, f"{label}/{relative}", left)
            total += size
            entries.append((relative.as_posix(), digest))
    listing = "".join(f"{digest}  {path}\n" for path, digest in sorted(entries))
    return hashlib.sha256(listing.encode()).hexdigest()


# ---------------------------------------------------------------- formats, by content


def sniff(path: Path) -> str:
    """Return the format of a file or folder, a name of `FORMATS`, by looking at its content.

    The name of a file decides only for R scripts and `pipeline.toml`, which are plain text.
    """
    if path.is_dir():
        return _sniff_folder(path)
    with open(path, "rb") as f:
        head = f.read(_HEAD)
    if head[:4] == b"PK\x03\x04" or head[:4] == b"PK\x05\x06":
        return _sniff_zip(path)
    if head[:1] == b"\x80" and head[1:2] in b"\x02\x03\x04\x05":
        return "pickle"
    if head[:8] == b"\x89HDF\r\n\x1a\n":
        return "keras-h5"
    if head[:2] in (b"X\n", b"A\n", b"B\n"):
        return "rds"
    if head[:2] == b"\x1f\x8b" or head[:3] == b"BZh" or head[:6] == b"\xfd7zXZ\0" or head[:1] == b"\x78":
        return _sniff_compressed(path)
    if head[:1] == b"{":
        return _sniff_brace(path, head)
    if head.lstrip()[:5] == b"tree\n" or head.lstrip()[:6] == b"tree\r\n":
        return "lightgbm-text"
    if head.lstrip(b"\xef\xbb\xbf \t\r\n")[:1] == b"<" and b"<PMML" in head:
        return "pmml"
    if len(head) > 9 and head[8:9] == b"{" and int.from_bytes(head[:8], "little") <= path.stat().st_size - 8:
        return "safetensors"
    if path.suffix == ".toml":  # plain text, as R scripts are; what it holds is checked by its reader
        return "pipeline-toml"
    if path.suffix in (".R", ".r"):
        return "r-script"
    return "onnx" if _looks_like_onnx(path) else "unknown"


def _sniff_folder(path: Path) -> str:
    if (path / "mlbridge.json").is_file():
        return "mlb"
    if (path / "pipeline.json").is_file():
        return "pipeline"
    if (path / "saved_model.pb").is_file():
        return "savedmodel"
    if (path / "metadata").is_dir() and any((path / "metadata").glob("part-*")):
        return "spark"
    return "unknown"


def _sniff_zip(path: Path) -> str:
    import zipfile

    listing = _zip_listing_bytes(path)
    if listing > _MAX_ZIP_LISTING_BYTES:
        raise ArtifactError(f"{path.name}: a zip file whose list of entries is {listing} bytes; the limit is {_MAX_ZIP_LISTING_BYTES}")
    try:
        with zipfile.ZipFile(path) as z:
            names = set(z.namelist()[: 10 * _HEAD])
    except (zipfile.BadZipFile, ValueError, OSError, NotImplementedError) as exc:
        raise ArtifactError(f"{path.name}: a broken zip file: {exc}") from exc
    if "mlbridge.json" in names:
        return "mlb"
    if "schema.json" in names:
        return "skops"
    if "config.json" in names and "model.weights.h5" in names:
        return "keras"
    if any(n.endswith("/data.pkl") or n == "data.pkl" for n in names):
        return "torch"
    if "META-INF/MANIFEST.MF" in names or any(n.endswith(".class") for n in names):
        return "jar"
    if names and all(n.endswith(".npy") for n in names):
        return "npz"
    return "unknown"


def _zip_listing_bytes(path: Path) -> int:
    """Return the size of a zip's central directory as the records at its end say it; readers take their word and parse it all."""
    with open(path, "rb") as f:
        size = f.seek(0, os.SEEK_END)
        f.seek(max(0, size - (1 << 16) - 1024))  # the last record, its comment of at most 64 KiB, and what precedes it
        tail = f.read()
    end = tail.rfind(b"PK\x05\x06")
    listing = int.from_bytes(tail[end + 12 : end + 16], "little") if end >= 0 else 0
    wide = tail.rfind(b"PK\x06\x06")  # zip64's own
    return max(listing if listing != 0xFFFFFFFF else 0, int.from_bytes(tail[wide + 40 : wide + 48], "little") if wide >= 0 else 0)


def _sniff_compressed(path: Path) -> str:
    import bz2
    import gzip
    import lzma

    with open(path, "rb") as f:
        magic = f.read(6)
        f.seek(0)
        try:
            if magic[:2] == b"\x1f\x8b":
                head = gzip.GzipFile(fileobj=f).read(16)
            elif magic[:3] == b"BZh":
                head = bz2.BZ2File(f).read(16)
            elif magic[:1] == b"\xfd":
                head = lzma.LZMADecompressor().decompress(f.read(_HEAD), 16)
            else:
                head = zlib.decompressobj().decompress(f.read(_HEAD), 16)
        except (OSError, EOFError, lzma.LZMAError, zlib.error):
            return "unknown"
    if head[:2] in (b"X\n", b"A\n", b"B\n"):
        return "rds"
    return "pickle" if head[:1] == b"\x80" else "unknown"


def _sniff_brace(path: Path, head: bytes) -> str:
    if head[1:2] in b"LiIlU" and b"learner" in head[:64]:
        return "xgboost-ubj"
    if b'"learner"' in head:
        return "xgboost-json"
    try:
        keys = json.loads(path.read_bytes()) if path.stat().st_size < 1 << 16 else {}
    except (ValueError, RecursionError):
        keys = {}
    return "xgboost-json" if isinstance(keys, dict) and "learner" in keys else "unknown"


_MODEL_PROTO = {1: 0, 2: 2, 3: 2, 4: 2, 5: 0, 6: 2, 7: 2, 8: 2, 14: 2, 20: 2, 25: 2, 26: 2}  # field -> wire type


def _looks_like_onnx(path: Path) -> bool:
    """Walk the top-level fields of a would-be ModelProto; onnx itself is not needed."""
    size, seen = path.stat().st_size, set()
    with open(path, "rb") as f:
        while f.tell() < size:
            tag = _varint(f)
            if tag is None or _MODEL_PROTO.get(tag >> 3) != tag & 7:
                return False
            seen.add(tag >> 3)
            value = _varint(f)
            if value is None:
                return False
            if tag & 7 == 2:
                if f.tell() + value > size:
                    return 7 in seen or tag >> 3 == 7  # a truncated ONNX file is one still: its loader says so
                f.seek(value, os.SEEK_CUR)
    return 7 in seen and 1 in seen


def _varint(f: Any) -> int | None:
    value = shift = 0
    while shift < 64:
        byte = f.read(1)
        if not byte:
            return None
        value |= (byte[0] & 0x7F) << shift
        if not byte[0] & 0x80:
            return value
        shift += 7
    return None
