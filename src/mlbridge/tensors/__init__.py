"""The only coercion: user values to arrays that satisfy a signature, compiled once per signature; and back.

Rooms: `values` (one array to one spec), `containers` (tables, dicts, records, arrays), `compiled` (what fits already goes
through at once). This file joins them: it
assembles blocks from columns, unifies symbols, and lists every problem of one input in one InputError. Called by
`model.py`, by the server for requests, and by the pipeline for its edges.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from ..errors import InputError
from ..signature import ROWS, Signature, TensorSpec
from .compiled import (
    CHUNK_VALUES,
    Writer,
    exact_array,
    exact_feeds,
    read_arrays,
    read_row,
    record,
    row_reader,
    write_array,
    write_record,
)
from .containers import Opened, close_table, open_container
from .values import as_array, check_codes, coerce, decode, decoder, encode, stacked, uneven

__all__ = ["CHUNK_VALUES", "Coercion", "check_codes", "coerce", "decode", "encode", "input_error"]


def input_error(problems: Sequence[str], *, hint: str | None = None) -> InputError:
    """Make one InputError of all problems."""
    head = problems[0] if len(problems) == 1 else f"{len(problems)} problems with the input:\n" + "\n".join(f"  - {p}" for p in problems)
    return InputError(head, problems=problems, hint=hint)


class Coercion:
    """The compiled check of one signature.

    Parameters
    ----------
    signature : Signature
        What the arrays must satisfy.
    shows_missing : callable, optional
        Answers the output in which a NaN of the only input shows, or None.

    Attributes
    ----------
    exact : tuple of str and callable, or None
        For a single-input signature: its name, and whether an array satisfies it as it is; the hot path. Where the answer
        is an output's name, it does if no NaN shows there.
    record : callable, or None
        One record of plain Python values to feeds of one row, or None for what takes the long way.
    one_row : callable
        Outputs of one row to a record.
    decoders : dict
        Output name to the function from codes to level values; empty for most models.
    """

    def __init__(self, signature: Signature, shows_missing: Callable[[], str | None] | None = None) -> None:
        self.signature = signature
        self.exact = exact_array(signature, shows_missing)
        self.decoders: dict[str, Callable[[np.ndarray], np.ndarray]] = {
            s.name: decoder(s.columns[0], s.missing) for s in signature.outputs if s.categorical
        }
        self._outputs = {s.name: s for s in signature.outputs}
        self._inputs = {s.name: s for s in signature.inputs}
        self._owner = {c.name: s.name for s in signature.inputs for c in s.columns}
        self._write_record = write_record(signature)
        self.record = None if self._write_record is None else record(signature, self._write_record)
        self.one_row = row_reader(signature)
        self._exact_feeds = exact_feeds(signature)

    def lanes(self) -> dict[type, tuple[Hashable, Writer, Callable[[Sequence[np.ndarray]], Any]]]:
        """Return, for types that need no array between, what `Prebound.lane` takes: the key, how to write, how to read."""
        out: dict[type, tuple] = {}
        write = write_array(self.signature)
        if write is not None:
            out[np.ndarray] = (None, write, read_arrays(self.signature, self.decoders))
        if self._write_record is not None:
            inputs = self.signature.inputs
            key = (1, len(inputs[0].columns)) if len(inputs) == 1 else 1
            out[dict] = (key, self._write_record, read_row(self.signature))
        return out

    # -------------------------------------------------- in

    def feeds(self, x: Any, *, codes: bool | frozenset[str] = False) -> tuple[dict[str, np.ndarray], Opened]:
        """Turn user values into feeds.

        Parameters
        ----------
        x : table, mapping, sequence of mappings, or array
            Values; categorical columns hold level values.
        codes : bool or frozenset of str
            Whether categorical inputs (all, or those named) hold int32 codes instead.

        Returns
        -------
        feeds : dict of str to ndarray
            C-contiguous, native-endian, in the signature's dtypes.
        opened : Opened
            What the container was, for `answer`.

        Raises
        ------
        InputError
            With every problem found.
        """
        if type(x) is dict and self.record is not None and codes is False:
            fast = self.record(x)
            if fast is not None:
                return fast, _RECORD
        problems: list[str] = []
        opened = open_container(x, self.signature)
        feeds = self._assemble(opened, codes, problems)
        if not problems:
            self._unify(feeds, problems)
        if problems:
            raise input_error(problems)
        return feeds, opened

    def check(self, x: Any) -> list[str]:
        """List the problems `feeds` would raise."""
        try:
            self.feeds(x)
        except InputError as exc:
            return list(exc.problems)
        return []

    def run_feeds(self, feeds: Mapping[str, Any]) -> dict[str, np.ndarray]:
        """Check feeds that speak codes: exactly the inputs' names, coerced and in range."""
        if type(feeds) is dict and self._exact_feeds is not None:
            exact = self._exact_feeds(feeds)
            if exact is not None:
                return exact
        if not isinstance(feeds, Mapping):
            raise InputError(f"feeds are {type(feeds).__name__}, expected a dict of arrays by input name")
        absent, extra = [n for n in self._inputs if n not in feeds], [n for n in feeds if n not in self._inputs]
        problems = [f"input {n!r} is missing" for n in absent] + [f"there is no input {n!r}{_nearest(n, self._inputs)}" for n in extra]
        out = {}
        for name, spec in self._inputs.items():
            if name in feeds:
                got = self._block(as_array(feeds[name], f"input {name!r}", problems), spec, True, problems)
                if got is not None:
                    out[name] = got
        if not problems:
            self._unify(out, problems)
        if problems:
            raise input_error(problems)
        return out

    def _assemble(self, opened: Opened, codes: bool | frozenset[str], problems: list[str]) -> dict[str, np.ndarray]:
        inputs = self.signature.inputs
        if None in opened.values and opened.kind == "array":
            if len(inputs) != 1:
                names = ", ".join(repr(s.name) for s in inputs)
                problems.append(f"one array for a model with {len(inputs)} inputs ({names}); pass a table, a record or a dict")
                return {}
            spec = inputs[0]
            array = as_array(opened.values[None], f"input {spec.name!r}", problems)
            got = self._block(array, spec, _speaks_codes(spec, codes), problems)
            return {} if got is None else {spec.name: got}
        if opened.kind in ("dict", "record", "records"):
            known = set(self._inputs) | set(self._owner)
            for n in opened.values:
                if n not in known:
                    problems.append(f"there is no input or column {n!r}{_nearest(n, known)}")
        feeds = {}
        for spec in inputs:
            got = self._named(opened, spec, _speaks_codes(spec, codes), problems)
            if got is not None:
                feeds[spec.name] = got
        return feeds

    def _named(self, opened: Opened, spec: TensorSpec, codes: bool, problems: list[str]) -> np.ndarray | None:
        """Find a spec's values by block name or by column names."""
        values, scalar = opened.values, opened.kind == "record"
        absent = [c.name for c in spec.columns if c.name not in values]
        as_block = spec.name in values and (absent or not spec.columns) and opened.kind != "table"
        if as_block or (not spec.columns and spec.name in values):
            array = as_array(_lift(values[spec.name], scalar), f"input {spec.name!r}", problems)
            return self._block(array, spec, codes, problems)
        if not spec.columns:
            problems.append(f"input {spec.name!r} is missing")
            return None
        if absent:
            near = _nearest(absent[0], [v for v in values if isinstance(v, str)]) if len(absent) == 1 else ""
            shown = ", ".join(map(repr, absent[:10])) + (f" and {len(absent) - 10} more" if len(absent) > 10 else "")
            problems.append(f"input {spec.name!r} lacks column{'s' if len(absent) > 1 else ''} {shown}{near}")
            return None
        return self._columns(values, spec, codes, scalar, problems)

    def _columns(self, values: Mapping, spec: TensorSpec, codes: bool, scalar: bool, problems: list[str]) -> np.ndarray | None:
        before, parts, rows = len(problems), [], None
        for column in spec.columns:
            where = f"column {column.name!r}"
            array = as_array(_lift(values[column.name], scalar), where, problems)
            if array is None:
                continue
            if array.ndim == 2 and array.shape[1] == 1:
                array = array[:, 0]
            if array.ndim != 1:
                problems.append(f"{where}: has {array.ndim} axes, expected one value a row")
                continue
            if rows is not None and array.shape[0] != rows:
                problems.append(f"{where}: has {array.shape[0]} rows, the column before it has {rows}")
                continue
            rows = array.shape[0]
            got = coerce(array, spec, where, problems, column=column, codes=codes)
            if got is not None:
                parts.append(got)
        if len(problems) > before:
            return None
        if len(spec.shape) == 1:
            return np.ascontiguousarray(parts[0])
        out = np.empty((parts[0].shape[0], len(parts)), dtype=parts[0].dtype)
        for j, part in enumerate(parts):
            out[:, j] = part
        return out

    def _block(self, array: np.ndarray | None, spec: TensorSpec, codes: bool, problems: list[str]) -> np.ndarray | None:
        if array is None:
            return None
        where = f"input {spec.name!r}"
        array = _fit_rank(array, spec)
        if array.ndim != len(spec.shape):
            if array.dtype == object and (said := uneven(array)):
                problems.append(f"{where}: {said}")
                return None
            hint = "; did you pass one row without its axis? (x[None, :])" if array.ndim == len(spec.shape) - 1 and spec.batched else ""
            problems.append(f"{where}: shape {array.shape}, expected {_shape_text(spec)}{hint}")
            return None
        wrong = [i for i, d in enumerate(spec.shape) if isinstance(d, int) and array.shape[i] != d]
        if wrong:
            problems.append(f"{where}: shape {array.shape}, expected {_shape_text(spec)}")
            return None
        if spec.columns and _needs_columns(array, spec, codes):
            return self._column_wise(array, spec, codes, problems)
        got = coerce(array, spec, where, problems, codes=codes)
        return None if got is None else np.require(got, requirements=["C", "A"])

    def _column_wise(self, array: np.ndarray, spec: TensorSpec, codes: bool, problems: list[str]) -> np.ndarray | None:
        wide = array.reshape(-1, len(spec.columns))
        parts = [coerce(wide[:, j], spec, f"column {c.name!r}", problems, column=c, codes=codes) for j, c in enumerate(spec.columns)]
        kept = [p for p in parts if p is not None]
        if len(kept) < len(parts):
            return None
        return np.ascontiguousarray(np.stack(kept, axis=1).reshape(array.shape))

    def _unify(self, feeds: Mapping[str, np.ndarray], problems: list[str]) -> None:
        sizes: dict[str, tuple[int, str]] = {}
        for name, array in feeds.items():
            for size, dim in zip(array.shape, self._inputs[name].shape):
                if isinstance(dim, str):
                    first = sizes.setdefault(dim, (size, name))
                    if first[0] != size:
                        problems.append(f"input {name!r}: {dim} is {size}, and {first[0]} in input {first[1]!r}")

    # -------------------------------------------------- out

    def select(self, outputs: str | Iterable[str] | None) -> list[str] | None:
        """Check which outputs are asked for; None is all."""
        if outputs is None:
            return None
        names = [outputs] if isinstance(outputs, str) else list(outputs)
        problems = [f"there is no output {n!r}{_nearest(n, self._outputs)}" for n in names if n not in self._outputs]
        problems += [f"output {n!r} is asked for twice" for n in sorted({n for n in names if names.count(n) > 1})]
        if problems or not names:
            raise input_error(problems or ["no output is asked for"], hint=f"the outputs are {', '.join(self._outputs)}")
        return names

    def answer(self, results: dict[str, np.ndarray], opened: Opened, outputs: str | Iterable[str] | None = None) -> Any:
        """Turn a session's results into what the user gets: level values, in the container that came in."""
        if opened.kind == "record":
            record = self.one_row(results)
            return record[outputs] if isinstance(outputs, str) else record
        values = {n: self.decoders[n](v) if n in self.decoders else v for n, v in results.items()}
        if isinstance(outputs, str):
            return values[outputs]
        if opened.kind == "table" and all(self._outputs[n].batched for n in values):
            return close_table(values, self._outputs, opened.native)
        return values

    def empty(self, feeds: Mapping[str, np.ndarray], names: Sequence[str] | None) -> dict[str, np.ndarray] | None:
        """Answer zero rows without the model, where the output specs fix all other sizes."""
        if not self.signature.batched or any(a.shape[0] for a in feeds.values()):
            return None
        specs = [self._outputs[n] for n in names] if names is not None else list(self.signature.outputs)
        fixed = {s.name: tuple(d for d in s.shape[1:] if isinstance(d, int)) for s in specs}
        if any(len(fixed[s.name]) < len(s.shape) - 1 for s in specs):
            return None
        return {s.name: np.empty((0, *fixed[s.name]), np.dtype(object if s.dtype == "string" else s.dtype)) for s in specs}


