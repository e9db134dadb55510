"""The application: its options in common, and how it ends."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from setrep import __version__
from setrep.config import merge
from setrep.errors import InputError

app = typer.Typer(
    help="Learn, verify and search representations of collections.",
    add_completion=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

JSON = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]
Run = Annotated[Path, typer.Argument(help="Run directory of `setrep train`.", metavar="RUN")]
# Not `envvar=`: SETREP_DATA would then win over the data root that a config or a run names.
DataRoot = Annotated[
    str | None,
    typer.Option(help="Where data sets lie; else SETREP_DATA.", metavar="DIR"),
]


def main() -> None:
    """Run the command line; bad usage and bad input end with one line and exit status 2."""
    try:
        code = app(standalone_mode=False)
        sys.stdout.flush()  # here, where a reader that left is still met with grace
    except (typer.Abort, KeyboardInterrupt):
        print("Interrupted.", file=sys.stderr)
        code = 130
    except BrokenPipeError:  # the reader of our output left, as `head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 0
    except Exception as error:
        message = one_line(error)
        from setrep.reports.tables import printable  # it imports rich, which few commands need

        print(f"Error: {printable(message)}", file=sys.stderr)
        code = 2
    sys.exit(code if isinstance(code, int) else 0)


def one_line(error: Exception) -> str:
    """Return the message of a mistake of the caller's; anything else goes on as it came."""
    if isinstance(error, InputError):
        return str(error)
    if not hasattr(error, "format_message"):  # typer's usage errors have no public base class
        raise error
    message = " ".join(error.format_message().split()).rstrip(".").replace("Value error, ", "")
    context = getattr(error, "ctx", None)
    return f"{message}. See `{context.command_path} --help`." if context else message


def settings(**named: Any) -> dict[str, Any]:
    """Turn `section__key=value` into nested settings, leaving out what was not given."""
    out: dict[str, Any] = {}
    for name, value in named.items():
        if value is not None:
            for part in reversed(name.split("__")):
                value = {part: value}
            out = merge(out, value)
    return out


@app.callback(invoke_without_command=True)
def version(
    context: typer.Context,
    show: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
) -> None:
    """Learn, verify and search representations of collections."""
    if show:
        print(f"setrep {__version__}")
        raise typer.Exit
    if context.invoked_subcommand is None:
        print(context.get_help())


def numbers(text: str | None) -> list[int] | None:
    """Read sizes separated by commas."""
    if text is None:
        return None
    try:
        return [int(part) for part in text.split(",")]
    except ValueError as error:
        raise InputError(
            f"--sizes takes whole numbers and commas, as in 1,5,10; found '{text}'."
        ) from error
