"""The fingerprint of a step: everything that its result depends on, and nothing else."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from trtcompress_graph.cores import usable_cores

from . import __version__
from .codec import identity
from .digests import digest_of, library_version
from .plan import Step
from .stage import Marker


def fingerprint(step: Step, inputs: Mapping[str, Any]) -> str:
    """SHA-256 (hex) over stage, settings, inputs by content, library versions and, where it matters, the machine."""
    stage = step.stage
    parts: dict[str, Any] = {
        "trtcompress": __version__,
        "stage": [stage.name, stage.version],
        "settings": step.settings.model_dump(mode="json"),
        "inputs": {name: identity(value) for name, value in inputs.items() if not isinstance(value, Marker)},
        "libs": {name: library_version(name) for name in stage.libs},
    }
    further = step.settings.versions()
    if further:
        parts["versions"] = dict(further)
    if stage.device(inputs):
        parts["device"] = device()
    return digest_of(parts)


def device() -> dict[str, Any]:
    """The machine as far as it shapes speed and choice of kernels."""
    from trtcompress_engines.cpu import cpu_features
    from trtcompress_engines.gpu.present import gpu_names

    gpus = gpu_names()
    return {"cpu": asdict(cpu_features()), "cores": usable_cores()} | ({"gpus": gpus} if gpus else {})
