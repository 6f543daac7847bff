"""Estimators without an exact ONNX form, and why: the committed list that tests keep from growing."""

from __future__ import annotations

from collections.abc import Mapping

__all__ = ["NO_SIGNATURE", "REFUSED"]

REFUSED: Mapping[str, str] = {}
NO_SIGNATURE: Mapping[str, str] = {}
