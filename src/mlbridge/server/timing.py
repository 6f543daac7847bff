"""T(n): how long a model takes for n rows, fitted while serving. The batcher asks it how much fits into a deadline."""

from __future__ import annotations

__all__ = ["Timing"]

_DECAY = 0.98  # of old measurements' weight, per new one: about the last fifty calls count
_FORGETS = 1.01  # the shortest calls are forgotten by a hundredth a call
_MARGIN = 1.05  # a prediction that decides about dropping a request errs to the side of running late
_LONGEST_S = 0.05  # without deadlines a batch should not keep the next one waiting for longer


class Timing:
    """A weighted least-squares line through (rows, seconds).

    Calls side by side wait for each other, and the line tells what a call takes then; `least_s`, the shortest of late,
    tells what the model itself takes, and so does `each_s`, the least a row.

    Examples
    --------
    >>> t = Timing()
    >>> for n in (1, 10, 100):
    ...     t.add(n, 1_000_000 + 10_000 * n)
    >>> round(t.predict_s(50) * 1e3, 1)
    1.6
    """

    __slots__ = ("_n", "_x", "_xx", "_xy", "_y", "base_s", "each_s", "least_s", "one_s", "row_s")

    def __init__(self) -> None:
        self._n = self._x = self._y = self._xx = self._xy = 0.0
        self.base_s = self.row_s = self.one_s = self.least_s = self.each_s = 0.0

    def add(self, rows: int, nanoseconds: int) -> None:
        """Learn from one call; threads may race here, the fit only blurs."""
        seconds = nanoseconds * 1e-9
        each = seconds / rows
        if self.least_s:
            self.least_s, self.each_s = min(seconds, self.least_s * _FORGETS), min(each, self.each_s * _FORGETS)
        else:
            self.least_s, self.each_s = seconds, each
        if self._n > 8.0:
            seconds = min(seconds, 8 * (self.base_s + self.row_s * rows) + 1e-3)  # one stall must not poison the line
        self._n = n = self._n * _DECAY + 1
        self._x = x = self._x * _DECAY + rows
        self._y = y = self._y * _DECAY + seconds
        self._xx = xx = self._xx * _DECAY + rows * rows
        self._xy = xy = self._xy * _DECAY + rows * seconds
        spread = n * xx - x * x
        slope = (n * xy - x * y) / spread if spread > 1e-9 * n * xx else 0.0
        self.row_s = max(slope, 0.0)
        self.base_s = max((y - self.row_s * x) / n, 0.0)
        if not self.base_s and x:
            self.row_s = y / x
        self.one_s = self.base_s + self.row_s

    def predict_s(self, rows: int) -> float:
        """Return the seconds `rows` rows are expected to take; 0 before the first call."""
        return (self.base_s + self.row_s * rows) * _MARGIN

    def shortest_s(self, rows: int) -> float:
        """Return the seconds `rows` rows take where nothing is in the way; 0 before the first call."""
        return max(self.least_s, self.each_s * rows)

    def rows_within(self, slack_s: float | None, most: int) -> int:
        """Return how many rows fit into a deadline, at least 1 and at most `most`."""
        limit = max(_LONGEST_S, 2 * self.base_s)
        budget = (limit if slack_s is None else min(slack_s, limit)) / _MARGIN - self.base_s
        if self.row_s <= 0:
            return most
        return max(1, min(most, int(budget / self.row_s)))

    def doubt(self) -> None:
        """Believe the line a little less: it just refused somebody, who cannot prove it wrong."""
        self._y *= 0.97
        self._xy *= 0.97
        self.base_s *= 0.97
        self.row_s *= 0.97
        self.one_s *= 0.97
