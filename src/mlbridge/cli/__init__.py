"""The command line: convert, inspect, predict, verify, check, serve, bench, doctor.

Rooms: `tables` (files of rows), `findings` (what `doctor` finds), `serving` (what `serve` can be told). Thin: every command calls the library and prints. Exit codes: 0, 2 caller, 65 file, 69 machine, 70 model.
"""

from __future__ import annotations

import functools
import json
import platform
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

import mlbridge

from .. import errors, plugins
from ..pipeline import Pipeline
from ..pipeline.checking import check_saved
from .benching import measure, show
from .findings import findings
from .serving import options, settings_of, versions_of
from .tables import CHUNK_ROWS, Writer, chunks, read_table, rows_of, typed

__all__ = ["main"]

_EXITS = (
    (errors.UnavailableError, 69),
    (errors.ArtifactError, 65),
    (errors.NotFoundError, 65),
    (errors.ConversionError, 70),
    (errors.InferenceError, 70),
    (errors.BridgeError, 70),
    (errors.InputError, 2),
    (errors.SignatureError, 2),
    (errors.UnsupportedError, 2),
)


def _guarded(command: Callable) -> Callable:
    @functools.wraps(command)
    def run(*args: Any, **kwargs: Any) -> Any:
        try:
            return command(*args, **kwargs)
        except errors.MlbridgeError as exc:
            click.secho(f"{type(exc).__name__}: {exc.message}", fg="red", err=True)
            if exc.hint:
                click.echo(f"  hint: {exc.hint}", err=True)
            sys.exit(next((code for kind, code in _EXITS if isinstance(exc, kind)), 70))
        except BrokenPipeError:
            sys.stderr.close()
            sys.exit(0)

    return run


def _loading(command: Callable) -> Callable:
    """Give a command the options of `load`."""
    for option in (
        click.option("--trust", default="data", show_default=True, help="data, audited, code, or sha256:<digest>."),
        click.option("--via", type=click.Choice(["auto", "onnx", "native"]), default="auto", show_default=True, help="The route demanded."),
        click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda, cuda:1."),
        click.option(
            "--sample", type=click.Path(exists=True, dir_okay=False), help="A table of real rows (CSV, Parquet, Arrow, JSON lines)."
        ),
        click.option("--trusted-type", "trusted_types", multiple=True, help="For skops files: a type name you accept; may be repeated."),
    ):
        command = option(command)
    return command


def _open(
    source: str, *, trust: str, via: str, device: str, sample: str | None, trusted_types: tuple[str, ...], **more: Any
) -> mlbridge.Model:
    table = read_table(Path(sample)) if sample else None
    return mlbridge.load(source, trust=trust, via=via, device=device, sample=table, trusted_types=trusted_types, **more)


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(mlbridge.__version__, prog_name="mlbridge")
def main() -> None:
    """One model interface over Python, R and Scala: convert, check, chain, serve.

    \b
    Examples:
      mlbridge inspect churn.mlb
      mlbridge predict churn.mlb customers.csv -o scores.csv --keep customer_id
      mlbridge convert model.rds model.mlb
      mlbridge doctor
    """


@main.command()
@click.argument("source")
@click.argument("target", type=click.Path())
@click.option("--overwrite", is_flag=True, help="Replace an existing package.")
@click.option("--samples", default=64, show_default=True, help="Golden rows to keep; 0 keeps none.")
@click.option("--folder", is_flag=True, help="Write a folder instead of one file.")
@click.option("--verify", type=click.Choice(["auto", "require", "never"]), default="auto", show_default=True)
@_loading
@_guarded
def convert(source: str, target: str, overwrite: bool, samples: int, folder: bool, verify: str, **loading: Any) -> None:
    """Convert SOURCE to ONNX, verify it, and write the package TARGET.

    \b
    Examples:
      mlbridge convert forest.rds forest.mlb
      mlbridge convert model.joblib model.mlb --trust code --sample rows.csv
    """
    loading["via"] = "onnx"
    with _open(source, verify=verify, **loading) as model:
        written = model.save(target, samples=samples, overwrite=overwrite, form="folder" if folder else "file")
        click.echo(str(model.report) if model.report is not None else "not verified")
        click.echo(f"wrote {target} with {written} golden rows")


