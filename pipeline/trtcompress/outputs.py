"""What each command prints with --json. `trtcompress schema COMMAND` prints the schema; tests keep it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from trtcompress_graph.encoding import QUANTIZED, PrecisionPlan
from trtcompress_graph.measured import GpuTimes
from trtcompress_graph.model import Model, TensorSpec

from .config import Settings
from .outcome import BuildResult, GateResult, MetricValue

if TYPE_CHECKING:
    from trtcompress_calibration.sensitivity import Sensitivity

    from .recovery.recover import Recovered

StepState = Literal["reuse", "run", "unknown"]
"""Unknown: what comes before it has to run; where that turns out as it was, the step is reused."""


class DryStep(Settings):
    """One step of a build."""

    step: str
    state: StepState


class DryRun(Settings):
    """What `build --dry-run` would do."""

    name: str
    steps: tuple[DryStep, ...]


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


class OperatorCost(Settings):
    """All nodes of one operator kind together."""

    op: str
    count: int
    macs: int
    parameters: int
    bytes: int


class NodeCostInfo(Settings):
    """One node."""

    node: str
    op: str
    macs: int
    parameters: int


class PrunableGroup(Settings):
    """Units that can be cut one for another."""

    group: str
    kind: str
    units: int = Field(description="how many there are")
    parts: int = Field(description="equal parts that they fall into; a cut takes whole parts")
    macs: float = Field(description="multiply-accumulates that go when one unit goes")
    parameters: float = Field(description="parameters that go when one unit goes")
    weights: tuple[str, ...] = Field(description="what gets smaller together: name[axis]")


class LeftWhole(Settings):
    """What cannot be cut."""

    why: str
    weights: tuple[str, ...] = Field(description="name[axis]")


class Prunable(Settings):
    """What can be cut from a model, of its simplified form."""

    groups: tuple[PrunableGroup, ...]
    left: tuple[LeftWhole, ...]


class Inspection(Settings):
    """What `inspect` found."""

    path: str
    sha256: str
    opset: int
    inputs: tuple[TensorInfo, ...]
    outputs: tuple[TensorInfo, ...]
    shapes: dict[str, tuple[int, ...]] = Field(description="input shapes that the costs are for")
    macs: int
    parameters: int
    bytes: int
    operators: tuple[OperatorCost, ...]
    heaviest: tuple[NodeCostInfo, ...]
    quantizable_nodes: int = Field(description="nodes that INT8 kernels exist for")
    quantizable_macs: float = Field(description="their share of the MACs, 0 to 1")
    quantized_already: tuple[str, ...] = Field(description="nodes that are quantized already")
    prunable: Prunable | None = Field(description="with --groups; else null")


class CutCost(Settings):
    """What one pass costs, and the size of the ONNX file."""

    macs: int
    parameters: int
    bytes: int


class CutGroup(Settings):
    """What was cut of a group."""

    group: str
    kind: str
    units: int
    kept: int
    damage: float | None = Field(description="what the output lost when this group alone was cut so, if measured")
    weights: tuple[str, ...] = Field(description="name[axis]")


class CutBlock(Settings):
    """A residual block that went whole."""

    block: str
    damage: float | None
    nodes: tuple[str, ...]


class PruneResult(Settings):
    """The model that `prune` wrote, and what was cut."""

    path: str
    sha256: str
    inputs: tuple[TensorInfo, ...]
    outputs: tuple[TensorInfo, ...]
    plan: str | None = Field(description="the plan that was written or applied")
    shapes: dict[str, tuple[int, ...]] = Field(description="input shapes that the costs are for")
    before: CutCost = Field(description="of the simplified model")
    after: CutCost
    speedup: float | None = Field(description="measured in ONNX Runtime; null where it was not asked for")
    importance: str
    allocation: str
    multiple: int
    reconstruct: bool
    samples: int = Field(description="that the weights were solved anew with")
    groups: tuple[CutGroup, ...]
    blocks: tuple[CutBlock, ...]
    notes: tuple[str, ...]


class RecoverResult(ModelFile):
    """The model that `recover` wrote, and what the training came to."""

    steps: int = Field(description="that were made; 0 with a training loop of the user's own")
    best_step: int = Field(description="after which the student was best; 0: as it came")
    lr: float
    samples: int
    loss_before: float | None = Field(description="at the outputs, on samples that were held out")
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


class DamageInfo(Settings):
    """What one node or tensor costs when it alone is quantized."""

    name: str
    kind: Literal["node", "activation", "weight"]
    op: str = Field(description="operator of the node, or of the first that reads the tensor")
    nodes: tuple[str, ...] = Field(description="the node, or those that read the tensor quantized")
    damage: float = Field(description="squared error of the outputs over their variance, the mean of all outputs")


class SensitivityResult(Settings):
    """What `sensitivity` measured; the greatest damage first."""

    encoding: str
    samples: int
    outputs: tuple[str, ...] = Field(description="tensors that were compared")
    nodes: tuple[DamageInfo, ...]
    tensors: tuple[DamageInfo, ...]


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


class OutputDifference(Settings):
    """How far one output is from the reference."""

    output: str
    max_abs: float
    max_rel: float
    cosine: float
    snr_db: float
    scale: float | None = Field(None, description="the factor by which the reference comes nearest to it")


class BatchSpeed(Settings):
    """Times at one batch size, in milliseconds."""

    batch: int
    p50: float
    p90: float
    p99: float
    throughput: float
    reference_p50: float
    speedup: float
    gpu: GpuTimes | None = Field(description="the engine and the copies alone; null where no GPU ran it")


class ValidationResult(Settings):
    """What `validate` found."""

    verdict: Literal["pass", "fail", "not_measured"]
    emulated: bool
    outputs: tuple[OutputDifference, ...]
    metrics: dict[str, MetricValue]
    speeds: tuple[BatchSpeed, ...]
    gates: tuple[GateResult, ...]
    notes: tuple[str, ...]


class PackagedModel(Settings):
    """One served model."""

    target: str
    format: str
    repository: str
    model: str


class PackageResult(Settings):
    """What `package` wrote."""

    packages: tuple[PackagedModel, ...]
    notes: tuple[str, ...]


class ServingSetting(Settings):
    """What `tune` may change of a `config.pbtxt`."""

    instances: int
    threads: int | None = Field(description="of ONNX Runtime in one operator; null where the model has no such setting")
    batches: tuple[int, ...] | None = Field(description="that Triton prefers; [] is any size, null no dynamic batching")
    delay_us: int


class LoadPoint(Settings):
    """What a number of clients got, each with one request on its way; times in milliseconds."""

    clients: int
    throughput: float = Field(description="requests a second")
    p50: float
    p90: float
    p99: float
    requests: int
    stable: bool = Field(description="three windows in a row agreed")


class TriedSetting(Settings):
    """A setting and its curve."""

    setting: ServingSetting
    points: tuple[LoadPoint, ...]
    why: str = Field(description="empty, or why it could not be served so")


class InTurns(Settings):
    """The winner and what was there, loaded together and asked in turns."""

    former: LoadPoint
    winner: LoadPoint
    ratios: tuple[float, ...] = Field(description="of throughput, turn by turn")
    ratio: float = Field(description="their median")


class TunedModel(Settings):
    """What `tune` came to for one model; its tuning.json."""

    model: str
    replaced: bool = Field(description="whether config.pbtxt was replaced; the old one is config.pbtxt.before then")
    why: str
    limit_ms: float = Field(description="of p99")
    limit_why: str
    former: ServingSetting
    winner: ServingSetting = Field(description="the best but for the former; itself where nothing came near")
    in_turns: InTurns | None = Field(description="null where nothing came near to what was there")
    complete: bool = Field(description="false: time was up before all was tried")
    samples: int = Field(description="in a request")
    seconds: float = Field(description="length of a window")
    server: str
    cpu: str
    cores: int
    tried: tuple[TriedSetting, ...] = Field(description="what was there comes first")


class TuneResult(Settings):
    """What `tune` came to."""

    repository: str
    models: tuple[TunedModel, ...]
    notes: tuple[str, ...]


class SwitchedModel(Settings):
    """A served model and its versions."""

    model: str
    version: int = Field(description="that is served now")
    former: int = Field(description="that was served before")
    versions: tuple[int, ...] = Field(description="that lie there")


class RollbackResult(Settings):
    """What `rollback` switched: the model, and of an ensemble first its towers."""

    repository: str
    models: tuple[SwitchedModel, ...]


class ServeCheck(Settings):
    """One thing that `serve-check` looked at."""

    model: str
    check: str
    verdict: Literal["pass", "fail", "not_measured"]
    detail: str = Field(description="what was found; of a wrong request the server's words")


class ServeCheckResult(Settings):
    """What `serve-check` found."""

    verdict: Literal["pass", "fail", "not_measured"]
    repository: str
    server: str = Field(description="version that the server says")
    seed: int
    requests: int = Field(description="made up for each model")
    checks: tuple[ServeCheck, ...]


class TargetInfo(Settings):
    """A device."""

    name: str
    title: str
    how: Literal["cpu", "aot", "local", "kit"]
    aliases: tuple[str, ...]
    compute_capabilities: tuple[str, ...]
    memory_gb: float | None
    dla: int
    int8: bool
    precisions: tuple[str, ...] = Field(description="what may stand behind the colon of a target")
    tensorrt: dict[str, str]


class TargetList(Settings):
    """All devices."""

    targets: tuple[TargetInfo, ...]


class FindingInfo(Settings):
    """One thing that doctor looked at."""

    what: str
    ok: bool
    detail: str
    todo: str


class Diagnosis(Settings):
    """What doctor found."""

    findings: tuple[FindingInfo, ...]


class CacheEntry(Settings):
    """One artifact."""

    key: str
    stage: str
    size_bytes: int
    used: float = Field(description="seconds since 1970")


class CacheEntries(Settings):
    """Entries listed, removed or damaged."""

    store: str
    entries: tuple[CacheEntry, ...]


OUTPUTS: Mapping[str, type[Settings]] = {
    "build": BuildResult,
    "build-dry-run": DryRun,
    "inspect": Inspection,
    "export": ModelFile,
    "simplify": ModelFile,
    "prune": PruneResult,
    "recover": RecoverResult,
    "sparsify": ModelFile,
    "equalize": ModelFile,
    "calibrate": RangesFile,
    "sensitivity": SensitivityResult,
    "quantize": QuantizeResult,
    "compile": EngineFile,
    "validate": ValidationResult,
    "package": PackageResult,
    "import-results": BuildResult,
    "serve-check": ServeCheckResult,
    "tune": TuneResult,
    "rollback": RollbackResult,
    "targets": TargetList,
    "doctor": Diagnosis,
    "cache": CacheEntries,
}
"""Command -> what it prints with --json."""


def tensor_info(spec: TensorSpec) -> TensorInfo:
    """An input or output as it is printed."""
    return TensorInfo(name=spec.name, dtype=spec.dtype, shape=spec.shape)


def sensitivity_result(found: Sensitivity) -> SensitivityResult:
    """Damages as they are printed."""
    nodes, tensors = (
        tuple(DamageInfo(name=d.name, kind=d.kind, op=d.op, nodes=d.nodes, damage=d.damage) for d in damages)
        for damages in (found.nodes, found.tensors)
    )
    return SensitivityResult(
        encoding=found.encoding, samples=found.samples, outputs=found.outputs, nodes=nodes, tensors=tensors
    )


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
