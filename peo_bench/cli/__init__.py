"""The command line. Nothing here imports torch; commands import what they need when they run."""

from __future__ import annotations

import io
import logging
import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.text import Text

from peo_bench import __version__
from peo_bench.errors import DiskFull, PeoBenchError, UsageError, one_line, printable
from peo_bench.files.room import disk_full, is_disk_full, place_of
from peo_bench.resources import cache_dir as cache_dir

app = typer.Typer(
    name="peo-bench",
    help="Which alignment method gives the best trade-off between helpful and harmless, at what price?",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

RunFolder = Annotated[Path, typer.Argument(metavar="RUN", help="A finished run folder.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]


WIDE = 160
"""Columns of a table where the output is no terminal."""


class _PlainConsole(Console):
    """A console on which no text can steer the terminal: names and answers may come from others."""

    def render_str(self, text: str, **options: Any) -> Text:
        """Render a text that was printed, or stands in a table."""
        return super().render_str(printable(text), **options)


def console() -> Console:
    """Return where tables are printed."""
    return _PlainConsole() if sys.stdout.isatty() else _PlainConsole(width=WIDE)


def echo(text: object, err: bool = False) -> None:
    """Print a text, of whomever, as plain lines."""
    typer.echo(printable(str(text)), err=err)


def writable_cache() -> Path:
    """Return the cache folder, made if need be; `UsageError` if it cannot be written."""
    path = cache_dir()
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"the cache {path} cannot be made ({error.strerror}): set XDG_CACHE_HOME") from None
    return path


def version_callback(value: bool) -> None:
    """Print the version and stop."""
    if value:
        typer.echo(f"peo-bench {__version__}")
        raise typer.Exit


@contextmanager
def received(*places: Path) -> Iterator[None]:
    """Turn what breaks inside into one line: folders or files that somebody else may have made do not fit.

    Each file is checked where it is read; this is for what only shows when they are put together. What the system says
    of reading and writing (no permission, no room) passes.
    """
    try:
        yield
    except (PeoBenchError, typer.Exit, typer.Abort):
        raise
    except Exception as error:
        of_the_system = isinstance(error, OSError) and error.errno is not None  # libraries raise OSError for contents
        if of_the_system or is_disk_full(error, Path()) or logging.getLogger("peo_bench").isEnabledFor(logging.INFO):
            raise
        said = " ".join(f"{type(error).__name__}: {error}".split())[:200]
        raise UsageError(
            f"{' or '.join(map(str, places))}: a file is damaged or of another version ({said}): repeat the run or the "
            "command that made it (with --verbose: where this happened)"
        ) from None


@app.callback()
def common(
    version: Annotated[
        bool, typer.Option("--version", callback=version_callback, is_eager=True, help="Print the version.")
    ] = False,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Show the library's log.")] = False,
) -> None:
    """Set up logging for every command."""
    logging.basicConfig(format="%(levelname)s %(name)s: %(message)s", level=logging.INFO if verbose else logging.ERROR)
    logging.getLogger("peo_bench").setLevel(logging.INFO if verbose else logging.WARNING)


def main() -> None:
    """Run the command line; a user's mistake is one line on stderr and exit code 2, never a traceback."""
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # busy threads on shared cores cost an order of magnitude
    warnings.filterwarnings("ignore")
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # not every terminal knows every character
            stream.reconfigure(errors="replace")
    from peo_bench.cli import (  # noqa: F401 - they register
        cache,
        compare,
        convert,
        export,
        fetch,
        figures,
        inspect,
        judge,
        leaderboard,
        pareto,
        report,
        run,
        scorer,
        steer,
        verify,
        winrate,
    )

    try:
        app()
    except PeoBenchError as error:
        typer.echo(f"error: {error}", err=True)
        sys.exit(error.exit_code)
    except Exception as error:
        if logging.getLogger("peo_bench").isEnabledFor(logging.INFO):
            raise
        place = place_of(error)
        path, what = (place, "this file") if place else (Path.cwd(), "a file of this command")
        if is_disk_full(error, path):
            typer.echo(f"error: {disk_full(path, what)}", err=True)
            sys.exit(DiskFull.exit_code)
        if not isinstance(error, OSError):
            raise
        typer.echo(f"error: {one_line(str(error))} (with --verbose: where this happened)", err=True)
        sys.exit(1)
