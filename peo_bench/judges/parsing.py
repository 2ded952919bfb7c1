"""Read a judge's reply. A reply without exactly one verdict is unparseable (NaN), never a tie."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

A_BETTER, TIE, B_BETTER = 1.0, 0.5, 0.0
UNPARSEABLE = math.nan
_DECORATION = r"[\s*_`#>\"'()\[\].!]*"
_LINE = re.compile(
    rf"{_DECORATION}verdict{_DECORATION}[:=]{_DECORATION}(?:answer\s+)?(a|b|tie){_DECORATION}", re.IGNORECASE
)
_VALUES = {"a": A_BETTER, "b": B_BETTER, "tie": TIE}


@dataclass(frozen=True)
class Verdict:
    """`value`: 1.0 the first answer shown is better, 0.0 the second, 0.5 a tie, NaN unparseable; with its reason."""

    value: float
    reason: str


def parse_reply(reply: str) -> Verdict:
    r"""Return the verdict that a line of its own states; what stands before it is the reason.

    A reply with two different verdicts contradicts itself and is unparseable.

    >>> parse_reply("A is clearer.\nVerdict: A")
    Verdict(value=1.0, reason='A is clearer.')
    >>> parse_reply("A, I think").value
    nan
    >>> parse_reply("Verdict: A\nVerdict: B").value
    nan
    """
    lines = reply.strip().splitlines()
    stated = [(i, found.group(1).lower()) for i, line in enumerate(lines) if (found := _LINE.fullmatch(line))]
    if len({name for _, name in stated}) != 1:
        return Verdict(UNPARSEABLE, "")
    return Verdict(_VALUES[stated[0][1]], "\n".join(lines[: stated[0][0]]).strip())


def swapped(value: float) -> float:
    """Return the verdict with the answers exchanged; NaN stays NaN."""
    return 1.0 - value
