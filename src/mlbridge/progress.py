"""A progress bar for work that turns out long: on a terminal or in a notebook, on standard error, gone when done.

Nobody watches a service's log, so nothing is drawn elsewhere. Called by Model.predict and by tuning.
"""

from __future__ import annotations

import contextlib
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

__all__ = ["Tell", "bar"]

Tell = Callable[..., None]  # of how much is done, and what is being done
_PATIENCE_S = 1.0  # what is done by then, or nearly, needs no bar


@contextlib.contextmanager
def bar(label: str, total: float, *, patience_s: float = _PATIENCE_S) -> Iterator[Tell]:
    """Yield a function of how much is done and what is being done; it draws once the work proves long.

    Parameters
    ----------
    label : str
        Before the bar.
    total : float
        What `done` ends at.
    patience_s : float, default=1.0
        Seconds before a bar is drawn, and which must be left by then.
    """
    if not _watched():
        yield lambda done, text="": None
        return
    began = time.perf_counter()
    drawn: list[Any] = []

    def tell(done: float, text: str = "") -> None:
        spent = time.perf_counter() - began
        if not drawn and spent > patience_s and spent * (total - done) > patience_s * done:
            drawn.extend(_drawn(label, total))
        if drawn:
            shown, task = drawn
            shown.update(task, completed=done, description=text or label)

    try:
        yield tell
    finally:
        if drawn:
            drawn[0].stop()


def _watched() -> bool:
    """Whether a person looks at this thread's output: a terminal or a notebook, and not a server's worker."""
    if threading.current_thread() is not threading.main_thread():
        return False
    notebook = sys.modules.get("ipykernel") is not None
    return notebook or (sys.stderr is not None and sys.stderr.isatty())


def _drawn(label: str, total: float) -> tuple[Any, Any]:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
    shown = Progress(*columns, console=Console(stderr=True), transient=True)
    shown.start()
    return shown, shown.add_task(label, total=total)
