"""Starting: the first plan of an ordered list that works, with the truth about those that did not."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..errors import UnavailableError
from ..signature import Signature
from .engine import Engine
from .plans import Plan, Traits
from .session import OnnxSession

__all__ = ["start"]

_LOG = logging.getLogger("mlbridge.executor")


def start(
    model: bytes | Path,
    plans: Sequence[Plan],
    signature: Signature,
    traits: Traits,
    *,
    owner: Any = None,
    sha256: str | None = None,
    default_timeout_s: float | None = None,
    tuned: bool = True,
    packaged: Any = None,
) -> OnnxSession:
    """Open a session by the first plan that works.

    Parameters
    ----------
    model : bytes or Path
        Checked.
    plans : sequence of Plan
        In order of preference; a demanded one is not fallen back from.
    tuned : bool
        Whether a plan measured earlier for this model on this machine goes first.
    packaged : dict, optional
        The record of a measurement that came with the model's package.

    Raises
    ------
    UnavailableError
        If every plan's provider is missing, or a demanded one is.
    """
    known = None
    if tuned and sha256 is not None:
        from .probing import recall

        known = recall(sha256, plans[-1], packaged)
        plans = list(plans) if known is None else [known[0], *plans]
    for i, plan in enumerate(plans):
        try:
            engine = Engine(model, plan, owner=owner, sha256=sha256)
            session = OnnxSession(engine, signature, default_timeout_s=default_timeout_s)
        except UnavailableError as exc:
            if plan.demanded or i == len(plans) - 1:
                raise
            _LOG.warning("%s is not used: %s", plan.provider, exc.message)
            continue
        session.traits = traits
        session.measured = known[1] if known is not None and i == 0 else None
        return session
    raise UnavailableError("there is no plan to run this model by", runtime="onnx")
