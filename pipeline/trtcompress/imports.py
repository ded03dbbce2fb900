"""The project's modules that a module runs when it is imported, found by reading them: nothing is imported."""

from __future__ import annotations

import ast
import importlib.machinery
import importlib.util
import sysconfig
from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import Path

from trtcompress_graph.errors import ConfigError


def module_file(module: str, search: Sequence[str]) -> Path | None:
    """File of a module, found without importing it or its packages."""
    first, *inner = module.split(".")
    # Other finders know the packages that are installed in editable mode
    spec = importlib.machinery.PathFinder.find_spec(first, search) or _find_otherwise(first)
    for part in inner:
        places = list(spec.submodule_search_locations or ()) if spec is not None else []
        spec = importlib.machinery.PathFinder.find_spec(part, places)
    return Path(spec.origin) if spec is not None and spec.origin and Path(spec.origin).is_file() else None


def _find_otherwise(name: str) -> importlib.machinery.ModuleSpec | None:
    try:
        return importlib.util.find_spec(name)
    except (ValueError, ImportError):  # a loaded module without a spec, such as __main__
        return None


def project_modules(module: str, search: Sequence[str]) -> Iterator[tuple[str, Path]]:
    """The module itself, the packages that it lies in, what they import of the project, and so on.

    Args:
        module: its dotted name.
        search: folders where modules lie, as in `sys.path`.

    Raises:
        ConfigError: a module is not Python.
    """
    todo, seen = [*_with_packages(module)], set[str]()
    while todo:
        name = todo.pop()
        file = None if name in seen else module_file(name, search)
        seen.add(name)
        if file is not None and (name == module or _is_project_file(file)):
            yield name, file
            todo += [part for imported in _imports(name, file) for part in _with_packages(imported)]


def _with_packages(module: str) -> Iterator[str]:
    """`a.b.c` runs the code of `a`, `a.b` and `a.b.c`."""
    parts = module.split(".")
    return (".".join(parts[:end]) for end in range(1, len(parts) + 1))


def _is_project_file(file: Path) -> bool:
    inside = file.resolve()
    installed = {"site-packages", "dist-packages"} & set(inside.parts)
    return not installed and not any(inside.is_relative_to(folder) for folder in _standard_library())


@lru_cache
def _standard_library() -> tuple[Path, ...]:
    return tuple(Path(sysconfig.get_path(name)).resolve() for name in ("stdlib", "platstdlib"))


def _imports(module: str, file: Path) -> Iterator[str]:
    if file.suffix != ".py":
        return
    package = module if file.name == "__init__.py" else module.rpartition(".")[0]
    try:
        tree = ast.parse(file.read_bytes())
    except (SyntaxError, ValueError) as error:
        line = f":{error.lineno}" if isinstance(error, SyntaxError) and error.lineno else ""
        raise ConfigError(f"this is not Python: {error}", where=f"{file}{line}") from None
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            origin = ".".join([*above, *([node.module] if node.module else [])])
            if origin:
                yield origin
                yield from (f"{origin}.{alias.name}" for alias in node.names)
