"""The section `quantize`."""

from __future__ import annotations

from typing import Literal

from pydantic import (
    Field,
)

from .forms import Settings

Method = Literal["entropy", "minmax", "percentile", "mse", "mse-u8", "auto"]


Equalization = Literal["auto", "off", "cross-layer", "smooth"]


WeightMethod = Literal["auto", "minmax", "mse"]


Rounding = Literal["auto", "nearest", "second-order"]


Block = Literal[16, 32, 64, 128, 256]


class QuantizeSettings(Settings):
    """How ranges are chosen and what is quantized."""

    method: Method = Field(
        "mse",
        description="how the threshold of a tensor is chosen from its histogram; `auto` measures which one costs the "
        "outputs least, on samples that are held back",
    )
    batch: int = Field(8, ge=1, description="samples that run together during calibration; ranges do not depend on it")
    skip: tuple[str, ...] = Field((), description="globs of node names that stay in the float type")
    equalize: Equalization = Field(
        "off", description="channels made equally wide before calibration; auto: where that is measured to help"
    )
    weights: WeightMethod = Field(
        "minmax",
        description="how far a channel of an INT8 weight reaches: to its greatest value, or where the squared error is "
        "least; `auto` measures which one costs the outputs less, on samples that are held back",
    )
    rounding: Rounding = Field(
        "nearest", description="how weights become integers; auto: second-order where that is measured to help"
    )
    correct_bias: Literal["auto"] | bool = Field(
        False, description="take off the biases what rounding adds to the means; auto: where it is measured to help"
    )
    block: Block | None = Field(None, description="of weight-int8 and weight-int4: weights that share a scale")
    symmetric: bool | None = Field(None, description="of weight-int8 and weight-int4 on a CPU: without zero points")
    accuracy_level: Literal[1, 4] | None = Field(
        None, description="of the same: 1 computes in float; 4 rounds what is read to INT8, which is faster"
    )
    max_drop: float | None = Field(
        None,
        ge=0,
        allow_inf_nan=False,
        description="of each metric (without one: squared error of an output over its power) by INT8; as few nodes as "
        "that takes stay in float. The gates decide where it is not given",
    )
