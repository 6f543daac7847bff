"""Estimators that read neither tables nor matrices: dicts (DictVectorizer, FeatureHasher), sets of labels, images.

Each gets a signature of blocks, a function from feeds back to what the library reads, and a graph. A category that is
missing is a key that is absent, or one label fewer.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from ...errors import ConversionError, SignatureError
from ...signature import ROWS, Column, Field, Signature, TensorSpec, blocks
from .emitter import Emitter, Frame, class_name, emits
from .tracing import UNKNOWN_TEXT, level_values

__all__ = ["patches_spec", "reads_records", "record_inputs", "record_maker"]

_MOST_LABELS = 64  # a row, unless a sample shows more: each is a column with all classes as levels


def reads_records(est: Any) -> bool:
    """Whether the estimator reads something of its own kind."""
    return class_name(est) in _INPUTS


def record_inputs(est: Any, sample: Any) -> tuple[TensorSpec, ...]:
    """Describe what such an estimator reads, from its state, and from the sample where it has none."""
    return _INPUTS[class_name(est)](est, sample)


def record_maker(est: Any, signature: Signature) -> Callable[[Mapping[str, np.ndarray]], Any]:
    """Return a function from feeds to what the estimator's `transform` takes."""
    return _MAKERS[class_name(est)](est, signature)


# ---------------------------------------------------------------- dicts


def _records_of(sample: Any) -> list[dict]:
    """Return a sample's rows as dicts: records, lists of pairs, or a table's rows."""
    if hasattr(sample, "to_dict") and hasattr(sample, "columns"):
        return sample.head(100).to_dict("records")
    rows = list(sample)[:100] if isinstance(sample, list | tuple) else []
    return [dict(r) for r in rows if isinstance(r, dict) or all(isinstance(p, tuple) and len(p) == 2 for p in r)]


def _dict_inputs(est: Any, sample: Any) -> tuple[TensorSpec, ...]:
    records = _records_of(sample)
    spoken = {k for r in records for k, v in r.items() if isinstance(v, str)}
    counted = {k for r in records for k in r} - spoken
    numbers: dict[str, None] = {}
    levels: dict[str, list[str]] = {}
    for name in est.feature_names_:
        key = next((k for k in spoken if name.startswith(k + est.separator)), None) or name.partition(est.separator)[0]
        if key == name or name in counted:
            numbers[name] = None
        else:
            levels.setdefault(key, []).append(name[len(key) + len(est.separator) :])
    both = sorted(set(numbers) & set(levels))
    if both:
        raise SignatureError(f"the key {both[0]!r} holds numbers in some records and text in others", hint="train on one kind a key")
    fields = [Field(Column(n), missing="allow") for n in numbers]
    return blocks(fields + [Field(Column(k, tuple(v), unknown="keep"), "int32", "allow") for k, v in levels.items()])


def _hasher_inputs(est: Any, sample: Any) -> tuple[TensorSpec, ...]:
    if est.input_type == "string":
        return (TensorSpec("text", "string", (ROWS, "tokens"), missing="allow"),)
    rows = _records_of(sample)
    if not rows:
        raise SignatureError("FeatureHasher does not remember its features", hint="pass sample=, records that hold every feature")
    kinds = {k: isinstance(v, str) for r in rows for k, v in r.items() if v is not None}
    return blocks([Field(Column(k), "string") if text else Field(Column(k), missing="allow") for k, text in kinds.items()])


def _dict_maker(est: Any, signature: Signature) -> Callable[[Mapping[str, np.ndarray]], Any]:
    if class_name(est) == "FeatureHasher" and est.input_type == "string":
        return lambda feeds: [[v for v in row if v is not None] for row in feeds["text"].tolist()]
    pairs = class_name(est) == "FeatureHasher" and est.input_type == "pair"

    def make(feeds: Mapping[str, np.ndarray]) -> list:
        columns: dict[str, list] = {}
        for spec in signature.inputs:
            for i, c in enumerate(spec.columns):
                values = feeds[spec.name][:, i]
                columns[c.name] = (values if c.categories is None else level_values(c.categories, values, None)).tolist()
        absent = {c.name for c in signature.columns if c.categories is not None}
        rows = [
            {k: v[i] for k, v in columns.items() if v[i] is not None or k not in absent} for i in range(len(next(iter(feeds.values()))))
        ]
        return [list(r.items()) for r in rows] if pairs else rows

    return make


