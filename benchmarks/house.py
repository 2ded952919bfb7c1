"""Print the house's figures per room, and exit with 1 where a total is over its limit.

`Any`: how often a type is given up. `dict of Any`: `dict[str, Any]`, `Mapping[str, Any]` and the names that stand for
them, the records that only their readers know. Functions over 60 lines, and functions of more than 7 parameters outside
the command line (a command's parameters are its options). Imports are not counted.
"""

from __future__ import annotations

import ast
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

LIMITS = {"Any": 189, "dict of Any": 161, "over 60 lines": 0, "over 7 parameters": 0}
LINES, PARAMETERS = 60, 7
PACKAGE = Path(__file__).parents[1] / "peo_bench"
DICTS = {"dict[str, Any]", "Mapping[str, Any]"}


def module_name(path: Path) -> str:
    """Return `peo_bench.room.module`."""
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def aliases(trees: dict[str, ast.Module]) -> dict[tuple[str, str], str]:
    """Return which figure each alias counts for where it is used, by module and name."""
    found = {}
    for module, tree in trees.items():
        for node in tree.body:
            target = node.targets[0] if isinstance(node, ast.Assign) else getattr(node, "target", None)
            value = getattr(node, "value", None)
            if isinstance(target, ast.Name) and value is not None:
                written = ast.unparse(value)
                if written == "Any" or written in DICTS:
                    found[module, target.id] = "Any" if written == "Any" else "dict of Any"
    return found


def names_in(module: str, tree: ast.Module, known: dict[tuple[str, str], str]) -> dict[str, str]:
    """Return the aliases by the names that the module has for them."""
    own = {name: figure for (where, name), figure in known.items() if where == module}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            for item in node.names:
                if figure := known.get((node.module or "", item.name)):
                    own[item.asname or item.name] = figure
    return own


def figures(module: str, tree: ast.Module, known: dict[tuple[str, str], str]) -> Iterator[str]:
    """Yield a figure's name for everything that it counts in the module."""
    own = names_in(module, tree, known)
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load):
            if node.id == "Any":
                yield "Any"
            elif node.id in own:
                yield own[node.id]
        elif isinstance(node, ast.Subscript) and ast.unparse(node) in DICTS:
            yield "dict of Any"
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            arguments = node.args
            taken = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs]
            taken += [one for one in (arguments.vararg, arguments.kwarg) if one]
            if node.end_lineno is not None and node.end_lineno - node.lineno + 1 > LINES:
                print(f"{module}.{node.name}: {node.end_lineno - node.lineno + 1} lines", file=sys.stderr)
                yield "over 60 lines"
            if len([one for one in taken if one.arg not in ("self", "cls")]) > PARAMETERS and ".cli" not in module:
                print(f"{module}.{node.name}: {len(taken)} parameters", file=sys.stderr)
                yield "over 7 parameters"


def main() -> int:
    """Print the table; return 1 if a total is over its limit."""
    trees = {module_name(path): ast.parse(path.read_text(encoding="utf-8")) for path in sorted(PACKAGE.rglob("*.py"))}
    known = aliases(trees)
    rooms: dict[str, Counter[str]] = {}
    for module, tree in trees.items():
        room = module.split(".")[1] if "." in module else module
        rooms.setdefault(room, Counter()).update(figures(module, tree, known))
    total = sum(rooms.values(), Counter())
    print(f"{'room':<12}" + "".join(f"{figure:>20}" for figure in LIMITS))
    for room, counts in [*rooms.items(), ("total", total), ("limit", Counter(LIMITS))]:
        print(f"{room:<12}" + "".join(f"{counts[figure]:>20}" for figure in LIMITS))
    return int(any(total[figure] > limit for figure, limit in LIMITS.items()))


if __name__ == "__main__":
    sys.exit(main())
