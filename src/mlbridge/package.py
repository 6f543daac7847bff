"""Read and write `.mlb` packages: a manifest, implementations, golden samples, as one zip or one folder.

Readable with a JSON parser and the frame codec, so R and the JVM read and write them too. Nothing in a package is
executed by reading it. Called by `model.py` (save) and `_api.py` (load).
"""

from __future__ import annotations

import datetime
import json
import os
import re
import stat
import weakref
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from .artifact import Artifact, Implementation
from .errors import ArtifactError, InputError
from .frames import FrameType, decode_frame, encode_frame
from .interfaces import Array
from .signature import Signature

if TYPE_CHECKING:
    import zipfile

__all__ = ["FORMAT_VERSION", "MANIFEST", "Package", "read_package", "write_package"]

FORMAT_VERSION = 1
MANIFEST = "mlbridge.json"
_MAX_MANIFEST_BYTES = 64 << 20  # a manifest is text; levels may be many, more is an attack
_MAX_ENTRIES = 100_000
_MAX_FILE_BYTES = 16 << 30
_MAX_SAMPLES = 64
_MAX_SAMPLE_BYTES = 8 << 20
_RESERVED = re.compile(r"(?i)^(con|prn|aux|nul|com\d|lpt\d)(\..*)?$")  # names Windows cannot create


@dataclass(frozen=True)
class Package:
    """An opened package: its manifest and a private folder with its files.

    Attributes
    ----------
    name, version, description : str
        From the manifest.
    signature : Signature
        Of the model.
    implementations : tuple of Implementation
        Best first.
    provenance : dict
        Where it came from.
    sha256 : str
        The hash of its mlbridge.json, the same for file and folder.
    folder : Path
        Private copy; every file's hash was checked.
    samples : tuple of two dicts, or None
        Golden inputs and outputs.
    """

    name: str
    version: str
    description: str
    signature: Signature
    implementations: tuple[Implementation, ...]
    provenance: Mapping[str, Any]
    sha256: str
    folder: Path
    samples: tuple[dict[str, Array], dict[str, Array]] | None = None
    manifest: Mapping[str, Any] = field(default_factory=dict, repr=False)


def _problem(label: str, text: str, hint: str | None = None) -> ArtifactError:
    return ArtifactError(f"{label}: {text}", hint=hint)


def _check_name(name: str, label: str) -> None:
    path = PurePosixPath(name)
    parts = name.split("/")
    if (
        not name
        or path.is_absolute()
        or "\\" in name
        or "\0" in name
        or ":" in name
        or any(p in ("", ".", "..") for p in parts)
        or any(_RESERVED.match(p) or p != p.rstrip(". ") for p in parts)
    ):
        raise _problem(label, f"holds a file with an unsafe name: {name!r}", "packages hold relative paths with forward slashes")


# ---------------------------------------------------------------- reading


def read_package(artifact: Artifact) -> Package:
    """Open and check a package.

    Parameters
    ----------
    artifact : Artifact
        Of format `mlb`: a zip or a folder, already copied.

    Raises
    ------
    ArtifactError
        If a hash, a size, a name or the manifest is wrong, or its format is newer.
    """
    import shutil
    import tempfile

    folder = artifact.path
    cleanup = None
    if not folder.is_dir():
        folder = Path(tempfile.mkdtemp(prefix="mlbridge-"))
        cleanup = folder
    try:
        raw, names = _unpack(artifact, folder) if cleanup else _listed(folder, artifact.label)
        package = _checked(raw, names, folder, artifact.label)
    except BaseException:
        if cleanup:
            shutil.rmtree(cleanup, ignore_errors=True)
        raise
    if cleanup:
        weakref.finalize(package, shutil.rmtree, str(cleanup), ignore_errors=True)
    else:
        object.__setattr__(package, "_artifact", artifact)  # the folder is the artifact's own copy: keep it
    return package


