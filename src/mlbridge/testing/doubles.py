"""Sessions for tests: one that applies a function, one that does nothing."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from ..errors import ClosedError
from ..interfaces import UNBOUNDED, Array, Deadline
from ..signature import Signature

__all__ = ["FunctionSession", "NothingSession"]


class FunctionSession:
    """A session over a function from feeds to outputs.

    Parameters
    ----------
    signature : Signature
        Of the function.
    function : callable
        Feeds to outputs.
    max_concurrency : int
        Calls allowed at once.
    """

    device = "cpu"

    def __init__(
        self, signature: Signature, function: Callable[[Mapping[str, Array]], Mapping[str, Array]], *, max_concurrency: int = UNBOUNDED
    ) -> None:
        self.signature, self.function, self.max_concurrency = signature, function, max_concurrency
        self.closed = 0

    def run(
        self, feeds: Mapping[str, Array], /, *, outputs: Sequence[str] | None = None, deadline: Deadline | None = None
    ) -> dict[str, Array]:
        """Apply the function and return what was asked."""
        if self.closed:
            raise ClosedError("the session is closed")
        if deadline is not None:
            deadline.check()
        made = self.function(feeds)
        names = outputs if outputs is not None else [s.name for s in self.signature.outputs]
        return {n: np.asarray(made[n]) for n in names}

    def close(self) -> None:
        """Count the closes."""
        self.closed += 1


class NothingSession:
    """A session that returns one prepared answer: for measuring what stands around it."""

    device = "cpu"
    max_concurrency = UNBOUNDED

    def __init__(self, signature: Signature, answer: Mapping[str, Array]) -> None:
        self.signature, self._answer = signature, dict(answer)

    def run(
        self, feeds: Mapping[str, Array], /, *, outputs: Sequence[str] | None = None, deadline: Deadline | None = None
    ) -> dict[str, Array]:
        """Return the prepared answer."""
        return self._answer

    def close(self) -> None:
        """Nothing is owned."""
