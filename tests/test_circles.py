"""No module of a package imports itself by way of others; imports for types and inside functions count too."""

import ast
import gc
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = {"lore": ROOT, "pipeline": ROOT, "flows": ROOT, "lore_datasets": ROOT / "datasets"}
NOT_YET: set[str] = set()
"""Packages that still have circles; nothing may join them."""


def modules(package: str, root: Path) -> dict[str, Path]:
    """Module name -> file of one package."""
    out = {}
    for path in sorted((root / package).rglob("*.py")):
        parts = path.relative_to(root).with_suffix("").parts
        out[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return out


def parsed(path: Path) -> ast.Module:
    """The syntax tree of a file, made while no garbage is collected: what a collection runs may parse too, and CPython
    3.11 then loses count of its depth (python/cpython#106905)."""
    gc.disable()
    try:
        return ast.parse(path.read_text())
    finally:
        gc.enable()


def imports(name: str, path: Path, known: set[str]) -> set[str]:
    """Modules among ``known`` that the file imports anywhere: at its top, inside functions, for types alone."""
    package = name if path.name == "__init__.py" else name.rpartition(".")[0]
    out = set()
    for node in ast.walk(parsed(path)):
        if isinstance(node, ast.Import):
            out |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                above = package.split(".")[: len(package.split(".")) - node.level + 1]
                base = ".".join([*above, base] if base else above)
            names = {f"{base}.{alias.name}" for alias in node.names}
            out |= (names & known) | ({base} if names - known else set())
    return (out & known) - {name}


def circles(graph: dict[str, set[str]]) -> list[list[str]]:
    """Strongly connected sets of more than one module (Tarjan 1972), each sorted."""
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    found: list[list[str]] = []

    def visit(node: str) -> None:
        index[node] = low[node] = len(index)
        stack.append(node)
        for other in sorted(graph[node]):
            if other not in index:
                visit(other)
            if other in stack:
                low[node] = min(low[node], low[other])
        if low[node] == index[node]:
            at = stack.index(node)
            members, stack[at:] = stack[at:], []
            if len(members) > 1:
                found.append(sorted(members))

    for node in sorted(graph):
        if node not in index:
            visit(node)
    return found


def graph_of(package: str, root: Path) -> dict[str, set[str]]:
    """Who imports whom inside one package."""
    known = modules(package, root)
    return {name: imports(name, path, set(known)) for name, path in known.items()}


@pytest.mark.parametrize("package", sorted(PACKAGES))
def test_no_module_imports_itself_by_way_of_others(package):
    found = circles(graph_of(package, PACKAGES[package]))
    if package in NOT_YET:
        assert found, f"{package} has no circle any more: take it out of NOT_YET"
    else:
        assert not found, found


def test_a_circle_is_found_wherever_the_import_stands(tmp_path):
    (tmp_path / "p").mkdir()
    (tmp_path / "p/__init__.py").write_text("")
    (tmp_path / "p/a.py").write_text("from p import b\n")
    (tmp_path / "p/b.py").write_text("def f():\n    from .c import d\n")
    (tmp_path / "p/c.py").write_text("from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import p.a\n")
    (tmp_path / "p/d.py").write_text("import p.a\n")
    assert circles(graph_of("p", tmp_path)) == [["p.a", "p.b", "p.c"]]
