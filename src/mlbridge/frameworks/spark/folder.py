"""Read a folder that Spark's ML writer saved: JSON metadata and parquet, bounded, nothing executed.

Anything malformed is an ArtifactError. What the stages mean is not known here.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ...errors import ArtifactError, MissingDependencyError
from .stage import SparkModel, Stage

__all__ = ["read_folder"]

_MAX_DEPTH = 16  # pipelines inside pipelines; deeper is an attack
_MAX_STAGES = 20_000
_MAX_METADATA_BYTES = 64 << 20  # labels of an IndexToString sit here
_MAX_TABLE_BYTES = 2 << 30  # uncompressed: a forest of 20 million nodes
_MAX_PARTS = 10_000

_KEYS = ("class", "timestamp", "uid", "paramMap", "defaultParamMap")


def read_folder(path: Path, label: str) -> SparkModel:
    """Read a saved Spark model.

    Parameters
    ----------
    path : Path
        The folder that holds `metadata/`.
    label : str
        What to call it in messages.

    Returns
    -------
    SparkModel
        Its stages with parameters and learned data.

    Raises
    ------
    ArtifactError
        If a file is missing, malformed or beyond the limits.
    MissingDependencyError
        If pyarrow is not installed.
    """
    try:
        import pyarrow.parquet  # noqa: F401
    except ImportError as exc:
        raise MissingDependencyError("reading a Spark model needs pyarrow", hint="pip install 'mlbridge[spark]'") from exc
    budget = [_MAX_STAGES]
    root = _read(Path(path), label, 0, budget)
    if root.name in ("Pipeline", "CrossValidator", "TrainValidationSplit", "OneVsRest"):
        raise ArtifactError(f"{label}: {root.name} is an estimator, not a fitted model", hint="call fit and save what it returns")
    return SparkModel(root, label)


def _read(path: Path, where: str, depth: int, budget: list[int]) -> Stage:
    budget[0] -= 1
    if depth > _MAX_DEPTH or budget[0] < 0:
        raise ArtifactError(f"{where}: stages nested deeper than {_MAX_DEPTH}, or more than {_MAX_STAGES}")
    meta = _metadata(path / "metadata", where)
    name = meta["class"].rsplit(".", 1)[-1]
    defaults = _object(meta.get("defaultParamMap", {}), where)
    given = _object(meta.get("paramMap", {}), where)
    extra = {k: v for k, v in meta.items() if k not in _KEYS}
    children = _children(path, name, where, given, extra, depth, budget)
    nested = path / "data" / "data"  # BisectingKMeans keeps the older library's folder in its own
    table = _table(nested if nested.is_dir() else path / "data", where)
    if nested.is_dir():
        extra["mllib"] = _metadata(path / "data" / "metadata", where, plain=True)
    side = {"treesMetadata": _table(path / "treesMetadata", where)} if (path / "treesMetadata").is_dir() else {}
    return Stage(name, meta["uid"], where, {**defaults, **given}, frozenset(given), extra, table, side, children)


def _children(path: Path, name: str, where: str, given: dict, extra: dict, depth: int, budget: list[int]) -> tuple[Stage, ...]:
    if name == "PipelineModel":
        return tuple(_read(p, f"{where}/stages/{p.name}", depth + 1, budget) for p in _numbered(path / "stages", where, given))
    if name in ("CrossValidatorModel", "TrainValidationSplitModel"):
        return (_read(path / "bestModel", f"{where}/bestModel", depth + 1, budget),)
    if name == "RFormulaModel":
        return (_read(path / "pipelineModel", f"{where}/pipelineModel", depth + 1, budget),)
    if name == "OneVsRestModel":
        count = extra.get("numClasses")
        if not isinstance(count, int) or isinstance(count, bool) or not 1 <= count <= _MAX_STAGES:
            raise ArtifactError(f"{where}: OneVsRestModel says numClasses is {count!r}")
        return tuple(_read(path / f"model_{i}", f"{where}/model_{i}", depth + 1, budget) for i in range(count))
    return ()


def _numbered(folder: Path, where: str, given: dict) -> list[Path]:
    uids = given.get("stageUids")
    if not isinstance(uids, list) or not all(isinstance(u, str) for u in uids):
        raise ArtifactError(f"{where}: the pipeline's stageUids are malformed")
    found: dict[int, Path] = {}
    for p in sorted(folder.iterdir()) if folder.is_dir() else []:
        head, _, _ = p.name.partition("_")
        if p.is_dir() and head.isdigit() and len(head) < 9:
            found[int(head)] = p
    if sorted(found) != list(range(len(uids))):
        raise ArtifactError(f"{where}: {len(uids)} stages are listed and {len(found)} are there", hint="copy the folder whole")
    return [found[i] for i in range(len(uids))]


def _metadata(folder: Path, where: str, *, plain: bool = False) -> dict[str, Any]:
    parts = [p for p in sorted(folder.glob("part-*")) if p.is_file() and p.stat().st_size] if folder.is_dir() else []
    if len(parts) != 1:
        raise ArtifactError(f"{where}: {len(parts)} metadata files, expected 1", hint="this is not a folder saved by Spark ML")
    if parts[0].stat().st_size > _MAX_METADATA_BYTES:
        raise ArtifactError(f"{where}: metadata of more than {_MAX_METADATA_BYTES} bytes")
    try:
        meta = json.loads(parts[0].read_bytes())
    except (ValueError, RecursionError, OSError) as exc:
        raise ArtifactError(f"{where}: the metadata is not JSON: {exc}") from exc
    needed = ("class",) if plain else ("class", "uid")
    if not isinstance(meta, dict) or not all(isinstance(meta.get(k), str) for k in needed):
        raise ArtifactError(f"{where}: the metadata lacks its class or uid")
    return meta


def _object(value: Any, where: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ArtifactError(f"{where}: a parameter map is {type(value).__name__}, not an object")
    return value


def _table(folder: Path, where: str) -> Any:
    """Return the folder's parquet files as one table, or None where there are none."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    files = sorted(p for p in folder.glob("*.parquet") if p.is_file()) if folder.is_dir() else []
    if not files:
        return None
    if len(files) > _MAX_PARTS:
        raise ArtifactError(f"{where}: more than {_MAX_PARTS} parquet files")
    tables, size = [], 0
    try:
        for file in files:
            with pq.ParquetFile(file) as parquet:
                meta = parquet.metadata
                size += sum(meta.row_group(i).total_byte_size for i in range(meta.num_row_groups))
                if size > _MAX_TABLE_BYTES or meta.num_rows > _MAX_TABLE_BYTES // 8:
                    raise ArtifactError(f"{where}: more than {_MAX_TABLE_BYTES} bytes of data")
                if meta.num_rows:
                    tables.append(parquet.read(use_threads=False))
        return pa.concat_tables(tables) if tables else None
    except ArtifactError:
        raise
    except (pa.ArrowException, OSError, ValueError, OverflowError, MemoryError) as exc:
        raise ArtifactError(f"{where}: broken parquet: {exc}") from exc
