"""The structure of the package, counted from its imports.

    python -m tests.structure [FOLDER]

A room is a module or a package right under rfjax, an arrow leads from a room to one that it
imports, and a room stands one floor above the highest that it imports. Within a package the rooms
are its files.
"""

import ast
import functools
import statistics
import sys
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

PACKAGE = Path(__file__).parent.parent / "rfjax"

# Files that only hand on a name of a room above, for those who imported it from here before.
HANDED_ON = {"search.config"}

Graph = dict[str, set[str]]


def files(root: Path = PACKAGE) -> dict[str, Path]:
    """The modules by their dotted names after `rfjax.`; a package's name is its __init__."""
    found = {}
    for path in sorted(root.rglob("*.py")):
        parts = path.relative_to(root).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    del found[""]
    return found


@functools.cache
def tree(path: Path) -> ast.Module:
    """The parsed file."""
    return ast.parse(path.read_text())


def outside_functions(node: ast.AST) -> Iterator[ast.AST]:
    """What lies within a node, but not what lies within the functions that it defines."""
    for child in ast.iter_child_nodes(node):
        yield child
        if not isinstance(child, ast.FunctionDef):
            yield from outside_functions(child)


def imported(path: Path, *, late: bool = True) -> Iterator[str]:
    """The dotted names that a file imports; with `late`, within functions as well."""
    for node in ast.walk(tree(path)) if late else outside_functions(tree(path)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


@functools.cache
def imports(root: Path = PACKAGE, *, late: bool = True) -> Graph:
    """The modules of the package that each of its modules imports."""
    modules = files(root)

    def module(name: str) -> str:
        name = name.removeprefix("rfjax.")
        return name if name in modules else name.rpartition(".")[0]

    return {
        own: {
            module(name)
            for name in imported(path, late=late)
            if name.startswith("rfjax.") and module(name) not in ("", own)
        }
        for own, path in modules.items()
        if own not in HANDED_ON
    }


def rooms(graph: Graph) -> Graph:
    """The graph of what lies right under rfjax."""
    joined: Graph = {}
    for own, names in graph.items():
        room = joined.setdefault(own.split(".")[0], set())
        room |= {name.split(".")[0] for name in names} - {own.split(".")[0]}
    return joined


def within(graph: Graph, package: str) -> Graph:
    """The graph of a package's files, but for its __init__, which names them to the outside."""
    inside = {name for name in graph if name.startswith(package + ".")}
    return {name: graph[name] & inside for name in inside}


def floors(graph: Graph) -> dict[str, int]:
    """The floor of each room, from 1; raises `graphlib.CycleError` where there is a circle."""
    found: dict[str, int] = {}
    for room in TopologicalSorter(graph).static_order():
        found[room] = 1 + max((found[below] for below in graph[room]), default=0)
    return found


def lengths(path: Path) -> Iterator[int]:
    """The lines of each function, without its docstring and without functions inside of it."""
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.FunctionDef):
            body = node.body[1:] if ast.get_docstring(node) else node.body
            own = node.end_lineno - body[0].lineno + 1 if body else 1
            inner = [n for n in outside_functions(node) if isinstance(n, ast.FunctionDef)]
            yield own - sum(n.end_lineno - n.lineno + 1 for n in inner)


def comments(path: Path) -> int:
    """The lines that hold a comment."""
    return sum("#" in line and "# fmt:" not in line for line in path.read_text().splitlines())


def table(root: Path = PACKAGE) -> Iterator[str]:
    """The structure as lines of text: the whole, then every package, as it is when it loads."""
    graph, paths = imports(root, late=False), files(root)
    head = "files floors arrows lines functions median longest comments/100"
    widths = [len(word) for word in head.split()]
    yield f"{'':18} {head}"

    def row(name: str, graph: Graph, paths: list[Path]) -> str:
        lines = sum(len(path.read_text().splitlines()) for path in paths)
        sizes = [size for path in paths for size in lengths(path)]
        per_hundred = 100 * sum(map(comments, paths)) / max(lines, 1)
        try:
            highest = max(floors(graph).values(), default=0)
        except CycleError:
            highest = "circle"
        numbers = (
            len(graph), highest, sum(map(len, graph.values())),
            lines, len(sizes), int(statistics.median(sizes or [0])), max(sizes, default=0),
            f"{per_hundred:.1f}",
        )  # fmt: skip
        columns = (f"{n:>{width}}" for n, width in zip(numbers, widths, strict=True))
        return f"{name:18} {' '.join(columns)}"

    yield row("rfjax, its rooms", rooms(graph), list(paths.values()))
    loose = {name: names for name, names in rooms(graph).items() if paths[name].stem == name}
    alone = {name: names & loose.keys() for name, names in loose.items()}
    yield row("loose modules", alone, [paths[name] for name in loose])
    for package in sorted(rooms(graph).keys() - loose.keys()):
        inside = [path for name, path in paths.items() if name.split(".")[0] == package]
        yield row(package, within(graph, package), inside)
    for floor in sorted(set(floors(rooms(graph)).values()), reverse=True):
        on = sorted(room for room, own in floors(rooms(graph)).items() if own == floor)
        yield f"floor {floor:2}: {' '.join(on)}"


if __name__ == "__main__":
    print("\n".join(table(*map(Path, sys.argv[1:]))))
