"""The whole config."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Self

from pydantic import (
    BeforeValidator,
    Field,
    StringConstraints,
    field_validator,
    model_validator,
)

from trtcompress_graph.callables import is_callable_name

from .devices import ONE_A_DEVICE, DeviceSettings, Targets, TargetSettings, TensorRTSettings
from .forms import Names, Settings, as_source
from .judging import GateSettings, MeasureSettings
from .packing import Formats, TritonSettings
from .pruning import PruneSettings, SparsifySettings
from .quantizing import QuantizeSettings
from .sources import DataSettings, ModelSettings
from .training import Recover


class BuildConfig(Settings):
    """A build."""

    name: str = Field(
        pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$", description="names the build folder and the served model"
    )
    model: Annotated[ModelSettings, BeforeValidator(as_source, json_schema_input_type=str | ModelSettings)]
    data: DataSettings
    metric: Names = Field((), description="top1, top5, f1, spearman, NAME:OUTPUT, or `package.module:function`")
    prune: PruneSettings | None = Field(None, description="structured pruning; nothing is cut where it is not given")
    sparsify: SparsifySettings | None = Field(None, description="2:4 sparse weights; dense where it is not given")
    recover: Recover = Field(None, description="training after the cut; nothing is trained where it is not given")
    quantize: QuantizeSettings = QuantizeSettings()
    qat: Recover = Field(
        None, description="training of the quantized graphs, each under its encoding; none where it is not given"
    )
    targets: Targets = (TargetSettings(name="cpu"),)
    devices: dict[Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9.-]*$")], DeviceSettings] = Field(
        {}, description="devices that `trtcompress targets` does not have, by the name that targets call them by"
    )
    tensorrt: TensorRTSettings = TensorRTSettings()
    gates: GateSettings = GateSettings()
    measure: MeasureSettings = MeasureSettings()
    package: Formats = ("triton",)
    triton: TritonSettings = TritonSettings()

    @model_validator(mode="after")
    def _something_to_recover(self) -> Self:
        if self.recover is not None and self.prune is None:
            raise ValueError("recover: nothing is cut, so there is nothing to recover; add a section prune, or use qat")
        if self.prune is not None and self.prune.steps > 1 and self.recover is None:
            raise ValueError("prune.steps: between the cuts the model is trained; add a section recover")
        return self

    @model_validator(mode="after")
    def _served_as_calibrated(self) -> Self:
        if not self.triton.preprocess:
            return self
        calibration, evaluation = self.data.calibration, self.data.evaluation
        if calibration.preprocess is None:
            raise ValueError(
                "triton.preprocess: data.calibration has no preprocess section, so that nothing says how an image "
                "becomes an input; give data.calibration a folder of images and how they are preprocessed"
            )
        if is_callable_name(calibration.source) or calibration.source.endswith(".npz"):
            raise ValueError(
                f"triton.preprocess: data.calibration.source {calibration.source} gives arrays, not images, so that "
                "its preprocess section was never used; give a folder of images"
            )
        if evaluation and evaluation.preprocess not in (None, calibration.preprocess):
            raise ValueError(
                "triton.preprocess: the evaluation is preprocessed in another way than the calibration, whose way is "
                "served; give both the same preprocess section"
            )
        return self

    @field_validator("targets")
    @classmethod
    def _each_target_once(cls, value: tuple[TargetSettings, ...]) -> tuple[TargetSettings, ...]:
        names = [target.name for target in value]
        if not names:
            raise ValueError("at least one target is needed; `trtcompress targets` lists them")
        for name in names:
            if names.count(name) > 1:
                raise ValueError(f"target '{name}' is there twice: {ONE_A_DEVICE}")
        return value


class Loaded(Settings):
    """A config with the folder that its relative paths start from."""

    config: BuildConfig
    base: Path
