"""Every error mlbridge raises, and the status codes they carry.

    MlbridgeError                       .code .hint .runtime
    ├── InputError(ValueError)              the caller's values; .problems lists all
    ├── SignatureError(ValueError)          models or stages that do not fit together
    ├── ArtifactError(ValueError)           a file: malformed, tampered, too large, too new
    │   └── UntrustedArtifactError              it would execute code
    ├── ConversionError                     not expressible, or the outputs differ; .report
    ├── UnsupportedError(NotImplementedError)   this runtime lacks that
    ├── NotFoundError(LookupError)          no such model, version or alias
    ├── AccessError(PermissionError)        who are you, or you may not
    ├── UnavailableError                    the machine: no such device or provider
    │   └── MissingDependencyError(ImportError) with the exact install command
    ├── InferenceError(RuntimeError)        the model failed inside run()
    ├── BridgeError(ConnectionError)        a worker or a link
    │   ├── WorkerDiedError
    │   └── BridgeTimeoutError(TimeoutError)
    ├── CancelledError                      the caller cancelled
    ├── OverloadedError                     queue full: try later
    └── ClosedError(RuntimeError)           use after close or after a fork

This module imports nothing of mlbridge. Everything else raises from here.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import IntEnum
from typing import ClassVar

__all__ = [
    "AccessError",
    "ArtifactError",
    "BridgeError",
    "BridgeTimeoutError",
    "CancelledError",
    "ClosedError",
    "ConversionError",
    "InferenceError",
    "InputError",
    "MissingDependencyError",
    "MlbridgeError",
    "NotFoundError",
    "OverloadedError",
    "SignatureError",
    "StatusCode",
    "UnavailableError",
    "UnsupportedError",
    "UntrustedArtifactError",
    "UnverifiedConversionWarning",
    "WorkerDiedError",
]


class StatusCode(IntEnum):
    """The canonical status codes of gRPC, by name and number.

    References
    ----------
    gRPC, "Status codes and their use in gRPC" (statuscodes.md).
    """

    OK = 0
    CANCELLED = 1
    UNKNOWN = 2
    INVALID_ARGUMENT = 3
    DEADLINE_EXCEEDED = 4
    NOT_FOUND = 5
    ALREADY_EXISTS = 6
    PERMISSION_DENIED = 7
    RESOURCE_EXHAUSTED = 8
    FAILED_PRECONDITION = 9
    ABORTED = 10
    OUT_OF_RANGE = 11
    UNIMPLEMENTED = 12
    INTERNAL = 13
    UNAVAILABLE = 14
    DATA_LOSS = 15
    UNAUTHENTICATED = 16


class MlbridgeError(Exception):
    """The root: catch it to catch all of mlbridge's errors.

    Parameters
    ----------
    message : str
        What was wrong and what was expected.
    hint : str, optional
        What to do about it.
    runtime : str, optional
        The name of the runtime it came from.
    code : StatusCode, optional
        Overrides the class's own code.
    """

    default_code: ClassVar[StatusCode] = StatusCode.UNKNOWN
    code: StatusCode
    hint: str | None
    runtime: str | None

    def __init__(
        self,
        message: str = "",
        *,
        hint: str | None = None,
        runtime: str | None = None,
        code: StatusCode | None = None,
    ) -> None:
        super().__init__(message)
        self.code = type(self).default_code if code is None else code
        self.hint = hint
        self.runtime = runtime

    @property
    def message(self) -> str:
        """What was wrong, without the hint."""
        return str(self.args[0]) if self.args else ""

    def __str__(self) -> str:
        return f"{self.message}\n  hint: {self.hint}" if self.hint else self.message


class InputError(MlbridgeError, ValueError):
    """The values do not fit the signature; the caller can fix it.

    Attributes
    ----------
    problems : tuple of str
        Every problem found, not just the first.
    """

    default_code = StatusCode.INVALID_ARGUMENT

    def __init__(self, message: str = "", *, problems: Iterable[str] = (), **context) -> None:
        super().__init__(message, **context)
        self.problems: tuple[str, ...] = tuple(problems) or ((message,) if message else ())


class SignatureError(MlbridgeError, ValueError):
    """Models, stages or signatures do not fit together; the caller can fix it.

    Attributes
    ----------
    problems : tuple of str
        Every problem found, not just the first.
    """

    default_code = StatusCode.INVALID_ARGUMENT

    def __init__(self, message: str = "", *, problems: Iterable[str] = (), **context) -> None:
        super().__init__(message, **context)
        self.problems: tuple[str, ...] = tuple(problems) or ((message,) if message else ())


class ArtifactError(MlbridgeError, ValueError):
    """A file is malformed, tampered with, too large or too new; its maker can fix it."""

    default_code = StatusCode.DATA_LOSS


class UntrustedArtifactError(ArtifactError):
    """Loading the file would execute code; the caller decides. Never crosses a wire."""

    default_code = StatusCode.PERMISSION_DENIED


class ConversionError(MlbridgeError):
    """The model has no exact ONNX form, or its ONNX form answers differently.

    Attributes
    ----------
    report : object or None
        The verification report, where a comparison was made.
    """

    default_code = StatusCode.UNIMPLEMENTED

    def __init__(self, message: str = "", *, report: object | None = None, **context) -> None:
        super().__init__(message, **context)
        self.report = report


class UnsupportedError(MlbridgeError, NotImplementedError):
    """This runtime or framework lacks that ability; choose another one."""

    default_code = StatusCode.UNIMPLEMENTED


class NotFoundError(MlbridgeError, LookupError):
    """There is no such file, model, version or alias; the caller can fix it."""

    default_code = StatusCode.NOT_FOUND


class AccessError(MlbridgeError, PermissionError):
    """The caller is unknown or may not do that; an operator can fix it."""

    default_code = StatusCode.PERMISSION_DENIED


class UnavailableError(MlbridgeError):
    """The machine lacks a device, a provider or a program; its owner can fix it."""

    default_code = StatusCode.UNAVAILABLE


class MissingDependencyError(UnavailableError, ImportError):
    """A package or program is not installed; the hint is the command that installs it."""


class InferenceError(MlbridgeError, RuntimeError):
    """The model failed inside run(); the model's engine or its author can fix it."""

    default_code = StatusCode.INTERNAL


class BridgeError(MlbridgeError, ConnectionError):
    """A worker process or a link failed; trying again may help."""

    default_code = StatusCode.UNAVAILABLE


class WorkerDiedError(BridgeError):
    """The worker process died while it held the request; the model lives on in a new one."""


class BridgeTimeoutError(BridgeError, TimeoutError):
    """The deadline passed before the answer came."""

    default_code = StatusCode.DEADLINE_EXCEEDED


class CancelledError(MlbridgeError):
    """The caller cancelled the call."""

    default_code = StatusCode.CANCELLED


class OverloadedError(MlbridgeError):
    """The queue is full; try again later."""

    default_code = StatusCode.RESOURCE_EXHAUSTED


class ClosedError(MlbridgeError, RuntimeError):
    """The model was closed, or belongs to the process this one was forked from."""

    default_code = StatusCode.FAILED_PRECONDITION


class UnverifiedConversionWarning(UserWarning):
    """A converted model was loaded that nothing could be compared with."""