@emits("transform", "DictVectorizer")
def dict_vectorizer(e: Emitter, est: Any, frame: Frame) -> Frame:
    """Emit numbers as they are, and one column a level."""
    places, parts = [], []
    for i, col in enumerate(frame.cols):
        if col.levels is None:
            places.append(est.vocabulary_[col.name])
            parts.append(e.column(frame, i))
        else:
            k = len(col.levels)
            places += [est.vocabulary_[f"{col.name}{est.separator}{v}"] for v in col.levels]
            parts.append(e.lookup(col, np.concatenate([np.zeros((1, k)), np.eye(k), np.zeros((1, k))])))
    out = e.op("Gather", e.graph.concat(parts), np.argsort(places), axis=1)
    if np.dtype(est.dtype) != np.float64:
        out = e.graph.cast(e.graph.cast(out, np.dtype(est.dtype).name), "float64")
    return Frame.of(out, len(places))


@emits("transform", "FeatureHasher")
def feature_hasher(e: Emitter, est: Any, frame: Frame) -> Frame:
    """Emit each feature added to the place its name hashes to; names of text features hold their text."""
    graph = e.graph
    if est.input_type == "string":
        raise ConversionError(
            "FeatureHasher(input_type='string') reads as many words a row as there are, and ONNX text has no missing value"
        )
    if np.dtype(est.dtype) != np.float64:
        raise ConversionError(f"FeatureHasher(dtype={np.dtype(est.dtype).name}) adds in that type")
    hashes, values = [], []
    for i, col in enumerate(frame.cols):
        block = frame.select([i])
        if col.kind == "text":
            text = col.block if col.width == 1 else e.op("Gather", col.block, np.array([col.index]), axis=1)
            names = graph.add("StringConcat", graph.const(np.array(f"{col.name}=", dtype=object), "string"), text)
            values.append(e.per_row(col.block, [1.0]))
        else:
            shape = graph.add("Shape", e.matrix(block))
            names = graph.add("Expand", graph.const(np.array([[col.name]], dtype=object), "string"), shape)
            values.append(e.matrix(block))
        graph.opsets["com.microsoft"] = 1
        hashed = graph.add("MurmurHash3", names, domain="com.microsoft", positive=0, seed=0)
        hashes.append(graph.cast(hashed, "int64"))
    hashed, value = graph.concat(hashes), graph.concat(values)
    if est.alternate_sign:
        value = e.op("Where", e.op("Less", hashed, np.int64(0)), e.op("Neg", value), value)
    place = e.op("Mod", e.op("Abs", hashed), np.int64(est.n_features))
    rows = graph.concat([graph.add("Shape", value, start=0, end=1), graph.const([est.n_features], "int64")], axis=0)
    empty = graph.add("Expand", graph.const(np.float64(0)), rows)
    return Frame.of(graph.add("ScatterElements", empty, place, value, axis=1, reduction="add"), est.n_features)


# ---------------------------------------------------------------- sets of labels


def _label_inputs(est: Any, sample: Any) -> tuple[TensorSpec, ...]:
    classes = [c.item() if hasattr(c, "item") else c for c in est.classes_]
    width = _widest(sample)
    if width is None and len(classes) > _MOST_LABELS:
        raise SignatureError(
            f"a row may hold up to {len(classes)} labels", hint="pass sample=, an array as wide as rows have labels at most"
        )
    names = [f"label_{i}" for i in range(width or len(classes))]
    return blocks([Field(Column(n, tuple(classes), unknown="keep"), "int32", "allow") for n in names])


def _widest(sample: Any) -> int | None:
    if sample is None:
        return None
    shape: tuple[int, ...] = getattr(sample, "shape", ())
    return int(shape[1]) if len(shape) == 2 else max((len(r) for r in sample), default=None)


