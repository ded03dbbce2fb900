"""Protobuf's text format, as much of it as `config.pbtxt` needs; equal messages give equal bytes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence


class Symbol(str):
    """An enum value: written without quotes."""

    __slots__ = ()


Message = Mapping[str, "Value"]
Value = str | Symbol | int | bool | Message | Sequence["Value"]

_ESCAPES = {ord("\\"): "\\\\", ord('"'): '\\"', ord("\n"): "\\n", ord("\r"): "\\r", ord("\t"): "\\t"}


def quote(text: str) -> str:
    """A string literal: printable ASCII as it is, every other byte of its UTF-8 as three octal digits."""
    pieces = (_ESCAPES.get(byte) or (chr(byte) if 32 <= byte < 127 else f"\\{byte:03o}") for byte in text.encode())
    return f'"{"".join(pieces)}"'


def to_text(message: Message) -> str:
    """The message in text format, fields in the order of the mapping."""
    return "".join(f"{line}\n" for line in _fields(message))


def _fields(message: Message) -> list[str]:
    return [line for name, value in message.items() for line in _field(name, value)]


def _field(name: str, value: Value) -> list[str]:
    if isinstance(value, Mapping):
        return [f"{name} {{", *_indented(_fields(value)), "}"]
    if isinstance(value, (str, int)):
        return [f"{name}: {_scalar(value)}"]
    if any(isinstance(item, Mapping) for item in value):
        return [line for item in value for line in _field(name, item)]
    return [f"{name}: [{', '.join(_scalar(item) for item in value if isinstance(item, (str, int)))}]"]


def _scalar(value: str | int) -> str:
    if isinstance(value, Symbol):
        return str(value)
    if isinstance(value, str):
        return quote(value)
    return str(value).lower() if isinstance(value, bool) else str(value)


def _indented(lines: Sequence[str]) -> list[str]:
    return [f"  {line}" for line in lines]
