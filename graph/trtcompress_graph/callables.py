"""`package.module:function` in a config: found and imported from the folder of the config or the Python path."""

from __future__ import annotations

import importlib
import re
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

from .errors import UsageError

_FORM = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*")

_bases: set[Path] = set()
"""Folders that were put on the Python path in this process."""


def is_callable_name(text: str) -> bool:
    """True for `package.module:function`."""
    return _FORM.fullmatch(text) is not None


def load_callable(name: str, base: Path) -> Callable[..., Any]:
    """Import the module, with `base` first on the Python path, and return its function.

    A module that was loaded for another folder, where this one has a module of the same name, is not taken for it.

    Raises:
        UsageError: the module cannot be imported, or has no such function.
    """
    module_name, _, attribute = name.partition(":")
    _put_first(base.resolve())
    try:
        module = importlib.import_module(module_name)
    except Exception as error:
        raise UsageError(
            f"cannot import '{module_name}': {type(error).__name__}: {error}",
            where=name,
            hint=f"the module is looked for in {base} and on the Python path",
        ) from error
    function = getattr(module, attribute, None)
    if not callable(function):
        names = ", ".join(sorted(n for n, v in vars(module).items() if callable(v) and not n.startswith("_")))
        raise UsageError(f"'{module_name}' has no function '{attribute}'", where=name, hint=f"it has: {names}")
    return function  # type: ignore[no-any-return]


def _put_first(base: Path) -> None:
    """Let what lies in `base` go before everything else, before what is loaded under its names too.

    Looks for two files a module that is loaded: some milliseconds.
    """
    _bases.add(base)
    if sys.path[:1] != [str(base)]:
        sys.path[:] = [str(base), *(place for place in sys.path if place != str(base))]
    others = _bases - {base}
    for name, module in list(sys.modules.items()):
        here = "." not in name and ((base / f"{name}.py").is_file() or (base / name).is_dir())
        if here and _homes(module) & others:
            for loaded in [n for n in sys.modules if n == name or n.startswith(f"{name}.")]:
                del sys.modules[loaded]
    importlib.invalidate_caches()


def _homes(module: ModuleType) -> set[Path]:
    """The folders of the Python path that a top-level module was found in: several for one without `__init__.py`."""
    file = getattr(module, "__file__", None)
    places = getattr(module, "__path__", None) or ([file] if file else [])
    return {Path(place).resolve().parent for place in places}
