"""What `trtcompress quantize` makes of a model: precisions, integers, and what is to be said of them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from trtcompress_graph.errors import UsageError

from . import on_samples, options

if TYPE_CHECKING:
    from trtcompress_graph.encoding import Encoding, PrecisionPlan
    from trtcompress_graph.model import Model
    from trtcompress_graph.ranges import Ranges

    from ..config import Rounding, WeightMethod
    from ..stage import DataRef


@dataclass(frozen=True, slots=True)
class Choices:
    """How precisions and integers are chosen; see the options of those names."""

    skip: tuple[str, ...]
    max_drop: float | None
    metrics: tuple[str, ...]
    weights: WeightMethod
    rounding: Rounding
    correct_bias: Literal["auto", "true", "false"]

    @property
    def rounds(self) -> bool:
        """Whether integers are chosen from samples."""
        return self.rounding != "nearest" or self.correct_bias != "false"

    def check(self, encoding: Encoding) -> None:
        """Refuse what is for INT8 activations where there are none."""
        if (self.rounds or self.max_drop is not None or self.weights != "minmax") and not encoding.int8:
            where = "--max-drop, --weights, --rounding, --correct-bias"
            hint = "leave these options out, or take a target in INT8"
            raise UsageError(f"'{encoding.name}' holds no INT8 activations", where=where, hint=hint)

    def check_data(self, there: bool) -> None:
        """Samples are given where something is measured on them, and only there."""
        measured = self.rounds or self.weights == "auto"
        if not there and self.max_drop is not None:
            raise UsageError("--max-drop needs --data: the drop is measured on samples", where="--max-drop")
        if not there and measured:
            where = "--weights, --rounding, --correct-bias"
            raise UsageError("integers are chosen from samples: give --data", where=where)
        if there and self.max_drop is None and not measured:
            raise UsageError(
                "--data needs --max-drop, --weights auto, --rounding or --correct-bias: nothing else reads samples",
                where="--data",
            )


@dataclass(frozen=True, slots=True)
class Quantized:
    """A quantized model.

    Attributes:
        source: the model as it came.
        ranges: of its tensors.
        encoding: that was written.
        plan: precision of each node.
        written: the quantized model.
        doubts: why a limit on the drop cannot be held to.
    """

    source: Model
    ranges: Ranges
    encoding: Encoding
    plan: PrecisionPlan
    written: Model
    doubts: tuple[str, ...]


def quantized(
    source: Model, ranges: Ranges, encoding: Encoding, choices: Choices, data: DataRef | None, out: Path
) -> Quantized:
    """Choose precisions and integers, and write the model.

    Args:
        source: the float model.
        ranges: of its tensors.
        encoding: to write.
        choices: how.
        data: samples, where something is measured on them.
        out: the file.
    """
    from trtcompress_calibration.placement import quantize
    from trtcompress_calibration.precision import plan_precision

    plan = plan_precision(source, ranges, encoding, skip=choices.skip)
    doubts: tuple[str, ...] = ()
    weights = choices.weights
    if data is not None and choices.max_drop is not None:
        plan, doubts = on_samples.refined(
            source, plan, ranges, encoding, choices.max_drop, data, choices.metrics, choices.skip, out.parent
        )
    if data is not None and weights == "auto":
        weights = on_samples.best_weights(source, ranges, plan, encoding, out.parent, data)
    if data is not None and choices.rounds:
        written = on_samples.rounded(
            source, ranges, plan, encoding, out, data, choices.rounding, choices.correct_bias, weights
        )
    else:
        written = quantize(source, ranges, plan, encoding, out, weights=weights)
    return Quantized(source, ranges, encoding, plan, written, doubts)


def notes_of(made: Quantized, target_name: str, speed_on: DataRef | None) -> list[str]:
    """What to doubt, what else would make the model smaller where nothing could be quantized, and how fast it is.

    Args:
        made: the model.
        target_name: as it was given.
        speed_on: samples to measure the speed on, where the model is for this CPU; None: it is not measured.
    """
    from trtcompress_calibration.doubts import altered, nothing_quantized, untold
    from trtcompress_engines.targets import resolve_target

    from ..smaller import smaller_formats

    why = nothing_quantized(made.plan, made.encoding)
    smaller = smaller_formats(made.source, target_name, made.encoding) if why else ""
    told = (*altered(made.ranges), *untold(made.ranges, made.encoding), made.plan.note or why, smaller)
    notes = [note for note in told if note]
    here = resolve_target(target_name.partition(":")[0]).how == "cpu"
    if here and speed_on is not None and made.plan.quantized:
        notes.append(on_samples.speed(made.source, made.written, speed_on))
    return notes


def ranges_for(model: Model, file: str | None, encoding: Encoding) -> Ranges:
    """The ranges of this very model; none at all where the encoding asks for none.

    Raises:
        UsageError: the encoding needs ranges, and there is no file.
    """
    from trtcompress_graph.ranges import VERSION, Ranges

    if file is not None:
        return options.read_ranges_of(model, file)
    hint = f"trtcompress calibrate {model.path} --data ... -o ranges.json"
    if encoding.calibrated:
        what = "FP8" if encoding.activation == "f8" else "INT8"
        why = f"{what} is scaled by them" if encoding.activation else "they tell which values would overflow in FP16"
        raise UsageError(f"{encoding.name} needs ranges: {why}", where="--ranges", hint=f"{hint}; then --ranges ...")
    return Ranges(VERSION, model.digest, "none", 0, {})