def _label_maker(est: Any, signature: Signature) -> Callable[[Mapping[str, np.ndarray]], Any]:
    classes: tuple[Any, ...] = signature.inputs[0].columns[0].categories or ()
    unknown: Any = UNKNOWN_TEXT if isinstance(classes[0], str) else max(classes) + 1
    table = [*classes, unknown]
    return lambda feeds: [[table[c] for c in row if c >= 0] for row in feeds[signature.inputs[0].name].tolist()]


@emits("transform", "MultiLabelBinarizer")
def label_sets(e: Emitter, est: Any, frame: Frame) -> Frame:
    """Emit one column a class: whether any label is it."""
    k, total = len(est.classes_), None
    for col in frame.cols:
        hit = e.lookup(col, np.concatenate([np.zeros((1, k)), np.eye(k), np.zeros((1, k))]))
        total = hit if total is None else e.op("Max", total, hit)
    return Frame.of(str(total), k)


# ---------------------------------------------------------------- images


def _image_inputs(est: Any, sample: Any) -> tuple[TensorSpec, ...]:
    shape: tuple[int, ...] = np.shape(sample) if sample is not None else ()  # type: ignore[call-overload]
    if sample is not None and len(shape) not in (3, 4):
        raise SignatureError(f"the sample has shape {shape}; images are (images, height, width) or with channels last")
    channels = (int(shape[3]),) if len(shape) == 4 else ()
    return (TensorSpec("features", "float64", ("images", "height", "width", *channels)),)


def _image_maker(est: Any, signature: Signature) -> Callable[[Mapping[str, np.ndarray]], Any]:
    return lambda feeds: feeds["features"]


def patches_spec(est: Any, inputs: tuple[TensorSpec, ...], dtype: str) -> TensorSpec:
    """Describe PatchExtractor's answer, which has more rows than there are images."""
    size: tuple = tuple(est.patch_size) if est.patch_size is not None else ("patch_height", "patch_width")
    channels = [d for d in inputs[0].shape[3:] if d != 1]
    return TensorSpec("transformed", dtype, ("patches", *size, *channels))


@emits("transform", "PatchExtractor")
def patches(e: Emitter, est: Any, frame: Frame) -> str:
    """Emit every patch of every image, row by row."""
    if est.max_patches is not None:
        raise ConversionError("PatchExtractor(max_patches=...) draws patches at random")
    graph, x = e.graph, frame.cols[0].block
    for axis, given in ((1, (est.patch_size or (None,))[0]), (3, (est.patch_size or (None, None))[1])):
        size = graph.add("Squeeze", graph.add("Shape", x, start=axis, end=axis + 1))
        patch = graph.const(given, "int64") if given is not None else e.op("Div", size, np.int64(10))  # the library's default
        starts = graph.add("Range", graph.const(0, "int64"), e.op("Add", e.op("Sub", size, patch), np.int64(1)), graph.const(1, "int64"))
        steps = graph.add("Range", graph.const(0, "int64"), patch, graph.const(1, "int64"))
        x = graph.add("Gather", x, e.op("Add", e.tall(starts), steps), axis=axis)  # (images, starts, patch, ...)
    spec = graph.signature.inputs[0]
    channels = spec.shape[3:]
    x = graph.add("Transpose", x, perm=[0, 1, 3, 2, 4, *([5] if channels else [])])
    tail = [graph.add("Shape", x, start=3, end=5)] + [graph.const([d], "int64") for d in channels if d != 1]
    return graph.add("Reshape", x, graph.concat([graph.const([-1], "int64"), *tail], axis=0))


_INPUTS: dict[str, Callable[[Any, Any], tuple[TensorSpec, ...]]] = {
    "DictVectorizer": _dict_inputs,
    "FeatureHasher": _hasher_inputs,
    "MultiLabelBinarizer": _label_inputs,
    "PatchExtractor": _image_inputs,
}
_MAKERS: dict[str, Callable[[Any, Signature], Callable]] = {
    "DictVectorizer": _dict_maker,
    "FeatureHasher": _dict_maker,
    "MultiLabelBinarizer": _label_maker,
    "PatchExtractor": _image_maker,
}
