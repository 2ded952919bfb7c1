"""Registries: names to things, one level deep, extended by entry points of third-party packages.

A package adds, say, a method by declaring in its `pyproject.toml`:

    [project.entry-points."peo_bench.methods"]
    my-method = "my_package.my_module:MyMethod"

Built-in entries are import strings too, so listing names imports nothing heavy.
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Callable, Collection, Mapping
from importlib.metadata import entry_points
from typing import Generic, TypeVar, cast

from peo_bench.errors import UsageError, unknown

T = TypeVar("T")
NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")


def check_name(what: str, name: str) -> str:
    """Return `name` if it is safe as a file and registry name, else raise `UsageError`.

    Names are checked where they are given and, since a folder may come from somebody else, where they are read.
    """
    if not NAME.fullmatch(name):
        raise UsageError(f"{what} {name!r} is not a valid name: use a-z, 0-9, '.', '_' and '-', at most 64 characters")
    return name


class Registry(Generic[T]):
    """Names of one group of things; values are objects or "module:attribute" strings loaded on first use."""

    def __init__(
        self,
        what: str,
        group: str,
        builtin: Mapping[str, T | str] | None = None,
        *,
        expected: str,
        valid: Callable[[object], bool],
        reserved: Collection[str] = (),
    ) -> None:
        """`what` is the singular noun for messages, `group` the entry-point group.

        `expected` says what the things are ("a subclass of Method"), `valid` whether one is. No thing can have a name
        that is `reserved`: it means something else where these are named.
        """
        self.what = what
        self.group = group
        self.expected = expected
        self._valid = valid
        self._reserved = frozenset(reserved)
        self._entries: dict[str, T | str] = dict(builtin or {})
        self._discovered = False

    def add(self, name: str, value: T | str) -> None:
        """Register `value`; a second, different value under one name is an error, also where the first is built in."""
        check_name(self.what, name)
        if name in self._reserved:
            raise UsageError(f"{self.what} {name!r}, {value}: this name means something else: rename it")
        known = self._entries.setdefault(name, value)
        if known != value and not self._same(name, known, value):
            raise UsageError(f"{self.what} {name!r} is registered twice, as {known} and {value}: rename one of them")

    def _same(self, name: str, one: T | str, other: T | str) -> bool:
        """Tell whether both stand for one thing; what cannot be loaded (yet: an import in a circle) stands for none."""
        try:
            return self._load(name, one) == self._load(name, other)
        except UsageError:
            return False

    def names(self) -> list[str]:
        """Return every known name, sorted."""
        self._discover()
        return sorted(self._entries)

    def get(self, name: str) -> T:
        """Return the thing called `name`, importing it if needed; unknown names get "did you mean"."""
        self._discover()
        if name not in self._entries:
            raise unknown(self.what, name, self.names(), see=f"peo-bench list {self.what}s")
        return self._load(name, self._entries[name])

    def _load(self, name: str, entry: T | str) -> T:
        """Return what `entry` stands for; raise `UsageError` if there is no such thing or it is not as expected."""
        thing: object = entry
        if isinstance(entry, str):
            module, _, attribute = entry.partition(":")
            try:
                thing = getattr(importlib.import_module(module), attribute)
            except (ImportError, AttributeError) as error:
                raise UsageError(
                    f"{self.what} {name!r}: {entry} cannot be loaded ({error}): mend or remove its package"
                ) from error
        if not self._valid(thing):
            raise UsageError(f"{self.what} {name!r}: {entry} is not {self.expected}")
        return cast(T, thing)

    def _discover(self) -> None:
        if self._discovered:
            return
        for point in entry_points(group=self.group):
            self.add(point.name, point.value)
        self._discovered = True
