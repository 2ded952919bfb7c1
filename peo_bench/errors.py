"""Errors a user may see, each with its exit code (0 complete, 1 internal error).

A message says what is wrong, where, what would be accepted and what to type next, in one line.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable

UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\u061c\u2028-\u202e\u2066-\u2069]+")
"""What would end the line, steer the terminal or turn the direction of writing."""
BEGINNING, END = 1500, 500
"""Characters of a message that are kept at both ends: names and values in it may be of any length."""


class PeoBenchError(Exception):
    """Base of every error that the command line reports without a traceback."""

    exit_code = 1

    def __init__(self, message: str) -> None:
        """Say `message`, made one line of moderate length, whatever was quoted in it."""
        super().__init__(one_line(message))


def printable(text: str) -> str:
    r"""Return `text` without what steers a terminal, its line breaks and tabs kept.

    >>> printable("a\x1b]0;title\x07\nb\u202e")
    'a ]0;title\nb '
    """
    return re.sub(UNPRINTABLE, lambda found: "".join(c for c in found[0] if c in "\n\t") or " ", text)


def one_line(text: str) -> str:
    r"""Return `text` without what ends a line or steers a terminal, its middle left out where it is very long.

    >>> one_line("unknown method 'a\n\x1b[2Jb'"), len(one_line("x" * 10_000))
    ("unknown method 'a [2Jb'", 2005)
    """
    plain = UNPRINTABLE.sub(" ", text).strip()
    return plain if len(plain) <= BEGINNING + END else f"{plain[:BEGINNING]} ... {plain[-END:]}"


class UsageError(PeoBenchError):
    """The user asked for something that does not exist or cannot be done; nothing was changed."""

    exit_code = 2


class JobFailed(PeoBenchError):
    """One job could not produce its artefact; jobs that do not need it go on."""

    exit_code = 3


class DiskFull(PeoBenchError):
    """A file could not be written for lack of room: what was finished is kept, nothing else can be."""


class Diverged(JobFailed):
    """A loss, weight or score stopped being finite."""


class Locked(PeoBenchError):
    """Another process owns the run folder or the artefact."""

    exit_code = 4


def unknown(what: str, name: str, known: Iterable[str], see: str = "") -> UsageError:
    """Build the error for an unknown `name`, with the nearest known names ("did you mean").

    >>> str(unknown("method", "pe", ["peo", "soup"]))
    "unknown method 'pe': did you mean peo? Known: peo, soup"
    """
    names = sorted(known)
    near = difflib.get_close_matches(name, names, n=3, cutoff=0.5)
    hint = f"did you mean {' or '.join(near)}? " if near else ""
    tail = f" (see `{see}`)" if see else ""
    return UsageError(f"unknown {what} {name!r}: {hint}Known: {', '.join(names) or 'none'}{tail}")
