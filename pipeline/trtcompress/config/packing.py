"""The sections `package` and `triton`."""

from __future__ import annotations

import re
from typing import Annotated, Literal, Self

from pydantic import (
    BeforeValidator,
    Field,
    field_validator,
    model_validator,
)

from trtcompress_graph.callables import is_callable_name

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

    preprocess: bool = Field(
        False,
        description="NAME takes encoded images and does what data.calibration.preprocess says; "
        "the engine is NAME_model",
    )
    postprocess: str | None = Field(
        None,
        description="`package.module:function` that makes NAME's answer of the engine's outputs: a dict of arrays in, "
        "a dict of arrays out; the engine is NAME_model",
    )
    sources: Names = Field((), description="globs of further files that postprocess reads; they go along")

    @model_validator(mode="after")
    def _steps_around_one_engine(self) -> Self:
        if self.postprocess is not None and not is_callable_name(self.postprocess):
            raise ValueError(
                f"postprocess: '{self.postprocess}' is no function; it is named as package.module:function"
            )
        if self.towers and (self.preprocess or self.postprocess):
            raise ValueError(
                "towers do not go together with preprocess or postprocess: serve the whole model, or towers"
            )
        if self.sources and self.postprocess is None:
            raise ValueError("sources are files that postprocess reads, and there is no postprocess")
        return self

    @field_validator("towers")
    @classmethod
    def _two_or_none(cls, towers: dict[str, tuple[str, ...]]) -> dict[str, tuple[str, ...]]:
        if len(towers) == 1:
            raise ValueError("one tower alone is the model itself: name two or more, or none")
        if bad := [name for name in towers if not re.fullmatch(r"[A-Za-z0-9_]+", name)]:
            raise ValueError(f"'{bad[0]}' cannot be part of a served model's name: use letters, digits and '_'")
        return towers
