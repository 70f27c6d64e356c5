"""The command line as people type it. What a command does is imported when it runs."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from pie_daemon.cli import completion, exits

_CLICK_USAGE = 2

app = typer.Typer(
    name="pie",
    help="Serve language models to programs: drop a component into a folder, and it runs.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
config_app = typer.Typer(help="Look at the configuration.", no_args_is_help=True)
app.add_typer(config_app, name="config")

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for programs.")]
Overrides = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[KEY=VALUE]...",
        help="Overrides, as in scheduler.max_batch_tokens=4096 or backend=cuda.",
        autocompletion=completion.keys,
    ),
]
Id = Annotated[
    str, typer.Argument(help="Id, or the start of it.", autocompletion=completion.instances)
]


def run() -> None:
    """Runs the command line of this process and ends it."""
    try:
        app()
    except SystemExit as done:
        # The parser's own code for mistakes; no command of ours uses it.
        sys.exit(exits.USAGE if done.code == _CLICK_USAGE else done.code)


@app.command()
@exits.guarded
def serve(overrides: Overrides = None) -> int:
    """Run the daemon until a signal stops it."""
    from pie_daemon.config import load

    config = load(overrides or []).config
    from pie_daemon.daemon import run_daemon

    return run_daemon(config)


@app.command("run")
@exits.guarded
def run_command(
    target: Annotated[
        str,
        typer.Argument(
            metavar="NAME|PATH",
            help="Program of the inferlet folder, or a .wasm file.",
            autocompletion=completion.programs,
        ),
    ],
    arguments: Annotated[
        list[str] | None,
        typer.Argument(metavar="[-- --KEY VALUE]...", help="Input of the program, key by key."),
    ] = None,
    input_: Annotated[
        str | None, typer.Option("--input", "-i", help="Input as JSON, - (stdin) or @FILE.")
    ] = None,
    daemon: Annotated[bool, typer.Option("--daemon", help="Fail when no daemon runs.")] = False,
    as_json: AsJson = False,
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Configuration of a run without daemon."),
    ] = None,
) -> int:
    """Run a program and print its result; without a daemon, boot one for this run."""
    from pie_daemon.cli.arguments import program_input
    from pie_daemon.cli.run import RunRequest, run_program

    text = program_input(input_, arguments or [])
    return run_program(RunRequest(target, text, daemon, as_json, set_ or []))


@app.command()
@exits.guarded
def ps(as_json: AsJson = False) -> int:
    """List programs that run, and those that ended lately."""
    from pie_daemon.cli.instances import list_instances

    return list_instances(as_json=as_json)


@app.command()
@exits.guarded
def logs(id_: Id, as_json: AsJson = False) -> int:
    """Show the output of a program from its start, until it ends."""
    from pie_daemon.cli.instances import follow_instance

    return follow_instance(id_, as_json=as_json, forward_input=False)


@app.command()
@exits.guarded
def attach(id_: Id, as_json: AsJson = False) -> int:
    """Like logs; each line typed is a message to the program."""
    from pie_daemon.cli.instances import follow_instance

    return follow_instance(id_, as_json=as_json, forward_input=True)


@app.command()
@exits.guarded
def stop(
    ids: Annotated[
        list[str],
        typer.Argument(help="Ids, or starts of them.", autocompletion=completion.instances),
    ],
    reason: Annotated[str, typer.Option(help="Shown in the outcome.")] = "stopped by an operator",
) -> int:
    """End programs; each has ended when this returns."""
    from pie_daemon.cli.instances import stop_instances

    return stop_instances(ids, reason)


@app.command()
@exits.guarded
def status(
    as_json: AsJson = False,
    watch: Annotated[
        float | None,
        typer.Option("--watch", "-w", metavar="SECONDS", min=0.1, help="Look again and again."),
    ] = None,
) -> int:
    """Show the daemon, its page pools, queues and rates; exits with 1 when a model is broken."""
    from pie_daemon.cli.status import show_status

    return show_status(as_json=as_json, watch_s=watch)


@app.command()
@exits.guarded
def inferlets(as_json: AsJson = False) -> int:
    """List the programs that can be run, and why others cannot."""
    from pie_daemon.cli.instances import list_programs

    return list_programs(as_json=as_json)


@config_app.command("show")
@exits.guarded
def config_show(overrides: Overrides = None, as_json: AsJson = False) -> int:
    """Show every key: value, default, where it was set, and what a change needs."""
    from pie_daemon.cli.config import show_config

    return show_config(overrides or [], as_json=as_json)


@app.command()
@exits.guarded
def doctor(overrides: Overrides = None, as_json: AsJson = False) -> int:
    """Check this installation; exits with 1 when something is broken."""
    from pie_daemon.cli.doctor.run import examine

    return examine(overrides or [], as_json=as_json)


@app.command()
@exits.guarded
def version(as_json: AsJson = False) -> int:
    """Show the versions of Pie and of what it stands on."""
    from pie_daemon.cli.versions import show_versions

    return show_versions(as_json=as_json)
