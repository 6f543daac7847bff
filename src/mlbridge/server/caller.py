"""Caller: who asks, as the service and the batcher see it. Carriers (gRPC, REST) subclass it."""

from __future__ import annotations

from collections.abc import Hashable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from ..interfaces import Deadline

__all__ = ["Caller"]

_NOTHING: AbstractContextManager[Any] = nullcontext()


class Caller:
    """Who calls, for how long, and how their giving up is noticed. This one waits for ever."""

    __slots__ = ()

    @property
    def aside(self) -> AbstractContextManager[Any]:
        """What to be in while the call's thread waits or works for long."""
        return _NOTHING

    def remaining_s(self) -> float | None:
        """Return the seconds the caller waits, or None."""
        return None

    def name(self) -> Hashable:
        """Return who it is, for fairness."""
        return None

    def tie(self, deadline: Deadline) -> None:
        """Cancel the deadline when the caller gives up."""

    def header(self, name: str) -> str | None:
        """Return a header or metadata value."""
        return None
