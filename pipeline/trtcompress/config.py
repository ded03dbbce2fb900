"""The config of a build, one frozen settings model a section; `trtcompress schema` prints its JSON Schema."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StringConstraints,
    field_validator,
    model_validator,
)

from trtcompress_graph.axes import AxisRange
from trtcompress_graph.callables import is_callable_name

Method = Literal["entropy", "minmax", "percentile", "mse", "mse-u8", "auto"]
Equalization = Literal["auto", "off", "cross-layer", "smooth"]
WeightMethod = Literal["auto", "minmax", "mse"]
Rounding = Literal["auto", "nearest", "second-order"]
PackageFormat = Literal["triton", "triton-python", "jetson"]
Precision = Literal["auto", "int8", "float", "bf16", "fp8", "weight-int8", "weight-int4", "tables"]
Block = Literal[16, 32, 64, 128, 256]
Importance = Literal["l1", "l2", "energy", "activation", "obs", "taylor", "fisher", "random"]
Allocation = Literal["uniform", "global", "damage"]
TrainingPrecision = Literal["32", "bf16-mixed", "16-mixed"]


ONE_A_DEVICE = "engines are filed by device, so that another precision is a build of its own, under another name"


class Settings(BaseModel):
    """Base of all settings: frozen, and an unknown key is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid")


def _as_tuple(value: object) -> object:
    """A single value stands for a list of one."""
    return (value,) if isinstance(value, (str, int, dict)) else value


def as_source(value: object) -> object:
    """A text stands for `{source: text}`."""
    return {"source": value} if isinstance(value, str) else value


def as_target(value: object) -> object:
    """`rtx-4090` or `rtx-4090:float` stands for `{name: rtx-4090, precision: ...}`."""
    if not isinstance(value, str):
        return value
    name, _, precision = value.partition(":")
    return {"name": name, "precision": precision} if precision else {"name": name}


def _in_full(value: object) -> object:
    """The precision that a shorter name stands for."""
    from trtcompress_engines.encodings import ALIASES

    return ALIASES.get(value, value) if isinstance(value, str) else value


def _as_length(value: object) -> object:
    """One number stands for an axis that is always that long."""
    return (value, value, value) if isinstance(value, int) else value


def _rising(value: tuple[int, int, int]) -> tuple[int, int, int]:
    if not 1 <= value[0] <= value[1] <= value[2]:
        raise ValueError("[min, opt, max] must be whole numbers with 1 <= min <= opt <= max")
    return value


Names = Annotated[tuple[str, ...], BeforeValidator(_as_tuple, json_schema_input_type=str | tuple[str, ...])]
Lengths = Annotated[
    tuple[int, int, int],
    BeforeValidator(_as_length, json_schema_input_type=int | tuple[int, int, int]),
    AfterValidator(_rising),
]


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


class PruneSettings(Settings):
    """What is cut. Exactly one of macs, params, speedup and plan says how far."""

    macs: float | None = Field(None, gt=0, lt=1, description="share of the multiply-accumulates that is kept")
    params: float | None = Field(None, gt=0, lt=1, description="share of the parameters that is kept")
    speedup: float | None = Field(
        None, gt=1, allow_inf_nan=False, description="times as fast, measured in ONNX Runtime on this machine"
    )
    plan: str | None = Field(None, description="a plan.json of an earlier cut, applied again")
    importance: Importance | None = Field(None, description="how units are scored; obs (second order) if not given")
    allocation: Allocation | None = Field(None, description="how the cut is shared out; damage if not given")
    reconstruct: bool | None = Field(None, description="solve the weights behind a cut anew; true if not given")
    multiple: int = Field(8, ge=1, description="widths fall on multiples of it")
    keep: Names = Field((), description="globs of weights, tensors, nodes or groups that stay whole")
    depth: float = Field(1, gt=0, le=1, description="share of the residual blocks that is kept")
    samples: int = Field(512, ge=1, description="calibration samples that are read, at the most")
    steps: int = Field(
        1, ge=1, le=20, description="cuts on the way, each followed by a training as the section recover says"
    )
    seed: int = Field(0, ge=0, description="of what is random")

    @model_validator(mode="after")
    def _one_way_to_say_how_far(self) -> Self:
        given = [name for name in ("macs", "params", "speedup", "plan") if getattr(self, name) is not None]
        if len(given) != 1:
            there = f"{' and '.join(given)} are there" if given else "none is there"
            raise ValueError(f"exactly one of macs, params, speedup and plan says how far to cut; {there}")
        decided = ("importance", "allocation", "reconstruct", "multiple", "keep", "depth", "seed")
        idle = [name for name in decided if getattr(self, name) != type(self).model_fields[name].default]
        if self.steps > 1 and self.macs is None and self.params is None:
            raise ValueError("steps go with macs or params")
        if self.plan is not None and idle:
            raise ValueError(f"the plan has decided already; remove {', '.join(idle)}")
        return self


def as_section(value: object) -> object:
    """`true` stands for a section in which nothing is set."""
    return {} if value is True else None if value is False else value


