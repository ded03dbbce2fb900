"""The sections `package` and `triton`."""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import (
    BeforeValidator,
    Field,
    field_validator,
)

from .forms import Names, Settings, as_tuple

PackageFormat = Literal["triton", "triton-python", "jetson"]


Formats = Annotated[
    tuple[PackageFormat, ...],
    BeforeValidator(as_tuple, json_schema_input_type=PackageFormat | tuple[PackageFormat, ...]),
]


class TritonSettings(Settings):
    """What goes into config.pbtxt beyond what the engine dictates."""

    instances: int = Field(1, ge=1)
    max_queue_delay_us: int = Field(100, ge=0)
    warmup: bool = True
    towers: dict[str, Names] = Field(
        {},
        description="outputs of each part that is served as a model NAME_PART of its own; NAME is their ensemble",
    )

    @field_validator("towers")
    @classmethod
    def _two_or_none(cls, towers: dict[str, tuple[str, ...]]) -> dict[str, tuple[str, ...]]:
        if len(towers) == 1:
            raise ValueError("one tower alone is the model itself: name two or more, or none")
        if bad := [name for name in towers if not re.fullmatch(r"[A-Za-z0-9_]+", name)]:
            raise ValueError(f"'{bad[0]}' cannot be part of a served model's name: use letters, digits and '_'")
        return towers