@main.command()
@click.argument("source")
@click.option("--json", "as_json", is_flag=True, help="The signature and route as JSON.")
@click.option("--svg", type=click.Path(), help="Draw a pipeline into this file.")
@click.option("--html", type=click.Path(), help="Write the description as an HTML page.")
@_loading
@_guarded
def inspect(source: str, as_json: bool, svg: str | None, html: str | None, **loading: Any) -> None:
    """Show what SOURCE is: signature, route, device, trust, parity.

    \b
    Examples:
      mlbridge inspect churn.mlb
      mlbridge inspect credit.mlb --svg credit.svg
    """
    with _open(source, **loading) as model:
        if svg:
            if not isinstance(model, Pipeline):
                raise errors.UnsupportedError(f"{source} is not a pipeline", hint="only pipelines are drawn")
            Path(svg).write_text(model.svg(), "utf-8")
        if html:
            Path(html).write_text(f"<!doctype html><meta charset=utf-8><title>{model.name}</title>{model._repr_html_()}", "utf-8")
        if as_json:
            d = model.describe()
            click.echo(
                json.dumps(
                    {
                        "name": d.name,
                        "signature": d.signature.to_dict(),
                        "route": d.route.runtime,
                        "why": d.route.why,
                        "device": d.device,
                        "trust": d.route.trust,
                    },
                    ensure_ascii=False,
                )
            )
        else:
            click.echo(repr(model.describe()))