_RECORD = Opened("record", {})


def _speaks_codes(spec: TensorSpec, codes: bool | frozenset[str]) -> bool:
    return codes if isinstance(codes, bool) else spec.name in codes


def _needs_columns(array: np.ndarray, spec: TensorSpec, codes: bool) -> bool:
    return (
        spec.categorical
        or array.dtype.kind in "mM"
        or (array.dtype == object and any(c.unit in ("date", "timestamp") for c in spec.columns))
    )


def _nearest(name: Any, known: Iterable[str]) -> str:
    import difflib

    close = difflib.get_close_matches(str(name), [str(k) for k in known], n=1)
    return f"; did you mean {close[0]!r}?" if close else ""


def _shape_text(spec: TensorSpec) -> str:
    return "(" + ", ".join("any" if d is None else str(d) for d in spec.shape) + ("," if len(spec.shape) == 1 else "") + ")"


def _fit_rank(array: np.ndarray, spec: TensorSpec) -> np.ndarray:
    """("rows",) and ("rows", 1) fit each other."""
    if spec.batched and array.ndim == 2 and array.shape[1] == 1 and len(spec.shape) == 1:
        return array[:, 0]
    if spec.batched and array.ndim == 1 and array.dtype == object and len(spec.shape) == 2:
        array = stacked(array)
    if spec.batched and array.ndim == 1 and spec.shape[1:] == (1,):
        return array[:, None]
    return array


def _lift(value: Any, scalar: bool) -> Any:
    if not scalar:
        return value
    if isinstance(value, np.ndarray):
        return value.reshape(1)
    out = np.empty(1, object)
    out[0] = value.item() if isinstance(value, np.generic) and value.dtype.kind not in "mM" else value
    return out


def batch_rows(feeds: Mapping[str, np.ndarray], signature: Signature) -> int | None:
    """Return the number of rows of feeds, or None where the signature has no `rows`."""
    for spec in signature.inputs:
        if spec.shape[:1] == (ROWS,) and spec.name in feeds:
            return int(feeds[spec.name].shape[0])
    return None
