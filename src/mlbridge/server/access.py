"""Who may call what: one table over every RPC of the services' descriptors, and what is not in it is denied.

Also where a server may listen, and its TLS. REST uses the same roles.
"""

from __future__ import annotations

import hmac
import ipaddress
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from ..errors import AccessError, InputError, StatusCode
from ..runtimes.wire import inference_pb2, mlbridge_pb2

__all__ = ["TABLE", "Access", "Tls", "check_address", "split_address"]

# role of each RPC: `open` needs no token, `use` the server's token, `operate` the operator's, on the operator's listener
_ROLES = {
    "ServerLive": "open",
    "ServerReady": "open",
    "ModelReady": "use",
    "ServerMetadata": "use",
    "ModelMetadata": "use",
    "ModelInfer": "use",
    "ModelStreamInfer": "use",
    "ModelConfig": "use",
    "ModelStatistics": "use",
    "Describe": "use",
    "RepositoryIndex": "operate",
    "RepositoryModelLoad": "operate",
    "RepositoryModelUnload": "operate",
}
_FOREIGN = {  # grpcio's own services
    "/grpc.health.v1.Health/Check": "open",
    "/grpc.health.v1.Health/Watch": "open",
    "/grpc.health.v1.Health/List": "open",
    "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo": "use",
    "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo": "use",
}


def _table() -> dict[str, str]:
    table = dict(_FOREIGN)
    for file in (inference_pb2, mlbridge_pb2):
        for service in file.DESCRIPTOR.services_by_name.values():
            for method in service.methods:
                table[f"/{service.full_name}/{method.name}"] = _ROLES.get(method.name, "denied")
    return table


TABLE: Mapping[str, str] = _table()


class Access:
    """Decides about one call.

    Parameters
    ----------
    token : str, optional
        What callers must show as ``authorization: Bearer …``; None asks for nothing.
    operator_token : str, optional
        What an operator must show on the operator's listener; None means `token`.
    operates : bool
        Whether this is the operator's listener.
    """

    def __init__(self, token: str | None = None, *, operator_token: str | None = None, operates: bool = False) -> None:
        self._use = _expected(token)
        self._operate = _expected(operator_token) or self._use
        self._operates = operates
        self.asks = self._use is not None or self._operate is not None

    def check(self, role: str, authorization: str | bytes | None) -> None:
        """Raise AccessError unless the call is allowed.

        Raises
        ------
        AccessError
            UNAUTHENTICATED without the right token, PERMISSION_DENIED where no token would help.
        """
        if role == "open":
            return
        if role == "use":
            wanted = self._use
        elif role == "operate" and self._operates:
            wanted = self._operate
        else:
            raise AccessError("this call is not offered here")
        if wanted is None:
            return
        shown = authorization.encode() if isinstance(authorization, str) else authorization or b""
        if not hmac.compare_digest(shown, wanted):
            raise AccessError("no token, or a wrong one", code=StatusCode.UNAUTHENTICATED)


def _expected(token: str | None) -> bytes | None:
    if token is None:
        return None
    if len(token) < 8 or not token.isascii() or not token.isprintable():
        raise InputError(
            "a token needs at least 8 printable ASCII characters", hint="python -c 'import secrets; print(secrets.token_urlsafe(32))'"
        )
    return b"Bearer " + token.encode()


class Tls(NamedTuple):
    """Paths of PEM files: private key, certificate chain, and the authority of clients' certificates for mutual TLS."""

    key: str
    certificate: str
    client_authority: str | None = None

    @classmethod
    def of(cls, value: Any) -> Tls | None:
        """Read (key, certificate[, client_authority]) or a mapping with these names."""
        if value is None or isinstance(value, Tls):
            return value
        try:
            return cls(**value) if isinstance(value, Mapping) else cls(*map(str, value))
        except TypeError as exc:
            raise InputError("tls is (key, certificate) or (key, certificate, client_authority): paths of PEM files") from exc

    def read(self) -> tuple[bytes, bytes, bytes | None]:
        """Read the files."""
        try:
            return (
                Path(self.key).read_bytes(),
                Path(self.certificate).read_bytes(),
                Path(self.client_authority).read_bytes() if self.client_authority else None,
            )
        except OSError as exc:
            raise InputError(f"tls: {exc.filename}: {exc.strerror}") from exc


def split_address(address: str) -> tuple[str, int]:
    """Part `host:port`; `[::1]:8001` for IPv6.

    Examples
    --------
    >>> split_address("127.0.0.1:8001")
    ('127.0.0.1', 8001)
    """
    host, colon, port = address.rpartition(":")
    if not colon or not port.isascii() or not port.isdigit() or int(port) > 65535 or not host:
        raise InputError(f"address {address!r}: expected host:port", hint="127.0.0.1:8001; port 0 takes any free one")
    return host.strip("[]"), int(port)


def check_address(address: str, *, tls: Tls | None, token: str | None, insecure: bool) -> tuple[str, int]:
    """Part an address, and refuse one that others can reach unless it is protected or `insecure` was said.

    Raises
    ------
    InputError
        If it is not an address, or reaches beyond this machine without TLS and a token (or client certificates).
    """
    host, port = split_address(address)
    if insecure or _local(host):
        return host, port
    if tls is None or (token is None and tls.client_authority is None):
        raise InputError(
            f"{address} can be reached from other machines: that needs TLS and a token, or TLS and client certificates",
            hint="pass tls= and token=, listen on 127.0.0.1, or say insecure=True",
        )
    return host, port


def _local(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
