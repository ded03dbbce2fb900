"""The sections `recover` and `qat`."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import (
    BeforeValidator,
    Field,
    field_validator,
    model_validator,
)

from trtcompress_graph.callables import is_callable_name

from ..recovery import option_words
from .forms import Names, Settings, as_section

TrainingPrecision = Literal["32", "bf16-mixed", "16-mixed"]


class RecoverSettings(Settings):
    """How a student is trained to answer as its teacher. At most one of epochs, steps and minutes says how long."""

    loss: Names = Field(
        (),
        description="logits, labels, features, attention, relations or affinity, each also as NAME=WEIGHT; the "
        "teacher's outputs, and inner tensors that both have in equal width, if not given",
    )
    labels: bool = Field(
        False, description="learn from labels too; where they are many, from them alone in the second half"
    )
    epochs: float | None = Field(None, gt=0, allow_inf_nan=False, description="passes over the samples")
    steps: int | None = Field(None, ge=1, description=option_words.STEPS)
    minutes: float | None = Field(None, gt=0, allow_inf_nan=False, description="measured, so that steps may differ")
    blockwise: bool | None = Field(
        None,
        description="fit block by block before the whole, which gains most in little time; if not given, not where "
        "minutes say how long and there are 4,096 samples or more",
    )
    optimizer: Literal["adamw", "sgd"] = "adamw"
    lr: float | None = Field(
        None, gt=0, allow_inf_nan=False, description="greatest learning rate; a short probe picks it if not given"
    )
    batch: int | None = Field(
        None, ge=1, description="samples a step, on all devices together; 64, or fewer where the minutes are short"
    )
    weight_decay: float = Field(1e-4, ge=0, allow_inf_nan=False, description=option_words.WEIGHT_DECAY)
    clip: float = Field(1.0, gt=0, description=option_words.CLIP)
    ema: float = Field(0.999, ge=0, lt=1, description=option_words.EMA)
    patience: int = Field(10, ge=1, description="judgements without a gain in its second half, after which it ends")
    augment: bool | None = Field(
        None,
        description="change samples at random, where the teacher answers alike to that; from ten epochs on if not "
        "given",
    )
    batchnorm: bool | None = Field(
        None,
        description="train with BatchNorm put back behind convolutions, which takes 16 samples a step; from 50 steps "
        "on if not given",
    )
    learn_scales: bool = Field(
        True, description="under quantization, train scales too; false keeps the ranges of the calibration"
    )
    temperature: float | None = Field(
        None,
        gt=0,
        allow_inf_nan=False,
        description="of class scores that are compared; 2, or 8 where there are fewer than ten samples a class",
    )
    precision: TrainingPrecision = "32"
    devices: int = Field(1, ge=0, description="processes, one a device; 0: all GPUs")
    checkpoint_activations: bool = Field(False, description="less memory for more time")
    samples: int | None = Field(None, ge=1, description="that are read, at the most")
    function: str | None = Field(
        None, description="`package.module:function`, a training loop of one's own: gets the module and gives it back"
    )
    seed: int = Field(0, ge=0, lt=2**64, description="of what is random")

    @field_validator("loss")
    @classmethod
    def _known(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        from trtcompress_graph.errors import UsageError

        from ..recovery.loss_names import weighted

        try:
            weighted(value)
        except UsageError as error:
            raise ValueError(f"{error.what}; {error.hint}") from None
        return value

    @model_validator(mode="after")
    def _one_length(self) -> Self:
        given = [name for name in ("epochs", "steps", "minutes") if getattr(self, name) is not None]
        if len(given) > 1:
            raise ValueError(f"one of epochs, steps and minutes says how long; {' and '.join(given)} are there")
        if self.function is not None and not is_callable_name(self.function):
            raise ValueError(f"'{self.function}' is no function; it is named as package.module:function")
        return self


Recover = Annotated[
    RecoverSettings | None, BeforeValidator(as_section, json_schema_input_type=bool | RecoverSettings | None)
]
