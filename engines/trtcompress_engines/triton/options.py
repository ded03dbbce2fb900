"""What the user may choose about serving; everything else follows from the engine."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from trtcompress_graph.errors import UsageError

Warmup = Literal["zero", "random", "off"]


@dataclass(frozen=True, slots=True)
class TritonOptions:
    """Choices for `config.pbtxt`.

    Attributes:
        max_batch_size: greatest batch that Triton may form. None: the greatest length of the batch axis, 8 where it
            has no range. 0: Triton forms no batches, requests carry every axis themselves.
        preferred_batch_sizes: sizes that are run at once when reached; None: usual and greatest length of the axis.
        max_queue_delay_us: how long a request may wait for others to join its batch, in microseconds.
        instances: copies of the model, on each GPU where it runs on GPUs.
        threads: threads in one ONNX Runtime operator; None: as many as the engine was measured with.
        warmup: values of the request that runs while the model loads. Random values are random *bytes* in Triton:
            floats may become NaN and indices fall outside their table.
    """

    max_batch_size: int | None = None
    preferred_batch_sizes: tuple[int, ...] | None = None
    max_queue_delay_us: int = 500
    instances: int = 1
    threads: int | None = None
    warmup: Warmup = "zero"

    def __post_init__(self) -> None:
        for name, least in (("max_batch_size", 0), ("max_queue_delay_us", 0), ("instances", 1), ("threads", 0)):
            value = getattr(self, name)
            if value is not None and value < least:
                raise UsageError(f"{value} is less than {least}", where=f"package: {name}")
        if any(size < 1 for size in self.preferred_batch_sizes or ()):
            raise UsageError("a batch has at least one sample", where="package: preferred_batch_sizes")
        if self.warmup not in ("zero", "random", "off"):
            raise UsageError(f"'{self.warmup}' is none of: zero, random, off", where="package: warmup")
