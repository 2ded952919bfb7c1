"""Errors a user may see, each with its exit code (0 complete, 1 internal error).

A message says what is wrong, where, what would be accepted and what to type next, in one line.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class PeoBenchError(Exception):
    """Base of every error that the command line reports without a traceback."""

    exit_code = 1


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
