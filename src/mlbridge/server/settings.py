"""Settings: everything `serve` can be told, checked as one value before anything is opened."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from ..errors import InputError
from .access import Tls, check_address

__all__ = ["Settings"]

_COUNTS = ("max_queue", "max_rows", "max_message_mib", "max_calls", "max_streams")


@dataclass(frozen=True, kw_only=True)
class Settings:
    """How models are served.

    Attributes
    ----------
    grpc, http : str, optional
        Addresses, ``host:port``; port 0 takes a free one. Without any, gRPC listens on 127.0.0.1:8001.
    operator : str, optional
        Address of a second gRPC listener that also takes the repository calls; off by default.
    token, operator_token : str, optional
        What callers show as ``authorization: Bearer …``; without, the environment's ``MLBRIDGE_TOKEN`` and the clients' token.
    tls : tuple or dict, optional
        (key, certificate[, client_authority]): paths of PEM files.
    insecure : bool
        Listen beyond this machine without TLS and token.
    default : dict, optional
        Name to the version that answers where a request names none; else the highest.
    trust : str
        For paths, as in `mlbridge.load`.
    batching : bool
        Whether requests that wait may share a call of the model.
    max_queue, max_rows : int
        Requests that may wait per model; rows of one call.
    max_message_mib, max_calls, max_streams : int
        Limits: a message, calls at once, open streams.
    always_raw : bool
        Answer raw also where the request was typed.
    write_signature : bool
        Write the signature into ModelMetadata's properties.

    Examples
    --------
    >>> Settings.of({}).addresses()
    {'grpc': ('127.0.0.1', 8001)}
    """

    grpc: str | None = None
    http: str | None = None
    operator: str | None = None
    token: str | None = None
    operator_token: str | None = None
    tls: Any = None
    insecure: bool = False
    default: Mapping[str, str] | None = None
    trust: str = "data"
    batching: bool = True
    max_queue: int = 128
    max_rows: int = 1024
    max_message_mib: int = 16
    max_calls: int = 256
    max_streams: int = 32
    always_raw: bool = False
    write_signature: bool = False

    @classmethod
    def of(cls, given: Mapping[str, Any]) -> Settings:
        """Make settings of keywords.

        Raises
        ------
        InputError
            With every name that is no setting and every limit that is not a positive whole number.
        """
        names = [f.name for f in fields(cls)]
        problems = [f"there is no setting {n!r}" for n in given if n not in names]
        problems += [
            f"{n} must be a positive whole number, not {given[n]!r}"
            for n in _COUNTS
            if n in given and (not isinstance(given[n], int) or isinstance(given[n], bool) or given[n] < 1)
        ]
        if problems:
            raise InputError("; ".join(problems), problems=problems, hint=f"the settings are {', '.join(names)}")
        token = given.get("token")
        return cls(**{**given, "tls": Tls.of(given.get("tls")), "token": os.environ.get("MLBRIDGE_TOKEN") if token is None else token})

    def addresses(self) -> dict[str, tuple[str, int]]:
        """Return listener to (host, port); InputError for one that others can reach and nothing protects."""
        named = {"grpc": self.grpc, "http": self.http, "operator": self.operator}
        if self.grpc is None and self.http is None:
            named["grpc"] = "127.0.0.1:8001"
        tokens = {"operator": self.operator_token or self.token}
        return {
            kind: check_address(address, tls=self.tls, token=tokens.get(kind, self.token), insecure=self.insecure)
            for kind, address in named.items()
            if address is not None
        }
