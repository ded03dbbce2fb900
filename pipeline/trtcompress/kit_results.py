"""results.json of a kit, checked against the build that the kit was made of."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from pydantic import ConfigDict, Field, ValidationError

from trtcompress_engines.intervals import bootstrap_means, percentile_interval, wilson
from trtcompress_graph.errors import DataError, MissingPathError
from trtcompress_graph.measured import MetricResult, OutputParity, Speed

from .config import Settings
from .kit_sound import contradictions

MOST_BYTES = 64 << 20
Hit = Annotated[int, Field(ge=0, le=1)]


class KitName(Settings):
    """Which kit it was."""

    name: str
    target: str
    digest: str = Field(description="SHA-256 of its SHA256SUMS")


class DeviceInfo(Settings):
    """Where it ran."""

    model: str
    release: str = Field(description="of Jetson Linux; empty where it is none")
    tensorrt: str
    cuda: str = Field(description="how the device was reached: pycuda, libcudart or trtexec")
    python: str
    numpy: str


class KitMetric(Settings):
    """For each golden sample whether the reference, and whether the engine, was right."""

    name: str
    reference_hits: tuple[Hit, ...] = Field(min_length=1)
    hits: tuple[Hit, ...] = Field(min_length=1)


class KitOutputs(Settings):
    """Where the outputs of an engine on one golden batch lie: .npz, or .json as trtexec writes it."""

    golden: str = Field(description="digest of the batch")
    path: str = Field(description="from the folder of results.json")
    sha256: str


class KitGate(Settings):
    """A gate as the device judged it; the import judges anew."""

    gate: str
    limit: float
    value: float | None
    verdict: Literal["pass", "fail", "not_measured"]


class KitEngine(Settings):
    """What was measured of one engine."""

    model_config = ConfigDict(frozen=True, extra="ignore", allow_inf_nan=False)

    encoding: str
    graph_sha256: str
    sha256: str
    size_bytes: int = Field(ge=0)
    parity: tuple[OutputParity, ...]
    to_pruned: tuple[OutputParity, ...] | None
    metrics: tuple[KitMetric, ...]
    outputs: tuple[KitOutputs, ...] = Field((), description="kept where a metric is computed at the import")
    speeds: tuple[Speed, ...]
    activation_bytes: int | None
    streamed_budget: int | None = Field(None, description="bytes of weights in GPU memory, where others are streamed")
    ram_mb: float | None = Field(description="most memory in use on the device while it ran")
    power_w: float | None = Field(description="mean of the module")
    peak_power_w: float | None
    build_s: float | None = None
    left_out: tuple[str, ...] = Field((), description="of what the config asks of TensorRT's builder, and why")
    gates: tuple[KitGate, ...]


class KitResults(Settings):
    """What `./validate` of a kit wrote."""

    version: Literal[1]
    kit: KitName
    backend: Literal["tensorrt", "onnxruntime"]
    device: DeviceInfo
    golden: int = Field(ge=1, description="samples that were compared")
    usual_batch: int
    engines: tuple[KitEngine, ...] = Field(min_length=1)


def read_results(path: Path) -> KitResults:
    """Read results.json.

    Raises:
        MissingPathError: it is not there.
        DataError: it is damaged, or was not measured on a device, or contradicts itself.
    """
    again = "copy results/results.json from the device again, or run ./validate there"
    try:
        if path.stat().st_size > MOST_BYTES:
            raise DataError("too large for the results of a kit", where=str(path), hint=again)
        found = KitResults.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        raise MissingPathError("no such file", where=str(path), hint=again) from None
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        what = f"this is not what ./validate of a kit writes: {f'{where}: ' if where else ''}{first['msg']}"
        raise DataError(what, where=str(path), hint=again) from error
    if found.backend != "tensorrt":
        what = "these are numbers of ONNX Runtime, not of the device: nothing of them counts there"
        raise DataError(what, where=str(path), hint="run ./build and ./validate on the device, without --backend")
    if not found.device.cuda:  # however TensorRT is run, the kit says how
        what = "these results contradict themselves: of TensorRT by their backend, and of no GPU by their device"
        raise DataError(what, where=str(path), hint=again)
    for contradiction in contradictions(found):
        what = f"these results contradict themselves: {contradiction}"
        raise DataError(what, where=str(path), hint=again)
    return found


def metric_result(held: KitMetric, doubt: str) -> MetricResult:
    """The metric with its intervals, from what was right sample by sample."""
    before, after = (np.asarray(hits, np.float64) for hits in (held.reference_hits, held.hits))
    low, high = percentile_interval(bootstrap_means(before - after))
    return MetricResult(
        name=held.name,
        reference=float(before.mean()),
        value=float(after.mean()),
        ci=wilson(int(after.sum()), after.size),
        drop=float(before.mean() - after.mean()),
        drop_ci=(low, high),
        samples=after.size,
        doubt=doubt,
    )
