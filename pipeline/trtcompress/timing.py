"""Speed of engines over the model as it came, timed on the device that runs them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from trtcompress_engines.backend import Runner, backend_for
from trtcompress_engines.gpu.times import with_gpu_times
from trtcompress_engines.measure import time_pair
from trtcompress_graph.axes import Axes
from trtcompress_graph.errors import CompileError
from trtcompress_graph.measured import Speed
from trtcompress_graph.model import Model
from trtcompress_graph.target import Target

from .comparing import Array
from .compiling import compile_model

REFERENCE = "reference"


@dataclass(frozen=True, slots=True)
class Timed:
    """Speeds of each engine, and how the first compares with the last.

    Attributes:
        speeds: of each engine, one entry a batch size; empty where nothing could be timed.
        gain: times that the first is as fast as the last; None where there is one engine only.
        notes: why something was not timed.
    """

    speeds: tuple[tuple[Speed, ...], ...]
    gain: float | None
    notes: tuple[str, ...] = ()


def time_engines(
    runners: Sequence[Runner],
    base: Runner,
    reference: Model,
    target: Target,
    axes: Axes,
    feeds: Mapping[int, Mapping[str, Array]],
    usual: int,
    seconds: float,
) -> Timed:
    """Time each engine against the reference, and the first against the last.

    On a GPU the reference is an engine too, of the model as it came and without quantization.

    Args:
        runners: of the engines in the order of preference, inside their `with` blocks.
        base: of the reference on this CPU, inside its `with` block.
        reference: the model as it came.
        target: the device.
        axes: ranges of dynamic axes.
        feeds: one batch of inputs for each batch size.
        usual: size at which the first is timed against the last.
        seconds: time to spend on a batch size.
    """
    try:
        with _rival(base, reference, target, axes) as rival:
            speeds = tuple(
                with_gpu_times(time_pair(runner, rival, feeds, seconds=seconds), runner, rival, feeds, seconds)
                for runner in runners
            )
        if len(runners) < 2:
            return Timed(speeds, None)
        (duel,) = time_pair(runners[0], runners[-1], {usual: feeds[usual]}, seconds=seconds)
        return Timed(speeds, duel.speedup)
    except CompileError as error:
        if target.how == "cpu":
            raise
        return Timed(((),) * len(runners), None, (f"speed was not measured: {error.what}",))


@contextmanager
def _rival(base: Runner, reference: Model, target: Target, axes: Axes) -> Iterator[Runner]:
    """The model as it came, on the device of the engines; of a GPU what TensorRT makes of it by itself, TF32 included.

    Raises:
        CompileError: no engine can be made of it.
    """
    if target.how == "cpu":
        yield base
        return
    with TemporaryDirectory(prefix="trtcompress-") as folder, ExitStack() as stack:
        engine = compile_model(reference, target, REFERENCE, axes, Path(folder), tf32=True)
        yield stack.enter_context(backend_for(target).open(engine))
