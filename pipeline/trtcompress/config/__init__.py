"""The config of a build, one frozen settings model a section; `trtcompress schema` prints its JSON Schema."""

from __future__ import annotations

from .build import BuildConfig, Loaded
from .devices import (
    ONE_A_DEVICE,
    DeviceSettings,
    Precision,
    TargetSettings,
    TensorRTSettings,
    TimingCacheSettings,
    as_target,
)
from .forms import Settings, as_section, as_source
from .judging import GateSettings, MeasureSettings
from .packing import PackageFormat, TritonSettings
from .pruning import Allocation, Importance, PruneSettings, SparsifySettings
from .quantizing import Block, Equalization, Method, QuantizeSettings, Rounding, WeightMethod
from .sources import DataSettings, DataSource, ModelSettings, PreprocessSettings
from .training import RecoverSettings, TrainingPrecision

__all__ = [
    "ONE_A_DEVICE",
    "Allocation",
    "Block",
    "BuildConfig",
    "DataSettings",
    "DataSource",
    "DeviceSettings",
    "Equalization",
    "GateSettings",
    "Importance",
    "Loaded",
    "MeasureSettings",
    "Method",
    "ModelSettings",
    "PackageFormat",
    "Precision",
    "PreprocessSettings",
    "PruneSettings",
    "QuantizeSettings",
    "RecoverSettings",
    "Rounding",
    "Settings",
    "SparsifySettings",
    "TargetSettings",
    "TensorRTSettings",
    "TimingCacheSettings",
    "TrainingPrecision",
    "TritonSettings",
    "WeightMethod",
    "as_section",
    "as_source",
    "as_target",
]
