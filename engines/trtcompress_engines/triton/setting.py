"""What `tune` may change of a model's configuration, and what it tries."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from .modelconfig import parameter

THREADS = "intra_op_thread_count"
"""Parameter of `config.pbtxt`: threads in one operator of ONNX Runtime; 0: one a core."""

DELAYS_US = (0, 100, 500, 2000)

MOST_ON_GPU = 8

_ALONE = (1,)
"""Sizes that the batcher prefers where it is off: without a delay each request then runs by itself, whatever it brings.

Nothing less holds: Triton turns the batcher on where a model of these backends takes batches and does not name one.
"""
_COMPLETED = frozenset({"onnxruntime", "onnxruntime_onnx", "tensorrt", "tensorrt_plan"})
"""Backends, and what Triton calls them as platforms, that complete a configuration so; where neither is named, Triton
goes by the model's file, which is theirs."""


@dataclass(frozen=True, slots=True)
class Setting:
    """How a model is served.

    Attributes:
        instances: copies of the model, on each GPU where it runs on GPUs.
        threads: of each in one operator; None where the model has no such setting.
        batches: sizes that the dynamic batcher prefers; empty: as large as the queue allows; None: it is off.
        delay_us: how long a request may wait for others, in microseconds.
    """

    instances: int
    threads: int | None
    batches: tuple[int, ...] | None
    delay_us: int

    def __str__(self) -> str:
        threads = "" if self.threads is None else f", {self.threads or 'all'} threads"
        if self.batches is None:
            batches = "no dynamic batching"
        else:
            sizes = "/".join(map(str, self.batches)) or "any"
            batches = f"batches of {sizes}, {self.delay_us} us"
        return f"{self.instances} x{threads}, {batches}".replace(" x, ", " instances, ")


def setting_of(config: Any) -> Setting:
    """What a configuration says."""
    threads = parameter(config, THREADS)
    return Setting(
        instances=max(1, config.instance_group[0].count) if config.instance_group else 1,
        threads=int(threads) if threads.isdecimal() else None,
        batches=_batches(config),
        delay_us=int(config.dynamic_batching.max_queue_delay_microseconds),
    )


def _batches(config: Any) -> tuple[int, ...] | None:
    batching = config.dynamic_batching
    if not config.HasField("dynamic_batching"):
        return () if _is_completed(config) else None
    sizes = tuple(batching.preferred_batch_size)
    return None if sizes == _ALONE and not batching.max_queue_delay_microseconds else sizes


def _is_completed(config: Any) -> bool:
    """Whether Triton turns the batcher on where it is not named."""
    named = {config.backend, config.platform} - {""}
    return bool(config.max_batch_size > 1 and (not named or named & _COMPLETED))


def with_setting(config: Any, setting: Setting) -> Any:
    """A copy of the configuration that says this; all else in it stays."""
    made = type(config)()
    made.CopyFrom(config)
    if not made.instance_group:
        made.instance_group.add()
    made.instance_group[0].count = setting.instances
    if setting.threads is not None:
        made.parameters[THREADS].string_value = str(setting.threads)
    if setting.batches is None and not _is_completed(made):
        made.ClearField("dynamic_batching")
    else:
        made.dynamic_batching.SetInParent()
        del made.dynamic_batching.preferred_batch_size[:]
        made.dynamic_batching.preferred_batch_size.extend(_ALONE if setting.batches is None else setting.batches)
        made.dynamic_batching.max_queue_delay_microseconds = setting.delay_us
    return made


@dataclass(frozen=True, slots=True)
class Space:
    """What can be tried for a model.

    Attributes:
        max_batch: that Triton may form; it stays as it is, since clients count on it.
        cores: of this machine; instances times threads are at most that many.
        limit_us: the limit of the latency: no request may wait that long.
    """

    max_batch: int
    cores: int
    limit_us: float

    def copies(self, best: Setting) -> list[Setting]:
        """The best so far with other numbers of instances and threads."""
        powers = [2**power for power in range(self.cores.bit_length()) if 2**power <= self.cores]
        counts = sorted({*powers, self.cores})
        if best.threads is None:
            return [replace(best, instances=count) for count in counts if count <= MOST_ON_GPU]
        return [
            replace(best, instances=count, threads=threads)
            for count in counts
            for threads in counts
            if count * threads <= self.cores
        ]

    def batches(self, best: Setting) -> list[Setting]:
        """The best so far with other batches; none where Triton forms none."""
        if self.max_batch < 2:
            return []
        sizes = [2**power for power in range(1, self.max_batch.bit_length()) if 2**power < self.max_batch]
        off = replace(best, batches=None, delay_us=0)
        return [off, *(replace(best, batches=kind) for kind in ((), *((size,) for size in (*sizes, self.max_batch))))]

    def delays(self, best: Setting) -> list[Setting]:
        """The best so far with other delays; none where it forms no batches."""
        if best.batches is None:
            return []
        return [replace(best, delay_us=delay) for delay in DELAYS_US if delay < self.limit_us]
