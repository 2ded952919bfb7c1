"""Registries: names to things, one level deep, extended by entry points of third-party packages.

A package adds, say, a method by declaring in its `pyproject.toml`:

    [project.entry-points."peo_bench.methods"]
    my-method = "my_package.my_module:MyMethod"

Built-in entries are import strings too, so listing names imports nothing heavy.
"""

from __future__ import annotations

import importlib
import re
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Generic, TypeVar, cast

from peo_bench.errors import UsageError, unknown

if TYPE_CHECKING:
    pass

T = TypeVar("T")
NAME = re.compile(r"^[a-z0-9][a-z0-9._-]{0,63}$")


def check_name(what: str, name: str) -> str:
    """Return `name` if it is safe as a file and registry name, else raise `UsageError`."""
    if not NAME.match(name):
        raise UsageError(f"{what} {name!r} is not a valid name: use a-z, 0-9, '.', '_' and '-', at most 64 characters")
    return name


class Registry(Generic[T]):
    """Names of one group of things; values are objects or "module:attribute" strings loaded on first use."""

    def __init__(self, what: str, group: str, builtin: dict[str, str] | None = None) -> None:
        """`what` is the singular noun for messages, `group` the entry-point group."""
        self.what = what
        self.group = group
        self._entries: dict[str, T | str] = dict(builtin or {})
        self._discovered = False

    def add(self, name: str, value: T | str) -> None:
        """Register `value`; a second, different value under one name is an error."""
        check_name(self.what, name)
        known = self._entries.get(name, value)
        if known is not value and not isinstance(known, str):
            raise UsageError(f"{self.what} {name!r} is registered twice: {known!r} and {value!r}")
        self._entries[name] = value

    def names(self) -> list[str]:
        """Return every known name, sorted."""
        self._discover()
        return sorted(self._entries)

    def get(self, name: str) -> T:
        """Return the thing called `name`, importing it if needed; unknown names get "did you mean"."""
        if name not in self._entries:
            self._discover()
        if name not in self._entries:
            raise unknown(self.what, name, self.names(), see=f"peo-bench list {self.what}s")
        value = self._entries[name]
        if isinstance(value, str):
            module, _, attribute = value.partition(":")
            value = getattr(importlib.import_module(module), attribute)
            self._entries[name] = value
        return cast(T, value)

    def _discover(self) -> None:
        if self._discovered:
            return
        self._discovered = True
        for point in entry_points(group=self.group):
            if point.name in self._entries:
                raise UsageError(
                    f"{self.what} {point.name!r} of {point.value} is already taken: rename the entry point"
                )
            self.add(point.name, point.value)