def _unpack(artifact: Artifact, folder: Path) -> tuple[bytes, list[str]]:
    import zipfile

    label = artifact.label
    try:
        with zipfile.ZipFile(artifact.path) as z:
            entries = z.infolist()
            if len(entries) > _MAX_ENTRIES:
                raise _problem(label, f"more than {_MAX_ENTRIES} entries")
            names = [e.filename for e in entries if not e.is_dir()]
            _check_names(names, label)
            by_name = {e.filename: e for e in entries}
            for e in entries:
                mode = e.external_attr >> 16
                if mode and stat.S_IFMT(mode) not in (0, stat.S_IFREG, stat.S_IFDIR):
                    raise _problem(label, f"holds a link or special file: {e.filename!r}")
                if e.flag_bits & 1:
                    raise _problem(label, f"is encrypted: {e.filename!r}")
            if MANIFEST not in by_name:
                raise _problem(label, f"has no {MANIFEST}")
            if by_name[MANIFEST].file_size > _MAX_MANIFEST_BYTES:
                raise _problem(label, f"{MANIFEST} is larger than {_MAX_MANIFEST_BYTES} bytes")
            raw = _entry(z, by_name[MANIFEST], _MAX_MANIFEST_BYTES, label)
            sizes = {n: d.get("size") for n, d in _files(_manifest(raw, label), label).items()}
            for name in names:
                if name == MANIFEST:
                    continue
                size = sizes.get(name)
                if not isinstance(size, int) or size != by_name[name].file_size:
                    raise _problem(label, f"{name!r} is not the size its manifest says", "the package was damaged or changed")
                _extract(z, by_name[name], folder / name, size, label)
            (folder / MANIFEST).write_bytes(raw)
    except (zipfile.BadZipFile, EOFError, NotImplementedError, OSError, ValueError, RuntimeError) as exc:
        if isinstance(exc, ArtifactError):
            raise
        raise _problem(label, f"a broken package: {exc}") from exc
    return raw, names


def _check_names(names: Iterable[str], label: str) -> None:
    seen: set[str] = set()
    for name in names:
        _check_name(name, label)
        if name.casefold() in seen:
            raise _problem(label, f"holds two files named {name!r} (upper and lower case are one)")
        seen.add(name.casefold())
    for name in seen:
        if any(str(parent) in seen for parent in PurePosixPath(name).parents):
            raise _problem(label, f"{name!r} lies inside another file")


def _entry(z: zipfile.ZipFile, entry: zipfile.ZipInfo, limit: int, label: str) -> bytes:
    with z.open(entry) as f:
        data = f.read(limit + 1)
    if len(data) > limit:
        raise _problem(label, f"{entry.filename!r} is larger than its header says")
    return data


def _extract(z: zipfile.ZipFile, entry: zipfile.ZipInfo, target: Path, size: int, label: str) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    left = size
    with z.open(entry) as src, open(target, "xb") as dst:
        while chunk := src.read(min(1 << 20, left + 1)):
            left -= len(chunk)
            if left < 0:
                raise _problem(label, f"{entry.filename!r} is larger than its manifest says")
            dst.write(chunk)


def _listed(folder: Path, label: str) -> tuple[bytes, list[str]]:
    names = [p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()]
    _check_names(names, label)
    path = folder / MANIFEST
    if path.stat().st_size > _MAX_MANIFEST_BYTES:
        raise _problem(label, f"{MANIFEST} is larger than {_MAX_MANIFEST_BYTES} bytes")
    return path.read_bytes(), names


def _manifest(raw: bytes, label: str) -> dict[str, Any]:
    try:
        data = json.loads(raw, object_pairs_hook=_no_twice)
    except (ValueError, RecursionError) as exc:
        raise _problem(label, f"{MANIFEST} is not JSON: {exc}") from exc
    if not isinstance(data, dict):
        raise _problem(label, f"{MANIFEST} is not an object")
    version = data.get("format_version")
    if not isinstance(version, int) or isinstance(version, bool) or version < 1:
        raise _problem(label, f"format_version is {version!r}, not a positive integer")
    if version > FORMAT_VERSION:
        raise _problem(label, f"format version {version}; this mlbridge reads up to {FORMAT_VERSION}", "upgrade mlbridge")
    return data


