"""`r+inproc:`: a model in the R that lives in this process; implements `interfaces.Session`."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ...errors import ClosedError, MlbridgeError
from ...frames import Frame, FrameType
from ...interfaces import Array, Deadline
from ...signature import Signature
from ...workers import fit_outputs
from ...workers.answers import rows_of
from ...workers.lane import foreign_error
from .embedded import EmbeddedR, embedded_r
from .values import REAL, KeptCall, Scope, from_r, named_list, numbers_from_r, strings_from_r, to_r

__all__ = ["InprocSession", "open_inproc", "signature_inproc"]

_REFUSAL = ("class", "message", "hint", "condition", "trace", "code")  # as embedded.R lists them


def open_inproc(tensors: Mapping[str, Any], *, signature: Signature, grace_s: float, keep: Any) -> InprocSession:
    """Load a model into the embedded R.

    Parameters
    ----------
    tensors : mapping
        What a worker gets with LOAD.
    signature : Signature
        The model's.
    grace_s : float
        How long an interrupted call may go on before later calls are refused.
    keep : object with close()
        Closed with the session.
    """
    r = embedded_r()
    model = r.call(lambda: _load(r, tensors))
    return InprocSession(r, model, signature, grace_s, keep)


def signature_inproc(tensors: Mapping[str, Any]) -> Signature:
    """Ask the embedded R for a model's signature."""
    r = embedded_r()
    return Signature.from_json(r.call(lambda: _load(r, tensors)))


class InprocSession:
    """A model in the embedded R: one call at a time, all models of the process on one thread.

    Parameters
    ----------
    r : EmbeddedR
        The running R.
    model : R object
        What `embedded_ask` takes; preserved in R until close.
    signature : Signature
        The model's.
    grace_s : float
        As `open_inproc`.
    keep : object with close()
        Closed with the session.
    """

    device = "r"
    max_concurrency = 1

    def __init__(self, r: EmbeddedR, model: Any, signature: Signature, grace_s: float, keep: Any) -> None:
        self.signature, self.keep = signature, keep
        self._r, self._model, self._grace_s = r, model, grace_s
        self._owner = os.getpid()
        self._closed = False
        self._kept: KeptCall | None = None  # touched on the R thread only

    def run(
        self, feeds: Mapping[str, Array], /, *, outputs: Sequence[str] | None = None, deadline: Deadline | None = None
    ) -> dict[str, Array]:
        """Run once on the R thread.

        Raises
        ------
        InferenceError
            What the model raised, with R's condition and trace.
        BridgeTimeoutError, CancelledError, BridgeError, ClosedError
            As `EmbeddedR.call`.
        """
        if self._closed:
            raise ClosedError("the model is closed", runtime="r")
        wanted = [s.name for s in self.signature.outputs] if outputs is None else list(outputs)
        got = self._r.call(lambda: self._ask(feeds, None if outputs is None else wanted), deadline=deadline, grace_s=self._grace_s)
        if isinstance(got, MlbridgeError):
            raise got
        answers = dict(zip(wanted, got))
        return fit_outputs(self.signature, answers, wanted=outputs, rows=rows_of(self.signature, feeds), runtime="r")

    def _ask(self, feeds: Mapping[str, Array], wanted: list[str] | None) -> list[Array] | MlbridgeError:
        r, kept = self._r, self._kept
        if wanted is None and kept is not None and kept.fill(feeds):
            return _evaluate(r, kept.call)
        with Scope(r) as scope:
            asked = r.rlib.R_NilValue if wanted is None else to_r(scope, np.array(wanted, object))
            call = scope.keep(r.rlib.Rf_lang4(r.rlib.Rf_install(b"embedded_ask"), named_list(scope, feeds), asked, self._model))
            if wanted is None and KeptCall.keepable(feeds):
                self._forget()
                self._kept = KeptCall(r, call, feeds)
            return _evaluate(r, call)

    def _forget(self) -> None:
        if self._kept is not None:
            self._kept.release()
            self._kept = None

    def close(self) -> None:
        """Let R forget the model; harmless when repeated."""
        if self._closed:
            return
        self._closed = True
        if os.getpid() == self._owner:
            self._r.later(self._release)
        if hasattr(self.keep, "close"):
            self.keep.close()

    def _release(self) -> None:
        self._forget()
        self._r.rlib.R_ReleaseObject(self._model)


def _load(r: EmbeddedR, tensors: Mapping[str, Any]) -> Any:
    """Return the model as an R object that is preserved, or the text of the signature that R found."""
    with Scope(r) as scope:
        got = _evaluate(r, scope.keep(r.rlib.Rf_lang2(r.rlib.Rf_install(b"embedded_load"), named_list(scope, tensors))))
    if isinstance(got, MlbridgeError):
        raise got
    return str(got[0][0]) if isinstance(got, list) else got


def _evaluate(r: EmbeddedR, call: Any) -> Any:
    """Return what R answers to a protected call: the outputs, a model that is preserved, or the error that it left with."""
    answer = r.evaluate(call, r.methods)
    if answer is not None and r.type_of(answer) == REAL:  # read before R does anything else, so it needs no protection
        return [numbers_from_r(r, answer)]
    with Scope(r) as scope:
        if answer is None:
            return _refusal(scope)
        rlib = r.rlib
        scope.keep(answer)
        codes, values = rlib.VECTOR_ELT(answer, 0), rlib.VECTOR_ELT(answer, 1)
        kinds = rlib.INTEGER(codes)
        count = rlib.Rf_xlength(codes)
        if count == 1 and kinds[0] == 0:
            rlib.R_PreserveObject(values)
            return values
        return [from_r(r, rlib.VECTOR_ELT(values, i), kinds[i]) for i in range(count)]


def _refusal(scope: Scope) -> MlbridgeError:
    r = scope.r
    values = scope.keep(r.evaluate(scope.keep(r.rlib.Rf_lang1(r.rlib.Rf_install(b"embedded_refusal"))), r.methods))
    said = {name: strings_from_r(r, r.rlib.VECTOR_ELT(values, i)) for i, name in enumerate(_REFUSAL)}
    tensors = {name: np.array(texts if name == "condition" else texts[0], object) for name, texts in said.items()}
    code = tensors.pop("code").item()
    if code is not None:
        tensors["code"] = np.array(int(code))
    return foreign_error(Frame(FrameType.ERROR, 0, tensors), "r")
