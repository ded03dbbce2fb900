"""ONNX files and engines: what the commands print that write one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import Field

from trtcompress_graph.encoding import QUANTIZED, PrecisionPlan
from trtcompress_graph.model import Model, TensorSpec

from ..config import Settings

if TYPE_CHECKING:
    from ..recovery.recover import Recovered


class TensorInfo(Settings):
    """An input or output of a model."""

    name: str
    dtype: str
    shape: tuple[int | str, ...] = Field(description="a dynamic axis by its name")


class ModelFile(Settings):
    """An ONNX file that a command wrote."""

    path: str
    sha256: str
    size_bytes: int
    inputs: tuple[TensorInfo, ...]
    outputs: tuple[TensorInfo, ...]


class FloatNode(Settings):
    """A node that was not quantized."""

    node: str
    op: str
    precision: str
    reason: str = Field(description="empty where the encoding prefers that precision")


class QuantizeResult(ModelFile):
    """The model that `quantize` wrote, and what its nodes run in."""

    encoding: str
    precisions: dict[str, int] = Field(description="how many nodes run in each precision")
    left: tuple[FloatNode, ...] = Field(description="nodes that were not quantized, and why")
    notes: tuple[str, ...]


class RecoverResult(ModelFile):
    """The model that `recover` wrote, and what the training came to."""

    steps: int = Field(description="that were made; 0 with a training loop of the user's own")
    best_step: int = Field(
        description="after which the student was best; 0: before the first, as it came, or as blocks or trials left it"
    )
    lr: float
    samples: int
    loss_before: float | None = Field(
        description="on samples that were held out, of the student as it came; by losses that look at no output, as "
        "blocks left it"
    )
    loss_after: float | None
    metric_before: float | None = Field(description="the metric on the same samples, where there are labels")
    metric_after: float | None
    notes: tuple[str, ...]


class RangesFile(Settings):
    """The ranges.json that `calibrate` wrote."""

    path: str
    model_sha256: str
    method: str
    samples: int
    tensors: int


class EngineFile(Settings):
    """The engine that `compile` built, or the graph that it checked."""

    target: str
    backend: str
    encoding: str
    engine: str
    sha256: str
    size_bytes: int
    built: bool
    reproducible: bool
    details: dict[str, str]


def tensor_info(spec: TensorSpec) -> TensorInfo:
    """An input or output as it is printed."""
    return TensorInfo(name=spec.name, dtype=spec.dtype, shape=spec.shape)


def quantize_result(made: Model, plan: PrecisionPlan, notes: Iterable[str]) -> QuantizeResult:
    """A quantized model as it is printed."""
    left = (node for node in plan.nodes if node.precision not in QUANTIZED)
    return QuantizeResult(
        **model_file(made).model_dump(),
        encoding=plan.encoding,
        precisions=dict(Counter(node.precision for node in plan.nodes)),
        left=tuple(FloatNode(node=n.node, op=n.op, precision=n.precision, reason=n.reason) for n in left),
        notes=tuple(notes),
    )


def recover_result(made: Recovered) -> RecoverResult:
    """What a training came to, as it is printed."""
    return RecoverResult(
        **model_file(made).model_dump(),
        steps=made.steps,
        best_step=made.best_step,
        lr=made.rate,
        samples=made.samples,
        loss_before=made.before,
        loss_after=made.after,
        metric_before=made.metric_before,
        metric_after=made.metric,
        notes=made.notes,
    )


def model_file(model: Model) -> ModelFile:
    """A model as it is printed."""
    return ModelFile(
        path=str(model.path),
        sha256=model.digest,
        size_bytes=model_size(model),
        inputs=tuple(map(tensor_info, model.inputs)),
        outputs=tuple(map(tensor_info, model.outputs)),
    )


def model_size(model: Model) -> int:
    """Bytes of an ONNX file with its external data."""
    import onnx

    from trtcompress_graph.protos import external_locations

    names = external_locations(onnx.load(model.path, load_external_data=False))
    return sum(path.stat().st_size for path in (model.path, *(model.path.parent / Path(name) for name in names)))
