"""The command line: commands are imported when they are called, so that `--help` is quick."""

from __future__ import annotations

import contextlib
import importlib.metadata
import shlex
import sys
import warnings
from collections.abc import Sequence
from importlib import import_module
from typing import Any

import click

from maebench.errors import MaebenchError, plain, unknown
from maebench.pretraining import stopping
from maebench.report.streams import as_text, as_written

# name -> (module, one line of help); a test compares the line with the command's own
COMMANDS = {
    "run": ("maebench.cli.run", "Pretrain one encoder, run the evaluations, print the table."),
    "pretrain": ("maebench.cli.run", "Pretrain one encoder."),
    "compare": ("maebench.cli.compare", "Compare ways of pretraining over several seeds."),
    "modality": (
        "maebench.cli.modality",
        "Compare masking of words with masking of pictures.",
    ),
    "eval": ("maebench.cli.evaluate", "Run one evaluation on models."),
    "table": ("maebench.cli.table", "Print results as one table."),
    "masks": ("maebench.cli.masks", "Show masking strategies: a picture and statistics."),
    "speed": ("maebench.cli.speed", "Measure how fast pretraining is, phase by phase."),
    "data": ("maebench.cli.data", "Look at a data set: counts, sizes, copies, a picture."),
    "cache": (
        "maebench.cli.cache",
        "Show what is kept between commands to save time; remove it.",
    ),
    "clean": (
        "maebench.cli.clean",
        "Show what can go of results and caches, with sizes; remove it.",
    ),
    "features": ("maebench.cli.features", "Write a model's features to a file."),
    "export": ("maebench.cli.export", "Write a run's weights in the files of others."),
    "list": ("maebench.cli.show", "List what can be chosen, with every option."),
    "plugins": (
        "maebench.cli.plugins",
        "List installed plugins and why any failed; check them; begin one.",
    ),
    "doctor": (
        "maebench.cli.doctor",
        "Look for what would stop a run here, or for damage in results.",
    ),
}
GROUP = "maebench.commands"  # entry points of third-party commands
INTERRUPTED = 130  # what a shell gives for Ctrl-C
GO_ON = ("run", "pretrain", "compare", "modality", "eval")  # where they stopped


class Lazy(click.Group):
    """Reads its commands' names from a table and from metadata; imports one when it is called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Ours in the order of a working day, then third parties'."""
        return [*COMMANDS, *sorted(_third_party().keys() - COMMANDS.keys())]

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        """The command, imported."""
        if name in COMMANDS:
            return getattr(import_module(COMMANDS[name][0]), name.replace("-", "_") + "_command")
        found = _third_party().get(name)
        if found is None:
            return None
        try:
            command = found.load()
            if not isinstance(command, click.Command):
                raise TypeError(f"a click command is wanted, got {command!r}")
            return command
        except KeyboardInterrupt:
            raise
        # not only an Exception: a plugin that ends the interpreter at import does so in silence
        except BaseException as error:
            package = found.dist.name if found.dist else "unknown"
            raise MaebenchError(
                f"command {name!r} of {package} does not load: {type(error).__name__}: {error}"
            ) from error

    def invoke(self, ctx: click.Context) -> Any:
        """Runs a command; an exit that is not ours, such as a plugin's, is an error.

        Another package's command ends with whatever exit code it chooses.
        """
        try:
            return super().invoke(ctx)
        except BaseException as error:
            own = ctx.invoked_subcommand in COMMANDS
            if isinstance(error, EOFError):  # which click would take for Ctrl-D
                raise MaebenchError(f"a file ended before its end: {error}") from error
            if isinstance(error, Exception | KeyboardInterrupt) or not own:
                raise
            from maebench.plugins import ended_by

            text = " ".join(str(error).split())
            raise (
                ended_by(error)
                or MaebenchError(
                    f"{ctx.invoked_subcommand} ended by {type(error).__name__}: {text}"
                )
            ) from error

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """The command, or the nearest match of one that does not exist."""
        name = args[0] if args else ""
        if name and not name.startswith("-") and name not in self.list_commands(ctx):
            raise MaebenchError(unknown("command", name, self.list_commands(ctx)))
        if name in COMMANDS:
            ctx.color = True  # we print none, and click would cut a name's out without a word
        else:
            ctx.with_resource(as_written())  # another package's command may have colours
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The commands' lines, without importing any."""
        rows = [(name, help) for name, (_, help) in COMMANDS.items()]
        rows += [
            (name, f"(from {entry.dist.name})" if entry.dist else "")
            for name, entry in sorted(_third_party().items())
            if name not in COMMANDS
        ]
        with formatter.section("Commands"):
            formatter.write_dl(rows)


def _third_party() -> dict[str, importlib.metadata.EntryPoint]:
    return {e.name: e for e in importlib.metadata.entry_points(group=GROUP)}


@click.group(cls=Lazy, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="maebench")
def cli() -> None:
    """Which way of masking learns the better representation, and is the difference real?

    Start with:  maebench run --masking random --ratio 0.75
    """


def main(arguments: list[str] | None = None) -> None:
    """Runs the command line: 1 for a bad value, 2 for an unknown flag or a missing argument."""
    with as_text():
        _main(arguments)


def _main(arguments: list[str] | None) -> None:
    warnings.showwarning = _one_line_warning
    # what PIL warns of names no file; images that are damaged are counted and named by us
    warnings.filterwarnings("ignore", module=r"PIL\.")
    try:
        with stopping.listening():
            code = cli.main(arguments, "maebench", standalone_mode=False)
        sys.exit(code if isinstance(code, int) else 0)
    except click.NoSuchOption as error:
        _fail(error.format_message(), 2)
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.ctx.get_help() if error.ctx else "")
        sys.exit(0)
    except click.MissingParameter as error:
        _fail(error.format_message(), 2)
    except click.BadParameter as error:
        _fail(error.format_message(), 1)
    except click.ClickException as error:
        _fail(error.format_message(), error.exit_code)
    except MaebenchError as error:
        _fail(str(error), 1)
    except (KeyboardInterrupt, click.Abort) as error:
        stopped = error if isinstance(error, stopping.Stopped) else error.__cause__
        given = sys.argv[1:] if arguments is None else arguments
        if isinstance(stopped, stopping.Stopped):
            _fail(_stopped(str(stopped), given), stopped.code)
        _fail(_stopped("Ctrl-C", given), INTERRUPTED)
    except BrokenPipeError:  # `maebench table | head`
        sys.stderr.close()
        sys.exit(0)


def _stopped(by: str, arguments: Sequence[str]) -> str:
    """What is said where a signal ended a command, with the command that goes on."""
    again = shlex.join(["maebench", *arguments])
    goes_on = bool(arguments) and arguments[0] in GO_ON
    return f"stopped by {by}" + (f"; what is done is kept, and goes on by: {again}" * goes_on)


def _fail(message: str, code: int) -> None:
    with contextlib.suppress(OSError):  # the terminal may be gone, as SIGHUP says
        click.echo("Error: " + plain(" ".join(message.split())), err=True)
    sys.exit(code)


def _one_line_warning(message: Warning | str, *_: Any, **__: Any) -> None:
    click.echo("Warning: " + plain(" ".join(str(message).split())), err=True)
