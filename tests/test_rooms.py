"""Imports run downwards only: a room knows those below it, and no caller."""

import ast
from pathlib import Path

ROOT = Path(__file__).parents[1]
# From the lowest up. A room's configurations are framework-free, and anyone's to read.
ROOMS = (
    "config",
    "parsing",
    "files",
    "stored",
    "programs",
    "places",
    "partition",
    "hosts",
    "ops",
    "elements",
    "mixers",
    "layers",
    "models",
    "objectives",
    "data",
    "trees",
    "telemetry",
    "runs",
    "training",
    "report",
    "aot",
    "decoding",
    "loaded_classifier",
    "loading",
    "interop",
    "a program",
)
MODULES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
    for folder in ("spade_jax", "pretrain", "finetune", "benchmarks")
    for path in sorted((ROOT / folder).rglob("*.py"))
}


def imports(node):
    """Modules of ours that a piece of code imports, also within functions."""
    for part in ast.walk(node):
        if isinstance(part, ast.Import):
            names = [alias.name for alias in part.names]
        elif isinstance(part, ast.ImportFrom):
            inside = [f"{part.module}.{alias.name}" for alias in part.names]
            names = [name if name in MODULES else part.module for name in inside]
        else:
            continue
        yield from (name for name in names if name in MODULES)


def room(name):
    """Of a module; what a command does is no part of the room that the command is named after."""
    package, *inside = name.split(".")
    if package != "spade_jax" or {"__main__", "program"} & set(inside):
        return "a program"
    return inside[0] if inside else None


def is_configuration(name):
    return name.rpartition(".")[2].endswith("config")


def test_imports_run_downwards():
    upwards = [
        f"{name} imports {other}"
        for name, path in MODULES.items()
        if room(name) is not None
        for other in imports(ast.parse(path.read_text()))
        if ROOMS.index(room(other)) > ROOMS.index(room(name)) and not is_configuration(other)
    ]
    assert upwards == []


def test_no_module_imports_itself_by_way_of_others():
    """At its top: what a function imports, and what is for types alone, comes later or never."""
    graph = {}
    for name, path in MODULES.items():
        top = [node for node in ast.parse(path.read_text()).body if not isinstance(node, ast.If)]
        graph[name] = {
            other
            for node in top
            if isinstance(node, ast.Import | ast.ImportFrom)
            for other in imports(node)
        }
    done: set[str] = set()

    def visit(name, above):
        assert name not in above, f"{' -> '.join(above)} -> {name}"
        if name not in done:
            for other in sorted(graph[name]):
                visit(other, (*above, name))
            done.add(name)

    for name in graph:
        visit(name, ())
