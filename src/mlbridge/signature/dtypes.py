"""The one table of dtypes: how numpy, the Open Inference Protocol, ONNX, R, the JVM and the frames spell each type."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

__all__ = ["DTYPES", "DType"]


class DType(NamedTuple):
    """One row of the dtype table: how each side spells the type."""

    name: str  # ours, and numpy's
    numpy: str | None  # little-endian numpy code; None where numpy lacks it
    oip: str  # Open Inference Protocol datatype
    onnx: int  # onnx.TensorProto.DataType
    r: str  # R vector type that holds it
    jvm: str  # Java element type; unsigned types are held in the signed type of equal width
    frame: int  # dtype code of the frame codec
    size: int  # bytes an element; 0 where it varies


_TABLE = (
    DType("bool", "|b1", "BOOL", 9, "logical", "boolean", 1, 1),
    DType("int8", "|i1", "INT8", 3, "integer", "byte", 2, 1),
    DType("int16", "<i2", "INT16", 5, "integer", "short", 3, 2),
    DType("int32", "<i4", "INT32", 6, "integer", "int", 4, 4),
    DType("int64", "<i8", "INT64", 7, "double", "long", 5, 8),
    DType("uint8", "|u1", "UINT8", 2, "integer", "byte", 6, 1),
    DType("uint16", "<u2", "UINT16", 4, "integer", "short", 7, 2),
    DType("uint32", "<u4", "UINT32", 12, "double", "int", 8, 4),
    DType("uint64", "<u8", "UINT64", 13, "double", "long", 9, 8),
    DType("float16", "<f2", "FP16", 10, "double", "short", 10, 2),
    DType("bfloat16", None, "BF16", 16, "double", "short", 11, 2),
    DType("float32", "<f4", "FP32", 1, "double", "float", 12, 4),
    DType("float64", "<f8", "FP64", 11, "double", "double", 13, 8),
    DType("string", "|O", "BYTES", 8, "character", "String", 14, 0),
)
DTYPES: Mapping[str, DType] = {d.name: d for d in _TABLE}
