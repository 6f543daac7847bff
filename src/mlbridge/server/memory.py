"""Memory as the system tells it: of this process, and of one served model."""

from __future__ import annotations

import os
from typing import Any

__all__ = ["resident_bytes", "worker_bytes"]


def resident_bytes(pid: int | None = None) -> int:
    """Return the resident memory of a process, this one by default, in bytes; 0 where it is gone or the system does not say."""
    try:
        with open(f"/proc/{pid or 'self'}/statm") as f:
            return int(f.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, IndexError):
        return 0


def worker_bytes(session: Any) -> int | None:
    """Return the resident memory of a session's worker processes in bytes; None where it has none."""
    pool = getattr(session, "pool", None)
    pids = getattr(pool, "pids", None)
    return None if pids is None else sum(map(resident_bytes, pids))
