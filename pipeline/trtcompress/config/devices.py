"""The sections `targets`, `devices` and `tensorrt`."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import (
    BeforeValidator,
    Field,
)

from .forms import Lengths, Settings, as_source, as_tuple, quoted

Precision = Literal["auto", "int8", "float", "bf16", "fp8", "weight-int8", "weight-int4", "tables"]


ONE_A_DEVICE = "engines are filed by device, so that another precision is a build of its own, under another name"


def as_target(value: object) -> object:
    """`rtx-4090` or `rtx-4090:float` stands for `{name: rtx-4090, precision: ...}`."""
    if not isinstance(value, str):
        return value
    name, _, precision = value.partition(":")
    return {"name": name, "precision": precision} if precision else {"name": name}


def in_full(value: object) -> object:
    """The precision that a shorter name stands for."""
    from trtcompress_engines.encodings import ALIASES

    return ALIASES.get(value, value) if isinstance(value, str) else value


class TimingCacheSettings(Settings):
    """Measured tactics of an earlier build of the same TensorRT on the same GPU."""

    source: str = Field(description="the file timing.cache that lies beside an engine")
    sha256: str | None = Field(None, pattern=r"^[0-9a-f]{64}$", description="what it must be")


class TensorRTSettings(Settings):
    """What is asked of TensorRT's builder beyond its defaults; what a device or a release does not have is refused."""

    version: Annotated[str, Field(pattern=r"^[0-9]+(\.[0-9]+){1,3}$"), BeforeValidator(quoted)] | None = Field(
        None,
        description="of the machine that builds (8.5); the newest of the device if not given",
    )
    workspace_mb: int | None = Field(None, ge=1, description="device memory that a layer may use, in MiB")
    optimization_level: int | None = Field(
        None, ge=0, le=5, description="how long the builder searches; 3 if not given"
    )
    timing_cache: Annotated[
        TimingCacheSettings | None,
        BeforeValidator(as_source, json_schema_input_type=str | TimingCacheSettings | None),
    ] = Field(None, description="tactics to start from, so that the builder chooses as it did")
    hardware_compatible: bool = Field(False, description="one engine for every card from Ampere on; some are slower")
    version_compatible: bool = Field(False, description="later releases of the same major version load the engine")
    refit: bool = Field(
        False, description="weights can be exchanged in the engine, by refit.py beside it from TensorRT 10 on"
    )
    strip: bool = Field(False, description="the plan has no weights; refit.py beside it puts those of the ONNX file in")
    weight_streaming: bool = Field(False, description="weights may stay in host memory")
    weight_streaming_budget: int | str | None = Field(
        None,
        description="GPU memory for streamed weights where `validate` or a kit runs the engine: bytes, or a share "
        '("30%"); TensorRT\'s own choice if not given',
    )
    sparse: bool | None = Field(None, description="try sparse kernels; where weights are 2:4 sparse if not given")
    dla: int | None = Field(
        None, ge=0, description="core of the DLA; what it does not take runs on the GPU. INT8 is then implicit"
    )
    implicit: Literal["ranges", "samples"] | None = Field(
        None,
        description="INT8 by calibration.cache instead of Q/DQ pairs, as TensorRT 8 to 10 take it: scales of our "
        "ranges, or TensorRT's own entropy calibration on the samples",
    )
    profiles: tuple[dict[str, dict[str, Lengths]], ...] = Field(
        (),
        description="parts of model.inputs that get kernels of their own: [{x: {batch: 1}}, {x: {batch: [2, 8, 8]}}]",
    )

    @property
    def by_cache(self) -> bool:
        """Whether INT8 does not stand in the graph."""
        return self.implicit is not None or self.dla is not None


class TargetSettings(Settings):
    """A device to build for."""

    name: str = Field(description="a name of `trtcompress targets`; a+b makes one engine file for several cards")
    precision: Annotated[Precision, BeforeValidator(in_full, json_schema_input_type=Precision)] = Field(
        "auto",
        description="auto: INT8 with the float engine beside it; another: that one alone. weight-int8 and weight-int4 "
        "(w8, w4, int4) quantize weights and embedding tables alone, `tables` these tables alone",
    )
    tensorrt: TensorRTSettings | None = Field(None, description="for this target alone, in place of the build's")


class DeviceSettings(Settings):
    """A device of one's own: like another one, or by what it is."""

    like: str | None = Field(None, description="a name of `trtcompress targets`; what is not given is as there")
    title: str | None = Field(None, description="what people call it")
    how: Literal["aot", "local", "kit"] | None = Field(
        None, description="TensorRT for RTX here, TensorRT on a machine with the card, or on the device itself"
    )
    compute_capability: Annotated[str, Field(pattern=r"^[0-9]+\.[0-9]$"), BeforeValidator(quoted)] | None = Field(
        None, description="such as 8.9"
    )
    memory_gb: float | None = Field(None, gt=0, allow_inf_nan=False)
    int8: bool | None = Field(None, description="whether INT8 engines are built for it")
    dla: int | None = Field(None, ge=0, description="deep learning accelerators")
    tensorrt: dict[str, Annotated[str, BeforeValidator(quoted)]] | None = Field(
        None, description="version by platform release, oldest first"
    )


_Target = Annotated[TargetSettings, BeforeValidator(as_target, json_schema_input_type=str | TargetSettings)]


Targets = Annotated[
    tuple[_Target, ...], BeforeValidator(as_tuple, json_schema_input_type=str | TargetSettings | tuple[_Target, ...])
]