class RecoverSettings(Settings):
    """How a student is trained to answer as its teacher. At most one of epochs, steps and minutes says how long."""

    loss: Names = Field(
        (),
        description="logits, labels, features, attention, relations or affinity, each also as NAME=WEIGHT; the "
        "teacher's outputs, and inner tensors that both have in equal width, if not given",
    )
    labels: bool = Field(False, description="learn from the labels of the samples too")
    epochs: float | None = Field(None, gt=0, allow_inf_nan=False, description="passes over the samples")
    steps: int | None = Field(None, ge=1, description="of the optimizer")
    minutes: float | None = Field(None, gt=0, allow_inf_nan=False, description="measured, so that steps may differ")
    blockwise: bool = Field(True, description="fit block by block before the whole: most is gained in little time")
    optimizer: Literal["adamw", "sgd"] = "adamw"
    lr: float | None = Field(
        None, gt=0, allow_inf_nan=False, description="greatest learning rate; a short probe picks it if not given"
    )
    batch: int | None = Field(
        None, ge=1, description="samples a step, on all devices together; 64, or fewer where the minutes are short"
    )
    weight_decay: float = Field(1e-4, ge=0, allow_inf_nan=False)
    clip: float = Field(1.0, gt=0, description="greatest norm of the gradient")
    ema: float = Field(0.999, ge=0, lt=1, description="decay of the moving average of the weights; 0: none")
    patience: int = Field(10, ge=1, description="judgements without a gain after which it ends")
    augment: bool = Field(True, description="change samples at random, where the teacher answers alike to that")
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
    seed: int = Field(0, ge=0, description="of what is random")

    @field_validator("loss")
    @classmethod
    def _known(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        from trtcompress_graph.errors import UsageError

        from .recovery.loss_names import weighted

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


_Recover = Annotated[
    RecoverSettings | None, BeforeValidator(as_section, json_schema_input_type=bool | RecoverSettings | None)
]


class SparsifySettings(Settings):
    """Two of every four weights become zero, for the sparse kernels of TensorRT."""

    skip: Names = Field((), description="globs of the names of nodes that stay dense")
    compensate: bool = Field(
        True, description="the weights that are left make good what the others gave, from calibration samples"
    )
    samples: int = Field(128, ge=1, description="calibration samples that are read, at the most")


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


class TimingCacheSettings(Settings):
    """Measured tactics of an earlier build of the same TensorRT on the same GPU."""

    source: str = Field(description="the file timing.cache that lies beside an engine")
    sha256: str | None = Field(None, pattern=r"^[0-9a-f]{64}$", description="what it must be")


class TensorRTSettings(Settings):
    """What is asked of TensorRT's builder beyond its defaults; what a device or a release does not have is refused."""

    version: str | None = Field(
        None,
        pattern=r"^[0-9]+(\.[0-9]+){1,3}$",
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
    refit: bool = Field(False, description="weights can be exchanged in the engine")
    strip: bool = Field(False, description="the plan has no weights; refit.py beside it puts those of the ONNX file in")
    weight_streaming: bool = Field(False, description="weights may stay in host memory")
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
    precision: Annotated[Precision, BeforeValidator(_in_full, json_schema_input_type=Precision)] = Field(
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
    compute_capability: str | None = Field(None, pattern=r"^[0-9]+\.[0-9]$", description="such as 8.9")
    memory_gb: float | None = Field(None, gt=0, allow_inf_nan=False)
    int8: bool | None = Field(None, description="whether INT8 engines are built for it")
    dla: int | None = Field(None, ge=0, description="deep learning accelerators")
    tensorrt: dict[str, str] | None = Field(None, description="version by platform release, oldest first")


_Target = Annotated[TargetSettings, BeforeValidator(as_target, json_schema_input_type=str | TargetSettings)]
Targets = Annotated[
    tuple[_Target, ...], BeforeValidator(_as_tuple, json_schema_input_type=str | TargetSettings | tuple[_Target, ...])
]


Formats = Annotated[
    tuple[PackageFormat, ...],
    BeforeValidator(_as_tuple, json_schema_input_type=PackageFormat | tuple[PackageFormat, ...]),
]


class GateSettings(Settings):
    """Limits that decide the exit code, against the model that the build started from.

    Without max_metric_drop, min_cosine and min_snr_db: min_cosine 0.99, min_snr_db 10, and max_metric_drop 0.01 with a
    metric. Where pruning is configured, both are then taken to the pruned model before quantization: what it cuts is
    judged by the metric.
    """

    max_metric_drop: float | None = None
    min_cosine: float | None = Field(None, ge=-1, le=1)
    min_snr_db: float | None = Field(
        None,
        allow_inf_nan=False,
        description="signal-to-noise ratio of each output in dB; it sees a wrong size, to which a cosine is blind: "
        "20 dB is an error of a hundredth of the power, twice the output is 0 dB, half of it 6 dB",
    )
    min_speedup: float | None = Field(None, gt=0)
    max_latency_ms: float | None = Field(None, gt=0)
    max_size_mb: float | None = Field(None, gt=0)


class MeasureSettings(Settings):
    """How engines are timed."""

    batches: tuple[int, ...] = Field((), description="batch sizes; those of the batch axis if not given")
    seconds: float = Field(0.5, gt=0, le=60, description="per batch size and engine")
    threads: int = Field(0, ge=0, description="0: one a core")


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
    recover: _Recover = Field(None, description="training after the cut; nothing is trained where it is not given")
    quantize: QuantizeSettings = QuantizeSettings()
    qat: _Recover = Field(
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
