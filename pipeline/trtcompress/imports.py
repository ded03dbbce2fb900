"""What a module runs when it is imported, found by reading it: nothing is imported."""

from __future__ import annotations

import ast
import importlib.machinery
import importlib.util
import sys
import sysconfig
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
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


@dataclass(frozen=True, slots=True)
class Imported:
    """What a module imports, itself included.

    Attributes:
        modules: files of the project's modules, by name.
        packages: first names of what else is imported and is not Python's own.
    """

    modules: Mapping[str, Path]
    packages: frozenset[str]


def imported_by(module: str, search: Sequence[str]) -> Imported:
    """The module itself, the packages that it lies in, what they import of the project, and so on.

    Args:
        module: its dotted name.
        search: folders where modules lie, as in `sys.path`.

    Raises:
        ConfigError: a module is not Python.
    """
    todo, seen, found, others = [*_with_packages(module)], set[str](), dict[str, Path](), set[str]()
    while todo:
        name = todo.pop()
        if name in seen:
            continue
        seen.add(name)
        file = module_file(name, search)
        own = file is not None and is_project_file(file)
        if not own:
            others.add(name.partition(".")[0])
        if file is not None and (own or name == module):
            found[name] = file
            todo += [part for imported in _imports(name, file) for part in _with_packages(imported)]
    own_names = {name.partition(".")[0] for name, file in found.items() if is_project_file(file)}
    return Imported(found, frozenset(others - own_names - sys.stdlib_module_names))


def _with_packages(module: str) -> Iterator[str]:
    """`a.b.c` runs the code of `a`, `a.b` and `a.b.c`."""
    parts = module.split(".")
    return (".".join(parts[:end]) for end in range(1, len(parts) + 1))


def is_project_file(file: Path) -> bool:
    """Whether a module belongs neither to Python nor to an installed package."""
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
