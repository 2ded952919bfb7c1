"""How numbers and names are written, the same in the page and in Markdown."""

from __future__ import annotations

import re
from collections.abc import Sequence

from peo_bench.results.folder import number

ABSENT = "–"
_NAMES = {
    "peo": "PEO", "modpo": "MODPO", "mod": "MOD", "morlhf": "MORLHF", "ric": "RiC", "sacpo": "SACPO",
    "expo": "ExPO", "dpo": "DPO", "sft": "SFT", "map": "MAP", "raco": "RACO", "mgda": "MGDA", "cagrad": "CAGrad",
    "lw": "LW", "rps": "RPS", "amopo": "AMoPO", "gdpo": "GDPO", "mo": "MO", "grpo": "GRPO", "maxmin": "MaxMin",
    "tchebycheff": "Tchebycheff", "lagrangian": "Lagrangian", "bonesoup": "BoneSoup",
    "slerp": "SLERP", "liti": "LITI", "ties": "TIES", "dare": "DARE", "della": "DELLA",
}  # fmt: skip
_WHOLE = {"fw-merge": "FW-Merging", "model-stock": "Model Stock"}


def method_name(method: str) -> str:
    """Return the name the literature uses for ``method``.

    >>> method_name("peo-expo"), method_name("expo.modpo"), method_name("soup@my-run"), method_name("reference")
    ('PEO-ExPO', 'ExPO.MODPO', 'soup@my-run', 'reference policy')
    >>> method_name("mo-grpo"), method_name("amopo"), method_name("best-of-n.soup"), method_name("rps.fw-merge")
    ('MO-GRPO', 'AMoPO', 'best-of-n.soup', 'RPS.FW-Merging')
    """
    if method == "reference":
        return "reference policy"
    name, at, run = method.partition("@")
    pieces = [
        _WHOLE.get(piece) or "-".join(_NAMES.get(part, part) for part in piece.split("-")) for piece in name.split(".")
    ]
    return ".".join(pieces) + at + run


def decimal(value: object, digits: int = 2, *, signed: bool = False) -> str:
    """Write a number with a true minus sign, or a dash where there is none.

    >>> decimal(-0.126), decimal(3, signed=True), decimal(None)
    ('−0.13', '+3.00', '–')
    """
    parsed = number(value)
    if parsed is None:
        return ABSENT
    text = f"{parsed:{'+' if signed else ''},.{digits}f}"
    if float(text.replace(",", "")) == 0:
        text = text.replace("-", "").replace("+", "")
    return text.replace("-", "−")


def at_most(value: object, bound: object) -> str:
    """Write a KL, or its upper bound where that is all that is known.

    >>> at_most(1.26, None), at_most(None, 0.636)
    ('1.3', '≤ 0.6')
    """
    return decimal(value, 1) if number(bound) is None else f"≤ {decimal(bound, 1)}"


def interval(ends: Sequence[float | None], *, signed: bool = False) -> str:
    """Write a value with its 95 % interval; with a third digit where two would round a bound to zero.

    >>> interval((0.5, 0.25, 0.75))
    '0.50 [0.25, 0.75]'
    >>> interval((0.02, 0.004, 0.04))
    '0.020 [0.004, 0.040]'
    """
    if ends[0] is None:
        return ABSENT
    digits = 3 if any(value is not None and 0 < abs(value) < 0.005 for value in ends) else 2
    value, low, high = (decimal(value, digits, signed=signed and i == 0) for i, value in enumerate(ends))
    return f"{value} [{low}, {high}]"


_MARKUP = re.compile(r"""
    [\\`*<>|~&]                              # emphasis, code, HTML, tables, entities
    | (?<![A-Za-z0-9])_ | _(?![A-Za-z0-9])   # emphasis; within a word an underscore is itself
    | (?<=])[(\[:] | !(?=\[)                  # links and images; an interval's brackets are themselves
    | ^\#+(?=\s) | ^[+-](?=[\s-]) | (?<=^\d)[.)](?=\s)  # headings, lists, rules at the start
    """, re.VERBOSE)  # fmt: skip


def markdown_text(text: str) -> str:
    r"""Escape a text that comes from data for one line or cell of Markdown, which it can then neither leave nor style.

    >>> print(markdown_text("<b>a</b> | [x](y)\n# arc_easy +0.10 [0.05, 0.15]"))
    \<b\>a\</b\> \| [x]\(y) # arc_easy +0.10 [0.05, 0.15]
    """
    line = " ".join(str(text).split())
    return _MARKUP.sub(r"\\\g<0>", line)


def markdown_fence(text: str) -> str:
    """Return a fence for a block of code that no line of ``text`` can close."""
    return "`" * max(3, 1 + max((len(run) for run in re.findall("`+", text)), default=0))


def listing(names: list[str]) -> str:
    """Join names as a sentence does.

    >>> listing(["a", "b", "c"])
    'a, b and c'
    """
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)


def balance(weight: float | None, first: str, second: str) -> str:
    """Say in words which preference was asked for.

    >>> balance(0.7, "helpful", "harmless")
    '70 % helpful, 30 % harmless'
    """
    if weight is None:
        return "no preference asked"
    return f"{weight * 100:.3g} % {first}, {(1 - weight) * 100:.3g} % {second}"


def fact(value: object) -> str:
    """Write an entry of the run's circumstances.

    >>> fact(3.14159), fact([]), fact(None), fact(["a", "b"])
    ('3.1', 'none', 'unknown', 'a, b')
    """
    if isinstance(value, list | tuple):
        return ", ".join(str(item) for item in value) or "none"
    if value is None:
        return "unknown"
    return f"{value:,.1f}" if isinstance(value, float) else str(value)
