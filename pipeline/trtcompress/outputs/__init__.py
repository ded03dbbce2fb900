"""What each command prints with --json. `trtcompress schema COMMAND` prints the schema; tests keep it."""

from __future__ import annotations

from collections.abc import Mapping

from ..config import Settings
from ..outcome import BuildResult
from .builds import CacheEntries, CacheEntry, DryRun, DryStep, StepState
from .inspection import Inspection, LeftWhole, NodeCostInfo, OperatorCost, Prunable, PrunableGroup
from .machines import Diagnosis, FindingInfo, TargetInfo, TargetList
from .models import (
    EngineFile,
    FloatNode,
    ModelFile,
    QuantizeResult,
    RangesFile,
    RecoverResult,
    TensorInfo,
    model_file,
    model_size,
    quantize_result,
    recover_result,
    tensor_info,
)
from .pruning import CutBlock, CutCost, CutGroup, PruneResult
from .sensitivity import DamageInfo, SensitivityResult, sensitivity_result
from .serving import (
    InTurns,
    LoadPoint,
    PackagedModel,
    PackageResult,
    RollbackResult,
    ServeCheck,
    ServeCheckResult,
    ServingSetting,
    SwitchedModel,
    TriedSetting,
    TunedModel,
    TuneResult,
)
from .validation import BatchSpeed, OutputDifference, ValidationResult

__all__ = [
    "OUTPUTS",
    "BatchSpeed",
    "CacheEntries",
    "CacheEntry",
    "CutBlock",
    "CutCost",
    "CutGroup",
    "DamageInfo",
    "Diagnosis",
    "DryRun",
    "DryStep",
    "EngineFile",
    "FindingInfo",
    "FloatNode",
    "InTurns",
    "Inspection",
    "LeftWhole",
    "LoadPoint",
    "ModelFile",
    "NodeCostInfo",
    "OperatorCost",
    "OutputDifference",
    "PackageResult",
    "PackagedModel",
    "Prunable",
    "PrunableGroup",
    "PruneResult",
    "QuantizeResult",
    "RangesFile",
    "RecoverResult",
    "RollbackResult",
    "SensitivityResult",
    "ServeCheck",
    "ServeCheckResult",
    "ServingSetting",
    "StepState",
    "SwitchedModel",
    "TargetInfo",
    "TargetList",
    "TensorInfo",
    "TriedSetting",
    "TuneResult",
    "TunedModel",
    "ValidationResult",
    "model_file",
    "model_size",
    "quantize_result",
    "recover_result",
    "sensitivity_result",
    "tensor_info",
]

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