def _no_twice(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    out = dict(pairs)
    if len(out) != len(pairs):
        raise ValueError("a key occurs twice")
    return out


def _files(manifest: Mapping[str, Any], label: str) -> dict[str, dict]:
    files = manifest.get("files")
    if not isinstance(files, dict) or not all(isinstance(d, dict) for d in files.values()):
        raise _problem(label, f"{MANIFEST} lists no files")
    return files


def _checked(raw: bytes, names: list[str], folder: Path, label: str) -> Package:
    import hashlib

    data = _manifest(raw, label)
    files = _files(data, label)
    stray, absent = sorted(set(names) - set(files) - {MANIFEST}), sorted(set(files) - set(names))
    if stray or absent:
        what = f"files its manifest does not list: {stray[:3]}" if stray else f"no {absent[:3]}, which its manifest lists"
        raise _problem(label, f"holds {what}", "the package was damaged or changed")
    for name, entry in files.items():
        _check_file(folder / name, name, entry, label)
    implementations = tuple(_implementation(d, set(files), label) for d in _list_of(data, "implementations", label))
    if not implementations:
        raise _problem(label, "has no implementation")
    for key in ("name", "version", "description"):
        if not isinstance(data.get(key, ""), str):
            raise _problem(label, f"{key} is not text")
    if not isinstance(data.get("provenance", {}), dict):
        raise _problem(label, "provenance is not an object")
    return Package(
        name=data.get("name", ""),
        version=data.get("version", ""),
        description=data.get("description", ""),
        signature=Signature.from_dict(data.get("signature")),
        implementations=implementations,
        provenance=data.get("provenance", {}),
        sha256=hashlib.sha256(raw).hexdigest(),
        folder=folder,
        samples=_samples(folder, label),
        manifest=data,
    )


def _check_file(path: Path, name: str, entry: Mapping[str, Any], label: str) -> None:
    import hashlib

    digest = hashlib.sha256()
    size = path.stat().st_size
    if size != entry.get("size") or size > _MAX_FILE_BYTES:
        raise _problem(label, f"{name!r} is not the size its manifest says", "the package was damaged or changed")
    with open(path, "rb") as f:
        while chunk := f.read(1 << 20):
            digest.update(chunk)
    if digest.hexdigest() != entry.get("sha256"):
        raise _problem(label, f"{name!r} is not what was saved: its sha256 differs", "the package was damaged or changed")


def _list_of(data: Mapping[str, Any], key: str, label: str) -> list[dict]:
    value = data.get(key)
    if not isinstance(value, list) or not all(isinstance(v, dict) for v in value):
        raise _problem(label, f"{key} is not a list of objects")
    return value


def _implementation(data: dict, files: set[str], label: str) -> Implementation:
    kinds: dict[str, Any] = {"runtime": str, "path": str, "format": str, "options": dict, "requires": dict, "parity": (dict, type(None))}
    wrong = [k for k, kind in kinds.items() if not isinstance(data.get(k, kind() if isinstance(kind, type) else None), kind)]
    if wrong or not data.get("runtime") or not data.get("path"):
        raise _problem(label, f"an implementation is malformed: {', '.join(wrong) or 'runtime or path is absent'}")
    _check_name(data["path"], label)
    if data["path"] not in files and not any(f.startswith(data["path"] + "/") for f in files):
        raise _problem(label, f"an implementation names a file that is not there: {data['path']!r}")
    return Implementation(**{k: data[k] for k in kinds if k in data})


def _samples(folder: Path, label: str) -> tuple[dict[str, Array], dict[str, Array]] | None:
    inputs, outputs = folder / "samples" / "inputs.mlbf", folder / "samples" / "outputs.mlbf"
    if not inputs.exists() or not outputs.exists():
        return None
    if inputs.stat().st_size > 2 * _MAX_SAMPLE_BYTES or outputs.stat().st_size > 2 * _MAX_SAMPLE_BYTES:
        raise _problem(label, f"its samples are larger than {_MAX_SAMPLE_BYTES} bytes")
    first, second = decode_frame(inputs.read_bytes()), decode_frame(outputs.read_bytes())
    if first.type != FrameType.RUN or second.type != FrameType.RESULT:
        raise _problem(label, "its samples are not a RUN and a RESULT frame")
    return dict(first.tensors), dict(second.tensors)


# ---------------------------------------------------------------- writing


def write_package(
    path: str | os.PathLike,
    *,
    name: str,
    version: str,
    description: str,
    signature: Signature,
    write_implementations: Callable[[Path], list[Implementation]],
    samples: tuple[Mapping[str, Array], Mapping[str, Array]] | None = None,
    report: Mapping[str, Any] | None = None,
    provenance: Mapping[str, Any] | None = None,
    card: str = "",
    form: str = "file",
    overwrite: bool = False,
) -> Path:
    """Write a package so that an interrupted save leaves the old one as it was.

    Parameters
    ----------
    path : path
        The file or folder to make.
    write_implementations : callable
        Given the new package's folder, writes the models under it and returns their entries.
    samples : pair of dicts, optional
        Golden inputs and outputs.
    form : {'file', 'folder'}
        One stored zip, or the same tree as a folder.
    overwrite : bool
        Whether an existing package may be replaced.

    Raises
    ------
    InputError
        If the path exists and `overwrite` is False, or form is unknown.
    ArtifactError
        If it cannot be written; whatever was there is intact.
    """
    import shutil
    import tempfile

    if form not in ("file", "folder"):
        raise InputError(f"form is {form!r}, expected 'file' or 'folder'")
    target = Path(path)
    if target.exists() and not overwrite:
        raise InputError(f"{target} exists", hint="pass overwrite=True to replace it")
    if target.exists() and target.is_dir() and not (target / MANIFEST).is_file():
        raise InputError(f"{target} is a folder that is not a package", hint="choose another path")
    work: Path | None = None
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        work = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
        tree = work / "tree"
        tree.mkdir()
        implementations = write_implementations(tree)
        if samples is not None:
            (tree / "samples").mkdir()
            (tree / "samples" / "inputs.mlbf").write_bytes(encode_frame(FrameType.RUN, dict(samples[0])))
            (tree / "samples" / "outputs.mlbf").write_bytes(encode_frame(FrameType.RESULT, dict(samples[1])))
        if report is not None:
            (tree / "report").mkdir()
            (tree / "report" / "parity.json").write_text(json.dumps(report, indent=1, default=str), "utf-8")
        (tree / "README.md").write_text(card, "utf-8")
        manifest = {
            "format_version": FORMAT_VERSION,
            "name": name,
            "version": version,
            "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            "description": description,
            "signature": signature.to_dict(),
            "implementations": [i.to_dict() for i in implementations],
            "provenance": dict(provenance or {}),
            "files": _hashes(tree),
        }
        (tree / MANIFEST).write_text(json.dumps(manifest, indent=1, ensure_ascii=False), "utf-8")
        _place(_zipped(tree, work / "package") if form == "file" else tree, target, work)
    except OSError as exc:
        raise ArtifactError(f"{target}: cannot be written: {exc.strerror or exc}", hint="what was there before is intact") from exc
    finally:
        if work is not None:
            shutil.rmtree(work, ignore_errors=True)
    return target


def _hashes(tree: Path) -> dict[str, dict[str, Any]]:
    import hashlib

    out = {}
    for path in sorted(p for p in tree.rglob("*") if p.is_file()):
        name = path.relative_to(tree).as_posix()
        _check_name(name, "the new package")
        with open(path, "rb") as f:
            out[name] = {"sha256": hashlib.file_digest(f, "sha256").hexdigest(), "size": path.stat().st_size}
            os.fsync(f.fileno())
    return out


def _zipped(tree: Path, out: Path) -> Path:
    """Store the tree as one zip, the manifest first; stored, so that loaders can map it."""
    import zipfile

    names = sorted((p.relative_to(tree).as_posix() for p in tree.rglob("*") if p.is_file()), key=lambda n: (n != MANIFEST, n))
    with zipfile.ZipFile(out, "w", zipfile.ZIP_STORED, allowZip64=True) as z:
        for name in names:
            z.write(tree / name, name)
    return out


def _place(new: Path, target: Path, work: Path) -> None:
    if new.is_file():
        with open(new, "rb+") as f:
            os.fsync(f.fileno())
        if target.is_dir():
            os.replace(target, work / "old")
        os.replace(new, target)
    else:
        if target.exists():  # a folder cannot be renamed over a non-empty one
            os.replace(target, work / "old")
        try:
            os.replace(new, target)
        except OSError:
            if (work / "old").exists():
                os.replace(work / "old", target)
            raise
    if hasattr(os, "O_DIRECTORY"):
        parent = os.open(target.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(parent)
        finally:
            os.close(parent)


def limit_samples(feeds: Mapping[str, Array], rows: int | None, want: int) -> int:
    """Return how many golden rows to keep: at most 64, at most 8 MiB."""
    if rows is None:
        return 0 if sum(v.nbytes for v in feeds.values()) > _MAX_SAMPLE_BYTES else 1
    row_bytes = sum(v.nbytes / max(rows, 1) for v in feeds.values()) or 1.0
    return max(0, min(want, rows, _MAX_SAMPLES, int(_MAX_SAMPLE_BYTES // row_bytes)))
