"""What goes into a kit: models, golden samples, and what is asked of the device's builder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trtcompress_graph.model import Model

from .device.streaming import AUTOMATIC

Array = NDArray[np.generic]
Arrays = Mapping[str, Array]


@dataclass(frozen=True, slots=True, eq=False)
class GoldenBatch:
    """One batch of real samples and what the reference gives for it.

    Attributes:
        inputs: as the model takes them.
        outputs: of the reference, for the real samples.
        pruned: the same of the pruned float model; empty where nothing was pruned.
        labels: one a real sample, or None; a kit gets those that are numbers.
        count: how many samples are real.
        filled: how many the batch holds; a model of fixed batch size is filled up.
        index: place among the golden batches.
    """

    inputs: Arrays
    outputs: Arrays
    pruned: Arrays
    labels: Array | None
    count: int
    filled: int
    index: int = 0

    @property
    def has_numbers(self) -> bool:
        """Whether there are labels that numpy alone can read."""
        return self.labels is not None and self.labels.dtype != object

    @property
    def digest(self) -> str:
        """SHA-256 of place and inputs, by which results of a device find their samples again."""
        found = sha256(f"{self.index}\n".encode())
        for name, value in self.inputs.items():
            found.update(f"{name} {value.dtype} {value.shape} {self.count}\n".encode())
            found.update(np.ascontiguousarray(value).tobytes())
        return found.hexdigest()


@dataclass(frozen=True, slots=True)
class Older:
    """What older releases of TensorRT build in a model's place, whose parsers do not take it.

    Attributes:
        before: the first release that takes the model itself; None where none is known.
        graph: what is built; None where there is nothing for them.
        cache: whether INT8 is implicit.
        since: the first release that takes `graph`; None where all do.
        refused: why there is nothing, or nothing before `since`.
    """

    before: tuple[int, int] | None
    graph: Model | None = None
    cache: bool = False
    since: tuple[int, int] | None = None
    refused: str = ""


@dataclass(frozen=True, slots=True)
class KitModel:
    """An engine that the device builds.

    Attributes:
        graph: the ONNX file that it is built of.
        digest: of the graph of the build whose engine this is; results are joined by it.
        cache: whether INT8 is implicit, by calibration.cache.
        flags: names of BuilderFlag; None: those of the types in the graph.
        builder: what else is asked of TensorRT's builder, by the keys of the config; `tf32` beside them.
        dla: core.
        older: for releases that do not parse the graph.
    """

    graph: Model
    digest: str
    cache: bool = False
    flags: tuple[str, ...] | None = None
    builder: Mapping[str, Any] = field(default_factory=dict)
    dla: int | None = None
    older: Older | None = None


@dataclass(frozen=True, slots=True)
class KitContents:
    """What goes into a kit.

    Attributes:
        name: of the build.
        models: by the names of the engines; `reference` is the model as it came.
        cache: text of calibration.cache, empty where there is none.
        timing: bytes of a timing cache to start from, empty where there is none.
        profiles: least, usual and greatest shape of each dynamic input, of the whole, then of each part that is to get
            kernels of its own; empty where no axis is dynamic.
        batches: sizes that are timed; empty where the batch is fixed.
        usual_batch: the one that a report names first.
        metrics: names of the top-k metrics that are computed on the device.
        gates: names and limits.
        scored_later: metrics that `import-results` computes of the outputs, which the device keeps for it.
        notes: what is to be known of the kit.
        budget: of GPU memory for weights that are streamed, as the config has it.
        asked: the release of TensorRT that has to build, by its major and minor version; empty: any of these majors.
    """

    name: str
    models: Mapping[str, KitModel]
    cache: str
    timing: bytes
    profiles: Sequence[Mapping[str, Sequence[Sequence[int]]]]
    batches: tuple[int, ...]
    usual_batch: int
    metrics: tuple[str, ...]
    gates: tuple[tuple[str, float], ...]
    scored_later: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    budget: str = AUTOMATIC
    asked: str = ""
