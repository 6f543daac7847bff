"""Checks on an ONNX file of trust `data`: what must hold before onnxruntime sees it.

Side files only beside the model, listed, plain and copied; no text with NUL; no unknown operators; bounded numbers of
nodes and bytes. `sizes.py` bounds what the graph would make; this file looks at what it says.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...errors import ArtifactError, UnsupportedError
from ...executor.graphs import subgraphs
from ...executor.plans import Traits

if TYPE_CHECKING:
    import onnx

__all__ = [
    "LOOP_TIMEOUT_S",
    "MAX_NODES",
    "MAX_TENSOR_BYTES",
    "Limits",
    "check_proto",
    "copy_side_files",
    "count_nodes",
    "loops",
    "parse",
    "traits_of",
]

MAX_NODES = 10**6
MAX_TENSOR_BYTES = 1 << 30
LOOP_TIMEOUT_S = 60.0
_DOMAINS = frozenset({"", "ai.onnx", "ai.onnx.ml", "com.microsoft", "com.microsoft.nchwc", "ai.onnx.preview"})
_EXTERNAL_KEYS = frozenset({"location", "offset", "length", "checksum"})
_MAX_DEPTH = 64  # of nested subgraphs and functions; real models stay below ten
_CHUNK = 1 << 20


@dataclass(frozen=True, slots=True)
class Limits:
    """What a file may ask for.

    Parameters
    ----------
    max_nodes : int
        Nodes after every function is expanded.
    max_tensor_bytes : int
        Bytes of all constants together, and of any one tensor whose size the graph fixes.
    domains : set of str
        Operator domains allowed beside ONNX's own and onnxruntime's.
    """

    max_nodes: int = MAX_NODES
    max_tensor_bytes: int = MAX_TENSOR_BYTES
    domains: frozenset[str] = frozenset()


def parse(data: bytes, label: str) -> onnx.ModelProto:
    """Parse the bytes, side files not looked at; ArtifactError if they are not a model."""
    from google.protobuf.message import DecodeError

    import onnx

    model = onnx.ModelProto()
    try:
        model.ParseFromString(data)
    except (DecodeError, RecursionError) as exc:
        raise ArtifactError(f"{label}: not a readable ONNX model: {exc}", hint="the file is truncated or damaged") from exc
    if not model.graph.output:
        raise ArtifactError(f"{label}: the ONNX graph has no output")
    return model


def check_proto(model: onnx.ModelProto, label: str, limits: Limits) -> None:
    """Refuse what a model of trust `data` may not hold.

    Raises
    ------
    ArtifactError
        Naming what was found.
    UnsupportedError
        If an operator's domain is unknown.
    """
    if model.training_info:
        raise ArtifactError(
            f"{label}: holds training information", hint="export the model for inference: training_info is not used to predict"
        )
    functions = {(f.domain, f.name, f.overload): f for f in model.functions}
    if len(functions) != len(model.functions):
        raise ArtifactError(f"{label}: two functions have one name")
    for graph in _graphs(model, label):
        _check_graph(graph, label)
    known = _DOMAINS | limits.domains
    total = 0
    for node, _ in _nodes(model, label):
        _check_node(node, functions, known, label)
        for tensor in _constants(node):
            if is_external(tensor):
                raise ArtifactError(f"{label}: node {node.name or node.op_type!r} keeps a constant in a side file; only initializers may")
            total += tensor_bytes(tensor, label)
    for graph in _graphs(model, label):
        for tensor in graph.initializer:
            total += tensor_bytes(tensor, label)
        for sparse in graph.sparse_initializer:
            total += _sparse_bytes(sparse, label)
    if total > limits.max_tensor_bytes:
        raise ArtifactError(
            f"{label}: its constants take {total} bytes, the limit is {limits.max_tensor_bytes}",
            hint=f"if that is right, pass options={{'onnx': {{'max_tensor_bytes': {total}}}}}",
        )
    nodes = count_nodes(model, label)
    if nodes > limits.max_nodes:
        raise ArtifactError(
            f"{label}: {_about(nodes)} nodes once its functions are expanded, the limit is {limits.max_nodes}",
            hint="if that is right, pass options={'onnx': {'max_nodes': …}}",
        )


def _about(count: int) -> str:
    return str(count) if count < 10**9 else f"more than 10**{len(str(count)) - 1}"


# ---------------------------------------------------------------- walking every corner


def _graphs(model: onnx.ModelProto, label: str) -> Iterator[Any]:
    """Yield the main graph and every subgraph, those inside functions included."""
    yield model.graph
    for node, _ in _nodes(model, label):
        yield from subgraphs(node)


def _nodes(model: onnx.ModelProto, label: str) -> Iterator[tuple[Any, int]]:
    """Yield every node written in the file with its depth; functions are not expanded."""
    stack = [(n, 0) for n in model.graph.node] + [(n, 0) for f in model.functions for n in f.node]
    while stack:
        node, depth = stack.pop()
        if depth > _MAX_DEPTH:
            raise ArtifactError(f"{label}: subgraphs nest more than {_MAX_DEPTH} deep")
        yield node, depth
        for graph in subgraphs(node):
            stack.extend((n, depth + 1) for n in graph.node)


def _constants(node: Any) -> Iterator[Any]:
    for attribute in node.attribute:
        if attribute.HasField("t"):
            yield attribute.t
        yield from attribute.tensors
        for sparse in (
            (attribute.sparse_tensor, *attribute.sparse_tensors) if attribute.HasField("sparse_tensor") or attribute.sparse_tensors else ()
        ):
            yield sparse.values
            yield sparse.indices


def _check_graph(graph: Any, label: str) -> None:
    for what, names in (
        ("an input", (v.name for v in graph.input)),
        ("an output", (v.name for v in graph.output)),
        ("a value", (v.name for v in graph.value_info)),
        ("an initializer", (t.name for t in graph.initializer)),
        ("a symbol", (d.dim_param for v in (*graph.input, *graph.output) for d in v.type.tensor_type.shape.dim)),
    ):
        for name in names:
            _no_nul(name, what, label)
    for sparse in graph.sparse_initializer:
        _no_nul(sparse.values.name, "an initializer", label)
        if is_external(sparse.values) or is_external(sparse.indices):
            raise ArtifactError(f"{label}: a sparse initializer keeps its data in a side file; only dense initializers may")
    weights = [t.name for t in graph.initializer]
    if len(set(weights)) != len(weights):
        raise ArtifactError(f"{label}: two initializers have one name")


def _check_node(node: Any, functions: Mapping[tuple, Any], known: frozenset[str], label: str) -> None:
    for name in (node.name, node.op_type, node.domain, *node.input, *node.output):
        _no_nul(name, "a node", label)
    if node.domain not in known and (node.domain, node.op_type, node.overload) not in functions:
        raise UnsupportedError(
            f"{label}: operator {node.op_type!r} is of the unknown domain {node.domain!r}",
            hint=f"a custom operator needs its library: register it, then pass options={{'onnx': {{'domains': [{node.domain!r}]}}}}",
            runtime="onnx",
        )


def _no_nul(name: str, what: str, label: str) -> None:
    if not isinstance(name, str):
        raise ArtifactError(f"{label}: the name of {what} is not UTF-8: {name!r}")  # protobuf hands those over as bytes
    if "\0" in name:
        raise ArtifactError(f"{label}: the name of {what} holds a NUL character: {name!r}")


def is_external(tensor: Any) -> bool:
    """Whether a tensor says its data is elsewhere, in either of the two ways to say it."""
    return tensor.data_location == 1 or bool(tensor.external_data)


def loops(model: onnx.ModelProto, label: str = "the model") -> bool:
    """Whether any Loop or Scan occurs, so that the graph may never end by itself."""
    return any(node.op_type in ("Loop", "Scan") and node.domain in ("", "ai.onnx") for node, _ in _nodes(model, label))


def count_nodes(model: onnx.ModelProto, label: str = "the model") -> int:
    """Count nodes as if every function were expanded; a few functions that call each other twice are billions."""
    functions = {(f.domain, f.name, f.overload): f for f in model.functions}
    known: dict[tuple, int] = {}
    open_: set[tuple] = set()

    def of_nodes(nodes: Any, depth: int) -> int:
        if depth > _MAX_DEPTH:
            raise ArtifactError(f"{label}: functions and subgraphs nest more than {_MAX_DEPTH} deep")
        total = 0
        for node in nodes:
            total += 1 + sum(of_nodes(g.node, depth + 1) for g in subgraphs(node))
            key = (node.domain, node.op_type, node.overload)
            if key in functions:
                total += of_function(key, depth + 1)
        return total

    def of_function(key: tuple, depth: int) -> int:
        if key in open_:
            raise ArtifactError(f"{label}: function {key[1]!r} calls itself")
        if key not in known:
            open_.add(key)
            known[key] = of_nodes(functions[key].node, depth)
            open_.discard(key)
        return known[key]

    return of_nodes(model.graph.node, 0) + sum(of_function(k, 0) for k in functions)


def traits_of(model: onnx.ModelProto) -> Traits:
    """Return what of a model the choice of a plan rests on."""
    operators, count, weights = set(), 0, 0
    for node, _ in _nodes(model, "the model"):
        count += 1
        operators.add(node.op_type if node.domain in ("", "ai.onnx") else f"{node.domain}:{node.op_type}")
    for tensor in model.graph.initializer:
        if len(tensor.dims) > 1:
            size = 1
            for d in tensor.dims:
                size *= d
            weights += size
    return Traits(frozenset(operators), count, weights)


# ---------------------------------------------------------------- constants and side files

_BITS = {1: 32, 2: 8, 3: 8, 4: 16, 5: 16, 6: 32, 7: 64, 8: 8, 9: 8, 10: 16, 11: 64, 12: 32, 13: 64, 14: 64, 15: 128, 16: 16}
_BITS |= {17: 8, 18: 8, 19: 8, 20: 8, 21: 4, 22: 4, 23: 4, 24: 8, 25: 2, 26: 2}


def element_bits(elem_type: int) -> int:
    """Return the bits of one element of an ONNX type; unknown ones count as 64."""
    return _BITS.get(elem_type, 64)


def tensor_bytes(tensor: Any, label: str) -> int:
    """Return what a constant takes in memory: by its dims, or by its data where that is more."""
    count = 1
    for d in tensor.dims:
        if d < 0:
            raise ArtifactError(f"{label}: constant {tensor.name!r} has a negative size")
        count *= d
    return max(count * element_bits(tensor.data_type) // 8, len(tensor.raw_data))


def _sparse_bytes(sparse: Any, label: str) -> int:
    count = 1
    for d in sparse.dims:
        if d < 0:
            raise ArtifactError(f"{label}: sparse constant {sparse.values.name!r} has a negative size")
        count *= d
    dense = count * element_bits(sparse.values.data_type) // 8  # onnxruntime makes it dense
    return dense + tensor_bytes(sparse.values, label) + tensor_bytes(sparse.indices, label)


def external_initializers(model: onnx.ModelProto, label: str) -> list[Any]:
    """Return the initializers, of any graph, whose data is in side files."""
    return [t for g in _graphs(model, label) for t in g.initializer if is_external(t)]


def copy_side_files(model: onnx.ModelProto, origin: Path | None, target: Path, label: str, limits: Limits) -> dict[str, str]:
    """Copy the side files a model lists into its private folder while hashing them.

    Parameters
    ----------
    model : onnx.ModelProto
        Whose initializers name files beside it.
    origin : Path or None
        The model's own file; None for bytes, which can have no side files.
    target : Path
        The private copy of the model.

    Returns
    -------
    dict of str to str
        File name to sha256; empty where everything is inside the model.

    Raises
    ------
    ArtifactError
        If a name is more than a file name, or the file is a link, linked twice, not plain, too short or too large.
    """
    tensors = external_initializers(model, label)
    needs: dict[str, int] = {}
    for tensor in tensors:
        location, end = _location(tensor, label)
        needs[location] = max(needs.get(location, 0), end)
    if not needs:
        return {}
    if origin is None:
        raise ArtifactError(f"{label}: keeps data in side files, which bytes cannot have", hint="load it by its path")
    hashes, total = {}, 0
    for name, end in needs.items():
        if name in (origin.name, target.name):
            raise ArtifactError(f"{label}: names itself as the side file of an initializer")
        size, digest = _copy_plain(origin.parent / name, target.parent / name, label, limits.max_tensor_bytes - total)
        if size < end:
            raise ArtifactError(f"{label}: side file {name!r} has {size} bytes, an initializer needs {end}")
        total += size
        hashes[name] = digest
    return hashes


def _location(tensor: Any, label: str) -> tuple[str, int]:
    if tensor.data_location != 1:
        raise ArtifactError(f"{label}: initializer {tensor.name!r} lists a side file but says its data is inside")
    entries = {e.key: e.value for e in tensor.external_data}
    if not all(isinstance(t, str) for item in entries.items() for t in item):
        raise ArtifactError(f"{label}: initializer {tensor.name!r} describes its side file in text that is not UTF-8")
    strange = sorted(set(entries) - _EXTERNAL_KEYS)
    if strange or len(entries) != len(tensor.external_data):
        raise ArtifactError(f"{label}: initializer {tensor.name!r} describes its side file with {strange or 'a key twice'}")
    name = entries.get("location", "")
    if not name or name in (".", "..") or set(name) & set("/\\\0:") or name.startswith("*"):
        raise ArtifactError(
            f"{label}: initializer {tensor.name!r} keeps its data in {name!r}; only a plain file name beside the model may be named",
            hint="save the model again with its side file next to it",
        )
    if len(tensor.raw_data):
        raise ArtifactError(f"{label}: initializer {tensor.name!r} has data inside and in a side file")
    size = tensor_bytes(tensor, label)
    offset, length = _number(entries.get("offset", "0"), tensor, label), _number(entries.get("length", str(size)), tensor, label)
    if length != size:
        raise ArtifactError(f"{label}: initializer {tensor.name!r} needs {size} bytes, its side file gives {length}")
    return name, offset + length


def _number(text: str, tensor: Any, label: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 16):
        raise ArtifactError(f"{label}: initializer {tensor.name!r} has the offset or length {text!r}")
    return int(text)


def _copy_plain(source: Path, target: Path, label: str, room: int) -> tuple[int, str]:
    import hashlib

    flags = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0) | getattr(os, "O_NONBLOCK", 0)
    try:
        fd = os.open(source, flags)
    except OSError as exc:
        why = "is a link" if source.is_symlink() else exc.strerror
        raise ArtifactError(
            f"{label}: side file {source.name!r}: {why}", hint="the side files must lie beside the model, as plain files"
        ) from exc
    with open(fd, "rb") as src:
        facts = os.fstat(fd)
        if not stat.S_ISREG(facts.st_mode):
            raise ArtifactError(f"{label}: side file {source.name!r} is not a plain file")
        if facts.st_nlink > 1:
            # A hard link gives a file outside the folder a second name inside it.
            raise ArtifactError(f"{label}: side file {source.name!r} is a hard link", hint="copy the file instead of linking it")
        digest, size = hashlib.sha256(), 0
        with open(target, "xb") as dst:
            while chunk := src.read(_CHUNK):
                size += len(chunk)
                if size > room:
                    raise ArtifactError(
                        f"{label}: side files take more than the limit on constants", hint="raise max_tensor_bytes if that is right"
                    )
                digest.update(chunk)
                dst.write(chunk)
    return size, digest.hexdigest()
