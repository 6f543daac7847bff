"""Tables in and out of files: CSV, Parquet, Arrow and JSON lines, in chunks, through pyarrow."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from .. import errors, plugins
from ..model import Model

__all__ = ["CHUNK_ROWS", "Writer", "chunks", "read_table", "rows_of", "typed"]

CHUNK_ROWS = 65_536


def _arrow() -> Any:
    return plugins.require("pyarrow")


def _kind(path: Path) -> str:
    kinds = {
        ".csv": "csv",
        ".parquet": "parquet",
        ".pq": "parquet",
        ".arrow": "arrow",
        ".feather": "arrow",
        ".ipc": "arrow",
        ".jsonl": "json",
        ".ndjson": "json",
    }
    if path.suffix.lower() not in kinds:
        raise errors.InputError(f"{path}: unknown kind of table {path.suffix!r}", hint=f"use one of {', '.join(kinds)}")
    return kinds[path.suffix.lower()]


def read_table(path: Path) -> Any:
    pa = _arrow()
    return pa.concat_tables(list(chunks(path, CHUNK_ROWS)), promote_options="default")


def chunks(path: Path, rows: int) -> Iterator[Any]:
    """Yield a table in parts of at most `rows`."""
    pa, kind = _arrow(), _kind(path)
    try:
        if kind == "csv":
            from pyarrow import csv

            batches = csv.open_csv(path, convert_options=csv.ConvertOptions(strings_can_be_null=True, quoted_strings_can_be_null=False))
        elif kind == "parquet":
            from pyarrow import parquet

            batches = parquet.ParquetFile(path).iter_batches(batch_size=rows)
        elif kind == "arrow":
            with pa.OSFile(str(path)) as f:
                batches = pa.ipc.open_file(f).read_all().to_batches()
        else:
            from pyarrow import json as arrow_json

            batches = arrow_json.read_json(path).to_batches()
        for batch in batches:
            for start in range(0, batch.num_rows, rows):
                yield pa.Table.from_batches([batch.slice(start, rows)])
    except (pa.ArrowException, OSError) as exc:
        raise errors.ArtifactError(f"{path}: not a readable {kind} table: {exc}") from exc


def rows_of(path: Path) -> int | None:
    if _kind(path) == "parquet":
        from pyarrow import parquet

        return parquet.ParquetFile(path).metadata.num_rows
    return None


def typed(part: Any, model: Model) -> Any:
    """Give columns the type their levels have: a CSV does not say whether 1 is text."""
    pa = _arrow()
    for column in model.signature.columns:
        if column.name in part.column_names and column.level_type == "string":
            i, values = part.column_names.index(column.name), part.column(column.name)
            if pa.types.is_integer(values.type) or pa.types.is_boolean(values.type) or pa.types.is_null(values.type):
                part = part.set_column(i, column.name, values.cast(pa.string()))
    return part


class Writer:
    """Writes answers chunk by chunk; a file appears under its name only when whole."""

    def __init__(self, target: str | None) -> None:
        self._target = Path(target) if target else None
        self._kind = _kind(self._target) if self._target else "csv"
        self._temporary = self._target.with_name(f".{self._target.name}.{os.getpid()}") if self._target else None
        self._sink: Any = None

    def __enter__(self) -> Writer:
        return self

    def write(self, table: Any) -> None:
        pa = _arrow()
        if self._sink is None:
            out = str(self._temporary) if self._temporary else pa.PythonFile(sys.stdout.buffer, mode="w")
            if self._kind == "csv":
                from pyarrow import csv

                self._sink = csv.CSVWriter(out, table.schema)
            elif self._kind == "parquet":
                from pyarrow import parquet

                self._sink = parquet.ParquetWriter(out, table.schema)
            elif self._kind == "arrow":
                self._sink = pa.ipc.new_file(out, table.schema)
            else:
                self._sink = open(out, "w", encoding="utf-8")  # noqa: SIM115 - closed by __exit__
        if self._kind == "json":
            for row in table.to_pylist():
                self._sink.write(json.dumps(row, ensure_ascii=False, default=str) + "\n")
        else:
            self._sink.write_table(table) if self._kind != "csv" else self._sink.write(table)

    def __exit__(self, kind: Any, *rest: Any) -> None:
        if self._sink is not None:
            self._sink.close()
        if self._temporary is not None and self._temporary.exists():
            if kind is None and self._target is not None:
                self._temporary.replace(self._target)
            else:
                self._temporary.unlink()
