"""`package.module:function` in a config: found and imported from the folder of the config or the Python path."""

from __future__ import annotations

import importlib
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from .errors import UsageError

_FORM = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*")


def is_callable_name(text: str) -> bool:
    """True for `package.module:function`."""
    return _FORM.fullmatch(text) is not None


def load_callable(name: str, base: Path) -> Callable[..., Any]:
    """Import the module, with `base` first on the Python path, and return its function.

    Raises:
        UsageError: the module cannot be imported, or has no such function.
    """
    module_name, _, attribute = name.partition(":")
    if str(base) not in sys.path:
        sys.path.insert(0, str(base))
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
