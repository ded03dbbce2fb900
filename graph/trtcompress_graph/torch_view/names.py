"""Names of initializers as names of parameters, and back.

A dot nests, as in PyTorch: `encoder.layer.0.weight` is the parameter `weight` of the module `encoder.layer.0`. What
cannot stand in such a name is percent-encoded (RFC 3986): characters that would have to be quoted in the code that
torch.fx writes, the dots of a name that has an empty part or stands below another tensor, and the first letter of a
part that Python or PyTorch uses itself. `initializer_name` undoes it.
"""

from __future__ import annotations

from collections.abc import Iterable
from keyword import kwlist
from urllib.parse import quote, unquote

from torch import fx, nn

_PLAIN = "/:+"
"""Kept beside letters, digits and `_.-~`."""


def initializer_name(name: str) -> str:
    """The name in the ONNX file of a parameter of the view."""
    return unquote(name)


class StateNames:
    """Names of parameters and buffers below one module, none inside another.

    Args:
        names: of all tensors that will keep their names.
    """

    def __init__(self, names: Iterable[str]) -> None:
        self._held: set[str] = set()
        self._modules: set[str] = set()
        self._reserved = frozenset(dir(fx.GraphModule(nn.Module(), fx.Graph()))) | frozenset(kwlist)
        self._of = {name: self._state_name(name) for name in sorted(names, key=lambda name: (len(name), name))}

    def of(self, name: str) -> str:
        """The name in the view of an initializer."""
        return self._of[name]

    def fresh(self, wanted: str) -> str:
        """A name for what the file does not hold."""
        found, count = wanted, 1
        while not self._fits(found):
            found, count = f"{wanted}_{count}", count + 1
        return self._keep(found)

    def _state_name(self, name: str) -> str:
        parts = [quote(part, safe=_PLAIN) for part in name.split(".")]
        whole = ".".join(_escaped(part) if part in self._reserved else part for part in parts)
        return self._keep(whole if self._fits(whole) else "%2E".join(parts))

    def _fits(self, name: str) -> bool:
        inside = _modules(name)
        free = name not in self._held and name not in self._modules and self._held.isdisjoint(inside)
        return free and all(part and part not in self._reserved for part in name.split("."))

    def _keep(self, name: str) -> str:
        self._held.add(name)
        self._modules |= _modules(name)
        return name


def _escaped(part: str) -> str:
    return f"%{ord(part[0]):02X}{part[1:]}"


def _modules(name: str) -> set[str]:
    """The modules that a parameter of this name lies in."""
    parts = name.split(".")
    return {".".join(parts[:end]) for end in range(1, len(parts))}
