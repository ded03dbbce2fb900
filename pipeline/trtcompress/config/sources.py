"""The sections `model` and `data`."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import (
    BeforeValidator,
    Field,
    field_validator,
    model_validator,
)

from trtcompress_graph.axes import AxisRange
from trtcompress_graph.callables import is_callable_name

from .forms import Lengths, Settings, as_source

Constant = bool | int | float | list[Any]


class ModelSettings(Settings):
    """The model to build from."""

    source: str = Field(description="`package.module:function` that returns (module, example inputs), or an ONNX file")
    sources: tuple[str, ...] = Field((), description="globs of further files that the function depends on")
    inputs: dict[str, dict[str, Lengths]] = Field(
        {}, description="least, usual and greatest length of each dynamic axis: {input: {axis: [min, opt, max]}}"
    )
    fix: dict[str, Constant] = Field(
        {},
        description="values of inputs of an ONNX file that never change ({sr: 16000}); they are no inputs then",
    )
    trust_pickle: bool = Field(False, description="load a pickled module: it can run any code; only for your own files")

    @field_validator("inputs", mode="before")
    @classmethod
    def _axis_names_are_text(cls, value: object) -> object:
        if not isinstance(value, dict):
            return value
        return {k: {str(a): r for a, r in v.items()} if isinstance(v, dict) else v for k, v in value.items()}

    @property
    def axes(self) -> dict[str, dict[str, AxisRange]]:
        """The ranges as the rest of the code takes them."""
        return {name: {axis: AxisRange(*rng) for axis, rng in axes.items()} for name, axes in self.inputs.items()}


class PreprocessSettings(Settings):
    """How an image becomes an input."""

    size: tuple[int, int] | None = Field(None, description="resize to (height, width)")
    crop: tuple[int, int] | None = Field(None, description="then cut the middle (height, width)")
    mean: tuple[float, ...] = Field((0.0,), description="subtracted, after scaling")
    std: tuple[float, ...] = Field((1.0,), description="divided by, after subtracting the mean")
    scale: float = Field(1 / 255, description="multiplies the pixel values 0 to 255 first")
    layout: Literal["NCHW", "NHWC"] = "NCHW"
    color: Literal["RGB", "BGR", "GRAY"] = "RGB"


class DataSource(Settings):
    """Samples: an .npz, a folder of .npz batches, a folder of images, or `package.module:function`."""

    source: str
    samples: int | None = Field(None, ge=1, description="how many to read, from the first; all where not given")
    preprocess: PreprocessSettings | None = None
    sources: tuple[str, ...] = Field((), description="globs of further files that the function reads")


Source = Annotated[DataSource, BeforeValidator(as_source, json_schema_input_type=str | DataSource)]


class DataSettings(Settings):
    """Samples for calibration and for evaluation."""

    calibration: Source
    evaluation: Source | None = Field(None, description="with labels for metrics; the calibration samples if not given")
    training: Source | None = Field(
        None, description="for recover and qat, labels or not; the calibration samples if not given"
    )
    state: dict[str, str] = Field(
        {},
        description="of a model that remembers: the output that each state input is fed from at the next step "
        "({state: stateN}); each sample is then a sequence of steps",
    )

    @model_validator(mode="after")
    def _no_images_in_sequences(self) -> Self:
        given = (self.calibration, self.evaluation, self.training)
        if self.state and any(source.preprocess for source in given if source):
            raise ValueError("sequences for a state are arrays: data.state and preprocess do not go together")
        return self

    @model_validator(mode="after")
    def _preprocessed_alike(self) -> Self:
        first, second = self.calibration.preprocess, self.evaluation.preprocess if self.evaluation else None
        if first and second:
            for name in ("mean", "std", "scale", "color"):
                one, other = getattr(first, name), getattr(second, name)
                if one != other:
                    raise ValueError(
                        f"calibration and evaluation are preprocessed differently: {name} is {one} and {other}; "
                        "give both what the model was trained with"
                    )
        return self

    @model_validator(mode="after")
    def _images_alone(self) -> Self:
        for given in (self.calibration, self.evaluation, self.training):
            if given and given.preprocess and (given.source.endswith(".npz") or is_callable_name(given.source)):
                raise ValueError(
                    f"{given.source} gives arrays, not images, which are taken as they are: leave its preprocess out"
                )
        return self
