"""The executor: where and how an ONNX session runs.

Rooms: `devices` (facts about this machine) · `plans` (pure choice from facts) · `probing` (measurement on a sample) ·
`session` (the hot path), with `binding`, `splitting`, `alarms` (deadlines), `missing` (where NaN shows) and `engine`
(native sessions; `graphs` walks their files) under it ·
`starting` (the first plan that works) · `tuning`, `parity`, `trial` (parts of probing) · `cache` (files kept between processes).
"""

from __future__ import annotations

from typing import Any

__all__ = ["list_devices", "share_threads"]


def __getattr__(name: str) -> Any:
    if name == "list_devices":
        from .devices import list_devices

        return list_devices
    if name == "share_threads":
        from .engine import share_threads

        return share_threads
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
