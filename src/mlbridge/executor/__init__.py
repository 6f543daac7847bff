"""The executor: where and how an ONNX session runs.

Rooms: `devices` (facts about this machine) · `plans` (pure choice from facts) · `probing` (measurement on a sample) ·
`session` (the hot path) · `alarms` (ends calls at their deadline) · `cache` (files kept between processes).
"""

from __future__ import annotations

from typing import Any

__all__ = ["list_devices"]


def __getattr__(name: str) -> Any:
    if name == "list_devices":
        from .devices import list_devices

        return list_devices
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
