"""CSV for spreadsheets, which take some texts for formulas."""

from __future__ import annotations

import re

FORMULA = re.compile(r"[=+@\t\r]|-(?![\d.,\s\[\]()±×%e−–-]*$)")
"""What a spreadsheet would take for a formula: beginnings, and a minus before what is no number or interval."""


def inert(text: str) -> str:
    """Return `text` as a cell that no spreadsheet computes: with an apostrophe in front, where it begins as a formula.

    >>> inert("=1+1"), inert("-2+3"), inert("-0.5 [-0.7, -0.3]"), inert("soup")
    ("'=1+1", "'-2+3", '-0.5 [-0.7, -0.3]', 'soup')
    """
    return f"'{text}" if FORMULA.match(text) else text


def as_it_was(text: str) -> str:
    """Invert `inert`.

    >>> as_it_was(inert("=1+1")), as_it_was("plain")
    ('=1+1', 'plain')
    """
    return text[1:] if text[:1] == "'" and inert(text[1:]) != text[1:] else text
