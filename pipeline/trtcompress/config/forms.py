"""The base of all settings, and shorter forms that stand for longer ones."""

from __future__ import annotations

from typing import Annotated

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
)


class Settings(BaseModel):
    """Base of all settings: frozen, and an unknown key is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid")


def as_tuple(value: object) -> object:
    """A single value stands for a list of one."""
    return (value,) if isinstance(value, (str, int, dict)) else value


def as_source(value: object) -> object:
    """A text stands for `{source: text}`."""
    return {"source": value} if isinstance(value, str) else value


def _as_length(value: object) -> object:
    """One number stands for an axis that is always that long."""
    return (value, value, value) if isinstance(value, int) else value


def _rising(value: tuple[int, int, int]) -> tuple[int, int, int]:
    if not 1 <= value[0] <= value[1] <= value[2]:
        raise ValueError("[min, opt, max] must be whole numbers with 1 <= min <= opt <= max")
    return value


def quoted(value: object) -> object:
    """A version written as a number is refused rather than read: 10.10 would become 10.1."""
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        raise ValueError(
            f'{value} is a number here, and 10.10 would be 10.1: put quotes around it: "{value}" '
            f"(in a shell around both: '...=\"{value}\"')"
        )
    return value


Names = Annotated[tuple[str, ...], BeforeValidator(as_tuple, json_schema_input_type=str | tuple[str, ...])]


Lengths = Annotated[
    tuple[int, int, int],
    BeforeValidator(_as_length, json_schema_input_type=int | tuple[int, int, int]),
    AfterValidator(_rising),
]


def as_section(value: object) -> object:
    """`true` stands for a section in which nothing is set."""
    if isinstance(value, bool):
        return {} if value else None
    if value is not None and not isinstance(value, (dict, BaseModel)):
        raise ValueError(f"{value!r:.60} is neither true nor false, nor a section with keys of its own")
    return value
