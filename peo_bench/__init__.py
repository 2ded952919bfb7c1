"""Compare alignment methods by their trade-off between helpful and harmless, and by its price.

`peo_bench.run`, `peo_bench.plan` and `peo_bench.load` are the Python API, see `peo_bench.api`. It is imported when it
is first used, by name, so that the command line starts light and no room depends on it; `__init__.pyi` has the types.
"""

from importlib import import_module

__version__ = "0.1.0"
__all__ = ["Run", "load", "plan", "run"]


def __getattr__(name: str) -> object:
    """Return a part of the API."""
    if name not in __all__:
        raise AttributeError(f"module 'peo_bench' has no attribute {name!r}")
    return getattr(import_module("peo_bench.api"), name)


def __dir__() -> list[str]:
    """Return the names of the API, imported or not, for completion."""
    return [*globals(), *__all__]
