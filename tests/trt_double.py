"""A stand-in for TensorRT's Python module with the signatures of a release, as its bindings tell them.

What a release does not have raises AttributeError, what it does not take TypeError, as pybind11 does; what is right is
noted, and answered by the type that the signature names. It computes nothing.
"""

from __future__ import annotations

import enum
import json
import re
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

FOLDER = Path(__file__).parent / "engines" / "trt_signatures"
PLAN = b"plan"

Call = tuple[str, str, tuple[Any, ...]]


def releases() -> list[str]:
    """Every release whose signatures are kept."""
    return sorted(file.stem for file in FOLDER.glob("*.json"))


def read(release: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((FOLDER / f"{release}.json").read_text(encoding="utf-8"))
    return found


def double(signatures: Mapping[str, Any], answers: Mapping[str, Any] | None = None) -> ModuleType:
    """A module that has what the signatures tell, and `calls`, a list of what was called.

    Args:
        signatures: see `benchmarks/trt_signatures.py`.
        answers: what `Class.member` gives, where it is not the type's own zero.
    """
    return _Double(signatures, {**ANSWERS, **(answers or {})}).module


ANSWERS: dict[str, Any] = {
    "OnnxParser.parse_from_file": True,
    "OnnxParserRefitter.refit_from_file": True,
    "Refitter.refit_cuda_engine": True,
    "IBuilderConfig.set_timing_cache": True,
    "ITimingCache.combine": True,
    "IOptimizationProfile.get_shape": [(2, 3, 16, 16), (4, 3, 16, 16), (8, 3, 16, 16)],
    "INetworkDefinition.num_inputs": 1,
    "Builder.num_DLA_cores": 2,
    "ITensor.name": "x",
    "ITensor.shape": (-1, 3, 16, 16),
    "ITensor.is_network_input": True,
}


class _Double:
    def __init__(self, signatures: Mapping[str, Any], answers: Mapping[str, Any]) -> None:
        self.module: Any = ModuleType("tensorrt")
        self.module.__version__ = signatures["version"]
        self.module.calls = []
        self.module.answers = self.answers = answers
        self.types: dict[str, type] = {}
        for name, members in signatures["enums"].items():
            self.types[name] = _enumeration(name.rpartition(".")[2], members)
        for name, (kind, member) in signatures["values"].items():
            setattr(self.module, name, self.types[kind][member])  # type: ignore[index]
        left = dict(signatures["classes"])
        while left:
            ready = [name for name, told in left.items() if not set(told["bases"]) & set(left)]
            for name in ready:
                self.types[name] = self._class(name, left.pop(name))
        for name, kind in self.types.items():
            if "." not in name:
                setattr(self.module, name, kind)

    def _class(self, name: str, told: Mapping[str, Any]) -> type:
        bases = tuple(self.types[base] for base in told["bases"] if base in self.types)
        if name == "IHostMemory":  # it gives its bytes as a buffer
            bases = (bytes,)
        space: dict[str, Any] = {"__slots__": () if bases else ("_held",)}
        for member, overloads in told["methods"].items():
            if member == "__init__":
                space["__init__"] = self._init(name, overloads)
            elif member in ("__enter__", "__exit__"):
                space[member] = (lambda own: own) if member == "__enter__" else (lambda own, *_: None)
            elif overloads:
                space[member] = self._method(name, member, overloads)
        for member, (read_type, written_type) in told["properties"].items():
            space[member] = self._property(name, member, read_type, written_type)
        for member, kind in told["values"].items():
            space[member] = self.types[kind][member]
        return type(name, bases, space)

    def _init(self, owner: str, overloads: list[str]) -> Any:
        def __init__(own: Any, *args: Any, **named: Any) -> None:
            if not overloads:
                raise TypeError(f"{owner}: No constructor defined!")
            self._note(owner, "__init__", self._bound(overloads, own, args, named, f"{owner}.__init__"))

        return __init__

    def _method(self, owner: str, name: str, overloads: list[str]) -> Any:
        def method(own: Any, *args: Any, **named: Any) -> Any:
            values = self._bound(overloads, own, args, named, f"{owner}.{name}")
            if name == "__getitem__" and values[0] >= len(own):  # what ends a loop
                raise IndexError(values[0])
            self._note(owner, name, values)
            return self._answer(f"{owner}.{name}", overloads[0].rpartition(" -> ")[2])

        return method

    def _property(self, owner: str, name: str, read_type: str, written_type: str | None) -> property:
        def get(own: Any) -> Any:
            held = getattr(own, "_held", {})
            return held[name] if name in held else self._answer(f"{owner}.{name}", read_type)

        def put(own: Any, value: Any) -> None:
            if not self._fits(value, str(written_type)):
                raise TypeError(f"{owner}.{name} takes {written_type}, and not {value!r}")
            self._note(owner, name, (value,))
            own._held = {**getattr(own, "_held", {}), name: value}

        return property(get, put if written_type else None)

    def _note(self, owner: str, name: str, values: tuple[Any, ...]) -> None:
        self.module.calls.append((owner, name, values))

    def _bound(
        self, overloads: list[str], own: Any, args: tuple[Any, ...], named: Mapping[str, Any], where: str
    ) -> tuple[Any, ...]:
        """The arguments in the order of the first signature that takes them."""
        for text in overloads:
            wanted = parameters(text)[1:]
            given = dict(zip([name for name, _, _ in wanted], args, strict=False))
            if len(args) > len(wanted) or set(given) & set(named):
                continue
            given.update(named)
            required = {name for name, _, default in wanted if not default}
            known = {name: kind for name, kind, _ in wanted}
            if required <= set(given) <= set(known) and all(self._fits(given[n], known[n]) for n in given):
                return tuple(given[name] for name in known if name in given)
        raise TypeError(f"{where}(): incompatible arguments {args} {dict(named)}; it takes {overloads}")

    def _fits(self, value: Any, kind: str) -> bool:
        kind = kind.strip()
        if "|" in kind:
            return any(self._fits(value, part) for part in kind.split("|"))
        if kind in self.types:
            return isinstance(value, self.types[kind])
        match kind.rpartition(".")[2].partition("[")[0]:
            case "int" | "SupportsInt" | "SupportsIndex":
                return isinstance(value, int)
            case "float" | "SupportsFloat":
                return isinstance(value, (int, float))
            case "bool":
                return isinstance(value, bool)
            case "str":
                return isinstance(value, str)
            case "bytes" | "buffer" | "Buffer":
                return isinstance(value, (bytes, bytearray, memoryview))
            case "Dims" | "List" | "list" | "Sequence" | "tuple":
                return isinstance(value, (list, tuple)) and all(type(each) is int for each in value)
            case "None":
                return value is None
            case "object":
                return True
        return False  # a type that nothing here should be given

    def _answer(self, place: str, kind: str) -> Any:
        if place in self.answers:
            return self.answers[place]
        kind = kind.strip()
        if kind == "IHostMemory":
            return self.types[kind].__new__(self.types[kind], PLAN)  # type: ignore[call-overload]
        if kind in self.types:
            found = self.types[kind]
            return next(iter(found)) if issubclass(found, enum.Enum) else found.__new__(found)  # type: ignore[attr-defined]
        zeros: dict[str, Any] = {"int": 0, "float": 0.0, "bool": False, "str": "", "Dims": (), "buffer": b""}
        if kind.lower().startswith(("list", "tuple")):
            return []
        return zeros.get(kind)


class _Enumeration(enum.Enum):
    def __int__(self) -> int:
        return int(self.value[0] if isinstance(self.value, tuple) else self.value)


def _enumeration(name: str, members: Mapping[str, int]) -> Any:
    return _Enumeration(name, list(members.items()))  # type: ignore[call-overload]


def parameters(signature: str) -> list[tuple[str, str, bool]]:
    """Name, type and whether there is a default, of each parameter of `(self: A, b: int = 0) -> None`."""
    inner, depth, parts = signature.strip()[1:], 0, [""]
    for letter in inner:
        depth += (letter in "([<{") - (letter in ")]}" or (letter == ">" and depth > 0))
        if depth < 0:
            break
        if letter == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += letter
    found = []
    for part in parts:
        name, _, rest = part.strip().partition(": ")
        kind, equals, _ = rest.partition(" = ")
        found.append((name, re.sub(r"^(typing\.)?Optional\[(.*)\]$", r"\2 | None", kind), bool(equals)))
    return found