@main.command()
@click.argument("source")
@click.argument("table", type=click.Path(exists=True, dir_okay=False))
@click.option(
    "-o", "--output", type=click.Path(), help="CSV, Parquet, Arrow or JSON lines by its ending; CSV to standard output otherwise."
)
@click.option("--keep", multiple=True, help="A column of the input to carry through; may be repeated.")
@click.option("--outputs", multiple=True, help="Only these outputs.")
@click.option("--chunk", default=CHUNK_ROWS, show_default=True, help="Rows a step.")
@_loading
@_guarded
def predict(
    source: str, table: str, output: str | None, keep: tuple[str, ...], outputs: tuple[str, ...], chunk: int, **loading: Any
) -> None:
    """Answer for every row of TABLE (CSV, Parquet, Arrow, JSON lines).

    \b
    Examples:
      mlbridge predict churn.mlb customers.parquet -o scores.parquet --keep id
      mlbridge predict churn.mlb customers.csv | head
    """
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn

    path = Path(table)
    with _open(source, **loading) as model:
        total = rows_of(path)
        columns = (*Progress.get_default_columns()[:1], BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        with (
            Progress(*columns, console=Console(stderr=True), transient=True, disable=not sys.stderr.isatty()) as bar,
            Writer(output) as writer,
        ):
            task = bar.add_task("predict", total=total)
            for part in chunks(path, chunk):
                absent = [k for k in keep if k not in part.column_names]
                if absent:
                    raise errors.InputError(f"--keep: the table has no column {absent[0]!r}", hint=f"it has {', '.join(part.column_names)}")
                answer = model.predict(typed(part, model), outputs=list(outputs) or None)
                for i, k in enumerate(keep):
                    answer = answer.add_column(i, k, part.column(k))
                writer.write(answer)
                bar.advance(task, part.num_rows)


@main.command()
@click.argument("source")
@click.argument("table", type=click.Path(exists=True, dir_okay=False), required=False)
@_loading
@_guarded
def verify(source: str, table: str | None, **loading: Any) -> None:
    """Compare a model with its source, or with its golden samples; exit 70 if it differs.

    \b
    Examples:
      mlbridge verify churn.mlb
      mlbridge verify model.joblib rows.csv --trust code
    """
    if table and not loading["sample"]:
        loading["sample"] = table
    loading["via"] = "onnx" if loading["via"] == "auto" else loading["via"]
    with _open(source, verify="require", **loading) as model:
        click.echo(str(model.report) if model.report is not None else "the model is ONNX itself: there is nothing to compare it with")


@main.command()
@click.argument("pipeline")
@click.argument("stage")
@click.argument("new")
@click.option("--strict", is_flag=True, help="Exit 70 where it fits but its signature or its answers changed.")
@_guarded
def check(pipeline: str, stage: str, new: str, strict: bool) -> None:
    """Say whether the package NEW still fits as STAGE of PIPELINE; exit 2 if it does not. No other stage is loaded.

    \b
    Examples:
      mlbridge check credit.mlb fraud fraud-v7.mlb
      mlbridge check credit.mlb fraud fraud-v7.mlb --strict
    """
    found = check_saved(pipeline, stage, new)
    click.echo(repr(found))
    if not found.fits:
        sys.exit(2)
    if strict and (found.differences or found.changed_rows):
        sys.exit(70)


@main.command(context_settings={"show_default": True})
@click.argument("models", nargs=-1, required=True)
@options
@_guarded
def serve(models: tuple[str, ...], **given: Any) -> None:
    """Serve MODELS, each NAME=PATH or NAME@VERSION=PATH, on the Open Inference Protocol.

    \b
    Examples:
      mlbridge serve churn=a.mlb fraud@2=b.mlb --grpc 127.0.0.1:8001 --http 127.0.0.1:8000
      mlbridge serve churn=a.mlb churn@2=b.mlb --default churn=1
      mlbridge serve churn=a.mlb --operator 127.0.0.1:8002 --operator-token-file operator.token
      mlbridge serve churn=a.mlb --grpc 0.0.0.0:8001 --tls-cert cert.pem --tls-key key.pem --token-file token
      mlbridge serve churn=a.mlb --grpc 0.0.0.0:8001 --tls-cert cert.pem --tls-key key.pem --tls-client-ca clients.pem
    """
    try:
        from ..server import run
    except ImportError as exc:
        raise plugins.missing(exc) from exc
    table, settings = versions_of(models), settings_of(given)

    def on_ready(server: Any) -> None:
        click.echo(f"serving {', '.join(table)} on " + " ".join(f"{k}={v}" for k, v in server.addresses.items()), err=True)

    sys.exit(run(table, on_ready=on_ready, **settings))


@main.command()
@click.argument("source")
@click.option("--batch", "batches", multiple=True, type=int, default=(1, 64, 1024), show_default=True)
@click.option("--seconds", default=1.0, show_default=True, help="A batch size.")
@click.option("--svg", type=click.Path(), help="Draw the ratios into this file.")
@click.option("--json", "as_json", type=click.Path(), help="Write the figures into this file.")
@_loading
@_guarded
def bench(source: str, batches: tuple[int, ...], seconds: float, svg: str | None, as_json: str | None, **loading: Any) -> None:
    """Time a model against its bare engine, on its own golden rows or on --sample.

    \b
    Examples:
      mlbridge bench churn.mlb --batch 1 --batch 256
      mlbridge bench credit.mlb --svg credit-bench.svg
    """
    with _open(source, **loading) as model:
        found = measure(model, batches, seconds)
    show(found)
    if svg:
        Path(svg).write_text(found.chart(), "utf-8")
    if as_json:
        Path(as_json).write_text(json.dumps(found.to_dict(), indent=1) + "\n", "utf-8")


@main.command()
@click.option("--json", "as_json", is_flag=True)
@_guarded
def doctor(as_json: bool) -> None:
    """Say what is installed, what is missing, and the command that installs it."""
    from rich.console import Console
    from rich.markup import escape  # `[onnx-gpu]` is no style
    from rich.table import Table

    rows = list(findings())
    if as_json:
        click.echo(json.dumps([dict(zip(("what", "found", "install"), r)) for r in rows]))
        return
    table = Table(
        "", "found", "to install it", title=f"mlbridge {mlbridge.__version__} on Python {platform.python_version()}, {platform.platform()}"
    )
    for what, found, hint in rows:
        table.add_row(what, f"[green]{escape(found)}[/]" if found else "[yellow]not found[/]", "" if found else escape(hint))
    Console().print(table)
