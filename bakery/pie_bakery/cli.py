"""The command `bakery`: create, build and check inferlets."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

if TYPE_CHECKING:
    from pie_bakery.check import Report

USAGE = 64

app = typer.Typer(
    name="bakery",
    help="Make inferlets, the programs that Pie serves.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


@app.command()
def create(
    name: Annotated[Path, typer.Argument(help="Name of the inferlet, or a new folder's path.")],
) -> None:
    """Make a folder with a first program that already runs."""
    from pie_bakery.scaffold import create as scaffold

    for path in scaffold(name):
        typer.echo(f"wrote {path}")
    typer.echo(f"next: bakery build {name}")


@app.command()
def build(
    folder: Annotated[Path, typer.Argument(help="Folder with main.py and pie.toml.")] = Path(),
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="File to write [FOLDER/NAME.wasm].")
    ] = None,
) -> None:
    """Build the component of an inferlet."""
    from rich.console import Console
    from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    from pie_bakery.build import build as build_component

    console = Console(stderr=True)
    columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    started_s = time.monotonic()
    with Progress(
        *columns, console=console, transient=True, disable=not console.is_terminal
    ) as progress:
        progress.add_task(f"building {folder}")
        built = build_component(folder, out)
    size_mb = built.size_bytes / 1e6
    typer.echo(f"{built.path}  {size_mb:.1f} MB  {time.monotonic() - started_s:.1f} s")


@app.command()
def check(
    file: Annotated[Path, typer.Argument(help="A component, FILE.wasm.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as JSON.")] = False,
) -> None:
    """Say whether Pie can serve a file, and what is wrong with it."""
    from pie_bakery.check import check as check_file
    from pie_bakery.errors import UsageError

    try:
        report = check_file(file)
    except OSError as error:
        raise UsageError(f"{file}: {error.strerror}") from None
    typer.echo(_as_json(report) if as_json else _as_text(report))
    if not report.ok:
        raise typer.Exit(1)


def _as_json(report: Report) -> str:
    import msgspec

    fields = {
        "path": str(report.path),
        "ok": report.ok,
        "problems": report.problems,
        "size_bytes": report.size_bytes,
        "manifest": msgspec.to_builtins(report.manifest),
        "imports": report.imports,
        "exports": report.exports,
    }
    return json.dumps(fields, indent=2)


def _as_text(report: Report) -> str:
    read = report.manifest
    who = "no manifest: named after its file"
    if read is not None:
        who = f"{read.inferlet.name} {read.inferlet.version}  {read.inferlet.description}".rstrip()
    lines = [f"{report.path}  {report.size_bytes / 1e6:.1f} MB", f"  {who}"]
    lines += [f"  problem: {problem}" for problem in report.problems]
    lines.append("  ok" if report.ok else f"  {len(report.problems)} problem(s)")
    return "\n".join(lines)


def main() -> NoReturn:
    """Runs the command: 0 done, 1 a problem in the author's files, 64 usage, 69 tool missing."""
    from pie_bakery.errors import BakeryError

    try:
        code = app(standalone_mode=False) or 0
    except BakeryError as error:
        typer.echo(f"bakery: {error}", err=True)
        code = error.exit_code
    except (KeyboardInterrupt, typer.Abort):
        code = 130
    except Exception as error:  # noqa: BLE001 - the edge of the program
        code = _usage_error(error)
    sys.exit(code)


def _usage_error(error: Exception) -> int:
    """Click's own errors show themselves; anything else is a defect and keeps its traceback."""
    show = getattr(error, "show", None)
    if show is None:
        raise error
    show()
    return USAGE
