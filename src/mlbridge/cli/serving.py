"""What `mlbridge serve` can be told: its options, and how their words become the settings of `mlbridge.serve`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from .. import errors

__all__ = ["options", "settings_of", "versions_of"]

_File = click.Path(exists=True, dir_okay=False)
_Count = click.IntRange(min=1)


def options(command: Callable) -> Callable:
    """Give a command the options of `serve`; their defaults are those of `mlbridge.server.Settings`."""
    for option in reversed(
        [
            click.option("--grpc", help="Address of the gRPC service; 127.0.0.1:8001 where no address is given at all."),
            click.option("--http", help="Address of the REST service, e.g. 127.0.0.1:8000."),
            click.option("--operator", help="Address of a second gRPC listener that also loads and unloads models; off unless given."),
            click.option(
                "--default",
                "defaults",
                multiple=True,
                metavar="NAME=VERSION",
                help="What answers where none is asked for; else the highest.",
            ),
            click.option("--trust", default="data", help="For the models' files."),
            click.option("--batching/--no-batching", default=True, help="Let requests that wait share a call of the model."),
            click.option("--max-rows", type=_Count, default=1024, help="Rows of one call of a model."),
            click.option("--max-queue", type=_Count, default=128, help="Requests that may wait, a model; more are refused."),
            click.option("--max-calls", type=_Count, default=256, help="Calls at once."),
            click.option("--max-streams", type=_Count, default=32, help="Streams open at once."),
            click.option("--max-message-mib", type=_Count, default=16, help="Largest request."),
            click.option("--token-file", type=_File, help="A file whose text clients must send as bearer token; else $MLBRIDGE_TOKEN."),
            click.option("--operator-token-file", type=_File, help="The same for --operator; else the clients' token."),
            click.option("--tls-cert", type=_File, help="PEM file of the server's certificate chain."),
            click.option("--tls-key", type=_File, help="PEM file of its private key."),
            click.option("--tls-client-ca", type=_File, help="PEM file of the authority that clients' certificates must be from (mTLS)."),
            click.option("--insecure", is_flag=True, help="Allow an address beyond this machine without TLS and token."),
            click.option("--always-raw", is_flag=True, help="Answer raw also where the request was typed, as Triton does."),
            click.option("--write-signature", is_flag=True, help="Write the signature into ModelMetadata's properties."),
            click.option("--grace-s", type=click.FloatRange(min=0), default=30.0, help="Seconds that accepted calls have after SIGTERM."),
        ]
    ):
        command = option(command)
    return command


def settings_of(given: dict[str, Any]) -> dict[str, Any]:
    """Turn the options' words into keywords of `mlbridge.server.run`.

    Parameters
    ----------
    given : dict
        Values by option name, as click hands them over.

    Raises
    ------
    InputError
        If options that belong together were not given together, or a default is not NAME=VERSION.
    """
    settings = dict(given)
    key, certificate, authority = (settings.pop(n) for n in ("tls_key", "tls_cert", "tls_client_ca"))
    if (certificate is None) != (key is None):
        raise errors.InputError("--tls-cert and --tls-key go together", hint="pass the paths of both PEM files")
    if authority is not None and certificate is None:
        raise errors.InputError("--tls-client-ca needs --tls-cert and --tls-key", hint="clients' certificates are shown within TLS")
    if settings["operator"] is None and settings["operator_token_file"] is not None:
        raise errors.InputError("--operator-token-file needs --operator", hint="--operator 127.0.0.1:8002")
    settings["tls"] = None if certificate is None else (key, certificate, *([authority] if authority else []))
    for name in ("token", "operator_token"):
        file = settings.pop(f"{name}_file")
        settings[name] = None if file is None else Path(file).read_text("utf-8").strip()
    settings["default"] = dict(_default(text) for text in settings.pop("defaults"))
    return settings


def _default(text: str) -> tuple[str, str]:
    name, sign, version = text.partition("=")
    if not (name and sign and version):
        raise errors.InputError(f"--default {text!r} is not NAME=VERSION", hint="write --default churn=1")
    return name, version


def versions_of(models: tuple[str, ...]) -> dict[str, dict[str, str]]:
    """Read NAME=PATH and NAME@VERSION=PATH into name to version to path.

    Examples
    --------
    >>> versions_of(("churn=a.mlb", "churn@2=b.mlb"))
    {'churn': {'1': 'a.mlb', '2': 'b.mlb'}}
    """
    table: dict[str, dict[str, str]] = {}
    for text in models:
        name, sign, path = text.partition("=")
        name, _, version = name.partition("@")
        if not sign:
            raise errors.InputError(f"{text!r} is not NAME=PATH", hint="write churn=churn.mlb")
        if (version or "1") in table.setdefault(name, {}):
            raise errors.InputError(
                f"{name} has version {version or '1'} twice", hint=f"write {name}@2=…; a name without a version is version 1"
            )
        table[name][version or "1"] = path
    return table
