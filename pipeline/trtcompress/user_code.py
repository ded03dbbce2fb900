"""The files of a user's function that go along with a served model."""

from __future__ import annotations

import ast
import sys
from collections.abc import Sequence
from pathlib import Path

from trtcompress_graph.errors import ConfigError

from .imports import imported_by, is_project_file, module_file

_OURS = "trtcompress"


def check_defined(name: str, base: Path, key: str) -> None:
    """Does the module of `package.module:function` have such a name? It is read, not imported.

    Raises:
        ConfigError: it has not.
    """
    module, _, function = name.partition(":")
    file = module_file(module, (str(base), *sys.path))
    if file is None:
        raise ConfigError(f"there is no module '{module}'", where=key, hint=f"it is looked for in {base} and installed")
    names = _names(file)
    if names is not None and function not in names:
        there = ", ".join(sorted(one for one in names if not one.startswith("_"))) or "nothing"
        raise ConfigError(f"'{module}' has no function '{function}'", where=f"{key}: {name}", hint=f"it has: {there}")


def _names(file: Path) -> set[str] | None:
    """What a module binds at any place outside of functions; None where that cannot be read."""
    if file.suffix != ".py":
        return None
    try:
        todo: list[ast.AST] = [ast.parse(file.read_bytes())]
    except (SyntaxError, ValueError):
        return None  # said with its line where its digest is made
    found: set[str] = set()
    while todo:
        for node in ast.iter_child_nodes(todo.pop()):
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
                found.add(node.name)
            elif isinstance(node, ast.alias):
                if node.name == "*":
                    return None
                found.add((node.asname or node.name).partition(".")[0])
            elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
                found.add(node.id)
            else:
                todo.append(node)
    return found


def code_of(name: str, base: Path, sources: Sequence[str], key: str) -> dict[str, Path]:
    """Modules of the project that `package.module:function` imports, and the files that `sources` names.

    What is installed does not go along: the server has to have it.

    Returns:
        Files by the place that they have from the folder of the config, or where the module's name puts them.

    Raises:
        ConfigError: there is no such module, it needs trtcompress, or a glob matches nothing.
    """
    module = name.partition(":")[0]
    found = imported_by(module, (str(base), *sys.path))
    if any(one.partition(".")[0].startswith(_OURS) for one in (*found.modules, *found.packages)):
        raise ConfigError(
            f"'{module}' imports {_OURS}, which a server does not have",
            where=f"{key}: {name}",
            hint="put the function into a module that imports nothing but what the server has",
        )
    code = {_place(one, file): file for one, file in found.modules.items() if is_project_file(file)}
    for pattern in sources:
        try:
            matches = [path for path in sorted(base.glob(pattern)) if path.is_file()]
        except (ValueError, NotImplementedError) as error:  # an absolute one, or none
            hint = f"give it relative to {base}"
            raise ConfigError(f"'{pattern}': {error}", where="triton.sources", hint=hint) from None
        if not matches:
            raise ConfigError(
                f"'{pattern}' matches no file", where="triton.sources", hint=f"it is looked for in {base}"
            )
        if ".." in Path(pattern).parts:
            raise ConfigError(
                f"'{pattern}' lies outside of the folder of the config, and could not be put beside the function",
                where="triton.sources",
                hint=f"copy these files into {base}",
            )
        code |= {path.relative_to(base).as_posix(): path for path in matches}
    return code


def _place(module: str, file: Path) -> str:
    folder = module if file.name == "__init__.py" else module.rpartition(".")[0]
    return "/".join([*folder.split("."), file.name]) if folder else file.name
